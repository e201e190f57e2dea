//! An adapter of PEFT as a spec and its tensors.

use super::config::{
    exception, hyper, is, is_neutral, json, lists, unreadable_expression, written_ranges,
};
use super::export::kernel;
use super::form::{foreign_dims, transposed};
use super::{CONFIG, IN_FULL, MODEL, SHARED, TOOL, WEIGHTS, errors};
use crate::adapt;
use crate::diag::{Reported, Sink};
use crate::driver::compile::Destination;
use crate::driver::session::{Loaded, Planned, SPEC_LIMIT, Session, Spec};
use crate::driver::targets::patterns;
use crate::files::{self, Staging};
use crate::graph::decode_floats;
use crate::hir::{Form, HyperValue, Interchange, Method, SettingValue};
use crate::syntax::ast::MethodItem;
use crate::ty::DType;
use crate::weights::{NamedTensor, read_tensors, write_tensors};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What to import, and where to.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// The folder of the adapter.
    pub folder: PathBuf,
    /// What the adapter is called.
    pub name: String,
    pub destination: Destination,
}

/// What an import has written.
#[derive(Debug)]
pub struct ImportArtifacts {
    pub spec: PathBuf,
    pub weights: PathBuf,
    /// What PEFT calls the method, and what the library does.
    pub kind: String,
    pub method: String,
    pub modules: usize,
    pub tensors: usize,
}

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

/// Writes an adapter of PEFT as `<model>.<name>.peft` and `.safetensors` beside the model, or as
/// `<name>.peft` and `.safetensors` in a folder. Tensors become f32.
///
/// Errors: what is no adapter, or one that no method of the library is (E0909), and files that cannot be
/// read or written.
pub fn import(
    session: &mut Session<'_>,
    loaded: &Loaded,
    options: &ImportOptions,
) -> Result<ImportArtifacts, Reported> {
    let path = options.folder.join(CONFIG);
    let config = configuration(&path, session.sink)?;
    let tensors = tensors_of(&options.folder, session.sink)?;
    let library = session.library()?;
    let (method, rule) = chosen(&path, &config, &library, session.sink)?;
    let layers = layers(rule, &config, &tensors, loaded, session.sink)?;
    let deeper = match &layers {
        Some(text) => session.with_layers(text, loaded)?,
        None => Cow::Borrowed(loaded),
    };
    let loaded = &*deeper;
    let sorted = Sorted::of(&method, &library, &config, tensors, loaded, session.sink)?;
    let groups = groups(&path, &method, rule, &config, &sorted, session.sink)?;
    let text = written((options, layers), &method, &groups, &sorted, loaded);
    let names = Names::new(&loaded.path, options);
    let spec = session.spec_of(&names.spec, &text)?;
    let adapter = session.one_adapter(&spec, None)?;
    let (loaded, planned) = session.plan(&spec, adapter, loaded, &adapt::Options::default())?;
    session.sink.failed()?;
    let ours = own_tensors(&planned, &loaded, &sorted, &method, session.sink)?;
    let sink = &mut *session.sink;
    let staging = Staging::new(&names.folder, sink)?;
    let metadata = ("peftc", format!("{} from PEFT", options.name));
    write_tensors(&staging.path(&names.weights), &ours, metadata, sink)?;
    files::write(&staging.path(&names.spec), sink, |out| {
        out.write_all(text.as_bytes())
    })?;
    staging.publish(&[names.weights.clone(), names.spec.clone()], sink)?;
    Ok(ImportArtifacts {
        spec: names.folder.join(&names.spec),
        weights: names.folder.join(&names.weights),
        kind: rule_kind(&method),
        method: method.name.node.clone(),
        modules: sorted.adapted.len() + sorted.in_full.len(),
        tensors: ours.len(),
    })
}

fn rule_kind(method: &Method) -> String {
    rule_of(method).map_or_else(String::new, |rule| rule.kind.node.clone())
}

fn rule_of(method: &Method) -> Option<&Interchange> {
    method
        .interchange
        .iter()
        .find(|rule| rule.tool.node == TOOL)
}

fn configuration(path: &Path, sink: &mut Sink) -> Result<Map<String, Value>, Reported> {
    let text = files::read_text(path, SPEC_LIMIT, sink)?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(config)) => Ok(config),
        Ok(_) => Err(sink.emit(errors::no_config(path, "it is no object"))),
        Err(error) => Err(sink.emit(errors::no_config(path, &error.to_string()))),
    }
}

fn tensors_of(folder: &Path, sink: &mut Sink) -> Result<Vec<NamedTensor>, Reported> {
    let path = folder.join(WEIGHTS);
    if !path.exists() && folder.join("adapter_model.bin").exists() {
        return Err(sink.emit(errors::pickled(folder)));
    }
    let tensors = read_tensors(&path, sink)?;
    if tensors.is_empty() {
        return Err(sink.emit(errors::nothing()));
    }
    Ok(tensors)
}

/// The method of the library that does what the configuration asks for.
fn chosen<'l>(
    path: &Path,
    config: &Map<String, Value>,
    library: &'l Spec,
    sink: &mut Sink,
) -> Result<(Arc<Method>, &'l Interchange), Reported> {
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
    let judged = of_kind.map(|(method, rule)| (unknown(method, rule, config), *method, *rule));
    let judged: Vec<_> = judged.collect();
    let Some((reasons, method, rule)) = judged.iter().min_by_key(|(reasons, _, rule)| {
        // Several methods may be one once they are trained: the one that reads the most is it.
        let read = rule.settings.len();
        (reasons.len(), unsaid(rule, config), Reverse(read))
    }) else {
        let mut kinds: Vec<&str> = known
            .iter()
            .map(|(_, rule)| rule.kind.node.as_str())
            .collect();
        kinds.sort_unstable();
        kinds.dedup();
        return Err(sink.emit(errors::unknown_kind(kind, &kinds)));
    };
    if !reasons.is_empty() {
        return Err(sink.emit(errors::settings(path, &method.name.node, reasons)));
    }
    Ok((Arc::clone(method), *rule))
}

/// How many settings of the method are not in the configuration though they would not be what they are
/// by themselves: older versions do not write what they do not know.
fn unsaid(rule: &Interchange, config: &Map<String, Value>) -> usize {
    let absent = rule
        .settings
        .iter()
        .filter(|s| !config.contains_key(&s.key.node));
    let is_said = |value: &SettingValue| match value {
        SettingValue::OneOf(values) => !values.iter().any(|value| is_neutral(&json(value))),
        _ => false,
    };
    absent.filter(|setting| is_said(&setting.value)).count()
}

/// Settings without which the method is not: those of hyper-parameters that have no value by themselves.
fn unfilled(
    method: &Method,
    rule: &Interchange,
    config: &Map<String, Value>,
) -> impl Iterator<Item = String> {
    let absent = rule.settings.iter().filter(|setting| match &setting.value {
        SettingValue::Hyper(name) => {
            let given = config.get(&setting.key.node);
            let needed = method
                .hyper(name)
                .is_some_and(|spec| spec.default.is_none());
            needed && given.is_none_or(Value::is_null)
        }
        _ => false,
    });
    absent.map(|setting| format!("it has no `{}`", setting.key.node))
}

/// The statement `layers` of the configuration, if it has such a setting: the list is the one whose numbers
/// the tensors have.
fn layers(
    rule: &Interchange,
    config: &Map<String, Value>,
    tensors: &[NamedTensor],
    loaded: &Loaded,
    sink: &mut Sink,
) -> Result<Option<String>, Reported> {
    let mut settings = rule.settings.iter();
    let setting = settings.find(|setting| setting.value == SettingValue::Sequence);
    let ranges =
        setting.and_then(|s| Some((&s.key.node, written_ranges(config.get(&s.key.node)?)?)));
    let Some((key, ranges)) = ranges.filter(|(_, ranges)| !ranges.is_empty()) else {
        return Ok(None);
    };
    let named = tensors
        .iter()
        .filter_map(|tensor| tensor.name.strip_prefix(MODEL));
    let mut lists: BTreeSet<&str> = BTreeSet::new();
    for name in named {
        let numbers = name.match_indices('.').filter(|(at, _)| {
            let number = name[at + 1..].split('.').next();
            number.is_some_and(|number| number.parse::<usize>().is_ok())
        });
        // Lists within layers come behind those of layers.
        lists.extend(numbers.map(|(at, _)| &name[..at]).take(1));
    }
    let has = |list: &&str| {
        let first = format!("{list}.0.");
        let mut sites = loaded.modules.sites.iter();
        sites.any(|site| site.paths().any(|path| path.starts_with(&first)))
    };
    let known: Vec<&str> = lists.into_iter().filter(has).collect();
    match known.as_slice() {
        [list] => Ok(Some(format!(
            "  layers \"{list}\" = [{}]\n",
            ranges.join(", ")
        ))),
        _ => Err(sink.emit(errors::no_list_of_layers(key))),
    }
}

/// What the configuration says that the method does not do.
fn unknown(method: &Method, rule: &Interchange, config: &Map<String, Value>) -> Vec<String> {
    let mut reasons: Vec<String> = unfilled(method, rule, config).collect();
    let exceptions = rule.settings.iter().filter_map(|s| s.exceptions.as_ref());
    let exceptions: BTreeSet<&str> = exceptions.map(String::as_str).collect();
    for (key, value) in config {
        if let Some(why) = exceptions
            .contains(key.as_str())
            .then(|| unreadable_expression(value))
            .flatten()
        {
            reasons.push(format!("`{key}` has the expression `{why}`"));
            continue;
        }
        let setting = rule.settings.iter().find(|s| s.key.node == *key);
        let is_silent = setting.is_none() && SILENT.contains(&key.as_str());
        if is_silent || exceptions.contains(key.as_str()) {
            continue;
        }
        let is_known = match setting.map(|setting| &setting.value) {
            Some(SettingValue::Any | SettingValue::Modules(_)) => true,
            Some(SettingValue::Sequence) => value.is_null() || written_ranges(value).is_some(),
            Some(SettingValue::OneOf(values)) => {
                value.is_null() || values.iter().any(|wanted| is(value, wanted))
            }
            Some(SettingValue::Hyper(name)) => {
                let spec = method.hyper(name);
                value.is_null() || spec.is_some_and(|spec| hyper(&spec.kind, value).is_some())
            }
            None => is_neutral(value),
        };
        if !is_known {
            reasons.push(format!("it has `{key}: {value}`"));
        }
    }
    reasons
}

/// The tensors of an adapter by module.
struct Sorted {
    /// By the module's path in the model and the name behind it.
    tensors: BTreeMap<(String, String), NamedTensor>,
    /// Those that belong to no module.
    shared: BTreeMap<String, NamedTensor>,
    adapted: BTreeSet<String>,
    in_full: BTreeSet<String>,
}

/// What tensors of a method are called behind the path of a module.
fn names_of(method: &Method) -> BTreeSet<&str> {
    let rules = method.body.body.iter().filter_map(|item| match item {
        MethodItem::Interchange(rule) if rule.tool.node == TOOL => Some(rule),
        _ => None,
    });
    rules
        .flat_map(|rule| &rule.tensors)
        .map(|tensor| tensor.name.node.as_str())
        .collect()
}

impl Sorted {
    fn of(
        method: &Method,
        library: &Spec,
        config: &Map<String, Value>,
        tensors: Vec<NamedTensor>,
        loaded: &Loaded,
        sink: &mut Sink,
    ) -> Result<Sorted, Reported> {
        let mut sorted = Sorted {
            tensors: BTreeMap::new(),
            shared: BTreeMap::new(),
            adapted: BTreeSet::new(),
            in_full: BTreeSet::new(),
        };
        let own = names_of(method);
        let methods = library.program.methods.iter();
        let full = methods.filter(|method| rule_kind(method) == IN_FULL);
        let full: BTreeSet<&str> = full.flat_map(|method| names_of(method)).collect();
        let listed = config.get(IN_FULL).unwrap_or(&Value::Null);
        let mut absent = BTreeSet::new();
        for tensor in tensors {
            let inside = tensor.name.strip_prefix(MODEL);
            let split = |names: &BTreeSet<&str>| {
                let mut found = names.iter().filter_map(|name| {
                    let path = inside?.strip_suffix(name)?.strip_suffix('.')?;
                    Some((path.to_owned(), (*name).to_owned()))
                });
                found.next()
            };
            let adapted = split(&own);
            let whole = split(&full).filter(|(path, _)| lists(listed, path));
            let is_adapted = adapted.is_some();
            if let Some((path, name)) = adapted.or(whole) {
                let Some(known) = module(&path, loaded) else {
                    absent.insert(path);
                    continue;
                };
                let into = if is_adapted {
                    &mut sorted.adapted
                } else {
                    &mut sorted.in_full
                };
                into.insert(known.clone());
                sorted.tensors.insert((known, name), tensor);
                continue;
            }
            let outside = tensor.name.strip_prefix(SHARED);
            match outside.filter(|name| inside.is_none() && own.contains(name)) {
                Some(name) => {
                    sorted.shared.insert(name.to_owned(), tensor);
                }
                None => {
                    sink.emit(errors::unknown_tensor(&tensor.name, &method.name.node));
                }
            }
        }
        let known: Vec<&str> = loaded
            .modules
            .sites
            .iter()
            .map(|s| s.path.as_str())
            .collect();
        for path in &absent {
            sink.emit(errors::no_module(path, known.iter().copied()));
        }
        sink.failed()?;
        Ok(sorted)
    }
}

/// The module's path in the model, where it may be called by an alias.
fn module(path: &str, loaded: &Loaded) -> Option<String> {
    let mut sites = loaded.modules.sites.iter();
    let site = sites.find(|site| site.paths().any(|known| known == path))?;
    Some(site.path.clone())
}

/// The modules of equal hyper-parameters.
type Groups = Vec<(BTreeMap<String, HyperValue>, Vec<String>)>;

fn groups(
    path: &Path,
    method: &Method,
    rule: &Interchange,
    config: &Map<String, Value>,
    sorted: &Sorted,
    sink: &mut Sink,
) -> Result<Groups, Reported> {
    let mut groups = Groups::new();
    for module in &sorted.adapted {
        let mut values = BTreeMap::new();
        for setting in &rule.settings {
            let given = config.get(&setting.key.node);
            match &setting.value {
                SettingValue::Hyper(name) => {
                    let exceptions = setting.exceptions.as_ref().and_then(|key| config.get(key));
                    let other = exceptions.and_then(|exceptions| exception(exceptions, module));
                    let Some(value) = other.or(given).filter(|value| !value.is_null()) else {
                        continue;
                    };
                    let spec = method
                        .hyper(name)
                        .expect("a setting names a hyper-parameter");
                    let Some(value) = hyper(&spec.kind, value) else {
                        let reason = format!("`{}` is {value} for `{module}`", setting.key.node);
                        return Err(sink.emit(errors::settings(
                            path,
                            &method.name.node,
                            &[reason],
                        )));
                    };
                    if spec.default.as_ref() != Some(&value) {
                        values.insert(name.clone(), value);
                    }
                }
                SettingValue::Modules(flag) => {
                    if given.is_some_and(|list| lists(list, module)) {
                        values.insert(flag.clone(), HyperValue::Bool(true));
                    }
                }
                SettingValue::OneOf(_) | SettingValue::Any | SettingValue::Sequence => {}
            }
        }
        match groups.iter_mut().find(|(known, _)| *known == values) {
            Some((_, modules)) => modules.push(module.clone()),
            None => groups.push((values, vec![module.clone()])),
        }
    }
    Ok(groups)
}

/// The spec: a statement for every group, and one for modules that are trained in full.
fn written(
    (options, layers): (&ImportOptions, Option<String>),
    method: &Method,
    groups: &Groups,
    sorted: &Sorted,
    loaded: &Loaded,
) -> String {
    let (name, called) = (&options.name, &method.name.node);
    let mut text =
        format!("//! An adapter of Hugging Face PEFT.\n\nuse std::{called}\n\nadapter {name} {{\n");
    text.push_str(&layers.unwrap_or_default());
    for (values, modules) in groups {
        // In the order in which the method declares them.
        let declared = method.hypers.iter().map(|hyper| &hyper.name.node);
        let list: Vec<String> = declared
            .filter_map(|name| Some(format!("{name} = {}", values.get(name)?)))
            .collect();
        let targets = patterns(modules, &loaded.modules);
        let between = if targets.len() == 1 { " " } else { "\n    " };
        let _ = writeln!(
            text,
            "  adapt {}{between}with {called}({})",
            targets.join(",\n    "),
            list.join(", ")
        );
    }
    if !sorted.in_full.is_empty() {
        let modules: Vec<String> = sorted.in_full.iter().cloned().collect();
        let _ = writeln!(
            text,
            "  train {}",
            patterns(&modules, &loaded.modules).join(",\n    ")
        );
    }
    text.push_str("}\n");
    text
}

/// The tensors that the written spec asks for.
fn own_tensors(
    planned: &Planned,
    loaded: &Loaded,
    sorted: &Sorted,
    method: &Method,
    sink: &mut Sink,
) -> Result<Vec<NamedTensor>, Reported> {
    let plan = &planned.plan;
    let mut found: BTreeMap<&str, NamedTensor> = BTreeMap::new();
    let mut used: BTreeSet<&str> = BTreeSet::new();
    for planned in &plan.sites {
        let site = &loaded.modules.sites[planned.site];
        let kernel = kernel(site, loaded);
        for at in &planned.methods {
            let foreign = at.instance.foreign.get(TOOL).map_or(&[][..], Vec::as_slice);
            for (number, index) in at.parameters.iter().enumerate() {
                let parameter = &plan.parameters[*index];
                let theirs = foreign.iter().find(|theirs| theirs.parameter == number);
                let tensor = theirs.and_then(|theirs| match parameter.module {
                    Some(_) => sorted
                        .tensors
                        .get(&(site.path.clone(), theirs.name.clone())),
                    None => sorted.shared.get(&theirs.name),
                });
                let (Some(theirs), Some(tensor)) = (theirs, tensor) else {
                    let name = theirs.map_or(parameter.parameter.as_str(), |theirs| &theirs.name);
                    sink.emit(errors::missing(&match parameter.module {
                        Some(_) => format!("{MODEL}{}.{name}", site.path),
                        None => format!("{SHARED}{name}"),
                    }));
                    continue;
                };
                used.insert(&tensor.name);
                match own_tensor(
                    &parameter.name,
                    &parameter.dims,
                    tensor,
                    theirs.form,
                    &kernel,
                ) {
                    Ok(tensor) => {
                        found.insert(&parameter.name, tensor);
                    }
                    Err(fault) => {
                        sink.emit(fault);
                    }
                }
            }
        }
    }
    let all = sorted.tensors.values().chain(sorted.shared.values());
    for tensor in all.filter(|tensor| !used.contains(tensor.name.as_str())) {
        sink.emit(errors::unknown_tensor(&tensor.name, &method.name.node));
    }
    sink.failed()?;
    Ok(found.into_values().collect())
}

fn own_tensor(
    name: &str,
    dims: &[i64],
    theirs: &NamedTensor,
    form: Form,
    kernel: &[i64],
) -> Result<NamedTensor, crate::diag::Diagnostic> {
    let elements = decode_floats(theirs.dtype, &theirs.data);
    let elements = elements.ok_or_else(|| errors::not_numbers(&theirs.name))?;
    let wanted = foreign_dims(form, dims, kernel);
    // PEFT has had vectors with and without an axis of 1.
    let solid = |dims: &[i64]| {
        dims.iter()
            .copied()
            .filter(|dim| *dim != 1)
            .collect::<Vec<_>>()
    };
    if solid(&wanted) != solid(&theirs.dims) {
        return Err(errors::misfit(&theirs.name, &theirs.dims, &wanted));
    }
    let mut values: Vec<f32> = elements.into_iter().map(|value| value as f32).collect();
    if let (Form::Transposed, [rows, _]) = (form, dims) {
        values = transposed(&values, *rows as usize);
    }
    Ok(NamedTensor {
        name: name.to_owned(),
        dtype: DType::F32,
        dims: dims.to_vec(),
        data: values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect::<Vec<u8>>()
            .into(),
    })
}

struct Names {
    folder: PathBuf,
    spec: String,
    weights: String,
}

impl Names {
    fn new(model: &Path, options: &ImportOptions) -> Names {
        let (folder, name) = match &options.destination {
            Destination::Folder(folder) => (folder.clone(), options.name.clone()),
            Destination::Beside => {
                let stem = model
                    .file_stem()
                    .map_or_else(String::new, |s| s.to_string_lossy().into_owned());
                let folder = model.parent().unwrap_or(Path::new("")).to_owned();
                (folder, format!("{stem}.{}", options.name))
            }
        };
        Names {
            folder,
            spec: format!("{name}.peft"),
            weights: format!("{name}.safetensors"),
        }
    }
}
