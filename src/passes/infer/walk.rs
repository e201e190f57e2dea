//! The walk over one graph, operands before users.

use super::findings::Findings;
use super::merge::{Conflict, merge};
use super::symbols::Symbols;
use crate::diag::Severity;
use crate::graph::{Graph, NodeId, ValueId, ValueKind};
use crate::ops::{Infer, InferCx, Known, Mismatch, OpDef, OperandFacts, find};
use crate::passes::errors;
use crate::ty::TensorType;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// How much is written down in expressions at most, in factors (see `Dim::size`); a model that
/// makes more is not followed further. Real models stay below a hundredth.
const EXPRESSION_BUDGET: usize = 1 << 21;

/// What is known of a value: elements of shape arithmetic, by value.
pub(super) type KnownValues = FxHashMap<ValueId, Known>;

/// What a graph knows from outside.
pub(super) struct Scope {
    /// Types of captured values, by name.
    pub types: FxHashMap<std::sync::Arc<str>, TensorType>,
    /// Elements of captured values, by name.
    pub known: FxHashMap<std::sync::Arc<str>, Known>,
    /// Types of the graph's inputs, where the owner tells them; the graph's own statement else.
    pub inputs: Vec<Option<TensorType>>,
    /// How many subgraphs deep the graph lies.
    pub depth: usize,
}

impl Scope {
    pub(super) fn top() -> Self {
        Scope {
            types: FxHashMap::default(),
            known: FxHashMap::default(),
            inputs: Vec::new(),
            depth: 0,
        }
    }
}

pub(super) struct Walk<'m, 'f> {
    opsets: &'m [(String, i64)],
    pub(super) findings: &'f mut Findings<'m>,
    pub(super) symbols: Symbols,
    /// What is left of [`EXPRESSION_BUDGET`].
    budget: usize,
}

/// What the rule and the fold say of one node, by result slot.
#[derive(Default)]
pub(super) struct Results {
    pub types: Vec<Option<TensorType>>,
    pub known: Vec<Option<Known>>,
}

impl<'m, 'f> Walk<'m, 'f> {
    pub(super) fn new(opsets: &'m [(String, i64)], findings: &'f mut Findings<'m>) -> Self {
        Walk {
            opsets,
            findings,
            symbols: Symbols::default(),
            budget: EXPRESSION_BUDGET,
        }
    }

    /// Types every value of a graph and returns the elements that could be followed.
    pub(super) fn graph(&mut self, graph: &mut Graph, scope: Scope) -> KnownValues {
        let mut known = self.start(graph, &scope);
        // A cycle has been refused at import; a graph that has one is left untyped.
        let Ok(order) = graph.order() else {
            return known;
        };
        for node in order {
            self.node(graph, node, &mut known, scope.depth);
        }
        known
    }

    /// Types the values that no node computes.
    fn start(&mut self, graph: &mut Graph, scope: &Scope) -> KnownValues {
        let mut known = KnownValues::default();
        for (index, id) in graph.inputs().to_vec().into_iter().enumerate() {
            let value = graph.value(id);
            let given = scope.inputs.get(index).cloned().flatten();
            let stated = value.ty.as_ref();
            let ty = match (given, stated) {
                (Some(given), Some(stated)) => Some(merge(stated, given).0),
                (Some(given), None) => Some(given),
                (None, Some(stated)) => Some(self.symbols.own(&value.name, stated)),
                (None, None) => value.tensor().map(crate::graph::Tensor::ty),
            };
            if let Some(ty) = ty {
                graph.set_type(id, ty);
            }
        }
        if scope.depth == 0 {
            return known;
        }
        let captured: Vec<ValueId> = graph
            .value_ids()
            .filter(|id| matches!(graph.value(*id).kind, ValueKind::Captured))
            .collect();
        for id in captured {
            let name = graph.value(id).name.clone();
            if let Some(ty) = scope.types.get(&name) {
                graph.set_type(id, ty.clone());
            }
            if let Some(elements) = scope.known.get(&name) {
                known.insert(id, elements.clone());
            }
        }
        known
    }

    fn node(&mut self, graph: &mut Graph, id: NodeId, known: &mut KnownValues, depth: usize) {
        let node = graph.node(id);
        let opset = self.opset(&node.op.domain);
        let results = match find(&node.op.domain, &node.op.op_type, opset) {
            None => Results::default(),
            Some(OpDef {
                infer: Infer::Bodies(control),
                ..
            }) => self.bodies(graph, id, *control, known, depth),
            Some(definition) => match self.rule(graph, id, definition, opset, known) {
                Ok(results) => results,
                Err(mismatch) => {
                    self.findings.add(Severity::Warning, |model| {
                        errors::operands_do_not_fit(model, graph, id, &mismatch)
                    });
                    Results::default()
                }
            },
        };
        self.store(graph, id, results, known);
    }

    fn opset(&self, domain: &str) -> i64 {
        let domain = if domain == "ai.onnx" { "" } else { domain };
        self.opsets
            .iter()
            .find(|(name, _)| name == domain)
            .map_or(1, |(_, version)| *version)
    }

    /// Applies an operator's rule and its fold.
    fn rule(
        &mut self,
        graph: &Graph,
        id: NodeId,
        definition: &OpDef,
        opset: i64,
        known: &KnownValues,
    ) -> Result<Results, Mismatch> {
        let operands = graph.operands(id);
        if !definition.operands.allows(operands.len()) {
            return Err(Mismatch(format!("{} operands", operands.len())));
        }
        let facts: SmallVec<[Option<OperandFacts<'_>>; 6]> = operands
            .into_iter()
            .map(|operand| {
                operand.map(|operand| {
                    let value = graph.value(operand);
                    OperandFacts {
                        ty: value.ty.as_ref(),
                        constant: value.constant(),
                        known: known.get(&operand),
                    }
                })
            })
            .collect();
        let symbols = &mut self.symbols;
        let mut fresh = |result: usize, axis: usize| {
            let value = graph.result(id, result);
            let name = value.map_or("", |value| &*graph.value(value).name);
            symbols.open(name, axis)
        };
        let attributes = &graph.node(id).attributes;
        let results = graph.result_count(id);
        let mut cx = InferCx::new(opset, attributes, &facts, results, &mut fresh);
        if let Infer::Rule(infer) = definition.infer {
            infer(&mut cx)?;
        }
        if let Some(fold) = definition.fold
            && self.budget > 0
        {
            // A value that cannot be followed is no failure.
            let _ = fold(&mut cx);
        }
        let (types, known) = cx.finish();
        Ok(Results { types, known })
    }

    /// Merges what was inferred with what is stated and stores it.
    pub(super) fn store(
        &mut self,
        graph: &mut Graph,
        id: NodeId,
        results: Results,
        known: &mut KnownValues,
    ) {
        let mut types = results.types.into_iter();
        let mut elements = results.known.into_iter();
        for value in graph.results(id) {
            let inferred = types.next().flatten();
            let found = elements.next().flatten();
            let Some(value) = value else {
                continue;
            };
            if let Some(found) = found {
                self.spend(found.elements.iter().filter_map(|element| element.int()));
                known.insert(value, found);
            }
            if let Some(ty) = self.settle(graph, id, value, inferred) {
                self.spend(ty.shape.iter().flat_map(|shape| &shape.0));
                graph.set_type(value, ty);
            }
        }
    }

    /// Counts what is written down in expressions.
    fn spend<D: std::borrow::Borrow<crate::ty::Dim>>(&mut self, dims: impl Iterator<Item = D>) {
        let spent: usize = dims.map(|dim| dim.borrow().size()).sum();
        self.budget = self.budget.saturating_sub(spent);
    }

    /// The type with every expression replaced by an open symbol of its own.
    fn simplify(&mut self, name: &str, mut ty: TensorType) -> TensorType {
        for (axis, dim) in ty
            .shape
            .iter_mut()
            .flat_map(|shape| &mut shape.0)
            .enumerate()
        {
            if dim.known().is_none() && dim.as_symbol().is_none() {
                *dim = self.symbols.open(name, axis);
            }
        }
        ty
    }

    /// The type of a result, unless it stays as it is.
    fn settle(
        &mut self,
        graph: &Graph,
        id: NodeId,
        value: ValueId,
        inferred: Option<TensorType>,
    ) -> Option<TensorType> {
        let name = &graph.value(value).name;
        let inferred = inferred.map(|ty| {
            if self.budget > 0 {
                ty
            } else {
                self.simplify(name, ty)
            }
        });
        match (&graph.value(value).ty, inferred) {
            (None, inferred) => inferred,
            (Some(stated), None) => Some(self.symbols.own(name, stated)),
            (Some(stated), Some(inferred)) => {
                let (merged, conflict) = merge(stated, inferred.clone());
                match conflict {
                    None => {}
                    Some(Conflict::ElementType) => self.findings.add(Severity::Error, |model| {
                        errors::element_types_contradict(model, graph, id, name, stated, &inferred)
                    }),
                    // Inside the graph nobody reads the statement; exporters leave stale ones.
                    Some(Conflict::Shape) if !graph.is_output(value) => {}
                    Some(Conflict::Shape) => self.findings.add(Severity::Warning, |model| {
                        errors::shapes_contradict(model, graph, id, name, stated, &inferred)
                    }),
                }
                Some(merged)
            }
        }
    }
}
