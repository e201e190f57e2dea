//! Hooks of methods as nodes of training graphs.
//!
//! In: a plan with the tensors that it has brought into a model. Out: [`Hooks`], which emits what
//! methods do with gradients and behind a step, and what they add to the loss, for whoever builds
//! training graphs. What holds: a hook reads tensors of its own method at its own module, and of the
//! other modules of its statement what `everywhere` joins. Not here: where training graphs have them
//! (`train`).

use super::apply::NewTensor;
use super::lower::{Bindings, Lowering, UNREAD};
use super::plan::Plan;
use crate::graph::{Attribute, Operand, Tensor};
use crate::hir::{Event, Formula, Hook, Instance, Target, TermId, TermKind};
use crate::modules::Modules;
use crate::ops::Emitter;
use crate::ty::{DType, Dim, Shape, TensorType};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The hooks of a plan's methods at its modules.
#[derive(Clone, Debug, Default)]
pub struct Hooks {
    at: Vec<At>,
    tensors: Vec<HookTensor>,
    states: Vec<HookState>,
}

/// A tensor of the adapter that hooks speak of.
#[derive(Clone, Debug)]
pub struct HookTensor {
    /// The initializer of the adapted model that holds it.
    pub initializer: String,
    /// The start value.
    pub tensor: Tensor,
    /// Whether a hook or a loss reads it, or a hook changes it.
    pub is_used: bool,
}

/// What a method keeps at a module from step to step: f32, zeros at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookState {
    /// `<module>.<state>`, as a parameter's name.
    pub name: String,
    pub dims: Vec<i64>,
}

/// A method at a module.
#[derive(Clone, Debug)]
struct At {
    /// In front of the names of nodes.
    scope: String,
    instance: Arc<Instance>,
    /// Index into [`Hooks::tensors`] for every parameter of the instance.
    parameters: Vec<usize>,
    /// Index into [`Hooks::states`] for every state of the instance.
    states: Vec<usize>,
    /// The statement and the place of the method in it: what `everywhere` goes over.
    group: (usize, usize),
}

/// What hooks read, by the order of [`Hooks::tensors`] and [`Hooks::states`].
#[derive(Clone, Debug, Default)]
pub struct Read {
    pub tensors: Vec<Option<Operand>>,
    /// Of what is trained.
    pub gradients: Vec<Option<Operand>>,
    /// What is trained, before the update; the same as `tensors` in front of it.
    pub before: Vec<Option<Operand>>,
    pub states: Vec<Operand>,
    /// The number of the update, `f32[]`.
    pub step: Option<Operand>,
    /// What methods have drawn, f32, by the name of the draw in the graph.
    pub draws: BTreeMap<String, Operand>,
}

/// What hooks have changed, by the same orders.
#[derive(Clone, Debug, Default)]
pub struct Changed {
    pub tensors: BTreeMap<usize, Operand>,
    pub states: BTreeMap<usize, Operand>,
}

impl Hooks {
    /// Those of a plan; `tensors` are the plan's, in its order.
    pub fn new(plan: &Plan, modules: &Modules, tensors: &[NewTensor]) -> Hooks {
        let mut hooks = Hooks::default();
        for site in &plan.sites {
            let path = &modules.sites[site.site].path;
            for (place, method) in site.methods.iter().enumerate() {
                let training = &method.instance.training;
                if training.hooks.is_empty() && training.losses.is_empty() {
                    continue;
                }
                let states = training.states.iter().zip(&method.states);
                let states = states.map(|(state, name)| {
                    let dims = state.dims.iter().filter_map(Dim::known).collect();
                    hooks.state(name, dims)
                });
                let states = states.collect();
                hooks.at.push(At {
                    scope: format!("{path}/{}", method.name),
                    instance: method.instance.clone(),
                    parameters: method.parameters.clone(),
                    states,
                    group: (site.statement, place),
                });
            }
        }
        // Most methods have none, and compiling them must not take longer for it.
        if hooks.at.is_empty() {
            return hooks;
        }
        let used: BTreeSet<usize> = hooks.at.iter().flat_map(At::used).collect();
        let tensors = tensors
            .iter()
            .enumerate()
            .map(|(index, tensor)| HookTensor {
                initializer: tensor.initializer.clone(),
                tensor: tensor.tensor.clone(),
                is_used: used.contains(&index),
            });
        hooks.tensors = tensors.collect();
        hooks
    }

    /// The place of a state; two calls of one module have the same.
    fn state(&mut self, name: &str, dims: Vec<i64>) -> usize {
        if let Some(index) = self.states.iter().position(|state| state.name == name) {
            return index;
        }
        self.states.push(HookState {
            name: name.to_owned(),
            dims,
        });
        self.states.len() - 1
    }

    /// The adapter's tensors, in the order of its plan.
    pub fn tensors(&self) -> &[HookTensor] {
        &self.tensors
    }

    pub fn states(&self) -> &[HookState] {
        &self.states
    }

    /// Whether some hook reads the number of the update.
    pub fn reads_step(&self) -> bool {
        let mut hooks = self.at.iter().flat_map(|at| &at.instance.training.hooks);
        hooks.any(|hook| {
            hook.formula
                .terms()
                .any(|(_, term)| term.kind == TermKind::Step)
        })
    }

    /// Emits what methods make of gradients, or behind a step of their parameters and states.
    pub fn emit(&self, event: Event, emitter: &mut Emitter, read: &Read) -> Changed {
        let mut changed = Changed::default();
        let groups: BTreeSet<(usize, usize)> = self.at.iter().map(|at| at.group).collect();
        for group in groups {
            let members: Vec<&At> = self.at.iter().filter(|at| at.group == group).collect();
            let hooks = |at: &At| at.hooks(event).count();
            let most = members.iter().map(|at| hooks(at)).max().unwrap_or(0);
            for number in 0..most {
                let members = members.iter();
                let members = members.filter_map(|at| Some((*at, at.hooks(event).nth(number)?)));
                emit_together(&members.collect::<Vec<_>>(), emitter, read, &mut changed);
            }
        }
        changed
    }

    /// Emits the sum of what methods add to the loss, `f32[]`; nothing where none adds anything.
    pub fn losses(&self, emitter: &mut Emitter, read: &Read) -> Option<Operand> {
        let mut seen = BTreeSet::new();
        let mut total = None;
        for at in &self.at {
            // Two calls of one module have one term.
            if !seen.insert(&at.parameters) {
                continue;
            }
            for formula in &at.instance.training.losses {
                emitter.scope = format!("{}/loss", at.scope);
                let mut lowering = Lowering::beside(emitter, at.bindings(read), formula);
                let term = lowering.computed(formula.result());
                total = Some(match total {
                    Some(before) => emitter.node("Add", &[before, term], Vec::new()),
                    None => term,
                });
            }
        }
        if let Some(total) = total {
            emitter.patch.set_type_of_new(total, floats(&[]));
        }
        total
    }

    /// The initializers of what is trained and read by a loss.
    pub fn in_losses(&self) -> BTreeSet<&str> {
        let read = self.at.iter().flat_map(|at| {
            let losses = at.instance.training.losses.iter();
            let read = losses.flat_map(parameters_of);
            read.filter(|index| at.instance.params[*index].trainable)
                .map(|index| at.parameters[index])
        });
        read.map(|index| self.tensors[index].initializer.as_str())
            .collect()
    }
}

/// One hook at all modules of a statement.
fn emit_together(
    members: &[(&At, &Hook)],
    emitter: &mut Emitter,
    read: &Read,
    changed: &mut Changed,
) {
    // By member: the terms of its formula that have been emitted.
    let mut done: Vec<Vec<Option<Operand>>> = vec![Vec::new(); members.len()];
    let joined = members
        .iter()
        .map(|(_, hook)| hook.formula.everywhere().count());
    for number in 0..joined.max().unwrap_or(0) {
        let mut parts = Vec::new();
        for ((at, hook), done) in members.iter().zip(&mut done) {
            if let Some((operand, _)) = hook.formula.everywhere().nth(number) {
                let part = at.emit(hook, &[operand], emitter, read, done)[0];
                let one = emitter.ints(&[-1]);
                parts.push(emitter.node("Reshape", &[part, one], Vec::new()));
            }
        }
        let axis = vec![Attribute::int("axis", 0)];
        let whole = emitter.node("Concat", &parts, axis);
        for ((_, hook), done) in members.iter().zip(&mut done) {
            if let Some((_, term)) = hook.formula.everywhere().nth(number) {
                done[term.0 as usize] = Some(whole);
            }
        }
    }
    for ((at, hook), done) in members.iter().zip(&mut done) {
        let terms: Vec<TermId> = hook.changes.iter().map(|change| change.to).collect();
        let results = at.emit(hook, &terms, emitter, read, done);
        for (change, to) in hook.changes.iter().zip(results) {
            emitter
                .patch
                .set_type_of_new(to, floats(at.dims(change.target)));
            match change.target {
                Target::Parameter(index) => changed.tensors.insert(at.parameters[index], to),
                Target::State(index) => changed.states.insert(at.states[index], to),
            };
        }
    }
}

impl At {
    fn hooks(&self, event: Event) -> impl Iterator<Item = &Hook> {
        let hooks = self.instance.training.hooks.iter();
        hooks.filter(move |hook| hook.event == event)
    }

    /// The tensors that it reads or changes.
    fn used(&self) -> impl Iterator<Item = usize> {
        let training = &self.instance.training;
        let hooks = training.hooks.iter();
        let formulas = hooks.clone().map(|hook| &hook.formula);
        let read = formulas.chain(&training.losses).flat_map(parameters_of);
        let changes = hooks.flat_map(|hook| &hook.changes);
        let changes = changes.filter_map(|change| match change.target {
            Target::Parameter(index) => Some(index),
            Target::State(_) => None,
        });
        read.chain(changes).map(|index| self.parameters[index])
    }

    fn dims(&self, target: Target) -> &[Dim] {
        match target {
            Target::Parameter(index) => &self.instance.params[index].dims,
            Target::State(index) => &self.instance.training.states[index].dims,
        }
    }

    fn bindings(&self, read: &Read) -> Bindings<'static> {
        let of = |all: &[Option<Operand>]| -> Vec<Option<Operand>> {
            let parameters = self.parameters.iter();
            let found = parameters.map(|index| all.get(*index).copied().flatten());
            found.collect()
        };
        let parameters = of(&read.tensors).into_iter();
        let states = self.states.iter();
        let draws = read.draws.iter().filter_map(|(name, drawn)| {
            let (scope, number) = name.rsplit_once('/')?;
            (scope == self.scope).then_some((number.parse().ok()?, *drawn))
        });
        Bindings {
            input: UNREAD,
            output: UNREAD,
            slice: None,
            once: None,
            parameters: parameters.map(|found| found.unwrap_or(UNREAD)).collect(),
            shared: Vec::new(),
            gradients: of(&read.gradients),
            before: of(&read.before),
            states: states
                .filter_map(|index| read.states.get(*index).copied())
                .collect(),
            step: read.step,
            draws: draws.collect(),
        }
    }

    /// Emits terms of a hook; `done` are those that have been emitted.
    fn emit(
        &self,
        hook: &Hook,
        terms: &[TermId],
        emitter: &mut Emitter,
        read: &Read,
        done: &mut Vec<Option<Operand>>,
    ) -> Vec<Operand> {
        emitter.scope = format!("{}/{}", self.scope, hook.event.written().replace(' ', "_"));
        let mut lowering = Lowering::beside(emitter, self.bindings(read), &hook.formula);
        lowering.go_on(done);
        let results = terms.iter().map(|term| lowering.computed(*term)).collect();
        *done = lowering.stop();
        results
    }
}

/// The parameters that a formula reads, or whose gradients or earlier values.
fn parameters_of(formula: &Formula) -> impl Iterator<Item = usize> {
    formula.terms().filter_map(|(_, term)| match term.kind {
        TermKind::Param(index) | TermKind::Gradient(index) | TermKind::Before(index) => Some(index),
        _ => None,
    })
}

fn floats(dims: &[Dim]) -> TensorType {
    TensorType::new(DType::F32, Shape(dims.to_vec()))
}
