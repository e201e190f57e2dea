//! What decides what a step computes: two runs of which all of it is the same are one.

use super::config::Config;
use super::errors;
use super::job::Decided;
use super::schedule::Schedule;
use crate::data::Dataset;
use crate::diag::{Diagnostic, Reported, Sink};
use crate::driver::compile::Artifacts;
use crate::train::Recipe;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

/// Kept in a checkpoint, so that a run that goes on from it knows that it is the same, or what has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// By the keys of a configuration: what is there as it is written, or a digest of it.
    parts: BTreeMap<String, String>,
    /// Steps of the whole run.
    steps: u64,
}

/// Longer ones are known by their digest.
const SHORT: usize = 40;

impl Identity {
    pub fn new(
        config: &Config,
        decided: &Decided,
        artifacts: &Artifacts,
        dataset: &Dataset,
        steps: u64,
    ) -> Identity {
        let manifest = &artifacts.manifest;
        let optimizer = &config.optimizer;
        // Every field by its name, so that a new one has to find its place here. What is kept in memory and
        // what is computed again are the same numbers.
        let Recipe {
            task,
            output,
            optimizer: kind,
            max_grad_norm,
            rates,
            base,
            memory: _,
        } = config.recipe();
        let mut parts = BTreeMap::new();
        let mut digest = |key: &str, part: &str| {
            let hash = blake3::hash(part.as_bytes()).to_hex();
            parts.insert(key.to_owned(), format!("blake3:{hash}"));
        };
        digest("model", &manifest.base.fingerprint);
        digest("spec", &manifest.spec.digest);
        digest("data.train", &dataset.digest());
        if let Some(start) = &manifest.start {
            digest("start", &start.digest);
        }
        let mut part = |key: &str, part: &dyn Debug| {
            let text = format!("{part:?}");
            // As a configuration has it.
            let inside = text
                .strip_prefix("Some(")
                .and_then(|text| text.strip_suffix(')'));
            let text = match text.as_str() {
                "None" => "null".to_owned(),
                text => inside.unwrap_or(text).to_owned(),
            };
            let text = match text.len() <= SHORT {
                true => text,
                false => format!("blake3:{}", blake3::hash(text.as_bytes()).to_hex()),
            };
            parts.insert(key.to_owned(), text);
        };
        part("adapter", &manifest.adapter);
        part("set", &config.settings());
        part("task", &task);
        part("model_output", &output);
        part("head", &decided.head);
        part("data.classes", &decided.classes);
        part("data.order", &config.data.order);
        part("data.pack", &config.data.pack);
        part("batch_size", &config.batch_size);
        part("accumulate", &config.accumulate);
        part("seed", &config.seed);
        part("base", &base);
        part("specialize", &config.specialize);
        part("optimizer", &kind);
        part("optimizer.learning_rate", &optimizer.learning_rate);
        part("optimizer.schedule", &optimizer.schedule);
        part("optimizer.warmup_steps", &optimizer.warmup_steps);
        part("optimizer.max_grad_norm", &max_grad_norm);
        part("optimizer.rates", &rates);
        Identity { parts, steps }
    }

    /// Whether a checkpoint of another identity is one of this run, at a step that it has done. A run may
    /// become longer where its length decides nothing but its end.
    pub fn check(
        &self,
        other: &Identity,
        done: u64,
        schedule: Schedule,
        path: &Path,
        sink: &mut Sink,
    ) -> Result<(), Reported> {
        let changes = self.changes(other);
        let fault: Option<Diagnostic> = match (changes.as_slice(), schedule) {
            ([], _) if self.steps == other.steps => None,
            ([], Schedule::Constant) if self.steps >= done => None,
            ([], Schedule::Constant) => Some(errors::too_few_steps(path, done, self.steps)),
            ([], _) => Some(errors::other_length(path, other.steps, self.steps)),
            (changes, _) => Some(errors::changed_run(path, changes)),
        };
        fault.map_or(Ok(()), |fault| Err(sink.emit(fault)))
    }

    /// Keys with what the other has and what this one has; digests say nothing.
    fn changes(&self, other: &Identity) -> Vec<Change> {
        let shown = |of: &Identity, key: &str| {
            let part = of.parts.get(key)?;
            (!part.starts_with("blake3:")).then(|| part.clone())
        };
        let mut keys: Vec<&String> = self.parts.keys().chain(other.parts.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.retain(|key| self.parts.get(*key) != other.parts.get(*key));
        let change = |key: &String| Change {
            key: key.clone(),
            values: shown(other, key).zip(shown(self, key)),
        };
        keys.into_iter().map(change).collect()
    }
}

/// A key that has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub key: String,
    /// What it was and what it is, where that is short.
    pub values: Option<(String, String)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(seed: &str, model: &str, steps: u64) -> Identity {
        let parts = [
            ("seed", seed.to_owned()),
            ("model", format!("blake3:{model}")),
        ];
        let parts = parts.map(|(key, part)| (key.to_owned(), part));
        Identity {
            parts: parts.into_iter().collect(),
            steps,
        }
    }

    #[test]
    fn what_has_changed_is_named() {
        let found = identity("1", "a", 8).changes(&identity("0", "b", 8));
        let change = |key: &str, values: Option<(&str, &str)>| Change {
            key: key.to_owned(),
            values: values.map(|(was, is)| (was.to_owned(), is.to_owned())),
        };
        let wanted = [change("model", None), change("seed", Some(("0", "1")))];
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_run_becomes_longer_where_its_rates_stay() {
        let fits = |steps: u64, done: u64, schedule: Schedule| {
            let (new, old) = (identity("0", "a", steps), identity("0", "a", 8));
            let mut sink = Sink::new();
            new.check(&old, done, schedule, Path::new("c"), &mut sink)
                .is_ok()
        };
        assert!(fits(8, 8, Schedule::Linear) && fits(16, 8, Schedule::Constant));
        assert!(fits(6, 4, Schedule::Constant) && !fits(6, 8, Schedule::Constant));
        assert!(!fits(16, 4, Schedule::Linear) && !fits(16, 4, Schedule::Cosine));
    }
}
