//! The walk against the flow: every node's rule after those of all its readers.

use super::Seed;
use super::activity::{Activity, definition, opset};
use super::errors;
use super::fit::narrow;
use crate::diag::Diagnostic;
use crate::graph::{Model, NodeId, Operand, ValueId};
use crate::ops::{Around, Builder, Expr, Given, Grad, GradCx, Refusal};
use crate::ty::Dim;
use rustc_hash::FxHashMap;
use std::rc::Rc;

/// What has arrived at a value.
#[derive(Default)]
struct Arrived<'b> {
    /// The sum of the gradients of all of it, in a shape that broadcasts to the value's.
    whole: Option<Expr<'b>>,
    parts: Vec<Part<'b>>,
}

/// A gradient of a part of one axis.
#[derive(Clone, Copy)]
struct Part<'b> {
    axis: usize,
    start: i64,
    end: i64,
    value: Expr<'b>,
}

struct Sweep<'b, 'm> {
    build: &'b Builder<'b>,
    model: &'m Model,
    activity: &'m Activity,
    arrived: FxHashMap<ValueId, Arrived<'b>>,
    around: Around<'b>,
}

/// Gradients as operands of a patch.
pub(super) struct Found {
    /// Of what was asked for.
    pub of: Vec<Operand>,
    /// Of every value on the way, in a shape that broadcasts to its own.
    pub all: Vec<(ValueId, Operand)>,
}

/// Emits the gradients.
pub(super) fn run<'b>(
    build: &'b Builder<'b>,
    model: &Model,
    activity: &Activity,
    seeds: &[Seed],
    wrt: &[ValueId],
) -> Result<Found, Box<Diagnostic>> {
    let mut sweep = Sweep {
        build,
        model,
        activity,
        arrived: FxHashMap::default(),
        around: Around {
            active: activity.active(),
            wanted: Rc::new(wrt.iter().copied().collect()),
            ..Around::default()
        },
    };
    if let Some(last) = activity.nodes.last() {
        build.behind(*last);
    }
    build.set_scope("grad".to_owned());
    for seed in seeds {
        let gradient = match seed.gradient {
            Some(gradient) => build.expr(gradient),
            None => build.expr(seed.value).number(1.0),
        };
        sweep.arrived.entry(seed.value).or_default().whole = Some(gradient);
    }
    // Reverse order guarantees that every reader of a value has added its share before the value's
    // own rule runs.
    for node in activity.nodes.iter().rev() {
        let scope = format!("grad/{}", model.graph.display_name(*node));
        build.set_scope(scope);
        sweep
            .node(*node)
            .and_then(|()| build.trouble().map_or(Ok(()), Err))
            .map_err(|refusal| Box::new(errors::cannot_derive(model, *node, &refusal)))?;
    }
    build.set_scope("grad".to_owned());
    let mut found = Vec::with_capacity(wrt.len());
    for value in wrt {
        let gradient = sweep
            .gradient(*value)
            .map_err(|refusal| Box::new(errors::no_gradient_of(model, *value, &refusal)))?;
        found.push(gradient.operand);
    }
    let finished = sweep.around.finished.borrow();
    let all = finished.iter();
    Ok(Found {
        of: found,
        all: all.map(|(value, of)| (*value, of.operand)).collect(),
    })
}

impl<'b> Sweep<'b, '_> {
    fn node(&mut self, id: NodeId) -> Result<(), Refusal> {
        let graph = &self.model.graph;
        let mut incoming = Vec::new();
        for result in graph.results(id) {
            incoming.push(match result {
                Some(value) if self.has_arrived(value) => Some(self.thin(value)?),
                _ => None,
            });
        }
        // An active result may be read along a way on which every gradient is zero.
        if incoming.iter().all(Option::is_none) {
            return Ok(());
        }
        let operands = graph.operands(id);
        let needs = operands
            .iter()
            .map(|operand| operand.is_some_and(|value| self.activity.is_active(value)))
            .collect();
        let Some(Grad::Rule(rule)) = definition(self.model, id).map(|entry| entry.grad) else {
            return Err(Refusal("its operator has no rule".to_owned()));
        };
        let (opset, around) = (opset(self.model, id), self.around.clone());
        let mut cx = GradCx::new(self.build, opset, id, incoming, needs, around);
        rule(&mut cx)?;
        for (value, given) in cx.finish()? {
            self.add(value, given)?;
        }
        Ok(())
    }

    fn has_arrived(&self, value: ValueId) -> bool {
        let finished = self.around.finished.borrow();
        self.arrived.contains_key(&value) || finished.contains_key(&value)
    }

    fn dims(&self, value: ValueId) -> Result<Vec<Dim>, Refusal> {
        self.build.expr(value).dims()
    }

    /// Adds a share to what has arrived at a value.
    fn add(&mut self, value: ValueId, given: Given<'b>) -> Result<(), Refusal> {
        match given {
            Given::Whole(share) => {
                let dims = self.dims(value)?;
                let share = narrow(share, &dims)?;
                let arrived = self.arrived.entry(value).or_default();
                arrived.whole = Some(match arrived.whole {
                    Some(before) => before + share,
                    None => share,
                });
            }
            Given::Part {
                axis,
                start,
                end,
                value: share,
            } => self.arrived.entry(value).or_default().parts.push(Part {
                axis,
                start,
                end,
                value: share,
            }),
        }
        Ok(())
    }

    /// The sum of all that has arrived at a value, in the value's shape.
    fn gradient(&mut self, value: ValueId) -> Result<Expr<'b>, Refusal> {
        let dims = self.dims(value)?;
        self.thin(value)?.expand(&dims)
    }

    /// The same in a shape that broadcasts to the value's.
    fn thin(&mut self, value: ValueId) -> Result<Expr<'b>, Refusal> {
        if let Some(done) = self.around.finished.borrow().get(&value) {
            return Ok(*done);
        }
        let dims = self.dims(value)?;
        let mut arrived = self.arrived.remove(&value).unwrap_or_default();
        for joined in join(&mut arrived.parts, &dims, self.build)? {
            arrived.whole = Some(match arrived.whole {
                Some(before) => before + joined,
                None => joined,
            });
        }
        let Some(whole) = arrived.whole else {
            return Err(Refusal("no gradient has arrived".to_owned()));
        };
        self.around.finished.borrow_mut().insert(value, whole);
        Ok(whole)
    }
}

/// Parts that lie side by side become one, and zeros go around what does not fill its axis.
fn join<'b>(
    parts: &mut Vec<Part<'b>>,
    dims: &[Dim],
    build: &'b Builder<'b>,
) -> Result<Vec<Expr<'b>>, Refusal> {
    parts.sort_by_key(|part| (part.axis, part.start));
    let mut found = Vec::new();
    while !parts.is_empty() {
        let row = take_row(parts);
        let (first, last) = (row[0], row[row.len() - 1]);
        let values: Vec<Expr<'b>> = row.iter().map(|part| part.value).collect();
        let joined = build.concat(&values, first.axis);
        let (mut before, mut behind) = (
            vec![Dim::from(0); dims.len()],
            vec![Dim::from(0); dims.len()],
        );
        before[first.axis] = Dim::from(first.start);
        behind[first.axis] = dims[first.axis].clone() - Dim::from(last.end);
        found.push(joined.pad(&before, &behind)?);
    }
    Ok(found)
}

/// Takes the first part and those that follow on it without a gap.
fn take_row<'b>(parts: &mut Vec<Part<'b>>) -> Vec<Part<'b>> {
    let mut row = vec![parts.remove(0)];
    while let Some(last) = row.last().copied() {
        let next = parts
            .iter()
            .position(|part| part.axis == last.axis && part.start == last.end);
        match next {
            Some(at) => row.push(parts.remove(at)),
            None => break,
        }
    }
    row
}
