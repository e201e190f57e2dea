//! Hooks of methods around the update of an optimizer, and what methods add to the loss. A trainer that
//! adds up gradients of several batches has hooks see the sum, as one that does not.

use crate::adapt::{Changed, Hooks, Read};
use crate::graph::{Operand, ValueId};
use crate::hir::Event;
use crate::ops::{Builder, Expr};
use crate::ty::DType;
use std::collections::BTreeMap;

/// The hooks of an update with what they read besides parameters and gradients.
pub(super) struct Around<'b, 'h> {
    build: &'b Builder<'b>,
    hooks: &'h Hooks,
    /// Initializers of what is trained.
    names: &'h [String],
    /// Tensors of the adapter that are not trained, in the order of [`Hooks::tensors`].
    frozen: Vec<Option<Operand>>,
    /// In the order of [`Hooks::states`].
    states: Vec<Expr<'b>>,
    step: Option<Operand>,
}

impl<'b, 'h> Around<'b, 'h> {
    /// `step` is the number of the update, `i64[]`.
    pub fn new(
        build: &'b Builder<'b>,
        hooks: &'h Hooks,
        names: &'h [String],
        states: Vec<Expr<'b>>,
        step: Expr<'b>,
    ) -> Self {
        let counts = hooks.reads_step();
        Around {
            frozen: frozen(build, hooks, names),
            build,
            hooks,
            names,
            states,
            step: counts.then(|| step.cast(DType::F32).operand),
        }
    }

    /// The gradients that the optimizer sees.
    pub fn on_gradient(
        &self,
        parameters: &[Expr<'b>],
        mut gradients: Vec<Expr<'b>>,
    ) -> Vec<Expr<'b>> {
        let read = self.read((parameters, parameters), &gradients);
        let changed = self.emit(Event::Gradient, &read);
        self.replace(&changed, &mut gradients);
        gradients
    }

    /// Parameters and states as the next update sees them; `parameters` are those before this one and
    /// behind it.
    pub fn on_step(
        &self,
        (before, mut after): (&[Expr<'b>], Vec<Expr<'b>>),
        gradients: &[Expr<'b>],
    ) -> (Vec<Expr<'b>>, Vec<Expr<'b>>) {
        let read = self.read((before, &after), gradients);
        let changed = self.emit(Event::Step, &read);
        self.replace(&changed, &mut after);
        let states = self.states.iter().enumerate();
        let states = states.map(|(index, state)| match changed.states.get(&index) {
            Some(now) => self.build.expr(*now),
            None => state.apply("Identity"),
        });
        (after, states.collect())
    }

    fn read(&self, (before, now): (&[Expr<'b>], &[Expr<'b>]), gradients: &[Expr<'b>]) -> Read {
        Read {
            gradients: trained(self.hooks, self.names, gradients),
            before: trained(self.hooks, self.names, before),
            tensors: with(trained(self.hooks, self.names, now), &self.frozen),
            states: self.states.iter().map(|state| state.operand).collect(),
            step: self.step,
            draws: BTreeMap::new(),
        }
    }

    fn emit(&self, event: Event, read: &Read) -> Changed {
        self.build.with_emitter(|emitter| {
            let scope = emitter.scope.clone();
            let changed = self.hooks.emit(event, emitter, read);
            emitter.scope = scope;
            changed
        })
    }

    fn replace(&self, changed: &Changed, values: &mut [Expr<'b>]) {
        for (tensor, to) in &changed.tensors {
            let initializer = &self.hooks.tensors()[*tensor].initializer;
            if let Some(index) = self.names.iter().position(|name| name == initializer) {
                values[index] = self.build.expr(*to);
            }
        }
    }
}

/// Tensors that hooks read and that are not trained: those of the graph, or constants that it gets.
fn frozen(build: &Builder<'_>, hooks: &Hooks, names: &[String]) -> Vec<Option<Operand>> {
    let tensors = hooks.tensors().iter();
    let found = tensors.map(|tensor| {
        let name = &tensor.initializer;
        let needed = tensor.is_used && !names.contains(name);
        needed.then(|| match build.graph().find_value(name) {
            Some(value) => value.into(),
            None => build.constant(name, tensor.tensor.clone()).operand,
        })
    });
    found.collect()
}

/// Values of what is trained, in f32, where hooks may read them.
fn trained(hooks: &Hooks, names: &[String], values: &[Expr<'_>]) -> Vec<Option<Operand>> {
    let tensors = hooks.tensors().iter();
    let found = tensors.map(|tensor| {
        let mut names = names.iter();
        let index = names.position(|name| tensor.is_used && *name == tensor.initializer)?;
        Some(values.get(index)?.cast(DType::F32).operand)
    });
    found.collect()
}

fn with(trained: Vec<Option<Operand>>, frozen: &[Option<Operand>]) -> Vec<Option<Operand>> {
    let both = trained.into_iter().zip(frozen);
    both.map(|(trained, frozen)| trained.or(*frozen)).collect()
}

/// What methods add to the loss, if anything; `f32[]`. `draws` are the values that their `forward` has
/// drawn, by name.
pub(super) fn losses<'b>(
    build: &'b Builder<'b>,
    hooks: &Hooks,
    (names, parameters): (&[String], &[Expr<'b>]),
    draws: &BTreeMap<String, ValueId>,
) -> Option<Expr<'b>> {
    if hooks.in_losses().is_empty() {
        return None;
    }
    let frozen = frozen(build, hooks, names);
    let draws = draws.iter();
    let draws = draws.map(|(name, id)| (name.clone(), build.expr(*id).cast(DType::F32).operand));
    let read = Read {
        tensors: with(trained(hooks, names, parameters), &frozen),
        draws: draws.collect(),
        ..Read::default()
    };
    let total = build.with_emitter(|emitter| {
        let scope = emitter.scope.clone();
        let total = hooks.losses(emitter, &read);
        emitter.scope = scope;
        total
    });
    total.map(|total| build.expr(total))
}
