//! Imports, declarations and calls: from syntax trees to a [`Program`].

use super::claim;
use super::errors;
use super::eval::Eval;
use super::formula::Formula;
use super::hook::Training;
use super::instance::{self, SiteFacts};
use super::interchange;
use super::pattern::compile_pattern;
use super::program::{
    Adapt, Adapter, Call, HyperKind, HyperSpec, HyperValue, Method, MethodId, Override, Program,
};
use super::scalar::Value;
use super::targets;
use crate::diag::{FileId, Reported, Sink, SourceMap, Span};
use crate::stdlib;
use crate::syntax::{self, ast};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Reads an imported file: given the importing file and the path as written, adds the text to the
/// source map, or reports why not. The driver owns the file system.
pub type Loader<'a> =
    dyn FnMut(&mut SourceMap, FileId, &ast::StringLit, &mut Sink) -> Result<FileId, Reported> + 'a;

/// Layer kinds of the language.
pub const KINDS: &[&str] = &["linear", "conv", "embedding", "norm", "cache"];

/// Types of hyper-parameters, as they are written.
pub const HYPER_TYPES: &[&str] = &["int", "float", "bool", "string", "ints", "choice"];

/// Resolves a file and everything that it imports, and checks every method of these files with
/// symbolic sizes; those of the library are known to be sound.
pub fn resolve(
    sources: &mut SourceMap,
    file: FileId,
    load: &mut Loader<'_>,
    sink: &mut Sink,
) -> Result<Program, Reported> {
    let mut resolver = Resolver {
        sources,
        load,
        sink,
        program: Program::default(),
        files: BTreeMap::new(),
        library: BTreeMap::new(),
        open: Vec::new(),
    };
    let names = resolver.file(file, None)?;
    let tree = syntax::parse(resolver.sources, file, resolver.sink)?;
    resolver.train_methods()?;
    resolver.adapters(&tree, &names);
    let Resolver {
        program,
        sink,
        library,
        ..
    } = resolver;
    let library: BTreeSet<FileId> = library.into_values().collect();
    for method in &program.methods {
        if !library.contains(&method.name.span.file) {
            // Errors of one method do not hide those of the next.
            let _ = instance::check_method(&program, method, sink);
        }
    }
    sink.failed()?;
    Ok(program)
}

type Names = BTreeMap<String, MethodId>;

struct Resolver<'a, 'l> {
    sources: &'a mut SourceMap,
    load: &'a mut Loader<'l>,
    sink: &'a mut Sink,
    program: Program,
    /// Finished files with the methods that they declare or import.
    files: BTreeMap<FileId, Names>,
    library: BTreeMap<&'static str, FileId>,
    /// Files whose imports are being followed.
    open: Vec<FileId>,
}

impl Resolver<'_, '_> {
    /// Resolves the imports and methods of a file; answers with the names visible in it.
    fn file(&mut self, file: FileId, from: Option<Span>) -> Result<Names, Reported> {
        if let Some(names) = self.files.get(&file) {
            return Ok(names.clone());
        }
        if self.open.contains(&file) {
            let start = self.open.iter().position(|open| *open == file);
            let circle = self.open[start.unwrap_or(0)..].iter().chain([&file]);
            let names: Vec<&str> = circle.map(|file| self.sources.name(*file)).collect();
            let span = from.expect("a circle has an import");
            return Err(self.sink.emit(errors::import_cycle(span, &names)));
        }
        self.open.push(file);
        let tree = syntax::parse(self.sources, file, self.sink)?;
        let mut names = Names::new();
        let mut places: BTreeMap<String, Span> = BTreeMap::new();
        for item in &tree.items {
            if let ast::Item::Use(import) = item {
                self.import(file, import, &mut names, &mut places)?;
            }
        }
        let functions = self.functions(&tree);
        let declared: Vec<&ast::Method> = tree
            .items
            .iter()
            .filter_map(|item| match item {
                ast::Item::Method(method) => Some(method),
                _ => None,
            })
            .collect();
        // Ids first, so that methods of one file may call each other.
        let first = self.program.methods.len();
        for (offset, method) in declared.iter().enumerate() {
            let name = &method.name;
            if let Some(earlier) = places.insert(name.node.clone(), name.span) {
                self.sink
                    .emit(errors::duplicate(name.span, earlier, "method", &name.node));
            }
            names.insert(name.node.clone(), MethodId(first + offset));
        }
        for method in declared {
            let method = self.method(method, &functions, &names);
            self.program.methods.push(Arc::new(method));
        }
        self.open.pop();
        self.files.insert(file, names.clone());
        self.sink.failed()?;
        Ok(names)
    }

    fn import(
        &mut self,
        file: FileId,
        import: &ast::Use,
        names: &mut Names,
        places: &mut BTreeMap<String, Span>,
    ) -> Result<(), Reported> {
        for wanted in &import.names {
            let name = &wanted.name;
            let found = match &import.source {
                ast::UseSource::Library(library) if library.node == "std" => {
                    self.library_method(name)?
                }
                ast::UseSource::Library(library) => {
                    return Err(self
                        .sink
                        .emit(errors::unknown_library(library.span, &library.node)));
                }
                ast::UseSource::File(path) => {
                    let imported = (self.load)(self.sources, file, path, self.sink)?;
                    let theirs = self.file(imported, Some(import.span))?;
                    match theirs.get(&name.node) {
                        Some(id) => *id,
                        None => {
                            let known = theirs.keys().map(String::as_str);
                            return Err(self.sink.emit(errors::not_in_library(
                                name.span, &name.node, &path.node, known,
                            )));
                        }
                    }
                }
            };
            let local = wanted.alias.as_ref().unwrap_or(name);
            if let Some(earlier) = places.insert(local.node.clone(), local.span) {
                self.sink
                    .emit(errors::duplicate(local.span, earlier, "name", &local.node));
            }
            names.insert(local.node.clone(), found);
        }
        Ok(())
    }

    fn library_method(&mut self, name: &ast::Ident) -> Result<MethodId, Reported> {
        let Some(entry) = stdlib::find(&name.node) else {
            let known = stdlib::LIBRARY.iter().map(|file| file.name);
            return Err(self
                .sink
                .emit(errors::not_in_library(name.span, &name.node, "std", known)));
        };
        let file = match self.library.get(entry.name) {
            Some(file) => *file,
            None => {
                let file = self.sources.add(format!("std::{}", entry.name), entry.text);
                self.library.insert(entry.name, file);
                file
            }
        };
        let names = self.file(file, Some(name.span))?;
        Ok(*names
            .get(entry.name)
            .expect("a library file declares the method of its name"))
    }

    fn train_methods(&mut self) -> Result<(), Reported> {
        let file = self.sources.add("std::train", stdlib::TRAIN.text);
        self.library.insert(stdlib::TRAIN.name, file);
        for id in self.file(file, None)?.into_values() {
            for kind in self.program.method(id).kinds.clone() {
                self.program.train.insert(kind.node, id);
            }
        }
        Ok(())
    }

    fn functions(&mut self, tree: &ast::File) -> Arc<BTreeMap<String, ast::Function>> {
        let mut functions: BTreeMap<String, ast::Function> = BTreeMap::new();
        for item in &tree.items {
            if let ast::Item::Function(function) = item {
                let name = &function.name;
                if let Some(first) = functions.get(&name.node) {
                    self.sink.emit(errors::duplicate(
                        name.span,
                        first.name.span,
                        "function",
                        &name.node,
                    ));
                }
                functions.insert(name.node.clone(), function.clone());
            }
        }
        Arc::new(functions)
    }

    fn method(
        &mut self,
        method: &ast::Method,
        functions: &Arc<BTreeMap<String, ast::Function>>,
        names: &Names,
    ) -> Method {
        for kind in &method.kinds {
            if !KINDS.contains(&kind.node.as_str()) {
                self.sink.emit(errors::unknown_kind(kind.span, &kind.node));
            }
        }
        self.check_body_names(method);
        let hypers = self.hypers(method);
        Method {
            name: method.name.clone(),
            doc: method.doc.clone(),
            interchange: interchange::resolve(method, &hypers, self.sink),
            hypers,
            kinds: method.kinds.clone(),
            body: Arc::new(method.clone()),
            functions: functions.clone(),
            visible: names.clone(),
        }
    }

    /// Functions and `forward` are found by name, so each is there once. Parameters may share a name
    /// if their conditions exclude each other, which only an instance shows.
    fn check_body_names(&mut self, method: &ast::Method) {
        let mut places: BTreeMap<&str, Span> = BTreeMap::new();
        for item in &method.body {
            let (what, name, span) = match item {
                ast::MethodItem::Function(function) => {
                    ("function", function.name.node.as_str(), function.name.span)
                }
                ast::MethodItem::Forward(forward) => ("the rule", "forward", forward.span),
                ast::MethodItem::Hook(hook) => ("the hook", hook.event.written(), hook.span),
                ast::MethodItem::Loss(loss) => ("the rule", "loss", loss.span),
                ast::MethodItem::Interchange(rule) => {
                    ("the interchange with", rule.tool.node.as_str(), rule.span)
                }
                _ => continue,
            };
            if let Some(first) = places.insert(name, span) {
                self.sink.emit(errors::duplicate(span, first, what, name));
            }
        }
    }

    fn hypers(&mut self, method: &ast::Method) -> Vec<HyperSpec> {
        let mut specs: Vec<HyperSpec> = Vec::new();
        for hyper in &method.hypers {
            if let Some(first) = specs.iter().find(|s| s.name.node == hyper.name.node) {
                self.sink.emit(errors::duplicate(
                    hyper.name.span,
                    first.name.span,
                    "hyper-parameter",
                    &hyper.name.node,
                ));
                continue;
            }
            let Some(kind) = self.hyper_kind(&hyper.ty) else {
                continue;
            };
            let mut spec = HyperSpec {
                name: hyper.name.clone(),
                kind,
                default: None,
            };
            if let Some(default) = &hyper.default {
                spec.default = self.constant(&spec, default);
            }
            specs.push(spec);
        }
        specs
    }

    fn hyper_kind(&mut self, ty: &ast::HyperType) -> Option<HyperKind> {
        match ty {
            ast::HyperType::Choice(options, _) => Some(HyperKind::Choice(
                options.iter().map(|o| o.node.clone()).collect(),
            )),
            ast::HyperType::Named(name) => match name.node.as_str() {
                "int" => Some(HyperKind::Int),
                "float" => Some(HyperKind::Float),
                "bool" => Some(HyperKind::Bool),
                "string" => Some(HyperKind::String),
                "ints" => Some(HyperKind::Ints),
                other => {
                    self.sink.emit(errors::unknown_name(
                        name.span,
                        other,
                        HYPER_TYPES.iter().copied(),
                    ));
                    None
                }
            },
        }
    }

    /// The value of an argument or default, which sees no sizes and no tensors.
    fn constant(&mut self, hyper: &HyperSpec, expr: &ast::Expr) -> Option<HyperValue> {
        let value = evaluate_constant(&self.program, expr, self.sink).ok()?;
        match instance::hyper_value(hyper, &value, expr.span) {
            Ok(value) => Some(value),
            Err(diagnostic) => {
                self.sink.emit(diagnostic);
                None
            }
        }
    }

    fn adapters(&mut self, tree: &ast::File, names: &Names) {
        let mut places: BTreeMap<String, Span> = BTreeMap::new();
        for item in &tree.items {
            let ast::Item::Adapter(adapter) = item else {
                continue;
            };
            let name = &adapter.name;
            if let Some(first) = places.insert(name.node.clone(), name.span) {
                self.sink
                    .emit(errors::duplicate(name.span, first, "adapter", &name.node));
            }
            let mut items = adapter.items.iter();
            let does_nothing = |item: &ast::AdapterItem| {
                matches!(
                    item,
                    ast::AdapterItem::Expect(_) | ast::AdapterItem::Layers(_)
                )
            };
            if items.all(does_nothing) {
                self.sink.emit(errors::nothing_to_do(&name.node, name.span));
            }
            let mut resolved = Adapter {
                name: name.clone(),
                doc: adapter.doc.clone(),
                layers: None,
                adapts: Vec::new(),
                trains: Vec::new(),
                expects: Vec::new(),
                span: adapter.span,
            };
            for item in &adapter.items {
                match item {
                    ast::AdapterItem::Layers(layers) => {
                        targets::check_layers(layers, self.sink);
                        resolved.layers = Some(layers.clone());
                    }
                    ast::AdapterItem::Adapt(adapt) => {
                        resolved.adapts.extend(self.adapt(adapt, names))
                    }
                    ast::AdapterItem::Train(train) => {
                        let targets = train.targets.iter().chain(&train.except);
                        targets::check_targets(targets, self.sink);
                        resolved.trains.push(train.clone());
                    }
                    ast::AdapterItem::Expect(expect) => {
                        let claim = claim::claim(&self.program, expect, self.sink);
                        resolved.expects.extend(claim);
                    }
                }
            }
            self.program.adapters.push(resolved);
        }
    }

    fn adapt(&mut self, adapt: &ast::Adapt, names: &Names) -> Option<Adapt> {
        targets::check_targets(adapt.targets.iter().chain(&adapt.except), self.sink);
        let calls: Vec<Call> = adapt
            .methods
            .iter()
            .filter_map(|call| self.call(call, names))
            .collect();
        if calls.len() != adapt.methods.len() {
            return None;
        }
        targets::check_sizes(&self.program, adapt, &calls, self.sink);
        let overrides = adapt
            .overrides
            .iter()
            .filter_map(|o| {
                compile_pattern(&o.pattern, self.sink).ok()?;
                let arguments = self.override_arguments(&o.arguments, &calls)?;
                Some(Override {
                    pattern: o.pattern.clone(),
                    arguments,
                    span: o.span,
                })
            })
            .collect();
        Some(Adapt {
            targets: adapt.targets.clone(),
            except: adapt.except.clone(),
            condition: adapt.condition.clone(),
            calls,
            overrides,
            span: adapt.span,
        })
    }

    fn call(&mut self, call: &ast::MethodCall, names: &Names) -> Option<Call> {
        let name = &call.method;
        let Some(id) = names.get(&name.node).copied() else {
            let mut diagnostic =
                errors::unknown_name(name.span, &name.node, names.keys().map(String::as_str));
            if stdlib::find(&name.node).is_some() {
                diagnostic.help = vec![format!(
                    "add `use std::{}` at the top of the file",
                    name.node
                )];
            }
            self.sink.emit(diagnostic);
            return None;
        };
        let method = self.program.method(id).clone();
        let mut arguments = BTreeMap::new();
        for argument in &call.arguments {
            let (name, value) = self.argument(argument, &method)?;
            arguments.insert(name, value);
        }
        for hyper in &method.hypers {
            if hyper.default.is_none() && !arguments.contains_key(&hyper.name.node) {
                self.sink
                    .emit(errors::missing_hyper(call.span, hyper, &method));
                return None;
            }
        }
        Some(Call {
            method: id,
            arguments,
            span: call.span,
        })
    }

    fn argument(
        &mut self,
        argument: &ast::Argument,
        method: &Method,
    ) -> Option<(String, HyperValue)> {
        let Some(name) = &argument.name else {
            let signature = format!("{}(name = value)", method.name.node);
            self.sink.emit(errors::wrong_arguments(
                argument.value.span,
                &method.name.node,
                &signature,
            ));
            return None;
        };
        let Some(hyper) = method.hyper(&name.node) else {
            self.sink
                .emit(errors::unknown_hyper(name.span, &name.node, method));
            return None;
        };
        let value = self.constant(hyper, &argument.value)?;
        Some((name.node.clone(), value))
    }

    /// Arguments of an override belong to the first method of the statement that knows them.
    fn override_arguments(
        &mut self,
        arguments: &[ast::Argument],
        calls: &[Call],
    ) -> Option<BTreeMap<String, HyperValue>> {
        let mut values = BTreeMap::new();
        for argument in arguments {
            let wanted = argument
                .name
                .as_ref()
                .map(|n| n.node.as_str())
                .unwrap_or("");
            let method = calls
                .iter()
                .map(|call| self.program.method(call.method).clone())
                .find(|method| method.hyper(wanted).is_some())
                .unwrap_or_else(|| self.program.method(calls[0].method).clone());
            let (name, value) = self.argument(argument, &method)?;
            values.insert(name, value);
        }
        Some(values)
    }
}

/// Evaluates an expression of literals, without sizes and tensors.
pub(super) fn evaluate_constant(
    program: &Program,
    expr: &ast::Expr,
    sink: &mut Sink,
) -> Result<Value, Reported> {
    let facts = SiteFacts::symbolic("linear", false);
    with_scope(program, expr, &facts, BTreeMap::new(), sink, |eval| {
        eval.expr(expr)
    })
}

/// The truth of a `where` condition at a site.
pub fn site_condition(
    program: &Program,
    expr: &ast::Expr,
    facts: &SiteFacts,
    sink: &mut Sink,
) -> Result<bool, Reported> {
    let scope = instance::site_scope(facts);
    with_scope(program, expr, facts, scope, sink, |eval| {
        Ok(eval.condition(expr)?.unwrap_or(false))
    })
}

/// The value of a slice bound at a site.
pub fn site_size(
    program: &Program,
    expr: &ast::Expr,
    facts: &SiteFacts,
    sink: &mut Sink,
) -> Result<i64, Reported> {
    let scope = instance::site_scope(facts);
    with_scope(program, expr, facts, scope, sink, |eval| {
        Ok(eval.size(expr)?.known().unwrap_or(0))
    })
}

fn with_scope<T>(
    program: &Program,
    expr: &ast::Expr,
    facts: &SiteFacts,
    scope: BTreeMap<String, Value>,
    sink: &mut Sink,
    evaluate: impl FnOnce(&mut Eval<'_>) -> Result<T, Reported>,
) -> Result<T, Reported> {
    let name = crate::diag::Spanned {
        node: String::new(),
        span: expr.span,
    };
    let method = Method {
        name: name.clone(),
        doc: String::new(),
        hypers: Vec::new(),
        kinds: Vec::new(),
        body: Arc::new(ast::Method {
            doc: String::new(),
            name,
            hypers: Vec::new(),
            kinds: Vec::new(),
            body: Vec::new(),
            span: expr.span,
        }),
        functions: Arc::default(),
        interchange: Vec::new(),
        visible: BTreeMap::new(),
    };
    let mut eval = Eval {
        program,
        method: &method,
        facts,
        sink,
        context: None,
        formula: Formula::default(),
        params: Vec::new(),
        training: Training::default(),
        scopes: vec![scope, BTreeMap::new()],
        absent: BTreeMap::new(),
        prefix: String::new(),
        depth: 0,
        starting: false,
        hook: None,
        calls: BTreeMap::new(),
        binding: None,
        reads_place: false,
    };
    evaluate(&mut eval)
}
