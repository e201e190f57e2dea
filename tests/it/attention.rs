//! Attention as one node, in ONNX Runtime: the same loss and gradients as its operators one by one.

use crate::adapters::distance;
use crate::recompute::{compiled, fill, inputs};
use crate::recorded::exports;
use crate::tolerances::TRAINING_HALVES;
use crate::training::{run, stateful, with_kernels};
use peftc::driver::Recompute;
use peftc::kernels::{DOMAIN, attention::OPERATOR};
use peftc::runtime::Optimization;
use std::path::Path;

/// How many nodes of a training graph are attention, or its gradient, once it is fused.
fn count(graph: &Path) -> usize {
    let mut sink = peftc::diag::Sink::new();
    let mut model = peftc::onnx::import(graph, &mut sink).unwrap().model;
    peftc::passes::fuse(&mut model, &mut sink).unwrap();
    let ops = model
        .graph
        .node_ids()
        .map(|node| &model.graph.node(node).op);
    ops.filter(|op| &*op.domain == DOMAIN && &*op.op_type == OPERATOR)
        .count()
}

/// Exports of all kinds, whose batches have padding. Two layers, each forwards and backwards; a layer that is
/// computed again is so without its result where nobody reads that.
#[test]
fn gradients_are_those_of_operators_one_by_one() {
    for family in ["llama", "gpt2", "bert"] {
        let inputs = inputs(family);
        for export in exports(family) {
            for recompute in [Recompute::Off, Recompute::Blocks] {
                let folder = tempfile::tempdir().unwrap();
                let manifest = compiled(export, recompute, folder.path());
                let out = folder.path().join("out");
                let found = count(&out.join("grad.onnx"));
                let expected = match recompute {
                    // Its mask chooses between scores and a number.
                    _ if *export == "gpt2.ts" => found == 0,
                    Recompute::Off => found == 4,
                    _ => (4..=6).contains(&found),
                };
                assert!(expected, "{export} {recompute:?}: {found}");
                let mut plain = stateful(&out, &manifest, "grad", Optimization::All);
                let (mut fused, _) = with_kernels(&out, &manifest, "grad");
                fill(&mut plain, &manifest);
                fill(&mut fused, &manifest);
                let (plain, fused) = (run(&mut plain, &inputs), run(&mut fused, &inputs));
                for (name, tensor) in plain.iter() {
                    let (difference, scale) = distance(fused.get(name).unwrap(), tensor);
                    assert!(
                        difference <= TRAINING_HALVES * scale,
                        "{export}: {name} is off by {difference} of {scale}"
                    );
                }
            }
        }
    }
}
