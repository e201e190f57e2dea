//! `peftc convert`: a trained adapter as one of low rank.

use super::frame::{Context, Outcome, Payload};
use super::model_args::{TrainedArgs, destination};
use super::progress::Bar;
use crate::diag::counted;
use crate::driver::{
    self, Budget, ConvertArtifacts, ConvertOptions, ConvertedSite, Progress, Session,
};
use clap::ValueEnum;
use serde_json::json;
use std::fmt::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Convert a trained adapter of any method that merges into LoRA, and say what is lost
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    trained: TrainedArgs,
    /// What the adapter becomes
    #[arg(long, value_enum, value_name = "METHOD")]
    to: Target,
    /// The rank of every module
    #[arg(long, value_name = "RANK", required_unless_present = "error")]
    rank: Option<NonZeroUsize>,
    /// The least rank of each module that loses at most this share of the change of its weight: 1% or
    /// 0.01
    #[arg(long, value_name = "SHARE", value_parser = parse_share, conflicts_with = "rank")]
    error: Option<f64>,
    /// Write lora.peft and lora.safetensors into this folder, not MODEL.ADAPTER.lora.peft and
    /// .safetensors beside the model
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Target {
    /// The library's lora
    Lora,
}

/// The error for which the rank is told where none is asked for.
const ASKED: f64 = 0.01;

pub(super) fn run(args: &Args, cx: &mut Context) -> Outcome {
    let bar = Bar::new("modules", &cx.terminal);
    let mut session = Session {
        sources: &mut cx.sources,
        sink: &mut cx.sink,
    };
    let (loaded, planned) = args.trained.load(&mut session)?;
    let asked = args.error.unwrap_or(ASKED);
    // A target is called as the library calls the method.
    let method = args.to.to_possible_value();
    let method = method.map_or_else(String::new, |value| value.get_name().to_owned());
    let options = ConvertOptions {
        to: method,
        values: args.trained.values.clone(),
        budget: args
            .rank
            .map_or(Budget::Error(asked), |rank| Budget::Rank(rank.get())),
        asked,
        destination: destination(args.output.as_ref()),
        progress: Progress::new(move |done, of| bar.at(done, of)),
    };
    let artifacts = driver::convert(&mut session, &loaded, &planned, &options)?;
    // The process is about to end.
    std::mem::forget(loaded);
    let name = &planned.plan.adapter;
    let json = json(name, &artifacts, asked);
    Ok(Payload::new(described(name, &artifacts, asked), json))
}

/// Reads `1%` or `0.01`.
fn parse_share(text: &str) -> Result<f64, String> {
    let number = |text: &str| text.trim().parse::<f64>().ok();
    let share = match text.trim().strip_suffix('%') {
        Some(percent) => number(percent).map(|value| value / 100.0),
        None => number(text),
    };
    match share {
        Some(share) if share > 0.0 && share < 1.0 => Ok(share),
        _ => Err("a share lies between 0 and 1, such as 1% or 0.01".to_owned()),
    }
}

fn json(adapter: &str, artifacts: &ConvertArtifacts, asked: f64) -> serde_json::Value {
    let sites = artifacts.sites.iter().map(|site| {
        json!({
            "path": site.name,
            "rank": site.rank,
            "error": site.error(),
            "needed_rank": site.rank_for,
            "change": site.length,
            "bias": site.bias,
        })
    });
    json!({
        "adapter": adapter,
        "spec": artifacts.spec.display().to_string(),
        "weights": artifacts.weights.display().to_string(),
        "error": artifacts.error(),
        "asked_error": asked,
        "modules": sites.collect::<Vec<_>>(),
    })
}

fn described(adapter: &str, artifacts: &ConvertArtifacts, asked: f64) -> String {
    let sites = &artifacts.sites;
    let mut text = format!(
        "adapter `{adapter}`\n  converted  {}; {} of their change is lost\n",
        counted(sites.len(), "module"),
        shown(artifacts.error()),
    );
    let biases = sites.iter().filter(|site| site.bias).count();
    if biases > 0 {
        let _ = writeln!(text, "  bias       of {}, too", counted(biases, "module"));
    }
    for path in [&artifacts.spec, &artifacts.weights] {
        let size = std::fs::metadata(path).map_or(0, |m| m.len());
        let _ = writeln!(text, "  wrote      {} ({size} bytes)", path.display());
    }
    let length = |site: &ConvertedSite| site.name.chars().count();
    let width = sites.iter().map(length).fold("module".len(), usize::max);
    let percent = (asked * 1e8).round() / 1e6;
    let needed = format!("rank for {percent} %");
    let _ = writeln!(text, "\n  {:<width$}  rank     error  {needed}", "module");
    for site in sites {
        let (name, rank, error) = (&site.name, site.rank, shown(site.error()));
        let needed = format!("{:>1$}", site.rank_for, needed.len());
        let _ = writeln!(text, "  {name:<width$}  {rank:>4}  {error:>8}  {needed}");
    }
    text
}

fn shown(share: f64) -> String {
    match share {
        0.0 => "0 %".to_owned(),
        _ if share < 1e-4 => format!("{:.0e} %", share * 100.0),
        _ => format!("{:.2} %", share * 100.0),
    }
}
