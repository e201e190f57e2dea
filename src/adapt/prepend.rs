//! Tokens in front of those of a model: what `prepend(rows, y)` means for everything around its module.
//!
//! The model is given as many placeholders in front of its tokens as there are rows, so that masks,
//! positions and shapes inside of it count them as tokens; the module puts its rows in their place;
//! and outputs lose what belongs to them. Nobody outside notices: inputs and outputs keep their
//! shapes.

use super::errors;
use super::plan::Plan;
use crate::diag::{Reported, Sink};
use crate::graph::{Attribute, Graph, Model, Operand, ValueId, ValueKind};
use crate::hir::{Formula, TermKind};
use crate::modules::{Modules, Scope, Site};
use crate::ops::Emitter;
use crate::ty::{DType, Dim, Proof, Shape, Symbol, TensorType};

/// What names of caches of earlier tokens have in them.
const CACHES: &[&str] = &["past", "cache"];

/// What a placeholder is in an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fill {
    /// An id or a type that every model has; what it stands for is replaced.
    Zeros,
    /// It is no padding.
    Ones,
    /// 0, 1, 2, …; the model's own tokens come behind.
    Positions,
}

/// A value of the model with an axis of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Along {
    id: ValueId,
    axis: usize,
}

/// Placeholders in front of all inputs that have a value for every token.
#[derive(Clone, Debug)]
pub(super) struct Placeholders {
    count: i64,
    tokens: Symbol,
    inputs: Vec<(Along, Fill)>,
    outputs: Vec<Along>,
}

/// How many rows a formula puts in front of the tokens, if it does.
pub(super) fn count(formula: &Formula) -> Option<&Dim> {
    let reached = formula.reachable();
    let mut terms = formula.terms().filter(|(id, _)| reached[id.0 as usize]);
    terms.find_map(|(_, term)| match term.kind {
        TermKind::Prepended { rows, .. } => formula.term(rows).ty.dims.first(),
        _ => None,
    })
}

/// The site at which a plan puts tokens in front, and how many.
pub(super) fn place(plan: &Plan) -> Option<(usize, i64)> {
    places(plan).next()
}

/// All such sites; a plan that has been checked has one at most.
fn places(plan: &Plan) -> impl Iterator<Item = (usize, i64)> {
    plan.sites.iter().flat_map(|planned| {
        let counts = planned.methods.iter();
        let counts = counts.filter_map(|method| count(&method.instance.forward)?.known());
        counts.map(|count| (planned.site, count))
    })
}

/// Two prompts have no order, and two embeddings not the same tokens.
pub(super) fn check(plan: &Plan, modules: &Modules, sink: &mut Sink) -> Result<(), Reported> {
    let places: Vec<(usize, i64)> = places(plan).collect();
    let [(first, _), (second, _), ..] = places.as_slice() else {
        return Ok(());
    };
    let planned = plan.sites.iter().find(|planned| planned.site == *second);
    let methods = planned.map_or(&[][..], |planned| planned.methods.as_slice());
    let mut prepending = methods
        .iter()
        .rev()
        .filter(|method| count(&method.instance.forward).is_some());
    let span = prepending
        .next()
        .map_or(plan.statements[0].span, |method| method.span);
    let (first, second) = (&modules.sites[*first].path, &modules.sites[*second].path);
    Err(sink.emit(errors::prepended_twice(span, first, second)))
}

impl Placeholders {
    /// In front of the tokens of an embedding, or why that cannot be, as the end of a sentence.
    pub fn of(model: &Model, site: &Site, count: i64) -> Result<Placeholders, String> {
        let graph = &model.graph;
        if site.scope != Scope::default() {
            return Err(
                "it lies in a branch of the model, whose inputs are not its own".to_owned(),
            );
        }
        if let Some(cache) = graph.inputs().iter().find(|id| is_cache(graph, **id)) {
            let name = &graph.value(*cache).name;
            return Err(format!(
                "the model takes earlier tokens from `{name}`, and at every call the prompt would \
                 stand behind them; export it without a cache"
            ));
        }
        let ids =
            source(graph, site.input).ok_or("its ids are computed, not given to the model")?;
        let tokens = tokens_of(graph, ids)?;
        let mut inputs = Vec::new();
        for id in graph.inputs() {
            if let Some(axis) = axis_of(graph, *id, &tokens)? {
                let fill = fill(model, *id, ids)?;
                inputs.push((Along { id: *id, axis }, fill));
            }
        }
        if let Some(mask) = model.padding_mask()
            && !inputs.iter().any(|(along, _)| along.id == mask)
        {
            return Err(format!(
                "`{}` has another number of tokens than `{}`",
                graph.value(mask).name,
                graph.value(ids).name
            ));
        }
        Ok(Placeholders {
            count,
            outputs: outputs(graph, &tokens, count)?,
            tokens,
            inputs,
        })
    }

    /// Extends inputs and cuts outputs; the module has its rows already.
    pub fn apply(&self, model: &mut Model) {
        let mut emitter = Emitter::new(model.opset("").unwrap_or(1));
        emitter.patch.front();
        for (along, fill) in &self.inputs {
            let extended = self.extended(&model.graph, &mut emitter, *along, *fill);
            for (node, slot) in model.graph.uses(along.id) {
                let slot = slot.expect("no body reads an input that gets placeholders");
                emitter.patch.redirect(node, slot, extended);
            }
        }
        for along in &self.outputs {
            let original = Operand::Original(along.id);
            if let Some(node) = model.graph.producer(along.id) {
                emitter.patch.behind(node);
            }
            emitter.scope = "prepended".to_owned();
            let own = emitter.slice(original, along.axis as i64, self.count, i64::MAX);
            emitter.patch.replace_uses(along.id, own);
            for (node, slot) in model.graph.uses(along.id) {
                let slot = slot.expect("no body reads an output that is cut");
                emitter.patch.redirect(node, slot, original);
            }
        }
        let before: Vec<TensorType> = self.output_types(&model.graph);
        let names: Vec<_> = self
            .outputs
            .iter()
            .map(|o| model.graph.value(o.id).name.clone())
            .collect();
        lengthen(&mut model.graph, &self.tokens, self.count);
        model
            .graph
            .apply(emitter.patch)
            .unwrap_or_else(|why| unreachable!("placeholders fit their graph: {why}"));
        for (name, ty) in names.iter().zip(before) {
            let id = model
                .graph
                .find_value(name)
                .expect("outputs keep their names");
            model.graph.set_type(id, ty);
        }
    }

    fn output_types(&self, graph: &Graph) -> Vec<TensorType> {
        let types = self
            .outputs
            .iter()
            .map(|along| graph.value(along.id).ty.clone());
        types
            .map(|ty| ty.expect("outputs that are cut have a type"))
            .collect()
    }

    /// An input behind its placeholders.
    fn extended(&self, graph: &Graph, emitter: &mut Emitter, along: Along, fill: Fill) -> Operand {
        let value = graph.value(along.id);
        let ty = value.ty.as_ref().expect("its axis is known");
        let rank = ty.shape.as_ref().map_or(0, Shape::rank);
        emitter.scope = format!("{}/prepended", value.name);
        let input = Operand::Original(along.id);
        let count = emitter.ints(&[self.count]);
        let sizes: Vec<Operand> = (0..rank)
            .map(|axis| match axis == along.axis {
                true => count,
                false => emitter.size(input, axis as i64),
            })
            .collect();
        let axis = |axis: usize| vec![Attribute::int("axis", axis as i64)];
        let shape = emitter.node("Concat", &sizes, axis(0));
        let (placeholder, own) = match fill {
            Fill::Zeros => (number(emitter, 0.0, ty.dtype), input),
            Fill::Ones => (number(emitter, 1.0, ty.dtype), input),
            Fill::Positions => {
                let counted: Vec<i64> = (0..self.count).collect();
                let counted = emitter.ints(&counted);
                let counted = match ty.dtype {
                    DType::I64 => counted,
                    dtype => emitter.cast(counted, dtype),
                };
                let shift = number(emitter, self.count as f64, ty.dtype);
                (counted, emitter.node("Add", &[input, shift], Vec::new()))
            }
        };
        let placeholders = emitter.node("Expand", &[placeholder, shape], Vec::new());
        emitter.node("Concat", &[placeholders, own], axis(along.axis))
    }
}

/// A number of rank 0, of any type that masks have.
fn number(emitter: &mut Emitter, value: f64, dtype: DType) -> Operand {
    match dtype {
        DType::I64 | DType::I32 | DType::F16 | DType::F32 | DType::F64 => {
            emitter.scalar(value, dtype)
        }
        other => {
            let value = emitter.scalar(value, DType::F32);
            emitter.cast(value, other)
        }
    }
}

fn is_cache(graph: &Graph, id: ValueId) -> bool {
    let value = graph.value(id);
    let name = value.name.to_lowercase();
    let is_float = value.ty.as_ref().is_some_and(|ty| ty.dtype.is_float());
    is_float && CACHES.iter().any(|word| name.contains(word))
}

/// The input of the model that gives a value but for its shape and type.
fn source(graph: &Graph, mut id: ValueId) -> Option<ValueId> {
    loop {
        if let ValueKind::Input { .. } = graph.value(id).kind {
            return Some(id);
        }
        let node = graph.producer(id)?;
        let op = &graph.node(node).op;
        let keeps = ["Reshape", "Cast", "Identity", "Unsqueeze", "Squeeze"];
        if !keeps.iter().any(|name| op.is(name)) {
            return None;
        }
        id = graph.operand(node, 0)?;
    }
}

/// The symbol of how many tokens there are.
fn tokens_of(graph: &Graph, ids: ValueId) -> Result<Symbol, String> {
    let value = graph.value(ids);
    let shape = value.ty.as_ref().and_then(|ty| ty.shape.as_ref());
    let Some([_, tokens]) = shape.map(|shape| shape.0.as_slice()) else {
        return Err(format!("`{}` is not `[batch, tokens]`", value.name));
    };
    match (tokens.as_symbol(), tokens.known()) {
        (Some(symbol), _) => Ok(symbol.clone()),
        (None, Some(count)) => Err(format!(
            "`{}` has {count} tokens, no more and no fewer; export the model with a dynamic axis",
            value.name
        )),
        (None, None) => Err(format!("`{}` has {tokens} tokens", value.name)),
    }
}

/// The axis of a value that counts the tokens; an error if one counts them in another way.
fn axis_of(graph: &Graph, id: ValueId, tokens: &Symbol) -> Result<Option<usize>, String> {
    let value = graph.value(id);
    let dims = value.ty.as_ref().and_then(|ty| ty.shape.as_ref());
    let dims = dims.map_or(&[][..], |shape| shape.0.as_slice());
    let counting: Vec<usize> = (0..dims.len())
        .filter(|axis| dims[*axis].symbols().contains(tokens))
        .collect();
    match counting.as_slice() {
        [] => Ok(None),
        [axis] if dims[*axis].as_symbol() == Some(tokens) => Ok(Some(*axis)),
        _ => Err(format!(
            "`{}` counts tokens on an axis of {}",
            value.name, dims[counting[0]]
        )),
    }
}

/// What stands for a placeholder in an input.
fn fill(model: &Model, id: ValueId, ids: ValueId) -> Result<Fill, String> {
    let graph = &model.graph;
    let value = graph.value(id);
    let name = value.name.to_lowercase();
    let is_int = value.ty.as_ref().is_some_and(|ty| ty.dtype.is_int());
    if graph.uses(id).iter().any(|(_, slot)| slot.is_none()) {
        return Err(format!(
            "a branch of the model reads `{}` by itself",
            value.name
        ));
    }
    if model.padding_mask() == Some(id) {
        Ok(Fill::Ones)
    } else if is_int && name.contains("position") {
        Ok(Fill::Positions)
    } else if id == ids || is_int && name.contains("type") {
        Ok(Fill::Zeros)
    } else {
        Err(format!(
            "`{}` has a value for every token, and nothing tells which one a new token has",
            value.name
        ))
    }
}

/// The outputs that have values for every token.
fn outputs(graph: &Graph, tokens: &Symbol, count: i64) -> Result<Vec<Along>, String> {
    let longer =
        |symbol: &Symbol| (symbol == tokens).then(|| Dim::symbol(tokens.name()) + Dim::from(count));
    let mut found = Vec::new();
    for id in graph.outputs() {
        let value = graph.value(*id);
        let Some(shape) = value.ty.as_ref().and_then(|ty| ty.shape.as_ref()) else {
            return Err(format!(
                "the shape of the output `{}` is not known",
                value.name
            ));
        };
        for (axis, dim) in shape.0.iter().enumerate() {
            let by = dim.substitute(&longer) - dim.clone();
            let is_open = dim.symbols().iter().any(Symbol::is_open);
            match by.known() {
                Some(0) if !is_open => {}
                Some(by) if by == count => found.push(Along { id: *id, axis }),
                _ => {
                    return Err(format!(
                        "an axis of the output `{}` has {dim} entries, and nothing tells which of \
                         them belong to new tokens",
                        value.name
                    ));
                }
            }
        }
        let reads = graph.uses(*id);
        let is_own = graph.producer(*id).is_some() && reads.iter().all(|(_, slot)| slot.is_some());
        let axes = found.iter().filter(|along| along.id == *id).count();
        if axes > 1 || axes == 1 && !is_own {
            return Err(format!(
                "new tokens cannot be cut off the output `{}`",
                value.name
            ));
        }
    }
    Ok(found)
}

/// Whatever is computed counts the new tokens, too.
fn lengthen(graph: &mut Graph, tokens: &Symbol, count: i64) {
    let longer =
        |symbol: &Symbol| (symbol == tokens).then(|| Dim::symbol(tokens.name()) + Dim::from(count));
    let ids: Vec<ValueId> = graph.value_ids().collect();
    for id in ids {
        let value = graph.value(id);
        let is_computed = !matches!(value.kind, ValueKind::Input { .. });
        let Some(ty) = value.ty.as_ref().filter(|_| is_computed) else {
            continue;
        };
        let Some(shape) = &ty.shape else { continue };
        let dims: Shape = Shape(shape.0.iter().map(|dim| dim.substitute(&longer)).collect());
        if dims.compare(shape) != Proof::Equal {
            let ty = TensorType::new(ty.dtype, dims);
            graph.set_type(id, ty);
        }
    }
}
