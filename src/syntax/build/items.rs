//! Files, `use`, methods and functions.

use super::{Builder, Parts};
use crate::syntax::ast::{
    Event, File, Forward, Function, Hook, Hyper, HyperType, Ident, Interchange, InterchangeSetting,
    InterchangeTensor, Item, Let, Loss, Method, MethodItem, Param, Require, State, Use, UseName,
    UseSource,
};
use crate::syntax::grammar::Rule;
use pest::iterators::{Pair, Pairs};

impl Builder<'_> {
    pub(in crate::syntax) fn file(&mut self, pair: Pair<'_, Rule>) -> File {
        let span = self.span(&pair);
        let mut parts = Parts::of(pair);
        let doc = self.doc(&parts.many(Rule::file_doc));
        let items = parts.rest();
        self.check_apart(&items);
        File {
            doc,
            items: items.into_iter().map(|item| self.item(item)).collect(),
            span,
        }
    }

    fn item(&mut self, pair: Pair<'_, Rule>) -> Item {
        match pair.as_rule() {
            Rule::use_item => Item::Use(self.use_item(pair)),
            Rule::method => Item::Method(self.method(pair)),
            Rule::function => Item::Function(self.function(pair)),
            rule => {
                debug_assert_eq!(rule, Rule::adapter);
                Item::Adapter(self.adapter(pair))
            }
        }
    }

    /// A part of a file that was parsed by itself, for its faults only.
    pub(in crate::syntax) fn piece(&mut self, pairs: Pairs<'_, Rule>) {
        for pair in pairs {
            let rule = pair.as_rule();
            if rule == Rule::file {
                self.file(pair);
                continue;
            }
            let parts = Parts::of(pair).rest();
            if rule == Rule::lone_lines {
                self.lone_lines(parts);
                continue;
            }
            self.check_apart(&parts);
            for part in parts {
                self.part(part);
            }
        }
    }

    fn part(&mut self, pair: Pair<'_, Rule>) {
        match pair.as_rule() {
            Rule::method_head => {
                self.method_head(pair);
            }
            Rule::for_head => {
                self.for_head(pair);
            }
            Rule::layers | Rule::adapt | Rule::train | Rule::expect => {
                self.adapter_item(pair);
            }
            Rule::require
            | Rule::param
            | Rule::state_item
            | Rule::let_item
            | Rule::function
            | Rule::forward
            | Rule::hook
            | Rule::loss_item
            | Rule::interchange => {
                self.method_item(pair);
            }
            // The heads of other items are but names.
            _ => {}
        }
    }

    fn use_item(&mut self, pair: Pair<'_, Rule>) -> Use {
        let span = self.span(&pair);
        let mut parts = Parts::of(pair);
        let source = match parts.maybe(Rule::string) {
            Some(path) => UseSource::File(self.string(&path)),
            None => UseSource::Library(self.ident(&parts.one(Rule::name))),
        };
        let names = parts.rest().into_iter().map(|name| {
            let mut parts = Parts::of(name);
            UseName {
                name: self.ident(&parts.one(Rule::name)),
                alias: parts.maybe(Rule::name).map(|alias| self.ident(&alias)),
            }
        });
        Use {
            source,
            names: names.collect(),
            span,
        }
    }

    fn method(&mut self, pair: Pair<'_, Rule>) -> Method {
        let span = self.span(&pair);
        let mut parts = Parts::of(pair);
        let mut method = self.method_head(parts.one(Rule::method_head));
        let items = parts.rest();
        self.check_apart(&items);
        method.body = items.into_iter().map(|i| self.method_item(i)).collect();
        method.span = span;
        method
    }

    /// A method without its body.
    pub(super) fn method_head(&mut self, pair: Pair<'_, Rule>) -> Method {
        let span = self.span(&pair);
        let mut head = Parts::of(pair);
        let doc = self.docs(head.one(Rule::docs));
        let name = self.ident(&head.one(Rule::name));
        let hypers = head.maybe(Rule::hypers).map_or_else(Vec::new, |hypers| {
            let hypers = Parts::of(hypers).rest();
            hypers.into_iter().map(|hyper| self.hyper(hyper)).collect()
        });
        let kinds = self.idents(head.rest().into_iter());
        Method {
            doc,
            name,
            hypers,
            kinds,
            body: Vec::new(),
            span,
        }
    }

    pub(super) fn docs(&self, docs: Pair<'_, Rule>) -> String {
        self.doc(&Parts::of(docs).rest())
    }

    fn hyper(&mut self, pair: Pair<'_, Rule>) -> Hyper {
        let mut parts = Parts::of(pair);
        let doc = self.docs(parts.one(Rule::docs));
        let name = self.ident(&parts.one(Rule::name));
        let ty = match parts.maybe(Rule::choice) {
            Some(choice) => {
                let span = self.span(&choice);
                let words = Parts::of(choice).rest();
                HyperType::Choice(words.iter().map(|word| self.string(word)).collect(), span)
            }
            None => HyperType::Named(self.ident(&parts.one(Rule::type_name))),
        };
        Hyper {
            doc,
            name,
            ty,
            default: parts.maybe(Rule::expr).map(|default| self.expr(default)),
        }
    }

    fn method_item(&mut self, pair: Pair<'_, Rule>) -> MethodItem {
        match pair.as_rule() {
            Rule::require => MethodItem::Require(self.require(pair)),
            Rule::param => MethodItem::Param(Box::new(self.param(pair))),
            Rule::state_item => MethodItem::State(Box::new(self.state(pair))),
            Rule::loss_item => MethodItem::Loss(self.loss(pair)),
            Rule::interchange => MethodItem::Interchange(Box::new(self.interchange(pair))),
            Rule::let_item => MethodItem::Let(self.let_item(pair)),
            Rule::function => MethodItem::Function(self.function(pair)),
            Rule::hook => MethodItem::Hook(self.hook(pair)),
            rule => {
                debug_assert_eq!(rule, Rule::forward);
                MethodItem::Forward(self.forward(pair))
            }
        }
    }

    fn require(&mut self, pair: Pair<'_, Rule>) -> Require {
        let span = self.span(&pair);
        let mut parts = Parts::of(pair);
        Require {
            condition: self.expr(parts.one(Rule::expr)),
            message: parts.maybe(Rule::string).map(|text| self.string(&text)),
            span,
        }
    }

    fn param(&mut self, pair: Pair<'_, Rule>) -> Param {
        let span = self.span(&pair);
        let mut parts = Parts::of(pair);
        let doc = self.docs(parts.one(Rule::docs));
        let shared = parts.maybe(Rule::shared).map(|word| self.span(&word));
        let trainable = parts.any().as_rule() == Rule::param_word;
        let name = self.ident(&parts.one(Rule::name));
        let shape = Parts::of(parts.one(Rule::shape)).rest();
        Param {
            doc,
            shared,
            trainable,
            name,
            shape: self.exprs(shape),
            init: self.expr(parts.one(Rule::expr)),
            when: parts.maybe(Rule::expr).map(|when| self.expr(when)),
            key: parts
                .maybe(Rule::key)
                .map(|key| self.expr(Parts::of(key).one(Rule::expr))),
            rate: parts
                .maybe(Rule::rate)
                .map(|rate| self.expr(Parts::of(rate).one(Rule::expr))),
            span,
        }
    }

    fn let_item(&mut self, pair: Pair<'_, Rule>) -> Let {
        let span = self.span(&pair);
        let mut parts = Parts::of(pair);
        Let {
            name: self.ident(&parts.one(Rule::name)),
            value: self.expr(parts.one(Rule::expr)),
            span,
        }
    }

    fn function(&mut self, pair: Pair<'_, Rule>) -> Function {
        let span = self.span(&pair);
        let mut parts = Parts::of(pair);
        let mut head = Parts::of(parts.one(Rule::function_head));
        let doc = self.docs(head.one(Rule::docs));
        let name = self.ident(&head.one(Rule::name));
        let names = Parts::of(head.one(Rule::names)).rest();
        Function {
            doc,
            name,
            parameters: self.distinct(names),
            body: self.block(parts.one(Rule::block)),
            span,
        }
    }

    /// The names of a function's parameters.
    fn distinct(&mut self, names: Vec<Pair<'_, Rule>>) -> Vec<Ident> {
        let names = self.idents(names.into_iter());
        self.check_distinct(&names, "parameter");
        names
    }

    fn forward(&mut self, pair: Pair<'_, Rule>) -> Forward {
        let span = self.span(&pair);
        let mut parts = Parts::of(pair);
        let mut head = Parts::of(parts.one(Rule::forward_head));
        let names = Parts::of(head.one(Rule::names)).rest();
        Forward {
            parameters: self.distinct(names),
            body: self.block(parts.one(Rule::block)),
            span,
        }
    }

    fn hook(&mut self, pair: Pair<'_, Rule>) -> Hook {
        let span = self.span(&pair);
        let mut parts = Parts::of(pair);
        let mut head = Parts::of(parts.one(Rule::hook_head));
        let event = match head.any().as_rule() {
            Rule::kw_gradient => Event::Gradient,
            rule => {
                debug_assert_eq!(rule, Rule::kw_step);
                Event::Step
            }
        };
        Hook {
            event,
            when: head.maybe(Rule::expr).map(|when| self.expr(when)),
            body: self.statements_of(parts.one(Rule::block), "in a hook"),
            span,
        }
    }

    fn state(&mut self, pair: Pair<'_, Rule>) -> State {
        let span = self.span(&pair);
        let mut parts = Parts::of(pair);
        let doc = self.docs(parts.one(Rule::docs));
        let name = self.ident(&parts.one(Rule::name));
        let shape = Parts::of(parts.one(Rule::shape)).rest();
        State {
            doc,
            name,
            shape: self.exprs(shape),
            init: self.expr(parts.one(Rule::expr)),
            when: parts.maybe(Rule::expr).map(|when| self.expr(when)),
            span,
        }
    }

    fn loss(&mut self, pair: Pair<'_, Rule>) -> Loss {
        let span = self.span(&pair);
        let mut parts = Parts::of(pair);
        Loss {
            body: self.block(parts.one(Rule::block)),
            span,
        }
    }

    fn interchange(&mut self, pair: Pair<'_, Rule>) -> Interchange {
        let span = self.span(&pair);
        let mut parts = Parts::of(pair);
        let mut head = Parts::of(parts.one(Rule::interchange_head));
        let tool = self.ident(&head.one(Rule::name));
        let kind = self.string(&head.one(Rule::string));
        let entries = parts.rest();
        self.check_apart(&entries);
        let (mut settings, mut tensors) = (Vec::new(), Vec::new());
        for entry in entries {
            match entry.as_rule() {
                Rule::interchange_tensor => tensors.push(self.interchange_tensor(entry)),
                rule => {
                    debug_assert_eq!(rule, Rule::interchange_setting);
                    settings.push(self.interchange_setting(entry));
                }
            }
        }
        Interchange {
            tool,
            kind,
            settings,
            tensors,
            span,
        }
    }

    fn interchange_setting(&mut self, pair: Pair<'_, Rule>) -> InterchangeSetting {
        let span = self.span(&pair);
        let mut parts = Parts::of(pair);
        InterchangeSetting {
            key: self.ident(&parts.one(Rule::interchange_key)),
            value: self.expr(parts.one(Rule::expr)),
            when: parts.maybe(Rule::expr).map(|when| self.expr(when)),
            exceptions: parts.maybe(Rule::name).map(|key| self.ident(&key)),
            span,
        }
    }

    fn interchange_tensor(&mut self, pair: Pair<'_, Rule>) -> InterchangeTensor {
        let span = self.span(&pair);
        let mut parts = Parts::of(pair);
        InterchangeTensor {
            name: self.string(&parts.one(Rule::string)),
            parameter: self.ident(&parts.one(Rule::name)),
            forms: self.idents(parts.many(Rule::name).into_iter()),
            when: parts.maybe(Rule::expr).map(|when| self.expr(when)),
            span,
        }
    }
}
