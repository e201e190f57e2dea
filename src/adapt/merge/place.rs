//! Where new weights go: into the tensor itself where nobody else reads it, else beside it.

use super::super::apply::{graph_at, range_of};
use super::super::errors;
use super::super::plan::{Plan, PlannedSite};
use super::super::refusal::excerpt;
use super::super::rows;
use super::Keep;
use super::compute::{Bias, New};
use crate::diag::{Reported, Sink};
use crate::graph::{Graph, Model, NodeId, Operand, Patch, Tensor, TensorData, ValueId, ValueKind};
use crate::modules::{Modules, Scope, Site, SiteKind};
use crate::ops::{Emitter, encode_float};
use crate::ty::DType;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// The planned sites of one node.
pub(super) struct Unit<'p> {
    pub sites: Vec<&'p PlannedSite>,
}

impl<'p> Unit<'p> {
    pub fn site<'m>(&self, modules: &'m Modules) -> &'m Site {
        &modules.sites[self.sites[0].site]
    }

    /// Whether the other node has the same weight and the same methods on it.
    pub fn reads_like(&self, other: &Unit<'_>, modules: &Modules) -> bool {
        let (a, b) = (self.site(modules), other.site(modules));
        let same = |(a, b): (&&PlannedSite, &&PlannedSite)| {
            let methods = a.methods.iter().zip(&b.methods).all(|(a, b)| {
                a.parameters == b.parameters && Arc::ptr_eq(&a.instance, &b.instance)
            });
            let ranges = [a, b].map(|p| range_of(p, &modules.sites[p.site]));
            methods && a.methods.len() == b.methods.len() && ranges[0] == ranges[1]
        };
        (&a.weight.scope, a.weight.value, a.kind) == (&b.weight.scope, b.weight.value, b.kind)
            && a.bias.is_some() == b.bias.is_some()
            && self.sites.len() == other.sites.len()
            && self.sites.iter().zip(&other.sites).all(same)
    }
}

/// The units of a plan, in graph order.
pub(super) fn units<'p>(plan: &'p Plan, modules: &Modules) -> VecDeque<Unit<'p>> {
    let mut found: Vec<((&Scope, NodeId), Unit<'p>)> = Vec::new();
    for planned in &plan.sites {
        let site = &modules.sites[planned.site];
        let key = (&site.scope, site.node);
        match found.iter_mut().find(|(known, _)| *known == key) {
            Some((_, unit)) => unit.sites.push(planned),
            None => found.push((
                key,
                Unit {
                    sites: vec![planned],
                },
            )),
        }
    }
    found.into_iter().map(|(_, unit)| unit).collect()
}

/// The first of the units and all that read its weight in the same way: they have the same new one.
pub(super) fn next_group<'p>(
    units: &mut VecDeque<Unit<'p>>,
    modules: &Modules,
) -> Option<Vec<Unit<'p>>> {
    let first = units.pop_front()?;
    let (same, others): (Vec<_>, Vec<_>) = std::mem::take(units)
        .into_iter()
        .partition(|unit| unit.reads_like(&first, modules));
    *units = others.into();
    Some(std::iter::once(first).chain(same).collect())
}

/// What a merge does to a graph, once everything is known.
#[derive(Default)]
pub(super) struct Changes {
    /// Other elements for initializers.
    contents: Vec<(Scope, ValueId, Tensor)>,
    /// Nodes that read another constant in a slot.
    operands: Vec<(NodeId, ValueId, String, Tensor)>,
    /// Constants added to a value, by its producer.
    sums: Vec<(NodeId, ValueId, String, Tensor)>,
}

impl Changes {
    /// The changes for nodes that read one weight in the same way.
    pub fn plan(
        &mut self,
        group: &[Unit<'_>],
        new: New,
        model: &Model,
        modules: &Modules,
        keep: &mut Keep<'_>,
        sink: &mut Sink,
    ) -> Result<(), Reported> {
        let sites: Vec<&Site> = group.iter().map(|unit| unit.site(modules)).collect();
        if new.is_changed {
            self.weight(&sites, group, &new, model, keep, sink)?;
        }
        match &new.bias {
            Some(bias) => self.bias(&sites, group, bias, model, keep, sink),
            None => Ok(()),
        }
    }

    fn weight(
        &mut self,
        sites: &[&Site],
        group: &[Unit<'_>],
        new: &New,
        model: &Model,
        keep: &mut Keep<'_>,
        sink: &mut Sink,
    ) -> Result<(), Reported> {
        let first = sites[0];
        let (scope, value) = (&first.weight.scope, first.weight.value);
        let own: BTreeSet<(Scope, NodeId)> = sites
            .iter()
            .map(|site| (site.scope.clone(), site.node))
            .collect();
        let stored = graph_at(model, scope).value(value);
        let Some(old) = stored.tensor() else {
            unreachable!("its elements have been read")
        };
        if readers(model, scope, value).is_subset(&own) {
            let data = keep(old, encoded(&new.weight, old.dtype), sink)?;
            let tensor = with_data(old.dtype, &old.dims, data);
            self.contents.push((scope.clone(), value, tensor));
            return Ok(());
        }
        let mut kept: Option<Tensor> = None;
        for (site, unit) in sites.iter().zip(group) {
            if !site.scope.0.is_empty() {
                let span = unit.sites[0].methods.first().map(|method| method.span);
                let Some(span) = span else { continue };
                let why = "others read it, too, and it is read in a subgraph";
                let diagnostic = errors::cannot_merge_into(span, &site.path, why);
                return Err(sink.emit(diagnostic.excerpt(excerpt(model, site))));
            }
            let tensor = match &kept {
                Some(tensor) => tensor.clone(),
                None => {
                    let (dims, values) = as_read(site, old, &new.weight);
                    let dtype = read_type(model, site).unwrap_or(old.dtype);
                    let data = keep(old, encoded(&values, dtype), sink)?;
                    kept.insert(with_data(dtype, &dims, data)).clone()
                }
            };
            let name = format!("{}.weight.merged", site.path);
            self.operands
                .push((site.node, site.weight.operand, name, tensor));
        }
        Ok(())
    }

    fn bias(
        &mut self,
        sites: &[&Site],
        group: &[Unit<'_>],
        bias: &Bias,
        model: &Model,
        keep: &mut Keep<'_>,
        sink: &mut Sink,
    ) -> Result<(), Reported> {
        let first = sites[0];
        let found = first.bias.and_then(|id| origin(model, &first.scope, id));
        if let (Some((scope, id)), Some(whole)) = (&found, &bias.whole) {
            let own = sites.iter().flat_map(|site| {
                let behind = graph_at(model, &site.scope).producer(site.output);
                let nodes = std::iter::once(site.node).chain(behind);
                nodes.map(|node| (site.scope.clone(), node))
            });
            let own: BTreeSet<(Scope, NodeId)> = own.collect();
            let old = graph_at(model, scope).value(*id).tensor();
            if let Some(old) = old
                && readers(model, scope, *id).is_subset(&own)
            {
                let data = keep(old, encoded(whole, old.dtype), sink)?;
                let tensor = with_data(old.dtype, &old.dims, data);
                self.contents.push((scope.clone(), *id, tensor));
                return Ok(());
            }
        }
        for (site, unit) in sites.iter().zip(group) {
            let graph = graph_at(model, &site.scope);
            let producer = graph.producer(site.output);
            let span = unit.sites[0].methods.first().map(|method| method.span);
            let (Some(producer), Some(span)) = (producer, span) else {
                continue;
            };
            if !site.scope.0.is_empty() {
                let why = "its bias changes, and the module lies in a subgraph";
                let diagnostic = errors::cannot_merge_into(span, &site.path, why);
                return Err(sink.emit(diagnostic.excerpt(excerpt(model, site))));
            }
            let mut dims = vec![bias.added.len() as i64];
            if site.kind == SiteKind::Conv {
                let rank = rows::kernel(graph, site).map_or(2, |dims| dims.len());
                dims.resize(rank - 1, 1);
            }
            let tensor = Tensor::from_raw(site.dtype, &dims, encoded(&bias.added, site.dtype));
            let name = format!("{}.bias.merged", site.path);
            self.sums.push((producer, site.output, name, tensor));
        }
        Ok(())
    }

    /// Changes the graph.
    pub fn apply(self, model: &mut Model) {
        let opset = model.opset("").unwrap_or(1);
        for (scope, value, tensor) in self.contents {
            at_scope(&mut model.graph, &scope.0, &mut |graph| {
                graph.replace_elements(value, tensor.clone());
            });
        }
        let mut emitter = Emitter::new(opset);
        let mut made: BTreeMap<String, Operand> = BTreeMap::new();
        for (node, operand, name, tensor) in self.operands {
            let constant = *made
                .entry(name.clone())
                .or_insert_with(|| emitter.patch.constant(&name, tensor));
            exchange(&mut emitter.patch, &model.graph, (node, operand), constant);
        }
        for (producer, output, name, tensor) in self.sums {
            let constant = emitter.patch.constant(&name, tensor);
            emitter.scope = name;
            emitter.patch.behind(producer);
            let ty = model.graph.value(output).ty.clone();
            let operands = [Operand::Original(output), constant];
            let sum = emitter.typed("Add", &operands, Vec::new(), ty);
            emitter.patch.replace_uses(output, sum);
        }
        if !emitter.patch.is_empty() {
            model
                .graph
                .apply(emitter.patch)
                .unwrap_or_else(|why| unreachable!("a planned patch fits its graph: {why}"));
        }
    }
}

/// The node once more with another constant in place of one operand; its results stay.
fn exchange(patch: &mut Patch, graph: &Graph, (id, operand): (NodeId, ValueId), new: Operand) {
    let node = graph.node(id);
    let inputs = graph.operands(id).into_iter().map(|slot| match slot {
        Some(value) if value == operand => Some(new),
        other => other.map(Operand::Existing),
    });
    let results: Vec<Option<ValueId>> = graph.results(id).into_iter().collect();
    let wishes = results.iter().map(|result| {
        result.map(|id| {
            let value = graph.value(id);
            (value.name.to_string(), value.ty.clone())
        })
    });
    patch.behind(id);
    let copy = crate::graph::NewNode {
        op: node.op.clone(),
        name: node.name.clone(),
        attributes: node.attributes.clone(),
        inputs: inputs.collect(),
        metadata: node.metadata.clone(),
    };
    let made = patch.node_with_some_results(copy, wishes.collect());
    for (old, new) in results.into_iter().zip(made) {
        if let (Some(old), Some(new)) = (old, new) {
            patch.take_over(old, new);
        }
    }
}

/// Edits the graph at the end of a path.
fn at_scope(graph: &mut Graph, path: &[(NodeId, usize, usize)], edit: &mut dyn FnMut(&mut Graph)) {
    match path.split_first() {
        None => edit(graph),
        Some(((node, attribute, index), rest)) => {
            graph.edit_subgraph(*node, *attribute, *index, |body| at_scope(body, rest, edit));
        }
    }
}

/// The graph that holds a value that may be captured, and its id there.
fn origin(model: &Model, scope: &Scope, value: ValueId) -> Option<(Scope, ValueId)> {
    let found = graph_at(model, scope).value(value);
    if !matches!(found.kind, ValueKind::Captured) {
        return Some((scope.clone(), value));
    }
    (0..scope.0.len()).rev().find_map(|depth| {
        let outer = Scope(scope.0[..depth].to_vec());
        let graph = graph_at(model, &outer);
        let id = graph.find_value(&found.name)?;
        (!matches!(graph.value(id).kind, ValueKind::Captured)).then_some((outer, id))
    })
}

/// The nodes that read a value, also in subgraphs, those looked through that only pass it on.
fn readers(model: &Model, scope: &Scope, value: ValueId) -> BTreeSet<(Scope, NodeId)> {
    let mut found = BTreeSet::new();
    let mut open = vec![(scope.clone(), value)];
    while let Some((scope, value)) = open.pop() {
        let graph = graph_at(model, &scope);
        for (node, slot) in graph.uses(value) {
            if slot.is_none() {
                open.extend(captures(graph, &scope, node, &graph.value(value).name));
                continue;
            }
            let op = &graph.node(node).op;
            let passes = ["Transpose", "Identity", "Cast"]
                .iter()
                .any(|name| op.is(name));
            match graph.result(node, 0).filter(|_| passes) {
                Some(result) if !graph.is_output(result) => open.push((scope.clone(), result)),
                _ => {
                    found.insert((scope.clone(), node));
                }
            }
        }
    }
    found
}

/// A value of this name as the subgraphs of a node see it.
fn captures(graph: &Graph, scope: &Scope, node: NodeId, name: &str) -> Vec<(Scope, ValueId)> {
    let attributes = graph.node(node).attributes.iter().enumerate();
    let bodies = attributes.flat_map(|(at, attribute)| {
        let graphs = attribute.value.graphs().iter().enumerate();
        graphs.map(move |(index, body)| (at, index, body))
    });
    bodies
        .filter_map(|(at, index, body)| {
            let id = body.find_value(name)?;
            matches!(body.value(id).kind, ValueKind::Captured).then(|| {
                let mut inner = scope.0.clone();
                inner.push((node, at, index));
                (Scope(inner), id)
            })
        })
        .collect()
}

/// Dims and elements as the node reads them, behind an odd number of transposes or none.
fn as_read(site: &Site, old: &Tensor, weight: &[f64]) -> (Vec<i64>, Vec<f64>) {
    if site.weight.stored == site.weight.layout || old.dims.len() != 2 {
        return (old.dims.clone(), weight.to_vec());
    }
    let (rows, columns) = (old.dims[0] as usize, old.dims[1] as usize);
    let turned = (0..columns).flat_map(|c| (0..rows).map(move |r| r * columns + c));
    let values = turned.map(|at| weight[at]).collect();
    (vec![old.dims[1], old.dims[0]], values)
}

/// The element type of what the node reads: a Cast may lie between.
fn read_type(model: &Model, site: &Site) -> Option<DType> {
    let ty = graph_at(model, &site.scope)
        .value(site.weight.operand)
        .ty
        .as_ref();
    ty.map(|ty| ty.dtype)
}

fn encoded(values: &[f64], dtype: DType) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| encode_float(*value, dtype))
        .collect()
}

fn with_data(dtype: DType, dims: &[i64], data: TensorData) -> Tensor {
    Tensor {
        dtype,
        dims: dims.to_vec(),
        data,
    }
}
