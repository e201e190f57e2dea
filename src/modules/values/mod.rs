//! Names from values: the tensor of the original checkpoint that a weight was made from.
//!
//! In: calls with the answers of the other rungs, and the tensors of the checkpoint. Out: paths for
//! calls without one, and the members of fused projections. What holds: a path is given only where
//! the values of exactly one module's `weight` fit all of the call's; where several fit, all are
//! reported and none is taken. Not here: opening files, and parameters that are not a module's
//! `weight`.

mod codes;
mod matrix;
mod search;

use super::call::Call;
use super::errors;
use super::level::Levels;
use super::names::{Answer, Member};
use super::site::{NameSource, SiteKind};
use crate::diag::{Reported, Sink};
use crate::graph::Tensor;
use crate::ty::DType;
use bytes::Bytes;
use matrix::Matrix;
use rustc_hash::FxHashMap;
use search::{Found, Search};

/// A tensor of the checkpoint that a model was made from; little-endian, row-major.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Torch's name of the parameter.
    pub name: String,
    pub dtype: DType,
    pub dims: Vec<i64>,
    pub data: Bytes,
}

/// Gives the bytes of a tensor of the model.
pub type ReadWeight<'a> = dyn Fn(&Tensor, &mut Sink) -> Result<Bytes, Reported> + 'a;

/// What values are compared with, and how those of the model are read.
#[derive(Clone, Copy)]
pub struct Checkpoint<'a> {
    pub candidates: &'a [Candidate],
    pub read: &'a ReadWeight<'a>,
}

/// Names what no other rung has named; says where values contradict another rung.
pub(super) fn apply(
    levels: &Levels<'_>,
    calls: &[Call<'_>],
    checkpoint: Checkpoint<'_>,
    answers: &mut [Answer],
    sink: &mut Sink,
) -> Result<(), Reported> {
    let search = Search::new(checkpoint.candidates);
    let mut found = Vec::with_capacity(calls.len());
    for (call, answer) in calls.iter().zip(&*answers) {
        let weight = Matrix::of_call(levels, call, checkpoint.read, sink)?;
        found.push(match weight {
            Some(weight) if is_named(answer) => search.contradiction(&weight, &answer.path),
            Some(weight) => search.find(&weight),
            None => Found::Nothing,
        });
    }
    let kinds = kinds(calls, answers);
    let mut report = Report::default();
    let mut named = Vec::new();
    for (index, found) in found.into_iter().enumerate() {
        let (call, answer) = (&calls[index], &mut answers[index]);
        if is_named(answer) {
            report.contradiction(answer, found);
        } else if settle(call, answer, found, &kinds, &mut report, levels) {
            named.push(index);
        }
    }
    refuse_two_kinds(calls, &named, answers);
    report.emit(sink);
    Ok(())
}

fn is_named(answer: &Answer) -> bool {
    let members = answer.members();
    members.iter().all(|member| !member.path.is_empty())
}

/// The kind of layer behind every path that another rung gave: a module has one.
fn kinds(calls: &[Call<'_>], answers: &[Answer]) -> FxHashMap<String, SiteKind> {
    let mut kinds = FxHashMap::default();
    for (call, answer) in calls.iter().zip(answers) {
        for member in answer.members() {
            kinds.insert(member.path, call.kind);
        }
    }
    kinds
}

/// Names a call from what was found. Whether it has one path now.
fn settle(
    call: &Call<'_>,
    answer: &mut Answer,
    found: Found,
    kinds: &FxHashMap<String, SiteKind>,
    report: &mut Report,
    levels: &Levels<'_>,
) -> bool {
    let paths = match found {
        Found::Nothing => {
            "no tensor of the checkpoint has its values".clone_into(&mut answer.because);
            return false;
        }
        Found::Members(members) => {
            answer.source = Some(NameSource::WeightValues);
            answer.members = members;
            return false;
        }
        Found::Modules(paths) => paths,
    };
    let of_kind = |path: &&String| kinds.get(*path).is_none_or(|kind| *kind == call.kind);
    let possible: Vec<&String> = paths.iter().filter(of_kind).collect();
    match possible[..] {
        [path] => {
            *answer = Answer {
                path: path.clone(),
                source: Some(NameSource::WeightValues),
                ..Answer::default()
            };
            true
        }
        [] => {
            answer.because = format!("its values are those of {}, another layer", list(&paths));
            false
        }
        _ => {
            answer.because = format!("its values are those of {} alike", list(&paths));
            let node = levels.graph(call.level).display_name(call.node);
            report.ambiguous.push((node, paths));
            false
        }
    }
}

fn list(paths: &[String]) -> String {
    let quoted: Vec<String> = paths.iter().map(|path| format!("`{path}`")).collect();
    quoted.join(" and ")
}

/// Tied layers of different kinds are two modules, of which the checkpoint names one. Which one it
/// is cannot be seen in the values.
fn refuse_two_kinds(calls: &[Call<'_>], named: &[usize], answers: &mut [Answer]) {
    let mut by_path: FxHashMap<String, Vec<usize>> = FxHashMap::default();
    for index in named {
        let path = answers[*index].path.clone();
        by_path.entry(path).or_default().push(*index);
    }
    for (path, group) in by_path {
        if group
            .iter()
            .all(|index| calls[*index].kind == calls[group[0]].kind)
        {
            continue;
        }
        for index in group {
            answers[index] = Answer {
                because: format!("layers of different kinds have the values of `{path}`"),
                ..Answer::default()
            };
        }
    }
}

/// What the user is told: the first case of each kind with the number of all.
#[derive(Default)]
struct Report {
    /// Path and rung of a named layer, and the module that has its values.
    contradictions: Vec<(String, NameSource, String)>,
    ambiguous: Vec<(String, Vec<String>)>,
}

impl Report {
    fn contradiction(&mut self, answer: &mut Answer, found: Found) {
        let (Found::Modules(paths), Some(source)) = (found, answer.source) else {
            return;
        };
        let [path] = &paths[..] else {
            return;
        };
        let case = (answer.path.clone(), source, path.clone());
        self.contradictions.push(case);
        let said = (NameSource::WeightValues, path.clone());
        answer.disagreements.push(said);
    }

    fn emit(&self, sink: &mut Sink) {
        if let Some((path, source, other)) = self.contradictions.first() {
            let count = self.contradictions.len();
            sink.warn(errors::values_contradict(path, *source, other, count));
        }
        if let Some((node, paths)) = self.ambiguous.first() {
            let count = self.ambiguous.len();
            sink.warn(errors::values_fit_several(node, &list(paths), count));
        }
    }
}

/// A member of a fused projection.
fn member(path: &str, start: usize, end: usize) -> Member {
    Member {
        path: path.to_owned(),
        slice: Some(start as i64..end as i64),
    }
}
