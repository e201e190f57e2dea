//! Operators with subgraphs: their bodies are typed with what the enclosing graph knows.

use super::merge::join;
use super::walk::{KnownValues, Results, Scope, Walk};
use crate::graph::{Graph, NodeId};
use crate::ops::Control;
use crate::ty::TensorType;

/// Bodies nest at most this deep; import refuses deeper ones, so this never decides.
const DEPTH_LIMIT: usize = 64;

impl Walk<'_, '_> {
    /// Types the bodies of a node. The results of an `If` have the type on which its branches
    /// agree; what a loop carries may change from turn to turn, so nothing is claimed of it.
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
        for (attribute, at) in places {
            let scope = scope_of(graph, id, known, depth + 1);
            // Types are no change to what is written: the serialized form stays.
            let mut body = graph.node(id).attributes[attribute].value.graphs()[at].clone();
            self.graph(&mut body, scope);
            branches.push(
                body.outputs()
                    .iter()
                    .map(|output| body.value(*output).ty.clone())
                    .collect(),
            );
            graph.put_typed_body(id, attribute, at, body);
        }
        match control {
            Control::If => Results {
                types: self.agreed(graph, id, &branches),
                known: Vec::new(),
            },
            Control::Loop | Control::Scan => Results::default(),
        }
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
