//! Gradients brought to the shape of what they are the gradient of.

use crate::ops::{Expr, Refusal};
use crate::ty::{Dim, Proof};

/// Sums over the axes along which the value was stretched; the result may still be smaller than
/// the value.
pub(super) fn narrow<'b>(gradient: Expr<'b>, dims: &[Dim]) -> Result<Expr<'b>, Refusal> {
    let own = gradient.dims()?;
    let lead = own.len().saturating_sub(dims.len());
    // Axes are counted from the end: a gradient may have fewer than its value.
    let dims = &dims[dims.len().saturating_sub(own.len())..];
    let mut summed: Vec<usize> = (0..lead).collect();
    let mut open = Vec::new();
    for (axis, size) in own.iter().enumerate().skip(lead) {
        let wanted = &dims[axis - lead];
        match (wanted.known(), size.known()) {
            (Some(1), Some(1)) => {}
            (Some(1), _) => summed.push(axis),
            (Some(_), _) | (_, Some(1)) => {}
            (None, _) if wanted.compare(size) != Proof::Equal => open.push(axis),
            (None, _) => {}
        }
    }
    let gradient = sum_where_one(gradient, &open, dims, lead)?;
    if summed.len() == lead {
        return Ok(gradient.sum_dropping(&summed));
    }
    if lead == 0 {
        return Ok(gradient.sum_keeping(&summed));
    }
    // Axes of size 1 go and come back: one reduction, and a reshape that moves nothing.
    let shrunk: Vec<Dim> = own
        .iter()
        .zip(0..)
        .skip(lead)
        .map(|(size, axis)| match summed.contains(&axis) {
            true => Dim::from(1),
            false => size.clone(),
        })
        .collect();
    gradient.sum_dropping(&summed).reshape(&shrunk)
}

/// Sums over those of the axes where the value has size 1, which only a run can tell: the list of
/// axes is computed.
fn sum_where_one<'b>(
    gradient: Expr<'b>,
    axes: &[usize],
    dims: &[Dim],
    lead: usize,
) -> Result<Expr<'b>, Refusal> {
    if axes.is_empty() {
        return Ok(gradient);
    }
    let build = gradient.builder;
    if build.opset() < 13 {
        return Err(Refusal(
            "whether an axis was stretched is only known in a run, which needs opset 13".to_owned(),
        ));
    }
    let wanted: Vec<Dim> = axes.iter().map(|axis| dims[axis - lead].clone()).collect();
    let is_one = build.sizes(&wanted)?.is_equal(build.ints(&[1]));
    let list: Vec<i64> = axes.iter().map(|axis| *axis as i64).collect();
    let chosen = build.node(
        "Compress",
        &[build.ints(&list), is_one],
        vec![crate::graph::Attribute::int("axis", 0)],
    );
    let attributes = vec![
        crate::graph::Attribute::int("keepdims", 1),
        crate::graph::Attribute::int("noop_with_empty_axes", 1),
    ];
    let mut sizes = gradient.dims()?;
    for axis in axes {
        sizes[*axis] = dims[axis - lead].clone();
    }
    let summed = build.node("ReduceSum", &[gradient, chosen], attributes);
    Ok(summed.stated(&sizes))
}
