//! Trained adapters on held-out data, side by side and beside the model without any.

use super::config::{Config, runs_on};
use super::errors;
use super::examples::Examples;
use super::scores::{Scores, measure};
use super::session::{Wiring, open, start};
use crate::data::{BatchOptions, Batcher, Dataset};
use crate::diag::{Reported, Sink};
use crate::driver::session::{Loaded, ModelOptions, Session};
use crate::driver::training::GraphEntry;
use crate::files;
use crate::onnx;
use crate::runtime::{Library, Stateful};
use crate::train::{self, Base};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::NamedTempFile;

/// Manifests are far smaller.
const LIMIT: u64 = 1 << 30;

/// A model on a data set.
#[derive(Clone, Debug)]
pub struct Measured {
    /// `None` for the model without an adapter.
    pub adapter: Option<String>,
    /// The folder of the run that has trained it.
    pub folder: Option<PathBuf>,
    /// The files of the examples.
    pub data: Vec<PathBuf>,
    pub examples: usize,
    pub scores: Scores,
}

/// Measures the adapters that configurations have trained, each on the held-out examples of each, and
/// the model without an adapter. A model with a head of its own is measured on its own examples alone,
/// and has no form without an adapter.
pub fn evaluate(
    configs: &[Config],
    library: &'static Library,
    session: &mut Session<'_>,
    on: &mut dyn FnMut(&Measured),
) -> Result<Vec<Measured>, Reported> {
    comparable(configs, session.sink)?;
    let trained: Result<Vec<Trained>, Reported> = configs
        .iter()
        .map(|config| Trained::read(config, session.sink))
        .collect();
    let trained = trained?;
    let mut all = Vec::new();
    for (at, config) in configs.iter().enumerate() {
        let data = HeldOut::load(config, session)?;
        let mut measured = |trained: Option<&Trained>, scores: Scores| {
            let measured = Measured {
                adapter: trained.map(|trained| trained.adapter.clone()),
                folder: trained.map(|trained| trained.folder.clone()),
                data: data.files.clone(),
                examples: data.examples.examples().len(),
                scores,
            };
            on(&measured);
            all.push(measured);
        };
        if config.head.is_none() {
            let scores = base(config, &data, library, session.sink)?;
            measured(None, scores);
        }
        for (other, trained) in trained.iter().enumerate() {
            let has_head = config.head.is_some() || configs[other].head.is_some();
            if other == at || !has_head {
                let scores = trained.scores(config, &data, library, session.sink)?;
                measured(Some(trained), scores);
            }
        }
    }
    Ok(all)
}

/// Whether configurations can be measured on the same data, and by the same providers; asks no library.
pub fn comparable(configs: &[Config], sink: &mut Sink) -> Result<(), Reported> {
    for config in configs {
        if config.data.eval.is_none() {
            sink.emit(errors::nothing_held_out(&config.spec));
        }
    }
    if let Some((first, others)) = configs.split_first() {
        let same = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        for other in others {
            if same(&other.model) != same(&first.model) {
                sink.emit(errors::not_comparable("models"));
            } else if other.task != first.task {
                sink.emit(errors::not_comparable("tasks"));
            }
        }
    }
    // Every adapter is measured by the provider of every configuration.
    let bases = configs.iter().map(|config| Base::from(config.base));
    let unmeasured = bases.into_iter().find(|base| {
        let mut providers = configs.iter().map(|config| config.provider);
        providers.any(|provider| !runs_on(*base, provider))
    });
    if let Some(base) = unmeasured {
        sink.emit(errors::base_without_kernels(base, "base: ", None));
    }
    sink.failed()
}

/// The held-out examples of a configuration, and its model.
struct HeldOut {
    loaded: Loaded,
    files: Vec<PathBuf>,
    examples: Arc<Dataset>,
}

impl HeldOut {
    fn load(config: &Config, session: &mut Session<'_>) -> Result<HeldOut, Reported> {
        let loaded = session.model(&config.model, &ModelOptions::default())?;
        let examples = Examples::load(config, &loaded, session)?.held_out;
        let files = config.data.eval.iter().flat_map(|files| files.paths());
        match examples {
            Some(examples) => Ok(HeldOut {
                loaded,
                files: files.cloned().collect(),
                examples,
            }),
            None => Err(session.sink.emit(errors::nothing_held_out(&config.spec))),
        }
    }

    /// `of` says what is measured.
    fn scores(
        &self,
        config: &Config,
        (eval, of): (&mut Stateful, &str),
        wiring: &Wiring,
        sink: &mut Sink,
    ) -> Result<Scores, Reported> {
        let options = BatchOptions::in_order(config.batch_size);
        // Examples of a row would see each other.
        let options = wiring.options(None, options);
        let mut batcher = || Batcher::new(Arc::clone(&self.examples), options.clone(), sink);
        let (mut first, mut batches) = (batcher()?, batcher()?);
        wiring.check(&first.next_batch(), sink)?;
        let measured = measure(eval, wiring, &mut batches, sink)?;
        if let Some(warning) = measured.warning(of, &self.examples) {
            sink.warn(warning);
        }
        Ok(measured.scores)
    }
}

/// What a run has left in its folder.
struct Trained {
    adapter: String,
    folder: PathBuf,
    weights: PathBuf,
    eval: GraphEntry,
}

impl Trained {
    fn read(config: &Config, sink: &mut Sink) -> Result<Trained, Reported> {
        let folder = &config.output;
        let path = folder.join("manifest.json");
        if !path.exists() {
            return Err(sink.emit(errors::not_trained(&config.output)));
        }
        let text = files::read_text(&path, LIMIT, sink)?;
        let found = serde_json::from_str::<Value>(&text).ok();
        let trained = found.and_then(|manifest| {
            Some(Trained {
                adapter: manifest["adapter"].as_str()?.to_owned(),
                folder: folder.clone(),
                weights: folder.join(manifest["files"]["weights"].as_str()?),
                eval: GraphEntry::read(&manifest["graphs"]["eval"])?,
            })
        });
        trained.ok_or_else(|| sink.emit(errors::not_trained(&config.output)))
    }

    fn scores(
        &self,
        config: &Config,
        data: &HeldOut,
        library: &'static Library,
        sink: &mut Sink,
    ) -> Result<Scores, Reported> {
        let wiring = Wiring::of(&self.eval, &data.examples, sink)?;
        let mut eval = open(
            &self.folder,
            &self.eval,
            config.engine().measuring(),
            library,
            sink,
        )?;
        start(&mut eval, &wiring.carried, &self.weights, sink)?;
        let of = format!("with `{}`", self.adapter);
        data.scores(config, (&mut eval, &of), &wiring, sink)
    }
}

/// The model without an adapter. Its graph lies for so long in the folder of the run, where the model's
/// external data lies, too.
fn base(
    config: &Config,
    data: &HeldOut,
    library: &'static Library,
    sink: &mut Sink,
) -> Result<Scores, Reported> {
    let graph = train::eval_graph(&data.loaded.model, &[], &config.recipe(), sink)?;
    let folder = &config.output;
    let make = || files::temporary().tempfile_in(folder);
    let made = files::unfinished(make, NamedTempFile::path);
    let (file, _unfinished) =
        made.map_err(|error| sink.emit(files::cannot_write(folder, &error)))?;
    onnx::save(&graph.model, file.path(), sink)?;
    let name = file.path().file_name().unwrap_or_default();
    let entry = GraphEntry::new(name.to_string_lossy().into_owned(), &graph, &[]);
    let wiring = Wiring::of(&entry, &data.examples, sink)?;
    let mut eval = open(folder, &entry, config.engine().measuring(), library, sink)?;
    data.scores(config, (&mut eval, "without adapter"), &wiring, sink)
}
