//! Tokens in front of those of a model: what `prepend(rows, y)` means for everything around its module.
//!
//! At an embedding the model is given as many placeholders in front of its tokens as there are rows, so
//! that masks, positions and shapes inside of it count them as tokens; the module puts its rows in
//! their place; and outputs lose what belongs to them. In a cache the rows stand in front of what it
//! holds, in every cache as many: the mask has as many more tokens, positions begin behind them, and
//! what the model gives back as a cache loses them. Nobody outside notices: inputs and outputs keep
//! their shapes, and a loop that feeds caches back goes on as it is.

use super::errors;
use super::plan::{Plan, PlannedMethod};
use crate::diag::{Reported, Sink, Span};
use crate::graph::{Attribute, Graph, Model, NodeId, Operand, ValueId, ValueKind};
use crate::hir::{Formula, TermId, TermKind};
use crate::modules::{Modules, Scope, Site, SiteKind};
use crate::ops::Emitter;
use crate::ty::{DType, Dim, Proof, Shape, Symbol, TensorType};
use std::collections::BTreeSet;

/// What a new token is in an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fill {
    /// An id or a type that every model has; what it stands for is replaced.
    Zeros,
    /// It is no padding.
    Ones,
    /// 0, 1, 2, …; the model's own tokens come behind.
    Positions,
    /// It has none; the model's own tokens come behind.
    Shift,
}

/// A value of the model with an axis of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Along {
    id: ValueId,
    axis: usize,
}

/// New tokens in all inputs and outputs that count tokens.
#[derive(Clone, Debug)]
pub(super) struct Placeholders {
    count: i64,
    /// What counts the tokens that become more.
    tokens: Vec<Symbol>,
    inputs: Vec<(Along, Fill)>,
    outputs: Vec<Along>,
}

/// How many rows a formula puts in front of the tokens, if it does.
pub(super) fn count(formula: &Formula) -> Option<i64> {
    let dims = &formula.term(*rows(formula).first()?).ty.dims;
    dims[dims.len() - 2].known()
}

/// What a formula puts in front of the tokens.
fn rows(formula: &Formula) -> Vec<TermId> {
    let reached = formula.reachable();
    let terms = formula.terms().filter(|(id, _)| reached[id.0 as usize]);
    let rows = terms.filter_map(|(_, term)| match term.kind {
        TermKind::Prepended { rows, .. } => Some(rows),
        _ => None,
    });
    rows.collect()
}

/// A method at a site that puts tokens in front.
struct Placed<'p> {
    site: usize,
    /// Whether the method is for a slice of the module.
    is_part: bool,
    count: i64,
    method: &'p PlannedMethod,
}

fn placed(plan: &Plan) -> impl Iterator<Item = Placed<'_>> {
    plan.sites.iter().flat_map(|planned| {
        planned.methods.iter().filter_map(|method| {
            Some(Placed {
                site: planned.site,
                is_part: planned.slice.is_some(),
                count: count(&method.instance.forward)?,
                method,
            })
        })
    })
}

/// What a plan does around its modules, if it puts tokens in front; the plan has been checked.
pub(super) fn around(plan: &Plan, model: &Model, modules: &Modules) -> Option<Placeholders> {
    let first = placed(plan).next()?;
    let sites: Vec<&Site> = placed(plan)
        .map(|place| &modules.sites[place.site])
        .collect();
    let placeholders = Placeholders::of(model, &sites, first.count);
    Some(placeholders.unwrap_or_else(|why| unreachable!("the plan has checked it: {why}")))
}

/// Two prompts have no order, and two embeddings not the same tokens; caches get as many tokens, all
/// of them.
pub(super) fn check(
    plan: &Plan,
    model: &Model,
    modules: &Modules,
    sink: &mut Sink,
) -> Result<(), Reported> {
    let placed: Vec<Placed<'_>> = placed(plan).collect();
    let Some(first) = placed.first() else {
        return Ok(());
    };
    let path = |site: usize| modules.sites[site].path.as_str();
    let mut seen = BTreeSet::new();
    for place in &placed {
        let is_cache = modules.sites[place.site].kind == SiteKind::Cache;
        let is_first = std::ptr::eq(place.method, first.method);
        if place.is_part {
            let (span, path) = (place.method.span, path(place.site));
            let why = "tokens in front have all of its outputs, not a part";
            return Err(sink.emit(errors::bad_slice(span, path, 1, why)));
        }
        let is_twice = rows(&place.method.instance.forward).len() > 1;
        if is_twice || !seen.insert(place.site) || !is_first && !is_cache {
            let diagnostic =
                errors::prepended_twice(place.method.span, path(first.site), path(place.site));
            return Err(sink.emit(diagnostic));
        }
        if place.count != first.count || is_cache != is_cache_at(first.site, modules) {
            let (span, rows) = (place.method.span, (first.count, place.count));
            let diagnostic = errors::prepended_apart(
                span,
                (path(first.site), rows.0),
                (path(place.site), rows.1),
            );
            return Err(sink.emit(diagnostic));
        }
    }
    for planned in &plan.sites {
        let site = &modules.sites[planned.site];
        let mut reading = planned.methods.iter().filter(|method| {
            let formula = &method.instance.forward;
            formula.uses(|kind| kind.reads_mask() || kind.reads_ids())
        });
        if site.scope != Scope::default()
            && let Some(method) = reading.next()
        {
            let why = "it reads the model's mask or ids in a branch of the model, and they get tokens \
                       in front outside of it";
            return Err(sink.emit(errors::cannot_adapt(method.span, &site.path, 1, why)));
        }
    }
    let caches = (0..modules.sites.len()).filter(|site| is_cache_at(*site, modules));
    // Those of an encoder hold other tokens than those of a decoder.
    let tokens = |site: usize| held(model, &modules.sites[site]);
    let longer: Vec<Option<Symbol>> = seen.iter().map(|site| tokens(*site)).collect();
    let mut left = caches.filter(|site| !seen.contains(site) && longer.contains(&tokens(*site)));
    let span: Span = first.method.span;
    if is_cache_at(first.site, modules)
        && let Some(site) = left.next()
    {
        let given = (path(first.site), first.count);
        return Err(sink.emit(errors::prepended_apart(span, given, (path(site), 0))));
    }
    // What holds for each cache need not hold for all of them together.
    let sites: Vec<&Site> = placed.iter().map(|p| &modules.sites[p.site]).collect();
    match Placeholders::of(model, &sites, first.count) {
        Ok(_) => Ok(()),
        Err(why) => Err(sink.emit(errors::cannot_adapt(
            span,
            path(first.site),
            sites.len(),
            &why,
        ))),
    }
}

/// The symbol of how many tokens a cache holds.
fn held(model: &Model, site: &Site) -> Option<Symbol> {
    dims_of(&model.graph, site.input)
        .get(2)?
        .as_symbol()
        .cloned()
}

fn is_cache_at(site: usize, modules: &Modules) -> bool {
    modules.sites[site].kind == SiteKind::Cache
}

impl Placeholders {
    /// For rows at an embedding or in caches, or why there cannot be any, as the end of a sentence.
    pub fn of(model: &Model, sites: &[&Site], count: i64) -> Result<Placeholders, String> {
        match sites {
            [site] if site.kind != SiteKind::Cache => Placeholders::in_front(model, site, count),
            sites => Placeholders::in_caches(model, sites, count),
        }
    }

    /// In front of the tokens of an embedding.
    fn in_front(model: &Model, site: &Site, count: i64) -> Result<Placeholders, String> {
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
        let tokens = vec![tokens_of(graph, ids)?];
        match dims_of(graph, site.output) {
            [_, count, _] if count.as_symbol() == tokens.first() => {}
            dims => {
                let dims: Vec<String> = dims.iter().map(Dim::to_string).collect();
                let found = dims.join(", ");
                return Err(format!(
                    "its output is [{found}], not [batch, tokens, features]"
                ));
            }
        }
        let mut inputs = Vec::new();
        for id in graph.inputs() {
            if let Some(axis) = axis_of(graph, *id, &tokens)? {
                let fill = fill(model, *id, Some(ids))?;
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
        let outputs = outputs(graph, &tokens, count)?;
        Ok(Placeholders {
            count,
            tokens,
            inputs,
            outputs,
        })
    }

    /// In front of the tokens of caches.
    fn in_caches(model: &Model, sites: &[&Site], count: i64) -> Result<Placeholders, String> {
        let graph = &model.graph;
        let mut tokens = Vec::new();
        for site in sites {
            no_body_reads(graph, site.input)?;
            tokens.push(held(model, site).ok_or("it holds a fixed number of tokens")?);
        }
        let mut inputs = Vec::new();
        if let Some(mask) = model.padding_mask() {
            // Of earlier tokens and those at hand, under a name of its own or as their sum.
            if let [_, all] = dims_of(graph, mask)
                && let Some(symbol) = all.as_symbol()
            {
                let ids = model.token_ids().map(|ids| dims_of(graph, ids));
                if ids.is_some_and(|dims| dims.contains(all)) {
                    let name = &graph.value(mask).name;
                    return Err(format!("`{name}` does not cover earlier tokens"));
                }
                tokens.push(symbol.clone());
            }
            let along = Along { id: mask, axis: 1 };
            inputs.push((along, fill(model, mask, None)?));
        }
        for id in graph.inputs().iter().copied() {
            let value = graph.value(id);
            let name = value.name.to_lowercase();
            let counts = dims_of(graph, id)
                .iter()
                .any(|dim| dim.symbols().iter().any(|symbol| tokens.contains(symbol)));
            let is_int = value.ty.as_ref().is_some_and(|ty| ty.dtype.is_int());
            if is_int && name.contains("position") {
                no_body_reads(graph, id)?;
                inputs.push((Along { id, axis: 0 }, Fill::Shift));
            } else if counts && !is_cache(graph, id) && model.padding_mask() != Some(id) {
                return Err(format!("the input `{}` counts earlier tokens", value.name));
            }
        }
        let outputs = outputs(graph, &tokens, count)?;
        Ok(Placeholders {
            count,
            tokens,
            inputs,
            outputs,
        })
    }

    /// Extends inputs and cuts outputs; the modules have their rows already.
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
        let mut kept: Vec<ValueId> = Vec::new();
        for along in &self.outputs {
            let chain = by_token(&model.graph, *along);
            let cut = chain.last().copied().unwrap_or(along.id);
            let original = Operand::Original(cut);
            if let Some(node) = model.graph.producer(cut) {
                emitter.patch.behind(node);
            }
            emitter.scope = "prepended".to_owned();
            let own = emitter.slice(original, along.axis as i64, self.count, i64::MAX);
            kept.push(along.id);
            if !chain.is_empty() {
                let (node, slot) = the_reader(&model.graph, cut);
                emitter.patch.redirect(node, slot, own);
                kept.extend(&chain[..chain.len() - 1]);
                continue;
            }
            emitter.patch.replace_uses(along.id, own);
            for (node, slot) in model.graph.uses(along.id) {
                let slot = slot.expect("no body reads an output that is cut");
                emitter.patch.redirect(node, slot, original);
            }
        }
        let outputs = kept.iter().map(|id| {
            let value = model.graph.value(*id);
            (value.name.clone(), value.ty.clone())
        });
        let outputs: Vec<_> = outputs.collect();
        self.lengthen(&mut model.graph);
        model
            .graph
            .apply(emitter.patch)
            .unwrap_or_else(|why| unreachable!("placeholders fit their graph: {why}"));
        for (name, ty) in outputs {
            if let (Some(id), Some(ty)) = (model.graph.find_value(&name), ty) {
                model.graph.set_type(id, ty);
            }
        }
    }

    /// An input with what new tokens have.
    fn extended(&self, graph: &Graph, emitter: &mut Emitter, along: Along, fill: Fill) -> Operand {
        let value = graph.value(along.id);
        let dtype = value.ty.as_ref().map_or(DType::I64, |ty| ty.dtype);
        emitter.scope = format!("{}/prepended", value.name);
        let input = Operand::Original(along.id);
        let (placeholder, own) = match fill {
            Fill::Zeros => (number(emitter, 0.0, dtype), input),
            Fill::Ones => (number(emitter, 1.0, dtype), input),
            Fill::Positions => {
                let counted: Vec<i64> = (0..self.count).collect();
                let counted = emitter.ints(&counted);
                let counted = match dtype {
                    DType::I64 => counted,
                    dtype => emitter.cast(counted, dtype),
                };
                (counted, self.shifted(emitter, input, dtype))
            }
            Fill::Shift => return self.shifted(emitter, input, dtype),
        };
        let count = emitter.ints(&[self.count]);
        let sizes: Vec<Operand> = (0..dims_of(graph, along.id).len())
            .map(|axis| match axis == along.axis {
                true => count,
                false => emitter.size(input, axis as i64),
            })
            .collect();
        let axis = |axis: usize| vec![Attribute::int("axis", axis as i64)];
        let shape = emitter.node("Concat", &sizes, axis(0));
        let placeholders = emitter.node("Expand", &[placeholder, shape], Vec::new());
        emitter.node("Concat", &[placeholders, own], axis(along.axis))
    }

    /// Positions behind those of new tokens.
    fn shifted(&self, emitter: &mut Emitter, positions: Operand, dtype: DType) -> Operand {
        let shift = number(emitter, self.count as f64, dtype);
        emitter.node("Add", &[positions, shift], Vec::new())
    }

    /// Whatever is computed counts the new tokens, too.
    fn lengthen(&self, graph: &mut Graph) {
        let ids: Vec<ValueId> = graph.value_ids().collect();
        for id in ids {
            let value = graph.value(id);
            let is_computed = !matches!(value.kind, ValueKind::Input { .. });
            let Some(ty) = value.ty.as_ref().filter(|_| is_computed) else {
                continue;
            };
            let Some(shape) = &ty.shape else { continue };
            let dims = shape.0.iter();
            let dims = Shape(
                dims.map(|dim| longer(dim, &self.tokens, self.count))
                    .collect(),
            );
            if dims.compare(shape) != Proof::Equal {
                let ty = TensorType::new(ty.dtype, dims);
                graph.set_type(id, ty);
            }
        }
    }
}

/// A size with so many more of the tokens.
fn longer(dim: &Dim, tokens: &[Symbol], count: i64) -> Dim {
    dim.substitute(&|symbol: &Symbol| {
        let more = || Dim::symbol(symbol.name()) + Dim::from(count);
        tokens.contains(symbol).then(more)
    })
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

fn dims_of(graph: &Graph, id: ValueId) -> &[Dim] {
    let shape = graph.value(id).ty.as_ref().and_then(|ty| ty.shape.as_ref());
    shape.map_or(&[], |shape| shape.0.as_slice())
}

/// What names of caches of earlier tokens have in them.
const CACHES: &[&str] = &["past", "cache"];

fn is_cache(graph: &Graph, id: ValueId) -> bool {
    let value = graph.value(id);
    let name = value.name.to_lowercase();
    let is_float = value.ty.as_ref().is_some_and(|ty| ty.dtype.is_float());
    is_float && CACHES.iter().any(|word| name.contains(word))
}

fn no_body_reads(graph: &Graph, id: ValueId) -> Result<(), String> {
    match graph.uses(id).iter().any(|(_, slot)| slot.is_none()) {
        true => Err(format!(
            "a branch of the model reads `{}` by itself",
            graph.value(id).name
        )),
        false => Ok(()),
    }
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
    let name = &graph.value(ids).name;
    let [_, tokens] = dims_of(graph, ids) else {
        return Err(format!("`{name}` is not `[batch, tokens]`"));
    };
    match (tokens.as_symbol(), tokens.known()) {
        (Some(symbol), _) => Ok(symbol.clone()),
        (None, Some(count)) => Err(format!(
            "`{name}` has {count} tokens, no more and no fewer; export the model with a dynamic axis"
        )),
        (None, None) => Err(format!("`{name}` has {tokens} tokens")),
    }
}

/// The axis of a value that counts the tokens; an error if one counts them in another way.
fn axis_of(graph: &Graph, id: ValueId, tokens: &[Symbol]) -> Result<Option<usize>, String> {
    let dims = dims_of(graph, id);
    let counts = |dim: &Dim| dim.symbols().iter().any(|symbol| tokens.contains(symbol));
    let counting: Vec<usize> = (0..dims.len())
        .filter(|axis| counts(&dims[*axis]))
        .collect();
    match counting.as_slice() {
        [] => Ok(None),
        [axis] if dims[*axis].as_symbol().is_some() => Ok(Some(*axis)),
        _ => Err(format!(
            "`{}` counts tokens on an axis of {}",
            graph.value(id).name,
            dims[counting[0]]
        )),
    }
}

/// What a new token has in an input.
fn fill(model: &Model, id: ValueId, ids: Option<ValueId>) -> Result<Fill, String> {
    let graph = &model.graph;
    let value = graph.value(id);
    let name = value.name.to_lowercase();
    let is_int = value.ty.as_ref().is_some_and(|ty| ty.dtype.is_int());
    no_body_reads(graph, id)?;
    if model.padding_mask() == Some(id) {
        Ok(Fill::Ones)
    } else if is_int && name.contains("position") {
        Ok(Fill::Positions)
    } else if ids == Some(id) || is_int && name.contains("type") {
        Ok(Fill::Zeros)
    } else {
        Err(format!(
            "`{}` has a value for every token, and nothing tells which one a new token has",
            value.name
        ))
    }
}

/// Values on the way back from an output, each the only operand of the next that has tokens: what is
/// computed of each token by itself need not be computed of new ones. An output head is such a way.
fn by_token(graph: &Graph, along: Along) -> Vec<ValueId> {
    let mut chain = Vec::new();
    let mut value = along.id;
    if along.axis != 1 || dims_of(graph, value).len() != 3 || !graph.uses(value).is_empty() {
        return chain;
    }
    while let Some(node) = graph.producer(value) {
        let op = &graph.node(node).op;
        let others = graph.operands(node).into_iter().skip(1).flatten();
        let most = match () {
            () if op.is("MatMul") => 2,
            () if op.is("Add") || op.is("Mul") || op.is("Cast") || op.is("Identity") => 1,
            () => break,
        };
        let mut ranks = others.map(|other| graph.value(other).ty.as_ref()?.shape.as_ref());
        let fits = ranks.all(|shape| shape.is_some_and(|shape| shape.rank() <= most));
        match graph.operand(node, 0) {
            Some(before) if fits && dims_of(graph, before).len() == 3 => {
                let is_alone = graph.uses(before).len() == 1 && !graph.is_output(before);
                if !is_alone || graph.producer(before).is_none() {
                    break;
                }
                chain.push(before);
                value = before;
            }
            _ => break,
        }
    }
    chain
}

/// The node that reads a value of such a way, and where.
fn the_reader(graph: &Graph, id: ValueId) -> (NodeId, usize) {
    let mut uses = graph.uses(id).into_iter();
    let read = uses.find_map(|(node, slot)| Some((node, slot?)));
    read.expect("a value of the way has a reader")
}

/// The outputs that have values for every token.
fn outputs(graph: &Graph, tokens: &[Symbol], count: i64) -> Result<Vec<Along>, String> {
    let mut found = Vec::new();
    for id in graph.outputs() {
        let value = graph.value(*id);
        let before = found.len();
        if value.ty.as_ref().is_none_or(|ty| ty.shape.is_none()) {
            return Err(format!(
                "the shape of the output `{}` is not known",
                value.name
            ));
        }
        for (axis, dim) in dims_of(graph, *id).iter().enumerate() {
            let by = longer(dim, tokens, count) - dim.clone();
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
        let is_own = graph.producer(*id).is_some() && no_body_reads(graph, *id).is_ok();
        let axes = found.len() - before;
        if axes > 1 || axes == 1 && !is_own {
            return Err(format!(
                "new tokens cannot be cut off the output `{}`",
                value.name
            ));
        }
    }
    Ok(found)
}
