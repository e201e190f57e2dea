//! What modules give in a first pass, against two sessions made by hand: the base model, then a model
//! that is given what the base model gave.

use crate::adapters::{compiled, distance, fixtures, model, outputs};
use crate::differentiated::new_node;
use crate::merges::trained;
use crate::reference::inputs_of;
use crate::tolerances::{INT8_LOSS, PIECES, RECOMPUTED, RECORDED_RELATIVE, START_ABSOLUTE};
use crate::train_command::{finished, losses};
use crate::training::{SMOOTH, check_halves_move, compiled_spec};
use peftc::diag::{Sink, SourceMap};
use peftc::driver::{Loaded, ModelOptions, Session};
use peftc::graph::{Attribute, Model, Operand, Patch, Tensor};
use peftc::modules::Site;
use peftc::onnx;
use peftc::runtime::{HostTensor, NamedTensors};
use peftc::ty::DType;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A gate over what a module gives in a first pass, one for all modules.
const METHOD: &str = "method gated(read: string = \"model.norm\") on linear {
  shared param w : [1, features_of(read)] = zeros
  param A        : [2, in]                = zeros
  param B        : [out, 2]               = zeros

  forward(x, y) { y + sigmoid(first_pass(read) @ w.T) * (x @ A.T @ B.T) }
}
";

fn spec(targets: &str, read: &str) -> String {
    format!("{METHOD}adapter a {{ adapt {targets} with gated(read = {read:?}) }}\n")
}

fn loaded(path: &Path) -> Loaded {
    let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
    let mut session = Session {
        sources: &mut sources,
        sink: &mut sink,
    };
    session.model(path, &ModelOptions::default()).unwrap()
}

fn site<'l>(loaded: &'l Loaded, path: &str) -> &'l Site {
    let mut sites = loaded.modules.named();
    sites.find(|site| site.path == path).unwrap()
}

fn written(model: &Model, path: &Path) {
    let mut bytes = Vec::new();
    onnx::write_model(model, &mut bytes).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// What a module gives in the base model, and the logits.
fn without_an_adapter(
    path: &Path,
    module: &str,
    inputs: &NamedTensors,
    folder: &Path,
) -> (HostTensor, HostTensor) {
    let mut loaded = loaded(path);
    let site = site(&loaded, module).clone();
    let name = loaded.model.graph.value(site.output).name.to_string();
    loaded.model.graph.add_output(site.output);
    let file = folder.join("first.onnx");
    written(&loaded.model, &file);
    let found = outputs(&file, inputs);
    let whole = found.get(&name).unwrap();
    let [.., width] = *whole.dims() else {
        unreachable!("it has features")
    };
    let part = site.slice.unwrap_or(0..width);
    let part = part.start as usize..part.end as usize;
    let values = whole.to_f64s().unwrap();
    let rows = values.chunks(width as usize);
    let values: Vec<f32> = rows
        .flat_map(|row| &row[part.clone()])
        .map(|v| *v as f32)
        .collect();
    let mut dims = whole.dims().to_vec();
    dims[2] = part.len() as i64;
    (
        HostTensor::from_f32(&dims, &values),
        found.get("logits").unwrap().clone(),
    )
}

/// The base model with low-rank changes behind gates over an input.
fn with_gates(
    path: &Path,
    sites: &[&str],
    read: &str,
    values: &NamedTensors,
    folder: &Path,
) -> PathBuf {
    let mut loaded = loaded(path);
    let graph = &loaded.model.graph;
    let read = site(&loaded, read);
    let mut ty = graph.value(read.output).ty.clone().unwrap();
    if let Some(shape) = &mut ty.shape {
        shape.0[2] = read.out_features.into();
    }
    let mut patch = Patch::new();
    let hidden = patch.input("hidden", ty, None);
    let constant = |patch: &mut Patch, name: &str| {
        let tensor = values.get(name).unwrap();
        let raw = Tensor::from_raw(DType::F32, tensor.dims(), tensor.bytes().to_vec());
        let constant = patch.constant(name, raw);
        let perm = vec![Attribute::ints("perm", [1, 0])];
        patch.node(new_node("Transpose", &[constant], perm), None)
    };
    for path in sites {
        let site = site(&loaded, path);
        patch.behind(graph.producer(site.output).unwrap());
        let [w, a, b] = [
            "shared.0.w".to_owned(),
            format!("{path}.A"),
            format!("{path}.B"),
        ]
        .map(|name| constant(&mut patch, &name));
        let mut node =
            |op_type: &str, inputs: &[Operand]| patch.node(new_node(op_type, inputs, vec![]), None);
        let gate = node("MatMul", &[hidden, w]);
        let gate = node("Sigmoid", &[gate]);
        let down = node("MatMul", &[site.input.into(), a]);
        let delta = node("MatMul", &[down, b]);
        let delta = node("Mul", &[gate, delta]);
        let sum = node("Add", &[Operand::Original(site.output), delta]);
        patch.replace_uses(site.output, sum);
    }
    loaded.model.graph.apply(patch).unwrap();
    let file = folder.join("second.onnx");
    written(&loaded.model, &file);
    file
}

/// How many nodes of the compiled model are copies, and how many products are for all modules.
fn counted(path: &Path) -> (usize, usize) {
    let model = onnx::import(path, &mut Sink::new()).unwrap().model;
    let graph = &model.graph;
    let named = |start: &str, op_type: &str| {
        let nodes = graph.node_ids().map(|id| graph.node(id));
        let found = nodes.filter(|node| node.name.starts_with(start));
        found
            .filter(|node| node.op.op_type.contains(op_type))
            .count()
    };
    (named("first_pass/", ""), named("peftc/shared", "MatMul"))
}

/// Compares the compiled model with the two sessions; answers with how many nodes are copies.
fn check(name: &str, targets: &str, sites: &[&str], read: &str) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (base, spec) = (model(name), spec(targets, read));
    let values = trained(&spec, &base, folder);
    let adapted = compiled(&spec, &base, Some(&values), folder);
    let inputs = inputs_of(name, &base);
    let found = outputs(&adapted, &inputs);

    let (hidden, logits) = without_an_adapter(&base, read, &inputs, folder);
    let values = NamedTensors::read_safetensors(&values).unwrap();
    let second = with_gates(&base, sites, read, &values, folder);
    let mut given = inputs.clone();
    given.push("hidden", hidden);
    let expected = outputs(&second, &given);

    let (found, expected) = (
        found.get("logits").unwrap(),
        expected.get("logits").unwrap(),
    );
    let (difference, size) = distance(found, expected);
    assert!(
        difference <= RECORDED_RELATIVE * size,
        "{name}, {read}: {difference:e} of {size:e}"
    );
    let (effect, _) = distance(found, &logits);
    assert!(effect > 1e-2, "{name}, {read}: {effect:e}");
    let (copies, products) = counted(&adapted);
    // The gate is computed once.
    assert_eq!(products, 1, "{name}, {read}");
    copies
}

const Q_AND_V: &[&str] = &[
    "model.layers.0.self_attn.q_proj",
    "model.layers.0.self_attn.v_proj",
    "model.layers.1.self_attn.q_proj",
    "model.layers.1.self_attn.v_proj",
];

#[test]
fn a_first_pass_is_a_pass_of_the_base_model() {
    for name in ["llama.dynamo", "llama.ts", "llama.dynamo_noopt", "qwen2.ts"] {
        let copies = check(name, "\"{q,v}_proj\"", Q_AND_V, "model.norm");
        let nodes = onnx::import(&model(name), &mut Sink::new())
            .unwrap()
            .model
            .graph
            .node_count();
        // Not all: what stands in front of the first adapted module is there once.
        assert!(copies > 20 && copies < nodes, "{name}: {copies} of {nodes}");
    }
}

/// What an adapter changes behind the module, or beside it, asks for no copy.
#[test]
fn nothing_is_copied_where_nothing_in_front_is_adapted() {
    let site = "model.layers.1.self_attn.q_proj";
    for read in [
        "model.layers.1.input_layernorm",
        "model.layers.0.mlp.down_proj",
        site,
    ] {
        for name in ["llama.dynamo", "llama.ts"] {
            assert_eq!(
                check(name, "\"layers.1.**.q_proj\"", &[site], read),
                0,
                "{name}, {read}"
            );
        }
    }
}

/// A part of a fused projection, in a model whose caches do not stand on the way.
#[test]
fn a_member_of_a_fused_projection_gives_its_own_part() {
    let site = "model.layers.0.mlp.down_proj";
    for read in ["q_proj", "k_proj", "v_proj"] {
        let read = format!("model.layers.0.self_attn.{read}");
        // A slice.
        assert_eq!(
            check(
                "llama.genai_fp32",
                "\"layers.0.**.down_proj\"",
                &[site],
                &read
            ),
            1
        );
    }
}

/// Hidden states of half precision are read by modules of half precision.
#[test]
fn an_adapter_of_zeros_with_a_first_pass_changes_nothing() {
    for name in ["llama.fp16.dynamo", "qwen2.ts", "gpt2.dynamo", "t5.dynamo"] {
        let (targets, read) = match name {
            "gpt2.dynamo" => ("\"c_attn\"", "ln_f"),
            "t5.dynamo" => ("\"encoder.**.SelfAttention.q\"", "encoder.final_layer_norm"),
            _ => ("\"q_proj\", \"down_proj\"", "model.norm"),
        };
        let folder = tempfile::tempdir().unwrap();
        let base = model(name);
        let adapted = compiled(&spec(targets, read), &base, None, folder.path());
        let inputs = inputs_of(name, &base);
        let (found, base) = (outputs(&adapted, &inputs), outputs(&base, &inputs));
        let (difference, _) = distance(found.get("logits").unwrap(), base.get("logits").unwrap());
        let bound = if name.contains("fp16") {
            1e-2
        } else {
            START_ABSOLUTE
        };
        assert!(difference <= bound, "{name}: {difference:e}");
    }
}

/// With an A away from zero, so that there is something to learn.
fn training_spec(folder: &Path) -> PathBuf {
    let path = folder.join("spec.peft");
    let method = METHOD.replace(
        "[2, in]                = zeros",
        "[2, in] = kaiming_uniform(a = sqrt(5))",
    );
    let text = format!("{method}adapter a {{ adapt all linear with gated }}\n");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_step_with_a_first_pass_is_gradients_and_update() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let manifest = compiled_spec(&training_spec(folder), "a", SMOOTH, folder);
    // One step moves B from 0, and only then the gate has a gradient.
    check_halves_move(folder, &manifest);
}

/// In less memory, with logits in pieces and with rounded weights.
#[test]
fn a_run_learns_with_a_first_pass() {
    let run = |more: &str| {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let spec = training_spec(folder);
        let mut command = Command::new(env!("CARGO_BIN_EXE_peftc"));
        command
            .arg("train")
            .arg(fixtures().join("quickstart/math_task.yaml"))
            .args(["--format", "json", "--with", "adapter=a"])
            .args(["--with", &format!("spec={}", spec.display())])
            .args(["--with", &format!("output={}", folder.display())])
            .args(["--with", "steps=12", "--with", "threads=1", "--with", more])
            .args(["--with", "batch_size=8", "--with", "data.eval=null"]);
        finished(command);
        let all = losses(folder);
        assert_eq!(all.len(), 12);
        assert!(all[11].1 < all[0].1, "{more}: {all:?}");
        all
    };
    let plain = run("recompute=false");
    for (more, bound, steps) in [
        ("recompute=true", RECOMPUTED, 12),
        ("loss_pieces=3", PIECES, 12),
        // Rounding adds up from step to step.
        ("base=int8", INT8_LOSS, 1),
    ] {
        for ((_, loss), (_, expected)) in run(more).iter().zip(&plain).take(steps) {
            let difference = (loss - expected).abs();
            assert!(
                difference <= bound * expected,
                "{more}: {loss} for {expected}"
            );
        }
    }
}

/// Said at the expression that reads the first pass.
#[test]
fn a_method_with_a_first_pass_is_not_merged() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (spec, base) = (spec("\"q_proj\"", "model.norm"), model("llama.ts"));
    let values = trained(&spec, &base, folder);
    for command in [&["merge"][..], &["convert", "--to", "lora", "--rank", "2"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_peftc"))
            .args(&command[..1])
            .arg(folder.join("values.peft"))
            .arg(&base)
            .args(&command[1..])
            .args(["--format", "json", "--values"])
            .arg(&values)
            .arg("-o")
            .arg(folder.join("out"))
            .output()
            .unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        let found = &said["diagnostics"][0];
        assert_eq!(found["code"], "E0905", "{said}");
        let text = std::fs::read_to_string(folder.join("values.peft")).unwrap();
        let label = &found["labels"][0];
        let number = |end: &str, key: &str| label[end][key].as_u64().unwrap() as usize;
        let line = text.lines().nth(number("start", "line") - 1).unwrap();
        let part = number("start", "column") - 1..number("end", "column") - 1;
        assert_eq!(&line[part], "first_pass(read)");
    }
}

/// A drawing of a module shows what reads the first pass, and not all of the pass.
#[test]
fn a_drawing_ends_where_the_first_pass_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.peft");
    std::fs::write(&path, spec("\"q_proj\"", "model.norm")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_peftc"))
        .arg("graph")
        .arg(&path)
        .arg("--model")
        .arg(model("llama.ts"))
        .args(["--site", "*.1.self_attn.q_proj"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("peftc/shared/MatMul"), "{text}");
    assert!(!text.contains("+ %first_pass/"), "{text}");
}
