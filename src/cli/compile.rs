//! `peftc compile`: the main job.

use super::frame::{Context, Outcome, Payload};
use super::model_args::{ModelArgs, parse_flag, parse_setting};
use super::progress::Bar;
use super::recipe_args::RecipeArgs;
use super::terminal::Terminal;
use super::verify;
use crate::diag::Reported;
use crate::driver::{
    Adapter, Artifacts, CompileOptions, Depth, Destination, Loaded, ModelOptions, PlanOptions,
    Progress, Session, Spec, Summary, compile,
};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::PathBuf;

/// Adapt a model: write the adapted model, the adapter's weights and a manifest
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The spec
    spec: PathBuf,
    /// The ONNX model; it is not changed
    model: PathBuf,
    /// Write model.onnx, adapter.safetensors and manifest.json into this folder, not beside the
    /// model; external data is copied there
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Which adapters of the spec; all without it, each to its own files
    #[arg(long, value_name = "NAME")]
    adapter: Vec<String>,
    /// A hyper-parameter that wins over the spec: rank=16 or lora.rank=16
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_setting)]
    settings: Vec<(String, String)>,
    /// Seed of random start values
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// A trained adapter whose tensors replace the start values
    #[arg(long, value_name = "SAFETENSORS")]
    values: Option<PathBuf>,
    /// Tensors that start as in this file; the others start as their method says
    #[arg(long, value_name = "SAFETENSORS", conflicts_with = "values")]
    start: Option<PathBuf>,
    /// What `peftc calibrate` has measured, for methods that start from data
    #[arg(long, value_name = "SAFETENSORS")]
    calibration: Option<PathBuf>,
    /// Let the base's fingerprint cover every byte of the weights, not samples
    #[arg(long)]
    full_fingerprint: bool,
    /// Run base and adapted model on these inputs with ONNX Runtime and show how far their outputs
    /// are apart at the start
    #[arg(long, value_name = "SAFETENSORS")]
    verify: Option<PathBuf>,
    /// Write training graphs, too: step.onnx, grad.onnx, update.onnx and eval.onnx
    #[arg(long)]
    train: bool,
    /// In training graphs, an input of one truth value has this value, and branches that it never
    /// takes are gone: use_cache_branch=false
    #[arg(long, value_name = "FLAG=BOOL", value_parser = parse_flag, requires = "train")]
    specialize: Vec<(String, bool)>,
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    recovery: ModelArgs,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Outcome {
    args.recipe.check(&mut cx.sink)?;
    let mut session = Session {
        sources: &mut cx.sources,
        sink: &mut cx.sink,
    };
    let spec = session.spec(&args.spec)?;
    let adapters = session.adapters(&spec, &args.adapter)?;
    let several = adapters.len() > 1;
    if several || args.verify.is_some() {
        // What is wrong with one adapter shows before anything is run or written for another.
        let options = ModelOptions {
            roles: adapters.iter().any(|adapter| adapter.asks_for_roles()),
            ..args.recovery.options()
        };
        let loaded = session.model(&args.model, &options)?;
        for adapter in &adapters {
            let _ = session.plan(&spec, adapter, &loaded, &plan_options(args));
        }
        session.sink.failed()?;
    }
    let base = match &args.verify {
        Some(inputs) => Some(verify::Base::run(&args.model, inputs, cx)?),
        None => None,
    };
    let mut session = Session {
        sources: &mut cx.sources,
        sink: &mut cx.sink,
    };
    let mut human = String::new();
    let mut written = Vec::new();
    let mut last = None;
    for adapter in adapters {
        let destination = match &args.output {
            None => Destination::Beside,
            Some(folder) if several => Destination::Folder(folder.join(&adapter.name.node)),
            Some(folder) => Destination::Folder(folder.clone()),
        };
        let one = (&spec, adapter, destination);
        let (text, json, loaded) = compile_one(args, one, &cx.terminal, &mut session)?;
        last = Some(loaded);
        human.push_str(&text);
        written.push(json);
    }
    // Giving back ten thousand nodes takes a while, and the process is about to end.
    std::mem::forget(last);
    if let Some(base) = &base {
        for entry in &mut written {
            let adapted = PathBuf::from(entry["model"].as_str().unwrap_or_default());
            let differences = verify::differences(base, &adapted, cx)?;
            let name = entry["adapter"].as_str().unwrap_or_default().to_owned();
            let other = match entry["plan"]["layers"].is_object() {
                true => ", whose layers are others,",
                false => "",
            };
            for (output, difference) in &differences {
                let start = if args.values.is_some() {
                    ""
                } else {
                    " at the start"
                };
                let _ = match difference {
                    0.0 => writeln!(
                        human,
                        "  verified   {name}: `{output}` equals the base's{other}{start}"
                    ),
                    _ => writeln!(
                        human,
                        "  verified   {name}: `{output}` differs from the base's{other} by at most {difference:.1e}{start}"
                    ),
                };
            }
            entry["verified"] = differences.into_iter().map(|(output, difference)| json!({"output": output, "largest_difference": difference})).collect();
        }
    }
    Ok(Payload::new(human, json!({ "compiled": written })))
}

fn plan_options(args: &Args) -> PlanOptions {
    PlanOptions {
        settings: args.settings.clone(),
    }
}

fn compile_one(
    args: &Args,
    (spec, adapter, destination): (&Spec, &Adapter, Destination),
    terminal: &Terminal,
    session: &mut Session<'_>,
) -> Result<(String, Value, Loaded), Reported> {
    let options = ModelOptions {
        fingerprint: !args.full_fingerprint,
        roles: adapter.asks_for_roles(),
        ..args.recovery.options()
    };
    let loaded = session.model(&args.model, &options)?;
    let (loaded, planned) = session.plan(spec, adapter, loaded, &plan_options(args))?;
    let mut loaded = loaded.into_owned();
    session.sink.failed()?;
    let summary = Summary::new(&planned, &loaded);
    let mut text = summary.to_text(&loaded.model);
    let bar = Bar::new("start values", terminal);
    let options = CompileOptions {
        destination,
        seed: args.seed,
        depth: if args.full_fingerprint {
            Depth::Full
        } else {
            Depth::Sampled
        },
        settings: args.settings.clone(),
        values: args.values.clone(),
        start: args.start.clone(),
        calibration: args.calibration.clone(),
        head: args.recipe.head(),
        training: args.train.then(|| args.recipe.recipe()),
        classes: args.recipe.classes.clone(),
        flags: args.specialize.clone(),
        progress: Progress::new(move |done, of| bar.at(done, of)),
    };
    let artifacts = compile(session, spec, &mut loaded, &planned, &options)?;
    describe(&artifacts, &mut text);
    let json = json!({
        "adapter": artifacts.manifest.adapter,
        "model": artifacts.model.display().to_string(),
        "weights": artifacts.weights.display().to_string(),
        "manifest": artifacts.manifest_path.display().to_string(),
        "graphs": artifacts.graphs.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
        "copied": artifacts.copied.iter().map(|(path, size)| json!({"file": path.display().to_string(), "bytes": size})).collect::<Vec<_>>(),
        "plan": summary.to_json(),
    });
    Ok((text, json, loaded))
}

fn describe(artifacts: &Artifacts, text: &mut String) {
    let _ = writeln!(text);
    for path in [
        &artifacts.model,
        &artifacts.weights,
        &artifacts.manifest_path,
    ]
    .into_iter()
    .chain(&artifacts.graphs)
    {
        let size = std::fs::metadata(path).map_or(0, |m| m.len());
        let _ = writeln!(text, "  wrote      {} ({size} bytes)", path.display());
    }
    for data in &artifacts.manifest.files.data {
        match artifacts
            .copied
            .iter()
            .find(|(path, _)| path.ends_with(data))
        {
            Some((path, size)) => {
                let _ = writeln!(
                    text,
                    "  copied     {} ({size} bytes): runtimes want external data beside the model",
                    path.display()
                );
            }
            None => {
                let _ = writeln!(text, "  refers to  {data}, which is not copied");
            }
        }
    }
}
