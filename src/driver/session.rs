//! Loads specs and models, and plans.

use super::errors;
use super::fingerprint::{Depth, fingerprint};
use crate::adapt::{self, CheckedExpectation, Plan};
use crate::diag::{Diagnostic, FileId, Reported, Sink, SourceMap};
use crate::files;
use crate::graph::{Model, Tensor};
use crate::hir::{self, Adapter, Program};
use crate::modules::{self, Modules};
use crate::onnx;
use crate::passes;
use crate::stdlib;
use crate::syntax::ast::{Layers, StringLit};
use crate::weights;
use std::borrow::Cow;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Specs are texts that people write: larger ones are refused.
pub(super) const SPEC_LIMIT: u64 = 4 << 20;

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
    /// The checkpoint that the model was made from (`.safetensors`), in one file or in several.
    pub weights: Vec<PathBuf>,
    /// Check a spec against a graph whose external data is not there.
    pub without_data: bool,
    /// Take the sampled fingerprint, too, while the modules are recovered.
    pub fingerprint: bool,
    /// Find out what layers do in their blocks, and name by it those that have no other name.
    pub roles: bool,
}

/// A model with everything recovered from it.
#[derive(Clone)]
pub struct Loaded {
    pub path: PathBuf,
    pub model: Model,
    pub modules: Modules,
    pub weights: Arc<onnx::ExternalFiles>,
    /// The sampled fingerprint, if it was asked for: that of the file, whatever its layers are here.
    pub fingerprint: Option<String>,
    /// What the file holds, where an adapter asks for other layers.
    pub(super) file: Option<Box<OfFile>>,
}

/// A model as its file has it, of whose layers another one has been made.
#[derive(Clone)]
pub(super) struct OfFile {
    pub model: Model,
    pub modules: Modules,
    /// The list of layers, and which of them the other model has.
    pub list: String,
    pub sequence: Vec<usize>,
}

impl Loaded {
    /// The model as its file has it.
    pub fn base(&self) -> &Model {
        self.file.as_ref().map_or(&self.model, |file| &file.model)
    }

    /// The list of layers and which of them the model has, where it is another sequence than in the file.
    pub fn layers(&self) -> Option<(&str, &[usize])> {
        let file = self.file.as_ref()?;
        Some((&file.list, &file.sequence))
    }

    /// By which calibrations of this model are known: the fingerprint of the file, and its layers.
    pub(super) fn identity(&self, fingerprint: &str) -> String {
        match self.layers() {
            Some((list, sequence)) => format!("{fingerprint} with {list} = {sequence:?}"),
            None => fingerprint.to_owned(),
        }
    }

    /// The same file with the layers that an adapter asks for.
    fn with_layers(&self, layers: &Layers, sink: &mut Sink) -> Result<Loaded, Reported> {
        let (model, modules) = match &self.file {
            Some(file) => (&file.model, &file.modules),
            None => (&self.model, &self.modules),
        };
        let made = adapt::relayer(layers, model, modules, sink)?;
        Ok(Loaded {
            path: self.path.clone(),
            weights: self.weights.clone(),
            fingerprint: self.fingerprint.clone(),
            file: Some(Box::new(OfFile {
                model: model.clone(),
                modules: modules.clone(),
                list: made.list,
                sequence: made.sequence,
            })),
            model: made.model,
            modules: made.modules,
        })
    }
}

impl<'l> From<&'l Loaded> for Cow<'l, Loaded> {
    fn from(loaded: &'l Loaded) -> Self {
        Cow::Borrowed(loaded)
    }
}

impl From<Loaded> for Cow<'_, Loaded> {
    fn from(loaded: Loaded) -> Self {
        Cow::Owned(loaded)
    }
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
        let mut read = vec![SpecFile::new(file, path)];
        let mut load =
            |sources: &mut SourceMap, from: FileId, wanted: &StringLit, sink: &mut Sink| {
                load_import(sources, from, wanted, sink, &mut read)
            };
        let program = hir::resolve(self.sources, file, &mut load, self.sink)?;
        Ok(Spec {
            path: path.to_owned(),
            file,
            program,
        })
    }

    /// A spec that is no file: it imports from the library alone.
    pub fn spec_of(&mut self, name: &str, text: &str) -> Result<Spec, Reported> {
        let file = self.sources.add(name, text);
        let mut load = |_: &mut SourceMap, _: FileId, wanted: &StringLit, sink: &mut Sink| {
            Err(sink.emit(errors::import_not_found(
                wanted.span,
                &wanted.node,
                "the text that imports it is no file",
            )))
        };
        let program = hir::resolve(self.sources, file, &mut load, self.sink)?;
        Ok(Spec {
            path: PathBuf::from(name),
            file,
            program,
        })
    }

    /// Every method of the library, by name.
    pub fn library(&mut self) -> Result<Spec, Reported> {
        let names: Vec<&str> = stdlib::LIBRARY.iter().map(|file| file.name).collect();
        self.spec_of("std", &format!("use std::{{{}}}\n", names.join(", ")))
    }

    /// Reads a model, infers its types and recovers its modules.
    pub fn model(&mut self, path: &Path, options: &ModelOptions) -> Result<Loaded, Reported> {
        // Values are compared with those of the checkpoint.
        let imported = if options.without_data && options.weights.is_empty() {
            onnx::import_without_weights(path, self.sink)?
        } else {
            onnx::import(path, self.sink)?
        };
        let mut model = imported.model;
        passes::infer(&mut model, self.sink)?;
        let (modules, fingerprint) = std::thread::scope(|scope| {
            let fingerprint = options
                .fingerprint
                .then(|| scope.spawn(|| sampled(&model, &imported.weights)));
            let modules = self.recover(&model, &imported.weights, options);
            (modules, fingerprint.map(|thread| thread.join()))
        });
        let fingerprint = match fingerprint.map(|done| done.expect("hashing does not panic")) {
            None => None,
            Some(Ok(fingerprint)) => Some(fingerprint),
            Some(Err(found)) => {
                for fault in found {
                    self.sink.emit(fault);
                }
                None
            }
        };
        let mut modules = modules?;
        if options.roles {
            modules.name_by_role(&model);
        }
        modules.add_caches(&model, &passes::past(&model));
        Ok(Loaded {
            path: path.to_owned(),
            modules,
            model,
            weights: Arc::new(imported.weights),
            fingerprint,
            file: None,
        })
    }

    fn recover(
        &mut self,
        model: &Model,
        weights: &onnx::ExternalFiles,
        options: &ModelOptions,
    ) -> Result<Modules, Reported> {
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
        let candidates = self.candidates(&options.weights)?;
        let read = |tensor: &Tensor, sink: &mut Sink| weights.read(tensor, sink);
        let checkpoint = modules::Checkpoint {
            candidates: &candidates,
            read: &read,
        };
        let options = modules::Options {
            names: names.as_ref(),
            checkpoint: (!options.weights.is_empty()).then_some(checkpoint),
        };
        modules::recover(model, &options, self.sink)
    }

    /// The tensors of a checkpoint, mapped.
    fn candidates(&mut self, files: &[PathBuf]) -> Result<Vec<modules::Candidate>, Reported> {
        let mut candidates = Vec::new();
        for path in files {
            let tensors = weights::read_tensors(path, self.sink)?;
            candidates.extend(tensors.into_iter().map(|tensor| modules::Candidate {
                name: tensor.name,
                dtype: tensor.dtype,
                dims: tensor.dims,
                data: tensor.data,
            }));
        }
        Ok(candidates)
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
        Ok(found)
    }

    /// The adapter of that name, or the only one.
    pub fn one_adapter<'s>(
        &mut self,
        spec: &'s Spec,
        wanted: Option<&str>,
    ) -> Result<&'s Adapter, Reported> {
        let wanted: Vec<String> = wanted.map(str::to_owned).into_iter().collect();
        let found = self.adapters(spec, &wanted)?;
        match found.as_slice() {
            [adapter] => Ok(adapter),
            several => {
                let names: Vec<&str> = several.iter().map(|a| a.name.node.as_str()).collect();
                Err(self.sink.emit(errors::which_adapter(&names)))
            }
        }
    }

    /// The model with the layers of a statement `layers` that stands in no file.
    pub(super) fn with_layers<'l>(
        &mut self,
        statement: &str,
        loaded: &'l Loaded,
    ) -> Result<Cow<'l, Loaded>, Reported> {
        let text = format!("adapter a {{\n{statement}  train all norm\n}}\n");
        let spec = self.spec_of("layers", &text)?;
        match &self.one_adapter(&spec, None)?.layers {
            Some(layers) => Ok(Cow::Owned(loaded.with_layers(layers, self.sink)?)),
            None => Ok(Cow::Borrowed(loaded)),
        }
    }

    /// Plans an adapter and checks its expectations. A failed expectation is an error; the plan is
    /// answered all the same, so that it can be shown. With it comes the model that it is for: the one
    /// given, unless the adapter asks for other layers.
    pub fn plan<'l>(
        &mut self,
        spec: &Spec,
        adapter: &Adapter,
        loaded: impl Into<Cow<'l, Loaded>>,
        options: &adapt::Options,
    ) -> Result<(Cow<'l, Loaded>, Planned), Reported> {
        let loaded = match &adapter.layers {
            Some(layers) => Cow::Owned(loaded.into().with_layers(layers, self.sink)?),
            None => loaded.into(),
        };
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
        Ok((loaded, Planned { plan, expectations }))
    }
}

/// A file that has been read for a spec.
struct SpecFile {
    file: FileId,
    /// Where relative imports of the file start from.
    folder: PathBuf,
    /// By which it is known again when another path leads to it.
    real: Option<PathBuf>,
}

impl SpecFile {
    fn new(file: FileId, path: &Path) -> SpecFile {
        SpecFile {
            file,
            folder: path.parent().map_or_else(PathBuf::new, Path::to_owned),
            real: path.canonicalize().ok(),
        }
    }
}

fn load_import(
    sources: &mut SourceMap,
    from: FileId,
    wanted: &StringLit,
    sink: &mut Sink,
    read: &mut Vec<SpecFile>,
) -> Result<FileId, Reported> {
    let importing = read.iter().find(|known| known.file == from);
    let folder = importing.map(|known| known.folder.clone());
    // `./` says nothing that messages would have to repeat.
    let path: PathBuf = folder
        .unwrap_or_default()
        .join(&wanted.node)
        .components()
        .filter(|part| *part != Component::CurDir)
        .collect();
    let fail = |why: &str, sink: &mut Sink| {
        sink.emit(errors::import_not_found(wanted.span, &wanted.node, why))
    };
    match std::fs::metadata(&path) {
        Ok(found) if found.len() > SPEC_LIMIT => {
            return Err(fail("it is larger than a spec may be", sink));
        }
        Ok(_) => {}
        Err(error) => return Err(fail(&files::reason(&error), sink)),
    }
    // A file that is imported twice is one file.
    let real = path.canonicalize().ok();
    let known = read
        .iter()
        .find(|known| real.is_some() && known.real == real);
    if let Some(known) = known {
        return Ok(known.file);
    }
    let text =
        std::fs::read_to_string(&path).map_err(|error| fail(&files::reason(&error), sink))?;
    let file = sources.add(path.to_string_lossy(), text);
    read.push(SpecFile::new(file, &path));
    Ok(file)
}

/// The sampled fingerprint, or what is wrong with the weights.
fn sampled(model: &Model, weights: &onnx::ExternalFiles) -> Result<String, Vec<Diagnostic>> {
    let mut sink = Sink::new();
    fingerprint(model, weights, Depth::Sampled, &mut sink).map_err(|_| sink.diagnostics().to_vec())
}
