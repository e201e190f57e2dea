//! Operators with subgraphs: their bodies are typed with what the enclosing graph knows.

use super::merge::join;
use super::walk::{KnownValues, Results, Scope, Walk};
use crate::graph::{Graph, NodeId, ValueId};
use crate::ops::Control;
use crate::ty::{Dim, Shape, TensorType};

/// Bodies nest at most this deep; import refuses deeper ones, so this never decides.
const DEPTH_LIMIT: usize = 64;

impl Walk<'_, '_> {
    /// Types the bodies of a node. The results of an `If` have the type on which its branches
    /// agree; what a loop carries has the type on which its start and every turn agree.
    pub(super) fn bodies(
        &mut self,
        graph: &mut Graph,
        id: NodeId,
        control: Control,
        known: &KnownValues,
        depth: usize,
    ) -> Results {
        if depth >= DEPTH_LIMIT {
            return Results::default();
        }
        let places: Vec<(usize, usize)> = graph
            .node(id)
            .attributes
            .iter()
            .enumerate()
            .flat_map(|(attribute, a)| (0..a.value.graphs().len()).map(move |at| (attribute, at)))
            .collect();
        let mut branches: Vec<Vec<Option<TensorType>>> = Vec::new();
        let mut taken = Vec::new();
        for (attribute, at) in places {
            let scope = scope_of(graph, id, known, depth + 1);
            // Types are no change to what is written: the serialized form stays.
            let mut body = graph.node(id).attributes[attribute].value.graphs()[at].clone();
            self.graph(&mut body, scope);
            branches.push(types_of(&body, body.outputs()));
            taken = types_of(&body, body.inputs());
            graph.put_typed_body(id, attribute, at, body);
        }
        let types = match (control, branches.first()) {
            (Control::If, _) => self.agreed(graph, id, &branches),
            (Control::Loop, Some(given)) => {
                self.repeated(graph, id, &Turns::of_loop(), &taken, given)
            }
            (Control::Scan, Some(given)) => {
                let turns = Turns::of_scan(graph, id);
                self.repeated(graph, id, &turns, &taken, given)
            }
            (_, None) => Vec::new(),
        };
        Results {
            types,
            known: Vec::new(),
        }
    }

    /// Types of a `Loop` or `Scan`: `taken` and `given` are its body's inputs and outputs.
    fn repeated(
        &mut self,
        graph: &Graph,
        id: NodeId,
        turns: &Turns,
        taken: &[Option<TensorType>],
        given: &[Option<TensorType>],
    ) -> Vec<Option<TensorType>> {
        let operands = graph.operands(id);
        let carried = operands.len().saturating_sub(turns.before + turns.scanned);
        let given = given.get(turns.leading..).unwrap_or_default();
        let results = graph.results(id);
        let names = results.iter().map(|result| match result {
            Some(value) => &*graph.value(*value).name,
            None => "",
        });
        names
            .enumerate()
            .map(|(index, name)| {
                let turn = given.get(index)?.as_ref()?;
                if index >= carried {
                    let size = turns.size.clone();
                    let size = size.unwrap_or_else(|| self.symbols.open(name, 0));
                    return stacked(turn, turns.axis(index - carried), size);
                }
                let start = (*operands.get(turns.before + index)?)?;
                let start = graph.value(start).ty.as_ref();
                let before = taken.get(turns.before + index)?.as_ref();
                // The body's own statement of what it takes has to hold for what it gives.
                let kept = join(before, Some(turn), |axis| self.symbols.open(name, axis));
                join(start, kept.as_ref(), |axis| self.symbols.open(name, axis))
            })
            .collect()
    }

    /// Types that are true of all branches; sizes on which they differ are open.
    fn agreed(
        &mut self,
        graph: &Graph,
        id: NodeId,
        branches: &[Vec<Option<TensorType>>],
    ) -> Vec<Option<TensorType>> {
        let Some((first, rest)) = branches.split_first() else {
            return Vec::new();
        };
        let results = graph.results(id);
        let mut types = first.clone();
        for (index, ty) in types.iter_mut().enumerate() {
            let result = results.get(index).copied().flatten();
            let name = result.map_or("", |value| &*graph.value(value).name);
            for branch in rest {
                let other = branch.get(index).and_then(Option::as_ref);
                *ty = join(ty.as_ref(), other, |axis| self.symbols.open(name, axis));
            }
        }
        types
    }
}

/// How a node calls its body again and again.
struct Turns {
    /// Operands before what is carried; the body takes as many inputs before it.
    before: usize,
    /// Operands behind what is carried.
    scanned: usize,
    /// Outputs of the body that are no results of the node.
    leading: usize,
    /// How many turns there are.
    size: Option<Dim>,
    /// Where each stacked result gets its new axis, from the end if negative; 0 beyond the list.
    axes: Vec<i64>,
}

impl Turns {
    fn of_loop() -> Turns {
        Turns {
            before: 2,
            scanned: 0,
            leading: 1,
            size: None,
            axes: Vec::new(),
        }
    }

    fn of_scan(graph: &Graph, id: NodeId) -> Turns {
        let node = graph.node(id);
        let scanned = node.int("num_scan_inputs").unwrap_or_default();
        let scanned = usize::try_from(scanned).unwrap_or_default();
        let operands = graph.operands(id);
        let first = operands.len().saturating_sub(scanned);
        let axes = |name| node.ints(name).unwrap_or_default();
        let axis = axes("scan_input_axes").first().copied().unwrap_or(0);
        let size = operands.get(first).copied().flatten().and_then(|value| {
            let shape = graph.value(value).ty.as_ref()?.shape.as_ref()?;
            shape.0.get(index(axis, shape.rank())?).cloned()
        });
        Turns {
            before: 0,
            scanned,
            leading: 0,
            size,
            axes: axes("scan_output_axes").to_vec(),
        }
    }

    fn axis(&self, stacked: usize) -> i64 {
        self.axes.get(stacked).copied().unwrap_or(0)
    }
}

/// An axis of so many, counted from the end if negative.
fn index(axis: i64, rank: usize) -> Option<usize> {
    let rank = i64::try_from(rank).ok()?;
    let axis = if axis < 0 { axis + rank } else { axis };
    (0..rank).contains(&axis).then_some(axis as usize)
}

/// The results of all turns along a new axis.
fn stacked(turn: &TensorType, axis: i64, size: Dim) -> Option<TensorType> {
    let Some(shape) = &turn.shape else {
        return Some(turn.clone());
    };
    let mut dims = shape.0.clone();
    dims.insert(index(axis, dims.len() + 1)?, size);
    Some(TensorType::new(turn.dtype, Shape(dims)))
}

fn types_of(body: &Graph, values: &[ValueId]) -> Vec<Option<TensorType>> {
    values
        .iter()
        .map(|value| body.value(*value).ty.clone())
        .collect()
}

fn scope_of(graph: &Graph, id: NodeId, known: &KnownValues, depth: usize) -> Scope {
    let mut scope = Scope::top();
    scope.depth = depth;
    for value in graph.captures(id) {
        let name = &graph.value(value).name;
        if let Some(ty) = &graph.value(value).ty {
            scope.types.insert(name.clone(), ty.clone());
        }
        if let Some(elements) = known.get(&value) {
            scope.known.insert(name.clone(), elements.clone());
        }
    }
    scope
}
