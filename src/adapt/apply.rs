//! Lowers a plan into one patch for every graph that it touches, and applies the patches.

use super::beside::Applied;
use super::errors;
use super::first_pass::Passes;
use super::lower::{Bindings, Lowering, Once, TokenInputs, UNREAD};
use super::plan::{Plan, PlannedSite};
use super::prepend;
use super::starts::{Starts, start_values};
use crate::diag::{Reported, Sink};
use crate::graph::{Attribute, Graph, Model, NodeId, Operand, Tensor, ValueId};
use crate::hir::TermKind;
use crate::modules::{Modules, Scope, Site, SiteKind};
use crate::ops::Emitter;
use std::collections::BTreeMap;
use std::ops::Range;

/// What a model file holds, in bytes; protobuf reads no more.
const LARGEST: u64 = i32::MAX as u64;

/// What has been added to the model.
#[derive(Debug)]
pub struct Adapted {
    /// The adapter's tensors, in the order of [`Plan::parameters`].
    pub tensors: Vec<NewTensor>,
}

/// One tensor of the adapter with its start value.
#[derive(Clone, Debug)]
pub struct NewTensor {
    /// Its name in the safetensors file and, unless that was taken, in the model.
    pub name: String,
    /// The initializer of the model that holds it.
    pub initializer: String,
    pub tensor: Tensor,
    pub trainable: bool,
}

/// The graph of a scope.
pub(super) fn graph_at<'m>(model: &'m Model, scope: &Scope) -> &'m Graph {
    scope
        .0
        .iter()
        .fold(&model.graph, |graph, (node, attribute, index)| {
            &graph.node(*node).attributes[*attribute].value.graphs()[*index]
        })
}

/// Changes the model as planned.
pub fn apply(
    plan: &Plan,
    model: &mut Model,
    modules: &Modules,
    starts: &Starts<'_>,
    sink: &mut Sink,
) -> Result<Adapted, Reported> {
    check_size(plan, sink)?;
    let values = start_values(plan, model, modules, starts, sink)?;
    let parameters = plan.parameters.iter().zip(values);
    let tensors = parameters.map(|(parameter, tensor)| NewTensor {
        name: parameter.name.clone(),
        initializer: parameter.name.clone(),
        tensor,
        trainable: parameter.trainable,
    });
    let mut tensors: Vec<NewTensor> = tensors.collect();
    let placeholders = prepend::around(plan, model, modules);
    let opset = model.opset("").unwrap_or(1);
    let mut scopes: BTreeMap<&Scope, Vec<&PlannedSite>> = BTreeMap::new();
    for site in &plan.sites {
        scopes
            .entry(&modules.sites[site.site].scope)
            .or_default()
            .push(site);
    }
    // The top graph first: bodies capture the tensors that it then holds.
    let top = Scope::default();
    let mut emitter = Emitter::new(opset);
    let parameters: Vec<Operand> = tensors
        .iter()
        .map(|t| emitter.patch.constant(&t.name, t.tensor.clone()))
        .collect();
    let first = match parameters.first() {
        Some(Operand::New(index)) => *index as usize,
        _ => 0,
    };
    let inputs = [model.token_ids(), model.padding_mask()];
    if let Some(sites) = scopes.get(&top) {
        lower_sites(
            &mut emitter,
            &model.graph,
            sites,
            modules,
            &parameters,
            TokenInputs::new(inputs.map(|id| {
                let id = id?;
                Some((
                    Operand::Existing(id),
                    model.graph.value(id).ty.as_ref()?.dtype,
                ))
            })),
        );
    }
    let applied = model
        .graph
        .apply(emitter.patch)
        .unwrap_or_else(|why| unreachable!("a planned patch fits its graph: {why}"));
    for (index, tensor) in tensors.iter_mut().enumerate() {
        tensor.initializer = model
            .graph
            .value(applied.values[first + index])
            .name
            .to_string();
    }
    for (scope, sites) in scopes {
        if *scope != top {
            apply_in_body(model, scope, &sites, modules, &tensors, inputs, opset);
        }
    }
    if let Some(placeholders) = placeholders {
        placeholders.apply(model);
    }
    Ok(Adapted { tensors })
}

/// Lowers all sites of one graph, members of one fused projection together.
fn lower_sites(
    emitter: &mut Emitter,
    graph: &Graph,
    sites: &[&PlannedSite],
    modules: &Modules,
    parameters: &[Operand],
    mut tokens: TokenInputs,
) {
    for planned in sites {
        for method in &planned.methods {
            let dtype = modules.sites[planned.site].dtype;
            tokens.prepare(emitter, &method.instance.forward, dtype);
        }
    }
    let passes = Passes::emit(emitter, graph, sites, modules);
    let once = &Once::new(tokens, passes, Applied::of(sites, modules));
    let mut outputs: Vec<(ValueId, Vec<&PlannedSite>)> = Vec::new();
    for planned in sites {
        let output = modules.sites[planned.site].output;
        match outputs.iter_mut().find(|(value, _)| *value == output) {
            Some((_, members)) => members.push(planned),
            None => outputs.push((output, vec![planned])),
        }
    }
    for (output, members) in outputs {
        let first = &modules.sites[members[0].site];
        match first.kind {
            SiteKind::Cache => emitter.patch.front(),
            _ => emitter.patch.behind(anchor(graph, first)),
        };
        let whole = members
            .iter()
            .all(|p| range_of(p, &modules.sites[p.site]).is_none());
        let result = if whole && members.len() == 1 {
            lower_one(
                emitter,
                graph,
                members[0],
                first,
                Operand::Original(output),
                None,
                parameters,
                once,
            )
        } else {
            lower_members(emitter, graph, output, &members, modules, parameters, once)
        };
        if first.kind == SiteKind::Cache {
            // An input stays what it is for those who give it.
            for (node, slot) in graph.uses(output) {
                let slot = slot.expect("no body reads a cache that is adapted");
                emitter.patch.redirect(node, slot, result);
            }
        } else {
            emitter.patch.replace_uses(output, result);
        }
    }
}

/// New nodes stand behind the node that computes the site's output.
fn anchor(graph: &Graph, site: &Site) -> NodeId {
    graph.producer(site.output).unwrap_or(site.node)
}

/// The part of the node's output that a planned site changes: the module's own part of a fused
/// projection, less what a pattern's slice leaves out.
pub(super) fn range_of(planned: &PlannedSite, site: &Site) -> Option<Range<i64>> {
    match (&site.slice, &planned.slice) {
        (None, None) => None,
        (Some(own), None) => Some(own.clone()),
        (None, Some(part)) => Some(part.clone()),
        (Some(own), Some(part)) => Some(own.start + part.start..own.start + part.end),
    }
}

/// Members of one output: every part is computed from its own slice, and the parts are joined.
fn lower_members(
    emitter: &mut Emitter,
    graph: &Graph,
    output: ValueId,
    members: &[&PlannedSite],
    modules: &Modules,
    parameters: &[Operand],
    once: &Once<'_>,
) -> Operand {
    let mut parts: Vec<(Range<i64>, &PlannedSite)> = members
        .iter()
        .map(|p| {
            let site = &modules.sites[p.site];
            (range_of(p, site).unwrap_or(0..site.out_features), *p)
        })
        .collect();
    parts.sort_by_key(|(range, _)| range.start);
    let mut pieces = Vec::new();
    let mut at = 0;
    emitter.scope = format!("{}/peftc", graph.value(output).name);
    for (range, planned) in parts {
        if range.start > at {
            pieces.push(emitter.slice(Operand::Original(output), -1, at, range.start));
        }
        let base = emitter.slice(Operand::Original(output), -1, range.start, range.end);
        let site = &modules.sites[planned.site];
        pieces.push(lower_one(
            emitter,
            graph,
            planned,
            site,
            base,
            Some(range.clone()),
            parameters,
            once,
        ));
        at = range.end;
    }
    let total = last_dim(graph, output);
    if total.is_none_or(|total| at < total) {
        pieces.push(emitter.slice(Operand::Original(output), -1, at, i64::MAX));
    }
    emitter.scope = format!("{}/peftc", graph.value(output).name);
    let ty = graph.value(output).ty.clone();
    emitter.typed("Concat", &pieces, vec![Attribute::int("axis", -1)], ty)
}

fn last_dim(graph: &Graph, value: ValueId) -> Option<i64> {
    graph
        .value(value)
        .ty
        .as_ref()?
        .shape
        .as_ref()?
        .0
        .last()?
        .known()
}

/// All methods of one site, each on the result of the one before.
#[expect(
    clippy::too_many_arguments,
    reason = "the values that a site's formulas speak of"
)]
fn lower_one(
    emitter: &mut Emitter,
    graph: &Graph,
    planned: &PlannedSite,
    site: &Site,
    base: Operand,
    slice: Option<Range<i64>>,
    parameters: &[Operand],
    once: &Once<'_>,
) -> Operand {
    let mut output = base;
    for method in &planned.methods {
        emitter.scope = format!("{}/{}", site.path, method.name);
        let bindings = Bindings {
            input: Operand::Existing(site.input),
            output,
            slice: slice.as_ref().map(|s| (s.start, s.end)),
            once: Some(once),
            parameters: method
                .parameters
                .iter()
                .map(|index| parameters[*index])
                .collect(),
            shared: method.instance.params.iter().map(|p| p.shared).collect(),
            gradients: Vec::new(),
            before: Vec::new(),
            states: Vec::new(),
            step: None,
            draws: BTreeMap::new(),
        };
        output = Lowering::new(emitter, graph, site, bindings, &method.instance.forward).run();
    }
    output
}

/// The tensors of an adapter are written into the model's file, and none is made for nothing.
fn check_size(plan: &Plan, sink: &mut Sink) -> Result<(), Reported> {
    let largest = plan.parameters.iter().max_by_key(|p| p.elements());
    match largest {
        Some(largest) if plan.bytes() > LARGEST => {
            let diagnostic = errors::adapter_too_large(plan, largest, LARGEST);
            Err(sink.emit(diagnostic))
        }
        _ => Ok(()),
    }
}

/// Adapts the sites of one subgraph; the tensors stay in the top graph and are captured.
fn apply_in_body(
    model: &mut Model,
    scope: &Scope,
    sites: &[&PlannedSite],
    modules: &Modules,
    tensors: &[NewTensor],
    inputs: [Option<ValueId>; 2],
    opset: i64,
) {
    let body = graph_at(model, scope);
    let mut emitter = Emitter::new(opset);
    let mut captured: Vec<ValueId> = Vec::new();
    let mut parameters = Vec::with_capacity(tensors.len());
    let used: std::collections::BTreeSet<usize> = sites
        .iter()
        .flat_map(|p| p.methods.iter().flat_map(|m| m.parameters.iter().copied()))
        .collect();
    for (index, tensor) in tensors.iter().enumerate() {
        if used.contains(&index) {
            captured.push(
                model
                    .graph
                    .find_value(&tensor.initializer)
                    .expect("the top graph holds it"),
            );
            parameters.push(
                emitter
                    .patch
                    .capture(&tensor.initializer, Some(tensor.tensor.ty())),
            );
        } else {
            // The index keeps its place.
            parameters.push(UNREAD);
        }
    }
    let uses = |test: fn(&TermKind) -> bool| {
        let mut methods = sites.iter().flat_map(|site| &site.methods);
        methods.any(|method| method.instance.forward.uses(test))
    };
    let [ids, mask] = inputs;
    let read = [
        ids.filter(|_| uses(TermKind::reads_ids)),
        mask.filter(|_| uses(TermKind::reads_mask)),
    ];
    let tokens = TokenInputs::new(read.map(|id| {
        let id = id?;
        captured.push(id);
        let value = model.graph.value(id);
        let input = emitter.patch.capture(&value.name, value.ty.clone());
        Some((input, value.ty.as_ref()?.dtype))
    }));
    lower_sites(&mut emitter, body, sites, modules, &parameters, tokens);
    let names: Vec<String> = captured
        .iter()
        .map(|id| model.graph.value(*id).name.to_string())
        .collect();
    edit_body(&mut model.graph, &scope.0, &names, emitter);
}

/// Applies the patch at the end of the path and links the captured names at every level above.
fn edit_body(
    graph: &mut Graph,
    path: &[(NodeId, usize, usize)],
    names: &[String],
    emitter: Emitter,
) {
    let Some(((node, attribute, index), rest)) = path.split_first() else {
        graph
            .apply(emitter.patch)
            .unwrap_or_else(|why| unreachable!("a planned patch fits its graph: {why}"));
        return;
    };
    graph.edit_subgraph(*node, *attribute, *index, |body| {
        if !rest.is_empty() {
            for name in names {
                body.capture_value(name);
            }
        }
        edit_body(body, rest, names, emitter);
    });
    for name in names {
        let value = graph
            .find_value(name)
            .expect("captured names exist at every level");
        graph.add_capture(*node, value);
    }
}
