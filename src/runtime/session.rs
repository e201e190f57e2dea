//! Sessions: one loaded model that runs on named host tensors.

use super::library::{Library, preload_cuda};
use super::locate::Wanted;
use super::port::Port;
use super::profile::{self, Profile, Recorder};
use super::tensor::{HostTensor, NamedTensors};
use super::{errors, kernels, raw, replay};
use crate::diag::{Diagnostic, Reported, Sink};
use crate::files;
use ort::ep;
use ort::memory::AllocationDevice;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{DynTensor, DynTensorValueType, DynValue};
use std::num::NonZeroUsize;
use std::path::Path;
use std::str::FromStr;

/// The model of a session.
#[derive(Clone, Copy, Debug)]
pub enum ModelSource<'a> {
    /// A file; external data is looked for beside it.
    Path(&'a Path),
    /// The model's bytes, without external data; the name is for messages.
    Bytes { name: &'a str, bytes: &'a [u8] },
    /// The model's bytes; external data is looked for in the folder.
    BytesIn {
        name: &'a str,
        bytes: &'a [u8],
        folder: &'a Path,
    },
}

impl ModelSource<'_> {
    fn name(&self) -> String {
        match self {
            ModelSource::Path(path) => path.display().to_string(),
            ModelSource::Bytes { name, .. } | ModelSource::BytesIn { name, .. } => {
                (*name).to_owned()
            }
        }
    }
}

/// How a session runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Threads inside an operator; `None` leaves the number to ONNX Runtime.
    pub threads: Option<NonZeroUsize>,
    pub optimization: Optimization,
    pub memory_pattern: MemoryPattern,
    pub provider: Provider,
    pub products: Products,
    pub sums: Sums,
    pub activations: Activations,
    pub kernels: Kernels,
    pub profiling: Profiling,
    pub replay: Replay,
}

/// Whether a [`Stateful`](super::Stateful) session records its runs as CUDA graphs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replay {
    #[default]
    Off,
    /// A shape that comes again is recorded once and launched as a whole from then on. A CPU runs the
    /// same operators on the same places, and records nothing.
    On,
}

/// Whether a session records where its time goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profiling {
    #[default]
    Off,
    On,
}

/// Whether the model may have nodes that run programs of [`kernels`](crate::kernels).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kernels {
    #[default]
    Off,
    On,
}

/// ONNX Runtime's graph optimizations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Optimization {
    /// None: every node runs as it is written.
    Disabled,
    /// Only those that keep the operators.
    Basic,
    Extended,
    #[default]
    All,
}

/// Whether memory is planned from the shapes of the first run; wasteful when shapes vary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryPattern {
    #[default]
    On,
    Off,
}

/// How a product with a weight of few bits is computed where ONNX Runtime makes one node of it and of
/// the weight's `DequantizeLinear`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activations {
    /// As ONNX Runtime has it by default: activations are rounded to 8 bits, which moves results by
    /// some hundredths of their size and keeps no gradient exact.
    #[default]
    Rounded,
    /// In the precision of the activations.
    Exact,
}

/// How a GPU multiplies matrices of 32-bit floats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Products {
    /// In 32 bits, as PyTorch does unless told otherwise.
    #[default]
    Exact,
    /// Operands are rounded to TensorFloat-32 (10 bits of mantissa), sums stay in 32 bits.
    Tf32,
}

/// In which order a GPU adds numbers up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sums {
    /// In the same one every time.
    #[default]
    Ordered,
    /// As they come: faster, and no two runs need to agree in their last digits.
    AnyOrder,
}

/// What computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Provider {
    #[default]
    Cpu,
    /// The CUDA device of this number.
    Cuda(i32),
}

impl Provider {
    /// The library that has it.
    pub fn wanted(self) -> Wanted {
        match self {
            Provider::Cpu => Wanted::Cpu,
            Provider::Cuda(_) => Wanted::Cuda,
        }
    }
}

impl FromStr for Provider {
    type Err = String;

    /// `cpu`, `cuda`, or `cuda:1` for another device than the first.
    fn from_str(text: &str) -> Result<Provider, String> {
        match text.split_once(':') {
            None if text == "cpu" => Ok(Provider::Cpu),
            None if text == "cuda" => Ok(Provider::Cuda(0)),
            Some(("cuda", device)) => match device.parse::<u16>() {
                Ok(device) => Ok(Provider::Cuda(device.into())),
                Err(_) => Err("a device is a number, such as `cuda:1`".to_owned()),
            },
            _ => Err("providers are cpu and cuda".to_owned()),
        }
    }
}

/// A model loaded by ONNX Runtime.
#[derive(Debug)]
pub struct Session {
    pub(super) session: ort::session::Session,
    pub(super) inputs: Vec<Port>,
    pub(super) outputs: Vec<Port>,
    /// Inputs with a default in the model; given, the value replaces the default.
    optional: Vec<Port>,
    pub(super) provider: Provider,
    pub(super) replay: Replay,
    pub(super) sums: Sums,
    recorder: Option<Recorder>,
}

impl Session {
    /// Loads a model. ONNX Runtime's objections become a diagnostic with its words.
    pub fn open(
        library: &'static Library,
        source: ModelSource<'_>,
        options: &Options,
        sink: &mut Sink,
    ) -> Result<Session, Reported> {
        open(library, source, options).map_err(|diagnostic| sink.emit(diagnostic))
    }

    /// The inputs that must be given, in the model's order.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// The inputs that have a default.
    pub fn optional_inputs(&self) -> &[Port] {
        &self.optional
    }

    /// The outputs in the model's order.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// Runs once and returns every output in the model's order. All misfits of the inputs are
    /// reported before anything runs.
    pub fn run(
        &mut self,
        inputs: &NamedTensors,
        sink: &mut Sink,
    ) -> Result<NamedTensors, Reported> {
        let misfits = self.misfits(inputs);
        if let Some(reported) = misfits.into_iter().map(|m| sink.emit(m)).last() {
            return Err(reported);
        }
        self.run_fitting(inputs)
            .map_err(|diagnostic| sink.emit(diagnostic))
    }

    /// Ends the recording of a session that was opened with [`Profiling::On`]; `None` of another
    /// one, and the second time.
    pub fn profile(&mut self, sink: &mut Sink) -> Result<Option<Profile>, Reported> {
        let Some(_folder) = self.recorder.take() else {
            return Ok(None);
        };
        let ended = self.session.end_profiling();
        let path = ended.map_err(|error| sink.emit(errors::run_failed(error.message())))?;
        let trace = std::fs::read(&path)
            .map_err(|error| sink.emit(files::cannot_read(Path::new(&path), &error)))?;
        let profile = profile::read(trace).map_err(|diagnostic| sink.emit(diagnostic))?;
        Ok(Some(profile))
    }

    fn misfits(&self, inputs: &NamedTensors) -> Vec<Diagnostic> {
        let mut misfits = Vec::new();
        let known: Vec<Port> = self.inputs.iter().chain(&self.optional).cloned().collect();
        let mut unknown = Vec::new();
        for (name, tensor) in inputs.iter() {
            match known.iter().find(|port| port.name == name) {
                None => unknown.push(name),
                Some(port) => {
                    if let Err(reason) = fits(port, tensor) {
                        misfits.push(errors::input_differs(port, tensor, &reason));
                    }
                }
            }
        }
        if !unknown.is_empty() {
            misfits.push(errors::unknown_inputs(&unknown, &known));
        }
        let is_missing = |port: &&Port| inputs.get(&port.name).is_none();
        let missing: Vec<&Port> = self.inputs.iter().filter(is_missing).collect();
        if !missing.is_empty() {
            misfits.push(errors::missing_inputs(&missing));
        }
        misfits
    }

    fn run_fitting(&mut self, inputs: &NamedTensors) -> Result<NamedTensors, Diagnostic> {
        let failed = |error: ort::Error| errors::run_failed(error.message());
        let mut values = Vec::with_capacity(inputs.0.len());
        for (name, tensor) in inputs.iter() {
            let value =
                raw::tensor(tensor.dtype(), tensor.dims(), tensor.bytes()).map_err(failed)?;
            values.push((name, value));
        }
        let outputs = self.session.run(values).map_err(failed)?;
        let mut named = NamedTensors::default();
        // A run returns every output, in the model's order.
        for (port, value) in self.outputs.iter().zip(outputs.values()) {
            let tensor = host_tensor(&value).ok_or_else(|| errors::not_a_tensor(port))?;
            named.push(port.name.clone(), tensor);
        }
        Ok(named)
    }
}

fn open(
    library: &'static Library,
    source: ModelSource<'_>,
    options: &Options,
) -> Result<Session, Diagnostic> {
    // A file that cannot be read is no fault of the model.
    if let ModelSource::Path(path) = source {
        let is_folder = || Err(std::io::ErrorKind::IsADirectory.into());
        let opened = if path.is_dir() {
            is_folder()
        } else {
            std::fs::File::open(path)
        };
        opened.map_err(|error| files::cannot_read(path, &error))?;
    }
    let refused = |error: &ort::Error| errors::model_refused(&source.name(), error.message());
    let mut builder = builder(library, options).map_err(|error| refused(&error))?;
    if let ModelSource::BytesIn { folder, .. } = source {
        let key = "session.model_external_initializers_file_folder_path";
        let placed = builder.with_config_entry(key, folder.to_string_lossy());
        builder = placed.map_err(|error| refused(&error.into()))?;
    }
    if options.kernels == Kernels::On {
        let domain = kernels::domain().map_err(|error| refused(&error))?;
        let known = builder.with_operators(domain);
        builder = known.map_err(|error| refused(&error.into()))?;
    }
    let recorder = match options.profiling {
        Profiling::On => Some(Recorder::new()?),
        Profiling::Off => None,
    };
    if let Some(recorder) = &recorder {
        let recording = builder.with_profiling(recorder.prefix());
        builder = recording.map_err(|error| refused(&error.into()))?;
    }
    if let Provider::Cuda(device) = options.provider {
        builder = with_cuda(library, builder, device, options)?;
    }
    let session = match source {
        ModelSource::Path(path) => builder.commit_from_file(path),
        ModelSource::Bytes { bytes, .. } | ModelSource::BytesIn { bytes, .. } => {
            builder.commit_from_memory(bytes)
        }
    }
    .map_err(|error| match options.replay {
        Replay::On if error.message().contains("graph capture") => {
            errors::no_graphs(error.message())
        }
        _ => refused(&error),
    })?;
    let optional = session.overridable_initializers();
    Ok(Session {
        inputs: session.inputs().iter().map(Port::new).collect(),
        outputs: session.outputs().iter().map(Port::new).collect(),
        optional: optional
            .iter()
            .map(|given| Port::from_type(given.name(), given.dtype()))
            .collect(),
        provider: options.provider,
        replay: options.replay,
        sums: options.sums,
        recorder,
        session,
    })
}

fn builder(library: &'static Library, options: &Options) -> Result<SessionBuilder, ort::Error> {
    let level = match options.optimization {
        Optimization::Disabled => GraphOptimizationLevel::Disable,
        Optimization::Basic => GraphOptimizationLevel::Level1,
        Optimization::Extended => GraphOptimizationLevel::Level2,
        Optimization::All => GraphOptimizationLevel::All,
    };
    let mut builder = SessionBuilder::new(&library.environment)?
        .with_optimization_level(level)?
        .with_memory_pattern(options.memory_pattern == MemoryPattern::On)?;
    if options.activations == Activations::Exact {
        builder = builder.with_config_entry("session.qdq_matmulnbits_accuracy_level", "1")?;
    }
    if let Some(threads) = options.threads {
        builder = builder.with_intra_threads(threads.get())?;
    }
    Ok(builder)
}

fn with_cuda(
    library: &'static Library,
    builder: SessionBuilder,
    device: i32,
    options: &Options,
) -> Result<SessionBuilder, Diagnostic> {
    let absent = |words: &str| errors::no_provider("CUDA", words);
    if !library.has_cuda() {
        return Err(absent(&format!(
            "version {} from {} was built without it",
            library.version,
            library.path.display()
        )));
    }
    if options.replay == Replay::On && !replay::is_sound(&library.version) {
        return Err(errors::no_graphs(&format!(
            "version {} forgets what a recorded step copies; {} does not",
            library.version,
            replay::LOWEST_VERSION
        )));
    }
    preload_cuda(library);
    let provider = ep::CUDA::default()
        .with_device_id(device)
        .with_tf32(options.products == Products::Tf32)
        .with_cuda_graph(options.replay == Replay::On)
        // Steps have the same sizes again and again; doubling would hold memory that none of them needs.
        .with_arena_extend_strategy(ep::ArenaExtendStrategy::SameAsRequested);
    builder
        .with_deterministic_compute(options.sums == Sums::Ordered)
        .map_err(|error| absent(error.message()))?
        .with_execution_providers([provider.build().error_on_failure()])
        .map_err(|error| absent(error.message()))
}

pub(super) fn value(tensor: &HostTensor) -> Result<DynTensor, Diagnostic> {
    raw::tensor(tensor.dtype(), tensor.dims(), tensor.bytes())
        .map_err(|error| errors::run_failed(error.message()))
}

/// Whether a tensor is what the port asks for. Dimensions with a name may have any size: ONNX
/// Runtime does not hold exporters to one size a name either.
pub(super) fn fits(port: &Port, tensor: &HostTensor) -> Result<(), String> {
    let Some(ty) = &port.ty else {
        return Err(format!("it takes {}, which no tensor is", port.words));
    };
    if ty.dtype != tensor.dtype() {
        return Err(format!("type {}, not {}", tensor.dtype(), ty.dtype));
    }
    let Some(shape) = &ty.shape else {
        return Ok(());
    };
    if shape.rank() != tensor.dims().len() {
        let rank = tensor.dims().len();
        return Err(format!("rank {rank}, not {}", shape.rank()));
    }
    for (axis, (asked, size)) in shape.0.iter().zip(tensor.dims()).enumerate() {
        match asked.known() {
            Some(asked) if asked != *size => {
                return Err(format!("axis {axis} is {size}, not {asked}"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A copy in host memory, also of a tensor on a device; `None` for what is no tensor.
pub(super) fn host_tensor(value: &DynValue) -> Option<HostTensor> {
    let tensor = value.view().downcast::<DynTensorValueType>().ok()?;
    if !tensor.memory_info().is_cpu_accessible() {
        let copy = tensor.to(AllocationDevice::CPU, 0).ok()?;
        return host_tensor(&copy.into_dyn());
    }
    let dtype = raw::dtype(*tensor.data_type())?;
    let dims: Vec<i64> = tensor.shape().to_vec();
    HostTensor::new(dtype, &dims, raw::tensor_bytes(&tensor)?)
}
