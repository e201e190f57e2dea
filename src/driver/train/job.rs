//! What is compiled for a run: before it with start values, behind it with trained ones.

use super::config::Config;
use super::errors;
use super::examples::{Examples, head};
use crate::diag::Reported;
use crate::driver::artifacts::Destination;
use crate::driver::compile::{Artifacts, CompileOptions, Progress, compile, deploy};
use crate::driver::session::{Loaded, ModelOptions, Planned, Session, Spec};
use crate::driver::{Depth, PlanOptions};
use crate::hir::Adapter;
use crate::train::Head;
use std::path::PathBuf;

/// A configuration with its spec.
pub(super) struct Job<'s> {
    pub config: &'s Config,
    pub spec: &'s Spec,
    pub adapter: &'s Adapter,
}

/// What examples decide about the model.
#[derive(Clone, Debug)]
pub(super) struct Decided {
    pub head: Option<Head>,
    /// Names of the classes, by number.
    pub classes: Vec<String>,
    /// Of the longest row of a batch.
    pub tokens: usize,
}

impl Job<'_> {
    /// Reads the model and plans the adapter.
    pub fn load(&self, session: &mut Session<'_>) -> Result<(Loaded, Planned), Reported> {
        let options = ModelOptions {
            fingerprint: true,
            roles: self.adapter.asks_for_roles(),
            ..ModelOptions::default()
        };
        let loaded = session.model(&self.config.model, &options)?;
        let plan_options = PlanOptions {
            settings: self.config.settings(),
        };
        let (loaded, planned) = session.plan(self.spec, self.adapter, loaded, &plan_options)?;
        session.sink.failed()?;
        Ok((loaded.into_owned(), planned))
    }

    pub fn decide(&self, examples: &Examples, loaded: &Loaded) -> Decided {
        Decided {
            head: head(self.config, examples, loaded),
            classes: examples.class_names(),
            tokens: match self.config.data.pack {
                Some(tokens) => tokens.get(),
                None => examples.longest(),
            },
        }
    }

    /// Writes everything, with start values.
    pub fn compile(
        &self,
        (mut loaded, planned): (Loaded, Planned),
        decided: &Decided,
        progress: Progress,
        session: &mut Session<'_>,
    ) -> Result<Artifacts, Reported> {
        let options = CompileOptions {
            progress,
            ..self.options(decided, None)
        };
        compile(session, self.spec, &mut loaded, &planned, &options)
    }

    /// Writes the model again, with the values of a trained adapter.
    pub fn deploy(
        &self,
        (mut loaded, planned): (Loaded, Planned),
        decided: &Decided,
        values: PathBuf,
        earlier: Artifacts,
        session: &mut Session<'_>,
    ) -> Result<Artifacts, Reported> {
        let options = self.options(decided, Some(values));
        deploy(session, self.spec, &mut loaded, &planned, &options, earlier)
    }

    fn options(&self, decided: &Decided, values: Option<PathBuf>) -> CompileOptions {
        let config = self.config;
        let mut recipe = config.recipe();
        recipe.memory.batch.tokens = decided.tokens;
        CompileOptions {
            destination: Destination::Folder(config.output.clone()),
            seed: config.seed,
            depth: Depth::Sampled,
            settings: config.settings(),
            values,
            start: config.start.clone(),
            calibration: config.calibration.clone(),
            head: decided.head.clone(),
            training: Some(recipe),
            classes: decided.classes.clone(),
            flags: config.specialize.clone().into_iter().collect(),
            progress: Progress::default(),
        }
    }
}

/// The adapter that is meant: the named one, or the only one.
pub(super) fn one_adapter<'s>(
    name: Option<&str>,
    spec: &'s Spec,
    session: &mut Session<'_>,
) -> Result<&'s Adapter, Reported> {
    let wanted: Vec<String> = name.map(str::to_owned).into_iter().collect();
    let adapters = session.adapters(spec, &wanted)?;
    match adapters.as_slice() {
        [one] => Ok(one),
        several => {
            let names: Vec<&str> = several.iter().map(|a| a.name.node.as_str()).collect();
            Err(session.sink.emit(errors::several_adapters(&names)))
        }
    }
}
