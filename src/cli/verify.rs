//! How far an adapted model is from its base, measured with ONNX Runtime.

use super::frame::Context;
use super::run::inputs_of;
use crate::diag::Reported;
use crate::runtime::{ModelSource, NamedTensors, Options, Session, Tolerance, Wanted, compare};
use std::path::Path;

/// Recorded inputs, and what the base makes of them.
pub(super) struct Base {
    recording: NamedTensors,
    outputs: NamedTensors,
}

impl Base {
    /// Before anything is written: a recording that is not there or does not fit ends it here.
    pub fn run(model: &Path, inputs: &Path, cx: &mut Context) -> Result<Base, Reported> {
        let recording = NamedTensors::read_safetensors(inputs).map_err(|d| cx.sink.emit(d))?;
        let outputs = outputs(model, &recording, cx)?;
        Ok(Base { recording, outputs })
    }
}

/// The largest absolute difference of every output that both models have.
pub(super) fn differences(
    base: &Base,
    adapted: &Path,
    cx: &mut Context,
) -> Result<Vec<(String, f64)>, Reported> {
    let after = outputs(adapted, &base.recording, cx)?;
    // Nothing is outside: the caller wants the distance, not a verdict.
    let tolerance = Tolerance {
        absolute: f64::INFINITY,
        relative: 0.0,
    };
    Ok(base
        .outputs
        .iter()
        .filter_map(|(name, tensor)| {
            let comparison = compare(after.get(name)?, tensor, tolerance).ok()?;
            Some((name.to_owned(), comparison.largest_difference))
        })
        .collect())
}

fn outputs(
    model: &Path,
    recording: &NamedTensors,
    cx: &mut Context,
) -> Result<NamedTensors, Reported> {
    let library = cx.onnx_runtime(Wanted::Cpu)?;
    let source = ModelSource::Path(model);
    let mut session = Session::open(library, source, &Options::default(), &mut cx.sink)?;
    let inputs = inputs_of(recording.clone(), &session);
    session.run(&inputs, &mut cx.sink)
}
