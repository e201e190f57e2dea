//! What becomes no number in training: which step and which rows are blamed, and what is kept.

use crate::differentiated::new_node;
use crate::train_tasks::npz_of;
use peftc::diag::Sink;
use peftc::graph::{Graph, Model, Patch, Tensor};
use peftc::onnx;
use peftc::ty::{DType, Dim, Shape, TensorType};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// y = √((x W)²), which has no gradient where x is 0.
fn net() -> Model {
    let mut patch = Patch::new();
    patch.front();
    let shape = Shape(vec![Dim::symbol("b"), Dim::from(4)]);
    let x = patch.input("x", TensorType::new(DType::F32, shape), None);
    let weight: Vec<f32> = (0..12).map(|at| (at * 7 % 5) as f32 * 0.3 - 0.5).collect();
    let weight = patch.constant("fc.weight", Tensor::from_f32(&[4, 3], &weight));
    let h = patch.node(new_node("MatMul", &[x, weight], vec![]), None);
    let square = patch.node(new_node("Mul", &[h, h], vec![]), None);
    let y = patch.node(new_node("Sqrt", &[square], vec![]), None);
    patch.named_output(y, "y");
    let mut graph = Graph::new("net");
    graph.apply(patch).unwrap();
    Model::new("net.onnx", graph, 9, 17)
}

/// Eight rows; those of these numbers, the first of which is 1, are zeros, or have a label that is none.
pub(super) fn data(folder: &Path, name: &str, zeros: &[usize], without_label: &[usize]) {
    let bytes = |width: usize, value: &dyn Fn(usize, usize) -> f32| -> Vec<u8> {
        let all = (0..8 * width).map(|at| value(at / width + 1, at));
        all.flat_map(f32::to_le_bytes).collect()
    };
    let x = bytes(4, &|row, at| match zeros.contains(&row) {
        true => 0.0,
        false => (at * 11 % 13) as f32 * 0.2 - 1.0,
    });
    let labels = bytes(3, &|row, at| match without_label.contains(&row) {
        true => f32::NAN,
        false => (at * 5 % 7) as f32 * -0.1 - 0.1,
    });
    let arrays: [(&str, &[i64], &str, Vec<u8>); 2] =
        [("x", &[8, 4], "<f4", x), ("labels", &[8, 3], "<f4", labels)];
    std::fs::write(folder.join(name), npz_of(&arrays)).unwrap();
}

/// A folder with a run on these rows, two a batch.
pub(super) fn run(zeros: &[usize]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    onnx::save(&net(), &path.join("net.onnx"), &mut Sink::new()).unwrap();
    data(path, "d.npz", zeros, &[]);
    let spec = "use std::lora\nadapter a { adapt \"fc\" with lora(rank = 2) }\n";
    std::fs::write(path.join("a.peft"), spec).unwrap();
    let config = "model: net.onnx\nspec: a.peft\ndata: {train: d.npz, order: as_read}\n\
                  task: regression\nbatch_size: 2\nsteps: 4\ncheckpoint_every: 1\noutput: out\n";
    std::fs::write(path.join("run.yaml"), config).unwrap();
    folder
}

pub(super) fn train(folder: &Path, more: &[&str]) -> (Option<i32>, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peftc"));
    command.current_dir(folder).args(["train", "run.yaml"]);
    let output = command.args(["--format", "json"]).args(more).output();
    let Output { status, stdout, .. } = output.unwrap();
    (status.code(), serde_json::from_slice(&stdout).unwrap())
}

/// The steps that were written down.
fn steps(folder: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(folder.join("out/metrics.jsonl")).unwrap_or_default();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let lines: Vec<Value> = lines.collect();
    let steps = lines.iter().filter(|line| line["event"] == "step");
    steps.map(|line| line["step"].as_u64().unwrap()).collect()
}

/// The only diagnostic of a run that fails.
fn error(folder: &Path, more: &[&str]) -> Value {
    let (code, said) = train(folder, more);
    assert_eq!(code, Some(1), "{said}");
    let found = said["diagnostics"].as_array().unwrap();
    assert_eq!(found.len(), 1, "{said}");
    assert_eq!(found[0]["code"], "E1103");
    found[0].clone()
}

#[test]
fn a_gradient_that_is_no_number_ends_the_run_before_anything_is_saved() {
    let folder = run(&[5]);
    let said = error(folder.path(), &["--with", "batch_size=8"]);
    assert_eq!(
        said["message"],
        "the norm of the gradients of step 1 is NaN"
    );
    let notes = said["notes"].to_string();
    assert!(notes.contains("its batch is d.npz:1 to 8\""), "{notes}");
    // There is nothing to go on from.
    let help = said["help"].to_string();
    assert!(
        help.contains("again with `--debug-numerics`") && !help.contains("--resume"),
        "{help}"
    );
    assert!(!folder.path().join("out/checkpoint.safetensors").exists());
    assert_eq!(steps(folder.path()), [0; 0]);
}

/// The step that made the gradient is blamed, with its rows, and not the next one; what began it is named.
#[test]
fn a_gradient_that_is_no_number_is_blamed_on_its_own_step() {
    let folder = run(&[5]);
    let said = error(folder.path(), &[]);
    assert_eq!(
        said["message"],
        "the norm of the gradients of step 3 is NaN"
    );
    assert!(said["notes"].to_string().contains("d.npz:5, d.npz:6"));
    let help = said["help"].to_string();
    assert!(help.contains("`--resume --debug-numerics`"), "{help}");
    assert_eq!(steps(folder.path()), [1, 2]);
    // The checkpoint is that of step 2, and as good as it was.
    let again = error(folder.path(), &["--resume", "--debug-numerics"]);
    assert_eq!(again["message"], said["message"]);
    let notes = again["notes"].to_string();
    // What is infinite makes the NaN: dy / √0.
    let first = "of `Div` (grad/Sqrt/Div): infinity in 3 of 6 elements";
    assert!(notes.contains(first), "{notes}");
    let (code, said) = train(folder.path(), &["--with", "steps=2"]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn of_several_batches_an_update_the_one_whose_gradient_is_no_number_is_blamed() {
    let folder = run(&[5]);
    let more = ["--with", "accumulate=4", "--with", "steps=1"];
    for more in [&more[..], &[&more[..], &["--debug-numerics"]].concat()] {
        let said = error(folder.path(), more);
        assert_eq!(
            said["message"],
            "the norm of the gradients of step 1 is NaN"
        );
        let notes = said["notes"].to_string();
        assert!(notes.contains("its batch is d.npz:5, d.npz:6\""), "{notes}");
        assert!(!notes.contains("d.npz:1"), "{notes}");
    }
}

/// No f32 holds this rate; loss and gradient of the step are finite.
#[test]
fn parameters_that_are_no_numbers_are_not_saved() {
    let folder = run(&[]);
    let rate = "optimizer.learning_rate=1e39";
    let said = error(folder.path(), &["--with", rate, "--with", "steps=1"]);
    let message = said["message"].as_str().unwrap();
    assert!(
        message.ends_with("is not finite behind step 1"),
        "{message}"
    );
    assert!(!folder.path().join("out/checkpoint.safetensors").exists());
}

/// The run goes on, says which rows it is, and once; no such measurement is the best one.
#[test]
fn a_held_out_loss_that_is_no_number_is_a_warning() {
    let folder = run(&[]);
    data(folder.path(), "e.npz", &[], &[6]);
    let eval = format!("data.eval={}", "e.npz");
    let more = ["--with", &eval, "--with", "eval_every=1", "--with"];
    let (code, said) = train(folder.path(), &[&more[..], &["keep_best=true"]].concat());
    assert_eq!(code, Some(0), "{said}");
    let found = said["diagnostics"].as_array().unwrap();
    assert_eq!(found.len(), 1, "{said}");
    assert_eq!(found[0]["code"], "W1101");
    assert!(found[0]["notes"].to_string().contains("e.npz:5, e.npz:6"));
    assert_eq!(said["best"], Value::Null);
    assert!(!folder.path().join("out/best.safetensors").exists());
}
