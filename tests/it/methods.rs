//! The library's methods against Hugging Face PEFT (`fixtures/methods`): outputs, and the gradient of
//! every parameter and input, with the same parameters, in double precision.

use crate::adapters::fixtures;
use crate::differentiated::with_exact;
use crate::method_nets::{inputs, loss, net};
use crate::starts::calibration;
use crate::tolerances::{METHOD_GRADIENT, METHOD_OUTPUT, METHOD_START};
use peftc::adapt;
use peftc::autodiff::gradients;
use peftc::diag::{Code, Reported, Sink, SourceMap, render};
use peftc::driver::{Loaded, ModelOptions, PlanOptions, Session};
use peftc::graph::{Model, Operand, Patch, Tensor, TensorData, ValueId};
use peftc::hir::Event;
use peftc::onnx;
use peftc::ops::{DRAW, Emitter};
use peftc::reference::Array;
use peftc::runtime::NamedTensors;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// `fixtures/methods/cases.yaml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cases {
    /// What the library calls a tensor, by what PEFT does; by group of cases.
    names: BTreeMap<String, BTreeMap<String, Name>>,
    pub cases: Vec<Case>,
    starts: Vec<Start>,
    /// Whose recorded training steps are made, too.
    pub steps: Vec<Case>,
    /// Recordings that nothing is compared with, and why.
    left_out: BTreeMap<String, String>,
}

impl Cases {
    pub(crate) fn read() -> Cases {
        let text = std::fs::read_to_string(fixtures().join("methods/cases.yaml")).unwrap();
        serde_yaml::from_str(&text).unwrap()
    }
}

/// What of the start values of a recording is that of ours.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    recording: String,
    names: String,
    with: String,
    base: Option<String>,
    /// Products of matrices, whose signs say nothing: `B A`, `B B.T`; or a tensor alone.
    compare: Vec<String>,
    /// What others start from, and is of the recording itself.
    #[serde(default)]
    given: Vec<String>,
    /// PEFT's decomposition is a randomized one.
    #[serde(default)]
    randomized: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Name {
    /// The same elements in the same order; empty for what the library does without, `a|b` for one
    /// that is called either way, by what else there is.
    Same(String),
    /// Only at sites where another tensor is this number.
    Grouped { name: String, by: String, is: f64 },
    /// Only at sites of this last word, with the axes in another order or not.
    Of {
        name: String,
        of: String,
        axes: Option<Vec<usize>>,
    },
    /// What was drawn in training: the draw of this number.
    Drawn { draw: u32 },
    /// Of one cluster of rows of the weight, where ours has all of them in one tensor.
    Cluster { name: String, cluster: usize },
    /// With the axes in another order, at all sites or at some.
    Permuted {
        name: String,
        axes: Vec<usize>,
        at: Option<Vec<String>>,
    },
    /// Places of the weight, counted through row by row, as rows and columns.
    Places {
        name: String,
        #[allow(dead_code, reason = "it tells this entry from the others")]
        places: bool,
    },
}

impl Name {
    fn either(&self) -> Option<&str> {
        if let Name::Drawn { .. } = self {
            return None;
        }
        let (Name::Same(name)
        | Name::Permuted { name, .. }
        | Name::Grouped { name, .. }
        | Name::Of { name, .. }
        | Name::Cluster { name, .. }
        | Name::Places { name, .. }) = self
        else {
            return None;
        };
        (!name.is_empty()).then_some(name.split('[').next().unwrap_or(name))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub recording: String,
    names: String,
    with: String,
    /// The recording that has the base weights, where a start of PEFT's has changed them.
    base: Option<String>,
}

/// Numbers by name, in the library's layout.
pub(crate) type Numbers = BTreeMap<String, Dense>;

/// Dims and elements, row by row.
pub(crate) type Dense = (Vec<i64>, Vec<f64>);

fn permuted(dims: &[i64], data: &[f64], order: &[usize]) -> Dense {
    assert_eq!(dims.len(), order.len(), "{dims:?}");
    let strides: Vec<usize> = (0..dims.len())
        .map(|axis| dims[axis + 1..].iter().product::<i64>() as usize)
        .collect();
    let shape: Vec<i64> = order.iter().map(|axis| dims[*axis]).collect();
    let mut out = Vec::with_capacity(data.len());
    let mut index = vec![0_i64; dims.len()];
    for _ in 0..data.len() {
        let flat: usize = index
            .iter()
            .zip(order)
            .map(|(i, axis)| *i as usize * strides[*axis])
            .sum();
        out.push(data[flat]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    (shape, out)
}

/// What the plan calls a method's tensor at a site: by both.
pub(crate) type Owners = BTreeMap<(String, String), String>;

/// The recorded tensors with a prefix, as the plan names them.
pub(crate) fn named(
    cases: &Cases,
    case: &Case,
    description: &Value,
    recording: &NamedTensors,
    (prefix, owners): (&str, &Owners),
) -> Numbers {
    let names = &cases.names[&case.names];
    let mut found = Numbers::new();
    for (site, facts) in description["sites"].as_object().unwrap() {
        for (local, tensor) in facts["tensors"].as_object().unwrap() {
            let key = tensor["key"].as_str().unwrap();
            let Some(values) = recording.get(&format!("{prefix}{key}")) else {
                continue;
            };
            let (mut dims, mut data) = (values.dims().to_vec(), values.to_f64s().unwrap());
            let ours = match names.get(local) {
                Some(Name::Same(name)) => name,
                Some(Name::Permuted { name, axes, at }) => {
                    if at.as_ref().is_none_or(|sites| sites.contains(site)) {
                        (dims, data) = permuted(&dims, &data, axes);
                    }
                    name
                }
                Some(Name::Of { name, of, axes }) => {
                    if site.rsplit('.').next() != Some(of.as_str()) {
                        continue;
                    }
                    if let Some(axes) = axes {
                        (dims, data) = permuted(&dims, &data, axes);
                    }
                    name
                }
                Some(Name::Grouped { name, by, is }) => {
                    let group = recording.get(&format!("{site}.{by}")).unwrap();
                    if group.to_f64s().unwrap() != [*is] {
                        continue;
                    }
                    name
                }
                Some(Name::Drawn { .. }) => continue,
                Some(Name::Cluster { name, cluster }) => {
                    let Some(owner) = owners.get(&(site.clone(), name.clone())) else {
                        continue;
                    };
                    let clusters = Clusters::of(site, facts, recording);
                    let whole = found.entry(owner.clone());
                    let whole = whole.or_insert_with(|| clusters.zeros(name));
                    clusters.put(name, *cluster, &dims, &data, &mut whole.1);
                    continue;
                }
                Some(Name::Places { name, .. }) => {
                    let columns = facts["weight"][1].as_f64().unwrap();
                    let places = data.iter();
                    data = places
                        .flat_map(|at| [(at / columns).floor(), at % columns])
                        .collect();
                    dims.push(2);
                    name
                }
                None => panic!("{}: nothing is said of `{local}`", case.recording),
            };
            for ours in ours.split('|') {
                let (ours, part) = match ours.split_once('[') {
                    Some((ours, part)) => (ours, part.trim_end_matches(']').parse::<usize>().ok()),
                    None => (ours, None),
                };
                let Some(owner) = owners.get(&(site.clone(), ours.to_owned())) else {
                    continue;
                };
                match part {
                    None => drop(found.insert(owner.clone(), (dims.clone(), data.clone()))),
                    // Parts come in their order.
                    Some(part) => {
                        let (all, joined) = found.entry(owner.clone()).or_default();
                        let size = data.len();
                        assert_eq!(joined.len(), part * size);
                        joined.extend(&data);
                        *all = vec![joined.len() as i64];
                    }
                }
            }
        }
    }
    found
}

/// Clusters of the rows of a weight, each of a size of its own.
struct Clusters {
    /// By cluster.
    rows: Vec<Vec<usize>>,
    /// The largest rank of a cluster, and the size of its input.
    rank: usize,
    input: usize,
}

impl Clusters {
    fn of(site: &str, facts: &Value, recording: &NamedTensors) -> Clusters {
        let shapes = |name: &str| -> Vec<Vec<usize>> {
            let shape = |cluster: usize| {
                let tensor = facts["tensors"].get(format!("{name}.{cluster}"))?;
                let sizes = tensor["shape"].as_array().unwrap().iter();
                Some(sizes.map(|size| size.as_u64().unwrap() as usize).collect())
            };
            (0..).map_while(shape).collect()
        };
        let places = recording.get(&format!("{site}.scatter_index")).unwrap();
        let mut places = places.to_f64s().unwrap().into_iter().map(|at| at as usize);
        let (of_a, of_b) = (shapes("adamss_A"), shapes("adamss_B"));
        let rows = of_b
            .iter()
            .map(|shape| places.by_ref().take(shape[0]).collect());
        Clusters {
            rows: rows.collect(),
            rank: of_a.iter().map(|shape| shape[0]).max().unwrap(),
            input: of_a[0][1],
        }
    }

    fn zeros(&self, name: &str) -> Dense {
        let out: usize = self.rows.iter().map(Vec::len).sum();
        let dims = match name {
            "A" => vec![self.rows.len(), self.rank, self.input],
            "B" => vec![out, self.rank],
            _ => vec![out, self.rows.len()],
        };
        let count = dims.iter().product();
        (
            dims.iter().map(|dim| *dim as i64).collect(),
            vec![0.0; count],
        )
    }

    fn put(&self, name: &str, cluster: usize, dims: &[i64], data: &[f64], whole: &mut [f64]) {
        let width = *dims.last().unwrap() as usize;
        match name {
            "A" => {
                let start = cluster * self.rank * self.input;
                whole[start..start + data.len()].copy_from_slice(data);
            }
            "B" => {
                for (row, values) in self.rows[cluster].iter().zip(data.chunks(width)) {
                    let start = row * self.rank;
                    whole[start..start + width].copy_from_slice(values);
                }
            }
            _ => {
                for (cluster, rows) in self.rows.iter().enumerate() {
                    rows.iter()
                        .for_each(|row| whole[row * self.rows.len() + cluster] = 1.0);
                }
            }
        }
    }
}

/// The largest difference, relative to the largest number of the recording.
pub(crate) fn error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let pairs = found.iter().zip(expected);
    let difference = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(found.iter().all(|value| value.is_finite()));
    let scale = expected.iter().map(|b| b.abs()).fold(0.0, f64::max);
    difference / scale.max(f64::MIN_POSITIVE)
}

/// What is made of a case.
struct Made {
    /// By parameter or input, the output that is its gradient.
    gradients: BTreeMap<String, String>,
    owners: Owners,
    /// The adapter's tensors.
    tensors: Numbers,
    /// Weights and biases of the merged model, by their names; nothing of a method that does not merge.
    merged: BTreeMap<String, Vec<f64>>,
}

/// The constants of a model after a merge.
fn merged(
    (plan, modules): (&adapt::Plan, &peftc::modules::Modules),
    mut model: Model,
    tensors: &[adapt::NewTensor],
    read: &adapt::WeightReader<'_>,
) -> BTreeMap<String, Vec<f64>> {
    let values = tensors.iter();
    let values = values.map(|t| (t.name.clone(), t.tensor.clone())).collect();
    let mut keep = |_: &Tensor, bytes: Vec<u8>, _: &mut Sink| Ok(TensorData::Raw(bytes.into()));
    let mut sink = Sink::new();
    let done = adapt::merge(
        plan, &mut model, modules, &values, read, &mut keep, &mut sink,
    );
    if done.is_err() {
        let codes = sink.diagnostics().iter().map(|d| d.code);
        let mut codes: Vec<Code> = codes.collect();
        codes.dedup();
        assert_eq!(codes, [Code::E0905], "{:?}", sink.diagnostics());
        return BTreeMap::new();
    }
    let graph = &model.graph;
    let constants = graph.initializers().iter().map(|id| graph.value(*id));
    constants
        .filter_map(|value| Some((value.name.to_string(), value.constant()?.to_f64s()?)))
        .collect()
}

/// A net that is adapted.
pub(crate) struct Adapted {
    pub base: Model,
    /// With the adapted model.
    pub loaded: Loaded,
    pub plan: adapt::Plan,
    pub tensors: Vec<adapt::NewTensor>,
    pub owners: Owners,
    /// By the names of the draws of the adapted model, what was drawn when recorded.
    pub draws: BTreeMap<String, ValueId>,
}

/// Puts in the place of what a model draws in training what was drawn when recorded.
fn drawn(
    names: &BTreeMap<String, Name>,
    model: &mut Model,
    description: &Value,
    recording: &NamedTensors,
) -> BTreeMap<String, ValueId> {
    let mut patch = Patch::new();
    let mut found = BTreeMap::new();
    for id in model.graph.order().unwrap() {
        let Some(draw) = model.graph.node(id).metadata(DRAW) else {
            continue;
        };
        let (scope, number) = draw.rsplit_once('/').unwrap();
        let site = scope.rsplit_once('/').unwrap().0;
        let tensors = description["sites"][site]["tensors"].as_object().unwrap();
        let recorded = tensors.iter().find_map(|(local, tensor)| {
            let Name::Drawn { draw } = names.get(local)? else {
                return None;
            };
            let key = tensor["key"].as_str().unwrap();
            (draw.to_string() == number).then(|| recording.get(key).unwrap())
        });
        // Without draws the model is recorded as it is outside of training.
        if let Some(values) = recorded {
            let single: Vec<f32> = values
                .to_f64s()
                .unwrap()
                .iter()
                .map(|v| *v as f32)
                .collect();
            let constant = patch.constant(draw, Tensor::from_f32(values.dims(), &single));
            patch.replace_uses(model.graph.result(id, 0).unwrap(), constant);
            found.insert(draw.to_owned(), constant);
        }
    }
    let new = model.graph.apply(patch).unwrap().values;
    let id = |operand| match operand {
        Operand::New(index) => new[index as usize],
        Operand::Existing(id) | Operand::Original(id) => id,
    };
    found.into_iter().map(|(draw, o)| (draw, id(o))).collect()
}

/// A folder, and at our start values the names of tensors that have those of the recording nevertheless.
type Place<'p> = (&'p Path, Option<&'p [String]>);

/// The net of a recording, adapted with the recorded values or with our start values.
fn adapted_in(
    cases: &Cases,
    case: &Case,
    description: &Value,
    recording: &NamedTensors,
    (folder, start): Place<'_>,
    session: &mut Session<'_>,
) -> Result<Adapted, Reported> {
    let mut base = net(description, recording);
    peftc::passes::infer(&mut base, session.sink)?;
    let model_path = folder.join("net.onnx");
    onnx::save(&base, &model_path, session.sink)?;
    let sites = description["sites"].as_object().unwrap();
    let adapted = sites
        .iter()
        .filter(|(_, facts)| facts["adapted"].as_bool() == Some(true));
    let targets: Vec<String> = adapted.map(|(site, _)| format!("\"{site}\"")).collect();
    let method = case.with.split('(').next().unwrap();
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/stdlib");
    let spec = format!(
        "use \"{}/{method}.peft\"::{method}\nadapter a {{\n  adapt {} with {}\n}}\n",
        library.display(),
        targets.join(", "),
        case.with
    );
    let spec_path = folder.join("spec.peft");
    std::fs::write(&spec_path, spec).unwrap();
    let spec = session.spec(&spec_path)?;
    let adapter = session.adapters(&spec, &[])?[0];
    let loaded = session.model(&model_path, &ModelOptions::default())?;
    let (loaded, planned) = session.plan(&spec, adapter, loaded, &PlanOptions::default())?;
    let mut loaded = loaded.into_owned();
    let mut owners = Owners::new();
    for planned_site in &planned.plan.sites {
        let path = &loaded.modules.sites[planned_site.site].path;
        for method in &planned_site.methods {
            for (param, index) in method.instance.params.iter().zip(&method.parameters) {
                let name = planned.plan.parameters[*index].name.clone();
                owners.insert((path.clone(), param.name.clone()), name);
            }
        }
    }
    let values = named(cases, case, description, recording, ("", &owners));
    let mut tensors = BTreeMap::new();
    let is_given = |parameter: &adapt::PlannedParameter| {
        start.is_none_or(|given| {
            let owns = |name: &String| parameter.name.ends_with(&format!(".{name}"));
            given.iter().any(owns)
        })
    };
    for parameter in planned.plan.parameters.iter().filter(|p| is_given(p)) {
        let Some((dims, data)) = values.get(&parameter.name) else {
            // A constant that the base weight alone says.
            assert!(
                !parameter.trainable,
                "{}: no `{}`",
                case.recording, parameter.name
            );
            continue;
        };
        let (theirs, ours) = (dims.iter().product::<i64>(), parameter.elements() as i64);
        assert_eq!(
            theirs, ours,
            "{}: {} {dims:?} {:?}",
            case.recording, parameter.name, parameter.dims
        );
        let single: Vec<f32> = data.iter().map(|value| *value as f32).collect();
        tensors.insert(
            parameter.name.clone(),
            Tensor::from_f32(&parameter.dims, &single),
        );
    }
    // Nothing that was recorded is left out.
    for (site, facts) in sites {
        for local in facts["tensors"].as_object().unwrap().keys() {
            let ours = cases.names[&case.names].get(local).and_then(Name::either);
            let is_taken = ours.is_none_or(|ours| {
                let mut names = ours.split('|');
                names.any(|name| owners.contains_key(&(site.clone(), name.to_owned())))
            });
            assert!(is_taken, "{}: {site}.{local}", case.recording);
        }
    }
    let sink = &mut *session.sink;
    let weights = &loaded.weights;
    let read = |tensor: &Tensor, sink: &mut Sink| weights.read(tensor, sink);
    let (model, modules) = (&mut loaded.model, &loaded.modules);
    let base = model.clone();
    let calibration = calibration(recording, &planned.plan, modules);
    let starts = adapt::Starts {
        calibration: Some(&calibration),
        ..adapt::Starts::new(0, &read, &tensors)
    };
    let applied = adapt::apply(&planned.plan, model, modules, &starts, sink)?;
    let draws = match start {
        None => drawn(&cases.names[&case.names], model, description, recording),
        Some(_) => BTreeMap::new(),
    };
    Ok(Adapted {
        base,
        draws,
        tensors: applied.tensors,
        plan: planned.plan,
        loaded,
        owners,
    })
}

/// An adapted model with its gradients as outputs.
fn differentiated(
    mut adapted: Adapted,
    description: &Value,
    recording: &NamedTensors,
    (folder, start): Place<'_>,
    sink: &mut Sink,
) -> Result<Made, Reported> {
    let tensors = adapted.tensors.iter().map(|tensor| {
        let values = tensor.tensor.to_f64s().unwrap();
        (tensor.name.clone(), (tensor.tensor.dims.clone(), values))
    });
    let tensors: Numbers = tensors.collect();
    let owners = adapted.owners;
    let model = &mut adapted.loaded.model;
    if start.is_some() {
        onnx::save(model, &folder.join("trained.onnx"), sink)?;
        return Ok(Made {
            gradients: BTreeMap::new(),
            owners,
            tensors,
            merged: BTreeMap::new(),
        });
    }
    peftc::passes::infer(model, sink)?;
    let total = loss(model, description, recording);
    let find = |name: &str| model.graph.find_value(name).unwrap();
    let mut wrt: Vec<(String, ValueId)> = Vec::new();
    let trained = adapted.tensors.iter().filter(|tensor| tensor.trainable);
    wrt.extend(trained.map(|tensor| (tensor.name.clone(), find(&tensor.initializer))));
    for (site, facts) in description["sites"].as_object().unwrap() {
        if facts["class"] != "Embedding" {
            wrt.push((format!("input.{site}"), find(&format!("input.{site}"))));
        }
    }
    let ids: Vec<ValueId> = wrt.iter().map(|(_, id)| *id).collect();
    let found = gradients(model, total, &ids, sink)?;
    let modules = &adapted.loaded.modules;
    let hooks = adapt::Hooks::new(&adapted.plan, modules, &adapted.tensors);
    let found = changed(model, &hooks, &wrt, &found);
    let mut outputs = BTreeMap::new();
    for ((name, _), id) in wrt.into_iter().zip(found) {
        model.graph.add_output(id);
        outputs.insert(name, model.graph.value(id).name.to_string());
    }
    onnx::save(model, &folder.join("trained.onnx"), sink)?;
    let weights = &adapted.loaded.weights;
    let read = |tensor: &Tensor, sink: &mut Sink| weights.read(tensor, sink);
    let plan = (&adapted.plan, modules);
    Ok(Made {
        gradients: outputs,
        owners,
        tensors,
        merged: merged(plan, adapted.base, &adapted.tensors, &read),
    })
}

/// Gradients as the hooks of the methods leave them; `wrt` are the names of what they are of.
fn changed(
    model: &mut Model,
    hooks: &adapt::Hooks,
    wrt: &[(String, ValueId)],
    found: &[ValueId],
) -> Vec<ValueId> {
    let mut emitter = Emitter::new(model.opset("").unwrap());
    emitter
        .patch
        .behind(model.graph.order().unwrap().last().copied().unwrap());
    let value = |name: &str| model.graph.find_value(name).unwrap();
    let places = hooks.tensors().iter().map(|tensor| {
        let id = value(&tensor.initializer);
        (id, wrt.iter().position(|(_, other)| *other == id))
    });
    let places: Vec<(ValueId, Option<usize>)> = places.collect();
    let read = adapt::Read {
        tensors: places.iter().map(|(id, _)| Some((*id).into())).collect(),
        gradients: places
            .iter()
            .map(|(_, at)| at.map(|at| found[at].into()))
            .collect(),
        ..adapt::Read::default()
    };
    let changes = hooks.emit(Event::Gradient, &mut emitter, &read).tensors;
    let new = model.graph.apply(emitter.patch).unwrap().values;
    let mut changed = found.to_vec();
    for (tensor, gradient) in changes {
        changed[places[tensor].1.unwrap()] = match gradient {
            Operand::New(index) => new[index as usize],
            Operand::Existing(id) | Operand::Original(id) => id,
        };
    }
    changed
}

/// A recording with its description.
pub(crate) fn recorded(case: &Case) -> (Value, NamedTensors) {
    let path = fixtures().join("methods").join(&case.recording);
    let text = std::fs::read_to_string(path.with_extension("json")).unwrap();
    let description: Value = serde_json::from_str(&text).unwrap();
    let mut recording =
        NamedTensors::read_safetensors(&path.with_extension("safetensors")).unwrap();
    if let Some(base) = &case.base {
        let path = path.with_file_name(format!("{base}.safetensors"));
        let original = NamedTensors::read_safetensors(&path).unwrap();
        for (name, tensor) in &mut recording.0 {
            if name.starts_with("base.") {
                *tensor = original.get(name).unwrap().clone();
            }
        }
    }
    (description, recording)
}

/// What a session makes, or a panic with what it reports.
fn reported<T>(case: &Case, make: impl FnOnce(&mut Session<'_>) -> Result<T, Reported>) -> T {
    let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
    let mut session = Session {
        sources: &mut sources,
        sink: &mut sink,
    };
    let result = make(&mut session);
    result.unwrap_or_else(|_| {
        let all = sink.diagnostics().iter();
        let text: String = all
            .map(|d| render::render(d, &sources, render::Style::PLAIN))
            .collect();
        panic!("{}: {text}", case.recording)
    })
}

/// A recording with its description, and its net adapted with the recorded values.
pub(crate) fn adapted(cases: &Cases, case: &Case, folder: &Path) -> (Value, NamedTensors, Adapted) {
    let (description, recording) = recorded(case);
    let made = reported(case, |session| {
        let place = (folder, None);
        adapted_in(cases, case, &description, &recording, place, session)
    });
    (description, recording, made)
}

/// A recording with its description, and what is made of it in a folder.
fn made(cases: &Cases, case: &Case, place: Place<'_>) -> (Value, NamedTensors, Made) {
    let (description, recording) = recorded(case);
    let made = reported(case, |session| {
        let adapted = adapted_in(cases, case, &description, &recording, place, session)?;
        differentiated(adapted, &description, &recording, place, session.sink)
    });
    (description, recording, made)
}

/// The start values of LoRA's tensors, by site and name, beside a recording.
pub(crate) fn lora_starts(
    recording: &str,
    base: Option<&str>,
    with: &str,
) -> (NamedTensors, BTreeMap<(String, String), Dense>) {
    let text = std::fs::read_to_string(fixtures().join("methods/cases.yaml")).unwrap();
    let cases: Cases = serde_yaml::from_str(&text).unwrap();
    let case = Case {
        recording: recording.to_owned(),
        names: "lora".to_owned(),
        with: with.to_owned(),
        base: base.map(str::to_owned),
    };
    let folder = tempfile::tempdir().unwrap();
    let (_, recording, made) = made(&cases, &case, (folder.path(), Some(&[])));
    let tensors = made.owners.into_iter();
    let tensors = tensors.map(|(place, name)| (place, made.tensors[&name].clone()));
    (recording, tensors.collect())
}

/// How far merged weights are off; `None` where PEFT has none. A bias that the module has not had is
/// added behind it.
fn merge_error(recording: &NamedTensors, merged: &BTreeMap<String, Vec<f64>>) -> Option<f64> {
    let recorded = recording.iter().filter_map(|(name, tensor)| {
        let short = name.strip_prefix("merged.")?;
        let is_constant = short.ends_with(".weight") || short.ends_with(".bias");
        let right = recording.get(&format!("right.{name}")).unwrap_or(tensor);
        let found = merged
            .get(short)
            .or_else(|| merged.get(&format!("{short}.merged")));
        is_constant.then(|| match found {
            Some(found) => error(found, &right.to_f64s().unwrap()),
            None => f64::INFINITY,
        })
    });
    recorded.reduce(f64::max)
}

/// How far outputs, gradients and merged weights of a case are off.
fn errors_of(cases: &Cases, case: &Case) -> (f64, f64, Option<f64>) {
    let folder = tempfile::tempdir().unwrap();
    let (description, recording, made) = made(cases, case, (folder.path(), None));
    let merge = merge_error(&recording, &made.merged);
    let (gradients, owners) = (made.gradients, made.owners);
    let sites = description["sites"].as_object().unwrap();
    let inputs = inputs(&description, &recording);
    let inputs: Vec<(&str, Array)> = inputs
        .iter()
        .map(|(name, given)| (name.as_str(), given.clone()))
        .collect();
    let mut names: Vec<String> = sites.keys().map(|site| format!("output.{site}")).collect();
    names.extend(gradients.values().cloned());
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let found = with_exact(&folder.path().join("trained.onnx"), |exact| {
        exact.run(&inputs, &names)
    });
    let found: BTreeMap<&str, Vec<f64>> = names.into_iter().zip(found).collect();
    let output = sites.keys().map(|site| {
        let name = format!("output.{site}");
        let expected = recording
            .get(&format!("right.{name}"))
            .or_else(|| recording.get(&name));
        error(&found[name.as_str()], &expected.unwrap().to_f64s().unwrap())
    });
    let output = output.fold(0.0, f64::max);
    let mut expected = named(
        cases,
        case,
        &description,
        &recording,
        ("gradient.", &owners),
    );
    expected.extend(named(
        cases,
        case,
        &description,
        &recording,
        ("right.gradient.", &owners),
    ));
    for (name, value) in &recording.0 {
        for prefix in ["gradient.", "right.gradient."] {
            if let Some(short) = name
                .strip_prefix(prefix)
                .filter(|n| n.starts_with("input."))
            {
                expected.insert(
                    short.to_owned(),
                    (value.dims().to_vec(), value.to_f64s().unwrap()),
                );
            }
        }
    }
    let mut gradient: f64 = 0.0;
    for (name, result) in &gradients {
        let found = &found[result.as_str()];
        match expected.get(name) {
            Some((_, expected)) => gradient = gradient.max(error(found, expected)),
            // Not reached in PEFT either.
            None => assert!(
                found.iter().all(|v| *v == 0.0),
                "{}: {name}",
                case.recording
            ),
        }
    }
    (output, gradient, merge)
}

#[test]
fn methods_compute_what_peft_computes() {
    let mut table =
        String::from("| recording | as | output | gradient | merged |\n|---|---|---|---|---|\n");
    let mut far = Vec::new();
    let cases = Cases::read();
    for case in &cases.cases {
        let (output, gradient, merge) = errors_of(&cases, case);
        let merged = merge.map_or("–".to_owned(), |error| format!("{error:.1e}"));
        table += &format!(
            "| {} | `{}` | {output:.1e} | {gradient:.1e} | {merged} |\n",
            case.recording, case.with
        );
        let is_merged = merge.is_none_or(|error| error <= METHOD_OUTPUT);
        if output > METHOD_OUTPUT || gradient > METHOD_GRADIENT || !is_merged {
            far.push(format!(
                "{}: output {output:e}, gradient {gradient:e}, merged {merged}",
                case.recording
            ));
        }
    }
    println!("{table}");
    assert!(far.is_empty(), "{far:#?}");
}

/// The product of named matrices.
pub(crate) fn product(words: &str, find: &dyn Fn(&str) -> Dense) -> Dense {
    let factors = words.split(' ').map(|word| match word.strip_suffix(".T") {
        Some(name) => {
            let (dims, data) = find(name);
            permuted(&dims, &data, &[1, 0])
        }
        None => find(word),
    });
    let multiplied = factors.reduce(|(a, x), (b, y)| {
        let (rows, inner, columns) = (a[0] as usize, a[1] as usize, b[1] as usize);
        let mut data = vec![0.0; rows * columns];
        for row in 0..rows {
            for (place, factor) in x[row * inner..(row + 1) * inner].iter().enumerate() {
                for column in 0..columns {
                    data[row * columns + column] += factor * y[place * columns + column];
                }
            }
        }
        (vec![rows as i64, columns as i64], data)
    });
    multiplied.unwrap()
}

#[test]
fn start_values_from_the_weight_are_pefts() {
    let cases = Cases::read();
    for start in &cases.starts {
        let case = Case {
            recording: start.recording.clone(),
            names: start.names.clone(),
            with: start.with.clone(),
            base: start.base.clone(),
        };
        let folder = tempfile::tempdir().unwrap();
        let (description, recording, made) =
            made(&cases, &case, (folder.path(), Some(&start.given)));
        // What is frozen, and everything where only the start was recorded, has no prefix.
        let with = |prefix| {
            named(
                &cases,
                &case,
                &description,
                &recording,
                (prefix, &made.owners),
            )
        };
        let mut theirs = with("");
        theirs.extend(with("start."));
        for (site, facts) in description["sites"].as_object().unwrap() {
            if facts["adapted"].as_bool() != Some(true) {
                continue;
            }
            for words in &start.compare {
                let owner = |name: &str| &made.owners[&(site.clone(), name.to_owned())];
                let found = product(words, &|name| made.tensors[owner(name)].clone());
                let expected = product(words, &|name| theirs[owner(name)].clone());
                let error = error(&found.1, &expected.1);
                let most = match start.randomized {
                    true => METHOD_START,
                    false => METHOD_OUTPUT,
                };
                assert!(
                    error <= most,
                    "{}: `{words}` of {site} is off by {error:e}",
                    start.recording
                );
            }
        }
    }
}

/// What a model of a folder computes of the recorded inputs, by site.
fn at_sites(
    path: &Path,
    description: &Value,
    recording: &NamedTensors,
) -> BTreeMap<String, Vec<f64>> {
    let sites: Vec<&String> = description["sites"].as_object().unwrap().keys().collect();
    let wanted: Vec<String> = sites.iter().map(|site| format!("output.{site}")).collect();
    let given = inputs(description, recording);
    let inputs: Vec<(&str, Array)> = given
        .iter()
        .map(|(name, given)| (name.as_str(), given.clone()))
        .collect();
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let found = with_exact(path, |exact| exact.run(&inputs, &wanted));
    sites.into_iter().cloned().zip(found).collect()
}

#[test]
fn methods_start_as_the_base_where_pefts_do() {
    let cases = Cases::read();
    let mut checked = 0;
    for case in &cases.cases {
        let folder = tempfile::tempdir().unwrap();
        let (description, recording, _) = made(&cases, case, (folder.path(), Some(&[])));
        if description["start"]["identity"].as_bool() != Some(true) {
            continue;
        }
        let found = at_sites(
            &folder.path().join("trained.onnx"),
            &description,
            &recording,
        );
        let base = at_sites(&folder.path().join("net.onnx"), &description, &recording);
        for (site, expected) in base {
            // Tensors of the adapter are in single precision.
            let error = error(&found[&site], &expected);
            assert!(
                error <= METHOD_OUTPUT,
                "{}: {site} is off by {error:e}",
                case.recording
            );
        }
        checked += 1;
    }
    assert!(checked > 70, "{checked}");
}

#[test]
fn every_recording_is_compared_or_left_out_for_a_reason() {
    let cases = Cases::read();
    let compared = cases.cases.iter().map(|case| &case.recording);
    let mut known: BTreeSet<&String> = compared.collect();
    known.extend(cases.starts.iter().map(|start| &start.recording));
    for (recording, why) in &cases.left_out {
        assert!(
            !why.is_empty() && known.insert(recording),
            "{recording}: {why}"
        );
    }
    let files = std::fs::read_dir(fixtures().join("methods")).unwrap();
    let paths = files.map(|entry| entry.unwrap().path());
    let recordings = paths.filter(|path| path.extension().is_some_and(|e| e == "safetensors"));
    let found: BTreeSet<String> = recordings
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(known, found.iter().collect());
}
