//! `peftc new`: a file to start from.

use super::frame::{Context, Outcome, Payload};
use crate::diag::Reported;
use crate::driver::Session;
use crate::files;
use clap::{Subcommand, ValueEnum};
use serde_json::json;
use std::io;
use std::path::PathBuf;

/// Start a file: a method with its documentation, its expectations and its proofs
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A method: `peftc test` passes from the start, and stays to be told what you make of it
    Method {
        /// Its name: letters, digits and `_`
        name: String,
        /// The kind of layer that it adapts
        #[arg(long, value_enum, default_value_t)]
        on: Kind,
        /// The file; NAME.peft in the current folder without it
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Kind {
    #[default]
    Linear,
    Conv,
    Embedding,
    Norm,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Outcome {
    let What::Method { name, on, output } = &args.what;
    let path = match output {
        Some(path) => path.clone(),
        None => PathBuf::from(format!("{name}.peft")),
    };
    let text = method(name, *on);
    check(name, &text, cx)?;
    if path.exists() {
        let error = io::Error::from(io::ErrorKind::AlreadyExists);
        return Err(cx.sink.emit(files::cannot_write(&path, &error)));
    }
    files::write(&path, &mut cx.sink, |out| out.write_all(text.as_bytes()))?;
    let shown = path.display();
    let human = format!(
        "wrote {shown}\n\n  peftc test {shown}   proves it by numbers\n  peftc docs {shown}   describes it\n"
    );
    Ok(Payload::new(
        human,
        json!({ "file": path.display().to_string() }),
    ))
}

/// A name that the language does not take is said before anything is written.
fn check(name: &str, text: &str, cx: &mut Context) -> Result<(), Reported> {
    let mut session = Session {
        sources: &mut cx.sources,
        sink: &mut cx.sink,
    };
    session.spec_of(&format!("{name}.peft"), text).map(drop)
}

fn method(name: &str, on: Kind) -> String {
    let (kind, body) = match on {
        Kind::Norm => ("norm", NORM),
        Kind::Linear => ("linear", LOW_RANK),
        Kind::Conv => ("conv", LOW_RANK),
        Kind::Embedding => ("embedding", LOW_RANK),
    };
    let body = body.replace("NAME", name).replace("KIND", kind);
    format!(
        "//! What `{name}` is, and where it is from.

{body}
/// What is expected of it, wherever it is used.
adapter try_{name} {{
  adapt all {kind} with {name}()

  expect identity at start
  expect mergeable
  expect pad_invariant
  expect cache_safe
}}
"
    )
}

const LOW_RANK: &str = "/// y + alpha / rank · B A x
method NAME(
  /// Columns of B.
  rank: int = 4,
  alpha: float = 8.0,
) on KIND {
  require rank >= 1, \"the rank is at least 1\"
  require rank <= min(in, out), \"the rank is at most the smaller side of the weight\"

  param A : [rank, in]  = kaiming_uniform(a = sqrt(5))
  param B : [out, rank] = zeros

  forward(x, y) {
    y + (alpha / rank) * (x @ A.T) @ B.T
  }
}
";

const NORM: &str = "/// The norm with a scale of its own
method NAME() on KIND {
  param gamma : [features] = weight

  forward(x, y) {
    base(x, weight = gamma)
  }
}
";
