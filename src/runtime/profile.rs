//! Where a session's time went, operator by operator.

use super::errors;
use crate::diag::Diagnostic;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tempfile::TempDir;

/// What a session has recorded of its runs.
#[derive(Clone, Debug)]
pub struct Profile {
    /// ONNX Runtime's record: JSON in the trace event format that Perfetto and Chrome show.
    pub trace: Vec<u8>,
    /// Most time first; operators of the same time by name.
    pub operators: Vec<OperatorTime>,
}

/// The time of all nodes of one operator, over all runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorTime {
    pub op_type: String,
    /// How often a node of it ran.
    pub calls: u64,
    pub microseconds: u64,
}

/// An event of the trace; of those without an operator nothing is read.
#[derive(serde::Deserialize)]
struct Event {
    #[serde(default)]
    name: String,
    #[serde(default)]
    dur: u64,
    #[serde(default)]
    args: Args,
}

#[derive(Default, serde::Deserialize)]
struct Args {
    op_name: Option<String>,
}

/// Where a session records; the folder goes with it.
#[derive(Debug)]
pub(super) struct Recorder(TempDir);

impl Recorder {
    pub fn new() -> Result<Recorder, Diagnostic> {
        let made = tempfile::Builder::new().prefix("peftc-profile-").tempdir();
        let failed = |error| crate::files::cannot_write(&std::env::temp_dir(), &error);
        made.map(Recorder).map_err(failed)
    }

    /// What ONNX Runtime's file begins with; it adds the time.
    pub fn prefix(&self) -> PathBuf {
        self.0.path().join("trace")
    }
}

/// Reads ONNX Runtime's record.
pub(super) fn read(trace: Vec<u8>) -> Result<Profile, Diagnostic> {
    let events: Vec<Event> = serde_json::from_slice(&trace)
        .map_err(|error| errors::run_failed(&format!("its profile is no JSON: {error}")))?;
    let mut found: BTreeMap<String, OperatorTime> = BTreeMap::new();
    for event in events {
        let Some(op_type) = event.args.op_name else {
            continue;
        };
        // A node has events around its kernel, too; their time is the kernel's once more.
        if !event.name.ends_with("_kernel_time") {
            continue;
        }
        let entry = found.entry(op_type.clone()).or_insert(OperatorTime {
            op_type,
            calls: 0,
            microseconds: 0,
        });
        entry.calls += 1;
        entry.microseconds += event.dur;
    }
    let mut operators: Vec<OperatorTime> = found.into_values().collect();
    operators.sort_by_key(|operator| std::cmp::Reverse(operator.microseconds));
    Ok(Profile { trace, operators })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kernels_count_and_most_time_is_first() {
        let trace = br#"[
            {"cat":"Session","name":"model_run","dur":90,"args":{}},
            {"cat":"Node","name":"a_fence_before","dur":7,"args":{"op_name":"Add"}},
            {"cat":"Node","name":"a_kernel_time","dur":5,"args":{"op_name":"Add","node_index":"1"}},
            {"cat":"Node","name":"b_kernel_time","dur":40,"args":{"op_name":"MatMul"}},
            {"cat":"Node","name":"c_kernel_time","dur":6,"args":{"op_name":"Add"}}
        ]"#;
        let profile = read(trace.to_vec()).unwrap();
        let time = |op: &str, calls, microseconds| OperatorTime {
            op_type: op.to_owned(),
            calls,
            microseconds,
        };
        assert_eq!(
            profile.operators,
            [time("MatMul", 1, 40), time("Add", 2, 11)]
        );
    }

    #[test]
    fn a_record_that_is_no_json_is_an_error() {
        assert!(read(b"[{".to_vec()).is_err());
    }
}
