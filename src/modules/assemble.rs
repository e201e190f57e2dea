//! Calls and their answers become sites.

use super::call::Call;
use super::level::Levels;
use super::names::{Answer, Member};
use super::site::{Modules, NameSource, Scope, Site, Weight};
use crate::graph::ValueId;
use rustc_hash::FxHashMap;
use std::ops::Range;

/// One site for every member of every call; ties between the named ones are filled in.
pub(super) fn modules(levels: &Levels<'_>, calls: &[Call<'_>], answers: Vec<Answer>) -> Modules {
    let mut modules = Modules {
        // Most calls are one site each.
        sites: Vec::with_capacity(calls.len()),
        unnamed: Vec::new(),
    };
    for (call, answer) in calls.iter().zip(answers) {
        for member in answer.members() {
            let site = site(levels, call, &answer, member);
            if site.path.is_empty() {
                modules.unnamed.push(site);
            } else {
                modules.sites.push(site);
            }
        }
    }
    mark_shared(&mut modules.sites);
    modules
}

fn site(levels: &Levels<'_>, call: &Call<'_>, answer: &Answer, member: Member) -> Site {
    let root = call.weight.root;
    let named = !member.path.is_empty();
    let width = |slice: &Range<i64>| slice.end - slice.start;
    Site {
        kind: call.kind,
        source: answer.source.filter(|_| named).unwrap_or(NameSource::None),
        scope: levels.0[call.level].scope.clone(),
        node: call.node,
        input: call.input,
        output: call.output,
        weight: Weight {
            scope: levels.0[root.level].scope.clone(),
            value: root.value,
            operand: call.operand(),
            layout: call.layout,
            stored: call.stored(),
            quantization: call.weight.quantization.clone(),
        },
        bias: call.bias.as_ref().map(|bias| bias.values[0].value),
        in_features: call.in_features,
        out_features: member.slice.as_ref().map_or(call.out_features, width),
        slice: member.slice,
        dtype: call.dtype(levels.graph(call.level)),
        aliases: answer.aliases.clone(),
        shared_with: Vec::new(),
        obstacle: call.obstacle.clone(),
        disagreements: answer.disagreements.clone(),
        unnamed_because: if named {
            String::new()
        } else {
            answer.because.clone()
        },
        place: None,
        path: member.path,
    }
}

/// Fills in the paths of other sites that read the same part of the same weight.
pub(super) fn mark_shared(sites: &mut [Site]) {
    type Key = (Scope, ValueId, Option<(i64, i64)>);
    let mut readers: FxHashMap<Key, Vec<usize>> = FxHashMap::default();
    for (index, site) in sites.iter().enumerate() {
        let slice = site.slice.as_ref().map(|slice| (slice.start, slice.end));
        let key = (site.weight.scope.clone(), site.weight.value, slice);
        readers.entry(key).or_default().push(index);
    }
    for group in readers.into_values().filter(|group| group.len() > 1) {
        let mut paths: Vec<String> = group.iter().map(|i| sites[*i].path.clone()).collect();
        paths.sort();
        paths.dedup();
        for index in group {
            let own = &sites[index].path;
            sites[index].shared_with = paths.iter().filter(|path| *path != own).cloned().collect();
        }
    }
}
