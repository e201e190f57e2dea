//! Loads specs and models, and plans.

use super::errors;
use crate::adapt::{self, CheckedExpectation, Plan};
use crate::diag::{FileId, Reported, Sink, SourceMap};
use crate::files;
use crate::graph::Model;
use crate::hir::{self, Adapter, Program};
use crate::modules::{self, Modules};
use crate::onnx;
use crate::passes;
use crate::syntax::ast::StringLit;
use std::path::{Path, PathBuf};

/// Specs are texts that people write: larger ones are refused.
const SPEC_LIMIT: u64 = 4 << 20;

/// Source texts and diagnostics of one run.
pub struct Session<'a> {
    pub sources: &'a mut SourceMap,
    pub sink: &'a mut Sink,
}

/// A resolved spec.
pub struct Spec {
    pub path: PathBuf,
    pub file: FileId,
    pub program: Program,
}

/// How to read a model.
#[derive(Clone, Debug, Default)]
pub struct ModelOptions {
    /// A name map (`peft.names.json`).
    pub names: Option<PathBuf>,
    /// Check a spec against a graph whose external data is not there.
    pub without_data: bool,
}

/// A model with everything recovered from it.
pub struct Loaded {
    pub path: PathBuf,
    pub model: Model,
    pub modules: Modules,
    pub weights: onnx::ExternalFiles,
}

/// A plan with its expectations.
pub struct Planned {
    pub plan: Plan,
    pub expectations: Vec<CheckedExpectation>,
}

impl Session<'_> {
    /// Reads, parses and checks a spec and its imports.
    pub fn spec(&mut self, path: &Path) -> Result<Spec, Reported> {
        let text = files::read_text(path, SPEC_LIMIT, self.sink)?;
        let file = self.sources.add(path.to_string_lossy(), text);
        let mut folders = vec![(file, folder_of(path))];
        let mut load =
            |sources: &mut SourceMap, from: FileId, wanted: &StringLit, sink: &mut Sink| {
                load_import(sources, from, wanted, sink, &mut folders)
            };
        let program = hir::resolve(self.sources, file, &mut load, self.sink)?;
        Ok(Spec {
            path: path.to_owned(),
            file,
            program,
        })
    }

    /// Reads a model, infers its types and recovers its modules.
    pub fn model(&mut self, path: &Path, options: &ModelOptions) -> Result<Loaded, Reported> {
        let imported = if options.without_data {
            onnx::import_without_weights(path, self.sink)?
        } else {
            onnx::import(path, self.sink)?
        };
        let mut model = imported.model;
        passes::infer(&mut model, self.sink)?;
        let modules = self.recover(&model, options)?;
        Ok(Loaded {
            path: path.to_owned(),
            model,
            modules,
            weights: imported.weights,
        })
    }

    fn recover(&mut self, model: &Model, options: &ModelOptions) -> Result<Modules, Reported> {
        let names = match &options.names {
            Some(path) => {
                let text = files::read_text(path, SPEC_LIMIT, self.sink)?;
                let file = self.sources.add(path.to_string_lossy(), text.clone());
                Some(modules::NameMap::parse(
                    &text,
                    file,
                    self.sources,
                    self.sink,
                )?)
            }
            None => None,
        };
        let options = modules::Options {
            names: names.as_ref(),
        };
        modules::recover(model, &options, self.sink)
    }

    /// The adapters that `wanted` names; all of them if it is empty.
    pub fn adapters<'s>(
        &mut self,
        spec: &'s Spec,
        wanted: &[String],
    ) -> Result<Vec<&'s Adapter>, Reported> {
        let known: Vec<&str> = spec
            .program
            .adapters
            .iter()
            .map(|a| a.name.node.as_str())
            .collect();
        if known.is_empty() {
            let name = spec.path.to_string_lossy().into_owned();
            return Err(self.sink.emit(errors::no_adapter(&name)));
        }
        let mut found = Vec::new();
        for name in wanted {
            match spec.program.adapters.iter().find(|a| a.name.node == *name) {
                Some(adapter) => found.push(adapter),
                None => return Err(self.sink.emit(errors::no_such_adapter(name, &known))),
            }
        }
        if wanted.is_empty() {
            found.extend(&spec.program.adapters);
        }
        for adapter in &found {
            if adapter.adapts.is_empty() && adapter.trains.is_empty() {
                self.sink
                    .emit(errors::nothing_to_do(&adapter.name.node, adapter.name.span));
            }
        }
        self.sink.failed()?;
        Ok(found)
    }

    /// Plans an adapter and checks its expectations. A failed expectation is an error; the plan is
    /// answered all the same, so that it can be shown.
    pub fn plan(
        &mut self,
        spec: &Spec,
        adapter: &Adapter,
        loaded: &Loaded,
        options: &adapt::Options,
    ) -> Result<Planned, Reported> {
        let plan = adapt::plan(
            &spec.program,
            adapter,
            &loaded.model,
            &loaded.modules,
            options,
            self.sink,
        )?;
        let expectations = adapt::check_expectations(
            adapter,
            &plan,
            &loaded.model,
            &loaded.modules,
            self.sources,
            self.sink,
        );
        Ok(Planned { plan, expectations })
    }
}

/// The folder that relative imports of a file start from.
fn folder_of(path: &Path) -> PathBuf {
    path.parent().map_or_else(PathBuf::new, Path::to_owned)
}

fn load_import(
    sources: &mut SourceMap,
    from: FileId,
    wanted: &StringLit,
    sink: &mut Sink,
    folders: &mut Vec<(FileId, PathBuf)>,
) -> Result<FileId, Reported> {
    let folder = folders
        .iter()
        .find(|(file, _)| *file == from)
        .map(|(_, folder)| folder.clone())
        .unwrap_or_default();
    let path = folder.join(&wanted.node);
    // The same file imported twice is one file: found by its name in the source map.
    let name = path.to_string_lossy().into_owned();
    if let Some((file, _)) = folders.iter().find(|(file, _)| sources.name(*file) == name) {
        return Ok(*file);
    }
    let fail = |why: &str, sink: &mut Sink| {
        sink.emit(errors::import_not_found(wanted.span, &wanted.node, why))
    };
    match std::fs::metadata(&path) {
        Ok(found) if found.len() > SPEC_LIMIT => {
            return Err(fail("it is larger than a spec may be", sink));
        }
        Ok(_) => {}
        Err(error) => return Err(fail(&error.to_string(), sink)),
    }
    let text = std::fs::read_to_string(&path).map_err(|error| fail(&error.to_string(), sink))?;
    let file = sources.add(name, text);
    folders.push((file, folder_of(&path)));
    Ok(file)
}
