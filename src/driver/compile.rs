//! Writes the artifacts of a planned adapter.

use super::artifacts::{Destination, Names, copy_data, external_files, file_name, write_all};
use super::calibration;
use super::fingerprint::{Depth, fingerprint};
use super::manifest::{
    self, BaseEntry, Files, HeadEntry, LayersEntry, Manifest, ReadEntry, Setting, SpecEntry,
    TrainingEntry,
};
use super::session::{Loaded, Planned, Session, Spec};
use super::training::{
    BaseData, GraphEntry, brought, rounded, share, specialized, trained, with_head,
};
use super::values::{started_values, trained_values};
use crate::adapt::{self, Hooks, Plan, Starts};
use crate::diag::{Reported, Sink};
use crate::files::{self, Staging};
use crate::graph::{Model, Tensor};
use crate::onnx;
use crate::train::{
    self, Base, Estimate, Graphs, Head, Parameter, PlannedHead, Recipe, TrainingGraph, Trains,
};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How to compile.
#[derive(Clone, Debug)]
pub struct CompileOptions {
    pub destination: Destination,
    /// Seed of random start values.
    pub seed: u64,
    /// How much of the weights the fingerprint covers.
    pub depth: Depth,
    pub settings: adapt::Settings,
    /// A trained adapter whose tensors replace the start values.
    pub values: Option<PathBuf>,
    /// Tensors that start as in this file, where no trained adapter is given; the others start as
    /// their method says.
    pub start: Option<PathBuf>,
    /// What `peftc calibrate` has measured, for start values from data.
    pub calibration: Option<PathBuf>,
    /// What stands on the adapted model.
    pub head: Option<Head>,
    /// Write training graphs, too.
    pub training: Option<Recipe>,
    /// Names of the classes of what is learned, by number, where they have names.
    pub classes: Vec<String>,
    /// Inputs of one truth value that have this value in training graphs.
    pub flags: Vec<(String, bool)>,
    /// Hears of start values that take time.
    pub progress: Progress,
}

/// Who hears how many modules have their start values, and of how many.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<dyn Fn(usize, usize)>>);

impl Progress {
    pub fn new(hear: impl Fn(usize, usize) + 'static) -> Progress {
        Progress(Some(Arc::new(hear)))
    }

    pub(super) fn tell(&self, done: usize, of: usize) {
        if let Some(hear) = &self.0 {
            hear(done, of);
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}

/// What has been written.
#[derive(Debug)]
pub struct Artifacts {
    pub model: PathBuf,
    pub weights: PathBuf,
    pub manifest_path: PathBuf,
    /// The training graphs.
    pub graphs: Vec<PathBuf>,
    pub manifest: Manifest,
    /// Copied external data with sizes in bytes.
    pub copied: Vec<(PathBuf, u64)>,
    /// What training takes of memory.
    pub estimate: Option<Estimate>,
}

/// Applies a plan to its model and writes everything. The loaded model is changed in place: it is of
/// no use for another plan.
pub fn compile(
    session: &mut Session<'_>,
    spec: &Spec,
    loaded: &mut Loaded,
    planned: &Planned,
    options: &CompileOptions,
) -> Result<Artifacts, Reported> {
    compile_over(session, spec, loaded, planned, options, None)
}

/// [`compile`] into the folder of earlier artifacts of the same plan and model, with other values of
/// the adapter: what does not depend on these stays as it is, training graphs and external data.
pub fn deploy(
    session: &mut Session<'_>,
    spec: &Spec,
    loaded: &mut Loaded,
    planned: &Planned,
    options: &CompileOptions,
    earlier: Artifacts,
) -> Result<Artifacts, Reported> {
    let options = CompileOptions {
        training: None,
        ..options.clone()
    };
    compile_over(session, spec, loaded, planned, &options, Some(earlier))
}

fn compile_over(
    session: &mut Session<'_>,
    spec: &Spec,
    loaded: &mut Loaded,
    planned: &Planned,
    options: &CompileOptions,
    earlier: Option<Artifacts>,
) -> Result<Artifacts, Reported> {
    let sink = &mut *session.sink;
    let base = match (options.depth, loaded.fingerprint.take()) {
        (Depth::Sampled, Some(taken)) => taken,
        _ => fingerprint(loaded.base(), &loaded.weights, options.depth, sink)?,
    };
    let calibration = match &options.calibration {
        Some(path) => Some(calibration::read(
            path,
            &sampled(loaded, &base, options, sink)?,
            sink,
        )?),
        None => None,
    };
    let base_elements = adapt::base_parameters(&loaded.model);
    let sites = manifest::sites(planned, loaded);
    let layers = loaded.layers().map(LayersEntry::new);
    let Loaded {
        model,
        modules,
        weights,
        path,
        ..
    } = loaded;
    let reader = |tensor: &Tensor, sink: &mut Sink| weights.read(tensor, sink);
    let head = match &options.head {
        Some(head) => Some(plan_head(&planned.plan, model, head, sink)?),
        None => None,
    };
    let values = match (&options.values, &options.start) {
        (Some(path), _) => trained_values(&planned.plan, head.as_ref(), path, sink)?,
        (None, Some(path)) => started_values(&planned.plan, head.as_ref(), path, sink)?,
        (None, None) => BTreeMap::new(),
    };
    let seed = options.seed;
    let plan = &planned.plan;
    let starts = Starts {
        calibration: calibration.as_ref().map(|read| &read.calibration),
        progress: &|done, of| options.progress.tell(done, of),
        ..Starts::new(seed, &reader, &values)
    };
    let adapted = adapt::apply(plan, model, modules, &starts, sink)?;
    let trains = options
        .head
        .as_ref()
        .map(|head| head.trains)
        .unwrap_or_default();
    let hooks = match trains {
        Trains::HeadAndAdapter => Hooks::new(plan, modules, &adapted.tensors),
        // The adapter stays as it is.
        Trains::HeadAlone => Hooks::default(),
    };
    let mut tensors = brought(planned, adapted, trains);
    let mut recipe = options.training.clone();
    let mut head_output = None;
    if let Some(head) = &head {
        let (more, output) = with_head(head, model, seed, &values, sink)?;
        tensors.extend(more);
        if let Some(recipe) = &mut recipe {
            recipe.output = Some(output.clone());
        }
        head_output = Some(output);
    }
    let rates = recipe.as_ref().map_or(&[][..], |recipe| &recipe.rates);
    let trained = trained(&tensors, rates, sink)?;
    let names = Names::new(path, &planned.plan.adapter, &options.destination);
    let data = external_files(&model.graph);
    names.check_base(path, &data, sink)?;
    let staging = Staging::new(&names.folder, sink)?;
    let mut base_data = None;
    let mut estimate = None;
    let training = match &recipe {
        None => None,
        Some(recipe) => {
            let location = names.base_data(recipe.base);
            let data = base_data.insert(BaseData::create(location, &staging, sink)?);
            let mut model = specialized(model, &options.flags, sink)?;
            if recipe.base != Base::Own {
                let mut keep = |bytes: &[u8], sink: &mut Sink| data.keep(bytes, sink);
                let rounding = train::Rounding::Written(&reader, &mut keep);
                let rounded = rounded(&model, recipe.base, &tensors, rounding, sink)?;
                model = Cow::Owned(rounded);
            }
            let mut graphs = train::graphs(&model, &trained, &hooks, recipe, sink)?;
            estimate = Some(graphs.estimate.clone());
            share(&mut graphs, data, sink)?;
            Some(graphs)
        }
    };
    let base_data = match base_data {
        Some(data) => data.finish(sink)?,
        None => None,
    };
    let graphs = Named::of(training.as_ref(), &names);
    let copied = match &options.destination {
        _ if earlier.is_some() => Vec::new(),
        Destination::Beside => Vec::new(),
        Destination::Folder(folder) => copy_data(&data, path, folder, &staging, sink)?,
    };
    let text = session.sources.text(spec.file).clone();
    let entries = graphs
        .iter()
        .map(|named| (named.name, named.entry(&trained)));
    let entry = recipe
        .as_ref()
        .zip(training.as_ref())
        .map(|(recipe, graphs)| {
            let data = base_data.clone();
            TrainingEntry::new(
                recipe,
                &options.classes,
                data,
                (graphs.recomputes, graphs.pieces),
            )
        });
    let paths = graphs.iter().map(|named| names.folder.join(&named.file));
    let (training, entries, paths, estimate) = match earlier {
        Some(earlier) => {
            let Manifest {
                training, graphs, ..
            } = earlier.manifest;
            (training, graphs, earlier.graphs, earlier.estimate)
        }
        None => (entry, entries.collect(), paths.collect(), estimate),
    };
    let manifest = Manifest {
        schema_version: manifest::SCHEMA_VERSION,
        compiler: format!("peftc {}", env!("CARGO_PKG_VERSION")),
        adapter: planned.plan.adapter.clone(),
        spec: SpecEntry {
            name: file_name(&spec.path),
            digest: format!("blake3:{}", blake3::hash(text.as_bytes()).to_hex()),
        },
        base: BaseEntry {
            name: model.name.clone(),
            fingerprint: base,
            ir_version: model.ir_version,
            opsets: manifest::opsets(model),
        },
        layers,
        files: Files {
            model: names.model.clone(),
            weights: names.weights.clone(),
            data: data.into_iter().collect(),
        },
        seed: options.seed,
        settings: options
            .settings
            .iter()
            .map(|(name, value)| Setting {
                name: name.clone(),
                value: value.clone(),
            })
            .collect(),
        calibration: options
            .calibration
            .as_ref()
            .zip(calibration)
            .map(|(path, read)| ReadEntry {
                name: file_name(path),
                digest: read.digest,
            }),
        start: match &options.start {
            Some(path) => Some(start_entry(path, sink)?),
            None => None,
        },
        sites,
        parameters: manifest::parameters(&tensors),
        counts: manifest::counts(&tensors, planned, modules, base_elements),
        expectations: manifest::expectations(planned),
        head: options
            .head
            .as_ref()
            .zip(head_output)
            .map(|(head, output)| HeadEntry::new(head, output)),
        training,
        graphs: entries,
    };
    for named in &graphs {
        onnx::save(&named.graph.model, &staging.path(&named.file), sink)?;
    }
    write_all(model, tensors, &manifest, &names, &staging, sink)?;
    // The manifest comes last: where it is, the others are complete.
    let mut order: Vec<String> = copied
        .iter()
        .map(|(location, _)| location.clone())
        .collect();
    order.extend(base_data);
    order.extend(graphs.iter().map(|named| named.file.clone()));
    order.extend([&names.model, &names.weights, &names.manifest].map(Clone::clone));
    staging.publish(&order, sink)?;
    let place = |name: &String| names.folder.join(name);
    Ok(Artifacts {
        model: place(&names.model),
        weights: place(&names.weights),
        manifest_path: place(&names.manifest),
        graphs: paths,
        manifest,
        estimate,
        copied: copied
            .iter()
            .map(|(name, size)| (place(name), *size))
            .collect(),
    })
}

/// What calibrations know their model by: the fingerprint of samples, and the layers.
fn sampled(
    loaded: &Loaded,
    base: &str,
    options: &CompileOptions,
    sink: &mut Sink,
) -> Result<String, Reported> {
    match options.depth {
        Depth::Sampled => Ok(loaded.identity(base)),
        Depth::Full => {
            let sampled = fingerprint(loaded.base(), &loaded.weights, Depth::Sampled, sink)?;
            Ok(loaded.identity(&sampled))
        }
    }
}

/// A training graph and its file.
struct Named<'g> {
    name: &'static str,
    file: String,
    graph: &'g TrainingGraph,
}

impl<'g> Named<'g> {
    fn of(graphs: Option<&'g Graphs>, names: &Names) -> Vec<Named<'g>> {
        let Some(graphs) = graphs else {
            return Vec::new();
        };
        let all = [
            ("step", &graphs.step),
            ("grad", &graphs.grad),
            ("update", &graphs.update),
            ("eval", &graphs.eval),
        ];
        all.map(|(name, graph)| Named {
            name,
            file: names.graph(name),
            graph,
        })
        .into()
    }

    fn entry(&self, trained: &[Parameter]) -> GraphEntry {
        GraphEntry::new(self.file.clone(), self.graph, trained)
    }
}

/// A head under a name that no module of the plan has.
fn plan_head(
    plan: &Plan,
    model: &Model,
    head: &Head,
    sink: &mut Sink,
) -> Result<PlannedHead, Reported> {
    let taken = |name: &str| {
        let inside = format!("{name}.");
        plan.parameters.iter().any(|p| p.name.starts_with(&inside))
    };
    train::plan_head(model, head, &taken, sink)
}

/// What the manifest says of a file that start values come from.
fn start_entry(path: &Path, sink: &mut Sink) -> Result<ReadEntry, Reported> {
    let bytes = files::map(path).map_err(|error| sink.emit(files::cannot_read(path, &error)))?;
    Ok(ReadEntry {
        name: file_name(path),
        digest: format!("blake3:{}", blake3::hash(&bytes).to_hex()),
    })
}
