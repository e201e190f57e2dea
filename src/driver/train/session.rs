//! Training graphs in ONNX Runtime, fed with batches.

use super::errors;
use crate::data::{Batch, BatchOptions, Dataset, Elements, Input, Length, Task};
use crate::diag::{Reported, Sink};
use crate::driver::{GraphEntry, PortEntry};
use crate::graph::Model;
use crate::onnx;
use crate::passes;
use crate::runtime::{
    Activations, Feed, HostTensor, Kernels, Library, MemoryPattern, ModelSource, NamedTensors,
    Options, Products, Profiling, Provider, Replay, Session, Stateful, Sums,
};
use crate::ty::DType;
use crate::weights::read_tensors;
use std::num::NonZeroUsize;
use std::path::Path;

/// What data can give a model.
const INPUTS: &[Input] = &[
    Input::InputIds,
    Input::AttentionMask,
    Input::PositionIds,
    Input::TokenTypeIds,
    Input::DecoderInputIds,
    Input::DecoderAttentionMask,
];

/// Whether data of that task gives an input.
fn gives(task: Task, input: Input) -> bool {
    let is_of_decoder = matches!(input, Input::DecoderInputIds | Input::DecoderAttentionMask);
    task == Task::Seq2Seq || !is_of_decoder
}

/// The inputs of a training graph by what they are.
#[derive(Clone, Debug, Default)]
pub(super) struct Wiring {
    /// Inputs that a batch fills.
    batch: Vec<Filled>,
    learning_rate: Option<String>,
    step: Option<String>,
    seed: Option<String>,
    /// Parameters and state, with their shapes.
    pub carried: Vec<Carried>,
}

/// An input that a batch fills.
#[derive(Clone, Debug)]
struct Filled {
    name: String,
    with: With,
    dtype: &'static str,
    /// Sizes, where they are fixed.
    dims: Vec<Option<i64>>,
}

/// What an input is filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum With {
    Made(Input),
    /// The array of the input's name.
    Array,
}

impl Filled {
    fn new(port: &PortEntry, with: With) -> Filled {
        let dims = port.shape.iter().map(serde_json::Value::as_i64);
        Filled {
            name: port.name.clone(),
            with,
            dtype: port.dtype,
            dims: dims.collect(),
        }
    }

    /// What a batch has for it.
    fn find<'b>(&self, batch: &'b Batch) -> Option<(&'b [usize], &'b Elements)> {
        match self.with {
            With::Made(input) => {
                let tensor = batch.tensor(input)?;
                Some((&tensor.dims, &tensor.elements))
            }
            With::Array => {
                let mut arrays = batch.arrays.iter();
                let array = arrays.find(|array| array.name == self.name)?;
                Some((&array.dims, &array.elements))
            }
        }
    }

    /// The tensor of a batch in the element type of the input; `None` if a batch cannot give it.
    fn tensor(&self, batch: &Batch) -> Option<HostTensor> {
        let (dims, elements) = self.find(batch)?;
        let dims: Vec<i64> = dims.iter().map(|dim| *dim as i64).collect();
        let fits = |(own, found): (&Option<i64>, &i64)| own.is_none_or(|own| own == *found);
        if dims.len() != self.dims.len() || !self.dims.iter().zip(&dims).all(fits) {
            return None;
        }
        match (elements, self.dtype) {
            (Elements::I64(values), "i64") => Some(HostTensor::from_i64(&dims, values)),
            (Elements::I64(values), "i32") => {
                let bytes = values.iter().flat_map(|v| (*v as i32).to_le_bytes());
                HostTensor::new(DType::I32, &dims, bytes.collect::<Vec<u8>>())
            }
            (Elements::I64(values), "bool") => {
                let bytes = values.iter().map(|v| u8::from(*v != 0));
                HostTensor::new(DType::Bool, &dims, bytes.collect::<Vec<u8>>())
            }
            (Elements::F32(values), "f32") => Some(HostTensor::from_f32(&dims, values)),
            (Elements::I64(values), "f32") => {
                let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
                Some(HostTensor::from_f32(&dims, &values))
            }
            (Elements::F32(values), "f16") => {
                let bytes = values
                    .iter()
                    .flat_map(|v| half::f16::from_f32(*v).to_le_bytes());
                HostTensor::new(DType::F16, &dims, bytes.collect::<Vec<u8>>())
            }
            _ => None,
        }
    }

    /// How messages write its type, such as `f32[batch, 3]`.
    fn stated(&self) -> String {
        let dims = self.dims.iter();
        let dims = dims.map(|dim| dim.map_or("?".to_owned(), |dim| dim.to_string()));
        format!("{}[{}]", self.dtype, dims.collect::<Vec<_>>().join(", "))
    }
}

/// An input that keeps its value from step to step.
#[derive(Clone, Debug)]
pub(super) struct Carried {
    pub name: String,
    /// `<module>.<parameter>` of a trained tensor; `None` for a state.
    pub parameter: Option<String>,
    dtype: DType,
    pub dims: Vec<i64>,
}

impl Carried {
    fn of(port: &PortEntry) -> Carried {
        let parameter = port.parameter.as_ref().map(|parameter| {
            let module = port.module.as_deref().unwrap_or_default();
            match module {
                "" => parameter.clone(),
                module => format!("{module}.{parameter}"),
            }
        });
        let dims = port.shape.iter().filter_map(serde_json::Value::as_i64);
        Carried {
            name: port.name.clone(),
            parameter,
            dtype: DType::named(port.dtype).unwrap_or(DType::F32),
            dims: dims.collect(),
        }
    }

    /// What it is at the start of a run without a value of its own.
    fn zeros(&self) -> Option<HostTensor> {
        let elements = self.dims.iter().product::<i64>();
        let bytes = self.dtype.byte_len(u64::try_from(elements).ok()?)?;
        HostTensor::new(
            self.dtype,
            &self.dims,
            vec![0; usize::try_from(bytes).ok()?],
        )
    }
}

impl Wiring {
    /// Fails for an input that no data gives.
    pub fn of(entry: &GraphEntry, dataset: &Dataset, sink: &mut Sink) -> Result<Wiring, Reported> {
        let mut wiring = Wiring::default();
        for port in &entry.inputs {
            let name = port.name.clone();
            match port.role {
                "labels" => {
                    let filled = Filled::new(port, With::Made(Input::Labels));
                    wiring.batch.push(filled);
                }
                "learning_rate" => wiring.learning_rate = Some(name),
                "step" => wiring.step = Some(name),
                "seed" => wiring.seed = Some(name),
                "parameter" | "state" => wiring.carried.push(Carried::of(port)),
                _ => match with(&name, dataset) {
                    Some(with) => wiring.batch.push(Filled::new(port, with)),
                    None => {
                        let given = given(dataset);
                        return Err(sink.emit(errors::no_data_for(&name, &entry.file, &given)));
                    }
                },
            }
        }
        Ok(wiring)
    }

    /// Whether a batch gives every input what it takes.
    pub fn check(&self, batch: &Batch, sink: &mut Sink) -> Result<(), Reported> {
        for input in self
            .batch
            .iter()
            .filter(|input| input.tensor(batch).is_none())
        {
            let found = input.find(batch).map(|(dims, elements)| {
                let dtype = match elements {
                    Elements::I64(_) => "i64",
                    Elements::F32(_) => "f32",
                };
                let dims: Vec<String> = dims.iter().map(usize::to_string).collect();
                format!("{dtype}[{}]", dims.join(", "))
            });
            sink.emit(errors::batch_does_not_fit(
                &input.name,
                &input.stated(),
                found.as_deref(),
            ));
        }
        sink.failed()
    }

    /// What a step gives to the next.
    pub fn carried_by(entry: &GraphEntry) -> Vec<Carried> {
        let ports = entry.inputs.iter();
        let ports = ports.filter(|port| matches!(port.role, "parameter" | "state"));
        ports.map(Carried::of).collect()
    }

    pub fn wants(&self, input: Input) -> bool {
        let mut inputs = self.batch.iter();
        inputs.any(|filled| filled.with == With::Made(input))
    }

    /// The length that the model's inputs have in every batch, if it is fixed.
    pub fn fixed_length(&self) -> Option<usize> {
        self.fixed_length_of(Input::InputIds)
    }

    fn fixed_length_of(&self, input: Input) -> Option<usize> {
        let mut inputs = self.batch.iter();
        let ids = inputs.find(|filled| filled.with == With::Made(input))?;
        let length = ids.dims.get(1).copied()??;
        usize::try_from(length).ok()
    }

    /// How batches of the graph are made.
    pub fn options(&self, pack: Option<NonZeroUsize>, options: BatchOptions) -> BatchOptions {
        BatchOptions {
            length: self.fixed_length().map_or(Length::Longest, Length::Fixed),
            decoder_length: self
                .fixed_length_of(Input::DecoderInputIds)
                .map_or(Length::Longest, Length::Fixed),
            pack,
            position_ids: self.wants(Input::PositionIds),
            token_type_ids: self.wants(Input::TokenTypeIds),
            ..options
        }
    }

    /// The tensors of a batch under the graph's names.
    pub fn inputs(&self, batch: &Batch) -> NamedTensors {
        let mut inputs = NamedTensors::default();
        for input in &self.batch {
            if let Some(tensor) = input.tensor(batch) {
                inputs.push(input.name.clone(), tensor);
            }
        }
        inputs
    }

    /// The same with what a step takes besides. What is drawn at random is decided by the seed of the run
    /// and how often something has been drawn before.
    pub fn step_inputs(
        &self,
        batch: &Batch,
        rate: f64,
        step: u64,
        (seed, drawn): (u64, u64),
    ) -> NamedTensors {
        let mut inputs = self.inputs(batch);
        let scalar = |value: i64| HostTensor::from_i64(&[], &[value]);
        if let Some(name) = &self.learning_rate {
            inputs.push(name.clone(), HostTensor::from_f32(&[], &[rate as f32]));
        }
        if let Some(name) = &self.step {
            inputs.push(name.clone(), scalar(step as i64));
        }
        if let Some(name) = &self.seed {
            // Another one every step; the primes keep runs of neighbouring seeds apart.
            let mixed = seed.wrapping_mul(1_000_003).wrapping_add(drawn) % (1 << 31);
            inputs.push(name.clone(), scalar(mixed as i64));
        }
        inputs
    }
}

/// What data has for an input of the model.
fn with(name: &str, dataset: &Dataset) -> Option<With> {
    let arrays = dataset.arrays();
    if dataset.task() == Task::Arrays {
        let mut arrays = arrays.iter();
        return arrays
            .any(|array| array.name == name)
            .then_some(With::Array);
    }
    let mut inputs = INPUTS.iter();
    let found = inputs.find(|input| input.name() == name && gives(dataset.task(), **input));
    found.map(|input| With::Made(*input))
}

/// The names of everything that data has.
fn given(dataset: &Dataset) -> Vec<String> {
    match dataset.task() {
        Task::Arrays => {
            let arrays = dataset.arrays().iter();
            arrays.map(|array| array.name.clone()).collect()
        }
        task => {
            let inputs = INPUTS.iter().filter(|input| gives(task, **input));
            inputs.map(|input| input.name().to_owned()).collect()
        }
    }
}

/// What runs training graphs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Engine {
    pub provider: Provider,
    /// How a GPU multiplies.
    pub products: Products,
    pub sums: Sums,
    /// Threads inside an operator.
    pub threads: Option<NonZeroUsize>,
    /// Whether a CPU runs neighbouring operators as one of our own.
    pub kernels: Kernels,
    pub profiling: Profiling,
    /// Whether a GPU records steps.
    pub replay: Replay,
}

impl Engine {
    /// For measuring, whose batches have a shape of their own each.
    pub(super) fn measuring(self) -> Engine {
        Engine {
            replay: Replay::Off,
            ..self
        }
    }

    /// A session without kernels.
    pub(super) fn options(self) -> Options {
        Options {
            threads: self.threads,
            provider: self.provider,
            products: self.products,
            sums: self.sums,
            // Batches have many shapes; a plan for each would keep memory for all of them.
            memory_pattern: MemoryPattern::Off,
            activations: Activations::Exact,
            profiling: self.profiling,
            replay: self.replay,
            ..Options::default()
        }
    }
}

/// Opens a training graph with what it feeds back to itself.
pub(super) fn open(
    folder: &Path,
    entry: &GraphEntry,
    engine: Engine,
    library: &'static Library,
    sink: &mut Sink,
) -> Result<Stateful, Reported> {
    let options = engine.options();
    let path = folder.join(&entry.file);
    let session = match (engine.kernels, engine.provider) {
        (Kernels::On, Provider::Cpu) => {
            let fused = Options {
                kernels: Kernels::On,
                ..options
            };
            open_changed(&path, passes::fuse, [&options, &fused], library, sink)?
        }
        // TensorFloat-32 would round what is added up.
        (_, Provider::Cuda(_))
            if options.sums == Sums::Ordered && options.products == Products::Exact =>
        {
            let change = passes::sums_as_products;
            open_changed(&path, change, [&options; 2], library, sink)?
        }
        _ => Session::open(library, ModelSource::Path(&path), &options, sink)?,
    };
    let feeds = entry.outputs.iter().filter_map(|port| {
        let input = port.feeds.clone()?;
        Some(Feed {
            output: port.name.clone(),
            input,
        })
    });
    Ok(Stateful::new(session, feeds.collect()))
}

/// Opens a training graph with other nodes in place of some, which changes nothing that a graph says:
/// with the first options where there is nothing to change, otherwise with the second. The file is not
/// changed, and what is opened is written nowhere.
fn open_changed(
    path: &Path,
    change: fn(&mut Model, &mut Sink) -> Result<usize, Reported>,
    [plain, changed]: [&Options; 2],
    library: &'static Library,
    sink: &mut Sink,
) -> Result<Session, Reported> {
    let mut model = onnx::import(path, sink)?.model;
    if change(&mut model, sink)? == 0 {
        return Session::open(library, ModelSource::Path(path), plain, sink);
    }
    let mut bytes = Vec::new();
    onnx::write_model(&model, &mut bytes)
        .map_err(|error| sink.emit(errors::internal(&error.to_string())))?;
    let source = ModelSource::BytesIn {
        name: &model.name,
        bytes: &bytes,
        folder: path.parent().unwrap_or(Path::new("")),
    };
    Session::open(library, source, changed, sink)
}

/// Gives parameters their start values, which lie in a file, and states zeros.
pub(super) fn start(
    step: &mut Stateful,
    carried: &[Carried],
    weights: &Path,
    sink: &mut Sink,
) -> Result<(), Reported> {
    let tensors = read_tensors(weights, sink)?;
    for carried in carried {
        let named = carried.parameter.as_ref().and_then(|name| {
            let tensor = tensors.iter().find(|tensor| tensor.name == *name)?;
            HostTensor::new(tensor.dtype, &tensor.dims, tensor.data.clone())
        });
        if let Some(tensor) = named.or_else(|| carried.zeros()) {
            step.set(&carried.name, &tensor, sink)?;
        }
    }
    Ok(())
}
