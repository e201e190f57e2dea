//! Training graphs in ONNX Runtime: the quickstart model learns its tasks.

use crate::adapters::{self, compiled_to_train, distance, fixtures, model};
use crate::differentiated::with_reference;
use crate::recorded;
use crate::reference::array;
use crate::runtime::library;
use crate::tolerances::{
    BF16_COSINE, BF16_LOSS, INT8_COSINE, INT8_LOSS, TRAINING_HALVES, TRAINING_LOSSES,
};
use peftc::driver::{Adam, Base, Memory, Optimizer, Recipe, Task};
use peftc::graph::TensorData;
use peftc::reference::{Array, Rounding};
use peftc::runtime::{
    Feed, HostTensor, Kernels, ModelSource, NamedTensors, Optimization, Options, Replay, Session,
    Stateful,
};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles an adapter of the quickstart spec with its training graphs.
fn compiled(adapter: &str, more: &[&str], folder: &Path) -> Value {
    let spec = fixtures().join("quickstart/tasks.peft");
    compiled_spec(&spec, adapter, more, folder)
}

/// The same of another spec.
pub(crate) fn compiled_spec(spec: &Path, adapter: &str, more: &[&str], folder: &Path) -> Value {
    let quickstart = fixtures().join("quickstart");
    let output = Command::new(env!("CARGO_BIN_EXE_peftc"))
        .arg("compile")
        .arg(spec)
        .arg(quickstart.join("model.onnx"))
        .args(["--train", "--adapter", adapter])
        .args(more)
        .arg("-o")
        .arg(folder)
        .output()
        .expect("peftc starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = std::fs::read_to_string(folder.join("manifest.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn open(path: &Path, optimization: Optimization) -> Session {
    let mut sink = peftc::diag::Sink::new();
    let options = Options {
        optimization,
        threads: std::num::NonZeroUsize::new(1),
        ..Options::default()
    };
    Session::open(library(), ModelSource::Path(path), &options, &mut sink)
        .unwrap_or_else(|_| panic!("{}: {:?}", path.display(), sink.diagnostics()))
}

fn ports<'v>(manifest: &'v Value, graph: &str, side: &str) -> impl Iterator<Item = &'v Value> {
    manifest["graphs"][graph][side].as_array().unwrap().iter()
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap()
}

/// A graph of the manifest with the start values of everything that it feeds back.
pub(crate) fn stateful(
    folder: &Path,
    manifest: &Value,
    graph: &str,
    optimization: Optimization,
) -> Stateful {
    let file = folder.join(text(&manifest["graphs"][graph], "file"));
    started(open(&file, optimization), folder, manifest, graph)
}

/// The same with steps that are recorded: on a CPU, in the order and on the places of a GPU's.
fn recorded(folder: &Path, manifest: &Value, graph: &str) -> Stateful {
    let file = folder.join(text(&manifest["graphs"][graph], "file"));
    let options = Options {
        replay: Replay::On,
        ..Options::default()
    };
    let mut sink = peftc::diag::Sink::new();
    let session = Session::open(library(), ModelSource::Path(&file), &options, &mut sink)
        .unwrap_or_else(|_| panic!("{}: {:?}", file.display(), sink.diagnostics()));
    started(session, folder, manifest, graph)
}

/// The same with kernels; and how many nodes run programs.
pub(crate) fn with_kernels(folder: &Path, manifest: &Value, graph: &str) -> (Stateful, usize) {
    changed(folder, manifest, graph, peftc::passes::fuse)
}

/// The same with other nodes; and how many these are.
fn changed(
    folder: &Path,
    manifest: &Value,
    graph: &str,
    change: fn(
        &mut peftc::graph::Model,
        &mut peftc::diag::Sink,
    ) -> Result<usize, peftc::diag::Reported>,
) -> (Stateful, usize) {
    let file = folder.join(text(&manifest["graphs"][graph], "file"));
    let mut sink = peftc::diag::Sink::new();
    let mut model = peftc::onnx::import(&file, &mut sink).unwrap().model;
    let count = change(&mut model, &mut sink).unwrap();
    let mut bytes = Vec::new();
    peftc::onnx::write_model(&model, &mut bytes).unwrap();
    let options = Options {
        kernels: Kernels::On,
        threads: std::num::NonZeroUsize::new(2),
        ..Options::default()
    };
    let source = ModelSource::BytesIn {
        name: "fused",
        bytes: &bytes,
        folder,
    };
    let session = Session::open(library(), source, &options, &mut sink)
        .unwrap_or_else(|_| panic!("{}: {:?}", file.display(), sink.diagnostics()));
    (started(session, folder, manifest, graph), count)
}

/// Gives a session the start values of everything that it feeds back.
fn started(session: Session, folder: &Path, manifest: &Value, graph: &str) -> Stateful {
    let feeds = ports(manifest, graph, "outputs")
        .filter(|port| port["feeds"].is_string())
        .map(|port| Feed {
            output: text(port, "name").into(),
            input: text(port, "feeds").into(),
        })
        .collect();
    let mut stateful = Stateful::new(session, feeds);
    let start = NamedTensors::read_safetensors(&folder.join("adapter.safetensors")).unwrap();
    let mut sink = peftc::diag::Sink::new();
    for port in ports(manifest, graph, "inputs") {
        let value = match text(port, "role") {
            "parameter" => {
                let name = match port["module"].as_str() {
                    Some(module) => format!("{module}.{}", text(port, "parameter")),
                    // One for several modules has a name of its own.
                    None => text(port, "name").to_owned(),
                };
                start.get(&name).expect("the adapter has it").clone()
            }
            "state" => {
                let dims: Vec<i64> = port["shape"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|d| d.as_i64().unwrap())
                    .collect();
                HostTensor::from_f32(&dims, &vec![0.0; dims.iter().product::<i64>() as usize])
            }
            _ => continue,
        };
        stateful.set(text(port, "name"), &value, &mut sink).unwrap();
    }
    stateful
}

/// Rows of a task file as bytes: prompt, completion, end of line.
pub(crate) fn rows(file: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let path = fixtures().join("quickstart").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| {
            let row: Value = serde_json::from_str(line).unwrap();
            let completion = format!("{}\n", row["completion"].as_str().unwrap());
            (row["prompt"].as_str().unwrap().into(), completion.into())
        })
        .collect()
}

/// A padded batch whose labels are the completions.
pub(crate) fn batch(rows: &[(Vec<u8>, Vec<u8>)]) -> NamedTensors {
    let longest = rows.iter().map(|(p, c)| p.len() + c.len()).max().unwrap();
    let (mut ids, mut mask, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    for (prompt, completion) in rows {
        let row: Vec<i64> = prompt
            .iter()
            .chain(completion)
            .map(|b| i64::from(*b))
            .collect();
        let pad = longest - row.len();
        labels.extend(vec![-100; prompt.len()]);
        labels.extend(&row[prompt.len()..]);
        labels.extend(vec![-100; pad]);
        mask.extend(vec![1; row.len()]);
        mask.extend(vec![0; pad]);
        ids.extend(row);
        ids.extend(vec![0; pad]);
    }
    let dims = [rows.len() as i64, longest as i64];
    NamedTensors(vec![
        ("input_ids".into(), HostTensor::from_i64(&dims, &ids)),
        ("attention_mask".into(), HostTensor::from_i64(&dims, &mask)),
        ("labels".into(), HostTensor::from_i64(&dims, &labels)),
    ])
}

pub(crate) fn with_rate(mut inputs: NamedTensors, rate: f32, step: i64) -> NamedTensors {
    inputs.push("learning_rate", HostTensor::from_f32(&[], &[rate]));
    inputs.push("step", HostTensor::from_i64(&[], &[step]));
    inputs
}

pub(crate) fn number(tensors: &NamedTensors, name: &str) -> f64 {
    tensors
        .get(name)
        .unwrap_or_else(|| panic!("no `{name}`"))
        .to_f64s()
        .unwrap()[0]
}

pub(crate) fn run(stateful: &mut Stateful, inputs: &NamedTensors) -> NamedTensors {
    let mut sink = peftc::diag::Sink::new();
    stateful
        .run(inputs, &mut sink)
        .unwrap_or_else(|_| panic!("{:?}", sink.diagnostics()))
}

#[test]
fn the_manifest_names_exactly_the_ports_of_every_training_graph() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = compiled("math_task", &["--max-grad-norm", "1"], folder.path());
    for graph in ["step", "grad", "update", "eval"] {
        let file: PathBuf = folder.path().join(text(&manifest["graphs"][graph], "file"));
        let session = open(&file, Optimization::All);
        for (side, found) in [("inputs", session.inputs()), ("outputs", session.outputs())] {
            // ONNX Runtime does not tell a scalar from a tensor of unknown rank.
            let mut found: Vec<String> = found
                .iter()
                .map(|port| port.to_string().replace("[?]", "[]"))
                .collect();
            let mut stated: Vec<String> = ports(&manifest, graph, side)
                .map(|port| {
                    let dims = port["shape"].as_array().unwrap().iter();
                    let dims: Vec<String> = dims
                        .map(|d| d.as_str().map_or_else(|| d.to_string(), str::to_owned))
                        .collect();
                    format!(
                        "{}: {}[{}]",
                        text(port, "name"),
                        text(port, "dtype"),
                        dims.join(", ")
                    )
                })
                .collect();
            found.sort();
            stated.sort();
            assert_eq!(found, stated, "{graph} {side}");
        }
    }
}

/// Batches of three shapes in turns, each often enough to be recorded in both directions and replayed.
#[test]
fn recorded_steps_are_plain_ones() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = compiled("math_task", &["--max-grad-norm", "1"], folder.path());
    let rows = rows("math_task.train.jsonl");
    let mut runs = [
        stateful(folder.path(), &manifest, "step", Optimization::All),
        recorded(folder.path(), &manifest, "step"),
    ];
    for step in 0..18 {
        let shape = step % 3;
        let from = 4 * step;
        let inputs = with_rate(batch(&rows[from..=from + shape]), 1e-2, step as i64 + 1);
        let [plain, recorded] = runs.each_mut().map(|steps| run(steps, &inputs));
        assert_eq!(plain, recorded, "step {step}");
    }
    let [plain, recorded] = &runs;
    assert!(plain.fed().count() > 2);
    for input in plain.fed() {
        assert_eq!(plain.get(input), recorded.get(input), "{input}");
    }
}

/// A step is its halves: gradients, then the update. With and without ONNX Runtime's optimizations. By
/// SGD, whose update is as smooth as the gradient: Adam's first is its sign.
#[test]
fn a_step_is_gradients_and_update() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = compiled("math_task", SMOOTH, folder.path());
    check_halves(folder.path(), &manifest);
}

/// Options of an update that is as smooth as the gradient.
pub(crate) const SMOOTH: &[&str] = &[
    "--optimizer",
    "sgd",
    "--beta1",
    "0.9",
    "--max-grad-norm",
    "0.5",
    "--weight-decay",
    "0.1",
];

/// [`check_halves`], and every B has left 0.
pub(crate) fn check_halves_move(folder: &Path, manifest: &Value) {
    let trained = check_halves(folder, manifest);
    let names: Vec<&str> = trained.fed().filter(|name| name.ends_with(".B")).collect();
    assert!(!names.is_empty());
    for name in names {
        let values = trained.get(name).unwrap().to_f64s().unwrap();
        assert!(values.iter().any(|value| *value != 0.0), "{name}");
    }
}

/// Three steps, and the same in halves; gives the state behind them.
pub(crate) fn check_halves(folder: &Path, manifest: &Value) -> Stateful {
    let rows = rows("math_task.train.jsonl");
    let runs = [Optimization::All, Optimization::Disabled].map(|optimization| {
        let mut step = stateful(folder, manifest, "step", optimization);
        let mut grad = stateful(folder, manifest, "grad", Optimization::All);
        let mut update = stateful(folder, manifest, "update", optimization);
        for number_of_step in 1..=3 {
            let at = number_of_step as usize * 8;
            let inputs = batch(&rows[at..at + 8]);
            let whole = run(&mut step, &with_rate(inputs.clone(), 1e-2, number_of_step));
            let gradients = run(&mut grad, &inputs);
            let mut halves = NamedTensors::default();
            for (name, tensor) in gradients.iter().filter(|(name, _)| name.ends_with(".grad")) {
                halves.push(name, tensor.clone());
            }
            let updated = run(&mut update, &with_rate(halves, 1e-2, number_of_step));
            assert_eq!(number(&whole, "count"), number(&gradients, "count"));
            for (a, b) in [
                (number(&whole, "loss"), number(&gradients, "loss")),
                (number(&whole, "grad_norm"), number(&updated, "grad_norm")),
            ] {
                assert!((a - b).abs() <= TRAINING_HALVES * b.abs(), "{a} {b}");
            }
            let inputs: Vec<String> = update.fed().map(str::to_owned).collect();
            for name in inputs {
                let (a, b) = (step.get(&name).unwrap(), update.get(&name).unwrap());
                let (difference, scale) = distance(&a, &b);
                assert!(
                    difference <= TRAINING_HALVES * scale.max(1e-3),
                    "{name}: {difference}"
                );
                // What an update has changed, the next gradients are of.
                if grad.get(&name).is_some() {
                    grad.set(&name, &b, &mut peftc::diag::Sink::new()).unwrap();
                }
            }
        }
        step
    });
    let [optimized, _] = runs;
    optimized
}

/// The share of rows of which every token of the completion is the likeliest.
fn exact(eval: &mut Stateful, rows: &[(Vec<u8>, Vec<u8>)]) -> f64 {
    let right = rows
        .iter()
        .filter(|row| {
            let found = run(eval, &batch(std::slice::from_ref(row)));
            number(&found, "correct") == number(&found, "count")
        })
        .count();
    right as f64 / rows.len() as f64
}

#[test]
fn an_adapter_learns_its_task() {
    let int8 = ["--max-grad-norm", "1", "--base", "int8"];
    let weights = ["--max-grad-norm", "1", "--base", "int8_weights"];
    for (adapter, more) in [
        ("math_task", &int8[..2]),
        ("math_task", &int8[..]),
        ("math_task", &weights[..]),
        ("code_task", &int8[..2]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let manifest = compiled(adapter, more, folder);
        let train = rows(&format!("{adapter}.train.jsonl"));
        let test = rows(&format!("{adapter}.test.jsonl"));
        let mut step = stateful(folder, &manifest, "step", Optimization::All);
        let mut eval = stateful(folder, &manifest, "eval", Optimization::All);
        let before = exact(&mut eval, &test[..50]);
        let mut losses = Vec::new();
        for number_of_step in 1..=150 {
            let at = (number_of_step as usize - 1) * 16 % (train.len() - 16);
            let inputs = batch(&train[at..at + 16]);
            let found = run(&mut step, &with_rate(inputs, 5e-3, number_of_step));
            losses.push(number(&found, "loss"));
        }
        let mut sink = peftc::diag::Sink::new();
        for name in step.fed().map(str::to_owned).collect::<Vec<_>>() {
            if !name.starts_with("optimizer.") {
                eval.set(&name, &step.get(&name).unwrap(), &mut sink)
                    .unwrap();
            }
        }
        let after = exact(&mut eval, &test[..50]);
        eprintln!(
            "{adapter}: {before} → {after}, losses {:?} … {:?}",
            &losses[..3],
            &losses[147..]
        );
        assert!(before < 0.1, "{adapter}: {before}");
        assert!(after > before + 0.3, "{adapter}: {after}, {losses:?}");
    }
}

/// With the base in 8 bits, loss and gradients are nearly those of the base itself, and the graphs hold
/// a quarter of its weights.
#[test]
fn a_base_in_8_bits_has_nearly_the_same_gradients() {
    let rows = rows("math_task.train.jsonl");
    let bases = ["own", "int8", "int8_weights"];
    let folders = bases.map(|_| tempfile::tempdir().unwrap());
    let mut found = Vec::new();
    for (folder, base) in folders.iter().map(|folder| folder.path()).zip(bases) {
        // Adam makes steps of one size of the smallest gradients, too.
        let options = ["--base", base, "--optimizer", "sgd", "--beta1", "0.9"];
        let manifest = compiled("math_task", &options, folder);
        assert_eq!(manifest["training"]["base"], base);
        let mut grad = stateful(folder, &manifest, "grad", Optimization::All);
        found.push(run(&mut grad, &batch(&rows[..16])));
    }
    // The codes are those of the base, and the graphs hold no second copy of it.
    let size = |folder: &Path, file: &str| std::fs::metadata(folder.join(file)).unwrap().len();
    let own = folders[0].path();
    let whole = size(own, "base.data");
    for (at, base) in bases.into_iter().enumerate().skip(1) {
        nearly(&found[0], &found[at], INT8_LOSS, INT8_COSINE);
        let folder = folders[at].path();
        let codes = size(folder, &format!("base.{base}.data"));
        assert!(codes > 400_000, "{base}: {codes}");
        assert!(whole > 3 * codes, "{base}: {whole} {codes}");
        assert_eq!(size(own, "model.onnx"), size(folder, "model.onnx"));
    }
}

/// Frozen weights that lie in the model's file are written once for all training graphs.
#[test]
fn training_graphs_share_the_weights_of_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let manifest = compiled("math_task", &[], folder);
    assert_eq!(manifest["training"]["base_data"], "base.data");
    let size = |file: &str| std::fs::metadata(folder.join(file)).unwrap().len();
    let model = std::fs::metadata(fixtures().join("quickstart/model.onnx"));
    let weights = size("base.data");
    assert!(weights < model.unwrap().len(), "{weights}");
    for graph in ["step.onnx", "grad.onnx", "eval.onnx"] {
        assert!(size(graph) < weights / 4, "{graph}");
        let imported = peftc::onnx::import(&folder.join(graph), &mut peftc::diag::Sink::new());
        let graph = imported.unwrap().model.graph;
        let large = graph.initializers().iter().filter_map(|id| {
            let tensor = graph.value(*id).constant()?;
            (tensor.byte_len() >= 1024).then_some(&tensor.data)
        });
        for data in large {
            let TensorData::External(place) = data else {
                panic!("a weight lies in a graph");
            };
            assert_eq!(place.location, "base.data");
        }
    }
}

/// Loss and gradients are those of `own` within a share of the loss, and with a cosine of all gradients
/// together.
fn nearly(own: &NamedTensors, rounded: &NamedTensors, loss: f64, least: f64) {
    let (a, b) = (number(own, "loss"), number(rounded, "loss"));
    assert!((a - b).abs() <= loss * a, "{a} {b}");
    let (mut product, mut lengths) = (0.0, [0.0, 0.0]);
    for (name, tensor) in own.iter().filter(|(name, _)| name.ends_with(".grad")) {
        let pair = [tensor, rounded.get(name).unwrap()];
        let [a, b] = pair.map(|tensor| tensor.to_f64s().unwrap());
        product += a.iter().zip(&b).map(|(a, b)| a * b).sum::<f64>();
        lengths[0] += a.iter().map(|a| a * a).sum::<f64>();
        lengths[1] += b.iter().map(|b| b * b).sum::<f64>();
    }
    let cosine = product / (lengths[0] * lengths[1]).sqrt();
    assert!(cosine >= least, "{cosine}");
}

/// With the base in half precision, too. ONNX Runtime has products in bfloat16 on GPUs only; here the
/// reference computes them, rounded as the types say.
#[test]
fn a_base_in_half_precision_has_nearly_the_same_gradients() {
    let rows = rows("math_task.train.jsonl");
    let batch = batch(&rows[..4]);
    let mut found = Vec::new();
    for (base, pieces) in [("own", "1"), ("bf16", "1"), ("f16", "1"), ("bf16", "5")] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let options = ["--base", base, "--loss-pieces", pieces];
        let manifest = compiled("math_task", &options, folder);
        assert_eq!(manifest["training"]["loss_pieces"].to_string(), pieces);
        only_f32_is_padded(&folder.join("step.onnx"));
        assert_eq!(manifest["training"]["base"], base);
        let start = NamedTensors::read_safetensors(&folder.join("adapter.safetensors")).unwrap();
        let inputs = ports(&manifest, "grad", "inputs").map(|port| {
            let name = text(port, "name");
            let tensor = match text(port, "role") {
                "parameter" => {
                    let of = format!("{}.{}", text(port, "module"), text(port, "parameter"));
                    start.get(&of).unwrap()
                }
                _ => batch.get(name).unwrap(),
            };
            (name, array(tensor))
        });
        let inputs: Vec<(&str, Array)> = inputs.collect();
        let outputs: Vec<&str> = ports(&manifest, "grad", "outputs")
            .map(|port| text(port, "name"))
            .collect();
        let values = with_reference(&folder.join("grad.onnx"), Rounding::Declared, |exact| {
            exact.run(&inputs, &outputs)
        });
        let named = outputs.iter().zip(values).map(|(name, values)| {
            let values: Vec<f32> = values.iter().map(|value| *value as f32).collect();
            let dims = [values.len() as i64];
            ((*name).to_owned(), HostTensor::from_f32(&dims, &values))
        });
        found.push(NamedTensors(named.collect()));
    }
    for half in &found[1..] {
        assert_ne!(&found[0], half);
        nearly(&found[0], half, BF16_LOSS, BF16_COSINE);
    }
}

/// ONNX Runtime pads bfloat16 nowhere and integers on a CPU alone.
fn only_f32_is_padded(path: &Path) {
    let mut sink = peftc::diag::Sink::new();
    let mut model = peftc::onnx::import(path, &mut sink).unwrap().model;
    peftc::passes::infer(&mut model, &mut sink).unwrap();
    for node in model.graph.node_ids() {
        if model.graph.node(node).op.is("Pad") {
            let padded = model.graph.operand(node, 0).unwrap();
            let ty = model.graph.value(padded).ty.clone();
            assert_eq!(ty.map(|ty| ty.dtype), Some(peftc::ty::DType::F32));
        }
    }
}

/// A step whose nodes run programs changes everything as a step of plain operators does.
#[test]
fn a_step_with_kernels_is_a_step() {
    let rows = rows("math_task.train.jsonl");
    for (base, pieces) in [("own", "1"), ("int8", "1"), ("own", "5")] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        // Adam makes steps of one size of the smallest gradients, too.
        let mut options = vec!["--base", base, "--optimizer", "sgd", "--beta1", "0.9"];
        options.extend(["--loss-pieces", pieces]);
        let manifest = compiled("math_task", &options, folder);
        assert_eq!(manifest["training"]["loss_pieces"].to_string(), pieces);
        let mut plain = stateful(folder, &manifest, "step", Optimization::All);
        let (mut fused, programs) = with_kernels(folder, &manifest, "step");
        assert!(programs >= 10, "{base}: {programs}");
        for step in 1..=3 {
            let at = step as usize * 8;
            let inputs = with_rate(batch(&rows[at..at + 8]), 1e-2, step);
            let (a, b) = (run(&mut plain, &inputs), run(&mut fused, &inputs));
            for (name, expected) in a.iter() {
                let (difference, scale) = distance(b.get(name).unwrap(), expected);
                assert!(
                    difference <= TRAINING_HALVES * scale,
                    "{base} {name}: {difference}"
                );
            }
            for name in plain.fed().map(str::to_owned).collect::<Vec<String>>() {
                let (a, b) = (plain.get(&name).unwrap(), fused.get(&name).unwrap());
                let (difference, scale) = distance(&a, &b);
                let is_close = difference <= TRAINING_HALVES * scale.max(1e-3);
                assert!(
                    is_close || base == "int8",
                    "{base} {name}: {difference} of {scale}"
                );
                fused.set(&name, &a, &mut peftc::diag::Sink::new()).unwrap();
            }
        }
    }
}

/// A step as a GPU takes it: sums of rows are products.
#[test]
fn a_step_with_products_for_sums_is_a_step() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let manifest = compiled("math_task", SMOOTH, folder);
    let rows = rows("math_task.train.jsonl");
    let mut plain = stateful(folder, &manifest, "step", Optimization::All);
    let (mut products, count) = changed(folder, &manifest, "step", peftc::passes::sums_as_products);
    // The norms of three layers and the last one, forwards and backwards, and three softmaxes.
    assert!(count >= 14, "{count}");
    for step in 1..=3 {
        let at = step as usize * 8;
        let inputs = with_rate(batch(&rows[at..at + 8]), 1e-2, step);
        let (a, b) = (run(&mut plain, &inputs), run(&mut products, &inputs));
        for (name, expected) in a.iter() {
            let (difference, scale) = distance(b.get(name).unwrap(), expected);
            assert!(
                difference <= TRAINING_HALVES * scale,
                "{name}: {difference}"
            );
        }
    }
}

/// What recorded steps were taken with.
pub(crate) fn recorded_recipe(all: &Value, task: Task) -> Recipe {
    Recipe {
        output: None,
        task,
        optimizer: Optimizer::AdamW(Adam {
            weight_decay: all["weight_decay"].as_f64().unwrap(),
            ..Adam::default()
        }),
        max_grad_norm: all["max_grad_norm"].as_f64(),
        base: Base::Own,
        rates: Vec::new(),
        memory: Memory::default(),
    }
}

/// Twenty steps from recorded adapter tensors have the losses of PyTorch and PEFT, on every export.
#[test]
fn twenty_steps_are_pytorchs() {
    let peft = fixtures().join("peft");
    let json = |file: &str| -> Value {
        serde_json::from_str(&std::fs::read_to_string(peft.join(file)).unwrap()).unwrap()
    };
    let all = json("training.json");
    for of in all["runs"].as_array().unwrap() {
        let recording = text(of, "recording");
        let family = recording.split_once('.').unwrap().0;
        let losses: Vec<f64> = of["losses"]
            .as_array()
            .unwrap()
            .iter()
            .map(|l| l.as_f64().unwrap())
            .collect();
        let label_smoothing = 0.0;
        let task = match family {
            "bert" => Task::Classification { label_smoothing },
            _ => Task::CausalLm { label_smoothing },
        };
        let recipe = recorded_recipe(&all, task);
        let about = json(&format!("{recording}.json"));
        let spec = format!(
            "{}\nadapter a {{\n{}\n}}\n",
            recorded::library(recording),
            recorded::statements(&about)
        );
        for export in recorded::exports_for(recording) {
            let folder = tempfile::tempdir().unwrap();
            let path = peft.join(format!("{recording}.safetensors"));
            let values = recorded::renamed(&path, folder.path());
            compiled_to_train(
                &spec,
                &model(export),
                Some(&values),
                Some(recipe.clone()),
                folder.path(),
            );
            let out = folder.path().join("out");
            let manifest: Value =
                serde_json::from_str(&std::fs::read_to_string(out.join("manifest.json")).unwrap())
                    .unwrap();
            let (fused, programs) = with_kernels(&out, &manifest, "step");
            assert!(programs >= 10, "{recording} on {export}: {programs}");
            let plain = stateful(&out, &manifest, "step", Optimization::All);
            let mut inputs = recorded_inputs(&path);
            inputs.push("labels", labels(family, &inputs));
            let rate = all["learning_rate"].as_f64().unwrap() as f32;
            for (mut step, kind) in [(plain, "plain"), (fused, "with kernels")] {
                for (number_of_step, expected) in losses.iter().enumerate() {
                    let inputs = with_rate(inputs.clone(), rate, number_of_step as i64 + 1);
                    let found = number(&run(&mut step, &inputs), "loss");
                    assert!(
                        (found - expected).abs() <= TRAINING_LOSSES,
                        "{recording} on {export} {kind}, step {number_of_step}: {found} is not {expected}"
                    );
                }
            }
        }
    }
}

fn recorded_inputs(path: &Path) -> NamedTensors {
    adapters::recorded(path, "input.")
}

/// Those of the recording: a language model's own tokens without padding, a class a row else.
pub(crate) fn labels(family: &str, inputs: &NamedTensors) -> HostTensor {
    let ids = inputs.get("input_ids").unwrap();
    if family == "bert" {
        let rows = ids.dims()[0];
        let classes: Vec<i64> = (0..rows).map(|row| row % 3).collect();
        return HostTensor::from_i64(&[rows], &classes);
    }
    let mask = inputs.get("attention_mask").unwrap().to_f64s().unwrap();
    let pairs = ids.to_f64s().unwrap().into_iter().zip(mask);
    let labels: Vec<i64> = pairs
        .map(|(id, mask)| if mask == 1.0 { id as i64 } else { -100 })
        .collect();
    HostTensor::from_i64(ids.dims(), &labels)
}
