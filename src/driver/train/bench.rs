//! Steps of training on random batches of one shape, for whoever times them.

use super::config::runs_on;
use super::errors;
use super::job::one_adapter;
use super::session::{Engine, Wiring, open, start};
use crate::diag::{Reported, Sink};
use crate::driver::PlanOptions;
use crate::driver::artifacts::Destination;
use crate::driver::compile::{CompileOptions, Progress, compile};
use crate::driver::session::{ModelOptions, Session};
use crate::driver::training::PortEntry;
use crate::driver::{Depth, Recipe};
use crate::files;
use crate::graph::Model;
use crate::modules::SiteKind;
use crate::runtime::{HostTensor, Library, NamedTensors, Profile, Stateful};
use crate::ty::DType;
use std::num::NonZeroUsize;
use std::path::Path;
use tempfile::TempDir;

/// What is timed.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// Which adapter of the spec; not needed if it has one.
    pub adapter: Option<String>,
    /// Hyper-parameters that win over the spec.
    pub settings: Vec<(String, String)>,
    pub recipe: Recipe,
    /// Rows of a batch, and tokens of a row.
    pub rows: NonZeroUsize,
    pub length: NonZeroUsize,
    pub engine: Engine,
}

impl BenchOptions {
    /// Whether the provider has the products of the base; asks no library.
    pub fn check(&self, sink: &mut Sink) -> Result<(), Reported> {
        let base = self.recipe.base;
        match runs_on(base, self.engine.provider) {
            true => Ok(()),
            false => Err(sink.emit(errors::base_without_kernels(base, "--base ", None))),
        }
    }
}

/// A compiled adapter that is trained on one batch again and again. What it learns is of no use.
pub struct Bench {
    step: Stateful,
    inputs: NamedTensors,
    done: u64,
    /// What was written for it; goes with it.
    _folder: TempDir,
    _unfinished: files::Unfinished,
}

/// The last size of the model's first output.
fn classes(model: &Model) -> Option<usize> {
    let output = model.graph.outputs().first()?;
    let shape = model.graph.value(*output).ty.as_ref()?.shape.as_ref()?;
    usize::try_from(shape.0.last()?.known()?).ok()
}

/// Values below these are valid ids and valid classes.
struct Bounds {
    ids: i64,
    classes: i64,
}

impl Bench {
    pub fn new(
        spec: &Path,
        model: &Path,
        model_options: ModelOptions,
        options: &BenchOptions,
        library: &'static Library,
        session: &mut Session<'_>,
    ) -> Result<Bench, Reported> {
        options.check(session.sink)?;
        let make = || tempfile::Builder::new().prefix("peftc-bench-").tempdir();
        let (folder, unfinished) = files::unfinished(make, TempDir::path).map_err(|error| {
            let place = std::env::temp_dir();
            session.sink.emit(files::cannot_write(&place, &error))
        })?;
        let spec = session.spec(spec)?;
        let adapter = one_adapter(options.adapter.as_deref(), &spec, session)?;
        let model_options = ModelOptions {
            roles: adapter.asks_for_roles(),
            ..model_options
        };
        let loaded = session.model(model, &model_options)?;
        let plan_options = PlanOptions {
            settings: options.settings.clone(),
        };
        let (loaded, planned) = session.plan(&spec, adapter, loaded, &plan_options)?;
        let mut loaded = loaded.into_owned();
        session.sink.failed()?;
        let embeddings = loaded.modules.sites.iter();
        let tables = embeddings.filter(|site| site.kind == SiteKind::Embedding);
        let bounds = Bounds {
            // The table of tokens is the largest; those of positions and types get no ids from here.
            ids: tables.map(|site| site.in_features).max().unwrap_or(1),
            classes: classes(&loaded.model).map_or(1, |classes| classes as i64),
        };
        let compile_options = CompileOptions {
            destination: Destination::Folder(folder.path().to_owned()),
            seed: 0,
            depth: Depth::Sampled,
            settings: options.settings.clone(),
            values: None,
            start: None,
            calibration: None,
            head: None,
            classes: Vec::new(),
            training: Some(options.recipe.clone()),
            flags: Vec::new(),
            progress: Progress::default(),
        };
        let artifacts = compile(session, &spec, &mut loaded, &planned, &compile_options)?;
        let entry = &artifacts.manifest.graphs["step"];
        let mut step = open(folder.path(), entry, options.engine, library, session.sink)?;
        let wiring = Wiring::carried_by(entry);
        start(&mut step, &wiring, &artifacts.weights, session.sink)?;
        let ports = entry.inputs.iter();
        let ports = ports.filter(|port| matches!(port.role, "input" | "labels"));
        let inputs = ports.map(|port| (port.name.clone(), random(port, options, &bounds)));
        let mut inputs = NamedTensors(inputs.collect());
        for port in &entry.inputs {
            match port.role {
                "learning_rate" => inputs.push(&port.name, HostTensor::from_f32(&[], &[1e-4])),
                "seed" => inputs.push(&port.name, HostTensor::from_i64(&[], &[0])),
                _ => {}
            }
        }
        Ok(Bench {
            step,
            inputs,
            done: 0,
            _folder: folder,
            _unfinished: unfinished,
        })
    }

    /// One step: forward, backward and update. Answers with the loss.
    pub fn step(&mut self, sink: &mut Sink) -> Result<f64, Reported> {
        self.done += 1;
        let mut inputs = NamedTensors(self.inputs.0.clone());
        inputs.push("step", HostTensor::from_i64(&[], &[self.done as i64]));
        let found = self.step.run(&inputs, sink)?;
        Ok(super::scores::number(&found, "loss"))
    }

    /// How many steps were done.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Where the time of all steps went, if the engine records it; nothing the second time.
    pub fn profile(&mut self, sink: &mut Sink) -> Result<Option<Profile>, Reported> {
        self.step.profile(sink)
    }
}

/// A tensor for an input of the model or its labels: the same for the same name and shape. The first
/// symbolic size is that of rows, the others are those of tokens.
fn random(port: &PortEntry, options: &BenchOptions, bounds: &Bounds) -> HostTensor {
    let mut symbolic = [options.rows, options.length].into_iter();
    let sizes = port.shape.iter();
    let dims: Vec<i64> = sizes
        .map(|size| {
            size.as_i64().unwrap_or_else(|| {
                let next = symbolic.next().unwrap_or(options.length);
                next.get() as i64
            })
        })
        .collect();
    let count = dims.iter().product::<i64>().max(0) as u64;
    let length = options.length.get() as u64;
    // Fibonacci hashing spreads neighbours over the whole range.
    let spread = |index: u64| (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    if port.dtype == DType::F32.name() {
        let unit = |index: u64| spread(index) as f32 / (1_u64 << 30) as f32 - 1.0;
        let values: Vec<f32> = (0..count).map(unit).collect();
        return HostTensor::from_f32(&dims, &values);
    }
    let value = |index: u64| match (port.role, port.name.as_str()) {
        ("labels", _) => (spread(index) % bounds.classes.max(1) as u64) as i64,
        (_, "attention_mask") => 1,
        (_, "position_ids") => (index % length) as i64,
        (_, "token_type_ids") => 0,
        _ => (spread(index) % bounds.ids.max(1) as u64) as i64,
    };
    let values: Vec<i64> = (0..count).map(value).collect();
    HostTensor::from_i64(&dims, &values)
}
