//! Recomputation in a stack of small layers, evaluated in f64.

use super::super::tests::Build;
use super::super::{Gradients, gradients_from};
use super::{Waits, recompute};
use crate::diag::Sink;
use crate::graph::{Graph, Model, NodeId, ValueId};
use crate::reference::{self, Array};
use crate::ty::{DType, TensorType};
use std::collections::BTreeSet;

const LAYERS: usize = 6;

/// `h + tanh(h · a) · b`, six times; the last sum is `h6`, and `dy`, its sine, stands for its gradient.
fn stack(rows: &str) -> Build {
    let mut build = Build::new(17).input("h0", DType::F32, &[rows, "8"]);
    for layer in 0..LAYERS {
        let name = |of: &str| format!("{of}{layer}");
        let (from, to) = (format!("h{layer}"), format!("h{}", layer + 1));
        build = build
            .weight(&name("a"), &[8, 32])
            .weight(&name("b"), &[32, 8])
            .node("MatMul", &[&from, &name("a")], &name("up"))
            .node("Tanh", &[&name("up")], &name("t"))
            .node("MatMul", &[&name("t"), &name("b")], &name("down"))
            .node("Add", &[&from, &name("down")], &to);
    }
    build.node("Sin", &["h6"], "dy")
}

fn id(graph: &Graph, name: &str) -> ValueId {
    graph.find_value(name).unwrap()
}

fn bytes(ty: &TensorType) -> u64 {
    let dims = ty.shape.iter().flat_map(|shape| &shape.0);
    4 * dims
        .map(|dim| dim.known().unwrap_or(16) as u64)
        .product::<u64>()
}

fn differentiated(mut model: Model) -> (Model, ValueId, Gradients, Vec<ValueId>) {
    let output = id(&model.graph, &format!("h{LAYERS}"));
    let gradient = id(&model.graph, "dy");
    let wrt = (0..LAYERS).flat_map(|layer| [format!("a{layer}"), format!("b{layer}")]);
    let wrt: Vec<ValueId> = wrt.map(|name| id(&model.graph, &name)).collect();
    let mut sink = Sink::new();
    let found = gradients_from(&mut model, output, gradient, &wrt, &mut sink);
    let found = found.unwrap_or_else(|_| panic!("{:#?}", sink.diagnostics()));
    (model, output, found, wrt)
}

fn recomputed(model: Model) -> (usize, Model, Gradients) {
    recomputed_as(model, Waits::AsView)
}

fn recomputed_as(model: Model, waits: Waits) -> (usize, Model, Gradients) {
    let (mut model, output, found, wrt) = differentiated(model);
    let mut sink = Sink::new();
    let count = recompute(&mut model, output, &found, &wrt, (&bytes, waits), &mut sink).unwrap();
    (count, model, found)
}

fn values(model: &Model, gradients: &Gradients) -> Vec<Vec<f64>> {
    let numbers = (0..24).map(|at| (at * 7 % 11) as f64 * 0.1 - 0.5);
    let start = Array::floats(DType::F32, &[3, 8], numbers.collect()).unwrap();
    let names = gradients.of.iter();
    let names: Vec<String> = names
        .map(|value| model.graph.value(*value).name.to_string())
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let options = reference::Options::default();
    let evaluator = reference::Evaluator::new(model, &options).unwrap();
    let found = evaluator.values(&[("h0", start)], &names);
    let found = found.unwrap_or_else(|why| panic!("{why}"));
    found
        .into_iter()
        .map(|(_, array)| array.to_f64s())
        .collect()
}

fn copies(graph: &Graph) -> Vec<NodeId> {
    let nodes = graph.node_ids();
    let is_copy = |node: &NodeId| {
        let name = &graph.node(*node).name;
        name.strip_prefix("again/")
            .is_some_and(|of| of.starts_with('/'))
    };
    nodes.filter(is_copy).collect()
}

/// Everything that a node is computed from.
fn behind(graph: &Graph, node: NodeId) -> BTreeSet<String> {
    let (mut left, mut found) = (vec![node], BTreeSet::new());
    while let Some(node) = left.pop() {
        for value in graph.operands(node).into_iter().flatten() {
            if found.insert(graph.value(value).name.to_string()) {
                left.extend(graph.producer(value));
            }
        }
    }
    found
}

#[test]
fn gradients_are_the_same() {
    for rows in ["N", "3"] {
        let (model, _, plain, _) = differentiated(stack(rows).0);
        let expected = values(&model, &plain);
        let (count, model, found) = recomputed(stack(rows).0);
        assert!(count >= 3, "{count}");
        assert_eq!(values(&model, &found), expected);
        assert!(expected.iter().flatten().any(|number| *number != 0.0));
        let (count, model, found) = recomputed_as(stack(rows).0, Waits::AsCopy);
        assert!(count >= 3, "{count}");
        assert_eq!(values(&model, &found), expected);
        let mut nodes = model.graph.node_ids();
        assert!(nodes.all(|node| !model.graph.node(node).op.is("Shape")));
    }
}

/// Copies of a layer come behind the gradient of what the layer gives, even where every size is a
/// number.
#[test]
fn a_copy_waits_for_the_gradient_of_its_block() {
    for rows in ["N", "3"] {
        let (_, model, _) = recomputed(stack(rows).0);
        let graph = &model.graph;
        let copies = copies(graph);
        assert!(copies.len() >= 6, "{}", copies.len());
        assert!(
            copies
                .iter()
                .all(|copy| behind(graph, *copy).contains("dy"))
        );
        // The layers behind the first block have had their gradients by then.
        let first = copies.iter().map(|copy| behind(graph, *copy));
        let most = first.max_by_key(BTreeSet::len).unwrap();
        assert!(
            most.iter().any(|name| name.starts_with("grad//MatMul")),
            "{most:?}"
        );
    }
}

/// What the backward pass reads of the inside of a block is a copy; the forward pass reads originals.
#[test]
fn the_forward_pass_is_as_it_was() {
    let (_, model, _) = recomputed(stack("N").0);
    let graph = &model.graph;
    let read_by = |name: &str| {
        let readers = graph.uses(id(graph, name)).into_iter();
        let names = readers.map(|(node, _)| graph.node(node).name.clone());
        names.collect::<Vec<String>>()
    };
    let kept = (0..LAYERS).filter(|layer| read_by(&format!("t{layer}")).len() > 1);
    assert_eq!(kept.count(), 0);
    assert!(read_by("t2").iter().all(|name| name.starts_with("/MatMul")));
}
