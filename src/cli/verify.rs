//! How far an adapted model is from its base, measured with ONNX Runtime.

use super::frame::Context;
use super::run::inputs_of;
use crate::diag::Reported;
use crate::runtime::{ModelSource, NamedTensors, Options, Session, Tolerance, Wanted, compare};
use std::path::Path;

/// The largest absolute difference of every output that both models have, on recorded inputs.
pub(super) fn differences(
    base: &Path,
    adapted: &Path,
    inputs: &Path,
    cx: &mut Context,
) -> Result<Vec<(String, f64)>, Reported> {
    let recording = NamedTensors::read_safetensors(inputs).map_err(|d| cx.sink.emit(d))?;
    let before = outputs(base, &recording, cx)?;
    let after = outputs(adapted, &recording, cx)?;
    // Nothing is outside: the caller wants the distance, not a verdict.
    let tolerance = Tolerance {
        absolute: f64::INFINITY,
        relative: 0.0,
    };
    Ok(before
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
