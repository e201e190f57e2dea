//! Writes the artifacts of a planned adapter.

use super::calibration;
use super::errors;
use super::fingerprint::{Depth, fingerprint};
use super::manifest::{
    self, BaseEntry, Files, HeadEntry, LayersEntry, Manifest, ReadEntry, Setting, SpecEntry,
    TrainingEntry,
};
use super::session::{Loaded, Planned, Session, Spec};
use super::training::{
    BaseData, Brought, GraphEntry, brought, rounded, share, specialized, tensor_name, trained,
    with_head,
};
use crate::adapt::{self, Hooks, Plan, Starts};
use crate::diag::{Reported, Sink};
use crate::files::{self, Staging};
use crate::graph::{Graph, Model, Tensor, TensorData};
use crate::onnx;
use crate::train::{
    self, Base, Estimate, Graphs, Head, Parameter, PlannedHead, Recipe, TrainingGraph, Trains,
};
use crate::ty::DType;
use crate::weights::{NamedTensor, read_tensors, write_tensors};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where artifacts go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Beside the model, as `<model>.<adapter>.onnx` and so on; external data is shared.
    Beside,
    /// Into a folder, as `model.onnx`, `adapter.safetensors` and `manifest.json`; external data is
    /// copied, unless it is the model's own folder.
    Folder(PathBuf),
}

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
                let rounded = rounded(&model, recipe.base, &tensors, data, &reader, sink)?;
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

/// The tensors of an adapter file: exactly those of the plan and of the head, in f32.
pub fn trained_values(
    plan: &Plan,
    head: Option<&PlannedHead>,
    path: &Path,
    sink: &mut Sink,
) -> Result<BTreeMap<String, Tensor>, Reported> {
    let (values, missing) = given_values(plan, head, path, sink)?;
    for name in missing {
        sink.emit(errors::missing_tensor(path, &name));
    }
    sink.failed()?;
    Ok(values)
}

/// Some tensors of an adapter, in f32, which the others do without.
fn started_values(
    plan: &Plan,
    head: Option<&PlannedHead>,
    path: &Path,
    sink: &mut Sink,
) -> Result<BTreeMap<String, Tensor>, Reported> {
    let (values, _) = given_values(plan, head, path, sink)?;
    sink.failed()?;
    Ok(values)
}

/// The tensors of an adapter that a file has, each of the adapter's shape, and the names of those that
/// it lacks.
fn given_values(
    plan: &Plan,
    head: Option<&PlannedHead>,
    path: &Path,
    sink: &mut Sink,
) -> Result<(BTreeMap<String, Tensor>, Vec<String>), Reported> {
    let mut wanted: Vec<(String, Vec<i64>)> = Vec::new();
    wanted.extend(
        plan.parameters
            .iter()
            .map(|p| (p.name.clone(), p.dims.clone())),
    );
    if let Some(head) = head {
        let parameters = head.parameters().into_iter();
        wanted.extend(parameters.map(|(name, dims)| (tensor_name(head, name), dims)));
    }
    let mut values = BTreeMap::new();
    let mut given = BTreeSet::new();
    for tensor in read_tensors(path, sink)? {
        given.insert(tensor.name.clone());
        let Some((_, dims)) = wanted.iter().find(|(name, _)| *name == tensor.name) else {
            let known = wanted.iter().map(|(name, _)| name.as_str());
            sink.emit(errors::unknown_tensor(path, &tensor.name, known));
            continue;
        };
        if tensor.dims != *dims || tensor.dtype != DType::F32 {
            sink.emit(errors::tensor_does_not_fit(
                path,
                &tensor.name,
                tensor.dtype,
                &tensor.dims,
                dims,
            ));
            continue;
        }
        values.insert(
            tensor.name,
            Tensor::from_raw(tensor.dtype, &tensor.dims, tensor.data),
        );
    }
    let missing = wanted.into_iter().map(|(name, _)| name);
    let missing = missing.filter(|name| !given.contains(name)).collect();
    Ok((values, missing))
}

/// What the manifest says of a file that start values come from.
fn start_entry(path: &Path, sink: &mut Sink) -> Result<ReadEntry, Reported> {
    let bytes = files::map(path).map_err(|error| sink.emit(files::cannot_read(path, &error)))?;
    Ok(ReadEntry {
        name: file_name(path),
        digest: format!("blake3:{}", blake3::hash(&bytes).to_hex()),
    })
}

/// The folder of the artifacts and their names in it.
struct Names {
    folder: PathBuf,
    model: String,
    weights: String,
    manifest: String,
}

impl Names {
    fn new(model: &Path, adapter: &str, destination: &Destination) -> Self {
        match destination {
            Destination::Folder(folder) => Names {
                folder: folder.clone(),
                model: "model.onnx".to_owned(),
                weights: "adapter.safetensors".to_owned(),
                manifest: "manifest.json".to_owned(),
            },
            Destination::Beside => {
                let stem = model
                    .file_stem()
                    .map_or_else(String::new, |s| s.to_string_lossy().into_owned());
                let name = |suffix: &str| format!("{stem}.{adapter}.{suffix}");
                Names {
                    folder: model.parent().unwrap_or(Path::new("")).to_owned(),
                    model: name("onnx"),
                    weights: name("safetensors"),
                    manifest: name("manifest.json"),
                }
            }
        }
    }
}

impl Names {
    /// The file of a training graph: `step.onnx` in a folder, `<model>.<adapter>.step.onnx` beside
    /// the model.
    fn graph(&self, name: &str) -> String {
        match self.model.strip_suffix(".onnx") {
            Some("model") | None => format!("{name}.onnx"),
            Some(stem) => format!("{stem}.{name}.onnx"),
        }
    }

    /// The file of the frozen weights of training graphs.
    fn base_data(&self, base: Base) -> String {
        let own = match base {
            Base::Own => "base.data".to_owned(),
            rounded => format!("base.{}.data", rounded.name()),
        };
        match self.model.strip_suffix(".onnx") {
            Some("model") | None => own,
            Some(stem) => format!("{stem}.{own}"),
        }
    }

    /// An artifact never takes the place of the model that it was made from.
    fn check_base(
        &self,
        model: &Path,
        data: &BTreeSet<String>,
        sink: &mut Sink,
    ) -> Result<(), Reported> {
        let beside = model.parent().unwrap_or(Path::new(""));
        let data = data.iter().map(|location| beside.join(location));
        let base: BTreeSet<PathBuf> = std::iter::once(model.to_owned())
            .chain(data)
            .filter_map(|path| path.canonicalize().ok())
            .collect();
        for name in [&self.model, &self.weights, &self.manifest] {
            let target = self.folder.join(name);
            if target.canonicalize().is_ok_and(|real| base.contains(&real)) {
                return Err(sink.emit(errors::target_is_base(&target)));
            }
        }
        Ok(())
    }
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Writes the model on a thread of its own while the adapter and the manifest are written.
fn write_all(
    model: &Model,
    tensors: Vec<Brought>,
    manifest: &Manifest,
    names: &Names,
    staging: &Staging,
    sink: &mut Sink,
) -> Result<(), Reported> {
    let save = || {
        let mut sink = Sink::new();
        onnx::save(model, &staging.path(&names.model), &mut sink)
            .map_err(|_| sink.diagnostics().to_vec())
    };
    let (model, adapter) = std::thread::scope(|scope| {
        let model = scope.spawn(save);
        let adapter = write_adapter(tensors, manifest, names, staging, sink);
        (model.join().expect("writing does not panic"), adapter)
    });
    for fault in model.err().into_iter().flatten() {
        sink.emit(fault);
    }
    adapter.and_then(|()| sink.failed())
}

fn write_adapter(
    tensors: Vec<Brought>,
    manifest: &Manifest,
    names: &Names,
    staging: &Staging,
    sink: &mut Sink,
) -> Result<(), Reported> {
    let tensors: Vec<NamedTensor> = tensors
        .into_iter()
        .map(|t| NamedTensor {
            name: t.name,
            dtype: t.tensor.dtype,
            data: t.tensor.raw().expect("new tensors are inline").clone(),
            dims: t.tensor.dims,
        })
        .collect();
    let identity = format!("{} on {}", manifest.adapter, manifest.base.fingerprint);
    write_tensors(
        &staging.path(&names.weights),
        &tensors,
        ("peftc", identity),
        sink,
    )?;
    let mut json = serde_json::to_string_pretty(manifest).expect("a manifest is plain data");
    json.push('\n');
    let path = staging.path(&names.manifest);
    files::write(&path, sink, |out| out.write_all(json.as_bytes()))
}

/// Locations of external data, relative to the model's folder.
pub(super) fn external_files(graph: &Graph) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for id in graph.value_ids() {
        if let Some(Tensor {
            data: TensorData::External(external),
            ..
        }) = graph.value(id).tensor()
        {
            found.insert(external.location.clone());
        }
    }
    for id in graph.node_ids() {
        for attribute in &graph.node(id).attributes {
            for body in attribute.value.graphs() {
                found.extend(external_files(body));
            }
        }
    }
    found
}

/// Copies external data into another folder: runtimes refuse data outside the model's folder,
/// symbolic links and hard links. The system copies without passing the bytes through this process
/// where it can.
pub(super) fn copy_data(
    data: &BTreeSet<String>,
    model: &Path,
    folder: &Path,
    staging: &Staging,
    sink: &mut Sink,
) -> Result<Vec<(String, u64)>, Reported> {
    let from = model
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let same = from
        .canonicalize()
        .ok()
        .zip(folder.canonicalize().ok())
        .is_some_and(|(a, b)| a == b);
    if same {
        return Ok(Vec::new());
    }
    let mut copied = Vec::new();
    for location in data {
        let size = files::copy(&from.join(location), &staging.path(location), sink)?;
        copied.push((location.clone(), size));
    }
    Ok(copied)
}
