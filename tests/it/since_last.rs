//! What acts from the last occurrence of some tokens on, in ONNX Runtime: whole models, and training.

use crate::adapters::{compiled, fixtures, model, outputs};
use crate::merges::trained;
use crate::tolerances::START_ABSOLUTE;
use crate::train_command::{finished, losses};
use crate::training::{SMOOTH, check_halves_move, compiled_spec};
use peftc::diag::Sink;
use peftc::graph::Graph;
use peftc::onnx;
use peftc::runtime::{HostTensor, NamedTensors};
use std::path::{Path, PathBuf};
use std::process::Command;

const SPEC: &str = "use std::alora\nadapter a {\n  adapt \"{q,v}_proj\" with alora(rank = 2, invocation = [5, 6])\n}\n";

/// Ids and mask of a row, and where the adapter begins to act.
type Row = ([i64; 6], [i64; 6], Option<usize>);

const ALL: [i64; 6] = [1; 6];
const ROWS: &[Row] = &[
    // Twice, nowhere, at the end.
    ([5, 6, 9, 5, 6, 7], ALL, Some(3)),
    ([6, 5, 8, 1, 2, 5], ALL, None),
    ([7, 5, 5, 1, 5, 6], ALL, Some(4)),
    // Once more in padding; with one half in it.
    ([5, 6, 3, 8, 5, 6], [1, 1, 1, 1, 0, 0], Some(0)),
    ([2, 5, 6, 1, 1, 1], [0, 0, 1, 1, 1, 1], None),
];

/// Logits of a model for rows of so many tokens, one behind the other.
fn logits(path: &Path, ids: &[i64], mask: &[i64], tokens: usize) -> Vec<f64> {
    let dims = [(ids.len() / tokens) as i64, tokens as i64];
    let mut inputs = NamedTensors::default();
    inputs.push("input_ids", HostTensor::from_i64(&dims, ids));
    inputs.push("attention_mask", HostTensor::from_i64(&dims, mask));
    let found = outputs(path, &inputs);
    found.get("logits").unwrap().to_f64s().unwrap()
}

/// The fixture with an adapter whose tensors are all away from zero.
fn adapted(spec: &str, folder: &Path) -> PathBuf {
    let base = model("llama.ts");
    let values = trained(spec, &base, folder);
    compiled(spec, &base, Some(&values), folder)
}

/// By how much the logits of every token are apart in two models.
fn apart(models: [&Path; 2], ids: &[i64], mask: &[i64], tokens: usize) -> Vec<f64> {
    let [a, b] = models.map(|path| logits(path, ids, mask, tokens));
    let width = a.len() / ids.len();
    let furthest = |(a, b): (&[f64], &[f64])| {
        let pairs = a.iter().zip(b);
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    };
    a.chunks(width).zip(b.chunks(width)).map(furthest).collect()
}

/// That what begins with the invocations of the rows is all that two models differ in.
fn check_rows(adapted: &Path, base: &Path) {
    let ids: Vec<i64> = ROWS.iter().flat_map(|(ids, ..)| *ids).collect();
    let mask: Vec<i64> = ROWS.iter().flat_map(|(_, mask, _)| *mask).collect();
    let moved = apart([adapted, base], &ids, &mask, 6);
    for ((ids, mask, start), moved) in ROWS.iter().zip(moved.chunks(6)) {
        for (token, by) in moved.iter().enumerate() {
            let acts = start.is_some_and(|start| token >= start);
            let is_right = match acts {
                true => mask[token] == 0 || *by > 1e-3,
                false => *by <= START_ABSOLUTE,
            };
            assert!(is_right, "{ids:?} at {token}: moved by {by:e}");
        }
    }
}

#[test]
fn tokens_in_front_of_the_invocation_see_the_base_model() {
    let folder = tempfile::tempdir().unwrap();
    check_rows(&adapted(SPEC, folder.path()), &model("llama.ts"));
}

/// The tokens of a prompt are none of an invocation, and the places behind it are counted right.
#[test]
fn an_invocation_is_found_behind_a_prompt() {
    let prompt = "  adapt \"embed_tokens\" with prompt_tuning(tokens = 3)\n}\n";
    let both = format!(
        "use std::prompt_tuning\n{}{prompt}",
        SPEC.trim_end_matches("}\n")
    );
    let alone = format!("use std::prompt_tuning\nadapter a {{\n{prompt}");
    let [a, b] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    check_rows(&adapted(&both, a.path()), &adapted(&alone, b.path()));
}

#[test]
fn a_row_that_is_shorter_than_the_invocation_sees_the_base_model() {
    let folder = tempfile::tempdir().unwrap();
    let (adapted, base) = (adapted(SPEC, folder.path()), model("llama.ts"));
    let moved = |tokens| apart([&adapted, &base], &[5, 6], &[1, 1], tokens);
    let short = moved(1);
    assert!(short.iter().all(|by| *by <= START_ABSOLUTE), "{short:?}");
    let whole = moved(2);
    assert!(whole.iter().all(|by| *by > 1e-3), "{whole:?}");
}

/// How many nodes that look through the ids there are in a graph, and in each of its bodies.
fn searches(graph: &Graph) -> Vec<usize> {
    let nodes = graph.node_ids().map(|id| graph.node(id));
    let own = nodes
        .filter(|node| &*node.op.op_type == "CumSum" && node.name.starts_with("peftc/since_last"));
    let mut all = vec![own.count()];
    for id in graph.node_ids() {
        for attribute in &graph.node(id).attributes {
            all.extend(attribute.value.graphs().iter().flat_map(searches));
        }
    }
    all
}

/// Once a graph and a sequence, whatever the number of modules.
#[test]
fn the_ids_are_looked_through_once() {
    let two = "use std::alora\nadapter a {\n  adapt \"q_proj\" with alora(rank = 2, invocation = [5, 6])\n  \
               adapt \"v_proj\" with alora(rank = 2, invocation = [5])\n}\n";
    let merged = "use std::alora\nadapter a {\n  adapt \"q\" with alora(rank = 2, invocation = [5, 6], padded = false)\n}\n";
    for (name, spec, expected) in [
        ("llama.ts", SPEC, vec![1]),
        ("llama.ts", two, vec![2]),
        ("llama.fp16.dynamo", SPEC, vec![1]),
        // Two branches of an `If`.
        ("t5.optimum_merged", merged, vec![0, 1, 1]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = compiled(spec, &model(name), None, folder.path());
        let adapted = onnx::import(&path, &mut Sink::new()).unwrap().model;
        assert_eq!(searches(&adapted.graph), expected, "{name}");
    }
}

/// Sums are asked for by `=`, whose id is 61.
const METHOD: &str = "alora(rank = 4, invocation = [61])";

fn spec(folder: &Path) -> PathBuf {
    let spec = folder.join("spec.peft");
    let text = format!("use std::alora\nadapter a {{\n  adapt all linear with {METHOD}\n}}\n");
    std::fs::write(&spec, text).unwrap();
    spec
}

#[test]
fn a_step_behind_an_invocation_is_gradients_and_update() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let manifest = compiled_spec(&spec(folder), "a", SMOOTH, folder);
    check_halves_move(folder, &manifest);
}

#[test]
fn a_run_learns_behind_an_invocation() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let spec = spec(folder);
    let mut command = Command::new(env!("CARGO_BIN_EXE_peftc"));
    command
        .arg("train")
        .arg(fixtures().join("quickstart/math_task.yaml"))
        .args(["--format", "json", "--with", "adapter=a"])
        .args(["--with", &format!("spec={}", spec.display())])
        .args(["--with", &format!("output={}", folder.display())])
        .args(["--with", "steps=12", "--with", "threads=1"])
        .args(["--with", "batch_size=8", "--with", "data.eval=null"]);
    finished(command);
    let all = losses(folder);
    assert_eq!(all.len(), 12);
    assert!(all[11].1 < all[0].1, "{all:?}");
}
