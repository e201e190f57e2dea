//! What the command line says of hyper-parameters.

use super::errors;
use super::plan::Settings;
use crate::diag::{Reported, Sink};
use crate::hir::{Adapter, HyperKind, HyperValue, MethodId, Program};
use std::collections::{BTreeMap, BTreeSet};

/// `--set` values by method and hyper-parameter.
pub(super) type MethodSettings = BTreeMap<(MethodId, String), HyperValue>;

pub(super) fn settings(
    program: &Program,
    adapter: &Adapter,
    wanted: &Settings,
    sink: &mut Sink,
) -> Result<MethodSettings, Reported> {
    let used: BTreeSet<MethodId> = adapter
        .adapts
        .iter()
        .flat_map(|a| a.calls.iter().map(|c| c.method))
        .collect();
    let mut found = MethodSettings::new();
    for (name, text) in wanted {
        let (only, hyper_name) = match name.split_once('.') {
            Some((method, hyper)) => (Some(method), hyper),
            None => (None, name.as_str()),
        };
        let mut hit = false;
        for id in &used {
            let method = program.method(*id);
            if only.is_some_and(|only| only != method.name.node) {
                continue;
            }
            let Some(hyper) = method.hyper(hyper_name) else {
                continue;
            };
            let Some(value) = parse_setting(&hyper.kind, text) else {
                return Err(sink.emit(errors::wrong_setting(name, text, &hyper.kind.describe())));
            };
            found.insert((*id, hyper_name.to_owned()), value);
            hit = true;
        }
        if !hit {
            let known: Vec<String> = used
                .iter()
                .flat_map(|id| {
                    program
                        .method(*id)
                        .hypers
                        .iter()
                        .map(|h| h.name.node.clone())
                })
                .collect();
            return Err(sink.emit(errors::unknown_setting(
                name,
                known.iter().map(String::as_str),
            )));
        }
    }
    Ok(found)
}

fn parse_setting(kind: &HyperKind, text: &str) -> Option<HyperValue> {
    match kind {
        HyperKind::Int => text.parse().ok().map(HyperValue::Int),
        HyperKind::Float => text
            .parse()
            .ok()
            .filter(|v: &f64| v.is_finite())
            .map(HyperValue::Float),
        HyperKind::Bool => text.parse().ok().map(HyperValue::Bool),
        HyperKind::Ints => {
            let list = text.trim().trim_start_matches('[').trim_end_matches(']');
            let all = list.split(',').map(|item| item.trim().parse().ok());
            all.collect::<Option<Vec<i64>>>().map(HyperValue::Ints)
        }
        HyperKind::String => Some(HyperValue::String(text.to_owned())),
        HyperKind::Choice(options) => options
            .iter()
            .find(|o| *o == text)
            .map(|o| HyperValue::String(o.clone())),
    }
}
