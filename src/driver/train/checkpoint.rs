//! Checkpoints: everything that a run needs to go on as if it had not stopped.

use super::aside::earlier;
use super::errors;
use super::identity::Identity;
use crate::data::Position;
use crate::diag::{Reported, Sink};
use crate::files;
use crate::runtime::{HostTensor, NamedTensors};
use crate::ty::DType;
use crate::weights::{NamedTensor, read_tensors, write_tensors};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

/// The one to go on from.
pub(super) const LAST: &str = "checkpoint.safetensors";

/// That of the best measurement.
pub(super) const BEST: &str = "best.safetensors";

/// The tensor that holds the [`State`] as JSON: safetensors has no other place that both formats of
/// metadata agree on.
const STATE: &str = "peftc.run";

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    pub run: Identity,
    /// Steps that are done.
    pub step: u64,
    /// Of the next batch.
    pub position: Position,
    /// Of the measurements so far.
    #[serde(default)]
    pub best: Option<Best>,
}

/// A measurement on held-out examples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Best {
    pub step: u64,
    pub loss: f64,
}

/// Keeps a copy of a checkpoint beside it, under the number of its step, and removes the oldest ones but
/// for `count`.
pub(super) fn keep(
    path: &Path,
    step: u64,
    count: NonZeroUsize,
    sink: &mut Sink,
) -> Result<(), Reported> {
    let folder = path.parent().unwrap_or(Path::new(""));
    files::copy(path, &folder.join(kept_name(step)), sink)?;
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut kept: Vec<u64> = entries
        .filter_map(|entry| kept_step(entry.file_name().to_str()?))
        .collect();
    // Later ones are there if a run goes on from one before them; it comes to them again.
    kept.retain(|kept| *kept <= step);
    kept.sort_unstable();
    let old = kept.len().saturating_sub(count.get());
    for step in &kept[..old] {
        let path = folder.join(kept_name(*step));
        if let Err(error) = fs::remove_file(&path) {
            return Err(sink.emit(files::cannot_write(&path, &error)));
        }
    }
    Ok(())
}

pub(super) fn kept_name(step: u64) -> String {
    format!("checkpoint-{step}.safetensors")
}

pub(super) fn kept_step(name: &str) -> Option<u64> {
    let step = name
        .strip_prefix("checkpoint-")?
        .strip_suffix(".safetensors")?;
    step.parse().ok()
}

/// Writes a checkpoint in place of the one before, completely or not at all.
pub(super) fn save(
    path: &Path,
    state: &State,
    tensors: &NamedTensors,
    sink: &mut Sink,
) -> Result<(), Reported> {
    let json = serde_json::to_vec(state).expect("a state is plain data");
    let mut all = vec![NamedTensor {
        name: STATE.to_owned(),
        dtype: DType::U8,
        dims: vec![json.len() as i64],
        data: json.into(),
    }];
    all.extend(tensors.iter().map(|(name, tensor)| NamedTensor {
        name: name.to_owned(),
        dtype: tensor.dtype(),
        dims: tensor.dims().to_vec(),
        data: tensor.bytes().clone(),
    }));
    write_tensors(path, &all, ("peftc", "checkpoint".to_owned()), sink)
}

/// Whether there is a checkpoint: known before anything is written.
pub(super) fn require(path: &Path, sink: &mut Sink) -> Result<(), Reported> {
    if path.exists() {
        return Ok(());
    }
    let earlier = path.parent().and_then(earlier);
    Err(sink.emit(errors::no_checkpoint(path, earlier.as_deref())))
}

/// Reads a checkpoint, of whatever run.
pub(super) fn load(path: &Path, sink: &mut Sink) -> Result<(State, NamedTensors), Reported> {
    require(path, sink)?;
    let mut state = None;
    let mut tensors = NamedTensors::default();
    let mut found = Sink::new();
    let Ok(all) = read_tensors(path, &mut found) else {
        return Err(sink.emit(errors::damaged_checkpoint(path, found)));
    };
    for tensor in all {
        if tensor.name == STATE {
            state = serde_json::from_slice::<State>(&tensor.data).ok();
            continue;
        }
        let bytes = Bytes::copy_from_slice(&tensor.data);
        if let Some(host) = HostTensor::new(tensor.dtype, &tensor.dims, bytes) {
            tensors.push(tensor.name, host);
        }
    }
    match state {
        Some(state) => Ok((state, tensors)),
        None => Err(sink.emit(errors::no_state_in(path))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run that goes on from step 4 has not come to 8 and 12 again.
    #[test]
    fn checkpoints_of_later_steps_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let last = folder.path().join(LAST);
        for name in [
            LAST,
            "checkpoint-8.safetensors",
            "checkpoint-12.safetensors",
        ] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        for step in [5, 6, 7] {
            keep(&last, step, NonZeroUsize::new(2).unwrap(), &mut Sink::new()).unwrap();
        }
        let mut steps: Vec<u64> = fs::read_dir(folder.path())
            .unwrap()
            .filter_map(|entry| kept_step(entry.unwrap().file_name().to_str()?))
            .collect();
        steps.sort_unstable();
        assert_eq!(steps, [6, 7, 8, 12]);
    }
}
