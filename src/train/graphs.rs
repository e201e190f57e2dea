//! The training graphs and what to bind to them.

use super::errors;
use super::memory::{self, Estimate};
use super::open::Open;
use super::update::update_graph;
use super::{Memory, Parameter, Recipe, Recompute};
use crate::adapt::Hooks;
use crate::autodiff;
use crate::diag::{Reported, Sink};
use crate::graph::{Graph, Model, Patch, Value, ValueId};
use crate::ops::{Builder, Expr, KnownValues};
use crate::ty::{DType, Shape, TensorType};

/// The graph that measures, alone: also of a model of which nothing is trained.
pub fn eval_graph(
    model: &Model,
    parameters: &[Parameter],
    recipe: &Recipe,
    sink: &mut Sink,
) -> Result<TrainingGraph, Reported> {
    let open = Open::new(model, parameters, recipe.output.as_deref(), sink)?;
    open.eval(recipe, sink)
}

/// What a value is to a trainer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Of the model itself.
    Input,
    Labels,
    /// A trained tensor, before an update as an input, behind it as an output.
    Parameter,
    /// What an optimizer or a method keeps, zeros at the start.
    State,
    /// `f32[]`.
    LearningRate,
    /// `i64[]`: the number of the update, the first is 1.
    Step,
    /// `i64[]`: of what is drawn at random.
    Seed,
    /// `f32[]`, the mean over what counts, and of `step` and `grad` what methods add to it.
    Loss,
    /// Of a parameter.
    Gradient,
    /// `f32[]`: `count` (labels that count), `correct` (of these), `exact` (rows that are right in
    /// all of theirs), `grad_norm`. `f32[classes]`: how many labels have a class (`class_meant`), how
    /// often the model says it (`class_said`), and how often both (`class_hits`).
    Metric,
}

impl Role {
    pub const ALL: [Role; 10] = [
        Role::Input,
        Role::Labels,
        Role::Parameter,
        Role::State,
        Role::LearningRate,
        Role::Step,
        Role::Seed,
        Role::Loss,
        Role::Gradient,
        Role::Metric,
    ];

    /// The word of the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Role::Input => "input",
            Role::Labels => "labels",
            Role::Parameter => "parameter",
            Role::State => "state",
            Role::LearningRate => "learning_rate",
            Role::Step => "step",
            Role::Seed => "seed",
            Role::Loss => "loss",
            Role::Gradient => "gradient",
            Role::Metric => "metric",
        }
    }
}

/// An input or an output of a training graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    pub name: String,
    pub role: Role,
    pub ty: TensorType,
    /// Index into the trained tensors, for parameters and gradients.
    pub parameter: Option<usize>,
    /// Of an output: the input of the next run that takes it.
    pub feeds: Option<String>,
}

/// A model to train with.
#[derive(Clone, Debug)]
pub struct TrainingGraph {
    pub model: Model,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
}

/// The graphs of one recipe.
#[derive(Clone, Debug)]
pub struct Graphs {
    /// One step of training: loss, gradients and update.
    pub step: TrainingGraph,
    /// Loss and gradients.
    pub grad: TrainingGraph,
    /// Parameters and state from gradients.
    pub update: TrainingGraph,
    /// Loss without smoothing and, where that makes sense, how many labels are right.
    pub eval: TrainingGraph,
    /// Whether activations are computed again.
    pub recomputes: bool,
    /// In how many pieces of the tokens logits are computed.
    pub pieces: usize,
    /// What training takes with a batch of the recipe's sizes.
    pub estimate: Estimate,
}

/// Makes the training graphs of an adapted model, with the hooks of its methods.
pub fn graphs(
    adapted: &Model,
    parameters: &[Parameter],
    hooks: &Hooks,
    recipe: &Recipe,
    sink: &mut Sink,
) -> Result<Graphs, Reported> {
    if parameters.is_empty() {
        return Err(sink.emit(errors::nothing_to_train()));
    }
    autodiff::check_opset(adapted, sink)?;
    let open = Open::new(adapted, parameters, recipe.output.as_deref(), sink)?;
    let eval = open.clone().eval(recipe, sink)?;
    let Memory {
        recompute, budget, ..
    } = recipe.memory;
    let mut made = with(
        open.clone(),
        (&eval, hooks),
        recipe,
        recompute == Recompute::Blocks,
        sink,
    )?;
    let fits = |made: &Graphs| budget.is_none_or(|budget| made.estimate.total() <= budget);
    if recompute == Recompute::Auto && !fits(&made) {
        made = with(open, (&eval, hooks), recipe, true, sink)?;
    }
    if let Some(wanted) = recipe.memory.pieces
        && wanted > 1
        && made.pieces == 1
    {
        sink.warn(errors::not_in_pieces(wanted));
    }
    match budget {
        Some(budget) if !fits(&made) => Err(sink.emit(errors::does_not_fit(
            &made.estimate,
            budget,
            made.recomputes,
        ))),
        _ => Ok(made),
    }
}

/// The graphs with or without recomputation.
fn with(
    open: Open,
    (eval, hooks): (&TrainingGraph, &Hooks),
    recipe: &Recipe,
    recomputes: bool,
    sink: &mut Sink,
) -> Result<Graphs, Reported> {
    let differentiated = open.differentiate(hooks, recipe, recomputes, sink)?;
    let pieces = differentiated.pieces;
    let update = update_graph(&differentiated, hooks, recipe, sink)?;
    let step = differentiated.clone().step(hooks, recipe, sink)?;
    let grad = differentiated.grad(sink)?;
    let batch = recipe.memory.batch;
    let fuses = recipe.memory.kernels;
    let mut estimate = memory::estimate(&step, batch, fuses, sink)?;
    if recipe.memory.measures {
        estimate = estimate.beside(&memory::estimate(eval, batch, fuses, sink)?);
    }
    Ok(Graphs {
        step,
        grad,
        update,
        eval: eval.clone(),
        recomputes,
        pieces,
        estimate,
    })
}

/// Outputs as they are added.
#[derive(Clone, Default)]
pub(super) struct Outputs(pub Vec<Port>);

impl Outputs {
    pub fn add(&mut self, build: &Builder<'_>, role: Role, name: &str, value: Expr<'_>) {
        self.push(build, role, name, None, None, value);
    }

    /// The value that an input has in the next run.
    pub fn add_next(
        &mut self,
        build: &Builder<'_>,
        role: Role,
        input: &str,
        parameter: Option<usize>,
        value: Expr<'_>,
    ) {
        let feeds = Some(input.to_owned());
        self.push(
            build,
            role,
            &format!("{input}.next"),
            parameter,
            feeds,
            value,
        );
    }

    fn push(
        &mut self,
        build: &Builder<'_>,
        role: Role,
        name: &str,
        parameter: Option<usize>,
        feeds: Option<String>,
        value: Expr<'_>,
    ) {
        let name = free(build.graph(), name);
        build.with_patch(|patch| patch.named_output(value.operand, &name));
        self.0.push(Port {
            name,
            role,
            ty: build
                .ty(value.operand)
                .unwrap_or_else(|| TensorType::new(DType::F32, Shape(Vec::new()))),
            parameter,
            feeds,
        });
    }
}

pub(super) fn builder<'m>(model: &'m Model, known: &'m KnownValues) -> Builder<'m> {
    Builder::new(&model.graph, known, model.opset("").unwrap_or(1))
}

pub(super) fn port(value: &Value, role: Role, parameter: Option<usize>) -> Port {
    Port {
        name: value.name.to_string(),
        role,
        // Inputs without a type are no tensors; whoever binds them sees that.
        ty: value
            .ty
            .clone()
            .unwrap_or_else(|| TensorType::new(DType::F32, Shape(Vec::new()))),
        parameter,
        feeds: None,
    }
}

/// The name, or the name with a number, if the graph has a value of the name.
pub(super) fn free(graph: &Graph, name: &str) -> String {
    let mut found = name.to_owned();
    let mut number = 1;
    while graph.find_value(&found).is_some() {
        number += 1;
        found = format!("{name}_{number}");
    }
    found
}

pub(super) fn gradient_name(parameter: &str) -> String {
    format!("{parameter}.grad")
}

/// Applies a patch of this room and answers with the ids of its values.
pub(super) fn apply(
    model: &mut Model,
    patch: Patch,
    sink: &mut Sink,
) -> Result<Vec<ValueId>, Reported> {
    let applied = model.graph.apply(patch);
    match applied {
        Ok(applied) => Ok(applied.values),
        Err(why) => Err(sink.emit(errors::internal(&why))),
    }
}
