//! `peftc runtime`: finding, installing and checking ONNX Runtime.

use super::frame::{Context, Outcome, Payload};
use crate::runtime::{
    self, Candidate, DEFAULT_CUDA_VERSION, DEFAULT_VERSION, Flavor, Install, Library, Tried, Wanted,
};
use clap::Subcommand;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::PathBuf;

/// Find, install or check ONNX Runtime
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show every place that is looked at and which library is used (the default)
    List,
    /// Download ONNX Runtime into the user's data folder, through pip or uv
    Install {
        /// The build with the CUDA provider, and the NVIDIA libraries it needs
        #[arg(long)]
        cuda: bool,
        /// The version; the default is one that peftc is tested with
        #[arg(long)]
        version: Option<String>,
    },
    /// Load ONNX Runtime and say what it is
    Check {
        /// The library file to load, instead of searching
        #[arg(long)]
        path: Option<PathBuf>,
    },
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Outcome {
    match &args.command {
        None | Some(Command::List) => Ok(list(cx)),
        Some(Command::Install { cuda, version }) => install(*cuda, version.as_deref(), cx),
        Some(Command::Check { path }) => check(path.as_deref(), cx),
    }
}

fn list(cx: &mut Context) -> Payload {
    let surroundings = cx.surroundings();
    let loaded = runtime::load(&surroundings, Wanted::Cpu);
    let chosen = loaded.as_ref().ok();
    let mut human = match chosen {
        Some(library) => headline(library),
        None => "ONNX Runtime not found; `peftc runtime install` installs it\n".to_owned(),
    };
    let mut places = Vec::new();
    let _ = writeln!(human, "\nplaces, in order:");
    for candidate in runtime::candidates(&surroundings, Wanted::Cpu) {
        let outcome = outcome(&candidate, chosen.copied(), loaded.as_ref().err());
        let mark = if outcome == USED { "*" } else { " " };
        let (path, place) = (candidate.path.display(), candidate.rung.place());
        let _ = writeln!(human, "{mark} {path}\n    {place}: {outcome}");
        places.push(json!({
            "rung": candidate.rung.name(),
            "path": candidate.path.to_string_lossy(),
            "there": candidate.there,
            "outcome": outcome,
        }));
    }
    let json = json!({ "runtime": chosen.map(|library| describe(library)), "places": places });
    Payload::new(human, json)
}

const USED: &str = "used";

/// What became of a place: the chosen one, why it failed, or why nobody asked.
fn outcome(candidate: &Candidate, chosen: Option<&Library>, tried: Option<&Vec<Tried>>) -> String {
    let is_chosen = |library: &&Library| {
        library.rung == candidate.rung && library.path.ends_with(&candidate.path)
    };
    if chosen.is_some_and(|library| is_chosen(&library)) {
        return USED.to_owned();
    }
    let same = |one: &&Tried| one.candidate == *candidate;
    match tried.and_then(|tried| tried.iter().find(same)) {
        Some(tried) => tried.reason.clone(),
        None if candidate.there => "not used".to_owned(),
        None => "not there".to_owned(),
    }
}

fn install(cuda: bool, version: Option<&str>, cx: &mut Context) -> Outcome {
    let mut request = Install::new(if cuda { Flavor::Cuda } else { Flavor::Cpu });
    if let Some(version) = version {
        request.version = version.to_owned();
    }
    let tested = [DEFAULT_VERSION, DEFAULT_CUDA_VERSION].contains(&request.version.as_str());
    if !tested {
        let line = format!(
            "peftc is tested with {DEFAULT_VERSION}, not with {}",
            request.version
        );
        cx.terminal.say(&line);
    }
    let terminal = cx.terminal.clone();
    let mut say = |line: &str| terminal.say(line);
    let installed = runtime::install(&request, &cx.surroundings(), cx.network, &mut say)
        .map_err(|diagnostic| cx.sink.emit(diagnostic))?;
    let verb = if installed.already {
        "is already"
    } else {
        "is now"
    };
    let human = format!(
        "ONNX Runtime {} {verb} in {}\n",
        installed.version,
        installed.folder.display()
    );
    let json = json!({
        "version": installed.version,
        "folder": installed.folder.to_string_lossy(),
        "library": installed.library.to_string_lossy(),
        "already": installed.already,
    });
    Ok(Payload::new(human, json))
}

fn check(path: Option<&std::path::Path>, cx: &mut Context) -> Outcome {
    let library = match path {
        Some(path) => runtime::check(path).map_err(|diagnostic| cx.sink.emit(diagnostic))?,
        None => {
            // Checking is not the moment to install.
            cx.network = runtime::Network::Forbidden;
            cx.onnx_runtime(Wanted::Cpu)?
        }
    };
    Ok(Payload::new(
        headline(library),
        json!({ "runtime": describe(library) }),
    ))
}

fn headline(library: &Library) -> String {
    let providers = if library.has_cuda() {
        "CPU, CUDA"
    } else {
        "CPU"
    };
    format!(
        "ONNX Runtime {} ({providers})\n  {}\n  {}\n",
        library.version,
        library.path.display(),
        library.rung.place()
    )
}

fn describe(library: &Library) -> Value {
    json!({
        "version": library.version,
        "path": library.path.to_string_lossy(),
        "rung": library.rung.name(),
        "place": library.rung.place(),
        "cuda": library.has_cuda(),
    })
}
