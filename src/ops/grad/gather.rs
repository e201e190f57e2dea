//! Indexed reads and writes.

use super::{GradCx, GradOutcome};
use crate::graph::Attribute;
use crate::ops::build::{Builder, Expr, Refusal, refuse};
use crate::ops::node_cx::MOST;
use crate::ty::{DType, Dim};

/// `y = x` read at `indices` along an axis: `dx` is `dy` added at these places.
pub fn gather(cx: &mut GradCx<'_>) -> GradOutcome {
    let (x, indices, dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    let dims = x.dims()?;
    let axis = cx.axis(0, dims.len())?;
    let depth = indices.rank()?;
    let index = cx.known(1).and_then(|known| known.single()?.number());
    let index = index.filter(|index| index.unsigned_abs() <= MOST as u64);
    if let (Some(index), true) = (index, depth <= 1) {
        let row = if depth == 0 {
            dy.unsqueeze(&[axis])
        } else {
            dy
        };
        return one_place(cx, &dims, axis, index, row);
    }
    // The axis and the indices' axes first.
    let inner: Vec<usize> = (0..dims.len()).filter(|other| *other != axis).collect();
    let moved = |at: usize| if at < axis { at } else { at - 1 + depth };
    let perm: Vec<usize> = (axis..axis + depth)
        .chain(inner.iter().map(|at| moved(*at)))
        .collect();
    let first: Vec<usize> = [axis].into_iter().chain(inner.iter().copied()).collect();
    let target: Vec<Dim> = first.iter().map(|at| dims[*at].clone()).collect();
    let mut back = vec![0; dims.len()];
    for (at, own) in first.iter().enumerate() {
        back[*own] = at;
    }
    cx.try_give(0, || {
        let added = add_rows(&target, indices, dy.transpose(&perm))?;
        Ok(added.transpose(&back))
    })
}

/// The gradient of a read of one place of an axis.
fn one_place<'b>(
    cx: &mut GradCx<'b>,
    dims: &[Dim],
    axis: usize,
    index: i64,
    row: Expr<'b>,
) -> GradOutcome {
    if let Some(size) = dims[axis].known() {
        let at = if index < 0 { index + size } else { index };
        if cx.needs(0) {
            cx.give_part(0, axis, at, at + 1, row);
        }
        return Ok(());
    }
    let (mut before, mut behind) = (
        vec![Dim::from(0); dims.len()],
        vec![Dim::from(0); dims.len()],
    );
    let rest = |taken: i64| dims[axis].clone() - Dim::from(taken);
    if index < 0 {
        before[axis] = rest(-index);
        behind[axis] = Dim::from(-index - 1);
    } else {
        before[axis] = Dim::from(index);
        behind[axis] = rest(index + 1);
    }
    cx.try_give(0, || row.pad(&before, &behind))
}

/// Zeros in this shape, with the rows added at the indices of the first axis. Before opset 16,
/// when the scatter operators learned to add, by a product with one-hot rows.
fn add_rows<'b>(target: &[Dim], indices: Expr<'b>, rows: Expr<'b>) -> Result<Expr<'b>, Refusal> {
    let build = rows.builder;
    // `Gather` takes both integer types, `ScatterND` one.
    let indices = indices.cast(DType::I64);
    if build.opset() >= 16 {
        let zeros = build.zeros(rows.dtype(), target)?;
        let depth = indices.rank()?;
        return Ok(add_at(zeros, indices.unsqueeze(&[depth]), rows));
    }
    let (Some(count), Some((height, width))) = (product(&indices.dims()?), target.split_first())
    else {
        return refuse!("its operand has no axes");
    };
    let width = product(width).unwrap_or(Dim::from(1));
    let indices = indices.reshape(std::slice::from_ref(&count))?;
    let one = rows.number(1.0);
    let values = build.concat(&[rows.number(0.0).unsqueeze(&[0]), one.unsqueeze(&[0])], 0);
    let hot = build
        .node(
            "OneHot",
            &[indices, build.size(height)?, values],
            Vec::new(),
        )
        .stated(&[count.clone(), height.clone()]);
    let rows = rows.reshape(&[count, width])?;
    let transposed = vec![Attribute::int("transA", 1)];
    build.node("Gemm", &[hot, rows], transposed).reshape(target)
}

fn product(dims: &[Dim]) -> Option<Dim> {
    Some(dims.iter().fold(Dim::from(1), |n, dim| n * dim.clone()))
}

/// `ScatterND` that adds.
fn add_at<'b>(data: Expr<'b>, indices: Expr<'b>, updates: Expr<'b>) -> Expr<'b> {
    let adds = vec![Attribute::string("reduction", "add")];
    data.builder
        .node("ScatterND", &[data, indices, updates], adds)
}

fn needs_addition(build: &Builder<'_>) -> GradOutcome {
    match build.opset() {
        16.. => Ok(()),
        _ => refuse!("adding at places needs opset 16"),
    }
}

/// `y = x` read at `i` along an axis, element by element: `dx` is `dy` added at these places.
pub fn gather_elements(cx: &mut GradCx<'_>) -> GradOutcome {
    needs_addition(cx.build)?;
    let (x, indices, dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    let dims = x.dims()?;
    let attributes = vec![
        Attribute::int("axis", cx.axis(0, dims.len())? as i64),
        Attribute::string("reduction", "add"),
    ];
    let build = cx.build;
    cx.try_give(0, || {
        let zeros = build.zeros(x.dtype(), &dims)?;
        Ok(build.node("ScatterElements", &[zeros, indices, dy], attributes))
    })
}

/// `y[b…, i…] = x[b…, indices[b…, i…, :]]`: `dx` is `dy` added at these places. The batch axes `b`
/// become part of the indices.
pub fn gather_nd(cx: &mut GradCx<'_>) -> GradOutcome {
    needs_addition(cx.build)?;
    let (x, mut indices, dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    let (dims, places) = (x.dims()?, indices.dims()?);
    let build = cx.build;
    let batch = usize::try_from(cx.int_or("batch_dims", 0)).unwrap_or(0);
    if batch >= places.len().min(dims.len()) {
        return refuse!(
            "it has {batch} batch axes and indices with {} axes",
            places.len()
        );
    }
    if batch > 0 {
        let mut columns = Vec::new();
        for axis in 0..batch {
            let mut apart = vec![Dim::from(1); places.len()];
            apart[axis] = places[axis].clone();
            let mut whole = places.clone();
            whole[places.len() - 1] = Dim::from(1);
            let counted = build.count(&places[axis])?;
            columns.push(counted.reshape(&apart)?.expand(&whole)?);
        }
        columns.push(indices);
        indices = build.concat(&columns, places.len() - 1);
    }
    cx.try_give(0, || {
        let zeros = build.zeros(x.dtype(), &dims)?;
        Ok(add_at(zeros, indices, dy))
    })
}

/// Whether a scatter adds; one that multiplies or compares has no gradient here.
fn adds(cx: &GradCx<'_>) -> Result<bool, Refusal> {
    match cx.node.string("reduction") {
        None | Some("none") => Ok(false),
        Some("add") => Ok(true),
        Some(other) => refuse!("it combines with `{other}`"),
    }
}

/// `y = x` with `u` written at `i` along an axis: `dx = dy` with zeros there, `du` is `dy` read
/// there. Where it adds, `dx = dy`.
pub fn scatter_elements(cx: &mut GradCx<'_>) -> GradOutcome {
    if cx.opset < 11 {
        return refuse!("writing to places needs opset 11");
    }
    let axis = vec![Attribute::int("axis", cx.axis(0, cx.rank(0)?)? as i64)];
    scatter(cx, "ScatterElements", "GatherElements", axis)
}

/// As [`scatter_elements`], at places along all leading axes.
pub fn scatter_nd(cx: &mut GradCx<'_>) -> GradOutcome {
    scatter(cx, "ScatterND", "GatherND", Vec::new())
}

fn scatter(
    cx: &mut GradCx<'_>,
    write: &str,
    read: &str,
    attributes: Vec<Attribute>,
) -> GradOutcome {
    let adds = adds(cx)?;
    let (indices, updates, dy) = (cx.x(1)?, cx.x(2)?, cx.dy()?);
    let build = cx.build;
    cx.try_give(0, || {
        if adds {
            return Ok(dy);
        }
        let zeros = build.zeros(updates.dtype(), &updates.dims()?)?;
        Ok(build.node(write, &[dy, indices, zeros], attributes.clone()))
    })?;
    cx.give(2, || build.node(read, &[dy, indices], attributes));
    Ok(())
}
