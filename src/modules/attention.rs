//! The query of the attention whose result a linear layer reads.
//!
//! The way back from the layer: heads are merged, in front of that is the product of weights and
//! values, or an operator that is a whole attention; the weights are a softmax, and that is of the
//! product of queries and keys. What does not look exactly like this has no query, and the reason is
//! said. Wherever an exporter puts the factor of the scores, on queries, on keys or behind their
//! product: the query is the one in front of it, behind its projection, norm and rotation.

use super::roles::{BEFORE_SOFTMAX, BEHIND_SOFTMAX, LONGEST_WAY};
use super::site::{Site, SiteKind};
use crate::graph::{Graph, NodeId, ValueId};
use crate::ty::Dim;
use rustc_hash::FxHashSet;

/// The query of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    pub value: ValueId,
    pub form: Form,
    pub heads: i64,
    /// Features of a head.
    pub size: i64,
    /// The operator that turns it inside, by the positions of its tokens, where there is one.
    pub turned_in: Option<NodeId>,
}

/// How the features of a query lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `[batch, heads, tokens, features of a head]`.
    Heads,
    /// `[batch, tokens, …]`, the heads side by side as the first of the last axis.
    Rows,
}

/// Operators that leave what they read as it is, but for its axes.
const SEEN_THROUGH: &[&str] = &["Reshape", "Cast", "Identity", "Dropout"];
/// The domain of ONNX Runtime's own operators.
const MICROSOFT: &str = "com.microsoft";

impl Site {
    /// The query of the attention whose result the site reads, in the site's graph; or why there is
    /// none.
    pub fn query(&self, graph: &Graph) -> Result<Query, String> {
        if self.kind != SiteKind::Linear {
            return Err("it is no linear layer".to_owned());
        }
        let (node, turns) = attended(graph, self.input)?;
        let query = match &*graph.node(node).op.op_type {
            "MatMul" | "FusedMatMul" => of_product(graph, node, &turns),
            _ => of_operator(graph, node, &turns, self.in_features),
        }?;
        let features = query.heads.checked_mul(query.size);
        if query.heads < 1 || features != Some(self.in_features) {
            return Err(format!(
                "its query has {} heads of {} features, and its values {} features in all",
                query.heads, query.size, self.in_features
            ));
        }
        Ok(query)
    }
}

/// The node that computes what the layer reads, and the orders of axes on the way to it.
fn attended(graph: &Graph, input: ValueId) -> Result<(NodeId, Vec<Vec<i64>>), String> {
    let mut turns = Vec::new();
    let mut at = input;
    for _ in 0..LONGEST_WAY {
        let Some(node) = graph.producer(at) else {
            return Err(format!("`{}` is no result", graph.value(at).name));
        };
        let data = graph.node(node);
        let op = &*data.op.op_type;
        let is_attention = match op {
            "GroupQueryAttention" | "MultiHeadAttention" => &*data.op.domain == MICROSOFT,
            "Attention" => true,
            "MatMul" | "FusedMatMul" => {
                let operand = |slot| graph.operand(node, slot);
                operand(1).is_some_and(|value| !is_constant(graph, value))
            }
            _ => false,
        };
        if is_attention {
            return match graph.result(node, 0) == Some(at) {
                true => Ok((node, turns)),
                false => Err(format!("it reads the cache of {}", named(graph, node))),
            };
        }
        match op {
            "Transpose" => turns.push(data.ints("perm").unwrap_or_default().to_vec()),
            _ if SEEN_THROUGH.contains(&op) => {}
            _ => return Err(format!("it reads what {} gives", named(graph, node))),
        }
        let Some(before) = graph.operand(node, 0) else {
            return Err(format!("{} reads nothing", named(graph, node)));
        };
        at = before;
    }
    Err("too many nodes lie in front of it".to_owned())
}

/// `softmax(q kᵀ) v`, as operators.
fn of_product(graph: &Graph, product: NodeId, turns: &[Vec<i64>]) -> Result<Query, String> {
    if turns != [[0, 2, 1, 3]] {
        return Err("the heads of its input are not merged as `[batch, tokens, heads, …]`".into());
    }
    plain(graph, product)?;
    let weights = graph.operand(product, 0);
    let softmax = only_before(graph, weights, BEHIND_SOFTMAX, |op, _| op == "Softmax");
    let softmax = softmax.ok_or("no softmax gives the weights of its attention")?;
    // Of the last axis, which is that of the keys.
    let axis = graph.node(softmax).int("axis").unwrap_or(-1);
    if axis != -1 && axis != 3 {
        return Err(format!(
            "{} is not over the last axis",
            named(graph, softmax)
        ));
    }
    let scores = graph.operand(softmax, 0);
    let scores = only_before(graph, scores, BEFORE_SOFTMAX, |op, node| {
        let operand = |slot| graph.operand(node, slot);
        let computed = |slot| operand(slot).is_some_and(|value| !is_constant(graph, value));
        matches!(op, "MatMul" | "FusedMatMul") && computed(0) && computed(1)
    });
    let scores = scores.ok_or("no single product of queries and keys gives its scores")?;
    plain(graph, scores)?;
    let scaled = graph.operand(scores, 0).ok_or("its scores have no query")?;
    let value = unscaled(graph, scaled);
    let dims = dims(graph, value).or_else(|| dims(graph, scaled));
    match dims {
        Some([_, heads, _, size]) => match (heads.known(), size.known()) {
            (Some(heads), Some(size)) => Ok(Query {
                value,
                form: Form::Heads,
                heads,
                size,
                turned_in: None,
            }),
            _ => Err("how many heads its query has is not known".to_owned()),
        },
        _ => Err(format!(
            "its query `{}` is not `[batch, heads, tokens, features]`",
            graph.value(value).name
        )),
    }
}

/// A whole attention in one operator.
fn of_operator(
    graph: &Graph,
    node: NodeId,
    turns: &[Vec<i64>],
    features: i64,
) -> Result<Query, String> {
    let data = graph.node(node);
    let has = |slot| graph.operand(node, slot).is_some();
    let refuse = |why: &str| Err(format!("{} {why}", named(graph, node)));
    let Some(value) = graph.operand(node, 0) else {
        return refuse("has no query");
    };
    let is_grouped = &*data.op.op_type == "GroupQueryAttention";
    if &*data.op.domain == MICROSOFT && &*data.op.op_type == "Attention" {
        return refuse("has the projection of its query inside");
    }
    let (rank, heads) = match dims_of(graph, value) {
        Some(dims) if dims.len() == 4 => (4, dims[1].known()),
        Some(dims) => (
            dims.len(),
            data.int("num_heads").or(data.int("q_num_heads")),
        ),
        None => return refuse("has a query of unknown shape"),
    };
    let Some(heads) = heads.filter(|heads| *heads > 0) else {
        return refuse("does not say how many heads its query has");
    };
    let size = features / heads;
    if rank == 4 && &*data.op.domain != MICROSOFT {
        return match turns == [[0, 2, 1, 3]] {
            true => Ok(Query {
                value,
                form: Form::Heads,
                heads,
                size,
                turned_in: None,
            }),
            false => refuse("gives heads that are merged in another order"),
        };
    }
    if rank != 3 || !turns.is_empty() {
        return refuse("has queries packed with keys, or heads in another order");
    }
    match data.op.op_type.as_ref() {
        "MultiHeadAttention" if has(3) => return refuse("adds a bias to its query inside"),
        "GroupQueryAttention" if has(14) => return refuse("has the norm of its query inside"),
        _ => {}
    }
    let turns_inside = is_grouped && data.int("do_rotary").unwrap_or(0) != 0;
    if turns_inside && !(has(5) && has(7) && has(8)) {
        return refuse("turns its query without tables of cosines and sines");
    }
    Ok(Query {
        value,
        form: Form::Rows,
        heads,
        size,
        turned_in: turns_inside.then_some(node),
    })
}

/// The only node of a kind that a value comes from, by way of some operators.
fn only_before(
    graph: &Graph,
    value: Option<ValueId>,
    way: &[&str],
    is_wanted: impl Fn(&str, NodeId) -> bool,
) -> Option<NodeId> {
    let mut found: FxHashSet<NodeId> = FxHashSet::default();
    let mut seen: FxHashSet<ValueId> = FxHashSet::default();
    let mut left: Vec<ValueId> = value.into_iter().collect();
    for _ in 0..LONGEST_WAY {
        for value in std::mem::take(&mut left) {
            let Some(node) = graph.producer(value).filter(|_| seen.insert(value)) else {
                continue;
            };
            let op = &*graph.node(node).op.op_type;
            if is_wanted(op, node) {
                found.insert(node);
            } else if way.contains(&op) {
                left.extend(graph.operands(node).into_iter().flatten());
            }
        }
    }
    let mut found = found.into_iter();
    found.next().filter(|_| found.next().is_none())
}

/// In front of the factor that its scores have.
fn unscaled(graph: &Graph, query: ValueId) -> ValueId {
    let mut at = query;
    for _ in 0..LONGEST_WAY {
        let Some(node) = graph.producer(at) else {
            break;
        };
        let (a, b) = (graph.operand(node, 0), graph.operand(node, 1));
        let is_number = |value: Option<ValueId>| value.is_some_and(|v| is_number(graph, v));
        let before = match &*graph.node(node).op.op_type {
            "Cast" | "Identity" => a,
            "Mul" | "Div" if is_number(b) => a,
            "Mul" if is_number(a) => b,
            _ => None,
        };
        match before {
            Some(before) => at = before,
            None => break,
        }
    }
    at
}

/// One element, whatever its axes.
fn is_number(graph: &Graph, value: ValueId) -> bool {
    let dims = dims_of(graph, value);
    dims.is_some_and(|dims| dims.iter().all(|dim| dim.known() == Some(1)))
}

/// Whether a value is stored, in whatever form.
fn is_constant(graph: &Graph, value: ValueId) -> bool {
    let mut at = value;
    for _ in 0..LONGEST_WAY {
        if graph.value(at).tensor().is_some() {
            return true;
        }
        let Some(node) = graph.producer(at) else {
            return false;
        };
        let op = &*graph.node(node).op.op_type;
        if op == "Constant" {
            return true;
        }
        let passes = ["Transpose", "DequantizeLinear", "Unsqueeze", "Squeeze"];
        match graph.operand(node, 0) {
            Some(before) if SEEN_THROUGH.contains(&op) || passes.contains(&op) => at = before,
            _ => return false,
        }
    }
    false
}

/// Refuses products whose operands are turned inside.
fn plain(graph: &Graph, product: NodeId) -> Result<(), String> {
    let turned = ["transA", "transBatchA", "transBatchB"]
        .iter()
        .any(|name| graph.node(product).int(name).unwrap_or(0) != 0);
    match turned {
        true => Err(format!("{} turns its operands", named(graph, product))),
        false => Ok(()),
    }
}

fn dims(graph: &Graph, value: ValueId) -> Option<[&Dim; 4]> {
    let dims = dims_of(graph, value)?;
    <[&Dim; 4]>::try_from(dims.iter().collect::<Vec<&Dim>>()).ok()
}

fn dims_of(graph: &Graph, value: ValueId) -> Option<&[Dim]> {
    let ty = graph.value(value).ty.as_ref()?;
    ty.shape.as_ref().map(|shape| shape.0.as_slice())
}

fn named(graph: &Graph, node: NodeId) -> String {
    let op = &graph.node(node).op.op_type;
    format!("`{}` ({op})", graph.display_name(node))
}
