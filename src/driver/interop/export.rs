//! An adapter as PEFT saves it.

use super::config::{exact, json, names, ranges};
use super::form::{foreign_dims, transposed};
use super::sorted::{holder, tensor_name};
use super::tensors::started;
use super::{CONFIG, IN_FULL, SHARED, TOOL, WEIGHTS, errors};
use crate::adapt::{Plan, PlannedMethod};
use crate::diag::{Reported, Sink, Span};
use crate::driver::artifacts::check_unread;
use crate::driver::session::{Loaded, Planned, Session, Spec};
use crate::driver::values::trained_values;
use crate::files::{self, Staging};
use crate::graph::Tensor;
use crate::hir::{Foreign, Form, Interchange, Setting, SettingValue};
use crate::modules::{Modules, Site, SiteKind};
use crate::ty::DType;
use crate::weights::{NamedTensor, write_tensors};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// What to export, and where to.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// The adapter's tensors.
    pub values: PathBuf,
    /// The folder of the adapter.
    pub folder: PathBuf,
    /// What PEFT calls the base model: `base_model_name_or_path`.
    pub base: Option<String>,
    /// What PEFT is to build around the model: `task_type`.
    pub task: Option<String>,
}

/// What an export has written.
#[derive(Debug)]
pub struct ExportArtifacts {
    pub config: PathBuf,
    pub weights: PathBuf,
    /// What PEFT calls the method.
    pub kind: String,
    pub modules: usize,
    pub tensors: usize,
}

/// Writes an adapter as `adapter_config.json` and `adapter_model.safetensors`, all in f32 and in
/// torch's layout.
///
/// Errors: what PEFT cannot say (E0910), tensors that are not those of the plan (E0902 to E0904), and
/// files that cannot be read or written.
pub fn export(
    session: &mut Session<'_>,
    spec: &Spec,
    loaded: &Loaded,
    planned: &Planned,
    options: &ExportOptions,
) -> Result<ExportArtifacts, Reported> {
    let sink = &mut *session.sink;
    let plan = &planned.plan;
    let read = [options.values.clone(), spec.path.clone()];
    check_unread(&options.folder, [WEIGHTS, CONFIG], &read, sink)?;
    let found = Found::of(spec, plan, &loaded.modules, sink)?;
    let config = found.config(spec, loaded, options, sink)?;
    let values = trained_values(plan, None, &options.values, sink)?;
    found.check_derived(planned, loaded, &values, sink)?;
    let tensors = found.tensors(plan, loaded, &values, sink)?;
    let staging = Staging::new(&options.folder, sink)?;
    let count = tensors.len();
    // PEFT's own files say where their tensors come from in this way.
    let metadata = ("format", "pt".to_owned());
    write_tensors(&staging.path(WEIGHTS), &tensors, metadata, sink)?;
    let mut text = serde_json::to_string_pretty(&config).expect("a configuration is plain data");
    text.push('\n');
    let path = staging.path(CONFIG);
    files::write(&path, sink, |out| out.write_all(text.as_bytes()))?;
    staging.publish(&[WEIGHTS.to_owned(), CONFIG.to_owned()], sink)?;
    Ok(ExportArtifacts {
        config: options.folder.join(CONFIG),
        weights: options.folder.join(WEIGHTS),
        kind: found.rule.kind.node.clone(),
        modules: found.adapted.len() + found.in_full.len(),
        tensors: count,
    })
}

/// How far from each other what follows from the base model may be, of the largest element.
const DERIVED: f64 = 1e-4;

/// Puts a setting where its key says.
fn put(config: &mut BTreeMap<String, Value>, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            config.insert(key.to_owned(), value);
        }
        Some((outer, inner)) => {
            let entry = config.entry(outer.to_owned());
            let entry = entry.or_insert_with(|| Value::Object(Map::new()));
            if let Some(inside) = entry.as_object_mut() {
                inside.insert(inner.to_owned(), value);
            }
        }
    }
}

/// A method at a module.
struct At<'p> {
    site: &'p Site,
    method: &'p PlannedMethod,
}

/// An adapter sorted as PEFT has it, every module once.
struct Found<'p> {
    rule: &'p Interchange,
    adapted: BTreeMap<&'p str, At<'p>>,
    in_full: BTreeMap<&'p str, At<'p>>,
}

impl<'p> Found<'p> {
    fn of(
        spec: &'p Spec,
        plan: &'p Plan,
        modules: &'p Modules,
        sink: &mut Sink,
    ) -> Result<Found<'p>, Reported> {
        let mut rule: Option<&Interchange> = None;
        let (mut adapted, mut in_full) = (BTreeMap::new(), BTreeMap::new());
        for planned in &plan.sites {
            let site = &modules.sites[planned.site];
            let [method] = planned.methods.as_slice() else {
                let span = planned.methods.last().map(|method| method.span);
                let span = span.unwrap_or(plan.statements[planned.statement].span);
                sink.emit(errors::several_methods(span, &site.path));
                continue;
            };
            if planned.slice.is_some() {
                sink.emit(errors::part(method.span, &site.path));
                continue;
            }
            let rules = &spec.program.method(method.id).interchange;
            let Some(found) = rules.iter().find(|rule| rule.tool.node == TOOL) else {
                sink.emit(errors::no_interchange(method.span, &method.name));
                continue;
            };
            let at = At { site, method };
            if found.kind.node == IN_FULL {
                in_full.insert(site.path.as_str(), at);
                continue;
            }
            match rule {
                Some(first) if first.span != found.span => {
                    let (first, second) = (&first.kind.node, &found.kind.node);
                    let second = if first == second {
                        &method.name
                    } else {
                        second
                    };
                    sink.emit(errors::several_kinds(method.span, first, second));
                    sink.failed()?;
                }
                _ => rule = Some(found),
            }
            adapted.insert(site.path.as_str(), at);
        }
        sink.failed()?;
        let Some(rule) = rule else {
            return Err(sink.emit(errors::only_in_full(plan.statements[0].span)));
        };
        Ok(Found {
            rule,
            adapted,
            in_full,
        })
    }

    fn config(
        &self,
        spec: &Spec,
        loaded: &Loaded,
        options: &ExportOptions,
        sink: &mut Sink,
    ) -> Result<BTreeMap<String, Value>, Reported> {
        let modules = &loaded.modules;
        let mut layers = loaded.layers();
        let text = |text: &Option<String>| text.clone().map_or(Value::Null, Value::String);
        let mut config: BTreeMap<String, Value> = BTreeMap::new();
        let mut own = |key: &str, value: Value| config.insert(key.to_owned(), value);
        own("peft_type", Value::String(self.rule.kind.node.clone()));
        own("task_type", text(&options.task));
        own("base_model_name_or_path", text(&options.base));
        // Frozen until someone asks for more: what was written is trained.
        own("inference_mode", Value::Bool(true));
        own(
            "target_modules",
            exact(self.adapted.keys().copied(), modules),
        );
        own(
            IN_FULL,
            match self.in_full.is_empty() {
                true => Value::Null,
                false => self.in_full.keys().copied().collect(),
            },
        );
        for key in self.rule.keys() {
            if self.rule.is_list(key) {
                put(&mut config, key, self.list(key, modules, sink)?);
                continue;
            }
            let is_sequence = |line: &Setting| line.value == SettingValue::Sequence;
            if self.rule.lines(key).any(is_sequence) {
                let sequence = layers.take().map(|(_, sequence)| ranges(sequence));
                put(&mut config, key, sequence.unwrap_or_default());
                continue;
            }
            if self
                .rule
                .lines(key)
                .any(|line| line.value == SettingValue::Last)
            {
                let count = self.last(modules, &config, sink)?;
                put(&mut config, key, count);
                continue;
            }
            let (value, exceptions) = self.common(key, sink)?;
            if let Some(value) = value {
                put(&mut config, key, value);
            }
            if let Some(key) = self.rule.lines(key).find_map(|l| l.exceptions.as_ref()) {
                put(&mut config, key, exceptions.into_iter().collect());
            }
        }
        if layers.is_some() {
            let mut adapters = spec.program.adapters.iter();
            let asked = adapters.find_map(|adapter| adapter.layers.as_ref());
            let span = asked.map_or(self.rule.span, |layers| layers.span);
            let method = self
                .adapted
                .values()
                .next()
                .map(|at| at.method.name.as_str());
            return Err(sink.emit(errors::layers(span, method.unwrap_or_default())));
        }
        Ok(config)
    }

    /// The modules where one of its lines holds.
    fn list(&self, key: &'p str, modules: &Modules, sink: &mut Sink) -> Result<Value, Reported> {
        let is_set = |at: &At<'_>| self.line(key, at).is_some();
        let those = self.adapted.iter().filter(|(_, at)| is_set(at));
        let those = those.map(|(path, _)| *path);
        if !self.rule.lines(key).any(|l| l.value == SettingValue::Names) {
            return Ok(exact(those, modules));
        }
        let words: BTreeSet<&str> = those.filter_map(|path| path.rsplit('.').next()).collect();
        let list: Value = words.into_iter().collect();
        let mut others = self.adapted.iter().filter(|(_, at)| !is_set(at));
        match others.find(|(path, _)| names(&list, path)) {
            Some((path, at)) => Err(sink.emit(errors::same_word(at.method.span, key, path))),
            None => Ok(list),
        }
    }

    /// How many modules there are, which have to be the last of those in what PEFT looks for.
    fn last(
        &self,
        modules: &Modules,
        config: &BTreeMap<String, Value>,
        sink: &mut Sink,
    ) -> Result<Value, Reported> {
        // Without it, the tensors have no names either.
        let Some(target) = config.get("target_modules").and_then(Value::as_str) else {
            return Ok(Value::Null);
        };
        // PEFT's adapters of this kind have nothing else in them.
        if let Some(at) = self.in_full.values().next() {
            let kind = &self.rule.kind.node;
            return Err(sink.emit(errors::several_kinds(at.method.span, kind, IN_FULL)));
        }
        let mut all: Vec<&str> = Vec::new();
        for site in modules.sites.iter().filter(|site| site.is_module()) {
            let holder = holder(&site.path);
            if holder.rsplit('.').next() == Some(target) && !all.contains(&holder) {
                all.push(holder);
            }
        }
        let own: BTreeSet<&str> = self.adapted.keys().map(|path| holder(path)).collect();
        let count = self.adapted.len();
        let last = all.len().checked_sub(count).map(|first| &all[first..]);
        let is_last = |last: &[&str]| last.iter().all(|holder| own.contains(holder));
        if own.len() == count && last.is_some_and(is_last) {
            return Ok(Value::from(count));
        }
        let first = self.adapted.values().next();
        let span = first.map_or(self.rule.span, |at| at.method.span);
        Err(sink.emit(errors::not_last(span, target, all.len())))
    }

    /// The line that says what a setting is at a module.
    fn line(&self, key: &'p str, at: &At<'_>) -> Option<&'p Setting> {
        let mut lines = self.rule.lines(key);
        lines.find(|line| line.holds(&at.method.values))
    }

    /// The value that most modules have, and by path those of the others.
    fn common(
        &self,
        key: &'p str,
        sink: &mut Sink,
    ) -> Result<(Option<Value>, BTreeMap<String, Value>), Reported> {
        let of = |at: &At<'p>| match &self.line(key, at)?.value {
            SettingValue::OneOf(values) => values.first().map(json),
            SettingValue::Hyper(name) => at.method.values.get(name).map(json),
            SettingValue::Any | SettingValue::Sequence | SettingValue::Last => None,
            SettingValue::Modules | SettingValue::Names => None,
        };
        let mut counts: Vec<(Option<Value>, usize, Span)> = Vec::new();
        for at in self.adapted.values() {
            let value = of(at);
            match counts.iter_mut().find(|(known, ..)| *known == value) {
                Some((_, count, _)) => *count += 1,
                None => counts.push((value, 1, at.method.span)),
            }
        }
        let Some(most) = counts.iter().map(|(_, count, _)| *count).max() else {
            return Ok((None, BTreeMap::new()));
        };
        let has_exceptions = self.rule.lines(key).any(|l| l.exceptions.is_some());
        if let ([(first, ..), (second, _, span), ..], false) = (counts.as_slice(), has_exceptions) {
            let text =
                |value: &Option<Value>| value.as_ref().map_or("none".into(), Value::to_string);
            let (first, second) = (text(first), text(second));
            return Err(sink.emit(errors::differs(*span, key, &first, &second)));
        }
        let common = counts.into_iter().find(|(_, count, _)| *count == most);
        let (common, ..) = common.expect("some value is the most common");
        let others = self.adapted.iter().filter(|(_, at)| of(at) != common);
        let others = others.filter_map(|(path, at)| Some(((*path).to_owned(), of(at)?)));
        Ok((common.clone(), others.collect()))
    }

    /// What PEFT makes from the base model has to be what it makes of it.
    fn check_derived(
        &self,
        planned: &Planned,
        loaded: &Loaded,
        values: &BTreeMap<String, Tensor>,
        sink: &mut Sink,
    ) -> Result<(), Reported> {
        let mut derived: Vec<(usize, Span)> = Vec::new();
        for at in self.adapted.values() {
            let foreign = at.method.instance.foreign.get(TOOL);
            for theirs in foreign.map_or(&[][..], Vec::as_slice) {
                if theirs.name.is_empty() {
                    derived.push((at.method.parameters[theirs.parameter], at.method.span));
                }
            }
        }
        if derived.is_empty() {
            return Ok(());
        }
        let starts = started(planned, loaded, sink)?;
        for (index, span) in derived {
            let name = &planned.plan.parameters[index].name;
            let ours = values[name].to_f64s().unwrap_or_default();
            let theirs = starts[index].to_f64s().unwrap_or_default();
            let scale = theirs
                .iter()
                .fold(0.0_f64, |most, value| most.max(value.abs()));
            let far = |(a, b): (&f64, &f64)| (a - b).abs() > DERIVED * scale || !a.is_finite();
            if ours.len() != theirs.len() || ours.iter().zip(&theirs).any(far) {
                sink.emit(errors::not_derived(span, name));
            }
        }
        sink.failed()
    }

    fn tensors(
        &self,
        plan: &Plan,
        loaded: &Loaded,
        values: &BTreeMap<String, Tensor>,
        sink: &mut Sink,
    ) -> Result<Vec<NamedTensor>, Reported> {
        let mut tensors: BTreeMap<String, NamedTensor> = BTreeMap::new();
        let mut written: BTreeSet<usize> = BTreeSet::new();
        for (path, at) in self.adapted.iter().chain(&self.in_full) {
            let kernel = kernel(at.site, loaded);
            let instance = &at.method.instance;
            let foreign = instance.foreign.get(TOOL).map_or(&[][..], Vec::as_slice);
            for (number, index) in at.method.parameters.iter().enumerate() {
                let (parameter, span) = (&plan.parameters[*index], at.method.span);
                let named = || foreign.iter().filter(|theirs| theirs.parameter == number);
                if named().next().is_none() {
                    let method = &at.method.name;
                    sink.emit(errors::unsaved(span, method, &parameter.parameter));
                    continue;
                }
                let is_first = written.insert(*index);
                for theirs in named().filter(|theirs| !theirs.name.is_empty()) {
                    let name = match parameter.module.is_some() || theirs.everywhere {
                        true => tensor_name(path, &theirs.name),
                        false if is_first => format!("{SHARED}{}", theirs.name),
                        false => continue,
                    };
                    let tensor = &values[&parameter.name];
                    let axes = (kernel.as_slice(), at.site.in_features);
                    let Some(tensor) = foreign_tensor(name.clone(), tensor, theirs, axes) else {
                        sink.emit(errors::no_positions(span, &parameter.name));
                        continue;
                    };
                    if tensors.insert(name, tensor).is_some() {
                        sink.emit(errors::several_tensors(span, &theirs.name));
                    }
                }
            }
        }
        sink.failed()?;
        Ok(tensors.into_values().collect())
    }
}

/// The sizes of a convolution's kernel; nothing for other layers.
pub(super) fn kernel(site: &Site, loaded: &Loaded) -> Vec<i64> {
    if site.kind != SiteKind::Conv {
        return Vec::new();
    }
    let graph = site.weight.scope.graph(&loaded.model);
    let tensor = graph.value(site.weight.value).tensor();
    tensor.map_or_else(Vec::new, |tensor| tensor.dims[2..].to_vec())
}

/// Nothing where PEFT has positions and these are none.
fn foreign_tensor(
    name: String,
    tensor: &Tensor,
    theirs: &Foreign,
    (kernel, width): (&[i64], i64),
) -> Option<NamedTensor> {
    let elements = || tensor.to_f64s().unwrap_or_default();
    let turned = match (theirs.form, tensor.dims.as_slice()) {
        (Form::Transposed, [_, columns]) => {
            let elements: Vec<f32> = elements().into_iter().map(|value| value as f32).collect();
            Some(transposed(&elements, *columns as usize))
        }
        _ => None,
    };
    let data = match (theirs.numbers, turned) {
        (DType::F32, None) => tensor.raw().cloned().unwrap_or_default(),
        (DType::F32, Some(turned)) => {
            let bytes = turned.iter().flat_map(|value| value.to_le_bytes());
            bytes.collect::<Vec<u8>>().into()
        }
        (numbers, turned) => {
            let mut all = turned.map_or_else(elements, |t| t.into_iter().map(f64::from).collect());
            if theirs.form == Form::Places {
                let place = |pair: &[f64]| pair[0] * width as f64 + pair[1];
                all = all.chunks_exact(2).map(place).collect();
            }
            let is_position = |value: &f64| *value >= 0.0 && value.fract() == 0.0;
            if !all.iter().all(is_position) {
                return None;
            }
            let bytes = all.into_iter().flat_map(|value| match numbers {
                DType::I32 => (value as i32).to_le_bytes().to_vec(),
                _ => (value as i64).to_le_bytes().to_vec(),
            });
            bytes.collect::<Vec<u8>>().into()
        }
    };
    Some(NamedTensor {
        name,
        dtype: theirs.numbers,
        dims: foreign_dims(theirs.form, &tensor.dims, kernel),
        data,
    })
}
