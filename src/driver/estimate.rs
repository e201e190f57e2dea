//! What training a planned adapter takes of memory. The weights need not be there.

use super::neighborhood::without_values;
use super::session::{Loaded, Planned};
use super::training::{brought, rounded, specialized, trained};
use crate::adapt::{self, Hooks, Starts};
use crate::diag::{Reported, Sink};
use crate::graph::Tensor;
use crate::train::{
    self, Base, BatchSizes, Estimate, Memory, Recipe, Recompute, Rounding, Trains, show_bytes,
};
use serde_json::{Value, json};
use std::borrow::Cow;

/// The estimates of a recipe, with activations kept and with activations computed again.
#[derive(Clone, Debug)]
pub struct Estimates {
    pub kept: Estimate,
    pub again: Estimate,
}

/// Makes the training graphs of a plan and estimates what a step on a batch takes.
pub fn estimates(
    planned: &Planned,
    loaded: &Loaded,
    recipe: &Recipe,
    sink: &mut Sink,
) -> Result<Estimates, Reported> {
    let mut model = loaded.model.clone();
    // Start values take the same memory whatever they are.
    let reader = |_: &Tensor, _: &mut Sink| unreachable!("every parameter has its value already");
    let plan = &planned.plan;
    let parameters = plan.parameters.iter();
    let values = parameters.map(|p| (p.name.clone(), without_values(&p.dims)));
    let values = values.collect();
    let starts = Starts::new(0, &reader, &values);
    let adapted = adapt::apply(plan, &mut model, &loaded.modules, &starts, sink)?;
    let hooks = Hooks::new(plan, &loaded.modules, &adapted.tensors);
    let tensors = brought(planned, adapted, Trains::default());
    let trained = trained(&tensors, &recipe.rates, sink)?;
    let mut model = specialized(&model, &[], sink)?;
    if recipe.base != Base::Own {
        let rounded = rounded(&model, recipe.base, &tensors, Rounding::Planned, sink)?;
        model = Cow::Owned(rounded);
    }
    let mut with = |recompute: Recompute| {
        let recipe = Recipe {
            memory: Memory {
                recompute,
                budget: None,
                ..recipe.memory
            },
            ..recipe.clone()
        };
        train::graphs(&model, &trained, &hooks, &recipe, sink).map(|graphs| graphs.estimate)
    };
    Ok(Estimates {
        kept: with(Recompute::Off)?,
        again: with(Recompute::Blocks)?,
    })
}

impl Estimates {
    pub fn to_json(&self) -> Value {
        let entry = |estimate: &Estimate| {
            let largest = estimate.largest.iter();
            let largest = largest.map(
                |(name, ty, bytes)| json!({ "name": name, "type": ty.to_string(), "bytes": bytes }),
            );
            json!({
                "bytes": estimate.total(),
                "weights": estimate.weights,
                "state": estimate.state,
                "activations": estimate.activations,
                "process": estimate.process,
                "largest": largest.collect::<Vec<Value>>(),
            })
        };
        let BatchSizes { rows, tokens } = self.kept.batch;
        json!({
            "batch": rows, "length": tokens, "kept": entry(&self.kept), "recomputed": entry(&self.again),
        })
    }

    pub fn to_text(&self) -> String {
        let BatchSizes { rows, tokens } = self.kept.batch;
        let line = |what: &str, estimate: &Estimate| {
            format!(
                "  {what:<22}{:>10}   weights {}, state {}, activations {}\n",
                show_bytes(estimate.total()),
                show_bytes(estimate.weights),
                show_bytes(estimate.state),
                show_bytes(estimate.activations),
            )
        };
        let mut text = format!("\n  a step of training on {rows} × {tokens} tokens, about\n");
        text.push_str(&line("activations kept", &self.kept));
        text.push_str(&line("with `recompute: true`", &self.again));
        if let Some((name, ty, bytes)) = self.kept.largest.first() {
            let bytes = show_bytes(*bytes);
            text.push_str(&format!(
                "  the largest tensor is `{name}`, {ty}, {bytes}\n"
            ));
        }
        text
    }
}
