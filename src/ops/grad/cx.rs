//! What a gradient rule sees of a node, and what it says.

use crate::graph::{NodeId, ValueId};
use crate::ops::build::{Builder, Expr, Refusal, refuse};
use crate::ops::node_cx::NodeCx;
use crate::ty::{DType, Dim, Shape, TensorType};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::Rc;

/// What a rule returns; the gradients are set on the context.
pub type GradOutcome = Result<(), Refusal>;

/// A gradient of an operand.
#[derive(Clone, Copy)]
pub enum Given<'b> {
    /// Of all of it, up to broadcasting.
    Whole(Expr<'b>),
    /// Of the part of one axis from `start` up to `end`; zero elsewhere.
    Part {
        axis: usize,
        start: i64,
        end: i64,
        value: Expr<'b>,
    },
}

/// The gradient of a result. Where it is the same along an axis, the axis may have size 1 or be
/// absent until somebody asks for all of it: a product with a whole tensor stretches it anyway.
struct Incoming<'b> {
    thin: Expr<'b>,
    whole: Cell<Option<Expr<'b>>>,
    /// Whether the rule has asked for it.
    followed: Cell<bool>,
}

/// What is known of the rest of the graph: for rules of several nodes.
#[derive(Clone, Default)]
pub struct Around<'b> {
    /// Gradients that are complete: those of values further down.
    pub finished: Rc<RefCell<FxHashMap<ValueId, Expr<'b>>>>,
    /// The values that gradients go through.
    pub active: Rc<FxHashSet<ValueId>>,
    /// Those of them that somebody asks the gradient of.
    pub wanted: Rc<FxHashSet<ValueId>>,
}

/// One node while the gradients of its operands are emitted.
pub struct GradCx<'b> {
    at: NodeCx<'b>,
    incoming: Vec<Option<Incoming<'b>>>,
    needs: Vec<bool>,
    given: Vec<(ValueId, Given<'b>)>,
    around: Around<'b>,
}

impl<'b> Deref for GradCx<'b> {
    type Target = NodeCx<'b>;

    fn deref(&self) -> &NodeCx<'b> {
        &self.at
    }
}

impl<'b> GradCx<'b> {
    /// `incoming` holds the gradients of the results by slot, in shapes that broadcast to theirs;
    /// `needs` which operands want theirs.
    pub fn new(
        build: &'b Builder<'b>,
        opset: i64,
        id: NodeId,
        incoming: Vec<Option<Expr<'b>>>,
        needs: Vec<bool>,
        around: Around<'b>,
    ) -> Self {
        let incoming = incoming.into_iter().map(|thin| {
            thin.map(|thin| Incoming {
                thin,
                whole: Cell::new(None),
                followed: Cell::new(false),
            })
        });
        GradCx {
            at: NodeCx::new(build, opset, id),
            incoming: incoming.collect(),
            needs,
            given: Vec::new(),
            around,
        }
    }

    /// The gradients by value, unless a gradient has arrived that the rule did not look at.
    pub fn finish(self) -> Result<Vec<(ValueId, Given<'b>)>, Refusal> {
        let is_lost = |incoming: &Option<Incoming<'b>>| {
            let arrived = incoming.as_ref();
            arrived.is_some_and(|incoming| !incoming.followed.get())
        };
        match self.incoming.iter().position(is_lost) {
            Some(slot) => {
                refuse!("the loss depends on its result {slot}, of which no gradient is known")
            }
            None => Ok(self.given),
        }
    }

    /// A result that the node can compute, listed from now on if it was not: statistics and masks
    /// that the forward pass has anyway.
    pub fn saved(
        &mut self,
        slot: usize,
        dtype: DType,
        dims: Vec<Dim>,
    ) -> Result<Expr<'b>, Refusal> {
        if let Ok(found) = self.y(slot) {
            return Ok(found);
        }
        let name = format!(
            "{}.saved{slot}",
            self.build.graph().display_name(self.at.id)
        );
        let ty = TensorType::new(dtype, Shape(dims));
        let found = self.build.further_result(self.at.id, slot, &name, ty);
        if self.at.results.len() <= slot {
            self.at.results.resize(slot + 1, None);
        }
        self.at.results[slot] = Some(found.operand);
        Ok(found)
    }

    /// Has the node compute in the precision of its operands.
    pub fn compute_exactly(&self) {
        let id = self.at.id;
        self.build
            .with_patch(|patch| patch.drop_attribute(id, "accuracy_level"));
    }

    // --- gradients --------------------------------------------------------------------------

    /// The gradient of the first result.
    pub fn dy(&self) -> Result<Expr<'b>, Refusal> {
        match self.dy_of(0)? {
            Some(dy) => Ok(dy),
            None => refuse!("a gradient arrives at a result other than its first"),
        }
    }

    /// The gradient of the first result, in a shape that broadcasts to the result's: for formulas
    /// that multiply it with something that has the shape.
    pub fn thin_dy(&self) -> Result<Expr<'b>, Refusal> {
        match self.incoming.first() {
            Some(Some(incoming)) => {
                incoming.followed.set(true);
                Ok(incoming.thin)
            }
            _ => refuse!("a gradient arrives at a result other than its first"),
        }
    }

    /// The gradient of a result; `None` where the loss does not depend on it.
    pub fn dy_of(&self, slot: usize) -> Result<Option<Expr<'b>>, Refusal> {
        let Some(Some(incoming)) = self.incoming.get(slot) else {
            return Ok(None);
        };
        incoming.followed.set(true);
        if let Some(whole) = incoming.whole.get() {
            return Ok(Some(whole));
        }
        let whole = incoming.thin.expand(&self.y(slot)?.dims()?)?;
        incoming.whole.set(Some(whole));
        Ok(Some(whole))
    }

    /// Whether the operand's gradient is asked for.
    pub fn needs(&self, slot: usize) -> bool {
        self.needs.get(slot).copied().unwrap_or(false)
    }

    /// Sets an operand's gradient, which is emitted only if it is asked for.
    pub fn give(&mut self, slot: usize, gradient: impl FnOnce() -> Expr<'b>) {
        if self.needs(slot) {
            let gradient = gradient();
            self.push(slot, Given::Whole(gradient));
        }
    }

    /// As [`GradCx::give`], for what may be refused.
    pub fn try_give(
        &mut self,
        slot: usize,
        gradient: impl FnOnce() -> Result<Expr<'b>, Refusal>,
    ) -> GradOutcome {
        if self.needs(slot) {
            let gradient = gradient()?;
            self.push(slot, Given::Whole(gradient));
        }
        Ok(())
    }

    /// Sets the gradient of a part of an operand.
    pub fn give_part(&mut self, slot: usize, axis: usize, start: i64, end: i64, value: Expr<'b>) {
        let part = Given::Part {
            axis,
            start,
            end,
            value,
        };
        self.push(slot, part);
    }

    fn push(&mut self, slot: usize, given: Given<'b>) {
        if let Some(value) = self.build.graph().operand(self.at.id, slot) {
            self.given.push((value, given));
        }
    }

    /// Sets the gradient of a value that the node depends on, past nodes in between: those get none
    /// from this one.
    pub fn give_to(&mut self, value: ValueId, gradient: Expr<'b>) {
        self.given.push((value, Given::Whole(gradient)));
    }

    /// Whether gradients go through a value.
    pub fn is_active(&self, value: ValueId) -> bool {
        self.around.active.contains(&value)
    }

    /// Whether somebody asks the gradient of a value, so that no rule may pass it by.
    pub fn is_wanted(&self, value: ValueId) -> bool {
        self.around.wanted.contains(&value)
    }

    /// The gradient of a value further down, in a shape that broadcasts to the value's.
    pub fn gradient_of(&self, value: ValueId) -> Option<Expr<'b>> {
        self.around.finished.borrow().get(&value).copied()
    }

    pub fn id(&self) -> NodeId {
        self.at.id
    }

    /// The gradient of the only operand, where all of the result's is needed.
    pub fn only(
        &mut self,
        formula: impl FnOnce(Expr<'b>, Expr<'b>, Expr<'b>) -> Expr<'b>,
    ) -> GradOutcome {
        let (x, y, dy) = (self.x(0)?, self.y(0)?, self.dy()?);
        self.give(0, || formula(x, y, dy));
        Ok(())
    }

    /// The gradient of the only operand, element by element.
    pub fn elementwise(
        &mut self,
        formula: impl FnOnce(Expr<'b>, Expr<'b>, Expr<'b>) -> Expr<'b>,
    ) -> GradOutcome {
        let (x, y, dy) = (self.x(0)?, self.y(0)?, self.thin_dy()?);
        self.give(0, || formula(x, y, dy));
        Ok(())
    }
}
