//! What leads back from the probabilities of a softmax: their gradient from that of the result,
//! `p (dp - Σ p dp)`, and its products with keys and queries.

use super::super::node::Form;
use super::Back;
use super::matching::{Matching, Readers, Root, Scores};
use crate::graph::{NodeId, ValueId};
use crate::kernels::Op;
use crate::kernels::attention::{Gradient, Keys};

impl Matching<'_> {
    /// What leads back, and the values that it reads; `None` where somebody else reads probabilities.
    pub fn backward(
        &self,
        scores: &Scores,
        readers: &Readers,
    ) -> Option<Option<(Back, Option<ValueId>)>> {
        let graph = self.graph;
        let mut results = Vec::new();
        let mut of_result = None;
        let mut others = Vec::new();
        for (node, slot) in &readers.found {
            let op = &graph.node(*node).op;
            match slot {
                0 if op.is("MatMul") => {}
                0 if self.is_exchange(*node) => {
                    let (product, slot) = self.only_reader(graph.result(*node, 0)?)?;
                    let is_product = slot == 0 && graph.node(product).op.is("MatMul");
                    let given = graph.operand(product, 1).filter(|_| is_product)?;
                    if of_result.replace(given).is_some() {
                        return None;
                    }
                    results.push((Gradient::Values, graph.result(product, 0)?));
                }
                _ if op.is("Mul") => others.push(*node),
                _ => return None,
            }
        }
        let mut inner = None;
        let mut values = None;
        if !others.is_empty() {
            let of_scores = self.of_scores(&others)?;
            let (given, transposed) = self.product(of_scores.of_probabilities)?;
            if of_result.is_some_and(|other| other != given) {
                return None;
            }
            of_result = Some(given);
            values = Some(self.exchanged(transposed)?);
            inner = of_scores.inner;
            results.extend(self.behind_scores(scores, of_scores.found)?);
        }
        let Some(of_result) = of_result else {
            return Some(None);
        };
        let back = Back {
            of_result,
            inner,
            results,
        };
        Some(Some((back, values)))
    }

    /// The gradient of scores from the products of probabilities with something.
    fn of_scores(&self, products: &[NodeId]) -> Option<OfScores> {
        let graph = self.graph;
        let other = |node: NodeId| {
            // The other operand than the probabilities: one is computed from gradients.
            let sides = [graph.operand(node, 0)?, graph.operand(node, 1)?];
            sides.into_iter().find_map(|side| {
                let side = self.unchosen(side);
                let of = graph.producer(side)?;
                let op = &graph.node(of).op;
                ["Sub", "MatMul", "ReduceSum"]
                    .iter()
                    .any(|name| op.is(name))
                    .then_some((side, of))
            })
        };
        match *products {
            // p (dp - inner).
            [product] => {
                let (_, difference) = other(product)?;
                let inner = graph.operand(difference, 1)?;
                graph.node(difference).op.is("Sub").then_some(OfScores {
                    of_probabilities: self.unchosen(graph.operand(difference, 0)?),
                    inner: Some(inner),
                    found: graph.result(product, 0)?,
                })
            }
            // p dp - p Σ p dp.
            [a, b] => {
                let is_product = |node: NodeId| {
                    other(node).is_some_and(|(_, of)| graph.node(of).op.is("MatMul"))
                };
                let (weighted, stretched) = if is_product(a) { (a, b) } else { (b, a) };
                let (of_probabilities, product) = other(weighted)?;
                let (_, sum) = other(stretched)?;
                let weighted = graph.result(weighted, 0)?;
                let is_sum = self.reader.form(sum, graph.node(sum)) == Some(Form::Step(Op::Sum));
                let difference = graph.uses(weighted).into_iter().find_map(|(node, slot)| {
                    let is_difference = slot == Some(0) && graph.node(node).op.is("Sub");
                    is_difference.then_some(node)
                })?;
                let fits = graph.node(product).op.is("MatMul")
                    && is_sum
                    && graph.operand(sum, 0) == Some(weighted)
                    && graph.use_count(weighted) == 2
                    && graph.operand(difference, 1) == graph.result(stretched, 0);
                fits.then_some(OfScores {
                    of_probabilities,
                    inner: None,
                    found: graph.result(difference, 0)?,
                })
            }
            _ => None,
        }
    }

    /// Gradients of queries and keys.
    fn behind_scores(
        &self,
        scores: &Scores,
        of_scores: ValueId,
    ) -> Option<Vec<(Gradient, ValueId)>> {
        let graph = self.graph;
        let mut found = Vec::new();
        let of_product = match scores.scale {
            1.0 => of_scores,
            scale => {
                let (node, _) = self.only_reader(of_scores)?;
                let result = graph.result(node, 0)?;
                let (of, factor) = self.scaled(result)?;
                (of == of_scores && factor == scale).then_some(result)?
            }
        };
        if graph.is_output(of_product) {
            return None;
        }
        let keys = match scores.keys {
            (keys, Keys::Rows) => self.root(keys),
            (keys, Keys::Columns) => turned(self.root(keys)),
        };
        for (node, slot) in graph.uses(of_product) {
            let op = &graph.node(node).op;
            let result = graph.result(node, 0)?;
            match slot? {
                0 if op.is("MatMul") => {
                    let other = self.root(graph.operand(node, 1)?);
                    (other == keys).then(|| found.push((Gradient::Queries, result)))?;
                }
                1 if op.is("MatMul") => {
                    let other = self.root(graph.operand(node, 0)?);
                    (other == turned(self.root(scores.queries))).then_some(())?;
                    found.push(self.turned_gradient(result));
                }
                0 if self.is_exchange(node) => {
                    let (product, slot) = self.only_reader(result)?;
                    let other = self.root(graph.operand(product, 1)?);
                    let is_product = slot == 0 && graph.node(product).op.is("MatMul");
                    (is_product && other == self.root(scores.queries)).then_some(())?;
                    found.push((Gradient::Keys(Keys::Rows), graph.result(product, 0)?));
                }
                _ => return None,
            }
        }
        let count = |of: fn(&Gradient) -> bool| found.iter().filter(|(g, _)| of(g)).count();
        let is_once = count(|g| *g == Gradient::Queries) <= 1
            && count(|g| matches!(g, Gradient::Keys(_))) <= 1;
        is_once.then_some(found)
    }

    /// A gradient of keys `[.., width, keys]`, or what it is next with these axes exchanged.
    fn turned_gradient(&self, gradient: ValueId) -> (Gradient, ValueId) {
        let next = self.only_reader(gradient);
        let next = next.filter(|(node, _)| self.is_exchange(*node));
        let rows = next.and_then(|(node, _)| self.graph.result(node, 0));
        match rows {
            Some(rows) => (Gradient::Keys(Keys::Rows), rows),
            None => (Gradient::Keys(Keys::Columns), gradient),
        }
    }
}

/// The gradient of scores, and what it is computed from.
struct OfScores {
    /// The gradient of the probabilities.
    of_probabilities: ValueId,
    inner: Option<ValueId>,
    found: ValueId,
}

fn turned(root: Root) -> Root {
    (root.0, !root.1)
}
