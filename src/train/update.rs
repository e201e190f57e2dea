//! The update of an optimizer as a graph of its own, and behind gradients.

use super::Recipe;
use super::errors;
use super::graphs::{Outputs, Port, Role, TrainingGraph, apply, free, gradient_name, port};
use super::hooks::Around;
use super::open::{Differentiated, Open};
use super::optimizer::{After, Before, elements, update};
use crate::adapt::{HookState, Hooks};
use crate::diag::{Reported, Sink};
use crate::graph::Graph;
use crate::ops::{Builder, Expr, KnownValues, Refusal};
use crate::ty::{DType, Dim, Shape, TensorType};

/// The update alone: gradients are inputs.
pub(super) fn update_graph(
    of: &Differentiated,
    hooks: &Hooks,
    recipe: &Recipe,
    sink: &mut Sink,
) -> Result<TrainingGraph, Reported> {
    let base = &of.open.model;
    let graph = Graph::new("update");
    let known = KnownValues::default();
    let build = Builder::new(&graph, &known, base.opset("").unwrap_or(1));
    build.set_scope("update".to_owned());
    let mut inputs = Vec::new();
    let mut take = |name: String, role: Role, index: usize| {
        let parameter = base.graph.value(of.open.parameters[index]);
        let port = Port {
            name,
            ..port(parameter, role, Some(index))
        };
        let operand = build.with_patch(|patch| patch.input(&port.name, port.ty.clone(), None));
        inputs.push(port);
        build.expr(operand)
    };
    let names = &of.open.names;
    let parameters: Vec<Expr<'_>> = (0..names.len())
        .map(|index| take(names[index].clone(), Role::Parameter, index))
        .collect();
    let gradients: Vec<Expr<'_>> = (0..names.len())
        .map(|index| take(gradient_name(&names[index]), Role::Gradient, index))
        .collect();
    let mut outputs = Outputs::default();
    let operands = (parameters, gradients);
    let places = (&of.open, hooks);
    let more = emit_update(&build, recipe, places, operands, &mut outputs, sink)?;
    inputs.extend(more);
    let patch = build.finish();
    let mut model = base.around(graph);
    model.opsets.retain(|(domain, _)| domain.is_empty());
    apply(&mut model, patch, sink)?;
    Ok(TrainingGraph {
        model,
        inputs,
        outputs: outputs.0,
    })
}

/// Emits an update of parameters by their gradients, with the inputs that it takes besides them.
pub(super) fn emit_update<'b>(
    build: &'b Builder<'b>,
    recipe: &Recipe,
    open: (&Open, &Hooks),
    operands: (Vec<Expr<'b>>, Vec<Expr<'b>>),
    outputs: &mut Outputs,
    sink: &mut Sink,
) -> Result<Vec<Port>, Reported> {
    emit(build, recipe, open, operands, outputs)
        .map_err(|refusal| sink.emit(errors::no_update(&refusal)))
}

fn emit<'b>(
    build: &'b Builder<'b>,
    recipe: &Recipe,
    (open, hooks): (&Open, &Hooks),
    (parameters, gradients): (Vec<Expr<'b>>, Vec<Expr<'b>>),
    outputs: &mut Outputs,
) -> Result<Vec<Port>, Refusal> {
    let mut inputs = Vec::new();
    let mut take = |name: &str, role: Role, dtype: DType, dims: &[i64]| {
        let shape = Shape(dims.iter().map(|dim| Dim::from(*dim)).collect());
        let port = Port {
            name: free(build.graph(), name),
            role,
            ty: TensorType::new(dtype, shape),
            parameter: None,
            feeds: None,
        };
        let operand = build.with_patch(|patch| patch.input(&port.name, port.ty.clone(), None));
        inputs.push(port);
        build.expr(operand)
    };
    let mut length = 0;
    for parameter in &parameters {
        length += elements(*parameter)?;
    }
    let states = recipe.optimizer.states();
    let kept: Vec<Expr<'b>> = states
        .iter()
        .map(|(name, kept)| {
            let (dtype, dims) = kept.ty(length);
            take(&state_name(name), Role::State, dtype, &dims)
        })
        .collect();
    let learning_rate = take("learning_rate", Role::LearningRate, DType::F32, &[]);
    let step = take("step", Role::Step, DType::I64, &[]);
    let of_methods: Vec<Expr<'b>> = hooks
        .states()
        .iter()
        .map(|state| {
            take(
                &hook_state_name(state),
                Role::State,
                DType::F32,
                &state.dims,
            )
        })
        .collect();
    let around = Around::new(build, hooks, &open.names, of_methods, step);
    let before = Before {
        states: kept,
        learning_rate,
        step,
        gradients: around.on_gradient(&parameters, gradients),
        parameters,
        rates: open.rates.clone(),
    };
    let After {
        parameters,
        states: new,
        grad_norm,
    } = update(recipe.optimizer, recipe.max_grad_norm, &before)?;
    let pair = (&before.parameters[..], parameters);
    let (parameters, of_methods) = around.on_step(pair, &before.gradients);
    build.trouble().map_or(Ok(()), Err)?;
    outputs.add(build, Role::Metric, "grad_norm", grad_norm);
    for (index, value) in parameters.into_iter().enumerate() {
        outputs.add_next(
            build,
            Role::Parameter,
            &open.names[index],
            Some(index),
            value,
        );
    }
    for ((name, _), value) in states.iter().zip(new) {
        outputs.add_next(build, Role::State, &state_name(name), None, value);
    }
    for (state, value) in hooks.states().iter().zip(of_methods) {
        outputs.add_next(build, Role::State, &hook_state_name(state), None, value);
    }
    Ok(inputs)
}

fn hook_state_name(state: &HookState) -> String {
    format!("state.{}", state.name)
}

fn state_name(kind: &str) -> String {
    format!("optimizer.{kind}")
}
