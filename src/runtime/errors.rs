//! Every diagnostic of the room, one constructor each.

use super::install::install_command;
use super::library::Tried;
use super::locate::Rung;
use super::port::Port;
use super::tensor::HostTensor;
use crate::diag::{Code, Diagnostic, nearest};
use crate::ty::DType;
use std::path::Path;

/// No place has a library that loads; lists every place with its reason.
pub(super) fn not_loaded(tried: &[Tried]) -> Diagnostic {
    let files = tried
        .iter()
        .filter(|t| t.candidate.there && t.candidate.rung != Rung::Loader)
        .count();
    let named = tried.iter().any(|t| t.candidate.rung == Rung::Variable);
    let mut diagnostic = match tried {
        [one] if named => Diagnostic::new(
            Code::E0802,
            format!(
                "ONNX Runtime cannot be loaded from `{}`",
                one.candidate.path.display(),
            ),
        )
        .note(format!("the loader says: {}", one.reason)),
        _ if files > 0 => Diagnostic::new(
            Code::E0802,
            format!("ONNX Runtime cannot be loaded: {files} found, none loads"),
        ),
        _ => Diagnostic::new(
            Code::E0801,
            format!("ONNX Runtime not found in {} places", tried.len()),
        ),
    };
    if named {
        return diagnostic
            .help("name the library file itself, such as `libonnxruntime.so`")
            .help("without `ORT_DYLIB_PATH` and `--path`, peftc searches for one");
    }
    for Tried { candidate, reason } in tried {
        diagnostic = diagnostic.note(format!(
            "tried {} ({}): {reason}",
            candidate.path.display(),
            candidate.rung.place()
        ));
    }
    diagnostic.help(format!("run `{}`", install_command()))
}

pub(super) fn offline() -> Diagnostic {
    not_installed("`--offline` forbids the download")
        .help("run again without `--offline`, or point `ORT_DYLIB_PATH` at a library")
}

pub(super) fn no_data_folder() -> Diagnostic {
    not_installed("neither `XDG_DATA_HOME` nor `HOME` says where to put it")
        .help("set `XDG_DATA_HOME` to a folder of your own")
}

/// Neither pip nor uv delivered; `attempts` are their last words.
pub(super) fn download_failed(requirement: &str, attempts: &[(String, String)]) -> Diagnostic {
    let mut diagnostic = not_installed(&format!("no tool could download {requirement}"));
    for (command, words) in attempts {
        diagnostic = diagnostic.note(format!("`{command}`: {words}"));
    }
    diagnostic
        .help("install pip for `python3`, or uv, and see that their package index is reachable")
        .help("or download the wheel yourself, unpack it, and point `ORT_DYLIB_PATH` at its `libonnxruntime`")
}

pub(super) fn bad_wheel(wheel: &str, reason: &str) -> Diagnostic {
    not_installed(&format!("`{wheel}` is not usable: {reason}"))
        .help("try another version with `--version`")
}

pub(super) fn does_not_load(path: &Path, words: &str) -> Diagnostic {
    not_installed(&format!(
        "the library from `{}` does not load: {words}",
        path.file_name().unwrap_or_default().to_string_lossy()
    ))
    .help("try another version with `--version`")
}

pub(super) fn bad_version(version: &str) -> Diagnostic {
    not_installed(&format!("`{version}` is not a version"))
        .help("a version is numbers with dots, such as `1.32.0`")
}

fn not_installed(reason: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0803,
        format!("ONNX Runtime cannot be installed: {reason}"),
    )
}

/// A session cannot be made; `words` are ONNX Runtime's.
pub(super) fn model_refused(model: &str, words: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0804,
        format!("ONNX Runtime refuses the model `{model}`"),
    )
    .help("`peftc inspect` says what is wrong with a file that is damaged or no model")
    .help("a newer ONNX Runtime knows more operators: `peftc runtime` says which one is used")
    .note(format!("ONNX Runtime says: {words}"))
}

/// Names that are no inputs; `names` is not empty.
pub(super) fn unknown_inputs(names: &[&str], inputs: &[Port]) -> Diagnostic {
    let list = list(names.iter().map(|name| format!("`{name}`")));
    let mut diagnostic = Diagnostic::new(Code::E0805, format!("the model has no input {list}"));
    for name in names {
        let known = inputs.iter().map(|port| port.name.as_str());
        if let Some(near) = nearest(name, known, 1).first() {
            diagnostic = diagnostic.help(format!("did you mean `{near}` by `{name}`?"));
        }
    }
    let known = self::list(inputs.iter().map(Port::to_string));
    diagnostic.note(format!("inputs of the model: {known}"))
}

/// Inputs that must be given and are not; `ports` is not empty.
pub(super) fn missing_inputs(ports: &[&Port]) -> Diagnostic {
    let names = list(ports.iter().map(|port| format!("`{}`", port.name)));
    let asked = list(ports.iter().map(|port| port.to_string()));
    Diagnostic::new(
        Code::E0805,
        format!("nothing is given for the input {names}"),
    )
    .help("add a tensor of this name to the file of inputs")
    .note(format!("the model asks for {asked}"))
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

pub(super) fn input_differs(port: &Port, tensor: &HostTensor, reason: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0805,
        format!("input `{}` does not fit: {reason}", port.name),
    )
    .note(format!(
        "the model asks for {port}, given is {}",
        tensor.ty()
    ))
}

/// Running failed; `words` are ONNX Runtime's.
pub(super) fn run_failed(words: &str) -> Diagnostic {
    if let Some(size) = refused_allocation(words) {
        return out_of_memory(size, words);
    }
    Diagnostic::new(Code::E0806, "ONNX Runtime cannot run the model")
        .help("check that the values of the inputs are ones that the model can work with")
        .note(format!("ONNX Runtime says: {words}"))
}

/// The size in bytes that ONNX Runtime says it could not allocate.
fn refused_allocation(words: &str) -> Option<u64> {
    let (_, behind) =
        words.split_once("Failed to allocate memory for requested buffer of size ")?;
    let digits = behind.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

fn out_of_memory(size: u64, words: &str) -> Diagnostic {
    let size = match size {
        size if size >= 1 << 30 => format!("{:.1} GiB", size as f64 / f64::from(1 << 30)),
        size => format!("{:.1} MiB", size as f64 / f64::from(1 << 20)),
    };
    let node = words
        .split_once("Name:'")
        .and_then(|(_, behind)| behind.split('\'').next());
    let who = node.map_or_else(String::new, |node| format!(" of the node `{node}`"));
    Diagnostic::new(
        Code::E0810,
        format!("there is no memory for a result{who}, which takes {size}"),
    )
    .help("make batches smaller: fewer rows or shorter ones; in training `batch_size`, `data.max_length`, and `accumulate` for the rows that are left out")
    .note(format!("ONNX Runtime says: {words}"))
}

pub(super) fn no_provider(provider: &str, words: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0807,
        format!("ONNX Runtime has no usable {provider} provider here"),
    )
    .note(format!("ONNX Runtime says: {words}"))
    .help("install the CUDA build with `peftc runtime install --cuda`, on a machine with an NVIDIA driver")
    .help("or run on the CPU")
}

/// Steps cannot be recorded; `words` say why.
pub(super) fn no_graphs(words: &str) -> Diagnostic {
    let diagnostic = Diagnostic::new(
        Code::E0807,
        "ONNX Runtime cannot record the steps as CUDA graphs",
    )
    .note(format!("ONNX Runtime says: {words}"))
    .help("leave `cuda_graphs` out: the numbers are the same");
    match words.contains("control flow") {
        true => {
            diagnostic.help("logits in pieces are a loop: `loss_pieces: 1` computes them at once")
        }
        false => diagnostic,
    }
}

/// A replay has another result than a plain run on the same operands.
pub(super) fn replay_differs(output: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0806,
        format!("a recorded step gives another `{output}` than a plain one on the same operands"),
    )
    .note("nothing of this step was kept")
    .help("leave `cuda_graphs` out")
}

pub(super) fn not_a_tensor(port: &Port) -> Diagnostic {
    Diagnostic::new(
        Code::E0808,
        format!("`{}` is no tensor of numbers", port.name),
    )
    .note(format!("its type is {}", port.words))
    .help("peftc runs models whose inputs and outputs are tensors of numbers or booleans")
}

pub(super) fn not_safetensors(path: &Path, reason: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0901,
        format!("`{}` is not a safetensors file: {reason}", path.display()),
    )
    .help(
        "inputs and outputs are named tensors in a `.safetensors` file, as `--output` writes them",
    )
}

pub(super) fn not_storable(name: &str, dtype: DType) -> Diagnostic {
    Diagnostic::new(
        Code::E0808,
        format!("`{name}` has the type {dtype}, which safetensors lacks"),
    )
}
