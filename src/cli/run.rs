//! `peftc run`: a model on tensors from a file, and whether its outputs are as expected.

use super::errors;
use super::frame::{Context, Outcome, Payload};
use crate::diag::{Reported, Sink};
use crate::files;
use crate::runtime::{
    HostTensor, ModelSource, NamedTensors, Optimization, Options, Provider, Session, Tolerance,
    compare,
};
use clap::ValueEnum;
use serde_json::{Value, json};
use std::fmt::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// Run a model on named tensors with ONNX Runtime
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The ONNX model
    model: PathBuf,
    /// The inputs by name. In a recording that holds inputs and outputs, tensors named like an
    /// output are left out, and `input.x` stands for `x`
    #[arg(long, value_name = "SAFETENSORS")]
    input: Option<PathBuf>,
    /// Where to write the outputs
    #[arg(long, value_name = "SAFETENSORS")]
    output: Option<PathBuf>,
    /// Outputs to compare with, named `x` or `output.x`; a difference is an error
    #[arg(long, value_name = "SAFETENSORS")]
    expect: Option<PathBuf>,
    /// Allowed difference relative to the expected value
    #[arg(long, default_value_t = 1e-5)]
    rtol: f64,
    /// Allowed absolute difference
    #[arg(long, default_value_t = 1e-6)]
    atol: f64,
    /// What computes: cpu, cuda, or cuda:1 for another device
    #[arg(long, default_value = "cpu")]
    provider: Provider,
    /// Threads inside an operator; ONNX Runtime decides without it
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Which of ONNX Runtime's graph optimizations to apply
    #[arg(long, value_enum, default_value_t)]
    optimization: Level,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Level {
    Disabled,
    Basic,
    Extended,
    #[default]
    All,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Outcome {
    let input = read(args.input.as_deref(), &mut cx.sink);
    let expected = read(args.expect.as_deref(), &mut cx.sink);
    let (input, expected) = (input?, expected?);
    let library = cx.onnx_runtime(args.provider.wanted())?;
    let source = ModelSource::Path(&args.model);
    let mut session = Session::open(library, source, &options(args), &mut cx.sink)?;
    let input = inputs_of(input.unwrap_or_default(), &session);
    let outputs = session.run(&input, &mut cx.sink)?;
    let mut rows = Rows::default();
    for (name, tensor) in outputs.iter() {
        let expected = expected
            .as_ref()
            .and_then(|expected| expected_of(expected, name));
        rows.add(name, tensor, expected, args, &mut cx.sink);
    }
    if let (Some(path), 0) = (&args.expect, rows.compared) {
        let names: Vec<&str> = outputs.iter().map(|(name, _)| name).collect();
        cx.sink.emit(errors::nothing_expected(path, &names));
    }
    if let Some(path) = &args.output {
        write(path, &outputs, &mut cx.sink)?;
    }
    let json = json!({ "onnxruntime": library.version, "outputs": rows.json });
    Ok(Payload::new(rows.human, json))
}

fn read(path: Option<&Path>, sink: &mut Sink) -> Result<Option<NamedTensors>, Reported> {
    path.map(NamedTensors::read_safetensors)
        .transpose()
        .map_err(|diagnostic| sink.emit(diagnostic))
}

fn write(path: &Path, tensors: &NamedTensors, sink: &mut Sink) -> Result<(), Reported> {
    let bytes = tensors.to_safetensors().map_err(|d| sink.emit(d))?;
    files::write(path, sink, |out| out.write_all(&bytes))
}

fn options(args: &Args) -> Options {
    Options {
        threads: args.threads,
        optimization: match args.optimization {
            Level::Disabled => Optimization::Disabled,
            Level::Basic => Optimization::Basic,
            Level::Extended => Optimization::Extended,
            Level::All => Optimization::All,
        },
        provider: args.provider,
        ..Options::default()
    }
}

/// The inputs of a recording that may hold outputs, too.
pub(super) fn inputs_of(recording: NamedTensors, session: &Session) -> NamedTensors {
    let is_input = |name: &str| {
        let mut all = session.inputs().iter().chain(session.optional_inputs());
        all.any(|port| port.name == name)
    };
    let is_output = |name: &str| session.outputs().iter().any(|port| port.name == name);
    let mut inputs = NamedTensors::default();
    for (name, tensor) in recording.0 {
        if is_input(&name) {
            inputs.push(name, tensor);
            continue;
        }
        let recorded_output = name.strip_prefix("output.").unwrap_or(&name);
        match name.strip_prefix("input.") {
            Some(short) if is_input(short) => inputs.push(short, tensor),
            _ if is_output(recorded_output) => {}
            // The session says what it thinks of other names.
            _ => inputs.push(name, tensor),
        }
    }
    inputs
}

/// The expected value of an output.
fn expected_of<'a>(recording: &'a NamedTensors, output: &str) -> Option<&'a HostTensor> {
    let prefixed = || recording.get(&format!("output.{output}"));
    recording.get(output).or_else(prefixed)
}

/// The outputs as lines and as JSON.
#[derive(Default)]
struct Rows {
    human: String,
    json: Vec<Value>,
    compared: usize,
}

impl Rows {
    fn add(
        &mut self,
        name: &str,
        tensor: &HostTensor,
        expected: Option<&HostTensor>,
        args: &Args,
        sink: &mut Sink,
    ) {
        let _ = write!(self.human, "{name}: {}", tensor.ty());
        let mut row = json!({
            "name": name, "dtype": tensor.dtype().name(), "shape": tensor.dims(),
        });
        match summary(tensor) {
            Some([least, mean, greatest]) => {
                let _ = write!(
                    self.human,
                    "  min {least:.6} mean {mean:.6} max {greatest:.6}"
                );
                row["min"] = least.into();
                row["mean"] = mean.into();
                row["max"] = greatest.into();
            }
            None => self.human.push_str("  no elements"),
        }
        if let Some(expected) = expected {
            self.compared += 1;
            let (words, json) = self::expect(name, tensor, expected, args, sink);
            let _ = write!(self.human, "\n  {words}");
            row["comparison"] = json;
        } else if args.expect.is_some() {
            self.human
                .push_str("\n  not compared: nothing is expected of it");
        }
        self.human.push('\n');
        self.json.push(row);
    }
}

fn expect(
    name: &str,
    tensor: &HostTensor,
    expected: &HostTensor,
    args: &Args,
    sink: &mut Sink,
) -> (String, Value) {
    let tolerance = Tolerance {
        absolute: args.atol,
        relative: args.rtol,
    };
    let comparison = match compare(tensor, expected, tolerance) {
        Ok(comparison) => comparison,
        Err(reason) => {
            sink.emit(errors::outputs_differ(name, &reason));
            return (format!("differs: {reason}"), json!({ "equal": false }));
        }
    };
    let mut words = format!(
        "largest difference {:.3e} over {} elements",
        comparison.largest_difference, comparison.elements
    );
    if comparison.outside > 0 {
        words = format!("{} outside the tolerance, {words}", comparison.outside);
        if let Some(worst) = &comparison.worst {
            let _ = write!(
                words,
                ", worst at {:?}: {} where {} is expected",
                worst.index, worst.actual, worst.expected
            );
        }
        sink.emit(errors::outputs_differ(name, &words));
    }
    let json = json!({
        "equal": comparison.outside == 0,
        "elements": comparison.elements,
        "outside": comparison.outside,
        "largest_difference": comparison.largest_difference,
        "rtol": args.rtol,
        "atol": args.atol,
    });
    (words, json)
}

/// Least, mean and greatest element.
fn summary(tensor: &HostTensor) -> Option<[f64; 3]> {
    let values = tensor.to_f64s().filter(|values| !values.is_empty())?;
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Some([
        least,
        values.iter().sum::<f64>() / values.len() as f64,
        greatest,
    ])
}
