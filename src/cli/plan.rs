//! `peftc plan`: what `compile` would do.

use super::frame::{Context, Outcome, Payload};
use super::model_args::{ModelArgs, parse_setting};
use super::recipe_args::{BaseName, StateName, parse_task};
use crate::driver::{
    Adam, BatchSizes, Memory, ModelOptions, Optimizer, PlanOptions, Recipe, Session, Summary,
    TaskKind, estimates,
};
use serde_json::json;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Show which modules an adapter changes, and what that costs, without writing anything
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The spec
    spec: PathBuf,
    /// The ONNX model; its weights need not be there
    #[arg(long, value_name = "ONNX")]
    model: PathBuf,
    /// Which adapters of the spec; all without it
    #[arg(long, value_name = "NAME")]
    adapter: Vec<String>,
    /// A hyper-parameter that wins over the spec: rank=16 or lora.rank=16
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_setting)]
    settings: Vec<(String, String)>,
    /// Rows of a batch: shows what a step of training with AdamW takes of memory
    #[arg(long, value_name = "ROWS")]
    batch: Option<NonZeroUsize>,
    /// Tokens of its rows
    #[arg(long, value_name = "TOKENS", default_value = "256", requires = "batch")]
    length: NonZeroUsize,
    /// What is learned
    #[arg(long, value_parser = parse_task, default_value = "causal_lm", requires = "batch")]
    task: TaskKind,
    /// What Adam keeps its two means in
    #[arg(long, value_enum, default_value_t, requires = "batch")]
    optimizer_state: StateName,
    /// In how many pieces of the tokens a language model's logits are computed; as many as keep them small without it
    #[arg(long, value_name = "COUNT", requires = "batch")]
    loss_pieces: Option<NonZeroUsize>,
    /// What the frozen weights are computed with in training
    #[arg(long, value_enum, default_value_t, requires = "batch")]
    base: BaseName,
    /// Every operator by itself: as `peftc train --no-kernels`, or as on a GPU
    #[arg(long, requires = "batch")]
    no_kernels: bool,
    #[command(flatten)]
    recovery: ModelArgs,
}

impl Args {
    /// What is trained on batches of the size that was asked for.
    fn recipe(&self) -> Option<Recipe> {
        let rows = self.batch?;
        Some(Recipe {
            task: self.task.with(0.0, None),
            output: None,
            optimizer: Optimizer::AdamW(Adam {
                moments: self.optimizer_state.into(),
                ..Adam::default()
            }),
            max_grad_norm: None,
            base: self.base.into(),
            rates: Vec::new(),
            memory: Memory {
                pieces: self.loss_pieces.map(NonZeroUsize::get),
                batch: BatchSizes {
                    rows: rows.get(),
                    tokens: self.length.get(),
                },
                kernels: !self.no_kernels,
                ..Memory::default()
            },
        })
    }
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Outcome {
    let mut session = Session {
        sources: &mut cx.sources,
        sink: &mut cx.sink,
    };
    let spec = session.spec(&args.spec)?;
    let adapters = session.adapters(&spec, &args.adapter)?;
    let loaded = session.model(
        &args.model,
        &ModelOptions {
            without_data: true,
            roles: true,
            ..args.recovery.options()
        },
    )?;
    let options = PlanOptions {
        settings: args.settings.clone(),
    };
    let mut human = String::new();
    let mut plans = Vec::new();
    for adapter in adapters {
        let Ok((loaded, planned)) = session.plan(&spec, adapter, &loaded, &options) else {
            continue;
        };
        let summary = Summary::new(&planned, &loaded);
        human.push_str(&summary.to_text(&loaded.model));
        let mut json = summary.to_json();
        if let Some(recipe) = args.recipe() {
            let estimates = estimates(&planned, &loaded, &recipe, session.sink)?;
            human.push_str(&estimates.to_text());
            json["training_step"] = estimates.to_json();
        }
        plans.push(json);
    }
    Ok(Payload::new(human, json!({ "plans": plans })))
}
