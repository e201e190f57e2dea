//! Caches of earlier tokens become empty.
//!
//! Requires: a graph that verifies. Ensures: what holds keys and values of earlier tokens, of a number
//! that no other input has, is an input no more; where it was joined with those of the tokens at hand,
//! these stand alone. Sizes that counted earlier tokens count none; the width of a head, where a cache leaves it
//! open, is that of its reader. Values keep their names.

use super::errors;
use crate::diag::{Reported, Sink};
use crate::graph::{Attribute, Graph, Model, NodeId, Operand, Patch, ValueId};
use crate::ops::Emitter;
use crate::ty::{Dim, Shape, Symbol, TensorType};
use rustc_hash::FxHashSet;

/// What names of caches have in them.
const WORDS: &[&str] = &["past", "cache"];

/// An input that holds a cache.
struct Cache {
    id: ValueId,
    ty: TensorType,
    dims: Vec<Dim>,
}

/// Whether a model takes caches that [`without_past`] empties.
pub fn has_past(model: &Model) -> bool {
    !caches(&model.graph).0.is_empty()
}

/// The inputs that hold caches, with their types: the width of a head is there, where its reader tells it.
pub fn past(model: &Model) -> Vec<(ValueId, TensorType)> {
    let (caches, _) = caches(&model.graph);
    caches
        .into_iter()
        .map(|cache| (cache.id, cache.ty))
        .collect()
}

/// Empties the caches that a model takes as inputs; answers with how many these were.
pub fn without_past(model: &mut Model, sink: &mut Sink) -> Result<usize, Reported> {
    let graph = &model.graph;
    let (caches, past) = caches(graph);
    if caches.is_empty() {
        return Ok(0);
    }
    let patch = emptied(graph, &caches, &past, model.opset("").unwrap_or(1));
    if let Err(why) = model.graph.apply(patch) {
        return Err(sink.emit(errors::patch_refused(&model.name, &why)));
    }
    forget(&mut model.graph, &past);
    Ok(caches.len())
}

/// The caches, and the symbols of how many tokens they hold.
fn caches(graph: &Graph) -> (Vec<Cache>, FxHashSet<Symbol>) {
    let mut found: Vec<Cache> = graph
        .inputs()
        .iter()
        .filter_map(|id| named(graph, *id))
        .collect();
    let is_cache = |id: &ValueId| found.iter().any(|cache| cache.id == *id);
    let others: Vec<ValueId> = graph
        .inputs()
        .iter()
        .copied()
        .filter(|id| !is_cache(id))
        .collect();
    let has = |symbol: &Symbol| source(graph, &others, symbol).is_some();
    let mut past = FxHashSet::default();
    found.retain(|cache| {
        let symbols = cache.dims.iter().enumerate();
        let symbols = symbols.filter_map(|(axis, dim)| Some((axis, dim.as_symbol()?)));
        // Rows come first; they are those of another input.
        let (own, shared): (Vec<_>, Vec<_>) = symbols.partition(|(_, symbol)| !has(symbol));
        let is_plain = cache
            .dims
            .iter()
            .all(|dim| dim.known().or(dim.as_symbol().map(|_| 0)).is_some());
        let fits = is_plain && own.len() == 1 && own[0].0 > 0 && shared.len() < cache.dims.len();
        if fits {
            past.insert(own[0].1.clone());
        }
        fits
    });
    (found, past)
}

/// An input that may hold a cache: floats of heads, under such a name.
fn named(graph: &Graph, id: ValueId) -> Option<Cache> {
    let value = graph.value(id);
    let name = value.name.to_lowercase();
    let mut ty = value.ty.clone().filter(|ty| ty.dtype.is_float())?;
    let mut dims = ty.shape.as_ref()?.0.clone();
    if !WORDS.iter().any(|word| name.contains(word)) || dims.len() < 3 {
        return None;
    }
    if let Some(last) = dims.last_mut()
        && let (Some(_), Some(width)) = (last.as_symbol(), width(graph, id))
    {
        *last = Dim::from(width);
        ty.shape = Some(Shape(dims.clone()));
    }
    Some(Cache { id, ty, dims })
}

/// How wide the heads of a cache are, where its type leaves that open (`kv_cache_dim` of genai's builder) and
/// its reader tells it.
fn width(graph: &Graph, cache: ValueId) -> Option<i64> {
    let uses = graph.uses(cache);
    uses.into_iter().find_map(|(node, slot)| {
        let held = graph.node(node);
        let last = |at: usize| {
            let ty = graph.value(graph.operand(node, at)?).ty.as_ref()?;
            ty.shape.as_ref()?.0.last()?.known()
        };
        let number = |name: &str| held.int(name).filter(|number| *number > 0);
        match (&*held.op.op_type, slot?) {
            ("Concat", at) => last(1 - at.min(1)),
            ("GroupQueryAttention", 3 | 4) => {
                let groups = number("kv_num_heads")?;
                match graph.operand(node, 1) {
                    Some(_) => Some(last(1)? / groups),
                    // Queries, keys and values of a token side by side.
                    None => {
                        let heads = groups.checked_mul(2)?.checked_add(number("num_heads")?)?;
                        Some(last(0)? / heads)
                    }
                }
            }
            ("MultiHeadAttention", 6 | 7) => Some(last(0)? / number("num_heads")?),
            _ => None,
        }
    })
}

/// An input and its axis of this size.
fn source(graph: &Graph, inputs: &[ValueId], symbol: &Symbol) -> Option<(ValueId, usize)> {
    inputs.iter().find_map(|id| {
        let shape = graph.value(*id).ty.as_ref()?.shape.as_ref()?;
        let axis = shape
            .0
            .iter()
            .position(|dim| dim.as_symbol() == Some(symbol))?;
        Some((*id, axis))
    })
}

fn emptied(graph: &Graph, caches: &[Cache], past: &FxHashSet<Symbol>, opset: i64) -> Patch {
    let mut emitter = Emitter::new(opset);
    emitter.scope = "past".to_owned();
    for cache in caches {
        let readers = graph.uses(cache.id);
        let joined: Vec<Option<(NodeId, ValueId)>> = readers
            .iter()
            .map(|(node, _)| other_part(graph, *node, caches).map(|other| (*node, other)))
            .collect();
        for (node, other) in joined.iter().flatten() {
            if let Some(result) = graph.result(*node, 0) {
                emitter.patch.behind(*node);
                let alone = emitter.node("Identity", &[Operand::Existing(*other)], Vec::new());
                emitter.patch.take_over(result, alone);
            }
        }
        if joined.iter().any(Option::is_none) {
            emitter.patch.front();
            let empty = empty(graph, cache, past, &mut emitter);
            emitter.patch.replace_uses(cache.id, empty);
        }
        emitter.patch.drop_input(cache.id);
    }
    emitter.patch
}

/// What a node joins with a cache, if that is one value.
fn other_part(graph: &Graph, node: NodeId, caches: &[Cache]) -> Option<ValueId> {
    let is_cache = |id: &ValueId| caches.iter().any(|cache| cache.id == *id);
    let operands: Vec<ValueId> = graph.operands(node).into_iter().flatten().collect();
    match operands.as_slice() {
        [first, second] if graph.node(node).op.is("Concat") => {
            match (is_cache(first), is_cache(second)) {
                (true, false) => Some(*second),
                // What an adapter puts in front of the cache.
                (false, true) => Some(*first),
                _ => None,
            }
        }
        _ => None,
    }
}

/// A tensor without an element, in the shape of the cache.
fn empty(graph: &Graph, cache: &Cache, past: &FxHashSet<Symbol>, emitter: &mut Emitter) -> Operand {
    let inputs: Vec<ValueId> = graph
        .inputs()
        .iter()
        .copied()
        .filter(|id| *id != cache.id)
        .collect();
    let sizes = cache.dims.iter().map(|dim| {
        let symbol = dim.as_symbol().filter(|symbol| !past.contains(symbol));
        match symbol.and_then(|symbol| source(graph, &inputs, symbol)) {
            Some((input, axis)) => {
                let shape = emitter.node("Shape", &[Operand::Existing(input)], Vec::new());
                let axis = emitter.ints(&[axis as i64]);
                emitter.node("Gather", &[shape, axis], Vec::new())
            }
            None => emitter.ints(&[dim.known().unwrap_or(0)]),
        }
    });
    let sizes: Vec<Operand> = sizes.collect();
    let shape = emitter.node("Concat", &sizes, vec![Attribute::int("axis", 0)]);
    let zero = emitter.scalar(0.0, cache.ty.dtype);
    emitter.typed(
        "Expand",
        &[zero, shape],
        Vec::new(),
        Some(without(&cache.ty, past)),
    )
}

/// The type with no earlier tokens.
fn without(ty: &TensorType, past: &FxHashSet<Symbol>) -> TensorType {
    let none = |symbol: &Symbol| past.contains(symbol).then(|| Dim::from(0));
    let mut ty = ty.clone();
    if let Some(shape) = &mut ty.shape {
        *shape = Shape(shape.0.iter().map(|dim| dim.substitute(&none)).collect());
    }
    ty
}

fn forget(graph: &mut Graph, past: &FxHashSet<Symbol>) {
    let typed: Vec<(ValueId, TensorType)> = graph
        .value_ids()
        .filter_map(|id| {
            let ty = graph.value(id).ty.as_ref()?;
            let latest = without(ty, past);
            (latest != *ty).then_some((id, latest))
        })
        .collect();
    for (id, ty) in typed {
        graph.set_type(id, ty);
    }
}
