//! Operators with subgraphs. Their types come from the bodies: `passes::infer` recurses.

use super::cx::Outcome;
use super::grad::help;
use super::registry::{Control, Grad, OpDef, at_least, exactly, op};

pub(super) const OPS: &[OpDef] = &[
    op("If", 1, exactly(1), nothing, Grad::Missing(help::BRANCHES))
        .results(at_least(1))
        .bodies(Control::If),
    op("Loop", 1, at_least(2), nothing, Grad::Missing(help::LOOPS))
        .results(at_least(1))
        .bodies(Control::Loop),
    op("Scan", 9, at_least(1), nothing, Grad::Missing(help::LOOPS))
        .results(at_least(1))
        .bodies(Control::Scan),
];

fn nothing(_: &mut super::InferCx<'_>) -> Outcome {
    Ok(())
}
