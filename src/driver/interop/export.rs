//! An adapter as PEFT saves it.

use super::config::{exact, json, ranges};
use super::form::{foreign_dims, transposed};
use super::{CONFIG, IN_FULL, MODEL, SHARED, TOOL, WEIGHTS, errors};
use crate::adapt::{Plan, PlannedMethod};
use crate::diag::{Reported, Sink, Span};
use crate::driver::compile::trained_values;
use crate::driver::session::{Loaded, Planned, Session, Spec};
use crate::files::{self, Staging};
use crate::graph::Tensor;
use crate::hir::{Form, HyperValue, Interchange, Setting, SettingValue};
use crate::modules::{Modules, Site, SiteKind};
use crate::ty::DType;
use crate::weights::{NamedTensor, write_tensors};
use serde_json::Value;
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
    let found = Found::of(spec, plan, &loaded.modules, sink)?;
    let config = found.config(spec, loaded, options, sink)?;
    let values = trained_values(plan, None, &options.values, sink)?;
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
        let mut put = |key: &str, value: Value| config.insert(key.to_owned(), value);
        put("peft_type", Value::String(self.rule.kind.node.clone()));
        put("task_type", text(&options.task));
        put("base_model_name_or_path", text(&options.base));
        // Frozen until someone asks for more: what was written is trained.
        put("inference_mode", Value::Bool(true));
        put(
            "target_modules",
            exact(self.adapted.keys().copied(), modules),
        );
        put(
            IN_FULL,
            match self.in_full.is_empty() {
                true => Value::Null,
                false => self.in_full.keys().copied().collect(),
            },
        );
        for setting in &self.rule.settings {
            match &setting.value {
                SettingValue::Any => {}
                SettingValue::Sequence => {
                    let sequence = layers.take().map(|(_, sequence)| ranges(sequence));
                    put(&setting.key.node, sequence.unwrap_or_default());
                }
                SettingValue::OneOf(values) => {
                    put(&setting.key.node, json(&values[0]));
                }
                SettingValue::Modules(flag) => {
                    let is_set =
                        |at: &At<'_>| at.method.values.get(flag) == Some(&HyperValue::Bool(true));
                    let those = self.adapted.iter().filter(|(_, at)| is_set(at));
                    put(
                        &setting.key.node,
                        exact(those.map(|(path, _)| *path), modules),
                    );
                }
                SettingValue::Hyper(name) => {
                    let (value, exceptions) = self.hyper(setting, name, sink)?;
                    put(&setting.key.node, value);
                    if let Some(key) = &setting.exceptions {
                        put(key, exceptions.into_iter().collect());
                    }
                }
            }
        }
        if layers.is_some() {
            let mut adapters = spec.program.adapters.iter();
            let asked = adapters.find_map(|adapter| adapter.layers.as_ref());
            let span = asked.map_or(self.rule.span, |layers| layers.span);
            return Err(sink.emit(errors::layers(span, &self.rule.kind.node)));
        }
        Ok(config)
    }

    /// The value that most modules have, and by path those of the others.
    fn hyper(
        &self,
        setting: &Setting,
        name: &str,
        sink: &mut Sink,
    ) -> Result<(Value, BTreeMap<String, Value>), Reported> {
        let mut counts: Vec<(&HyperValue, usize, Span)> = Vec::new();
        let of = |at: &'_ At<'p>| at.method.values.get(name);
        for at in self.adapted.values() {
            let Some(value) = of(at) else { continue };
            match counts.iter_mut().find(|(known, ..)| *known == value) {
                Some((_, count, _)) => *count += 1,
                None => counts.push((value, 1, at.method.span)),
            }
        }
        let Some(most) = counts.iter().map(|(_, count, _)| *count).max() else {
            return Ok((Value::Null, BTreeMap::new()));
        };
        let common = counts.iter().find(|(_, count, _)| *count == most);
        let (common, ..) = common.expect("some value is the most common");
        if let ([(first, ..), (second, _, span), ..], None) =
            (counts.as_slice(), &setting.exceptions)
        {
            let (first, second) = (first.to_string(), second.to_string());
            return Err(sink.emit(errors::differs(*span, &setting.key.node, &first, &second)));
        }
        let others = self
            .adapted
            .iter()
            .filter(|(_, at)| of(at) != Some(*common));
        let others = others.filter_map(|(path, at)| Some(((*path).to_owned(), json(of(at)?))));
        Ok((json(common), others.collect()))
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
                let parameter = &plan.parameters[*index];
                let Some(theirs) = foreign.iter().find(|theirs| theirs.parameter == number) else {
                    let (span, method) = (at.method.span, &at.method.name);
                    sink.emit(errors::unsaved(span, method, &parameter.parameter));
                    continue;
                };
                if !written.insert(*index) {
                    continue;
                }
                let name = match parameter.module {
                    Some(_) => format!("{MODEL}{path}.{}", theirs.name),
                    None => format!("{SHARED}{}", theirs.name),
                };
                let tensor =
                    foreign_tensor(name.clone(), &values[&parameter.name], theirs.form, &kernel);
                if tensors.insert(name, tensor).is_some() {
                    sink.emit(errors::several_tensors(at.method.span, &theirs.name));
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

fn foreign_tensor(name: String, tensor: &Tensor, form: Form, kernel: &[i64]) -> NamedTensor {
    let data = match (form, tensor.dims.as_slice()) {
        (Form::Transposed, [_, columns]) => {
            let elements = tensor.to_f64s().unwrap_or_default();
            let elements: Vec<f32> = elements.into_iter().map(|value| value as f32).collect();
            let turned = transposed(&elements, *columns as usize);
            turned
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect::<Vec<u8>>()
                .into()
        }
        _ => tensor.raw().cloned().unwrap_or_default(),
    };
    NamedTensor {
        name,
        dtype: DType::F32,
        dims: foreign_dims(form, &tensor.dims, kernel),
        data,
    }
}
