//! Which methods are proved, with which hyper-parameters, at which kinds of layer.

use super::net::{Layout, Size};
use crate::adapt::Plan;
use crate::hir::{HyperKind, HyperValue, Method, MethodId, Program};
use crate::modules::{Modules, SiteKind};
use std::collections::BTreeMap;

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Case {
    pub method: MethodId,
    /// The method with the hyper-parameters that are not at their defaults.
    pub label: String,
    pub arguments: BTreeMap<String, HyperValue>,
    /// The first of these that the method takes.
    pub layouts: Vec<Layout>,
}

/// Sizes that are tried, input and output: small ones first, and such that many divisions come out
/// even.
const SIZES: [(i64, i64); 4] = [(12, 20), (32, 48), (64, 96), (256, 512)];

/// The methods that pass a filter, each with its defaults and with one truth value or choice after
/// the other changed, at every kind of layer that it adapts.
pub fn cases_of(program: &Program, wanted: impl Fn(&Method) -> bool) -> Vec<Case> {
    let mut cases = Vec::new();
    for (index, method) in program.methods.iter().enumerate() {
        if !wanted(method) {
            continue;
        }
        for kind in kinds(method) {
            for arguments in variants(method) {
                cases.push(Case {
                    method: MethodId(index),
                    label: label(method, &arguments),
                    arguments,
                    layouts: layouts(kind),
                });
            }
        }
    }
    cases
}

/// The methods of a plan with the hyper-parameters and the sizes of its sites, each once.
pub fn cases_of_plan(program: &Program, plan: &Plan, modules: &Modules) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for planned in &plan.sites {
        let site = &modules.sites[planned.site];
        for method in &planned.methods {
            let found = program
                .methods
                .iter()
                .position(|m| m.name.node == method.name);
            let Some(index) = found else { continue };
            let input = match method.instance.forward.terms().next() {
                Some((_, term)) => term.ty.dims.last().and_then(|dim| dim.known()),
                None => None,
            };
            let size = Size {
                input: input.unwrap_or(site.in_features),
                output: planned
                    .slice
                    .as_ref()
                    .map_or(site.out_features, |s| s.end - s.start),
                has_bias: site.bias.is_some(),
            };
            let case = Case {
                method: MethodId(index),
                label: label(&program.methods[index], &method.values),
                arguments: method.values.clone(),
                layouts: vec![Layout::of(site.kind, vec![size])],
            };
            let is_known = |known: &Case| {
                known.method == case.method
                    && known.arguments == case.arguments
                    && known.layouts == case.layouts
            };
            if !cases.iter().any(is_known) {
                cases.push(case);
            }
        }
    }
    cases
}

fn kinds(method: &Method) -> impl Iterator<Item = SiteKind> {
    let named = |kind: &SiteKind| method.kinds.iter().any(|k| k.node == kind.name());
    SiteKind::ALL.iter().copied().filter(named)
}

fn variants(method: &Method) -> Vec<BTreeMap<String, HyperValue>> {
    let needed = method.hypers.iter().filter(|hyper| hyper.default.is_none());
    let plain: BTreeMap<String, HyperValue> = needed
        .map(|hyper| {
            let value = match &hyper.kind {
                HyperKind::Int => HyperValue::Int(2),
                HyperKind::Float => HyperValue::Float(0.5),
                HyperKind::Bool => HyperValue::Bool(false),
                HyperKind::Ints => HyperValue::Ints(vec![0, 1]),
                HyperKind::String => HyperValue::String(String::new()),
                HyperKind::Choice(options) => {
                    HyperValue::String(options.first().cloned().unwrap_or_default())
                }
            };
            (hyper.name.node.clone(), value)
        })
        .collect();
    let mut all = vec![plain.clone()];
    for hyper in &method.hypers {
        let name = &hyper.name.node;
        let now = plain.get(name).or(hyper.default.as_ref());
        let options: Vec<HyperValue> = match &hyper.kind {
            HyperKind::Bool => [false, true].map(HyperValue::Bool).into(),
            HyperKind::Choice(options) => options.iter().cloned().map(HyperValue::String).collect(),
            _ => Vec::new(),
        };
        for option in options.into_iter().filter(|option| Some(option) != now) {
            let mut changed = plain.clone();
            changed.insert(name.clone(), option);
            all.push(changed);
        }
    }
    all
}

fn label(method: &Method, values: &BTreeMap<String, HyperValue>) -> String {
    let set: Vec<String> = method
        .hypers
        .iter()
        .filter_map(|hyper| {
            let value = values.get(&hyper.name.node)?;
            let changed = hyper.default.as_ref() != Some(value);
            changed.then(|| format!("{} = {value}", hyper.name.node))
        })
        .collect();
    match set.as_slice() {
        [] => method.name.node.clone(),
        set => format!("{}({})", method.name.node, set.join(", ")),
    }
}

/// Two modules of different shapes; where a method shares a tensor that must have one shape, two of
/// the same.
fn layouts(kind: SiteKind) -> Vec<Layout> {
    let size = |input: i64, output: i64, has_bias: bool| Size {
        input,
        output: if kind == SiteKind::Norm {
            input
        } else {
            output
        },
        has_bias: has_bias && kind != SiteKind::Embedding,
    };
    SIZES
        .iter()
        .flat_map(|(a, b)| {
            [
                vec![size(*a, *b, true), size(*b, *a, false)],
                vec![size(*a, *b, true), size(*a, *b, true)],
                vec![size(*a, *a, true), size(*a, *a, true)],
            ]
        })
        .map(|sizes| Layout::of(kind, sizes))
        .collect()
}
