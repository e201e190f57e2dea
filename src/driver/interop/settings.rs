//! Which method of the library a configuration of PEFT asks for, and with which hyper-parameters.

use super::config::{
    exception, hyper, is, is_neutral, json, lists, names, unreadable_expression, written_ranges,
};
use super::{IN_FULL, TOOL, errors};
use crate::diag::{Reported, Sink};
use crate::driver::session::Spec;
use crate::hir::{HyperValue, Interchange, Method, Setting, SettingValue};
use regex::Regex;
use serde_json::{Map, Value};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// Settings that say nothing about what a trained adapter computes with a model that is there.
const SILENT: &[&str] = &[
    "auto_mapping",
    "base_model_name_or_path",
    "fan_in_fan_out",
    "inference_mode",
    // How its tensors started.
    "init_weights",
    "layers_pattern",
    "layers_to_transform",
    "exclude_modules",
    "megatron_core",
    IN_FULL,
    "peft_type",
    "peft_version",
    "revision",
    "target_modules",
    "task_type",
];

pub(super) fn rule_of(method: &Method) -> Option<&Interchange> {
    method
        .interchange
        .iter()
        .find(|rule| rule.tool.node == TOOL)
}

/// A method of the library that a configuration may ask for.
pub(super) struct Chosen<'l> {
    pub method: &'l Arc<Method>,
    pub rule: &'l Interchange,
    /// The configuration in the words of the rule.
    pub config: Map<String, Value>,
    /// What it says that the method does not do.
    reasons: Vec<String>,
}

/// The method of the library that does what the configuration asks for.
pub(super) fn chosen<'l>(
    path: &Path,
    config: &Map<String, Value>,
    library: &'l Spec,
    sink: &mut Sink,
) -> Result<Chosen<'l>, Reported> {
    let Some(kind) = config.get("peft_type").and_then(Value::as_str) else {
        return Err(sink.emit(errors::no_config(path, "it has no `peft_type`")));
    };
    let methods = &library.program.methods;
    let known = methods
        .iter()
        .filter_map(|method| Some((method, rule_of(method)?)));
    let known: Vec<(&Arc<Method>, &Interchange)> = known
        .filter(|(_, rule)| rule.kind.node != IN_FULL)
        .collect();
    let of_kind = known.iter().filter(|(_, rule)| rule.kind.node == kind);
    let judged = of_kind.map(|(method, rule)| {
        let config = opened(rule, config);
        Chosen {
            method,
            rule,
            reasons: unknown(method, rule, &config),
            config,
        }
    });
    let Some(chosen) = judged.min_by_key(|chosen| {
        // Several methods may be one once they are trained: the one that reads the most is it.
        let read = chosen.rule.settings.len();
        let unsaid = unsaid(chosen.rule, &chosen.config);
        (chosen.reasons.len(), unsaid, Reverse(read))
    }) else {
        let mut kinds: Vec<&str> = known
            .iter()
            .map(|(_, rule)| rule.kind.node.as_str())
            .collect();
        kinds.sort_unstable();
        kinds.dedup();
        return Err(sink.emit(errors::unknown_kind(kind, &kinds)));
    };
    if !chosen.reasons.is_empty() {
        let (method, reasons) = (&chosen.method.name.node, &chosen.reasons);
        return Err(sink.emit(errors::settings(path, method, reasons)));
    }
    Ok(chosen)
}

/// The configuration with the settings inside of others beside them, as far as the rule names some there.
fn opened(rule: &Interchange, config: &Map<String, Value>) -> Map<String, Value> {
    let mut all = Map::new();
    for (key, value) in config {
        let inside = format!("{key}.");
        match value {
            Value::Object(entries) if rule.keys().any(|key| key.starts_with(&inside)) => {
                let entries = entries.iter();
                all.extend(entries.map(|(key, value)| (format!("{inside}{key}"), value.clone())));
            }
            value => {
                all.insert(key.clone(), value.clone());
            }
        }
    }
    all
}

/// How many settings of the method are not in the configuration though they would not be what they are
/// by themselves: older versions do not write what they do not know.
fn unsaid(rule: &Interchange, config: &Map<String, Value>) -> usize {
    let absent = rule.keys().filter(|key| !config.contains_key(*key));
    let is_said = |setting: &Setting| match &setting.value {
        SettingValue::OneOf(values) => !values.iter().any(|value| is_neutral(&json(value))),
        _ => false,
    };
    absent.filter(|key| rule.lines(key).all(is_said)).count()
}

/// Settings without which the method is not: those of hyper-parameters that have no value by themselves,
/// and those inside of one that is not there.
fn unfilled(
    method: &Method,
    rule: &Interchange,
    config: &Map<String, Value>,
) -> impl Iterator<Item = String> {
    let absent = rule.settings.iter().filter(|setting| {
        let key = &setting.key.node;
        let is_needed = match &setting.value {
            SettingValue::Hyper(name) => method.hyper(name).is_some_and(|h| h.default.is_none()),
            _ => false,
        };
        let is_value = matches!(
            setting.value,
            SettingValue::Hyper(_) | SettingValue::OneOf(_)
        );
        let is_inside = key.contains('.') && is_value;
        (is_needed || is_inside) && config.get(key).is_none_or(Value::is_null)
    });
    absent.map(|setting| format!("it has no `{}`", setting.key.node))
}

/// What the configuration says that the method does not do.
fn unknown(method: &Method, rule: &Interchange, config: &Map<String, Value>) -> Vec<String> {
    let mut reasons: Vec<String> = unfilled(method, rule, config).collect();
    let exceptions = rule.settings.iter().filter_map(|s| s.exceptions.as_ref());
    let exceptions: BTreeSet<&str> = exceptions.map(String::as_str).collect();
    for (key, value) in config {
        if exceptions.contains(key.as_str()) {
            let expression = unreadable_expression(value);
            reasons.extend(expression.map(|why| format!("`{key}` has the expression `{why}`")));
            continue;
        }
        let mut lines = rule.lines(key).peekable();
        let is_known = match lines.peek() {
            Some(_) => value.is_null() || lines.any(|line| fits(method, line, value)),
            None => SILENT.contains(&key.as_str()) || is_neutral(value),
        };
        if !is_known {
            reasons.push(format!("it has `{key}: {value}`"));
        }
    }
    reasons
}

/// Whether a line of the rule can say that value.
fn fits(method: &Method, line: &Setting, value: &Value) -> bool {
    match &line.value {
        SettingValue::Any | SettingValue::Names => true,
        // An expression that cannot be read would list nothing.
        SettingValue::Modules => value.as_str().is_none_or(|text| Regex::new(text).is_ok()),
        SettingValue::Sequence => written_ranges(value).is_some(),
        SettingValue::Last => value.as_u64().is_some(),
        SettingValue::OneOf(values) => values.iter().any(|wanted| is(value, wanted)),
        SettingValue::Hyper(name) => {
            let spec = method.hyper(name);
            spec.is_some_and(|spec| hyper(&spec.kind, value).is_some())
        }
    }
}

/// The modules of equal hyper-parameters.
pub(super) type Groups = Vec<(BTreeMap<String, HyperValue>, Vec<String>)>;

pub(super) fn groups(
    path: &Path,
    chosen: &Chosen<'_>,
    modules: &BTreeSet<String>,
    sink: &mut Sink,
) -> Result<Groups, Reported> {
    let mut groups = Groups::new();
    let counts = chosen.rule.settings.iter();
    for key in counts.filter(|setting| setting.value == SettingValue::Last) {
        let value = chosen.config.get(&key.key.node).filter(|v| !v.is_null());
        if let Some(value) = value.filter(|v| v.as_u64() != Some(modules.len() as u64)) {
            let (key, count) = (&key.key.node, modules.len());
            let reason = format!("`{key}` is {value}, and modules with tensors are {count}");
            return Err(sink.emit(errors::settings(path, &chosen.method.name.node, &[reason])));
        }
    }
    for module in modules {
        let values = values_at(chosen, module);
        let mut values = values.map_err(|reason| {
            let method = &chosen.method.name.node;
            sink.emit(errors::settings(path, method, &[reason]))
        })?;
        values.retain(|name, value| {
            let spec = chosen.method.hyper(name);
            spec.and_then(|spec| spec.default.as_ref()) != Some(value)
        });
        match groups.iter_mut().find(|(known, _)| *known == values) {
            Some((_, modules)) => modules.push(module.clone()),
            None => groups.push((values, vec![module.clone()])),
        }
    }
    Ok(groups)
}

/// The hyper-parameters of a module; the error is what they cannot say.
fn values_at(chosen: &Chosen<'_>, module: &str) -> Result<BTreeMap<String, HyperValue>, String> {
    let Chosen { method, rule, .. } = chosen;
    let mut values: BTreeMap<String, HyperValue> = BTreeMap::new();
    for key in rule.keys() {
        for line in rule.lines(key) {
            let tells = match (&line.value, given(chosen, line, module)) {
                (SettingValue::Modules, Some(list)) => lists(list, module),
                (SettingValue::Names, Some(list)) => names(list, module),
                (SettingValue::Any | SettingValue::Sequence | SettingValue::Last, _)
                | (_, None) => false,
                (_, Some(value)) if !fits(method, line, value) => continue,
                (SettingValue::OneOf(_), Some(_)) => true,
                (SettingValue::Hyper(name), Some(value)) => {
                    let spec = method.hyper(name);
                    let value = spec.and_then(|spec| hyper(&spec.kind, value));
                    // What another setting has said of it stays.
                    if let Some(value) = value {
                        values.entry(name.clone()).or_insert(value);
                    }
                    true
                }
            };
            for (name, value) in line.tells().filter(|_| tells) {
                values.entry(name.to_owned()).or_insert(value.clone());
            }
            break;
        }
    }
    for spec in &method.hypers {
        if let Some(default) = &spec.default {
            let name = spec.name.node.clone();
            values.entry(name).or_insert_with(|| default.clone());
        }
    }
    let fault = rule.keys().find_map(|key| {
        let line = rule.lines(key).find(|line| line.holds(&values));
        let of_list = rule.lines(key).find(|_| rule.is_list(key));
        let value = given(chosen, of_list.or(line)?, module);
        let is_right = match (of_list, line, value) {
            (Some(of_list), line, list) => {
                let has = match of_list.value {
                    SettingValue::Names => names,
                    _ => lists,
                };
                line.is_some() == list.is_some_and(|list| has(list, module))
            }
            (None, _, None) | (None, None, _) => true,
            (None, Some(line), Some(value)) => says(method, line, value, &values),
        };
        let value = value.map_or("absent".to_owned(), Value::to_string);
        (!is_right).then(|| format!("`{key}` is {value} for `{module}`"))
    });
    fault.map_or(Ok(values), Err)
}

/// Whether a line says that value at a module with these hyper-parameters.
fn says(
    method: &Method,
    line: &Setting,
    value: &Value,
    values: &BTreeMap<String, HyperValue>,
) -> bool {
    match &line.value {
        SettingValue::Hyper(name) => {
            let spec = method.hyper(name);
            let read = spec.and_then(|spec| hyper(&spec.kind, value));
            read.is_some() && read.as_ref() == values.get(name)
        }
        _ => fits(method, line, value),
    }
}

/// What the configuration says of that setting at a module; null is nothing.
fn given<'c>(chosen: &'c Chosen<'_>, line: &Setting, module: &str) -> Option<&'c Value> {
    let config = &chosen.config;
    let exceptions = line.exceptions.as_ref().and_then(|key| config.get(key));
    let other = exceptions.and_then(|exceptions| exception(exceptions, module));
    let value = other.or_else(|| config.get(&line.key.node));
    value.filter(|value| !value.is_null())
}
