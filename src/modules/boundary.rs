//! Where a linear module begins and ends around its node: the bias that an Add brings, and the
//! Reshapes that a two-dimensional product has on both sides.

use super::call::Here;
use super::constant::Constant;
use super::names::same_module;
use crate::graph::{NodeId, ValueId};

pub(super) struct Boundary<'m> {
    pub input: ValueId,
    pub output: ValueId,
    pub bias: Option<Constant<'m>>,
    /// Nodes taken into the module.
    pub nearby: Vec<NodeId>,
}

/// Widens the boundary of `here`: bias, then Reshapes, then a bias behind the Reshape.
pub(super) fn find<'m>(
    here: Here<'_, 'm>,
    mut boundary: Boundary<'m>,
    in_features: i64,
    out_features: i64,
) -> Boundary<'m> {
    take_bias(here, &mut boundary, out_features);
    take_reshapes(here, &mut boundary, in_features, out_features);
    take_bias(here, &mut boundary, out_features);
    boundary
}

/// A constant vector of the output's size, added by the only reader of the output.
fn take_bias<'m>(here: Here<'_, 'm>, boundary: &mut Boundary<'m>, out_features: i64) {
    if boundary.bias.is_some() {
        return;
    }
    let Some((add, slot)) = reader_behind_casts(here, boundary.output) else {
        return;
    };
    if !add.is("Add") || !same_module(here.node, add.node) {
        return;
    }
    let Some(bias) = add.constant(1 - slot.min(1)) else {
        return;
    };
    if bias.vector() == Some(out_features)
        && let Some(output) = add.result()
    {
        boundary.bias = Some(bias);
        boundary.output = output;
        boundary.nearby.push(add.id);
    }
}

/// The only reader of a value, looking through a Cast or a pair of QuantizeLinear and
/// DequantizeLinear.
fn reader_behind_casts<'a, 'm>(
    here: Here<'a, 'm>,
    value: ValueId,
) -> Option<(Here<'a, 'm>, usize)> {
    let (mut user, mut slot) = here.sole_user(value)?;
    for _ in 0..2 {
        let passes = ["Cast", "QuantizeLinear", "DequantizeLinear"]
            .iter()
            .any(|op_type| user.is(op_type));
        if !passes || slot != 0 {
            break;
        }
        (user, slot) = here.sole_user(user.result()?)?;
    }
    Some((user, slot))
}

/// `Reshape` to rows, the product, `Reshape` back: the module's values are those outside.
fn take_reshapes(
    here: Here<'_, '_>,
    boundary: &mut Boundary<'_>,
    in_features: i64,
    out_features: i64,
) {
    let Some(before) = here
        .producer(boundary.input)
        .filter(|node| node.is("Reshape"))
    else {
        return;
    };
    let Some((behind, 0)) = here
        .sole_user(boundary.output)
        .filter(|(node, _)| node.is("Reshape"))
    else {
        return;
    };
    let (Some(input), Some(output)) = (before.operand(0), behind.result()) else {
        return;
    };
    let levels = here.levels;
    let input_fits = levels
        .last_dim(here.value(input))
        .is_none_or(|size| size == in_features);
    let output_fits = levels.last_dim(here.value(output)) == Some(out_features);
    let inside = [before, behind]
        .iter()
        .all(|node| same_module(here.node, node.node));
    if input_fits && output_fits && inside {
        boundary.input = input;
        boundary.output = output;
        boundary.nearby.extend([before.id, behind.id]);
    }
}
