//! Names that are not taken.

use super::ir::Graph;
use rustc_hash::FxHashSet;

/// Hands out names that are not taken.
pub(super) struct Unique {
    nodes: FxHashSet<String>,
}

impl Unique {
    pub(super) fn new(graph: &Graph) -> Self {
        Unique {
            nodes: graph
                .node_ids()
                .map(|id| graph.node(id).name.clone())
                .collect(),
        }
    }

    pub(super) fn value(&self, graph: &Graph, wish: &str) -> String {
        numbered(wish, |name| graph.find_value(name).is_some())
    }

    pub(super) fn node(&mut self, wish: &str) -> String {
        let name = numbered(wish, |name| self.nodes.contains(name));
        self.nodes.insert(name.clone());
        name
    }
}

fn numbered(wish: &str, taken: impl Fn(&str) -> bool) -> String {
    if !taken(wish) {
        return wish.to_owned();
    }
    (1..)
        .map(|number| format!("{wish}_{number}"))
        .find(|name| !taken(name))
        .expect("some number is free")
}
