//! A model of layers of its own, in another sequence: `layers "model.layers" = [0..4, 2..5]`.
//!
//! In: the statement, a model and its modules. Out: the model whose layers are those of the list in this
//! order, and its modules; everything after works on these. A layer is what lies between two values of the
//! residual stream ([`borders`]), so that what all layers read, masks and tables of positions, stays what it
//! is. Copies share the weights of the layer that they are copies of.
//!
//! What holds: the model computes what the same layers do in PyTorch, one after the other; the first use of a
//! layer is the layer itself. A model whose layers have more than one value between them, or inputs and
//! outputs of their own, is refused. Not here: adapters.

mod block;
mod borders;
mod dominators;
mod errors;
mod flow;
mod list;
mod naming;
#[cfg(test)]
mod tests;

use crate::diag::{Diagnostic, Reported, Sink};
use crate::graph::{Block, Graph, Model};
use crate::modules::Modules;
use crate::passes;
use crate::syntax::ast;
use list::List;
use naming::Naming;

/// A model with other layers.
#[derive(Debug)]
pub struct Relayered {
    pub model: Model,
    pub modules: Modules,
    /// The path of the list.
    pub list: String,
    /// For every layer of the model which one of the base it is.
    pub sequence: Vec<usize>,
}

/// Puts the layers of a model into the sequence that the statement asks for.
pub fn relayer(
    layers: &ast::Layers,
    model: &Model,
    modules: &Modules,
    sink: &mut Sink,
) -> Result<Relayered, Reported> {
    let list = list::find(layers, modules, sink)?;
    let sequence = list::sequence(layers, &list, sink)?;
    let naming = Naming::new(&list.path);
    let blocks = blocks(layers, (&list, &naming), model, modules);
    let blocks = blocks.map_err(|fault| sink.emit(*fault))?;
    let rename = |block: usize, place: usize, text: &str| naming.moved(text, block, place);
    let (graph, places) = model.graph.in_sequence(&blocks, &sequence, &rename);
    let model = Model {
        graph,
        ..model.clone()
    };
    let modules = modules.in_sequence(&model, &blocks, &places, &rename);
    Ok(Relayered {
        model,
        modules,
        list: list.path,
        sequence,
    })
}

type Fault = Box<Diagnostic>;

/// The layers of the list as blocks of the graph.
fn blocks(
    layers: &ast::Layers,
    (list, naming): (&List, &Naming),
    model: &Model,
    modules: &Modules,
) -> Result<Vec<Block>, Fault> {
    let graph = &model.graph;
    let span = layers.path.span;
    let caches = passes::past(model);
    if let Some((first, _)) = caches.first() {
        let name = &graph.value(*first).name;
        return Err(errors::with_caches(span, name, caches.len()).into());
    }
    let in_body = list.layers.iter().flatten();
    if let Some(site) = in_body
        .map(|site| &modules.sites[*site])
        .find(|site| !site.scope.0.is_empty())
    {
        return Err(errors::in_a_body(span, &site.path).into());
    }
    let blocks = borders::blocks((list, naming), graph, modules)
        .map_err(|obstacle| Fault::from(errors::no_borders(span, &list.path, &obstacle, graph)))?;
    for (number, block) in blocks.iter().enumerate() {
        let mut own = list.layers[number].iter().map(|site| &modules.sites[*site]);
        if let Some(site) = own.find(|site| !block.nodes.contains(&site.node)) {
            return Err(errors::module_outside_of_its_layer(span, &site.path, number).into());
        }
        if let Some(node) = captures_of_its_own(graph, block) {
            return Err(errors::with_a_body(span, number, &node).into());
        }
    }
    Ok(blocks)
}

/// A node whose body reads what the block makes, or what leads into it: it does so by name.
fn captures_of_its_own(graph: &Graph, block: &Block) -> Option<String> {
    let mut with_bodies = block
        .nodes
        .iter()
        .filter(|node| !graph.captures(**node).is_empty());
    let node = with_bodies.find(|node| {
        let made = |value| {
            value == block.input
                || graph
                    .producer(value)
                    .is_some_and(|producer| block.nodes.contains(&producer))
        };
        graph.captures(**node).into_iter().any(made)
    })?;
    Some(graph.display_name(*node))
}
