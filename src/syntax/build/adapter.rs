//! Adapters: targets, methods applied to them, expectations.

use super::literal::between_quotes;
use super::{Builder, Parts};
use crate::diag::{Span, Spanned};
use crate::syntax::ast::{
    Adapt, Adapter, AdapterItem, Claim, Expect, ExprKind, LayerRange, Layers, MethodCall, Override,
    Pattern, Slice, Target, Train,
};
use crate::syntax::errors;
use crate::syntax::grammar::Rule;
use pest::iterators::Pair;

/// Whether a pattern may ask for a part of what it matches.
#[derive(Clone, Copy)]
enum Slices {
    Allowed,
    Refused(&'static str),
}

impl Builder<'_> {
    pub(super) fn adapter(&mut self, pair: Pair<'_, Rule>) -> Adapter {
        let span = self.span(&pair);
        let mut parts = Parts::of(pair);
        let mut head = Parts::of(parts.one(Rule::adapter_head));
        let doc = self.docs(head.one(Rule::docs));
        let name = self.ident(&head.one(Rule::name));
        let items = parts.rest();
        self.check_apart(&items);
        let mut layers = None;
        for item in items.iter().filter(|i| i.as_rule() == Rule::layers) {
            let span = self.span(item);
            self.check_once(&mut layers, span, "layers");
        }
        Adapter {
            doc,
            name,
            items: items.into_iter().map(|i| self.adapter_item(i)).collect(),
            span,
        }
    }

    pub(super) fn adapter_item(&mut self, pair: Pair<'_, Rule>) -> AdapterItem {
        match pair.as_rule() {
            Rule::layers => AdapterItem::Layers(self.layers(pair)),
            Rule::adapt => AdapterItem::Adapt(self.adapt(pair)),
            Rule::train => AdapterItem::Train(self.train(pair)),
            rule => {
                debug_assert_eq!(rule, Rule::expect);
                AdapterItem::Expect(self.expect(pair))
            }
        }
    }

    fn layers(&mut self, pair: Pair<'_, Rule>) -> Layers {
        let span = self.span(&pair);
        let mut parts = Parts::of(pair);
        let path = self.string(&parts.one(Rule::string));
        let ranges = parts.rest();
        Layers {
            path,
            ranges: ranges.into_iter().map(|r| self.layer_range(r)).collect(),
            span,
        }
    }

    fn layer_range(&mut self, pair: Pair<'_, Rule>) -> LayerRange {
        let span = self.span(&pair);
        let (mut start, mut end, mut has_dots) = (None, None, false);
        for part in pair.into_inner() {
            match part.as_rule() {
                Rule::dots => has_dots = true,
                _ if has_dots => end = self.layer_number(&part),
                _ => start = self.layer_number(&part),
            }
        }
        if !has_dots {
            end = start.map(|number| number.saturating_add(1));
        }
        LayerRange { start, end, span }
    }

    fn layer_number(&mut self, pair: &Pair<'_, Rule>) -> Option<i64> {
        match self.number(pair) {
            ExprKind::Int(number) => Some(number),
            _ => {
                let span = self.span(pair);
                self.report(errors::layer_number_is_no_integer(span));
                None
            }
        }
    }

    fn adapt(&mut self, pair: Pair<'_, Rule>) -> Adapt {
        let span = self.span(&pair);
        let mut parts = Parts::of(pair);
        let targets = self.targets(parts.one(Rule::targets), Slices::Allowed);
        let calls = parts.many(Rule::method_call);
        let mut adapt = Adapt {
            targets,
            methods: calls.into_iter().map(|c| self.method_call(c)).collect(),
            except: Vec::new(),
            condition: None,
            overrides: Vec::new(),
            span,
        };
        let (mut except, mut condition) = (None, None);
        for clause in parts.rest() {
            let span = self.span(&clause);
            match clause.as_rule() {
                Rule::except => {
                    self.check_once(&mut except, span, "except");
                    adapt.except = self.except(clause);
                }
                Rule::condition => {
                    self.check_once(&mut condition, span, "where");
                    adapt.condition = Some(self.expr(Parts::of(clause).one(Rule::expr)));
                }
                _ => adapt.overrides.push(self.override_clause(clause)),
            }
        }
        adapt
    }

    fn check_once(&mut self, first: &mut Option<Span>, span: Span, word: &str) {
        match *first {
            None => *first = Some(span),
            Some(first) => self.report(errors::clause_twice(first, span, word)),
        }
    }

    fn method_call(&mut self, pair: Pair<'_, Rule>) -> MethodCall {
        let span = self.span(&pair);
        let mut parts = Parts::of(pair);
        MethodCall {
            method: self.ident(&parts.one(Rule::name)),
            arguments: parts
                .maybe(Rule::arguments)
                .map_or_else(Vec::new, |arguments| self.arguments(arguments)),
            span,
        }
    }

    fn override_clause(&mut self, pair: Pair<'_, Rule>) -> Override {
        let span = self.span(&pair);
        let mut parts = Parts::of(pair);
        let sliced = Slices::Refused("an override is for whole modules");
        Override {
            pattern: self.pattern(parts.one(Rule::pattern), sliced),
            arguments: self.arguments(parts.one(Rule::arguments)),
            span,
        }
    }

    fn train(&mut self, pair: Pair<'_, Rule>) -> Train {
        let span = self.span(&pair);
        let mut parts = Parts::of(pair);
        let sliced = Slices::Refused("a module is trained as a whole");
        let targets = self.targets(parts.one(Rule::targets), sliced);
        let except = parts.maybe(Rule::except);
        Train {
            targets,
            except: except.map_or_else(Vec::new, |except| self.except(except)),
            span,
        }
    }

    fn except(&mut self, pair: Pair<'_, Rule>) -> Vec<Target> {
        let sliced = Slices::Refused("a module is left out as a whole");
        self.targets(Parts::of(pair).one(Rule::targets), sliced)
    }

    fn expect(&mut self, pair: Pair<'_, Rule>) -> Expect {
        let span = self.span(&pair);
        let claim = Parts::of(pair).any();
        if claim.as_rule() == Rule::identity {
            let claim = Claim::IdentityAtStart;
            return Expect { claim, span };
        }
        let condition = self.expr(claim);
        let claim = match condition.kind {
            ExprKind::Name(node) => Claim::Property(Spanned {
                node,
                span: condition.span,
            }),
            _ => Claim::Condition(condition),
        };
        Expect { claim, span }
    }

    fn targets(&mut self, pair: Pair<'_, Rule>, slices: Slices) -> Vec<Target> {
        let targets = Parts::of(pair).rest();
        targets
            .into_iter()
            .map(|t| self.target(t, slices))
            .collect()
    }

    fn target(&mut self, pair: Pair<'_, Rule>, slices: Slices) -> Target {
        let span = self.span(&pair);
        match pair.as_rule() {
            Rule::pattern => Target::Pattern(self.pattern(pair, slices)),
            Rule::all_kind => Target::All {
                kind: self.ident(&Parts::of(pair).one(Rule::name)),
                span,
            },
            rule => {
                debug_assert_eq!(rule, Rule::role);
                Target::Role {
                    role: self.ident(&Parts::of(pair).one(Rule::name)),
                    span,
                }
            }
        }
    }

    fn pattern(&mut self, pair: Pair<'_, Rule>, slices: Slices) -> Pattern {
        let span = self.span(&pair);
        let mut parts = Parts::of(pair);
        let regex = parts.maybe(Rule::regex_pattern);
        let is_regex = regex.is_some();
        let text = match regex {
            Some(regex) => {
                let text = Parts::of(regex).one(Rule::string);
                Spanned {
                    node: between_quotes(text.as_str()).to_owned(),
                    span: self.span(&text),
                }
            }
            None => self.string(&parts.one(Rule::string)),
        };
        let slice = parts.maybe(Rule::slice).map(|slice| self.slice(slice));
        if let (Some(slice), Slices::Refused(why)) = (&slice, slices) {
            self.report(errors::slice_out_of_place(slice.span, why));
        }
        Pattern {
            regex: is_regex,
            text,
            slice: slice.map(Box::new),
            span,
        }
    }

    fn slice(&mut self, pair: Pair<'_, Rule>) -> Slice {
        let span = self.span(&pair);
        let (mut start, mut end, mut after_dots) = (None, None, false);
        for part in pair.into_inner() {
            match part.as_rule() {
                Rule::dots => after_dots = true,
                Rule::expr if after_dots => end = Some(self.expr(part)),
                Rule::expr => start = Some(self.expr(part)),
                _ => {}
            }
        }
        Slice { start, end, span }
    }
}
