//! `peftc import`: an adapter of another tool.

use super::frame::{Context, Outcome, Payload};
use super::model_args::{ModelArgs, destination};
use crate::diag::counted;
use crate::driver::{self, ImportArtifacts, ImportOptions, Session};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Read an adapter of Hugging Face PEFT: write its spec and its tensors
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder that `save_pretrained` wrote: adapter_config.json and adapter_model.safetensors
    folder: PathBuf,
    /// The ONNX model that the adapter belongs to
    model: PathBuf,
    /// What the adapter is called; without it as the folder is
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    name: Option<String>,
    /// Write NAME.peft and NAME.safetensors into this folder, not MODEL.NAME.peft and .safetensors
    /// beside the model
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    #[command(flatten)]
    recovery: ModelArgs,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Outcome {
    let mut session = Session {
        sources: &mut cx.sources,
        sink: &mut cx.sink,
    };
    let loaded = session.model(&args.model, &args.recovery.options())?;
    let name = args.name.clone();
    let options = ImportOptions {
        folder: args.folder.clone(),
        name: name.unwrap_or_else(|| name_of(&args.folder)),
        destination: destination(args.output.as_ref()),
    };
    let artifacts = driver::import(&mut session, &loaded, &options)?;
    // The process is about to end.
    std::mem::forget(loaded);
    let json = json!({
        "adapter": options.name,
        "peft_type": artifacts.kind,
        "method": artifacts.method,
        "spec": artifacts.spec.display().to_string(),
        "weights": artifacts.weights.display().to_string(),
        "modules": artifacts.modules,
        "tensors": artifacts.tensors,
    });
    Ok(Payload::new(
        described(&options.name, args, &artifacts),
        json,
    ))
}

/// A word of the language that is no reserved one.
fn parse_name(text: &str) -> Result<String, String> {
    match word(text) == text {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "a name is a word of letters, digits and `_`, such as `{}`",
            word(text)
        )),
    }
}

/// The name of a folder as a word.
fn name_of(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let name = folder
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    word(&name.unwrap_or_default())
}

fn word(text: &str) -> String {
    let sign = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let word: String = text.chars().map(sign).collect();
    let starts = word.chars().next().is_some_and(|c| !c.is_ascii_digit());
    let is_reserved = crate::syntax::reserved_words().any(|reserved| reserved == word);
    match starts && !is_reserved {
        true => word,
        false => format!("adapter_{word}"),
    }
}

fn described(name: &str, args: &Args, artifacts: &ImportArtifacts) -> String {
    let size = std::fs::metadata(&artifacts.weights).map_or(0, |m| m.len());
    format!(
        "adapter `{name}`\n  imported   PEFT's {} as {}: {} of {}\n  wrote      {}\n  wrote      {} ({size} bytes)\n\nnext: peftc compile {} {} --values {}\n",
        artifacts.kind,
        artifacts.method,
        counted(artifacts.tensors, "tensor"),
        counted(artifacts.modules, "module"),
        artifacts.spec.display(),
        artifacts.weights.display(),
        artifacts.spec.display(),
        args.model.display(),
        artifacts.weights.display(),
    )
}
