//! The gradient of a softmax, in attention above all.

use super::{GradCx, GradOutcome};
use crate::graph::{Graph, NodeId, ValueId};
use crate::ops::build::Expr;
use crate::ty::{Dim, Proof};

/// `dx = y · (dy - Σ dy · y)`. Where rows of `y` are replaced by zeros, those of which every score is
/// masked, `y` is what replaces it: such a row has no gradient. Where `y` is a factor of `o = y v`
/// alone, `Σ dy · y = Σ do · o`, sums over a head in place of sums over all keys.
pub(super) fn softmax(cx: &mut GradCx<'_>, axes: &[usize]) -> GradOutcome {
    let (y, dy) = (cx.y(0)?, cx.dy()?);
    let own = cx.build.graph().result(cx.id(), 0);
    let weights = own.map(|own| without_masked_rows(cx, own, axes).unwrap_or(own));
    let kind = y.dtype();
    let y = weights.map_or(y, |weights| cx.build.expr(weights).cast(kind));
    let is_last = y.rank()?.checked_sub(1).is_some_and(|last| *axes == [last]);
    let inner = weights
        .filter(|_| is_last)
        .and_then(|weights| by_result(cx, weights));
    cx.give(0, || match inner {
        Some(inner) => y * (dy - inner.cast(kind)),
        None => {
            let weighted = dy * y;
            weighted - y * weighted.sum_keeping(axes)
        }
    });
    Ok(())
}

/// The only node that reads a value, and as which operand. Those that only ask for its type or shape,
/// or whether it is a number, do not count.
fn reader(graph: &Graph, value: ValueId) -> Option<(NodeId, usize)> {
    let asks = |(node, slot): &(NodeId, Option<usize>)| {
        let op = &graph.node(*node).op;
        op.is("IsNaN") || op.is("Shape") || op.is("CastLike") && *slot == Some(1)
    };
    let mut readers = graph.uses(value).into_iter().filter(|read| !asks(read));
    match (readers.next(), readers.next()) {
        (Some((node, Some(slot))), None) => Some((node, slot)),
        _ => None,
    }
}

/// The result of the only node that reads a value, if it is of this operator and the value is its
/// operand in this slot.
fn read_by(graph: &Graph, value: ValueId, op: &str, slot: usize) -> Option<(NodeId, ValueId)> {
    let (node, found) = reader(graph, value)?;
    let result = graph.result(node, 0)?;
    (found == slot && graph.node(node).op.is(op)).then_some((node, result))
}

/// `masked ? 0 : y`, if that is how `y` is read, as another type maybe, and if what is masked are
/// whole rows: not-a-numbers, or what a condition without the axes says.
fn without_masked_rows(cx: &GradCx<'_>, y: ValueId, axes: &[usize]) -> Option<ValueId> {
    let graph = cx.build.graph();
    let cast = read_by(graph, y, "Cast", 0);
    let value = cast.map_or(y, |(_, value)| value);
    let (node, result) = read_by(graph, value, "Where", 2)?;
    let condition = graph.operand(node, 0)?;
    let by_rows = asks_for_nan(graph, condition, &[y, value]) || has_one(cx, condition, y, axes);
    let chosen = cx.build.known(graph.operand(node, 1)?.into())?;
    (by_rows && chosen.single()?.float() == Some(0.0)).then_some(result)
}

fn asks_for_nan(graph: &Graph, condition: ValueId, of: &[ValueId]) -> bool {
    graph.producer(condition).is_some_and(|node| {
        let asked = graph.operand(node, 0);
        graph.node(node).op.is("IsNaN") && asked.is_some_and(|value| of.contains(&value))
    })
}

/// Whether a condition is the same along the axes of `y`.
fn has_one(cx: &GradCx<'_>, condition: ValueId, y: ValueId, axes: &[usize]) -> bool {
    let dims = |value: ValueId| cx.build.expr(value).dims();
    let (Ok(condition), Ok(own)) = (dims(condition), dims(y)) else {
        return false;
    };
    axes.iter().all(|axis| {
        // Counted from the end: the condition may have fewer axes.
        let from_end = own.len() - axis;
        let at = condition.len().checked_sub(from_end);
        at.is_none_or(|at| condition[at].known() == Some(1))
    })
}

/// `Σ do · o` along the last axis, where the weights are only read as the left factor of `o`.
fn by_result<'b>(cx: &GradCx<'b>, weights: ValueId) -> Option<Expr<'b>> {
    let graph = cx.build.graph();
    let dims = |value: ValueId| cx.build.expr(value).dims().ok();
    // Heads may be gathered to rows first.
    let gathered = read_by(graph, weights, "Reshape", 0);
    let factor = gathered.map_or(weights, |(_, factor)| factor);
    let (_, o) = read_by(graph, factor, "MatMul", 0)?;
    let (own, rows, whole) = (dims(weights)?, dims(factor)?, dims(o)?);
    let (keys, lead) = rows.split_last()?;
    // The last axis stays, and a factor that is stretched has a sum over copies in its gradient.
    let is_stretched = lead != &whole[..whole.len() - 1];
    if is_stretched || keys.compare(own.last()?) != Proof::Equal {
        return None;
    }
    let inner = sum_of_products(cx, o)?;
    let mut shape = own;
    *shape.last_mut()? = Dim::from(1);
    inner.reshape(&shape).ok()
}

/// `Σ do · o` along the last axis of a value. Where heads and rows are exchanged next, what comes of
/// that is read in its place: a product with what follows keeps it anyway.
fn sum_of_products<'b>(cx: &GradCx<'b>, o: ValueId) -> Option<Expr<'b>> {
    let graph = cx.build.graph();
    let along = |value: ValueId| {
        let x = cx.build.expr(value);
        let last = x.rank().ok()?.checked_sub(1)?;
        Some((cx.gradient_of(value)? * x).sum_keeping(&[last]))
    };
    let exchanged = read_by(graph, o, "Transpose", 0).and_then(|(node, result)| {
        let perm: Vec<usize> = graph
            .node(node)
            .ints("perm")?
            .iter()
            .map(|axis| *axis as usize)
            .collect();
        let back: Option<Vec<usize>> = (0..perm.len())
            .map(|axis| perm.iter().position(|from| *from == axis))
            .collect();
        let keeps_last = perm.last().is_some_and(|last| last + 1 == perm.len());
        keeps_last
            .then(|| Some(along(result)?.transpose(&back?)))
            .flatten()
    });
    exchanged.or_else(|| along(o))
}
