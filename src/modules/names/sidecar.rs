//! The first rung: the name map.

use super::super::call::{Call, Here};
use super::super::errors;
use super::super::level::Levels;
use super::super::map::{Entry, NameMap};
use super::super::site::NameSource;
use super::{Answer, Member};
use crate::diag::{Reported, Sink};
use rustc_hash::FxHashSet;

/// Names calls as the map says, whatever other rungs gave. Every key must be the output of a call.
pub(in super::super) fn apply(
    levels: &Levels<'_>,
    calls: &[Call<'_>],
    map: &NameMap,
    answers: &mut [Answer],
    sink: &mut Sink,
) -> Result<(), Reported> {
    let mut used: FxHashSet<&str> = FxHashSet::default();
    let mut outputs: Vec<&str> = Vec::new();
    let mut reported = Ok(());
    for (call, answer) in calls.iter().zip(answers) {
        let here = Here::new(levels, call.level, call.node);
        for value in [Some(call.output), here.result()].into_iter().flatten() {
            let name = levels.name(here.value(value));
            outputs.push(name);
            let Some(entries) = map.entries.get(name) else {
                continue;
            };
            used.insert(name);
            let end = entries
                .iter()
                .filter_map(|e| Some(e.slice.as_ref()?.end))
                .max();
            if let Some(end) = end.filter(|end| *end > call.out_features) {
                let fault = errors::slice_outside(map, name, end, call.out_features);
                reported = Err(sink.emit(fault));
            }
            take(answer, entries);
            break;
        }
    }
    for key in map
        .entries
        .keys()
        .filter(|key| !used.contains(key.as_str()))
    {
        reported = Err(sink.emit(errors::unknown_output(map, key, &outputs)));
    }
    reported
}

fn take(answer: &mut Answer, entries: &[Entry]) {
    let exporter = answer.source.take();
    let same = |entry: &Entry| entry.path == answer.path;
    let aliases = entries
        .iter()
        .all(same)
        .then(|| std::mem::take(&mut answer.aliases));
    let told: Vec<(NameSource, String)> = exporter
        .into_iter()
        .map(|source| (source, answer.path.clone()))
        .filter(|(_, path)| entries.iter().all(|entry| entry.path != *path))
        .collect();
    *answer = Answer {
        source: Some(NameSource::Map),
        aliases: aliases.unwrap_or_default(),
        disagreements: told,
        ..Answer::default()
    };
    match entries {
        [Entry { path, slice: None }] => answer.path.clone_from(path),
        _ => {
            answer.members = entries
                .iter()
                .map(|entry| Member {
                    path: entry.path.clone(),
                    slice: entry.slice.clone(),
                })
                .collect();
        }
    }
}
