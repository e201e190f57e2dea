//! A program fitted to the sizes of its operands.

use super::program::{Op, Program, Step};

/// Rows of elementwise programs are computed in pieces of so many elements: a few of them fit into
/// the memory that is closest to a processor.
const PIECE: usize = 1024;
/// What is worth a thread of its own, in steps on an element.
const WORTHWHILE: usize = 1 << 15;
/// More parts than threads: a thread that is late leaves its parts to others.
const MOST_TASKS: usize = 16;
/// The longest row with an index into it: every index is a float.
const LONGEST: usize = 1 << 24;

/// Where to find what, for operands of certain sizes.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Sizes of the axes before a row, outermost first, and how far apart an operand's elements
    /// are along them; 0 where it is stretched.
    pub(super) lead: Vec<usize>,
    pub(super) strides: Vec<Vec<usize>>,
    /// Of every value.
    pub(super) lengths: Vec<usize>,
    /// Pieces of a row.
    pub(super) pieces: usize,
    /// Elements of a piece, but for the last one.
    pub(super) piece: usize,
    /// Where a step leaves its result, by step; results that are not needed together share.
    pub(super) slots: Vec<usize>,
    pub(super) slot_count: usize,
    /// The longest value in every slot.
    pub(super) longest: usize,
    outputs: Vec<Vec<usize>>,
    tasks: usize,
}

impl Plan {
    /// Sizes of the operands, outermost axis first. Fails for sizes that do not fit together, in
    /// words that name the sizes.
    pub fn new(program: &Program, operands: &[Vec<usize>]) -> Result<Plan, String> {
        if operands.len() != program.inputs.len() {
            let wanted = program.inputs.len();
            return Err(format!("{} operands, not {wanted}", operands.len()));
        }
        let split = |dims: &Vec<usize>| match dims.split_last() {
            Some((last, lead)) => (lead.to_vec(), *last),
            None => (Vec::new(), 1),
        };
        let (leads, lasts): (Vec<Vec<usize>>, Vec<usize>) = operands.iter().map(split).unzip();
        let lead = broadcast(&leads)?;
        let lengths = lengths(program, &lasts)?;
        let longest = lengths.iter().copied().max().unwrap_or(1);
        let outputs = program.outputs.iter();
        let rank = operands.iter().map(Vec::len).max().unwrap_or(0);
        let output = |value: &u32| match rank {
            0 => Vec::new(),
            _ => [&lead[..], &[lengths[*value as usize]]].concat(),
        };
        let outputs: Vec<Vec<usize>> = outputs.map(output).collect();
        let (slots, slot_count) = slots(program);
        let mut plan = Plan {
            strides: strides(&lead, &leads, &lasts),
            lead,
            pieces: 1,
            piece: longest,
            lengths,
            slots,
            slot_count,
            longest,
            outputs,
            tasks: 0,
        };
        if program.is_elementwise() && plan.is_even(program) {
            plan.cut_rows(program, &lasts)?;
        } else {
            plan.join_axes();
        }
        let work = plan.units() * plan.piece * program.steps.len().max(1);
        let worthwhile = work.div_ceil(WORTHWHILE).clamp(1, MOST_TASKS);
        plan.tasks = worthwhile.min(plan.units());
        Ok(plan)
    }

    /// Sizes of the results.
    pub fn outputs(&self) -> &[Vec<usize>] {
        &self.outputs
    }

    /// How many parts there are that can be computed at the same time.
    pub fn tasks(&self) -> usize {
        self.tasks
    }

    pub(super) fn units(&self) -> usize {
        self.lead.iter().product::<usize>() * self.pieces
    }

    /// Whether every element of an operand lies where the same element of a result lies.
    pub(super) fn covers(&self, operand: usize, result: u32) -> bool {
        let mut expected = self.lengths[operand];
        let strides = self.strides[operand].iter().zip(&self.lead).rev();
        let mut axes = strides.map(|(stride, size)| {
            let fits = *stride == expected || *size == 1;
            expected *= size;
            fits
        });
        axes.all(|fits| fits) && self.lengths[operand] == self.lengths[result as usize]
    }

    /// Whether all that is written is as long as the longest rows, and no operand of another length
    /// but 1.
    fn is_even(&self, program: &Program) -> bool {
        let has_length = |value: &u32| self.lengths[*value as usize] == self.longest;
        let inputs = &self.lengths[..program.inputs.len()];
        let fits = |length: &usize| *length == 1 || *length == self.longest;
        program.outputs.iter().all(has_length) && inputs.iter().all(fits)
    }

    /// Counts the axis of rows among those before it, joins what can be joined, and makes pieces of
    /// what is then the last axis. Leaves the plan as it is where results would not be whole.
    fn cut_rows(&mut self, program: &Program, lasts: &[usize]) -> Result<(), String> {
        let mut joined = self.clone();
        joined.lead.push(self.longest);
        for (strides, last) in joined.strides.iter_mut().zip(lasts) {
            strides.push(usize::from(*last == self.longest && *last != 1));
        }
        joined.join_axes();
        let row = joined.lead.pop().unwrap_or(1);
        let last_strides = joined.strides.iter_mut().map(|strides| strides.pop());
        let lasts: Vec<usize> = last_strides
            .map(|stride| if stride == Some(0) { 1 } else { row })
            .collect();
        joined.lengths = lengths(program, &lasts)?;
        joined.longest = row;
        if joined.is_even(program) {
            joined.piece = row.clamp(1, PIECE);
            joined.pieces = row.div_ceil(joined.piece);
            *self = joined;
        }
        Ok(())
    }

    /// Joins neighbouring axes that are one for every operand.
    fn join_axes(&mut self) {
        let mut axis = self.lead.len();
        while axis > 1 {
            axis -= 1;
            let inner = self.lead[axis];
            let is_one = |strides: &Vec<usize>| {
                inner == 1 || self.lead[axis - 1] == 1 || strides[axis - 1] == strides[axis] * inner
            };
            if !self.strides.iter().all(is_one) {
                continue;
            }
            let outer_is_one = self.lead[axis - 1] == 1;
            for strides in &mut self.strides {
                // Of an axis of size 1 the stride says nothing.
                let kept = if inner == 1 && !outer_is_one {
                    strides[axis - 1]
                } else {
                    strides[axis]
                };
                strides[axis - 1] = kept;
                strides.remove(axis);
            }
            self.lead[axis - 1] *= inner;
            self.lead.remove(axis);
        }
    }
}

/// The sizes that all are stretched to; axes are counted from the end.
fn broadcast(all: &[Vec<usize>]) -> Result<Vec<usize>, String> {
    let rank = all.iter().map(Vec::len).max().unwrap_or(0);
    let mut found = vec![1; rank];
    for dims in all {
        let ahead = rank - dims.len();
        for (found, size) in found[ahead..].iter_mut().zip(dims) {
            match (*found, *size) {
                (_, 1) => {}
                (1, size) => *found = size,
                (own, size) if own == size => {}
                (own, size) => return Err(format!("sizes {own} and {size} do not go together")),
            }
        }
    }
    Ok(found)
}

fn strides(lead: &[usize], leads: &[Vec<usize>], lasts: &[usize]) -> Vec<Vec<usize>> {
    let all = leads.iter().zip(lasts);
    all.map(|(dims, last)| {
        let ahead = lead.len() - dims.len();
        let mut strides = vec![0; lead.len()];
        let mut stride = *last;
        for axis in (0..dims.len()).rev() {
            if dims[axis] != 1 {
                strides[ahead + axis] = stride;
            }
            stride *= dims[axis];
        }
        strides
    })
    .collect()
}

/// The length of every value.
fn lengths(program: &Program, lasts: &[usize]) -> Result<Vec<usize>, String> {
    let mut lengths = lasts.to_vec();
    for step in &program.steps {
        let own: Vec<usize> = step.operands.iter().map(|v| lengths[*v as usize]).collect();
        lengths.push(length(step, &own)?);
    }
    Ok(lengths)
}

fn length(step: &Step, operands: &[usize]) -> Result<usize, String> {
    let only_one = |slot: usize| match operands[slot] {
        1 => Ok(()),
        other => Err(format!("{other} elements where one is asked for")),
    };
    match step.op {
        Op::Number => Ok(1),
        Op::Sum | Op::Mean | Op::Largest => Ok(1),
        Op::Softmax | Op::LogSoftmax => Ok(operands[0]),
        Op::Concat => Ok(operands.iter().sum()),
        Op::Slice => {
            let [start, end] = step.numbers.map(usize::try_from);
            match (start, end) {
                (Ok(start), Ok(end)) if start <= end && end <= operands[0] => Ok(end - start),
                _ => Err(format!("a row of {} has no such part", operands[0])),
            }
        }
        Op::Pick | Op::AddAt if operands[0] > LONGEST => {
            Err(format!("a row of {} elements is too long", operands[0]))
        }
        Op::Pick => only_one(1).map(|()| 1),
        Op::AddAt => {
            only_one(1)?;
            only_one(2)?;
            Ok(operands[0])
        }
        _ => {
            let rows: Vec<Vec<usize>> = operands.iter().map(|length| vec![*length]).collect();
            Ok(broadcast(&rows)?[0])
        }
    }
}

/// A place for the result of every step, and how many places there are. A place is used again when
/// what lies there is not read any more, but never for a step that still reads it.
fn slots(program: &Program) -> (Vec<usize>, usize) {
    let inputs = program.inputs.len();
    let mut last: Vec<usize> = vec![0; program.value_count()];
    for (at, step) in program.steps.iter().enumerate() {
        last[inputs + at] = at;
        for value in &step.operands {
            last[*value as usize] = at;
        }
    }
    for value in &program.outputs {
        last[*value as usize] = usize::MAX;
    }
    let (mut slots, mut free, mut count) = (Vec::new(), Vec::new(), 0);
    for (at, step) in program.steps.iter().enumerate() {
        let slot = match step.op {
            // Numbers are written once, so that their places are their own.
            Op::Number => None,
            _ => free.pop(),
        };
        slots.push(slot.unwrap_or_else(|| {
            count += 1;
            count - 1
        }));
        let mut done: Vec<u32> = step.operands.clone();
        done.push((inputs + at) as u32);
        done.sort_unstable();
        done.dedup();
        for value in done {
            let Some(step) = (value as usize).checked_sub(inputs) else {
                continue;
            };
            if last[value as usize] == at && program.steps[step].op != Op::Number {
                free.push(slots[step]);
            }
        }
    }
    (slots, count)
}
