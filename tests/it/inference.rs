//! Inferred types against what ONNX Runtime computes: every value of every export, on the recorded
//! inputs.
//!
//! Values of the top graph are compared, inlined functions included; those inside the bodies of
//! `If` and `Loop` cannot be outputs of the model.

use crate::adapters::{fixtures, recorded};
use crate::checker::models;
use crate::models::{add_bias, float_value};
use crate::runtime::library;
use onnx_protobuf::{GraphProto, ModelProto, ValueInfoProto};
use peftc::diag::{Code, Diagnostic, Severity, Sink, SourceMap};
use peftc::driver::{self, ModelOptions, PlanOptions};
use peftc::graph::{Model, ValueKind};
use peftc::runtime::{HostTensor, ModelSource, NamedTensors, Optimization, Options, Session};
use peftc::ty::{DType, Dim, Symbol, TensorType};
use peftc::{onnx, passes};
use protobuf::Message;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How much is known of the dimensions of one model.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub values: usize,
    /// Values of which not even the rank is inferred.
    pub unranked: usize,
    /// Dimensions that are a number, or follow from the sizes of the inputs.
    pub known: usize,
    /// Dimensions that depend on data.
    pub open: usize,
}

impl Counts {
    fn add(&mut self, other: Counts) {
        self.values += other.values;
        self.unranked += other.unranked;
        self.known += other.known;
        self.open += other.open;
    }
}

/// What is compared with ONNX Runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Statements {
    /// Types as peftc uses them: inferred, with what the model states where inference cannot tell.
    Used,
    /// Inference alone: the model states nothing but the types of its inputs.
    Removed,
}

/// Values whose stated shape ONNX Runtime's computation contradicts: the exporter's fault.
const WRONGLY_STATED: &[(&str, &str, &str)] = &[(
    "t5.optimum_merged",
    ".encoder.",
    "the branch with a cache gives empty tensors of batch 0",
)];

/// Writes the model with a change beside it.
fn changed(base: &Path, name: &str, change: impl FnOnce(&mut GraphProto)) -> PathBuf {
    let mut proto = ModelProto::parse_from_bytes(&std::fs::read(base).unwrap()).unwrap();
    change(proto.graph.as_mut().unwrap());
    let path = base.with_file_name(name);
    std::fs::write(&path, proto.write_to_bytes().unwrap()).unwrap();
    path
}

/// Makes every computed value an output.
fn expose(graph: &mut GraphProto) {
    let listed: Vec<String> = graph.output.iter().map(|o| o.name.clone()).collect();
    let results = graph.node.iter().flat_map(|node| &node.output);
    let more: Vec<ValueInfoProto> = results
        .filter(|name| !name.is_empty() && !listed.contains(name))
        .map(|name| ValueInfoProto {
            name: name.clone(),
            ..Default::default()
        })
        .collect();
    graph.output.extend(more);
}

/// Removes every stated type but those of the inputs, in bodies too.
pub(crate) fn remove_statements(graph: &mut GraphProto) {
    graph.value_info.clear();
    for ty in graph.output.iter_mut().filter_map(|o| o.type_.as_mut()) {
        ty.mut_tensor_type().shape = None.into();
    }
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        attribute.g.as_mut().map(remove_statements);
    }
}

/// What ONNX Runtime computes, as written and without any of its own rewriting.
pub(crate) fn computed(path: &Path, inputs: &NamedTensors) -> NamedTensors {
    let mut sink = Sink::new();
    let options = Options {
        optimization: Optimization::Disabled,
        ..Options::default()
    };
    let mut session = Session::open(library(), ModelSource::Path(path), &options, &mut sink)
        .unwrap_or_else(|_| panic!("{:?}", sink.diagnostics()));
    session
        .run(inputs, &mut sink)
        .unwrap_or_else(|_| panic!("{:?}", sink.diagnostics()))
}

/// The numbers of symbols, found where a dimension is a lone symbol.
#[derive(Default)]
pub(crate) struct Bindings(BTreeMap<String, i64>);

impl Bindings {
    /// Whether the dimension can be this number; it is bound if it was free.
    fn accepts(&mut self, dim: &Dim, number: i64) -> bool {
        if let Some(symbol) = dim.as_symbol() {
            return *self.0.entry(symbol.name().to_owned()).or_insert(number) == number;
        }
        self.evaluate(dim).is_none_or(|value| value == number)
    }

    fn evaluate(&self, dim: &Dim) -> Option<i64> {
        let number = |symbol: &Symbol| self.0.get(symbol.name()).map(|n| Dim::from(*n));
        dim.substitute(&number).known()
    }
}

/// Compares one value; says what contradicts.
pub(crate) fn contradiction(
    ty: &TensorType,
    found: &TensorType,
    bindings: &mut Bindings,
    counts: &mut Counts,
) -> Option<String> {
    if ty.dtype != found.dtype {
        return Some(format!("element type {}, not {}", ty.dtype, found.dtype));
    }
    let dims = found.shape.as_ref()?.known()?;
    let Some(shape) = &ty.shape else {
        counts.unranked += 1;
        return None;
    };
    if shape.rank() != dims.len() {
        return Some(format!("{ty}, not {found}"));
    }
    for (axis, (dim, number)) in shape.0.iter().zip(dims).enumerate() {
        if dim.symbols().iter().any(Symbol::is_open) {
            counts.open += 1;
        } else {
            counts.known += 1;
        }
        if !bindings.accepts(dim, number) {
            return Some(format!("axis {axis} of {ty}: {number}"));
        }
    }
    None
}

/// Those tensors that are inputs of the model.
fn inputs_of(model: &Model, mut recording: NamedTensors) -> NamedTensors {
    let inputs = model.graph.inputs();
    let names: Vec<&str> = inputs
        .iter()
        .map(|id| &*model.graph.value(*id).name)
        .collect();
    recording
        .0
        .retain(|(name, _)| names.contains(&name.as_str()));
    recording
}

/// Optimum records a first step: its empty cache is a dummy whose sizes are not those that the model
/// states for its inputs. These are the inputs of a later step.
fn with_cache(mut inputs: NamedTensors) -> NamedTensors {
    let states = inputs.get("encoder_hidden_states").unwrap();
    let (batch, tokens) = (states.dims()[0], states.dims()[1]);
    for (name, tensor) in &mut inputs.0 {
        if name == "use_cache_branch" {
            *tensor = HostTensor::new(DType::Bool, &[1], vec![1]).unwrap();
        } else if name.contains(".encoder.") {
            let dims = [batch, tensor.dims()[1], tokens, tensor.dims()[3]];
            let elements = dims.iter().product::<i64>() as usize;
            *tensor = HostTensor::from_f32(&dims, &vec![0.5; elements]);
        }
    }
    inputs
}

/// Compares every value of a model and says what contradicts.
fn check_model(
    name: &str,
    path: &Path,
    statements: Statements,
    faults: &mut Vec<String>,
) -> Counts {
    let mut sink = Sink::new();
    let folder = tempfile::tempdir().unwrap();
    let inlined = folder.path().join("inlined.onnx");
    onnx::save(
        &onnx::import(path, &mut sink).unwrap().model,
        &inlined,
        &mut sink,
    )
    .unwrap();
    let data = path.with_extension("onnx.data");
    if data.exists() {
        std::fs::copy(&data, folder.path().join(data.file_name().unwrap())).unwrap();
    }
    let exposed = changed(&inlined, "exposed.onnx", expose);
    let read = match statements {
        Statements::Used => inlined,
        Statements::Removed => changed(&inlined, "bare.onnx", remove_statements),
    };
    let mut model = onnx::import(&read, &mut sink).unwrap().model;
    passes::infer(&mut model, &mut sink).unwrap();
    let recording = match name {
        "quickstart" => fixtures().join("quickstart/io.safetensors"),
        _ => path.with_extension("io.safetensors"),
    };
    let inputs = match name {
        "quickstart" => inputs_of(&model, recorded(&recording, "")),
        "t5.optimum_merged" => with_cache(recorded(&recording, "input.")),
        _ => recorded(&recording, "input."),
    };
    let outputs = computed(&exposed, &inputs);
    let (mut bindings, mut counts) = (Bindings::default(), Counts::default());
    // Sizes of the inputs first: they bind the symbols of all others.
    for (value, tensor) in inputs.iter().chain(outputs.iter()) {
        let id = model.graph.find_value(value).expect("a value of the model");
        let value = model.graph.value(id);
        let is_input = matches!(value.kind, ValueKind::Input { .. });
        counts.values += usize::from(!is_input);
        match &value.ty {
            None => counts.unranked += 1,
            Some(ty) => {
                let why = contradiction(ty, &tensor.ty(), &mut bindings, &mut counts);
                faults.extend(why.map(|why| format!("{name}: `{}`: {why}", value.name)));
            }
        }
    }
    counts
}

fn check_all(statements: Statements) -> Counts {
    let mut total = Counts::default();
    let mut faults = Vec::new();
    for (name, path) in models() {
        let counts = check_model(&name, &path, statements, &mut faults);
        eprintln!("{name}: {counts:?}");
        total.add(counts);
    }
    eprintln!("{statements:?}: {total:?}");
    let wrong = |fault: &String| {
        let (model, value) = fault.split_once(": ").expect("model and value");
        WRONGLY_STATED
            .iter()
            .any(|(name, part, _)| model == *name && value.contains(part))
    };
    let (stated, inferred): (Vec<String>, Vec<String>) = faults.into_iter().partition(wrong);
    assert!(inferred.is_empty(), "{inferred:#?}");
    assert_eq!(stated.is_empty(), statements == Statements::Removed);
    total
}

/// Inference cannot silently know less: as measured, with at most so many dimensions open.
#[track_caller]
fn check_share(counts: Counts, open: usize) {
    assert!(counts.values >= 6_978, "{counts:?}");
    assert!(counts.known >= 14_535, "{counts:?}");
    assert!(counts.unranked == 0 && counts.open <= open, "{counts:?}");
}

#[test]
fn types_are_those_that_onnx_runtime_computes() {
    let counts = check_all(Statements::Used);
    check_share(counts, 0);
}

#[test]
fn inference_alone_gives_the_types_that_onnx_runtime_computes() {
    let counts = check_all(Statements::Removed);
    // An `If` whose branches give other shapes: the outputs of the merged T5. And how often a `Loop`
    // turns.
    check_share(counts, 13);
}

#[test]
fn no_export_draws_a_warning() {
    let spec = "use std::lora\nadapter a {\n  adapt all linear with lora(rank = 4)\n}\n";
    for (name, path) in models() {
        let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), spec).unwrap();
        let mut session = driver::Session {
            sources: &mut sources,
            sink: &mut sink,
        };
        let loaded = session.model(&path, &ModelOptions::default()).unwrap();
        let spec = session.spec(file.path()).unwrap();
        let adapter = session.adapters(&spec, &[]).unwrap()[0];
        // Models without named linear layers beside their head end here.
        let _ = session.plan(&spec, adapter, &loaded, &PlanOptions::default());
        let warnings = sink
            .diagnostics()
            .iter()
            .filter(|d| d.severity() == Severity::Warning);
        let warnings: Vec<&Diagnostic> = warnings.collect();
        assert!(warnings.is_empty(), "{name}: {warnings:#?}");
    }
}

#[test]
fn a_stale_statement_is_warned_of_where_callers_read_it() {
    let codes = |change: &dyn Fn(&mut GraphProto)| {
        let mut proto = ModelProto::parse_from_bytes(&add_bias()).unwrap();
        let graph = proto.graph.as_mut().unwrap();
        change(graph);
        let bytes = proto.write_to_bytes().unwrap();
        let mut sink = Sink::new();
        let mut model = onnx::import_bytes("m.onnx", bytes.into(), &mut sink)
            .unwrap()
            .model;
        passes::infer(&mut model, &mut sink).unwrap();
        sink.diagnostics()
            .iter()
            .map(|d| d.code)
            .collect::<Vec<_>>()
    };
    assert!(codes(&|_| ()).is_empty());
    let wrong = |name: &str| float_value(name, &[Err("N"), Ok(3)]);
    assert_eq!(
        codes(&|graph| graph.output[0] = wrong("sum")),
        [Code::W0512]
    );
    let inner = |graph: &mut GraphProto| {
        graph.value_info.push(wrong("inner"));
        let mut last = graph.node[0].clone();
        graph.node[0].output = vec!["inner".into()];
        last.op_type = "Identity".into();
        last.input = vec!["inner".into()];
        graph.node.push(last);
    };
    assert!(codes(&inner).is_empty());
}
