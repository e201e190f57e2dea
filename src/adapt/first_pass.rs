//! A first pass of the base model inside of the adapted one: what `first_pass(module)` means for a graph.
//!
//! The value is that of the module, in a copy of the part of the model that leads to it: inputs and
//! initializers are those of the model, and so is all that no adapter changes, which stands in front of
//! the first adapted module. The copy reads what adapted modules give without the adapter. Where
//! nothing in front of the module is adapted, nothing is copied.

use super::errors;
use super::plan::{Plan, PlannedSite};
use crate::diag::{Reported, Sink};
use crate::graph::{Graph, Model, NewNode, Node, NodeId, Operand, ValueId};
use crate::hir::TermKind;
use crate::modules::{Modules, Obstacle, Scope, Site, SiteKind};
use crate::ops::Emitter;
use crate::ty::{DType, Dim, Proof, Shape};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;

/// The mark of a node that is a copy.
const COPY: (&str, &str) = ("peftc.pass", "first");

/// Whether a node of an adapted model is a copy, for a first pass.
pub fn is_first_pass(node: &Node) -> bool {
    node.metadata(COPY.0) == Some(COPY.1)
}

/// The module of a path that formulas have found to be the only one of it.
fn module_at<'m>(modules: &'m Modules, path: &str) -> &'m Site {
    let called = modules.sites.iter().filter(|site| site.is_module());
    let mut found = called.filter(|site| site.path == path);
    found.next().expect("a formula has found the module")
}

/// The modules whose output in a first pass a site's formulas read.
fn read_at(planned: &PlannedSite) -> impl Iterator<Item = &str> {
    let formulas = planned.methods.iter().map(|m| &m.instance.forward);
    formulas.flat_map(|formula| {
        let reached = formula.reachable();
        let terms = formula.terms();
        terms.filter_map(move |(id, term)| {
            let module = term.kind.first_pass()?;
            reached[id.0 as usize].then_some(module)
        })
    })
}

/// Refuses first passes that the model does not allow, each cause once a call.
pub(super) fn check(
    plan: &Plan,
    model: &Model,
    modules: &Modules,
    sink: &mut Sink,
) -> Result<(), Reported> {
    let mut reported = None;
    let mut said = FxHashSet::default();
    // By module: the same for all that read it.
    let mut on_the_way: BTreeMap<&str, Option<String>> = BTreeMap::new();
    for planned in &plan.sites {
        let reader = &modules.sites[planned.site];
        for method in &planned.methods {
            let reads = |kind: &TermKind| kind.first_pass().is_some();
            if !method.instance.forward.uses(reads) {
                continue;
            }
            for path in read_at(planned) {
                let module = module_at(modules, path);
                let why = refusal(plan, model, reader, module).or_else(|| {
                    let known = on_the_way.entry(path);
                    let graph = &model.graph;
                    let copied = || Copied::of(graph, &plan.sites, modules, &[module.output]);
                    known
                        .or_insert_with(|| copied().refusal(graph, modules))
                        .clone()
                });
                if let Some(why) = why
                    && said.insert((method.span, path, why.clone()))
                {
                    let span = method.span;
                    reported =
                        Some(sink.emit(errors::no_first_pass(span, path, &reader.path, &why)));
                }
            }
        }
    }
    reported.map_or(Ok(()), Err)
}

/// Why a site cannot read what a module gives in a first pass, if it cannot.
fn refusal(plan: &Plan, model: &Model, reader: &Site, module: &Site) -> Option<String> {
    let graph = &model.graph;
    if module.scope != reader.scope || module.scope != Scope::default() {
        return Some("one of the two lies in a branch or a loop of the model".to_owned());
    }
    match &module.obstacle {
        // What the node gives is the module's, whatever it is given.
        None | Some(Obstacle::FusedResidual) => {}
        Some(obstacle) => return Some(format!("its output is no value of the model: {obstacle}")),
    }
    let shape = |value: ValueId| graph.value(value).ty.as_ref()?.shape.clone();
    let (given, own) = (shape(module.output), shape(reader.input));
    match given.as_ref().map(|given| (given, given.0.len())) {
        Some((given, 3)) if features(module, given) => {}
        Some((given, _)) => {
            return Some(format!("it gives {given}, and no features for every token"));
        }
        None => return Some("the shape of what it gives is not known".to_owned()),
    }
    if let (Some(given), Some(own)) = (&given, &own)
        && (reader.kind == SiteKind::Cache || of_other_tokens(reader, own, given))
    {
        return Some(format!(
            "it gives {given} where the adapted module is given {own}: the tokens are not the same"
        ));
    }
    let prompts = |kind: &TermKind| matches!(kind, TermKind::Prepended { .. });
    let mut methods = plan.sites.iter().flat_map(|planned| &planned.methods);
    let prompted = methods.any(|method| method.instance.forward.uses(prompts));
    prompted.then(|| {
        "the adapter puts tokens in front of the model's own, which the base model does not know"
            .to_owned()
    })
}

/// Whether the last axis holds the features of the module.
fn features(module: &Site, given: &Shape) -> bool {
    let last = given.0.last().and_then(Dim::known);
    match &module.slice {
        Some(slice) => last.is_none_or(|last| slice.end <= last),
        None => last.is_none_or(|last| last == module.out_features),
    }
}

/// Whether batch and tokens of a site's input are known to be others than those of `[batch, tokens, …]`.
pub(super) fn of_other_tokens(site: &Site, own: &Shape, other: &Shape) -> bool {
    let rank = own.rank() + usize::from(site.kind == SiteKind::Embedding);
    let is_named = |dim: &Dim| dim.as_symbol().is_some_and(|symbol| !symbol.is_open());
    let differ =
        |a: &Dim, b: &Dim| a.compare(b) == Proof::Different || is_named(a) && is_named(b) && a != b;
    let mut pairs = own.0.iter().zip(&other.0).take(2);
    rank != 3 || pairs.any(|(a, b)| differ(a, b))
}

/// The part of a graph that is there twice.
struct Copied {
    /// In the order of the graph.
    nodes: Vec<NodeId>,
    /// What they compute.
    results: FxHashSet<ValueId>,
    /// What adapters change.
    replaced: FxHashSet<ValueId>,
}

impl Copied {
    /// What leads to some values and reads what an adapter changes, at once or by way of others.
    fn of<'p>(
        graph: &Graph,
        sites: impl IntoIterator<Item = &'p PlannedSite>,
        modules: &Modules,
        wanted: &[ValueId],
    ) -> Copied {
        let mut replaced = FxHashSet::default();
        let mut owners = FxHashSet::default();
        for planned in sites {
            let site = &modules.sites[planned.site];
            match site.scope.0.first() {
                Some((owner, ..)) => owners.insert(*owner),
                None => replaced.insert(site.output),
            };
        }
        Copied::behind(graph, replaced, &owners, wanted)
    }

    /// The same, of values that are replaced and nodes whose bodies are changed.
    fn behind(
        graph: &Graph,
        replaced: FxHashSet<ValueId>,
        owners: &FxHashSet<NodeId>,
        wanted: &[ValueId],
    ) -> Copied {
        let leading = leading_to(graph, wanted);
        let mut copied = Copied {
            nodes: Vec::new(),
            results: FxHashSet::default(),
            replaced,
        };
        let order = graph.order().unwrap_or_default();
        for node in order.into_iter().filter(|node| leading.contains(node)) {
            let mut read = read_by(graph, node);
            if owners.contains(&node) || read.any(|value| copied.changes(value)) {
                copied.nodes.push(node);
                copied
                    .results
                    .extend(graph.results(node).into_iter().flatten());
            }
        }
        copied
    }

    /// Whether readers of a value see an adapter.
    fn changes(&self, value: ValueId) -> bool {
        self.replaced.contains(&value) || self.results.contains(&value)
    }

    /// Why these nodes cannot be there twice, if they cannot.
    fn refusal(&self, graph: &Graph, modules: &Modules) -> Option<String> {
        let caches = modules.sites.iter().filter(|s| s.kind == SiteKind::Cache);
        let caches: FxHashSet<ValueId> = caches.map(|site| site.input).collect();
        for node in &self.nodes {
            if graph.node(*node).has_subgraphs() {
                return Some(format!(
                    "the node `{}` on the way to it has branches, or is a loop",
                    graph.display_name(*node)
                ));
            }
            let cache = read_by(graph, *node).find(|value| caches.contains(value));
            if let Some(cache) = cache {
                return Some(format!(
                    "on the way to it, `{}` holds what earlier tokens gave with the adapter",
                    graph.value(cache).name
                ));
            }
        }
        None
    }
}

fn read_by(graph: &Graph, node: NodeId) -> impl Iterator<Item = ValueId> {
    let operands = graph.operands(node).into_iter().flatten();
    operands.chain(graph.captures(node))
}

/// The nodes that some values depend on.
fn leading_to(graph: &Graph, wanted: &[ValueId]) -> FxHashSet<NodeId> {
    let mut left: Vec<NodeId> = wanted.iter().filter_map(|v| graph.producer(*v)).collect();
    let mut found = FxHashSet::default();
    while let Some(node) = left.pop() {
        if found.insert(node) {
            left.extend(read_by(graph, node).filter_map(|value| graph.producer(value)));
        }
    }
    found
}

/// The sites that a planned adapter computes twice, the first time without it.
pub fn computed_twice(plan: &Plan, model: &Model, modules: &Modules) -> Vec<usize> {
    let read: FxHashSet<&str> = plan.sites.iter().flat_map(read_at).collect();
    if read.is_empty() {
        return Vec::new();
    }
    let wanted: Vec<ValueId> = read
        .into_iter()
        .map(|path| module_at(modules, path).output)
        .collect();
    let copied = Copied::of(&model.graph, &plan.sites, modules, &wanted);
    let nodes: FxHashSet<NodeId> = copied.nodes.into_iter().collect();
    let sites = modules.sites.iter().enumerate();
    let twice = sites.filter(|(_, s)| s.scope == Scope::default() && nodes.contains(&s.node));
    twice.map(|(index, _)| index).collect()
}

/// First passes in one graph, for all of its sites.
#[derive(Default)]
pub(super) struct Passes {
    /// By the path of the module: its output with the element type.
    values: BTreeMap<String, (Operand, DType)>,
}

impl Passes {
    /// Emits what the sites of a graph read of first passes, beside the nodes that it is a copy of.
    pub fn emit(
        emitter: &mut Emitter,
        graph: &Graph,
        sites: &[&PlannedSite],
        modules: &Modules,
    ) -> Passes {
        let read: BTreeMap<&str, &Site> = sites
            .iter()
            .flat_map(|site| read_at(site))
            .map(|path| (path, module_at(modules, path)))
            .collect();
        if read.is_empty() {
            return Passes::default();
        }
        let wanted: Vec<ValueId> = read.values().map(|site| site.output).collect();
        let copied = Copied::of(graph, sites.iter().copied(), modules, &wanted);
        let copies = copies(emitter, graph, &copied);
        let mut values = BTreeMap::new();
        for (path, site) in read {
            let copy = copies.get(&site.output).copied();
            let whole = copy.unwrap_or(Operand::Original(site.output));
            let value = match &site.slice {
                None => whole,
                Some(slice) => {
                    emitter.scope = format!("first_pass/{path}");
                    if let Some(node) = graph.producer(site.output) {
                        emitter.patch.behind(node);
                    }
                    emitter.slice(whole, -1, slice.start, slice.end)
                }
            };
            values.insert(path.to_owned(), (value, site.dtype));
        }
        Passes { values }
    }

    /// The output of a module, with its element type.
    pub fn value(&self, path: &str) -> Option<(Operand, DType)> {
        self.values.get(path).copied()
    }
}

/// The results of the copies by those of the nodes. Copies have no metadata of exporters: they are no
/// modules.
fn copies(emitter: &mut Emitter, graph: &Graph, copied: &Copied) -> FxHashMap<ValueId, Operand> {
    let mut made: FxHashMap<ValueId, Operand> = FxHashMap::default();
    for node in &copied.nodes {
        let original = graph.node(*node);
        let operand = |value: ValueId| match made.get(&value) {
            Some(copy) => *copy,
            None if copied.replaced.contains(&value) => Operand::Original(value),
            None => Operand::Existing(value),
        };
        let operands = graph.operands(*node).into_iter();
        let new = NewNode {
            op: original.op.clone(),
            name: in_first_pass(&graph.display_name(*node)),
            attributes: original.attributes.clone(),
            inputs: operands.map(|value| value.map(operand)).collect(),
            metadata: vec![(COPY.0.to_owned(), COPY.1.to_owned())],
        };
        let originals = graph.results(*node);
        let results = originals.iter().map(|result| {
            let value = graph.value((*result)?);
            Some((in_first_pass(&value.name), value.ty.clone()))
        });
        emitter.patch.behind(*node);
        let results = emitter.patch.node_with_some_results(new, results.collect());
        let pairs = originals.into_iter().zip(results);
        made.extend(pairs.filter_map(|(original, copy)| Some((original?, copy?))));
    }
    made
}

/// Names of TorchScript begin with a slash.
fn in_first_pass(name: &str) -> String {
    format!("first_pass/{}", name.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attribute, AttributeValue, OpName, Value};

    /// `a = Relu(x)`, `b` of a node with a body that reads `a` or of one without, `c = Relu(b)`.
    fn chain(body: bool) -> (Graph, [ValueId; 3], NodeId) {
        let mut graph = Graph::new("chain");
        let [x, a, b, c] = ["x", "a", "b", "c"].map(|name| {
            let value = Value::computed(name, None);
            graph.add_value(value).expect("a new name")
        });
        let relu = OpName::new("", "Relu");
        graph.add_node(relu.clone(), "first", Vec::new(), &[Some(x)], &[Some(a)]);
        let inner = AttributeValue::Graph(Box::new(Graph::new("body")));
        let middle = match body {
            true => {
                let attributes = vec![Attribute::new("then_branch", inner)];
                let owner = OpName::new("", "If");
                let owner = graph.add_node(owner, "middle", attributes, &[Some(x)], &[Some(b)]);
                graph.add_capture(owner, a);
                owner
            }
            false => graph.add_node(relu.clone(), "middle", Vec::new(), &[Some(a)], &[Some(b)]),
        };
        graph.add_node(relu, "last", Vec::new(), &[Some(b)], &[Some(c)]);
        (graph, [a, b, c], middle)
    }

    fn copied(graph: &Graph, replaced: &[ValueId], owners: &[NodeId], wanted: ValueId) -> Copied {
        let owners = owners.iter().copied().collect();
        Copied::behind(
            graph,
            replaced.iter().copied().collect(),
            &owners,
            &[wanted],
        )
    }

    #[test]
    fn a_body_on_the_way_is_not_there_twice() {
        let modules = Modules::default();
        let (graph, [a, b, c], middle) = chain(true);
        let refused = |replaced: &[ValueId], owners: &[NodeId]| {
            copied(&graph, replaced, owners, c).refusal(&graph, &modules)
        };
        // It captures what is adapted, or an adapted module lies in it.
        assert!(refused(&[a], &[]).is_some_and(|why| why.contains("`middle`")));
        assert!(refused(&[], &[middle]).is_some_and(|why| why.contains("`middle`")));
        // What is adapted comes behind it.
        assert_eq!(refused(&[b], &[]), None);
        assert_eq!(refused(&[c], &[]), None);
    }

    #[test]
    fn what_reads_no_adapter_is_not_there_twice() {
        let (graph, [a, b, c], _) = chain(false);
        let count = |replaced: ValueId, wanted: ValueId| {
            copied(&graph, &[replaced], &[], wanted).nodes.len()
        };
        assert_eq!([count(a, c), count(b, c), count(c, c)], [2, 1, 0]);
        assert_eq!([count(a, a), count(c, a)], [0, 0]);
    }
}
