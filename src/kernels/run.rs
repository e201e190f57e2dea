//! Running a program on tensors.
#![allow(unsafe_code)]

use super::lanes;
use super::memory::{Source, Target};
use super::plan::Plan;
use super::program::{Kind, Op, Program};

/// The tensors of a run, checked against each other and against the plan.
pub struct Run<'r> {
    program: &'r Program,
    plan: &'r Plan,
    sources: &'r [Source<'r>],
    targets: &'r [Target<'r>],
}

impl<'r> Run<'r> {
    /// Fails where tensors do not have the sizes of the plan or lie upon each other in another way than
    /// element on element.
    pub fn new(
        program: &'r Program,
        plan: &'r Plan,
        sources: &'r [Source<'r>],
        targets: &'r [Target<'r>],
    ) -> Result<Run<'r>, String> {
        let outputs = plan.outputs();
        let count = |dims: &Vec<usize>| dims.iter().product::<usize>();
        let fits = |(target, dims): (&Target<'_>, &Vec<usize>)| target.elements() == count(dims);
        let kinds = sources.iter().map(Source::kind);
        if targets.len() != outputs.len()
            || !targets.iter().zip(outputs).all(fits)
            || !kinds.eq(program.inputs.iter().copied())
        {
            return Err("tensors of other sizes or kinds than planned".to_owned());
        }
        for (at, target) in targets.iter().enumerate() {
            if targets[..at].iter().any(|other| other.overlaps(target)) {
                return Err("two results lie in the same memory".to_owned());
            }
        }
        for (at, source) in sources.iter().enumerate() {
            let mut over = targets.iter().zip(&program.outputs);
            match over.find(|(target, _)| source.overlaps(target)) {
                None => {}
                // Element on element: what a row or a piece writes, only it reads, and before.
                Some((target, result)) if source.is(target) && plan.covers(at, *result) => {}
                Some(_) => return Err("a result lies in the memory of another operand".to_owned()),
            }
        }
        Ok(Run {
            program,
            plan,
            sources,
            targets,
        })
    }

    /// Computes one of the plan's tasks, with the widest instructions that the processor has. Every task
    /// is computed once; different ones may be computed at the same time.
    ///
    /// # Safety
    /// No task is computed twice at the same time.
    pub unsafe fn task(&self, task: usize) -> Result<(), String> {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
        {
            // SAFETY: the processor has the instructions.
            return unsafe { self.task_avx2(task) };
        }
        self.rows::<false>(task)
    }

    /// As on a processor without wide instructions.
    #[cfg(test)]
    pub(super) unsafe fn narrow_task(&self, task: usize) -> Result<(), String> {
        self.rows::<false>(task)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn task_avx2(&self, task: usize) -> Result<(), String> {
        self.rows::<true>(task)
    }

    #[inline(always)]
    fn rows<const FUSED: bool>(&self, task: usize) -> Result<(), String> {
        let (plan, tasks) = (self.plan, self.plan.tasks());
        let units = plan.units();
        let (first, end) = (units * task / tasks, units * (task + 1) / tasks);
        if first >= end {
            return Ok(());
        }
        let mut scratch = Scratch::new(self.program, plan);
        let mut cursor = Cursor::new(plan, first / plan.pieces);
        let mut piece = first % plan.pieces;
        for _ in first..end {
            let start = piece * plan.piece;
            self.unit::<FUSED>(&mut scratch, &cursor, start)?;
            piece += 1;
            if piece == plan.pieces {
                piece = 0;
                cursor.advance(plan);
            }
        }
        Ok(())
    }

    /// One row, or a piece of one from `start` on.
    #[inline(always)]
    fn unit<const FUSED: bool>(
        &self,
        scratch: &mut Scratch,
        cursor: &Cursor,
        start: usize,
    ) -> Result<(), String> {
        let plan = self.plan;
        // What a value has of this piece: where it starts in its row, and how much.
        let part = |value: usize| match plan.lengths[value] {
            length if plan.pieces == 1 || length == 1 => (0, length),
            length => (start, plan.piece.min(length - start)),
        };
        let inputs = self.program.inputs.len();
        for (at, source) in self.sources.iter().enumerate() {
            if source.kind() != Kind::F32 {
                let (from, length) = part(at);
                let copy = &mut scratch.copies[at];
                source.load(cursor.offsets[at] + from, &mut copy[..length]);
            }
        }
        for (at, step) in self.program.steps.iter().enumerate() {
            if step.op == Op::Number {
                continue;
            }
            let slot = plan.slots[at];
            let (_, length) = part(inputs + at);
            let mut into = std::mem::take(&mut scratch.slots[slot]);
            let found = lanes::step::<FUSED>(step, &mut into[..length], |operand| {
                let value = step.operands[operand] as usize;
                let (from, length) = part(value);
                match value.checked_sub(inputs) {
                    Some(step) => &scratch.slots[plan.slots[step]][..length],
                    None if self.sources[value].kind() != Kind::F32 => {
                        &scratch.copies[value][..length]
                    }
                    // SAFETY: what is not copied holds floats. Of elements that a target covers,
                    // this unit alone writes these, and only when no step reads any more.
                    None => unsafe {
                        self.sources[value].slice(cursor.offsets[value] + from, length)
                    },
                }
            });
            scratch.slots[slot] = into;
            found?;
        }
        for (target, value) in self.targets.iter().zip(&self.program.outputs) {
            let value = *value as usize;
            let (from, length) = part(value);
            let at = cursor.row * plan.lengths[value] + from;
            let found = &scratch.slots[plan.slots[value - inputs]][..length];
            // SAFETY: rows and pieces are computed once, so that others write elsewhere; slices of
            // sources have gone with the steps.
            unsafe { target.store(at, found) };
        }
        Ok(())
    }
}

/// Where steps of a task leave their results.
struct Scratch {
    slots: Vec<Vec<f32>>,
    /// Of the sources that are copied.
    copies: Vec<Vec<f32>>,
}

impl Scratch {
    fn new(program: &Program, plan: &Plan) -> Scratch {
        let mut slots = vec![vec![0.0; plan.piece]; plan.slot_count];
        for (slot, step) in plan.slots.iter().zip(&program.steps) {
            if step.op == Op::Number {
                let number = f32::from_bits(step.numbers[0] as u32);
                slots[*slot] = vec![number];
            }
        }
        Scratch {
            slots,
            copies: vec![vec![0.0; plan.piece]; program.inputs.len()],
        }
    }
}

/// A row, and where it starts in every operand.
struct Cursor {
    row: usize,
    index: Vec<usize>,
    offsets: Vec<usize>,
}

impl Cursor {
    fn new(plan: &Plan, row: usize) -> Cursor {
        let mut rest = row;
        let mut index = vec![0; plan.lead.len()];
        for (index, size) in index.iter_mut().zip(&plan.lead).rev() {
            *index = rest % size;
            rest /= size;
        }
        let offset = |strides: &Vec<usize>| {
            let axes = index.iter().zip(strides);
            axes.map(|(index, stride)| index * stride).sum()
        };
        Cursor {
            row,
            offsets: plan.strides.iter().map(offset).collect(),
            index,
        }
    }

    fn advance(&mut self, plan: &Plan) {
        self.row += 1;
        for axis in (0..self.index.len()).rev() {
            self.index[axis] += 1;
            let is_last = self.index[axis] == plan.lead[axis];
            for (offset, strides) in self.offsets.iter_mut().zip(&plan.strides) {
                *offset += strides[axis];
                if is_last {
                    *offset -= strides[axis] * plan.lead[axis];
                }
            }
            if !is_last {
                return;
            }
            self.index[axis] = 0;
        }
    }
}
