//! Nodes to be inserted into a typed graph, written as formulas.
//!
//! In: a graph whose values have types, and what shape arithmetic knows of its values. Out: a
//! [`Patch`]. A [`Builder`] types every node that it emits and writes it in the form of the model's
//! opset; an [`Expr`] is a value of the graph or a new one, and arithmetic on it emits nodes. What
//! cannot be emitted (operands that do not fit, an element type that is not known) is remembered as
//! [`Builder::trouble`], so that formulas read as formulas; whoever runs a rule asks for it after.
//!
//! Sizes come from the graph's inputs and never from a computed value, which would have to be kept
//! in memory for its shape: see `sizes.rs`.

mod expr;
mod shaping;
mod sizes;

pub use expr::Expr;
pub use shaping::END;

use super::cx::OperandFacts;
use super::emit::Emitter;
use super::form::Form;
use super::infer_node::{Call, evaluate_node};
use super::known::Known;
use super::registry::MICROSOFT;
use crate::graph::{Attribute, Graph, NodeId, Operand, Patch, Tensor, ValueId};
use crate::ty::{DType, Dim, Symbol, TensorType};
use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::fmt;

/// What shape arithmetic knows of the values of a graph.
pub type KnownValues = FxHashMap<ValueId, Known>;

/// Why something cannot be emitted at a node, as the end of a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A [`Refusal`] with a formatted message.
macro_rules! refuse {
    ($($argument:tt)*) => {
        Err($crate::ops::Refusal(format!($($argument)*)))
    };
}
pub(in crate::ops) use refuse;

/// A patch under construction that knows the types of everything in it.
pub struct Builder<'g> {
    graph: &'g Graph,
    known: &'g KnownValues,
    opset: i64,
    /// Where the size that a symbol stands for can be read: a value and its axis.
    sources: FxHashMap<Symbol, (ValueId, usize)>,
    state: RefCell<State>,
}

struct State {
    emitter: Emitter,
    /// Elements of new values.
    known: FxHashMap<Operand, Known>,
    /// Sizes that have been emitted, each a vector of one integer.
    sizes: FxHashMap<Dim, Operand>,
    shapes: FxHashMap<ValueId, Operand>,
    trouble: Option<Refusal>,
    /// Counts nodes: sizes that depend on data are named after it.
    count: usize,
}

impl<'g> Builder<'g> {
    /// `opset` is the version of the default domain that the model imports.
    pub fn new(graph: &'g Graph, known: &'g KnownValues, opset: i64) -> Self {
        Builder {
            graph,
            known,
            opset,
            sources: sizes::sources(graph),
            state: RefCell::new(State {
                emitter: Emitter::new(opset),
                known: FxHashMap::default(),
                sizes: FxHashMap::default(),
                shapes: FxHashMap::default(),
                trouble: None,
                count: 0,
            }),
        }
    }

    /// Everything that has been emitted.
    pub fn finish(self) -> Patch {
        self.state.into_inner().emitter.patch
    }

    pub fn opset(&self) -> i64 {
        self.opset
    }

    pub fn graph(&self) -> &'g Graph {
        self.graph
    }

    /// In front of the names of nodes emitted from now on.
    pub fn set_scope(&self, scope: String) {
        self.state.borrow_mut().emitter.scope = scope;
    }

    /// Nodes emitted from now on stand behind this one.
    pub fn behind(&self, node: NodeId) {
        self.state.borrow_mut().emitter.patch.behind(node);
    }

    /// Changes the patch itself: outputs, replacements.
    pub fn with_patch<T>(&self, change: impl FnOnce(&mut Patch) -> T) -> T {
        change(&mut self.state.borrow_mut().emitter.patch)
    }

    /// Emits nodes that are typed later, or never: their types are not known here.
    pub fn with_emitter<T>(&self, emit: impl FnOnce(&mut Emitter) -> T) -> T {
        emit(&mut self.state.borrow_mut().emitter)
    }

    /// What could not be emitted since the last call, if anything.
    pub fn trouble(&self) -> Option<Refusal> {
        self.state.borrow_mut().trouble.take()
    }

    fn remember(&self, trouble: String) {
        let mut state = self.state.borrow_mut();
        state.trouble.get_or_insert(Refusal(trouble));
    }

    // --- values -----------------------------------------------------------------------------

    pub fn expr(&self, operand: impl Into<Operand>) -> Expr<'_> {
        Expr {
            builder: self,
            operand: operand.into(),
        }
    }

    /// What is known of an operand's type.
    pub fn ty(&self, operand: Operand) -> Option<TensorType> {
        match operand {
            Operand::Existing(id) | Operand::Original(id) => self.graph.value(id).ty.clone(),
            Operand::New(_) => self.state.borrow().emitter.patch.type_of_new(operand),
        }
    }

    /// The elements of a small operand, where something is known of them.
    pub fn known(&self, operand: Operand) -> Option<Known> {
        match operand {
            Operand::Existing(id) | Operand::Original(id) => match self.known.get(&id) {
                Some(known) => Some(known.clone()),
                None => Known::from_tensor(self.graph.value(id).constant()?),
            },
            Operand::New(_) => self.state.borrow().known.get(&operand).cloned(),
        }
    }

    /// A number of a float or integer type, of rank 0.
    pub fn scalar(&self, value: f64, dtype: DType) -> Expr<'_> {
        let operand = self.state.borrow_mut().emitter.scalar(value, dtype);
        self.expr(operand)
    }

    /// A vector of integers.
    pub fn ints(&self, values: &[i64]) -> Expr<'_> {
        let operand = self.state.borrow_mut().emitter.ints(values);
        let known = Known::vector(
            DType::I64,
            values
                .iter()
                .map(|value| super::Element::Int(Dim::from(*value)))
                .collect(),
        );
        self.state.borrow_mut().known.insert(operand, known);
        self.expr(operand)
    }

    /// A constant of any shape.
    pub fn constant(&self, name: &str, tensor: Tensor) -> Expr<'_> {
        let known = Known::from_tensor(&tensor);
        let operand = self.with_patch(|patch| patch.constant(name, tensor));
        if let Some(known) = known {
            self.state.borrow_mut().known.insert(operand, known);
        }
        self.expr(operand)
    }

    // --- nodes ------------------------------------------------------------------------------

    /// A node of the default domain with one result.
    pub fn node(
        &self,
        op_type: &str,
        operands: &[Expr<'_>],
        attributes: Vec<Attribute>,
    ) -> Expr<'_> {
        let operands = operands.iter().map(|e| Some(e.operand)).collect();
        self.nodes("", op_type, operands, attributes, 1)[0]
    }

    /// A node with any number of operands, absent ones included, and of results.
    pub fn nodes(
        &self,
        domain: &str,
        op_type: &str,
        operands: Vec<Option<Operand>>,
        attributes: Vec<Attribute>,
        results: usize,
    ) -> Vec<Expr<'_>> {
        let (types, known) = self.infer(domain, op_type, &operands, &attributes, results);
        let mut state = self.state.borrow_mut();
        let emitter = &mut state.emitter;
        let node = emitter.new_node(domain, op_type, operands, attributes);
        let name = node.name.clone();
        let names = (0..results).map(|result| match result {
            0 => format!("{name}_output"),
            _ => format!("{name}_output{result}"),
        });
        let found = emitter
            .patch
            .node_with_results(node, names.zip(types).collect());
        for (operand, known) in found.iter().zip(known) {
            if let Some(known) = known {
                state.known.insert(*operand, known);
            }
        }
        drop(state);
        found
            .into_iter()
            .map(|operand| self.expr(operand))
            .collect()
    }

    /// A node that takes integer lists, in the form of the opset.
    fn formed(&self, op_type: &str, value: Expr<'_>, form: Form) -> Expr<'_> {
        let lists = form.lists.iter().map(|list| self.ints(list));
        let operands: Vec<Expr<'_>> = std::iter::once(self.expr(value.operand))
            .chain(lists)
            .collect();
        self.node(op_type, &operands, form.attributes)
    }

    /// Makes a node of the graph give one more result, in a slot that it does not list yet.
    pub fn further_result(
        &self,
        node: NodeId,
        slot: usize,
        name: &str,
        ty: TensorType,
    ) -> Expr<'_> {
        let operand = self.with_patch(|patch| patch.further_result(node, slot, name, Some(ty)));
        self.expr(operand)
    }

    fn infer(
        &self,
        domain: &str,
        op_type: &str,
        operands: &[Option<Operand>],
        attributes: &[Attribute],
        results: usize,
    ) -> (Vec<Option<TensorType>>, Vec<Option<Known>>) {
        let count = {
            let mut state = self.state.borrow_mut();
            state.count += 1;
            state.count
        };
        let found: Vec<Option<(Option<TensorType>, Option<Known>)>> = operands
            .iter()
            .map(|operand| operand.map(|operand| (self.ty(operand), self.known(operand))))
            .collect();
        let facts: Vec<Option<OperandFacts<'_>>> = found
            .iter()
            .map(|found| {
                found.as_ref().map(|(ty, known)| OperandFacts {
                    ty: ty.as_ref(),
                    constant: None,
                    known: known.as_ref(),
                })
            })
            .collect();
        let call = Call {
            name: &format!("?new.{count}"),
            domain,
            op_type,
            opset: if domain == MICROSOFT { 1 } else { self.opset },
            attributes,
            operands: &facts,
            results,
        };
        evaluate_node(&call).unwrap_or_else(|mismatch| {
            self.remember(format!(
                "the operands of a new {op_type} do not fit: {mismatch}"
            ));
            (vec![None; results], Vec::new())
        })
    }
}
