//! What a linear layer does in its block, from structure alone: the last resort where names are gone.
//!
//! Every value has sources: the layers that it is computed from without another layer in between.
//! A softmax between two products of computed values is an attention; the layers that the products
//! read are its query, key and value, and the layer that reads its result is its output. A product
//! of two layers of which one passes an activation is a gate. What does not look exactly like this
//! has no role: an answer is never a guess, and it is used only where a spec asks for a role.

use super::site::{Modules, NameSource, Site, SiteKind};
use crate::graph::{Graph, Model, NodeId, ValueId};
use rustc_hash::{FxHashMap, FxHashSet};

/// What a layer does in its block; the word of `role(…)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Q,
    K,
    V,
    /// Behind the attention.
    O,
    Gate,
    Up,
    Down,
    /// In front of an activation.
    Fc1,
    /// Behind it.
    Fc2,
    /// Computes the model's first output.
    Head,
}

impl Role {
    pub const ALL: &'static [Role] = &[
        Role::Q,
        Role::K,
        Role::V,
        Role::O,
        Role::Gate,
        Role::Up,
        Role::Down,
        Role::Fc1,
        Role::Fc2,
        Role::Head,
    ];

    /// The word of the language.
    pub fn name(self) -> &'static str {
        match self {
            Role::Q => "q",
            Role::K => "k",
            Role::V => "v",
            Role::O => "o",
            Role::Gate => "gate",
            Role::Up => "up",
            Role::Down => "down",
            Role::Fc1 => "fc1",
            Role::Fc2 => "fc2",
            Role::Head => "head",
        }
    }

    pub fn parse(name: &str) -> Option<Role> {
        Role::ALL.iter().copied().find(|role| role.name() == name)
    }
}

/// A role with the number of its block, counted in the order of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub role: Role,
    pub block: usize,
}

impl Place {
    /// The path of a site that has no other: `attention.0.q`, `mlp.3.up`, `head`.
    pub fn path(self) -> String {
        let name = self.role.name();
        match self.role {
            Role::Q | Role::K | Role::V | Role::O => format!("attention.{}.{name}", self.block),
            Role::Head => name.to_owned(),
            _ => format!("mlp.{}.{name}", self.block),
        }
    }
}

/// A layer as far as roles go.
pub(super) struct Layer {
    pub kind: SiteKind,
    pub input: ValueId,
    pub output: ValueId,
    /// Whether its output holds several modules.
    pub fused: bool,
}

impl Layer {
    fn of(site: &Site) -> Layer {
        Layer {
            kind: site.kind,
            input: site.input,
            output: site.output,
            fused: site.slice.is_some(),
        }
    }
}

impl Modules {
    /// Fills in what every site of the top graph does in its block, where structure tells.
    pub fn find_roles(&mut self, model: &Model) {
        let mut sites: Vec<&mut Site> = self.sites.iter_mut().chain(&mut self.unnamed).collect();
        sites.retain(|site| site.scope.0.is_empty());
        let layers: Vec<Layer> = sites.iter().map(|site| Layer::of(site)).collect();
        for (site, place) in sites.into_iter().zip(find(&model.graph, &layers)) {
            site.place = place;
        }
    }

    /// Finds roles, and gives every unnamed site that has one a path by it.
    pub fn name_by_role(&mut self, model: &Model) {
        self.find_roles(model);
        let with_role = |site: &mut Site| site.place.is_some();
        for mut site in self.unnamed.extract_if(.., with_role) {
            site.path = site.place.map(Place::path).unwrap_or_default();
            site.source = NameSource::Role;
            self.sites.push(site);
        }
        let order = model.graph.order().unwrap_or_default();
        let position: FxHashMap<NodeId, usize> = order.into_iter().zip(0..).collect();
        let outermost = |site: &Site| site.scope.0.first().map_or(site.node, |step| step.0);
        self.sites
            .sort_by_key(|site| position.get(&outermost(site)).copied());
    }
}

/// The roles of the layers of one graph.
pub(super) fn find(graph: &Graph, layers: &[Layer]) -> Vec<Option<Place>> {
    let Ok(order) = graph.order() else {
        return vec![None; layers.len()];
    };
    let flow = Flow::new(graph, layers, &order);
    let mut search = Search {
        graph,
        layers,
        flow: &flow,
        found: vec![None; layers.len()],
        doubted: vec![false; layers.len()],
    };
    search.attention(&order);
    search.gates(&order);
    search.head();
    search.pairs();
    let doubted = search.doubted;
    let found = search.found.into_iter().zip(doubted);
    found
        .map(|(place, doubted)| place.filter(|_| !doubted))
        .collect()
}

/// More sources than any value of a block has: the residual stream.
const MANY: usize = 6;

/// Activations of feed-forward blocks. The softmax of an attention is none.
const ACTIVATIONS: &[&str] = &[
    "Relu",
    "Gelu",
    "FastGelu",
    "QuickGelu",
    "BiasGelu",
    "Sigmoid",
    "Erf",
    "Tanh",
    "Silu",
    "Swish",
    "HardSwish",
    "HardSigmoid",
    "Elu",
    "LeakyRelu",
    "Mish",
    "Softplus",
];

/// What a value is computed from.
#[derive(Clone, Debug, Default)]
struct Sources {
    /// Layers in order; `None` for more than [`MANY`].
    layers: Option<Vec<usize>>,
    /// Whether an activation lies between.
    activated: bool,
}

struct Flow {
    of: FxHashMap<ValueId, Sources>,
}

impl Flow {
    fn new(graph: &Graph, layers: &[Layer], order: &[NodeId]) -> Flow {
        let mut own: FxHashMap<ValueId, usize> = FxHashMap::default();
        for (index, layer) in layers.iter().enumerate() {
            if layer.kind != SiteKind::Norm {
                own.entry(layer.output).or_insert(index);
            }
        }
        let mut flow = Flow {
            of: FxHashMap::default(),
        };
        for node in order {
            let activates = ACTIVATIONS
                .iter()
                .any(|op| *graph.node(*node).op.op_type == **op);
            let mut read = graph.operands(*node);
            read.extend(graph.captures(*node).into_iter().map(Some));
            // Sizes and types say nothing of what lies in a tensor.
            match &*graph.node(*node).op.op_type {
                "Shape" | "Size" => read.clear(),
                "CastLike" => read.truncate(1),
                _ => {}
            }
            let joined = flow.joined(read.into_iter().flatten(), activates);
            for result in graph.results(*node).into_iter().flatten() {
                let sources = match own.get(&result) {
                    Some(index) => Sources {
                        layers: Some(vec![*index]),
                        activated: false,
                    },
                    None => joined.clone(),
                };
                flow.of.insert(result, sources);
            }
        }
        flow
    }

    fn joined(&self, read: impl Iterator<Item = ValueId>, activates: bool) -> Sources {
        let mut layers: Option<Vec<usize>> = Some(Vec::new());
        let mut activated = false;
        for sources in read.filter_map(|value| self.of.get(&value)) {
            activated |= sources.activated;
            layers = match (layers, &sources.layers) {
                (Some(mut all), Some(more)) => {
                    all.extend(more);
                    all.sort_unstable();
                    all.dedup();
                    (all.len() <= MANY).then_some(all)
                }
                _ => None,
            };
        }
        let computed = layers.as_ref().is_none_or(|layers| !layers.is_empty());
        Sources {
            activated: computed && (activated || activates),
            layers,
        }
    }

    fn layers(&self, value: ValueId) -> &[usize] {
        let sources = self.of.get(&value);
        sources.and_then(|s| s.layers.as_deref()).unwrap_or(&[])
    }

    /// Whether any layer has a part in the value.
    fn is_computed(&self, value: ValueId) -> bool {
        let sources = self.of.get(&value).map(|sources| &sources.layers);
        sources.is_some_and(|layers| layers.as_ref().is_none_or(|layers| !layers.is_empty()))
    }

    fn is_activated(&self, value: ValueId) -> bool {
        self.of.get(&value).is_some_and(|s| s.activated)
    }
}

struct Search<'a> {
    graph: &'a Graph,
    layers: &'a [Layer],
    flow: &'a Flow,
    found: Vec<Option<Place>>,
    /// Layers that look like two things.
    doubted: Vec<bool>,
}

/// Operators between a product of queries and keys and its softmax.
pub(super) const BEFORE_SOFTMAX: &[&str] = &[
    "Mul",
    "Div",
    "Add",
    "Sub",
    "Where",
    "Cast",
    "Reshape",
    "Transpose",
    "Unsqueeze",
    "Squeeze",
    "Max",
    "Identity",
    "Tanh",
    "Expand",
];
/// Operators between a softmax and its product with the values.
pub(super) const BEHIND_SOFTMAX: &[&str] = &[
    "Cast",
    "Where",
    "Dropout",
    "Reshape",
    "Transpose",
    "Identity",
    "Unsqueeze",
    "Squeeze",
    "IsNaN",
];
/// Operators that are a whole attention: query, key and value are their first operands.
const ATTENTIONS: &[&str] = &["GroupQueryAttention", "MultiHeadAttention", "Attention"];
/// Nodes between a softmax and the products at its sides.
pub(super) const LONGEST_WAY: usize = 12;

impl Search<'_> {
    /// The only layer that a value comes from.
    fn only(&self, value: ValueId) -> Option<usize> {
        match self.flow.layers(value) {
            [one] => Some(*one),
            _ => None,
        }
    }

    /// The only layer that a value comes from, if it is a linear one of its own.
    fn single(&self, value: ValueId) -> Option<usize> {
        self.only(value).filter(|layer| self.is_plain(*layer))
    }

    fn is_plain(&self, layer: usize) -> bool {
        self.layers[layer].kind == SiteKind::Linear && !self.layers[layer].fused
    }

    fn assign(&mut self, layer: usize, role: Role, block: usize) {
        let place = Place { role, block };
        match self.found[layer] {
            Some(other) if other.role != role => self.doubted[layer] = true,
            Some(_) => {}
            None => self.found[layer] = Some(place),
        }
    }

    fn attention(&mut self, order: &[NodeId]) {
        let mut block = 0;
        for node in order {
            let sides = match &*self.graph.node(*node).op.op_type {
                "Softmax" => self.around_softmax(*node),
                op if ATTENTIONS.contains(&op) => self.operands_of_attention(*node),
                _ => None,
            };
            let Some(sides) = sides else {
                continue;
            };
            self.around(sides, block);
            block += 1;
        }
    }

    /// Query, key and value are three layers of their own, or one that is all three.
    fn around(&mut self, sides: [ValueId; 3], block: usize) {
        let [Some(q), Some(k), Some(v)] = sides.map(|value| self.only(value)) else {
            return;
        };
        if q == k && k == v {
            self.outputs([q, k, v], block);
        } else if q != k && k != v && q != v && [q, k, v].into_iter().all(|l| self.is_plain(l)) {
            self.assign(q, Role::Q, block);
            self.assign(k, Role::K, block);
            self.assign(v, Role::V, block);
            self.outputs([q, k, v], block);
        }
    }

    /// The layers that read the attention of these three and of nothing else.
    fn outputs(&mut self, attention: [usize; 3], block: usize) {
        for at in 0..self.layers.len() {
            let read = self.flow.layers(self.layers[at].input);
            let linear = |layer: &usize| self.layers[*layer].kind == SiteKind::Linear;
            let inside = read
                .iter()
                .filter(|l| linear(l))
                .all(|l| attention.contains(l));
            if self.is_plain(at) && inside && read.contains(&attention[2]) {
                self.assign(at, Role::O, block);
            }
        }
    }

    fn operands_of_attention(&self, node: NodeId) -> Option<[ValueId; 3]> {
        let operand = |slot| self.graph.operand(node, slot);
        let query = operand(0)?;
        match (operand(1), operand(2)) {
            (Some(key), Some(value)) => Some([query, key, value]),
            // Packed into one.
            (None, None) => Some([query; 3]),
            _ => None,
        }
    }

    fn around_softmax(&self, softmax: NodeId) -> Option<[ValueId; 3]> {
        let scores = self.product_before(self.graph.operand(softmax, 0)?)?;
        let mixed = self.product_behind(self.graph.result(softmax, 0)?)?;
        let operand = |node, slot| self.graph.operand(node, slot);
        Some([operand(scores, 0)?, operand(scores, 1)?, operand(mixed, 1)?])
    }

    /// A product of two computed values.
    fn is_product(&self, node: NodeId) -> bool {
        let op = &*self.graph.node(node).op.op_type;
        let computed = |slot| {
            let operand = self.graph.operand(node, slot);
            operand.is_some_and(|value| self.flow.is_computed(value))
        };
        matches!(op, "MatMul" | "FusedMatMul") && computed(0) && computed(1)
    }

    /// The only product that a softmax's operand comes from.
    fn product_before(&self, value: ValueId) -> Option<NodeId> {
        let mut products: FxHashSet<NodeId> = FxHashSet::default();
        let mut left = vec![(value, 0)];
        while let Some((value, steps)) = left.pop() {
            let Some(node) = self.graph.producer(value) else {
                continue;
            };
            if self.is_product(node) {
                products.insert(node);
            } else if steps < LONGEST_WAY
                && BEFORE_SOFTMAX
                    .iter()
                    .any(|op| self.graph.node(node).op.is(op))
            {
                let operands = self.graph.operands(node).into_iter().flatten();
                let computed = operands.filter(|value| self.flow.is_computed(*value));
                left.extend(computed.map(|value| (value, steps + 1)));
            }
        }
        let mut products = products.into_iter();
        products.next().filter(|_| products.next().is_none())
    }

    /// The only product that reads a softmax's result as its left operand.
    fn product_behind(&self, value: ValueId) -> Option<NodeId> {
        let mut products: FxHashSet<NodeId> = FxHashSet::default();
        let mut left = vec![(value, 0)];
        while let Some((value, steps)) = left.pop() {
            for (node, slot) in self.graph.uses(value) {
                if self.is_product(node) && slot == Some(0) {
                    products.insert(node);
                } else if steps < LONGEST_WAY
                    && BEHIND_SOFTMAX
                        .iter()
                        .any(|op| self.graph.node(node).op.is(op))
                {
                    let results = self.graph.results(node).into_iter().flatten();
                    left.extend(results.map(|value| (value, steps + 1)));
                }
            }
        }
        let mut products = products.into_iter();
        products.next().filter(|_| products.next().is_none())
    }

    fn gates(&mut self, order: &[NodeId]) {
        let mut block = 0;
        for node in order
            .iter()
            .filter(|node| self.graph.node(**node).op.is("Mul"))
        {
            let (Some(a), Some(b)) = (self.graph.operand(*node, 0), self.graph.operand(*node, 1))
            else {
                continue;
            };
            let (Some(left), Some(right)) = (self.single(a), self.single(b)) else {
                continue;
            };
            let (gate, up) = match (self.flow.is_activated(a), self.flow.is_activated(b)) {
                (true, false) => (left, right),
                (false, true) => (right, left),
                _ => continue,
            };
            if gate == up {
                continue;
            }
            self.assign(gate, Role::Gate, block);
            self.assign(up, Role::Up, block);
            let mut pair = [gate, up];
            pair.sort_unstable();
            for at in 0..self.layers.len() {
                if self.is_plain(at) && self.flow.layers(self.layers[at].input) == pair {
                    self.assign(at, Role::Down, block);
                }
            }
            block += 1;
        }
    }

    fn head(&mut self) {
        let output = self.graph.outputs().first();
        if let Some(head) = output.and_then(|value| self.single(*value))
            && self.found[head].is_none()
        {
            self.assign(head, Role::Head, 0);
        }
    }

    /// Two layers with an activation between them, neither of which is anything else.
    fn pairs(&mut self) {
        let mut block = 0;
        for at in 0..self.layers.len() {
            let input = self.layers[at].input;
            let Some(first) = self.single(input) else {
                continue;
            };
            let free = self.found[first].is_none() && self.found[at].is_none();
            if free && self.is_plain(at) && first != at && self.flow.is_activated(input) {
                self.assign(first, Role::Fc1, block);
                self.assign(at, Role::Fc2, block);
                block += 1;
            }
        }
    }
}
