//! What belongs to a softmax.
//!
//! Looked for is what exporters and gradient rules write: a product of queries and keys, scaled or not, a
//! mask added or not; probabilities, those that are no number as zeros or not; their product with values.
//! What leads back is `back`'s. All readers of the probabilities have to be among these, because probabilities
//! are in no memory afterwards.

use super::super::node::{Form, Reader, same};
use super::Attention;
use crate::graph::{Graph, NodeId, ValueId};
use crate::kernels::Op;
use crate::kernels::attention::Keys;
use crate::ty::{DType, Dim};

pub(super) fn attention(reader: &Reader<'_>, softmax: NodeId) -> Option<Attention> {
    let graph = reader.graph;
    let node = graph.node(softmax);
    let is_softmax = reader.form(softmax, node)? == Form::Step(Op::Softmax);
    let probabilities = graph.result(softmax, 0)?;
    if !is_softmax || !node.op.is("Softmax") || !reader.is(probabilities, DType::F32) {
        return None;
    }
    let matching = Matching {
        reader,
        graph,
        probabilities,
    };
    let scores = matching.scores(graph.operand(softmax, 0)?)?;
    let whole = reader.dims(probabilities)?;
    same(reader.dims(scores.product)?, whole).then_some(())?;
    let readers = matching.readers(probabilities)?;
    let (result, of_result) = matching.forward(&readers)?.unzip();
    let back = matching.backward(&scores, &readers)?;
    let values = match (of_result, back.as_ref().and_then(|(_, values)| *values)) {
        (Some(values), None) => values,
        (None, Some(values)) => values,
        (Some(values), Some(other)) => {
            (matching.root(values) == matching.root(other)).then_some(values)?
        }
        (None, None) => return None,
    };
    let found = Attention {
        softmax,
        scale: scores.scale,
        queries: scores.queries,
        keys: scores.keys,
        values,
        mask: scores.mask,
        guards: readers.guards,
        result,
        back: back.map(|(back, _)| back),
    };
    matching.fits(&found).then_some(found)
}

pub(super) struct Matching<'m> {
    pub reader: &'m Reader<'m>,
    pub graph: &'m Graph,
    /// What the softmax gives.
    probabilities: ValueId,
}

/// `scale · q kᵀ + mask`.
pub(super) struct Scores {
    /// `q kᵀ`.
    product: ValueId,
    pub scale: f32,
    pub queries: ValueId,
    pub keys: (ValueId, Keys),
    mask: Option<ValueId>,
}

/// Who reads probabilities, whatever they are called.
pub(super) struct Readers {
    pub found: Vec<(NodeId, usize)>,
    guards: bool,
}

/// A value as another one with the last two axes exchanged, or not.
pub(super) type Root = (ValueId, bool);

impl Matching<'_> {
    fn scores(&self, softmax_of: ValueId) -> Option<Scores> {
        let graph = self.graph;
        let mut value = self.uncast(softmax_of);
        let mut mask = None;
        let node = graph.producer(value)?;
        if graph.node(node).op.is("Add") {
            let sides = [graph.operand(node, 0)?, graph.operand(node, 1)?];
            let at = sides.iter().position(|side| self.is_scores(*side))?;
            mask = Some(sides[1 - at]).filter(|mask| self.reader.is(*mask, DType::F32));
            mask?;
            value = self.uncast(sides[at]);
        }
        let (value, scale) = self.unscaled(value)?;
        let product = graph.producer(value)?;
        if !graph.node(product).op.is("MatMul") {
            return None;
        }
        let keys = graph.operand(product, 1)?;
        Some(Scores {
            product: value,
            scale,
            queries: graph.operand(product, 0)?,
            keys: match self.exchanged(keys) {
                Some(rows) => (rows, Keys::Rows),
                None => (keys, Keys::Columns),
            },
            mask,
        })
    }

    fn is_scores(&self, value: ValueId) -> bool {
        let product = self.unscaled(self.uncast(value));
        let product = product.and_then(|(value, _)| self.graph.producer(value));
        product.is_some_and(|node| self.graph.node(node).op.is("MatMul"))
    }

    /// Without a factor, and the factor. Values on the way have one reader.
    fn unscaled(&self, value: ValueId) -> Option<(ValueId, f32)> {
        let graph = self.graph;
        if !self.has_one_reader(value) {
            return None;
        }
        let op = &graph.node(graph.producer(value)?).op;
        if !op.is("Mul") && !op.is("Div") {
            return Some((value, 1.0));
        }
        let (of, scale) = self.scaled(value)?;
        let of = self.uncast(of);
        self.has_one_reader(of).then_some((of, scale))
    }

    fn has_one_reader(&self, value: ValueId) -> bool {
        self.graph.use_count(value) == 1 && !self.graph.is_output(value)
    }

    /// Everybody who reads probabilities, behind casts that change nothing and what makes zeros of those
    /// that are no number.
    fn readers(&self, probabilities: ValueId) -> Option<Readers> {
        let graph = self.graph;
        let mut found = Vec::new();
        let mut guarded = Vec::new();
        let mut open = vec![probabilities];
        while let Some(value) = open.pop() {
            if graph.is_output(value) {
                return None;
            }
            for (node, slot) in graph.uses(value) {
                let op = &graph.node(node).op;
                match slot? {
                    0 if op.is("Cast") && self.reader.is(graph.result(node, 0)?, DType::F32) => {
                        open.push(graph.result(node, 0)?);
                    }
                    0 if op.is("IsNaN") => self.asks(graph.result(node, 0)?)?,
                    2 if self.is_guard(node) => guarded.push(graph.result(node, 0)?),
                    slot => found.push((node, slot)),
                }
            }
        }
        let guards = !guarded.is_empty();
        if guards && (!found.is_empty() || guarded.len() > 1) {
            return None;
        }
        for value in guarded {
            let behind = self.readers(value)?;
            found = behind.found;
            if behind.guards {
                return None;
            }
        }
        Some(Readers { found, guards })
    }

    /// Whether what is no number is only asked for by [`Matching::is_guard`] and by the same choice among
    /// gradients, which are multiplied with that zero next.
    fn asks(&self, is_nan: ValueId) -> Option<()> {
        let zeros = |(node, slot): &(NodeId, Option<usize>)| *slot == Some(0) && self.zeros(*node);
        (!self.graph.is_output(is_nan) && self.graph.uses(is_nan).iter().all(zeros)).then_some(())
    }

    /// `where(.., 0, ..)`.
    fn zeros(&self, node: NodeId) -> bool {
        let chosen = self.graph.operand(node, 1);
        let is_zero = chosen.and_then(|value| self.reader.number(value)) == Some(0.0);
        self.graph.node(node).op.is("Where") && is_zero
    }

    /// `where(isnan(p), 0, p)`.
    fn is_guard(&self, node: NodeId) -> bool {
        let graph = self.graph;
        let asked = || {
            let asks = graph.producer(graph.operand(node, 0)?)?;
            let of = self.uncast(graph.operand(asks, 0)?);
            let own = self.uncast(graph.operand(node, 2)?);
            (graph.node(asks).op.is("IsNaN") && of == own).then_some(())
        };
        self.zeros(node) && asked().is_some()
    }

    /// The result and the values, if probabilities have a product with these; `None` for several.
    fn forward(&self, readers: &Readers) -> Option<Option<(ValueId, ValueId)>> {
        let graph = self.graph;
        let mut products = readers.found.iter();
        let mut products = products
            .by_ref()
            .filter(|(node, slot)| *slot == 0 && graph.node(*node).op.is("MatMul"));
        let Some((product, _)) = products.next() else {
            return Some(None);
        };
        let found = (graph.result(*product, 0)?, graph.operand(*product, 1)?);
        products.next().is_none().then_some(Some(found))
    }

    /// Whether sizes are shown to go together: a kernel stretches nothing but the mask.
    fn fits(&self, found: &Attention) -> bool {
        let lead = |value: ValueId| -> Option<&[Dim]> {
            let dims = self.reader.dims(value)?;
            let is_float = self.reader.is(value, DType::F32);
            dims.len()
                .checked_sub(2)
                .filter(|_| is_float)
                .map(|lead| &dims[..lead])
        };
        let own = lead(found.queries);
        let has_lead = |value: ValueId| match (own, lead(value)) {
            (Some(own), Some(lead)) => same(own, lead),
            _ => false,
        };
        let given = found.back.iter().flat_map(|back| {
            let inner = back.inner.iter().copied();
            inner.chain([back.of_result])
        });
        let inner = found.back.as_ref().and_then(|back| back.inner);
        let is_sum = inner.is_none_or(|inner| {
            let (dims, queries) = (self.reader.dims(inner), self.reader.dims(found.queries));
            match (dims, queries) {
                (Some([lead @ .., last]), Some([whole @ .., _])) => {
                    same(lead, whole) && last.known() == Some(1)
                }
                _ => false,
            }
        });
        let all = [found.queries, found.keys.0, found.values]
            .into_iter()
            .chain(given);
        all.into_iter().all(has_lead) && is_sum && self.mask_fits(found)
    }

    /// Whether a mask has no axis more than scores.
    fn mask_fits(&self, found: &Attention) -> bool {
        let Some(mask) = found.mask else {
            return true;
        };
        match (self.reader.dims(mask), self.reader.dims(found.queries)) {
            (Some(mask), Some(queries)) => mask.len() <= queries.len(),
            _ => false,
        }
    }

    pub fn product(&self, value: ValueId) -> Option<(ValueId, ValueId)> {
        let node = self.graph.producer(value)?;
        let is_product = self.graph.node(node).op.is("MatMul");
        let operands = (self.graph.operand(node, 0)?, self.graph.operand(node, 1)?);
        is_product.then_some(operands)
    }

    /// What a value is a multiple of, and which.
    pub fn scaled(&self, value: ValueId) -> Option<(ValueId, f32)> {
        let graph = self.graph;
        let node = graph.producer(value)?;
        let [a, b] = [graph.operand(node, 0)?, graph.operand(node, 1)?];
        let op = &graph.node(node).op;
        match (self.reader.number(a), self.reader.number(b)) {
            (None, Some(number)) if op.is("Mul") => Some((a, number as f32)),
            (None, Some(number)) if op.is("Div") => Some((a, 1.0 / number as f32)),
            (Some(number), None) if op.is("Mul") => Some((b, number as f32)),
            _ => None,
        }
    }

    pub fn only_reader(&self, value: ValueId) -> Option<(NodeId, usize)> {
        let (node, slot) = self.graph.sole_use(value)?;
        slot.filter(|_| !self.graph.is_output(value))
            .map(|slot| (node, slot))
    }

    /// In front of casts that change nothing.
    fn uncast(&self, value: ValueId) -> ValueId {
        let mut value = value;
        while let Some(node) = self.graph.producer(value) {
            let before = self.graph.operand(node, 0);
            match before.filter(|_| self.graph.node(node).op.is("Cast")) {
                Some(before)
                    if self.reader.is(before, DType::F32) && self.reader.is(value, DType::F32) =>
                {
                    value = before;
                }
                _ => break,
            }
        }
        value
    }

    /// In front of casts that change nothing, and of zeros where a probability is no number.
    pub fn unchosen(&self, value: ValueId) -> ValueId {
        let graph = self.graph;
        let value = self.uncast(value);
        let of = || {
            let node = graph.producer(value)?;
            let condition = graph.producer(graph.operand(node, 0)?)?;
            let asked = self.uncast(graph.operand(condition, 0)?);
            let asks = self.zeros(node)
                && graph.node(condition).op.is("IsNaN")
                && asked == self.probabilities;
            asks.then(|| graph.operand(node, 2)).flatten()
        };
        of().map_or(value, |of| self.uncast(of))
    }

    pub fn is_exchange(&self, node: NodeId) -> bool {
        let graph = self.graph;
        let perm = graph.node(node).ints("perm").unwrap_or_default();
        let Some(lead) = perm.len().checked_sub(2) else {
            return false;
        };
        let exchanged = (0..lead).chain([lead + 1, lead]);
        graph.node(node).op.is("Transpose") && perm.iter().map(|axis| *axis as usize).eq(exchanged)
    }

    /// The value that this one is with its last two axes exchanged.
    pub fn exchanged(&self, value: ValueId) -> Option<ValueId> {
        let node = self.graph.producer(value)?;
        self.is_exchange(node)
            .then(|| self.graph.operand(node, 0))
            .flatten()
    }

    pub fn root(&self, value: ValueId) -> Root {
        let mut root = (value, false);
        while let Some(before) = self.exchanged(root.0) {
            root = (before, !root.1);
        }
        root
    }
}
