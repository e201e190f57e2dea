//! Measures what methods start from: moments of the inputs of modules and gradients of their weights,
//! over some batches of a run's data.

use super::config::Config;
use super::errors;
use super::examples::Examples;
use super::job::{Job, one_adapter};
use super::moments::Sums;
use super::session::Wiring;
use crate::adapt;
use crate::data::{BatchOptions, Batcher};
use crate::diag::{Reported, Sink};
use crate::driver::calibration;
use crate::driver::session::{Loaded, Session};
use crate::driver::training::{GraphEntry, specialized, with_head};
use crate::files;
use crate::graph::{Graph, Tensor};
use crate::hir::Statistic;
use crate::modules::Site;
use crate::onnx;
use crate::runtime::{Library, ModelSource, NamedTensors, Session as Running};
use crate::train::{self, CalibrationGraph, Head, Probe};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is asked of a calibration besides the configuration.
#[derive(Clone, Debug)]
pub struct CalibrateOptions {
    /// The most batches; the data may have fewer.
    pub batches: NonZeroUsize,
    /// Where the file goes; the configuration's `calibration` without it.
    pub output: Option<PathBuf>,
}

/// What has been measured.
#[derive(Debug)]
pub struct Calibrated {
    pub path: PathBuf,
    pub adapter: String,
    pub modules: usize,
    pub batches: usize,
    pub examples: usize,
}

/// Measures what the adapter of a configuration starts from and writes it. `on` hears how many batches
/// are done, and of how many.
pub fn calibrate(
    config: &Config,
    options: &CalibrateOptions,
    library: &'static Library,
    session: &mut Session<'_>,
    on: &mut dyn FnMut(usize, usize),
) -> Result<Calibrated, Reported> {
    let Some(path) = options.output.as_ref().or(config.calibration.as_ref()) else {
        return Err(session.sink.emit(errors::no_place_for_calibration()));
    };
    check_place(path, session.sink)?;
    let spec = session.spec(&config.spec)?;
    let job = Job {
        config,
        spec: &spec,
        adapter: one_adapter(config.adapter.as_deref(), &spec, session)?,
    };
    let (loaded, planned) = job.load(session)?;
    let wanted = adapt::statistics(&planned.plan, &loaded.modules, |_| false);
    if wanted.is_empty() {
        let name = &job.adapter.name.node;
        return Err(session.sink.emit(errors::nothing_to_calibrate(name)));
    }
    let examples = Examples::load(config, &loaded, session)?;
    let head = job.decide(&examples, &loaded).head;
    let sink = &mut *session.sink;
    let asked = Asked::new(&wanted, &loaded);
    let graph = asked.graph(config, head.as_ref(), &loaded, sink)?;
    let mut source = Source::open(config, &graph, &examples, &loaded.path, library, sink)?;
    let batches = options.batches.get().min(source.batcher.batches()).max(1);
    let mut sums = Sums::new(&graph);
    for done in 0..batches {
        sums.add(&graph, &source.next(sink)?);
        on(done + 1, batches);
    }
    let found = asked.statistics(&graph, &sums, sink)?;
    let fingerprint = loaded.fingerprint.clone().unwrap_or_default();
    calibration::write(path, &found, &loaded.identity(&fingerprint), sink)?;
    Ok(Calibrated {
        path: path.clone(),
        adapter: planned.plan.adapter.clone(),
        modules: asked.modules.len(),
        batches,
        examples: source.examples,
    })
}

/// Measuring takes its time: that the file has a folder is known before.
fn check_place(path: &Path, sink: &mut Sink) -> Result<(), Reported> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    match folder.is_none_or(Path::is_dir) {
        true => Ok(()),
        false => Err(sink.emit(files::cannot_write(path, &ErrorKind::NotFound.into()))),
    }
}

/// What is asked of the graph.
struct Asked {
    probes: Vec<Probe>,
    modules: Vec<Module>,
}

/// A module with the numbers of its probes: one for every call.
struct Module {
    path: String,
    statistics: Vec<Statistic>,
    probes: Vec<usize>,
}

impl Asked {
    fn new(wanted: &BTreeSet<(usize, Statistic)>, loaded: &Loaded) -> Asked {
        let Loaded { model, modules, .. } = loaded;
        let mut by_site: BTreeMap<usize, Vec<Statistic>> = BTreeMap::new();
        for (site, statistic) in wanted {
            by_site.entry(*site).or_default().push(*statistic);
        }
        let mut asked = Asked {
            probes: Vec::new(),
            modules: Vec::new(),
        };
        for (site, statistics) in by_site {
            let path = &modules.sites[site].path;
            let calls = modules.sites.iter().filter(|call| call.path == *path);
            let first = asked.probes.len();
            asked
                .probes
                .extend(calls.map(|call| probe(call, &model.graph, &statistics)));
            asked.modules.push(Module {
                path: path.clone(),
                statistics,
                probes: (first..asked.probes.len()).collect(),
            });
        }
        asked
    }

    /// The base model, with a head where the loss is of one, and what is measured.
    fn graph(
        &self,
        config: &Config,
        head: Option<&Head>,
        loaded: &Loaded,
        sink: &mut Sink,
    ) -> Result<CalibrationGraph, Reported> {
        let mut recipe = config.recipe();
        let mut model = loaded.model.clone();
        let has_loss = self.probes.iter().any(|probe| probe.gradient);
        if let Some(head) = head.filter(|_| has_loss) {
            let head = train::plan_head(&model, head, &|_| false, sink)?;
            let (_, output) = with_head(&head, &mut model, config.seed, &BTreeMap::new(), sink)?;
            recipe.output = Some(output);
        }
        let flags: Vec<(String, bool)> = config.specialize.clone().into_iter().collect();
        let model = specialized(&model, &flags, sink)?;
        train::calibration_graph(&model, &self.probes, &recipe, sink)
    }

    /// What has been measured, by module.
    fn statistics(
        &self,
        graph: &CalibrationGraph,
        sums: &Sums,
        sink: &mut Sink,
    ) -> Result<Vec<(String, Statistic, Tensor)>, Reported> {
        let mut found = Vec::new();
        for module in &self.modules {
            for statistic in &module.statistics {
                let tensor = sums.statistic(*statistic, graph, &module.probes);
                let Some(tensor) = tensor else {
                    let name = statistic.name();
                    return Err(sink.emit(errors::not_measured(&module.path, name)));
                };
                found.push((module.path.clone(), *statistic, tensor));
            }
        }
        Ok(found)
    }
}

fn probe(site: &Site, graph: &Graph, statistics: &[Statistic]) -> Probe {
    // A value inside a branch or a loop has no name in the graph itself.
    let name = |id| match site.scope.0.is_empty() {
        true => graph.value(id).name.to_string(),
        false => String::new(),
    };
    let is_gradient = |statistic: &Statistic| *statistic == Statistic::WeightGradient;
    Probe {
        path: site.path.clone(),
        input: name(site.input),
        output: name(site.output),
        part: site.slice.clone(),
        inputs: !statistics.iter().all(is_gradient),
        gradient: statistics.iter().any(is_gradient),
    }
}

/// Batches through the graph.
struct Source {
    batcher: Batcher,
    wiring: Wiring,
    session: Running,
    /// How many have been seen.
    examples: usize,
}

impl Source {
    fn open(
        config: &Config,
        graph: &CalibrationGraph,
        examples: &Examples,
        model: &Path,
        library: &'static Library,
        sink: &mut Sink,
    ) -> Result<Source, Reported> {
        let entry = GraphEntry::new("the calibration".to_owned(), &graph.graph, &[]);
        let wiring = Wiring::of(&entry, &examples.train, sink)?;
        let options = BatchOptions {
            order: config.data.order.into(),
            ..BatchOptions::new(config.batch_size, config.seed)
        };
        let options = wiring.options(config.data.pack, options);
        let mut first = Batcher::new(Arc::clone(&examples.train), options.clone(), sink)?;
        wiring.check(&first.next_batch(), sink)?;
        let mut bytes = Vec::new();
        onnx::write_model(&graph.graph.model, &mut bytes)
            .map_err(|error| sink.emit(errors::internal(&error.to_string())))?;
        let folder = model
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let source = ModelSource::BytesIn {
            name: &graph.graph.model.name,
            bytes: &bytes,
            folder: folder.unwrap_or(Path::new(".")),
        };
        let running = config.engine().options();
        Ok(Source {
            session: Running::open(library, source, &running, sink)?,
            batcher: Batcher::new(Arc::clone(&examples.train), options, sink)?,
            wiring,
            examples: 0,
        })
    }

    fn next(&mut self, sink: &mut Sink) -> Result<NamedTensors, Reported> {
        let batch = self.batcher.next_batch();
        self.examples += batch.examples.len();
        self.session.run(&self.wiring.inputs(&batch), sink)
    }
}
