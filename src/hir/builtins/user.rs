//! Calls of functions that a spec defines, and of methods inside `forward`.

use super::Result;
use crate::diag::Span;
use crate::hir::errors;
use crate::hir::eval::{Eval, METHOD_SCOPE};
use crate::hir::instance;
use crate::hir::scalar::Value;
use crate::hir::{Method, MethodId};
use crate::syntax::ast::{Argument, Function, Ident, MethodItem};
use std::collections::BTreeMap;

/// A function with the place that it stands in, which says what it sees.
pub(super) enum Found {
    /// Of the method: it sees the method's hyper-parameters and parameters.
    Own(Function),
    /// Of the file: it sees its arguments and the site.
    OfFile(Function),
}

pub(super) fn find_function(cx: &Eval<'_>, name: &str) -> Option<Found> {
    let own = cx.method.body.body.iter().find_map(|item| match item {
        MethodItem::Function(function) if function.name.node == name => Some(function.clone()),
        _ => None,
    });
    own.map(Found::Own)
        .or_else(|| cx.method.functions.get(name).cloned().map(Found::OfFile))
}

pub(super) fn call_function(
    cx: &mut Eval<'_>,
    found: &Found,
    arguments: &[Argument],
    span: Span,
) -> Result<Value> {
    let (Found::Own(function) | Found::OfFile(function)) = found;
    let names: Vec<&str> = function
        .parameters
        .iter()
        .map(|p| p.node.as_str())
        .collect();
    if arguments.len() != names.len() || arguments.iter().any(|a| a.name.is_some()) {
        let signature = format!("{}({})", function.name.node, names.join(", "));
        return Err(cx.fail(errors::wrong_arguments(
            span,
            &function.name.node,
            &signature,
        )));
    }
    let mut scope = BTreeMap::new();
    for (name, argument) in names.iter().zip(arguments) {
        let value = cx.expr(&argument.value)?;
        scope.insert((*name).to_owned(), value);
    }
    cx.enter(span, &function.name.node)?;
    // A function does not see what its caller has bound.
    let hidden = match found {
        Found::Own(_) => cx.scopes.split_off(METHOD_SCOPE + 1),
        Found::OfFile(_) => {
            let hidden = cx.scopes.split_off(METHOD_SCOPE);
            cx.scopes.push(BTreeMap::new());
            hidden
        }
    };
    cx.scopes.push(scope);
    let value = cx.block(&function.body);
    cx.scopes.truncate(match found {
        Found::Own(_) => METHOD_SCOPE + 1,
        Found::OfFile(_) => METHOD_SCOPE,
    });
    cx.scopes.extend(hidden);
    cx.depth -= 1;
    value
}

/// `lora(x, y, rank = 4)`: the other method's parameters join this one's, under its name; every call
/// has parameters of its own.
pub(super) fn call_method(
    cx: &mut Eval<'_>,
    id: MethodId,
    callee: &Ident,
    arguments: &[Argument],
    span: Span,
) -> Result<Value> {
    let method = cx.program.method(id).clone();
    if cx.starting {
        return Err(cx.fail(errors::in_start_value(callee.span, &callee.node)));
    }
    if cx.hook.is_some() {
        return Err(cx.fail(errors::in_hook(callee.span, &callee.node)));
    }
    if !method.kinds.iter().any(|kind| kind.node == cx.facts.kind) {
        let kind = cx.facts.kind.clone();
        return Err(cx.fail(errors::called_at_another_kind(callee.span, &method, &kind)));
    }
    let positional: Vec<&Argument> = arguments.iter().filter(|a| a.name.is_none()).collect();
    if positional.len() != 2 {
        let signature = format!("{}(x, y, …hyper-parameters by name)", callee.node);
        return Err(cx.fail(errors::wrong_arguments(span, &callee.node, &signature)));
    }
    let values = hyper_values(cx, &method, arguments, span)?;
    let x = cx.expr(&positional[0].value)?;
    let x = cx.as_term(x, positional[0].value.span)?;
    let y = cx.expr(&positional[1].value)?;
    let y = cx.as_term(y, positional[1].value.span)?;
    cx.enter(span, &callee.node)?;
    let prefix = free_prefix(cx, &callee.node);
    let mut inner = Eval {
        program: cx.program,
        method: &method,
        facts: cx.facts,
        sink: &mut *cx.sink,
        context: cx.context,
        formula: std::mem::take(&mut cx.formula),
        params: std::mem::take(&mut cx.params),
        training: std::mem::take(&mut cx.training),
        scopes: vec![instance::site_scope(cx.facts), values],
        absent: BTreeMap::new(),
        prefix,
        depth: cx.depth,
        starting: false,
        hook: None,
        calls: std::mem::take(&mut cx.calls),
        binding: None,
        reads_place: cx.reads_place,
    };
    let result = instance::evaluate_body(&mut inner, x, y);
    cx.formula = inner.formula;
    cx.params = inner.params;
    cx.training = inner.training;
    cx.calls = inner.calls;
    cx.reads_place = inner.reads_place;
    cx.depth -= 1;
    Ok(Value::Term(result?))
}

/// The scope of the called method's hyper-parameters.
fn hyper_values(
    cx: &mut Eval<'_>,
    method: &Method,
    arguments: &[Argument],
    span: Span,
) -> Result<BTreeMap<String, Value>> {
    let mut values = BTreeMap::new();
    for argument in arguments {
        let Some(name) = &argument.name else {
            continue;
        };
        let Some(hyper) = method.hyper(&name.node) else {
            return Err(cx.fail(errors::unknown_hyper(name.span, &name.node, method)));
        };
        let value = cx.expr(&argument.value)?;
        let value =
            instance::hyper_argument(hyper, &value, argument.value.span).map_err(|d| cx.fail(d))?;
        values.insert(name.node.clone(), value);
    }
    for hyper in &method.hypers {
        if values.contains_key(&hyper.name.node) {
            continue;
        }
        let Some(default) = &hyper.default else {
            return Err(cx.fail(errors::missing_hyper(span, hyper, method)));
        };
        values.insert(hyper.name.node.clone(), Value::from(default));
    }
    Ok(values)
}

/// `lora.` in front of the names of the first call's parameters, `lora_2.` for the second.
fn free_prefix(cx: &mut Eval<'_>, name: &str) -> String {
    let path = format!("{}{name}", cx.prefix);
    let count = cx.calls.entry(path.clone()).or_default();
    loop {
        *count += 1;
        let prefix = match *count {
            1 => format!("{path}."),
            count => format!("{path}_{count}."),
        };
        // Another method may be called `lora_2`.
        if !cx.params.iter().any(|p| p.name.starts_with(&prefix)) {
            return prefix;
        }
    }
}
