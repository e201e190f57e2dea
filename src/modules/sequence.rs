//! The sites of a model whose layers stand in another sequence.

use super::assemble::mark_shared;
use super::site::{Modules, NameSource, Site};
use crate::graph::{Block, Graph, Model, NodeId, Place, Rename, ValueId};
use rustc_hash::FxHashMap;

impl Modules {
    /// The sites of `model`, whose graph is that of these sites with its blocks at these places: a site of a
    /// block is one at each place of it, under its path there. What structure tells is found again.
    pub fn in_sequence(
        &self,
        model: &Model,
        blocks: &[Block],
        places: &[Place],
        rename: &Rename<'_>,
    ) -> Modules {
        let mut owners: FxHashMap<NodeId, usize> = FxHashMap::default();
        for (number, block) in blocks.iter().enumerate() {
            owners.extend(block.nodes.iter().map(|node| (*node, number)));
        }
        let all = |sites: &[Site]| {
            let mut found: Vec<Site> = Vec::with_capacity(sites.len());
            for site in sites {
                match owners.get(&top_node(site)) {
                    None => found.push(site.clone()),
                    Some(block) => {
                        let places = places.iter().enumerate();
                        let own = places.filter(|(_, place)| place.block == *block);
                        found.extend(own.map(|(number, place)| {
                            let name = |text: &str| rename(*block, number, text);
                            at(site, place, &name)
                        }));
                    }
                }
            }
            in_order(&mut found, &model.graph);
            found
        };
        let by_role = |site: &&Site| site.source == NameSource::Role;
        let (nameless, named): (Vec<&Site>, Vec<&Site>) = self.sites.iter().partition(by_role);
        let nameless = nameless.into_iter().map(|site| Site {
            path: String::new(),
            source: NameSource::None,
            ..site.clone()
        });
        let named: Vec<Site> = named.into_iter().cloned().collect();
        let unnamed: Vec<Site> = self.unnamed.iter().cloned().chain(nameless).collect();
        let mut modules = Modules {
            sites: all(&named),
            unnamed: all(&unnamed),
        };
        // That the copies of a layer share its weights goes without saying.
        let alone: Vec<bool> = modules
            .sites
            .iter()
            .map(|s| s.shared_with.is_empty())
            .collect();
        mark_shared(&mut modules.sites);
        for (site, _) in modules
            .sites
            .iter_mut()
            .zip(alone)
            .filter(|(_, alone)| *alone)
        {
            site.shared_with.clear();
        }
        if self.sites.iter().any(|site| site.place.is_some()) {
            modules.name_by_role(model);
        }
        modules
    }
}

/// The node of the top graph that computes a site, or in whose body it lies.
fn top_node(site: &Site) -> NodeId {
    site.scope.0.first().map_or(site.node, |step| step.0)
}

fn at(site: &Site, place: &Place, name: &dyn Fn(&str) -> String) -> Site {
    let node = |id: NodeId| place.nodes.get(&id).copied().unwrap_or(id);
    let value = |id: ValueId| place.values.get(&id).copied().unwrap_or(id);
    let mut found = site.clone();
    found.path = name(&site.path);
    found.aliases = site.aliases.iter().map(|alias| name(alias)).collect();
    for (_, path) in &mut found.disagreements {
        *path = name(path);
    }
    match found.scope.0.first_mut() {
        // Whatever else it says lies in the body, which is copied as it is.
        Some((owner, ..)) => *owner = node(*owner),
        None => {
            found.node = node(site.node);
            found.input = value(site.input);
            found.output = value(site.output);
            found.weight.operand = value(site.weight.operand);
            found.bias = site.bias.map(value);
        }
    }
    found
}

/// Sorts sites by their nodes.
fn in_order(sites: &mut [Site], graph: &Graph) {
    let Ok(order) = graph.order() else {
        unreachable!("a graph that verifies has no cycle")
    };
    let order = order.into_iter().enumerate();
    let ranks: FxHashMap<NodeId, usize> = order.map(|(rank, node)| (node, rank)).collect();
    sites.sort_by_key(|site| {
        let rank = ranks.get(&top_node(site)).copied();
        (site.scope.0.len(), rank)
    });
}
