//! Names that are not taken.

use super::ir::Graph;
use rustc_hash::FxHashSet;
use std::borrow::Cow;

/// Names for new nodes, unlike each other and those of the graph; as wished, where that is free.
pub(super) fn node_names<'w>(
    graph: &Graph,
    wishes: impl ExactSizeIterator<Item = &'w str>,
) -> Vec<String> {
    if wishes.len() == 0 {
        return Vec::new();
    }
    let ids = graph.node_ids();
    let size = graph.wires.node_count() + wishes.len();
    let mut taken = FxHashSet::with_capacity_and_hasher(size, Default::default());
    taken.extend(ids.map(|id| Cow::from(&graph.node(id).name)));
    wishes
        .map(|wish| {
            let name = numbered(wish, |name| taken.contains(name));
            taken.insert(Cow::from(name.clone()));
            name
        })
        .collect()
}

/// A name that no value of the graph has.
pub(super) fn value_name(graph: &Graph, wish: &str) -> String {
    numbered(wish, |name| graph.find_value(name).is_some())
}

pub(super) fn numbered(wish: &str, taken: impl Fn(&str) -> bool) -> String {
    if !taken(wish) {
        return wish.to_owned();
    }
    (1..)
        .map(|number| format!("{wish}_{number}"))
        .find(|name| !taken(name))
        .expect("some number is free")
}
