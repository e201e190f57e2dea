//! What a method does in training beside `forward`: formulas over its parameters, their gradients and
//! what it keeps from step to step.
//!
//! A hook has a formula of its own with several results. Inside of it a parameter's name is the
//! parameter, `gradient(P)` its gradient; a statement that gives such a name a value changes what it
//! stands for and hides nothing. Not here: where training graphs have hooks (`train`).

use super::errors;
use super::eval::Eval;
use super::formula::{Formula, Lead, TermId, TermKind, TermType};
use super::scalar::Value;
use crate::diag::{Reported, Span};
use crate::syntax::ast::{self, Event, ExprKind, Ident};
use crate::ty::Dim;
use std::collections::BTreeMap;

type Result<T> = std::result::Result<T, Reported>;

/// What an instance does in training; of methods called inside `forward`, too.
#[derive(Clone, Debug, Default)]
pub struct Training {
    pub states: Vec<StateInstance>,
    pub hooks: Vec<Hook>,
    /// Numbers that are added to the loss.
    pub losses: Vec<Formula>,
    /// What `forward` draws in training, by number.
    pub(super) draws: Vec<Draw>,
}

/// Noise that `forward` asks for.
#[derive(Clone, Debug)]
pub(super) struct Draw {
    /// The path of the inner method that asks.
    prefix: String,
    /// Where in its text.
    span: Span,
    ty: TermType,
    term: TermId,
}

/// A tensor that a method keeps from step to step; zeros at the start.
#[derive(Clone, Debug)]
pub struct StateInstance {
    /// With the path of inner methods, as a parameter's.
    pub name: String,
    pub dims: Vec<Dim>,
    pub span: Span,
}

/// One hook of an instance.
#[derive(Clone, Debug)]
pub struct Hook {
    pub event: Event,
    /// Its results are those of the changes; it has none as a whole.
    pub formula: Formula,
    pub changes: Vec<Change>,
}

/// What a hook gives a new gradient or value, of the same type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub target: Target,
    pub to: TermId,
}

/// A tensor of an instance, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Parameter(usize),
    State(usize),
}

impl Training {
    /// The place of a draw that a loss reads and `forward` makes nothing of.
    pub(super) fn lost_draw(&self, forward: &Formula) -> Option<Span> {
        let reached = forward.reachable();
        let terms = self.losses.iter().flat_map(Formula::terms);
        let mut numbers = terms.filter_map(|(_, term)| match term.kind {
            TermKind::Noise { number, .. } => Some(&self.draws[number as usize]),
            _ => None,
        });
        let lost = numbers.find(|draw| !reached[draw.term.0 as usize]);
        lost.map(|draw| draw.span)
    }
}

/// A hook or a loss that is being evaluated.
pub(super) struct HookScope {
    /// Nothing in a loss.
    event: Option<Event>,
    /// How deep calls nest around its own statements.
    depth: usize,
    changed: BTreeMap<Target, TermId>,
    /// Names that the hook has given a value to and not read.
    unread: BTreeMap<String, Span>,
}

impl HookScope {
    fn new(event: Option<Event>, depth: usize) -> HookScope {
        HookScope {
            event,
            depth,
            changed: BTreeMap::new(),
            unread: BTreeMap::new(),
        }
    }
}

/// Evaluates hooks and losses of a method, for which all declarations have been.
pub(super) fn evaluate(eval: &mut Eval<'_>, body: &[ast::MethodItem]) -> Result<()> {
    let first = eval.training.hooks.len();
    for item in body {
        match item {
            ast::MethodItem::Hook(hook) => evaluate_hook(eval, hook)?,
            ast::MethodItem::Loss(loss) => evaluate_loss(eval, loss)?,
            _ => {}
        }
    }
    let hooks = eval.training.hooks[first..].iter();
    let changed: Vec<Target> = hooks
        .flat_map(|hook| &hook.changes)
        .map(|change| change.target)
        .collect();
    for (index, state) in eval.training.states.iter().enumerate() {
        let is_own = eval.is_own(&state.name);
        if is_own && !changed.contains(&Target::State(index)) {
            let (span, name) = (state.span, state.name.clone());
            return Err(eval.fail(errors::state_never_changes(span, &name)));
        }
    }
    Ok(())
}

/// Evaluates in a formula of its own.
fn apart<T>(
    eval: &mut Eval<'_>,
    event: Option<Event>,
    evaluate: impl FnOnce(&mut Eval<'_>) -> Result<T>,
) -> Result<(T, Formula, HookScope)> {
    let forward = std::mem::take(&mut eval.formula);
    let outer = eval.hook.replace(HookScope::new(event, eval.depth));
    let done = evaluate(eval);
    let scope = std::mem::replace(&mut eval.hook, outer);
    let formula = std::mem::replace(&mut eval.formula, forward);
    let scope = scope.unwrap_or_else(|| HookScope::new(event, 0));
    Ok((done?, formula, scope))
}

fn evaluate_hook(eval: &mut Eval<'_>, hook: &ast::Hook) -> Result<()> {
    if let Some(when) = &hook.when
        && eval.condition(when)? == Some(false)
    {
        return Ok(());
    }
    let ((), formula, scope) = apart(eval, Some(hook.event), |eval| {
        eval.scopes.push(BTreeMap::new());
        let done = eval.statements(&hook.body);
        eval.scopes.pop();
        done
    })?;
    if let Some((name, span)) = scope.unread.first_key_value() {
        let known = eval.changeable(hook.event);
        let event = hook.event.written();
        return Err(eval.fail(errors::changes_nothing(*span, name, event, &known)));
    }
    let changes = scope.changed.into_iter();
    let changes = changes.map(|(target, to)| Change { target, to }).collect();
    eval.training.hooks.push(Hook {
        event: hook.event,
        formula,
        changes,
    });
    Ok(())
}

fn evaluate_loss(eval: &mut Eval<'_>, loss: &ast::Loss) -> Result<()> {
    let span = loss.body.value.as_ref().map_or(loss.span, |v| v.span);
    let (result, mut formula, _) = apart(eval, None, |eval| {
        let value = eval.block(&loss.body)?;
        let result = eval.as_term(value, span)?;
        let ty = eval.ty(result);
        match ty == TermType::scalar() {
            true => Ok(result),
            false => Err(eval.fail(errors::loss_is_no_number(span, &ty))),
        }
    })?;
    formula.result = Some(result);
    // A number that depends on nothing changes nothing.
    if formula.uses(|kind| matches!(kind, TermKind::Param(_))) {
        eval.training.losses.push(formula);
    }
    Ok(())
}

/// Declares a state.
pub(super) fn declare(eval: &mut Eval<'_>, state: &ast::State) -> Result<()> {
    let name = &state.name;
    if let Some(when) = &state.when
        && eval.condition(when)? == Some(false)
    {
        let why = "its `when` condition is false".to_owned();
        eval.absent.insert(name.node.clone(), why);
        return Ok(());
    }
    let dims = eval.sizes(&state.shape)?;
    if !matches!(&state.init.kind, ExprKind::Name(word) if word == "zeros") {
        return Err(eval.fail(errors::state_starts_as_zeros(state.init.span, &name.node)));
    }
    let full = format!("{}{}", eval.prefix, name.node);
    let states = eval.training.states.iter().map(|s| (&s.name, s.span));
    let params = eval.params.iter().map(|p| (&p.name, p.span));
    let first = states.chain(params).find(|(known, _)| **known == full);
    if let Some((_, first)) = first {
        return Err(eval.fail(errors::duplicate(name.span, first, "tensor", &name.node)));
    }
    eval.training.states.push(StateInstance {
        name: full,
        dims,
        span: name.span,
    });
    Ok(())
}

impl Eval<'_> {
    /// Whether a tensor of this name is the method's and not one of a method that it calls.
    fn is_own(&self, full: &str) -> bool {
        let short = full.strip_prefix(self.prefix.as_str());
        short.is_some_and(|short| !short.contains('.'))
    }

    /// Names of what a hook may change, in backticks.
    fn changeable(&self, event: Event) -> Vec<String> {
        let params = self.params.iter().filter(|p| p.trainable && !p.shared);
        let params = params.map(|param| &param.name);
        let states = self.training.states.iter().map(|state| &state.name);
        let states = states.filter(|_| event == Event::Step);
        let own = params.chain(states).filter(|name| self.is_own(name));
        own.map(|name| format!("`{}`", &name[self.prefix.len()..]))
            .collect()
    }

    /// The method's own tensor of a name.
    fn own(&self, name: &str) -> Option<Target> {
        let full = format!("{}{name}", self.prefix);
        let param = self.params.iter().position(|param| param.name == full);
        let mut states = self.training.states.iter();
        let mut state = || states.position(|state| state.name == full);
        let param = param.map(Target::Parameter);
        param.or_else(|| state().map(Target::State))
    }

    fn declared(&self, target: Target) -> (TermType, Span) {
        let (dims, span) = match target {
            Target::Parameter(index) => (&self.params[index].dims, self.params[index].span),
            Target::State(index) => {
                let state = &self.training.states[index];
                (&state.dims, state.span)
            }
        };
        (TermType::of(Lead::None, dims.iter().cloned()), span)
    }

    /// What a name stands for that a hook alone sees, and a parameter's name inside a hook.
    pub(super) fn hooked(&mut self, name: &str, span: Span) -> Result<Option<Value>> {
        let found = self.own(name);
        let Some(hook) = &self.hook else {
            return match found {
                Some(Target::State(_)) => Err(self.fail(errors::outside_of_hooks(span, name))),
                _ => Ok(None),
            };
        };
        let (event, changed) = (hook.event, found.and_then(|f| hook.changed.get(&f)));
        if let (Some(term), Some(Event::Step)) = (changed, event) {
            return Ok(Some(Value::Term(*term)));
        }
        let (kind, ty) = match (found, event) {
            (Some(Target::State(_)), None) => {
                return Err(self.fail(errors::outside_of_hooks(span, name)));
            }
            (Some(Target::State(index)), _) => (
                TermKind::State(index),
                self.declared(Target::State(index)).0,
            ),
            (Some(Target::Parameter(index)), _) => {
                let ty = self.declared(Target::Parameter(index)).0;
                (TermKind::Param(index), ty)
            }
            (None, Some(_)) if name == "step" => (TermKind::Step, TermType::scalar()),
            (None, _) => return Ok(None),
        };
        Ok(Some(Value::Term(self.term(kind, ty, span)?)))
    }

    /// `gradient(P)`: as the hook has changed it.
    pub(super) fn gradient(&mut self, name: &str, span: Span) -> Result<Value> {
        let index = self.trained(name, span)?;
        let hook = self.hook.as_ref();
        let changed = hook.filter(|hook| hook.event == Some(Event::Gradient));
        let target = Target::Parameter(index);
        if let Some(term) = changed.and_then(|hook| hook.changed.get(&target)) {
            return Ok(Value::Term(*term));
        }
        self.of_parameter(index, span, TermKind::Gradient)
    }

    /// `before(P)`: what a parameter was before the update.
    pub(super) fn before(&mut self, name: &str, span: Span) -> Result<Value> {
        let index = self.trained(name, span)?;
        self.of_parameter(index, span, TermKind::Before)
    }

    fn of_parameter(
        &mut self,
        index: usize,
        span: Span,
        kind: fn(usize) -> TermKind,
    ) -> Result<Value> {
        let ty = self.declared(Target::Parameter(index)).0;
        Ok(Value::Term(self.term(kind(index), ty, span)?))
    }

    /// `noise`: a draw of `forward`, or in a loss the first that `forward` has made at this place.
    pub(super) fn noise(
        &mut self,
        like: Option<TermId>,
        ty: TermType,
        span: Span,
    ) -> Result<Value> {
        let number = match &self.hook {
            // A start value draws nothing: nobody trains with it.
            None if self.starting => 0,
            None => self.training.draws.len(),
            Some(_) => {
                let mut draws = self.training.draws.iter();
                let known = draws.position(|draw| {
                    draw.prefix == self.prefix && draw.span == span && draw.ty == ty
                });
                known.ok_or_else(|| self.fail(errors::drawn_in_a_loss(span)))?
            }
        };
        let like = like.filter(|_| self.hook.is_none());
        let number = number as u32;
        let term = self.term(TermKind::Noise { like, number }, ty.clone(), span)?;
        if self.hook.is_none() && !self.starting {
            self.training.draws.push(Draw {
                prefix: self.prefix.clone(),
                span,
                ty,
                term,
            });
        }
        Ok(Value::Term(term))
    }

    /// The event of the hook in hand.
    pub(super) fn event(&self) -> Option<Event> {
        self.hook.as_ref().and_then(|hook| hook.event)
    }

    /// The index of a parameter that is trained.
    fn trained(&mut self, name: &str, span: Span) -> Result<usize> {
        if let Some(why) = self.absent.get(name).cloned() {
            return Err(self.fail(errors::not_available(span, name, &why)));
        }
        let Some(Target::Parameter(index)) = self.own(name) else {
            let known = self.changeable(Event::Gradient);
            let known = known.iter().map(|name| name.trim_matches('`'));
            return Err(self.fail(errors::unknown_name(span, name, known)));
        };
        let param = &self.params[index];
        if !param.trainable {
            let declared = param.span;
            return Err(self.fail(errors::hook_on_frozen(span, name, declared)));
        }
        Ok(index)
    }

    /// Remembers that the value of a name is of use.
    pub(super) fn has_read(&mut self, name: &str) {
        if let Some(hook) = &mut self.hook {
            hook.unread.remove(name);
        }
    }

    /// Whether a statement changes a tensor of the method, as one of a hook does: then that is done.
    pub(super) fn changes(&mut self, name: &Ident, value: Option<&Value>) -> Result<bool> {
        let found = self.own(&name.node);
        let is_absent = self.absent.contains_key(&name.node);
        let depth = self.depth;
        let (Some(hook), Some(value)) = (&mut self.hook, value) else {
            return Ok(false);
        };
        let Some(event) = hook.event.filter(|_| hook.depth == depth) else {
            return Ok(false);
        };
        if found.is_none() && !is_absent {
            hook.unread.insert(name.node.clone(), name.span);
            return Ok(false);
        }
        let target = self.target(name, found, event)?;
        let term = self.as_term(value.clone(), name.span)?;
        let (found, (wanted, declared)) = (self.ty(term), self.declared(target));
        if !found.is_same(&wanted) {
            let value = self.span_of(term);
            return Err(self.fail(errors::hook_of_another_shape(
                (value, &found),
                &name.node,
                (declared, &wanted),
            )));
        }
        if let Some(hook) = &mut self.hook {
            hook.changed.insert(target, term);
        }
        Ok(true)
    }

    /// What a statement of a hook changes, if the hook may.
    fn target(&mut self, name: &Ident, found: Option<Target>, event: Event) -> Result<Target> {
        if let Some(state @ Target::State(_)) = found {
            return match event {
                Event::Step => Ok(state),
                Event::Gradient => Err(self.fail(errors::state_in_gradient(name.span, &name.node))),
            };
        }
        let index = self.trained(&name.node, name.span)?;
        if self.params[index].shared {
            let declared = self.params[index].span;
            return Err(self.fail(errors::hook_on_shared(name.span, &name.node, declared)));
        }
        Ok(Target::Parameter(index))
    }
}
