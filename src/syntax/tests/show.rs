//! A tree as text in which every structure is visible and no span is.

use crate::syntax::ast::*;
use std::fmt::Write;

/// The whole file, one item or statement per line.
pub(in crate::syntax) fn show(file: &File) -> String {
    let mut out = String::new();
    doc(&mut out, 0, &file.doc);
    for item in &file.items {
        show_item(&mut out, item);
    }
    out
}

fn line(out: &mut String, depth: usize, text: &str) {
    writeln!(out, "{:1$}{text}", "", depth * 2).expect("writing to a string does not fail");
}

fn doc(out: &mut String, depth: usize, text: &str) {
    if !text.is_empty() {
        line(out, depth, &format!("doc {text:?}"));
    }
}

fn show_item(out: &mut String, item: &Item) {
    match item {
        Item::Use(item) => {
            let source = match &item.source {
                UseSource::Library(name) => name.node.clone(),
                UseSource::File(path) => format!("{:?}", path.node),
            };
            let names = item.names.iter().map(|name| match &name.alias {
                None => name.name.node.clone(),
                Some(alias) => format!("{} as {}", name.name.node, alias.node),
            });
            line(out, 0, &format!("use {source} {}", list(names)));
        }
        Item::Method(method) => show_method(out, method),
        Item::Function(function) => show_function(out, 0, function),
        Item::Adapter(adapter) => {
            doc(out, 0, &adapter.doc);
            line(out, 0, &format!("adapter {}", adapter.name.node));
            for item in &adapter.items {
                show_adapter_item(out, item);
            }
        }
    }
}

fn show_method(out: &mut String, method: &Method) {
    doc(out, 0, &method.doc);
    let kinds = list(method.kinds.iter().map(|kind| kind.node.clone()));
    line(out, 0, &format!("method {} on {kinds}", method.name.node));
    for hyper in &method.hypers {
        doc(out, 1, &hyper.doc);
        let ty = match &hyper.ty {
            HyperType::Named(name) => name.node.clone(),
            HyperType::Choice(words, _) => list(words.iter().map(|w| format!("{:?}", w.node))),
        };
        let default = hyper.default.as_ref().map_or("-".to_owned(), expr);
        line(
            out,
            1,
            &format!("hyper {}: {ty} = {default}", hyper.name.node),
        );
    }
    for item in &method.body {
        show_method_item(out, item);
    }
}

fn show_method_item(out: &mut String, item: &MethodItem) {
    match item {
        MethodItem::Require(require) => {
            let message = require.message.as_ref().map(|text| &text.node);
            line(
                out,
                1,
                &format!("require {} {message:?}", expr(&require.condition)),
            );
        }
        MethodItem::Param(param) => {
            doc(out, 1, &param.doc);
            let shared = if param.shared.is_some() {
                "shared "
            } else {
                ""
            };
            let word = if param.trainable { "param" } else { "const" };
            let when = param
                .when
                .as_ref()
                .map_or(String::new(), |w| format!(" when {}", expr(w)));
            let key = param
                .key
                .as_ref()
                .map_or(String::new(), |k| format!(" by {}", expr(k)));
            let rate = param
                .rate
                .as_ref()
                .map_or(String::new(), |r| format!(" rate {}", expr(r)));
            let shape = list(param.shape.iter().map(expr));
            let (name, init) = (&param.name.node, expr(&param.init));
            line(
                out,
                1,
                &format!("{shared}{word} {name}: {shape} = {init}{when}{key}{rate}"),
            );
        }
        MethodItem::Let(item) => {
            line(
                out,
                1,
                &format!("let {} = {}", item.name.node, expr(&item.value)),
            );
        }
        MethodItem::Function(function) => show_function(out, 1, function),
        MethodItem::Forward(forward) => {
            let names = list(forward.parameters.iter().map(|name| name.node.clone()));
            line(out, 1, &format!("forward {names} {}", block(&forward.body)));
        }
        MethodItem::Hook(hook) => {
            let body = statements(&hook.body);
            let when = hook.when.as_ref();
            let when = when.map_or(String::new(), |w| format!(" when {}", expr(w)));
            line(
                out,
                1,
                &format!("{}{when} {{ {body}}}", hook.event.written()),
            );
        }
        MethodItem::State(state) => {
            doc(out, 1, &state.doc);
            let when = state.when.as_ref();
            let when = when.map_or(String::new(), |w| format!(" when {}", expr(w)));
            let shape = list(state.shape.iter().map(expr));
            let (name, init) = (&state.name.node, expr(&state.init));
            line(out, 1, &format!("state {name}: {shape} = {init}{when}"));
        }
        MethodItem::Loss(loss) => {
            line(out, 1, &format!("loss {}", block(&loss.body)));
        }
        MethodItem::Interchange(known) => {
            let (tool, kind) = (&known.tool.node, &known.kind.node);
            line(out, 1, &format!("interchange {tool} {kind:?}"));
            let when = |when: &Option<Expr>| {
                when.as_ref()
                    .map_or(String::new(), |w| format!(" when {}", expr(w)))
            };
            for setting in &known.settings {
                let by = setting.exceptions.as_ref();
                let by = by.map_or(String::new(), |key| format!(" by {}", key.node));
                let (key, value) = (&setting.key.node, expr(&setting.value));
                line(
                    out,
                    2,
                    &format!("{key} = {value}{}{by}", when(&setting.when)),
                );
            }
            for tensor in &known.tensors {
                let forms: Vec<&str> = tensor.forms.iter().map(|f| f.node.as_str()).collect();
                let form = match forms.as_slice() {
                    [] => String::new(),
                    forms => format!(" as {}", forms.join(", ")),
                };
                let (name, parameter) = (&tensor.name.node, &tensor.parameter.node);
                line(
                    out,
                    2,
                    &format!("{name:?} = {parameter}{form}{}", when(&tensor.when)),
                );
            }
        }
    }
}

fn show_function(out: &mut String, depth: usize, function: &Function) {
    doc(out, depth, &function.doc);
    let names = list(function.parameters.iter().map(|name| name.node.clone()));
    let (name, body) = (&function.name.node, block(&function.body));
    line(out, depth, &format!("fn {name} {names} {body}"));
}

fn show_adapter_item(out: &mut String, item: &AdapterItem) {
    let text = match item {
        AdapterItem::Layers(layers) => {
            let end = |end: Option<i64>| end.map_or(String::new(), |end| end.to_string());
            let ranges = layers.ranges.iter();
            let ranges = ranges.map(|r| format!("{}..{}", end(r.start), end(r.end)));
            format!("layers {:?} = {}", layers.path.node, list(ranges))
        }
        AdapterItem::Adapt(adapt) => {
            let methods = adapt
                .methods
                .iter()
                .map(|call| format!("{}{}", call.method.node, arguments(&call.arguments)));
            let overrides = adapt
                .overrides
                .iter()
                .map(|o| format!("{} {}", pattern(&o.pattern), arguments(&o.arguments)));
            format!(
                "adapt {} with {} except {} where {} override {}",
                targets(&adapt.targets),
                list(methods),
                targets(&adapt.except),
                adapt.condition.as_ref().map_or("-".to_owned(), expr),
                list(overrides),
            )
        }
        AdapterItem::Train(train) => {
            format!(
                "train {} except {}",
                targets(&train.targets),
                targets(&train.except)
            )
        }
        AdapterItem::Expect(expect) => match &expect.claim {
            Claim::Condition(condition) => format!("expect {}", expr(condition)),
            Claim::IdentityAtStart => "expect <identity at start>".to_owned(),
            Claim::Property(name) => format!("expect <{}>", name.node),
        },
    };
    line(out, 1, &text);
}

fn targets(targets: &[Target]) -> String {
    list(targets.iter().map(|target| match target {
        Target::Pattern(text) => pattern(text),
        Target::All { kind, .. } => format!("all {}", kind.node),
        Target::Role { role, .. } => format!("role({})", role.node),
    }))
}

fn pattern(pattern: &Pattern) -> String {
    let regex = if pattern.regex { "regex " } else { "" };
    let slice = pattern.slice.as_ref().map_or(String::new(), |slice| {
        format!("[{}..{}]", optional(&slice.start), optional(&slice.end))
    });
    format!("{regex}{:?}{slice}", pattern.text.node)
}

fn optional(value: &Option<Expr>) -> String {
    value.as_ref().map_or(String::new(), expr)
}

fn list(parts: impl Iterator<Item = String>) -> String {
    format!("[{}]", parts.collect::<Vec<_>>().join(", "))
}

fn block(block: &Block) -> String {
    let value = block
        .value
        .as_ref()
        .map_or("-".to_owned(), |value| expr(value));
    format!("{{ {}{value} }}", statements(&block.statements))
}

fn statements(all: &[Statement]) -> String {
    let texts = all.iter().map(|statement| match statement {
        Statement::Bind { name, value, .. } => format!("{} := {}; ", name.node, expr(value)),
        Statement::For {
            variable,
            start,
            end,
            body,
            ..
        } => {
            let (start, end) = (expr(start), expr(end));
            format!(
                "for {} in {start}..{end} {{ {}}}; ",
                variable.node,
                statements(body)
            )
        }
    });
    texts.collect()
}

fn arguments(all: &[Argument]) -> String {
    let texts = all.iter().map(|argument| match &argument.name {
        None => expr(&argument.value),
        Some(name) => format!("{} = {}", name.node, expr(&argument.value)),
    });
    format!("({})", texts.collect::<Vec<_>>().join(", "))
}

/// An expression with all its parentheses.
pub(super) fn expr(value: &Expr) -> String {
    match &value.kind {
        ExprKind::Int(number) => number.to_string(),
        ExprKind::Float(number) => format!("{number:?}"),
        ExprKind::Percent(number) => format!("{number:?}%"),
        ExprKind::Bool(truth) => truth.to_string(),
        ExprKind::Str(text) => format!("{text:?}"),
        ExprKind::Name(name) => name.clone(),
        ExprKind::Unary(op, value) => format!("({} {})", op.symbol(), expr(value)),
        ExprKind::Binary(op, left, right) => {
            format!("({} {} {})", expr(left), op.node.symbol(), expr(right))
        }
        ExprKind::Call {
            callee,
            arguments: all,
        } => format!("{}{}", callee.node, arguments(all)),
        ExprKind::Index(value, subscripts) => {
            let texts = subscripts.iter().map(|subscript| match subscript {
                Subscript::At(position) => expr(position),
                Subscript::Range { start, end, .. } => {
                    format!("{}..{}", optional(start), optional(end))
                }
            });
            format!("{}{}", expr(value), list(texts))
        }
        ExprKind::Field(value, name) => format!("{}.{}", expr(value), name.node),
        ExprKind::List(values) => format!("list{}", list(values.iter().map(expr))),
        ExprKind::If {
            condition,
            then,
            otherwise,
        } => {
            format!(
                "if {} {} else {}",
                expr(condition),
                block(then),
                block(otherwise)
            )
        }
    }
}
