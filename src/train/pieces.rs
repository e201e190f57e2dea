//! Cross-entropy of a language model a piece of the tokens at a time.
//!
//! Logits are often the largest tensor of a step: 2 × 512 tokens over 128,256 classes take 501 MiB,
//! and their derivative as much again. Where the last layers work token by token, a `Scan` runs over
//! pieces of the tokens: its body has copies of these layers, the loss of a piece and the derivative by
//! what the layers read, so that nothing of the logits' size outlives its piece. The reverse walk then
//! starts in front of these layers.
//!
//! A `Scan` and not the same nodes over and over, because its turns come one after the other in every
//! runtime, and because ONNX Runtime keeps the weight of a product once a node.

use super::BatchSizes;
use super::graphs::apply;
use super::loss::{IGNORED, Loss, Want, cross_entropy, exact_rows, filled, next, product};
use super::open::id_of;
use super::sizes::Sizes;
use crate::autodiff;
use crate::diag::{Reported, Sink};
use crate::graph::{
    Attribute, AttributeValue, Graph, Model, NewNode, NodeId, Operand, Patch, ValueId,
};
use crate::ops::{Builder, Expr, KnownValues, Refusal};
use crate::ty::{DType, Dim, Shape, TensorType};
use rustc_hash::FxHashMap;

/// Logits of a piece are at most of this size, unless the number of pieces is given.
const LARGE: u64 = 64 << 20;

/// In front of the names of a body's values; nothing outside of it has such names.
const SCOPE: &str = "piece";

/// The last layers of a model, which work token by token and have nothing to train.
pub(super) struct Pieces {
    /// What they read, `[…, H]`.
    pub hidden: ValueId,
    /// In the order of the graph.
    nodes: Vec<NodeId>,
    logits: ValueId,
    /// How many pieces the tokens are in.
    count: i64,
}

impl Pieces {
    /// The layers behind which the loss is computed in pieces; `None` where it is computed at once:
    /// the logits are small, or something else than products with frozen weights and elementwise
    /// operators makes them.
    pub fn find(
        model: &Model,
        logits: ValueId,
        wanted: Option<usize>,
        batch: BatchSizes,
    ) -> Option<Pieces> {
        let graph = &model.graph;
        let ty = graph.value(logits).ty.clone()?;
        let shape = ty.shape?;
        shape.0.last()?.known()?;
        let size = Sizes::of(graph, batch).bytes(&TensorType::new(DType::F32, shape));
        let count = match wanted {
            Some(count) => i64::try_from(count).ok()?,
            None => i64::try_from(size.div_ceil(LARGE)).ok()?,
        };
        if count < 2 {
            return None;
        }
        let mut nodes = Vec::new();
        let mut value = logits;
        loop {
            let node = graph.producer(value)?;
            nodes.push(node);
            let (operand, is_product) = moving(graph, node)?;
            value = operand;
            if is_product {
                break;
            }
        }
        nodes.reverse();
        float_matrix_rows(graph, value)?;
        Some(Pieces {
            hidden: value,
            nodes,
            logits,
            count,
        })
    }

    pub fn count(&self) -> usize {
        usize::try_from(self.count).unwrap_or(1)
    }

    /// Emits the loss. Its derivative is that by [`Pieces::hidden`]; of the sum over labels instead of
    /// their mean if `of_sum`.
    pub fn loss<'b>(
        &self,
        build: &'b Builder<'b>,
        model: &Model,
        labels: Expr<'b>,
        how: How,
        sink: &mut Sink,
    ) -> Result<Result<Loss<'b>, Refusal>, Reported> {
        let laid = match self.lay_out(build, labels) {
            Ok(laid) => laid,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let Some(body) = self.body(model, &laid, how, sink)? else {
            return Ok(Err(Refusal(
                "its last layers cannot be repeated".to_owned(),
            )));
        };
        Ok(self.gathered(build, &laid, body, how))
    }

    /// Hidden states and labels in pieces of one size; what fills the last one up does not count.
    fn lay_out<'b>(&self, build: &'b Builder<'b>, labels: Expr<'b>) -> Result<Laid<'b>, Refusal> {
        let hidden = build.expr(self.hidden);
        let dims = hidden.dims()?;
        let (width, rows) = dims
            .split_last()
            .ok_or_else(|| Refusal("no axis".to_owned()))?;
        let rows = product(rows);
        let count = Dim::from(self.count);
        let piece = (rows.clone() + Dim::from(self.count - 1)).floor_div(&count);
        let more = piece.clone() * count.clone() - rows.clone();
        let labels = next(labels)?.reshape(std::slice::from_ref(&rows))?;
        let ignored = build.scalar(IGNORED as f64, DType::I64);
        let weight = labels.is_equal(ignored).not().cast(DType::F32);
        let count_of_labels = weight.sum_dropping(&[0]);
        let filled = filled(labels, std::slice::from_ref(&more))?;
        // ONNX Runtime pads no half precision.
        let filling = build.zeros(DType::F32, &[more, width.clone()])?;
        let tokens = hidden.reshape(&[rows.clone(), width.clone()])?;
        let tokens = build.concat(&[tokens, filling.cast(hidden.dtype())], 0);
        Ok(Laid {
            labels: filled.reshape(&[count.clone(), piece.clone()])?,
            tokens: tokens.reshape(&[count, piece.clone(), width.clone()])?,
            weight: weight.reshape(&[rows.clone(), Dim::from(1)])?,
            count: count_of_labels,
            dims: dims.clone(),
            width: width.clone(),
            rows,
            piece,
        })
    }

    /// The graph of one piece. Inputs: what a label counts, the hidden states, the labels. Outputs: the
    /// first input, the loss, and the derivative or which labels are right.
    fn body(
        &self,
        model: &Model,
        laid: &Laid<'_>,
        how: How,
        sink: &mut Sink,
    ) -> Result<Option<Body>, Reported> {
        let outer = &model.graph;
        let mut inner = model.around(Graph::new(SCOPE));
        let dtype = laid.tokens.dtype();
        let of = |dtype, dims: &[Dim]| TensorType::new(dtype, Shape(dims.to_vec()));
        let piece = std::slice::from_ref(&laid.piece);
        let mut patch = Patch::new();
        patch.input("share", of(DType::F32, &[]), None);
        patch.input(
            "hidden",
            of(dtype, &[laid.piece.clone(), laid.width.clone()]),
            None,
        );
        patch.input("labels", of(DType::I64, piece), None);
        let ids = apply(&mut inner, patch, sink)?;
        let [share, hidden, labels] = ids[..] else {
            return Ok(None);
        };
        let (patch, captures, made) = {
            let known = KnownValues::default();
            let build = Builder::new(&inner.graph, &known, inner.opset("").unwrap_or(1));
            build.set_scope("loss".to_owned());
            build.tell_size(&laid.piece, build.expr(labels).apply("Shape"));
            let Some((logits, captures)) = self.copied(&build, outer, build.expr(hidden)) else {
                return Ok(None);
            };
            let made = cross_entropy(
                logits,
                build.expr(labels),
                how.smoothing,
                how.want,
                Some(build.expr(share)),
            );
            let Ok(loss) = made else {
                return Ok(None);
            };
            if build.trouble().is_some() {
                return Ok(None);
            }
            let kept = build.expr(share).apply("Identity").operand;
            let stored = logits.dtype();
            let slope = loss.gradient.map(|slope| slope.cast(stored).operand);
            let hits = loss.hits.map(|hits| hits.operand);
            let made = (logits.operand, kept, loss.value.operand, slope, hits);
            (build.finish(), captures, made)
        };
        let new = apply(&mut inner, patch, sink)?;
        let id = |operand| id_of(operand, &new);
        let (logits, kept, value, slope, hits) = made;
        let result = match (slope, hits) {
            (Some(slope), _) => {
                let found =
                    autodiff::gradients_from(&mut inner, id(logits), id(slope), &[hidden], sink)?;
                found.of[0]
            }
            (None, Some(hits)) => id(hits),
            (None, None) => return Ok(None),
        };
        let mut patch = Patch::new();
        for value in [id(kept), id(value), result] {
            patch.output(Operand::Existing(value));
        }
        apply(&mut inner, patch, sink)?;
        inner.graph.qualify(SCOPE);
        Ok(Some(Body {
            graph: inner.graph,
            captures,
        }))
    }

    /// Copies of the layers, over other tokens, and what they read of the enclosing graph.
    fn copied<'b>(
        &self,
        build: &'b Builder<'b>,
        outer: &Graph,
        hidden: Expr<'b>,
    ) -> Option<(Expr<'b>, Vec<ValueId>)> {
        let mut operands: FxHashMap<ValueId, Operand> = FxHashMap::default();
        let mut captures = Vec::new();
        operands.insert(self.hidden, hidden.operand);
        for node in &self.nodes {
            let read = outer.operands(*node).into_iter().map(|value| {
                let value = value?;
                Some(*operands.entry(value).or_insert_with(|| {
                    captures.push(value);
                    let outside = outer.value(value);
                    build.with_patch(|patch| patch.capture(&outside.name, outside.ty.clone()))
                }))
            });
            let read: Vec<Option<Operand>> = read.collect();
            let node_of = outer.node(*node);
            let [Some(result)] = outer.results(*node)[..] else {
                return None;
            };
            let ty = outer.value(result).ty.clone()?;
            let last = ty.shape.as_ref()?.0.last()?.clone();
            let dims = vec![hidden.dims().ok()?[0].clone(), last];
            let new = NewNode {
                op: node_of.op.clone(),
                name: node_of.name.clone(),
                attributes: node_of.attributes.clone(),
                inputs: read,
                metadata: node_of.metadata.clone(),
            };
            let ty = TensorType::new(ty.dtype, Shape(dims));
            let copy = build.with_patch(|patch| patch.node(new, Some(ty)));
            operands.insert(result, copy);
        }
        Some((build.expr(*operands.get(&self.logits)?), captures))
    }

    /// The `Scan`, and its results as those of all tokens.
    fn gathered<'b>(
        &self,
        build: &'b Builder<'b>,
        laid: &Laid<'b>,
        body: Body,
        how: How,
    ) -> Result<Loss<'b>, Refusal> {
        let one = laid.count.number(1.0);
        let labels = laid.count.apply2("Max", one);
        // What is fed to the body has to be a value of its own.
        let share = match how.of_sum {
            true => one,
            false => labels.reciprocal(),
        };
        let attributes = vec![
            Attribute::new("body", AttributeValue::Graph(Box::new(body.graph))),
            Attribute::int("num_scan_inputs", 2),
        ];
        let operands = [share, laid.tokens, laid.labels].map(|e| Some(e.operand));
        let found = build.nodes("", "Scan", operands.to_vec(), attributes, 3);
        let captures = body.captures.iter().map(|id| Operand::Existing(*id));
        build.with_patch(|patch| patch.captures(captures.collect()));
        let of = |at: usize, dtype, dims: &[Dim]| {
            let ty = TensorType::new(dtype, Shape(dims.to_vec()));
            build.with_patch(|patch| patch.set_type_of_new(found[at].operand, ty));
            found[at]
        };
        let pieces = Dim::from(self.count);
        let value = of(1, DType::F32, std::slice::from_ref(&pieces)).sum_dropping(&[0]);
        let value = match how.of_sum {
            true => value / labels,
            false => value,
        };
        let (width, dtype) = match how.want {
            Want::Gradient => (laid.width.clone(), laid.tokens.dtype()),
            Want::Correct => (Dim::from(1), DType::F32),
        };
        let stacked = of(
            2,
            dtype,
            &[pieces.clone(), laid.piece.clone(), width.clone()],
        );
        let all = stacked.reshape(&[pieces * laid.piece.clone(), width.clone()])?;
        let rows = self.first(all, &laid.rows, &width)?;
        let (gradient, correct, exact) = match how.want {
            Want::Gradient => (Some(rows.reshape(&laid.dims)?), None, None),
            Want::Correct => {
                let exact = exact_rows(rows, laid.weight, &laid.dims)?;
                (None, Some(rows.sum_dropping(&[0, 1])), exact)
            }
        };
        Ok(Loss {
            value,
            count: laid.count,
            correct,
            exact,
            hits: None,
            by_class: None,
            gradient,
        })
    }

    /// The first rows, those that are no filling.
    fn first<'b>(&self, all: Expr<'b>, rows: &Dim, width: &Dim) -> Result<Expr<'b>, Refusal> {
        let build = all.builder;
        let (start, axis) = (build.ints(&[0]), build.ints(&[0]));
        let cut = build.node("Slice", &[all, start, build.size(rows)?, axis], Vec::new());
        Ok(cut.stated(&[rows.clone(), width.clone()]))
    }
}

/// How a loss is computed.
#[derive(Clone, Copy)]
pub(super) struct How {
    pub smoothing: f64,
    pub want: Want,
    /// Whether the derivative is that of the sum over labels.
    pub of_sum: bool,
}

/// Operands of the `Scan`, and sizes.
struct Laid<'b> {
    tokens: Expr<'b>,
    labels: Expr<'b>,
    /// 1 for a token that counts, `f32[R, 1]`.
    weight: Expr<'b>,
    /// How many count.
    count: Expr<'b>,
    /// Of the hidden states.
    dims: Vec<Dim>,
    width: Dim,
    rows: Dim,
    piece: Dim,
}

struct Body {
    graph: Graph,
    captures: Vec<ValueId>,
}

/// The operand that a layer takes token by token, and whether the layer is a product with a weight;
/// `None` for layers that do something else, or of which something depends on the input besides.
fn moving(graph: &Graph, node: NodeId) -> Option<(ValueId, bool)> {
    let op = &graph.node(node).op;
    let operands = graph.operands(node);
    let given: Vec<ValueId> = operands.iter().copied().flatten().collect();
    let rest_is_frozen = |at: usize| {
        let mut rest = given.iter().enumerate().filter(|(slot, _)| *slot != at);
        rest.all(|(_, value)| is_frozen(graph, *value))
    };
    let rank = |value: ValueId| Some(graph.value(value).ty.as_ref()?.shape.as_ref()?.0.len());
    match (&*op.domain, &*op.op_type) {
        ("", "MatMul") if rest_is_frozen(0) && rank(*given.get(1)?) == Some(2) => {
            Some((given[0], true))
        }
        ("com.microsoft", "MatMulNBits") if rest_is_frozen(0) => Some((*given.first()?, true)),
        ("", "Cast" | "Tanh" | "Identity") => Some((*given.first()?, false)),
        ("", "Add" | "Sub" | "Mul" | "Div") => {
            let at = given.iter().position(|value| !is_frozen(graph, *value))?;
            let other = *given.get(1_usize.checked_sub(at)?)?;
            let is_thin = rest_is_frozen(at) && rank(other).is_some_and(|rank| rank <= 1);
            is_thin.then_some((given[at], false))
        }
        _ => None,
    }
}

/// Whether the value is the same in every run.
fn is_frozen(graph: &Graph, value: ValueId) -> bool {
    if graph.value(value).constant().is_some() {
        return true;
    }
    let Some(node) = graph.producer(value) else {
        return false;
    };
    let operands = graph.operands(node);
    let mut operands = operands.iter().flatten().peekable();
    // A node without operands may draw random numbers.
    operands.peek().is_some()
        && !graph.node(node).has_subgraphs()
        && operands.all(|operand| is_frozen(graph, *operand))
}

/// That a value is a float with a known width.
fn float_matrix_rows(graph: &Graph, value: ValueId) -> Option<()> {
    let ty = graph
        .value(value)
        .ty
        .as_ref()
        .filter(|ty| ty.dtype.is_float())?;
    let shape = ty.shape.as_ref().filter(|shape| shape.0.len() >= 2)?;
    shape.0.last()?.known().map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{OpName, Tensor, Value, ValueKind};

    /// `x: f32[batch, tokens, 4]` and a weight through one node, whose result is said to be logits.
    fn found(op: &str, operands: impl Fn(ValueId, ValueId) -> Vec<ValueId>) -> bool {
        let mut graph = Graph::new("test");
        let of = |width: i64| {
            let dims = [
                Dim::symbol("batch"),
                Dim::symbol("tokens"),
                Dim::from(width),
            ];
            Some(TensorType::new(DType::F32, Shape(dims.to_vec())))
        };
        let kind = ValueKind::Input { default: None };
        let x = graph.add_value(Value::with_kind("x", of(4), kind)).unwrap();
        let weight = Tensor::from_f32(&[4, 4], &[0.5; 16]);
        let w = graph.add_value(Value::initializer("w", weight)).unwrap();
        let logits = graph.add_value(Value::computed("logits", of(4))).unwrap();
        let operands: Vec<Option<ValueId>> = operands(x, w).into_iter().map(Some).collect();
        let domain = if op == "MatMulNBits" {
            "com.microsoft"
        } else {
            ""
        };
        let op = OpName::new(domain, op);
        graph.add_node(op, "head", Vec::new(), &operands, &[Some(logits)]);
        let model = Model::new("test.onnx", graph, 10, 20);
        Pieces::find(&model, logits, Some(2), BatchSizes::default()).is_some()
    }

    #[test]
    fn only_products_with_frozen_weights_are_repeated() {
        assert!(found("MatMul", |x, w| vec![x, w]));
        assert!(!found("MatMul", |x, w| vec![w, x]));
        assert!(!found("MatMul", |x, _| vec![x, x]));
        assert!(!found("Softmax", |x, _| vec![x]));
    }

    #[test]
    fn operators_with_operands_that_they_do_not_have_are_left_alone() {
        for op in ["MatMul", "MatMulNBits", "Cast", "Add"] {
            assert!(!found(op, |_, _| Vec::new()), "{op}");
        }
        assert!(!found("MatMul", |x, _| vec![x]));
        assert!(!found("Add", |x, _| vec![x]));
        assert!(!found("Add", |x, w| vec![w, w, x]));
    }
}
