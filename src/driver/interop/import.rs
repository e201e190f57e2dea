//! An adapter of PEFT as a spec and its tensors.

use super::layers::layers;
use super::settings::{Groups, chosen, groups, rule_of};
use super::sorted::Sorted;
use super::tensors::own_tensors;
use super::{CONFIG, WEIGHTS, errors};
use crate::adapt;
use crate::diag::{Reported, Sink};
use crate::driver::artifacts::{AdapterNames, Destination, check_unread};
use crate::driver::session::{Loaded, SPEC_LIMIT, Session};
use crate::driver::targets::patterns;
use crate::files::{self, Staging};
use crate::hir::Method;
use crate::weights::{NamedTensor, read_tensors, write_tensors};
use serde_json::{Map, Value};
use std::borrow::Cow;
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
    let chosen = chosen(&path, &config, &library, session.sink)?;
    let (method, config) = (Arc::clone(chosen.method), &chosen.config);
    let layers = layers(chosen.rule, config, &tensors, loaded, session.sink)?;
    let deeper = match &layers {
        Some(text) => session.with_layers(text, loaded)?,
        None => Cow::Borrowed(loaded),
    };
    let loaded = &*deeper;
    let sorted = Sorted::of(&method, &library, config, tensors, loaded, session.sink)?;
    let groups = groups(&path, &chosen, &sorted.adapted, session.sink)?;
    let text = written((options, layers), &method, &groups, &sorted, loaded);
    let (name, destination) = (&options.name, &options.destination);
    let names = AdapterNames::new(&loaded.path, destination, name, name);
    let targets = [names.spec.as_str(), &names.weights];
    check_unread(
        &names.folder,
        targets,
        &[path, options.folder.join(WEIGHTS)],
        session.sink,
    )?;
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
