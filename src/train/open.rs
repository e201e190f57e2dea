//! An adapted model whose trained tensors are inputs, and what is put behind its output.

use super::base::apart;
use super::dropout::{dropouts, dropped};
use super::errors;
use super::graphs::{
    Outputs, Port, Role, TrainingGraph, apply, builder, free, gradient_name, port,
};
use super::hooks;
use super::loss::{Loss, Want, loss};
use super::pieces::{How, Pieces};
use super::sizes::Sizes;
use super::update::emit_update;
use super::{Base, Memory, Parameter, Recipe, Task};
use crate::adapt::Hooks;
use crate::autodiff::{self, Gradients};
use crate::diag::{Diagnostic, Reported, Sink};
use crate::graph::{Graph, Model, Operand, Patch, Value, ValueId};
use crate::ops::{Builder, Emitter, Expr};
use crate::passes;
use crate::ty::{DType, Dim, Shape, TensorType};
use rustc_hash::FxHashSet;
use std::collections::BTreeMap;

/// A model whose trained tensors are inputs.
#[derive(Clone)]
pub(super) struct Open {
    pub model: Model,
    pub names: Vec<String>,
    /// Of the trained tensors: what their learning rate is multiplied with.
    pub rates: Vec<f64>,
    /// The trained tensors.
    pub parameters: Vec<ValueId>,
    /// What the loss is of.
    output: ValueId,
    inputs: Vec<Port>,
    /// What methods have drawn, by name.
    draws: BTreeMap<String, ValueId>,
}

impl Open {
    /// `output` is what the loss is of; the first one without it.
    pub fn new(
        adapted: &Model,
        parameters: &[Parameter],
        output: Option<&str>,
        sink: &mut Sink,
    ) -> Result<Open, Reported> {
        let mut model = adapted.clone();
        let names: Vec<String> = parameters.iter().map(|p| p.initializer.clone()).collect();
        let mut patch = Patch::new();
        for name in &names {
            let Some((id, ty)) = initializer(&model.graph, name) else {
                return Err(sink.emit(errors::internal(&format!("`{name}` is no initializer"))));
            };
            let opened = patch.input(&free(&model.graph, &format!("{name}.opened")), ty, None);
            patch.replace_uses(id, opened);
        }
        let ids = apply(&mut model, patch, sink)?;
        passes::infer_values(&mut model, sink)?;
        let output = output_named(&model, output).map_err(|fault| sink.emit(*fault))?;
        let inputs = model.graph.inputs().iter().map(|id| {
            let value = model.graph.value(*id);
            let parameter = ids.iter().position(|opened| opened == id);
            port(
                value,
                parameter.map_or(Role::Input, |_| Role::Parameter),
                parameter,
            )
        });
        Ok(Open {
            inputs: inputs.collect(),
            parameters: ids,
            rates: parameters.iter().map(|parameter| parameter.rate).collect(),
            names,
            output,
            draws: BTreeMap::new(),
            model,
        })
    }

    /// Emits the loss with the labels that it takes.
    fn loss<'b>(
        &self,
        build: &'b Builder<'b>,
        (task, pieces): (Task, Option<&Pieces>),
        (want, of_sum): (Want, bool),
        sink: &mut Sink,
    ) -> Result<(Loss<'b>, Port), Reported> {
        let graph = &self.model.graph;
        let value = graph.value(self.output);
        let dims = output_dims(&self.model, value, task).map_err(|fault| sink.emit(*fault))?;
        let examples = Dim::symbol(&free_symbol(graph, "examples"));
        let (dtype, sizes) = task.labels(&dims, &examples);
        let counts_examples = sizes.contains(&examples);
        let ty = TensorType::new(dtype, Shape(sizes));
        let name = free(graph, "labels");
        let labels = build.with_patch(|patch| patch.input(&name, ty.clone(), None));
        build.set_scope("loss".to_owned());
        if let Some(last) = graph.producer(self.output) {
            build.behind(last);
        }
        if counts_examples {
            build.tell_size(&examples, build.expr(labels).apply("Shape"));
        }
        let loss = match (pieces, task) {
            (Some(pieces), Task::CausalLm { label_smoothing }) => {
                let how = How {
                    smoothing: label_smoothing,
                    want,
                    of_sum,
                };
                pieces.loss(build, &self.model, build.expr(labels), how, sink)?
            }
            _ => loss(task, build.expr(self.output), build.expr(labels), want),
        };
        let loss = loss
            .and_then(|loss| build.trouble().map_or(Ok(loss), Err))
            .map_err(|refusal| sink.emit(errors::no_loss(task, &value.name, &refusal)))?;
        let port = Port {
            name,
            role: Role::Labels,
            ty,
            parameter: None,
            feeds: None,
        };
        Ok((loss, port))
    }

    /// The layers behind which the loss is computed in pieces.
    fn pieces(&self, recipe: &Recipe) -> Option<Pieces> {
        let Memory { pieces, batch, .. } = recipe.memory;
        let is_of_tokens = matches!(recipe.task, Task::CausalLm { .. });
        let find = || Pieces::find(&self.model, self.output, pieces, batch);
        is_of_tokens.then(find).flatten()
    }

    pub fn eval(mut self, recipe: &Recipe, sink: &mut Sink) -> Result<TrainingGraph, Reported> {
        let known = passes::infer_values(&mut self.model, sink)?;
        let pieces = self.pieces(recipe);
        let mut outputs = Outputs::default();
        let (patch, labels) = {
            let build = builder(&self.model, known.all());
            let task = (recipe.task.measured(), pieces.as_ref());
            let (loss, labels) = self.loss(&build, task, (Want::Correct, false), sink)?;
            build.with_patch(Patch::drop_outputs);
            outputs.add(&build, Role::Loss, "loss", loss.value);
            outputs.add(&build, Role::Metric, "count", loss.count);
            let by_class = loss.by_class.map(|by| [by.hits, by.said, by.meant]);
            let [hits, said, meant] = by_class.map_or([None; 3], |by| by.map(Some));
            for (name, metric) in [
                ("correct", loss.correct),
                ("exact", loss.exact),
                ("class_hits", hits),
                ("class_said", said),
                ("class_meant", meant),
            ] {
                if let Some(metric) = metric {
                    outputs.add(&build, Role::Metric, name, metric);
                }
            }
            (build.finish(), labels)
        };
        apply(&mut self.model, patch, sink)?;
        self.weights_apart(recipe.base, sink)?;
        self.inputs.push(labels);
        Ok(TrainingGraph {
            model: self.model,
            inputs: self.inputs,
            outputs: outputs.0,
        })
    }

    /// Gives the adapter's dropouts masks of a seed, which becomes an input.
    fn with_dropout(&mut self, sink: &mut Sink) -> Result<(), Reported> {
        let dropouts = dropouts(&self.model.graph);
        if dropouts.is_empty() {
            return Ok(());
        }
        let known = passes::infer_values(&mut self.model, sink)?;
        let port = Port {
            name: free(&self.model.graph, "seed"),
            role: Role::Seed,
            ty: TensorType::new(DType::I64, Shape(Vec::new())),
            parameter: None,
            feeds: None,
        };
        let mut draws = Vec::new();
        let patch = {
            let build = builder(&self.model, known.all());
            build.set_scope("dropout".to_owned());
            let seed = build.with_patch(|patch| patch.input(&port.name, port.ty.clone(), None));
            for (number, dropout) in dropouts.iter().enumerate() {
                if let Some(node) = self.model.graph.producer(dropout.result) {
                    build.behind(node);
                }
                let kept = dropped(&build, dropout, build.expr(seed), number)
                    .and_then(|kept| build.trouble().map_or(Ok(kept), Err))
                    .map_err(|refusal| sink.emit(errors::no_update(&refusal)))?;
                build.with_patch(|patch| patch.replace_uses(dropout.result, kept.operand));
                draws.extend(dropout.draw.clone().map(|name| (name, kept.operand)));
            }
            build.finish()
        };
        let new = apply(&mut self.model, patch, sink)?;
        // Of several calls of a module the first one counts.
        for (name, drawn) in draws {
            self.draws.entry(name).or_insert_with(|| id_of(drawn, &new));
        }
        self.inputs.push(port);
        Ok(())
    }

    pub fn differentiate(
        mut self,
        hooks: &Hooks,
        recipe: &Recipe,
        recomputes: bool,
        sink: &mut Sink,
    ) -> Result<Differentiated, Reported> {
        self.with_dropout(sink)?;
        let known = passes::infer_values(&mut self.model, sink)?;
        let scaled = computes_in_f16(&self.model.graph);
        let pieces = self.pieces(recipe);
        // Where the reverse walk starts.
        let end = pieces.as_ref().map_or(self.output, |pieces| pieces.hidden);
        let mut outputs = Outputs::default();
        let (patch, labels, gradient, scale, added) = {
            let build = builder(&self.model, known.all());
            let task = (recipe.task, pieces.as_ref());
            let (loss, labels) = self.loss(&build, task, (Want::Gradient, scaled), sink)?;
            build.with_patch(Patch::drop_outputs);
            let parameters = exprs(&build, &self.parameters);
            let added = hooks::losses(&build, hooks, (&self.names, &parameters), &self.draws);
            let value = added.map_or(loss.value, |added| loss.value + added);
            outputs.add(&build, Role::Loss, "loss", value);
            outputs.add(&build, Role::Metric, "count", loss.count);
            let scale = scaled.then(|| loss.count.apply2("Max", loss.count.number(1.0)));
            let stored = build.expr(end).dtype();
            let gradient = loss.gradient.map(|gradient| {
                let gradient = match scale.filter(|_| pieces.is_none()) {
                    Some(scale) => gradient * scale,
                    None => gradient,
                };
                gradient.cast(stored)
            });
            let operand = |expr: Expr<'_>| expr.operand;
            let (gradient, scale) = (gradient.map(operand), scale.map(operand));
            let added = added.map(operand);
            (build.finish(), labels, gradient, scale, added)
        };
        let new = apply(&mut self.model, patch, sink)?;
        let Some(gradient) = gradient.map(|operand| id_of(operand, &new)) else {
            return Err(sink.emit(errors::internal("the loss has no derivative")));
        };
        self.inputs.push(labels);
        let found =
            autodiff::gradients_from(&mut self.model, end, gradient, &self.parameters, sink)?;
        if recomputes {
            self.recompute(end, &found, recipe.memory, sink)?;
        }
        let mut gradients = found.of;
        if let Some(scale) = scale {
            gradients = self.divided(&gradients, id_of(scale, &new), sink)?;
        }
        if let Some(added) = added {
            gradients = self.with_losses(gradients, id_of(added, &new), hooks, sink)?;
        }
        self.weights_apart(recipe.base, sink)?;
        Ok(Differentiated {
            open: self,
            gradients,
            outputs,
            pieces: pieces.map_or(1, |pieces| pieces.count()),
        })
    }

    /// Floats of codes are made for every product by itself.
    fn weights_apart(&mut self, base: Base, sink: &mut Sink) -> Result<(), Reported> {
        match base {
            Base::Int8Weights => apart(&mut self.model, sink),
            _ => Ok(()),
        }
    }

    fn recompute(
        &mut self,
        end: ValueId,
        gradients: &Gradients,
        memory: Memory,
        sink: &mut Sink,
    ) -> Result<(), Reported> {
        let sizes = Sizes::of(&self.model.graph, memory.batch);
        let bytes = |ty: &TensorType| sizes.bytes(ty);
        let wrt = &self.parameters;
        autodiff::recompute(
            &mut self.model,
            end,
            gradients,
            wrt,
            (&bytes, memory.waits),
            sink,
        )?;
        Ok(())
    }

    /// Gradients with those of what methods add to the loss.
    fn with_losses(
        &mut self,
        mut gradients: Vec<ValueId>,
        added: ValueId,
        hooks: &Hooks,
        sink: &mut Sink,
    ) -> Result<Vec<ValueId>, Reported> {
        let read = hooks.in_losses();
        let names = self.names.iter().enumerate();
        let read: Vec<usize> = names
            .filter(|(_, name)| read.contains(name.as_str()))
            .map(|(index, _)| index)
            .collect();
        let wrt: Vec<ValueId> = read.iter().map(|index| self.parameters[*index]).collect();
        let found = autodiff::gradients(&mut self.model, added, &wrt, sink)?;
        let known = passes::infer_values(&mut self.model, sink)?;
        let (patch, sums) = {
            let build = builder(&self.model, known.all());
            build.set_scope("gradient".to_owned());
            if let Some(last) = self.model.graph.order().unwrap_or_default().last() {
                build.behind(*last);
            }
            let sums = read.iter().zip(&found).map(|(index, more)| {
                let gradient = build.expr(gradients[*index]);
                (gradient + build.expr(*more)).operand
            });
            let sums: Vec<Operand> = sums.collect();
            (build.finish(), sums)
        };
        let new = apply(&mut self.model, patch, sink)?;
        for (index, sum) in read.into_iter().zip(sums) {
            gradients[index] = id_of(sum, &new);
        }
        Ok(gradients)
    }

    /// Gradients without the factor that the loss had.
    fn divided(
        &mut self,
        gradients: &[ValueId],
        scale: ValueId,
        sink: &mut Sink,
    ) -> Result<Vec<ValueId>, Reported> {
        let known = passes::infer_values(&mut self.model, sink)?;
        let (patch, divided) = {
            let build = builder(&self.model, known.all());
            build.set_scope("gradient".to_owned());
            if let Some(last) = self.model.graph.order().unwrap_or_default().last() {
                build.behind(*last);
            }
            let scale = build.expr(scale);
            let divided = gradients.iter().map(|gradient| {
                let gradient = build.expr(*gradient).cast(DType::F32);
                (gradient / scale).operand
            });
            let divided: Vec<Operand> = divided.collect();
            (build.finish(), divided)
        };
        let new = apply(&mut self.model, patch, sink)?;
        let ids = divided.into_iter().map(|operand| id_of(operand, &new));
        Ok(ids.collect())
    }
}

/// The value of an operand of a patch that has been applied.
pub(super) fn id_of(operand: Operand, new: &[ValueId]) -> ValueId {
    match operand {
        Operand::New(index) => new[index as usize],
        Operand::Existing(id) | Operand::Original(id) => id,
    }
}

/// Whether anything is computed in f16, where a gradient of a mean over many labels is too small to be a
/// number: it begins at 6e-8. The gradient of the sum over labels is of the size of a probability, and is
/// divided by their number in 32 bits when it has arrived at a parameter.
fn computes_in_f16(graph: &Graph) -> bool {
    graph.node_ids().any(|node| {
        let results = graph.results(node).into_iter().flatten();
        let mut types = results.filter_map(|value| graph.value(value).ty.as_ref());
        types.any(|ty| ty.dtype == DType::F16)
    })
}

/// A model with loss and gradients, of which only the loss is an output yet.
#[derive(Clone)]
pub(super) struct Differentiated {
    pub open: Open,
    /// Of each trained tensor.
    pub gradients: Vec<ValueId>,
    pub outputs: Outputs,
    /// In how many pieces of the tokens logits are computed.
    pub pieces: usize,
}

impl Differentiated {
    pub fn grad(mut self, sink: &mut Sink) -> Result<TrainingGraph, Reported> {
        let graph = &self.open.model.graph;
        let mut emitter = Emitter::new(self.open.model.opset("").unwrap_or(1));
        let mut seen = FxHashSet::default();
        for (index, id) in self.gradients.iter().enumerate() {
            let mut value = Operand::Existing(*id);
            // One value can be the gradient of several tensors.
            if !seen.insert(*id) {
                value = emitter.node("Identity", &[value], Vec::new());
            }
            let parameter = graph.value(self.open.parameters[index]);
            let name = free(graph, &gradient_name(&self.open.names[index]));
            emitter.patch.named_output(value, &name);
            self.outputs.0.push(Port {
                name,
                ..port(parameter, Role::Gradient, Some(index))
            });
        }
        let patch = emitter.patch;
        apply(&mut self.open.model, patch, sink)?;
        Ok(self.open.closed(self.outputs))
    }

    pub fn step(
        mut self,
        hooks: &Hooks,
        recipe: &Recipe,
        sink: &mut Sink,
    ) -> Result<TrainingGraph, Reported> {
        let known = passes::infer_values(&mut self.open.model, sink)?;
        let (patch, inputs) = {
            let build = builder(&self.open.model, known.all());
            build.set_scope("update".to_owned());
            let parameters: Vec<Expr<'_>> = exprs(&build, &self.open.parameters);
            let gradients = exprs(&build, &self.gradients);
            if let Some(last) = self.open.model.graph.order().unwrap_or_default().last() {
                build.behind(*last);
            }
            let operands = (parameters, gradients);
            let outputs = &mut self.outputs;
            let inputs = emit_update(&build, recipe, (&self.open, hooks), operands, outputs, sink)?;
            (build.finish(), inputs)
        };
        apply(&mut self.open.model, patch, sink)?;
        self.open.inputs.extend(inputs);
        Ok(self.open.closed(self.outputs))
    }
}

impl Open {
    pub fn closed(self, outputs: Outputs) -> TrainingGraph {
        TrainingGraph {
            model: self.model,
            inputs: self.inputs,
            outputs: outputs.0,
        }
    }
}

fn exprs<'b>(build: &'b Builder<'b>, values: &[ValueId]) -> Vec<Expr<'b>> {
    values.iter().map(|value| build.expr(*value)).collect()
}

fn initializer(graph: &Graph, name: &str) -> Option<(ValueId, TensorType)> {
    let id = graph.find_value(name)?;
    Some((id, graph.value(id).constant()?.ty()))
}

/// The output of a name, or the first one.
pub(super) fn output_named(model: &Model, name: Option<&str>) -> Result<ValueId, Box<Diagnostic>> {
    let graph = &model.graph;
    let mut outputs = graph.outputs().iter().copied();
    let found = match name {
        None => outputs.next(),
        Some(name) => outputs.find(|id| &*graph.value(*id).name == name),
    };
    found.ok_or_else(|| {
        let known = graph.outputs().iter().map(|id| &*graph.value(*id).name);
        Box::new(errors::no_output(&model.name, name, known))
    })
}

/// The sizes of a value of floats whose number of axes is known.
pub(super) fn float_dims(value: &Value) -> Option<Vec<Dim>> {
    let ty = value.ty.as_ref().filter(|ty| ty.dtype.is_float())?;
    ty.shape.as_ref().map(|shape| shape.0.clone())
}

/// The sizes of what the loss is of, if it fits the task.
fn output_dims(model: &Model, value: &Value, task: Task) -> Result<Vec<Dim>, Box<Diagnostic>> {
    let fits = |dims: &Vec<Dim>| task.takes_rank(dims.len());
    float_dims(value).filter(fits).ok_or_else(|| {
        let outputs = model
            .graph
            .outputs()
            .iter()
            .map(|id| model.graph.value(*id));
        let others = outputs.filter(|other| float_dims(other).as_ref().is_some_and(fits));
        let others: Vec<&str> = others.map(|other| &*other.name).collect();
        Box::new(errors::output_does_not_fit(
            &model.name,
            value,
            task,
            &others,
        ))
    })
}

/// The name, or the name with a number, if a size of the graph's inputs has it.
fn free_symbol(graph: &Graph, name: &str) -> String {
    let dims = graph.inputs().iter().filter_map(|id| {
        let ty = graph.value(*id).ty.as_ref()?;
        Some(&ty.shape.as_ref()?.0)
    });
    let taken: FxHashSet<String> = dims
        .flatten()
        .flat_map(|dim| dim.symbols())
        .map(|symbol| symbol.name().to_owned())
        .collect();
    let numbered = (2..).map(|number| format!("{name}_{number}"));
    let mut names = std::iter::once(name.to_owned()).chain(numbered);
    names.find(|name| !taken.contains(name)).unwrap_or_default()
}
