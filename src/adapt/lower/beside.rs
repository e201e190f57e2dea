//! The query of the attention whose result a module reads, and other modules of the model.

use super::{Bindings, Lowering};
use crate::graph::{Attribute, NodeId, Operand};
use crate::hir::TermId;
use crate::modules::{Form, Query};
use crate::ops::Emitter;
use crate::ty::DType;

/// The domain of ONNX Runtime's own operators.
const MICROSOFT: &str = "com.microsoft";

impl Lowering<'_> {
    /// `[batch, tokens, heads, features of a head]`, or with batch and tokens in one axis where the
    /// module's input has them in one.
    pub(super) fn query(&mut self) -> Operand {
        let graph = self.graph();
        let query = self.site().query(graph);
        let query = query.expect("the plan has checked that there is a query");
        let mut value = Operand::Existing(query.value);
        let mut target = Vec::new();
        match query.form {
            Form::Heads => {
                let order = vec![Attribute::ints("perm", [0, 2, 1, 3])];
                value = self.emitter.node("Transpose", &[value], order);
            }
            Form::Rows => {
                value = self.emitter.slice(value, -1, 0, query.heads * query.size);
                if let Some(node) = query.turned_in {
                    value = self.turned(value, &query, node);
                }
                target = vec![0, 0, query.heads, query.size];
            }
        }
        if self.lead_axes() == 1 {
            target = vec![-1, query.heads, query.size];
        }
        if !target.is_empty() {
            let target = self.emitter.ints(&target);
            value = self.emitter.node("Reshape", &[value, target], Vec::new());
        }
        let ty = graph.value(query.value).ty.as_ref();
        match ty.is_some_and(|ty| ty.dtype == self.dtype) {
            true => value,
            false => self.emitter.cast(value, self.dtype),
        }
    }

    /// `[batch, tokens, heads · size]` as ONNX Runtime's attention turns it inside.
    fn turned(&mut self, value: Operand, query: &Query, node: NodeId) -> Operand {
        let graph = self.graph();
        let data = graph.node(node);
        let operand = |slot| graph.operand(node, slot).map(Operand::Existing);
        let lengths = operand(5).expect("a query that is turned inside has lengths");
        let positions = match operand(9) {
            Some(positions) => positions,
            None => positions(self.emitter, value, lengths),
        };
        let interleaved = data.int("rotary_interleaved").unwrap_or(0);
        let mut attributes = vec![Attribute::int("interleaved", interleaved)];
        let table = graph.operand(node, 7).map(|table| graph.value(table));
        let half = table.and_then(|table| {
            let shape = table.ty.as_ref()?.shape.as_ref()?;
            shape.0.get(1)?.known()
        });
        if let Some(half) = half.filter(|half| 2 * half != query.size) {
            attributes.push(Attribute::int("num_heads", query.heads));
            attributes.push(Attribute::int("rotary_embedding_dim", 2 * half));
        }
        let operands = vec![Some(value), Some(positions), operand(7), operand(8)];
        let node = self
            .emitter
            .new_node(MICROSOFT, "RotaryEmbedding", operands, attributes);
        self.emitter.patch.node(node, None)
    }

    /// Another linear module on a value of this formula.
    pub(super) fn other_module(&mut self, path: &str, input: TermId) -> Operand {
        let input = self.value(input);
        let once = self.bindings.once;
        let site = once.and_then(|once| once.applied.site(path));
        let site = site.expect("the plan has checked that there is such a module");
        let (own, theirs) = (self.dtype, site.dtype);
        let input = match own == theirs {
            true => input,
            false => self.emitter.cast(input, theirs),
        };
        let graph = self.graph();
        let slice = site.slice.as_ref().map(|slice| (slice.start, slice.end));
        let bindings = Bindings {
            slice,
            ..Bindings::of_nothing()
        };
        let mut other = Lowering::new(self.emitter, graph, site, bindings, self.formula);
        let result = other.linear(input, None, None);
        match own == theirs {
            true => result,
            false => self.emitter.cast(result, own),
        }
    }
}

/// The positions `[batch, tokens]` that ONNX Runtime takes where none are given: behind what the cache
/// holds, which is as many tokens as a row's length, counted without its last one, is longer than
/// those that are given.
fn positions(emitter: &mut Emitter, value: Operand, lengths: Operand) -> Operand {
    let tokens = emitter.size(value, 1);
    let column = emitter.ints(&[-1, 1]);
    let lengths = emitter.node("Reshape", &[lengths, column], Vec::new());
    let lengths = emitter.cast(lengths, DType::I64);
    let before = emitter.node("Sub", &[lengths, tokens], Vec::new());
    // A row with padding behind it begins at the first position, too.
    let least = emitter.ints(&[-1]);
    let before = emitter.node("Max", &[before, least], Vec::new());
    let ones = crate::graph::Tensor::from_i64(&[1], &[1]);
    let ones = vec![Attribute::tensor("value", ones)];
    let ones = emitter.node("ConstantOfShape", &[tokens], ones);
    let axis = emitter.ints(&[0]);
    let counted = emitter.node("CumSum", &[ones, axis], Vec::new());
    emitter.node("Add", &[before, counted], Vec::new())
}
