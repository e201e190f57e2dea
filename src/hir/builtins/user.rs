//! Calls of functions that a spec defines, and of methods inside `forward`.

use super::Result;
use crate::diag::Span;
use crate::hir::MethodId;
use crate::hir::errors;
use crate::hir::eval::{Eval, hyper_scope};
use crate::hir::instance;
use crate::hir::scalar::Value;
use crate::syntax::ast::{Argument, Function, Ident, MethodItem};
use std::collections::BTreeMap;

pub(super) fn find_function(cx: &Eval<'_>, name: &str) -> Option<Function> {
    let own = cx.method.body.body.iter().find_map(|item| match item {
        MethodItem::Function(function) if function.name.node == name => Some(function.clone()),
        _ => None,
    });
    own.or_else(|| cx.method.functions.get(name).cloned())
}

pub(super) fn call_function(
    cx: &mut Eval<'_>,
    function: &Function,
    arguments: &[Argument],
    span: Span,
) -> Result<Value> {
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
    cx.scopes.push(scope);
    let value = cx.block(&function.body);
    cx.scopes.pop();
    cx.depth -= 1;
    value
}

/// `lora(x, y, rank = 4)`: the other method's parameters join this one's, under its name.
pub(super) fn call_method(
    cx: &mut Eval<'_>,
    id: MethodId,
    callee: &Ident,
    arguments: &[Argument],
    span: Span,
) -> Result<Value> {
    let method = cx.program.method(id).clone();
    let positional: Vec<&Argument> = arguments.iter().filter(|a| a.name.is_none()).collect();
    if positional.len() != 2 {
        let signature = format!("{}(x, y, …hyper-parameters by name)", callee.node);
        return Err(cx.fail(errors::wrong_arguments(span, &callee.node, &signature)));
    }
    let mut values = BTreeMap::new();
    for argument in arguments.iter().filter(|a| a.name.is_some()) {
        let name = argument.name.as_ref().expect("filtered");
        let Some(hyper) = method.hyper(&name.node) else {
            return Err(cx.fail(errors::unknown_hyper(name.span, &name.node, &method)));
        };
        let value = cx.expr(&argument.value)?;
        let value =
            instance::hyper_value(hyper, &value, argument.value.span).map_err(|d| cx.fail(d))?;
        values.insert(name.node.clone(), value);
    }
    for hyper in &method.hypers {
        if values.contains_key(&hyper.name.node) {
            continue;
        }
        let Some(default) = &hyper.default else {
            return Err(cx.fail(errors::missing_hyper(span, hyper, &method)));
        };
        values.insert(hyper.name.node.clone(), default.clone());
    }
    let x = cx.expr(&positional[0].value)?;
    let x = cx.as_term(x, positional[0].value.span)?;
    let y = cx.expr(&positional[1].value)?;
    let y = cx.as_term(y, positional[1].value.span)?;
    cx.enter(span, &callee.node)?;
    let prefix = format!("{}{}.", cx.prefix, callee.node);
    let mut inner = Eval {
        program: cx.program,
        method: &method,
        facts: cx.facts,
        sink: &mut *cx.sink,
        context: cx.context,
        formula: std::mem::take(&mut cx.formula),
        params: std::mem::take(&mut cx.params),
        scopes: vec![instance::site_scope(cx.facts), hyper_scope(&values)],
        absent: BTreeMap::new(),
        prefix,
        depth: cx.depth,
    };
    let result = instance::evaluate_body(&mut inner, x, y);
    cx.formula = inner.formula;
    cx.params = inner.params;
    cx.depth -= 1;
    Ok(Value::Term(result?))
}
