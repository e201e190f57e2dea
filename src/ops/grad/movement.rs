//! Operators that move, repeat, join or cut elements.

use super::{GradCx, GradOutcome};
use crate::graph::Attribute;
use crate::ops::build::{END, Expr, Refusal, refuse};
use crate::ops::known::Element;
use crate::ops::slice::OPEN;
use crate::ty::Dim;

/// Axis `k` of `y` is axis `perm[k]` of `x`: `dx` is `dy` with the inverse permutation.
pub fn transpose(cx: &mut GradCx<'_>) -> GradOutcome {
    let rank = cx.rank(0)?;
    let perm: Vec<usize> = match cx.node.ints("perm") {
        Some(perm) => perm
            .iter()
            .map(|axis| super::axis(*axis, rank))
            .collect::<Result<_, _>>()?,
        None => (0..rank).rev().collect(),
    };
    let mut inverse = vec![0; rank];
    for (at, axis) in perm.iter().enumerate() {
        inverse[*axis] = at;
    }
    cx.only(|_, _, dy| dy.transpose(&inverse))
}

/// `y = [x0; x1; …]`: `dxi` is the part of `dy` at the place of `xi`.
pub fn concat(cx: &mut GradCx<'_>) -> GradOutcome {
    let dy = cx.dy()?;
    let axis = cx.axis(if cx.opset < 4 { 1 } else { 0 }, dy.rank()?)?;
    let count = cx.operand_count();
    let mut sizes = Vec::with_capacity(count);
    for slot in 0..count {
        sizes.push(cx.dims(slot)?[axis].clone());
    }
    let mut start = Dim::from(0);
    for (slot, size) in sizes.into_iter().enumerate() {
        let end = start.clone() + size;
        let bounds = (start, end.clone());
        let is_last = slot + 1 == count;
        cx.try_give(slot, || part(dy, axis, &bounds.0, &bounds.1, is_last))?;
        start = end;
    }
    Ok(())
}

/// The part of one axis between two sizes.
fn part<'b>(
    x: Expr<'b>,
    axis: usize,
    start: &Dim,
    end: &Dim,
    to_the_end: bool,
) -> Result<Expr<'b>, Refusal> {
    let end_number = if to_the_end { Some(END) } else { end.known() };
    if let (Some(start), Some(end)) = (start.known(), end_number) {
        return Ok(x.slice(axis, start, end));
    }
    let build = x.builder;
    if build.opset() < 10 {
        return refuse!("a slice by symbolic sizes needs opset 10");
    }
    let end = match end_number {
        Some(end) => build.ints(&[end]),
        None => build.size(end)?,
    };
    let operands = [x, build.size(start)?, end, build.ints(&[axis as i64])];
    Ok(build.node("Slice", &operands, Vec::new()))
}

/// `y0, y1, … = x` cut along an axis: `dx = [dy0; dy1; …]`, zeros where the loss does not depend on
/// a part.
pub fn split(cx: &mut GradCx<'_>) -> GradOutcome {
    let x = cx.x(0)?;
    let axis = cx.axis(0, x.rank()?)?;
    let mut parts = Vec::new();
    for slot in 0..cx.result_count() {
        parts.push(match cx.dy_of(slot)? {
            Some(dy) => dy,
            None => {
                let dims = cx.y(slot)?.dims()?;
                cx.build.zeros(x.dtype(), &dims)?
            }
        });
    }
    let build = cx.build;
    cx.give(0, || build.concat(&parts, axis));
    Ok(())
}

/// `y = x[start:end:step]`: `dx = dy` at these places, 0 elsewhere. A part of one axis with
/// constant bounds is handed to the sweep, which joins the parts of a value that are side by side.
pub fn slice(cx: &mut GradCx<'_>) -> GradOutcome {
    let (x, dy) = (cx.x(0)?, cx.dy()?);
    let (dims, cut) = (x.dims()?, dy.dims()?);
    let bounds = Bounds::read(cx, dims.len())?;
    if let Some((axis, start, end)) = bounds.constant_part(&dims) {
        if cx.needs(0) {
            cx.give_part(0, axis, start, end, dy);
        }
        return Ok(());
    }
    if bounds.0.iter().any(|bound| bound.step != Some(1)) {
        return strided(cx, &bounds, &dims);
    }
    let (mut before, mut behind) = (
        vec![Dim::from(0); dims.len()],
        vec![Dim::from(0); dims.len()],
    );
    for bound in &bounds.0 {
        let Some(start) = bound.start_within(&dims[bound.axis]) else {
            return refuse!("where its slice of axis {} starts is not known", bound.axis);
        };
        let rest = dims[bound.axis].clone() - start.clone() - cut[bound.axis].clone();
        before[bound.axis] = start;
        behind[bound.axis] = rest;
    }
    cx.try_give(0, || dy.pad(&before, &behind))
}

/// One sliced axis.
struct Bound {
    axis: usize,
    start: Option<Dim>,
    end: Option<Dim>,
    step: Option<i64>,
}

struct Bounds(Vec<Bound>);

impl Bounds {
    fn read(cx: &GradCx<'_>, rank: usize) -> Result<Bounds, Refusal> {
        let by_attribute = cx.opset < 10;
        let list = |name: &str, slot: usize| -> Option<Vec<Option<Dim>>> {
            if by_attribute {
                let values = cx.node.ints(name)?;
                return Some(values.iter().map(|n| Some(Dim::from(*n))).collect());
            }
            let known = cx.known(slot)?;
            Some(known.elements.iter().map(|e| e.int().cloned()).collect())
        };
        let (starts, ends) = (list("starts", 1), list("ends", 2));
        let steps = list("steps", 4);
        let axes = match list("axes", 3) {
            Some(axes) => axes.iter().map(|n| n.as_ref()?.known()).collect(),
            None if !by_attribute && cx.maybe_x(3).is_some() => None,
            None => starts
                .as_ref()
                .map(|list| (0..list.len() as i64).collect::<Vec<i64>>()),
        };
        let Some(axes) = axes else {
            return refuse!("its axes are not constants");
        };
        let has_steps = !by_attribute && cx.maybe_x(4).is_some();
        let at = |list: &Option<Vec<Option<Dim>>>, index: usize| list.as_ref()?.get(index)?.clone();
        let mut bounds = Vec::new();
        for (index, axis) in axes.into_iter().enumerate() {
            bounds.push(Bound {
                axis: super::axis(axis, rank)?,
                start: at(&starts, index),
                end: at(&ends, index),
                step: match has_steps {
                    true => at(&steps, index).and_then(|step| step.known()),
                    false => Some(1),
                },
            });
        }
        Ok(Bounds(bounds))
    }

    /// The axis and the bounds of a slice by numbers along one axis of known size.
    fn constant_part(&self, dims: &[Dim]) -> Option<(usize, i64, i64)> {
        let [bound] = self.0.as_slice() else {
            return None;
        };
        let size = dims[bound.axis].known()?;
        let from_start = |at: i64| {
            let at = if at < 0 { at.saturating_add(size) } else { at };
            at.clamp(0, size)
        };
        let start = from_start(bound.start.as_ref()?.known()?);
        let end = from_start(bound.end.as_ref()?.known()?);
        (bound.step == Some(1) && start < end).then_some((bound.axis, start, end))
    }
}

impl Bound {
    /// The start as an offset from the front.
    fn start_within(&self, size: &Dim) -> Option<Dim> {
        let start = self.start.as_ref()?;
        match start.known() {
            Some(n) if n >= OPEN => None,
            Some(n) if n <= -OPEN => Some(Dim::from(0)),
            Some(n) if n < 0 => Some((size.clone() + Dim::from(n)).larger(&Dim::from(0))),
            Some(n) => Some(Dim::from(n)),
            None if start.lower_bound().is_some_and(|least| least >= 0) => Some(start.clone()),
            None => {
                let negative = (-start.clone()).lower_bound()? >= 1;
                negative.then(|| size.clone() + start.clone())
            }
        }
    }
}

/// A slice with steps: the places are computed with the same slice of `[0, 1, …]`, and the
/// gradient is written there.
fn strided(cx: &mut GradCx<'_>, bounds: &Bounds, dims: &[Dim]) -> GradOutcome {
    let [bound] = bounds.0.as_slice() else {
        return refuse!("it slices several axes by steps");
    };
    if cx.opset < 11 {
        return refuse!("a slice by steps needs opset 11");
    }
    let axis = bound.axis;
    let Some(size) = dims[axis].known() else {
        return refuse!("it slices an axis of symbolic size by steps");
    };
    let (build, dy) = (cx.build, cx.dy()?);
    let places: Vec<i64> = (0..size).collect();
    let operands = [
        build.ints(&places),
        cx.x(1)?,
        cx.x(2)?,
        build.ints(&[0]),
        cx.x(4)?,
    ];
    cx.try_give(0, || {
        let places = build.node("Slice", &operands, Vec::new());
        let cut = dy.dims()?;
        let mut lifted = vec![Dim::from(1); cut.len()];
        lifted[axis] = cut[axis].clone();
        let indices = places.reshape(&lifted)?.expand(&cut)?;
        let zeros = build.zeros(dy.dtype(), dims)?;
        let axis = vec![Attribute::int("axis", axis as i64)];
        Ok(build.node("ScatterElements", &[zeros, indices, dy], axis))
    })
}

/// `y = x` repeated: `dx = Σ dy` over the repetitions, which are an axis of their own in
/// `[r0, n0, r1, n1, …]`.
pub fn tile(cx: &mut GradCx<'_>) -> GradOutcome {
    let (x, dy) = (cx.x(0)?, cx.dy()?);
    let dims = x.dims()?;
    let Some(repeats) = cx.known(1) else {
        return refuse!("how often it repeats is not known");
    };
    let mut apart = Vec::new();
    for (element, size) in repeats.elements.iter().zip(&dims) {
        let Element::Int(count) = element else {
            return refuse!("how often it repeats is not known");
        };
        apart.extend([count.clone(), size.clone()]);
    }
    let repeated: Vec<usize> = (0..dims.len()).map(|axis| 2 * axis).collect();
    cx.try_give(0, || Ok(dy.reshape(&apart)?.sum_dropping(&repeated)))
}

/// `y = x` with constants around: `dx` is the part of `dy` inside.
pub fn pad(cx: &mut GradCx<'_>) -> GradOutcome {
    if !matches!(cx.node.string("mode"), None | Some("constant")) {
        return refuse!("it pads with the operand's own elements");
    }
    let (x, dy) = (cx.x(0)?, cx.dy()?);
    let dims = x.dims()?;
    let pads = match cx.opset < 11 {
        true => cx.node.ints("pads").map(<[i64]>::to_vec),
        false => cx.numbers(1),
    };
    let Some(pads) = pads else {
        return refuse!("its pads are not constants");
    };
    let axes: Vec<usize> = match cx.maybe_x(3) {
        None => (0..dims.len()).collect(),
        Some(_) => match cx.numbers(3) {
            Some(list) => list
                .iter()
                .map(|axis| super::axis(*axis, dims.len()))
                .collect::<Result<_, _>>()?,
            None => return refuse!("its axes are not constants"),
        },
    };
    if pads.len() != 2 * axes.len() {
        return refuse!("it has {} pads for {} axes", pads.len(), axes.len());
    }
    let inner = |list: &[i64]| {
        let mut all = vec![Dim::from(0); dims.len()];
        for (axis, count) in axes.iter().zip(list) {
            all[*axis] = Dim::from(-count);
        }
        all
    };
    let (before, behind) = (inner(&pads[..axes.len()]), inner(&pads[axes.len()..]));
    // Pads of the other sign cut.
    cx.try_give(0, || dy.pad(&before, &behind))
}

/// A triangle of `x`: the same triangle of `dy`.
pub fn trilu(cx: &mut GradCx<'_>) -> GradOutcome {
    let (build, node, dy) = (cx.build, cx.node, cx.dy()?);
    let mut operands = vec![Some(dy.operand)];
    operands.extend(cx.maybe_x(1).map(|k| Some(k.operand)));
    cx.give(0, || {
        let attributes = node.attributes.clone();
        build.nodes(&node.op.domain, &node.op.op_type, operands, attributes, 1)[0]
    });
    Ok(())
}

/// Blocks of depth become blocks of space: the way back. Where blocks are columns of the depth
/// (`CRD`), with axes in place of an operator.
pub fn depth_to_space(cx: &mut GradCx<'_>) -> GradOutcome {
    if cx.node.string("mode") != Some("CRD") {
        return blocks(cx, "SpaceToDepth");
    }
    let (size, dims, dy) = (Dim::from(cx.count("blocksize")?), cx.dims(0)?, cx.dy()?);
    let [batch, depth, height, width] = dims.as_slice() else {
        return refuse!("it has {} axes", dims.len());
    };
    let channels = depth.floor_div(&(size.clone() * size.clone()));
    let apart = [batch, &channels, height, &size, width, &size].map(Dim::clone);
    cx.try_give(0, || {
        let blocks = dy.reshape(&apart)?.transpose(&[0, 1, 3, 5, 2, 4]);
        blocks.reshape(&dims)
    })
}

/// Blocks of space become blocks of depth: the way back, as above.
pub fn space_to_depth(cx: &mut GradCx<'_>) -> GradOutcome {
    if cx.node.string("mode") != Some("CRD") {
        return blocks(cx, "DepthToSpace");
    }
    let (size, dims, dy) = (Dim::from(cx.count("blocksize")?), cx.dims(0)?, cx.dy()?);
    let [batch, channels, height, width] = dims.as_slice() else {
        return refuse!("it has {} axes", dims.len());
    };
    let (rows, columns) = (height.floor_div(&size), width.floor_div(&size));
    let apart = [batch, channels, &size, &size, &rows, &columns].map(Dim::clone);
    cx.try_give(0, || {
        let blocks = dy.reshape(&apart)?.transpose(&[0, 1, 4, 2, 5, 3]);
        blocks.reshape(&dims)
    })
}

fn blocks(cx: &mut GradCx<'_>, inverse: &str) -> GradOutcome {
    let size = vec![Attribute::int("blocksize", cx.int_or("blocksize", 1))];
    cx.only(|_, _, dy| dy.with(inverse, size))
}
