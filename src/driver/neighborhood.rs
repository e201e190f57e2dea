//! The part of a graph around a module, before and after an adapter.

use super::session::{Loaded, Planned, Session};
use crate::adapt::{self, Starts};
use crate::diag::{Reported, Sink, Span, Spanned};
use crate::graph::{ExternalData, Graph, Model, NodeId, Tensor, TensorData, ValueId, ValueKind};
use crate::modules::Site;
use crate::passes;
use crate::ty::DType;
use std::collections::{BTreeMap, BTreeSet};

/// What is drawn of one graph, in a topological order.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    pub items: Vec<Item>,
    /// From item to item, by index.
    pub wires: Vec<(usize, usize)>,
}

/// A node, or an end of the drawn part.
#[derive(Clone, Debug)]
pub struct Item {
    pub kind: ItemKind,
    /// The operator; what an end leads to or comes from.
    pub title: String,
    /// Names and types of what is no wire: the node, its constants, readers that are not drawn.
    pub lines: Vec<(String, Origin)>,
    /// Types of the results.
    pub results: Vec<String>,
    /// The node in text form.
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemKind {
    Node,
    /// The node of the module itself.
    Site,
    Inserted,
    End,
}

/// Whether the base has something, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Base,
    Adapter,
}

/// A module with its surroundings.
#[derive(Clone, Debug)]
pub struct Neighborhood {
    pub path: String,
    /// How many sites the pattern names; one is drawn.
    pub matched: usize,
    pub base: Picture,
    /// Without an adapter there is none.
    pub adapted: Option<Picture>,
    /// Methods at the site; empty where the adapter leaves it alone.
    pub methods: Vec<String>,
}

/// How far the drawing reaches.
#[derive(Clone, Copy, Debug)]
pub struct Reach {
    /// Nodes upwards from the module's input and downwards from its output.
    pub hops: usize,
}

/// Nodes in one direction at most: a value that everything reads is no surroundings.
const MOST: usize = 12;

impl Session<'_> {
    /// Looks at the first site that `pattern` names, of those that the plan adapts if there are any.
    pub fn neighborhood(
        &mut self,
        loaded: &Loaded,
        planned: Option<&Planned>,
        pattern: &str,
        reach: Reach,
    ) -> Result<Neighborhood, Reported> {
        let file = self.sources.add("--site", pattern);
        let text = Spanned {
            node: pattern.to_owned(),
            span: Span::new(file, 0, pattern.len()),
        };
        let matched = adapt::sites_named(text, &loaded.modules, self.sink)?;
        let at_site = |index: usize| {
            let sites = planned.iter().flat_map(|planned| &planned.plan.sites);
            sites.filter(move |planned| planned.site == index)
        };
        let is_adapted = |index: &&usize| at_site(**index).next().is_some();
        let drawn = matched.iter().find(is_adapted).or(matched.first());
        let drawn = *drawn.expect("a pattern that names nothing is an error");
        let site = &loaded.modules.sites[drawn];
        let base = site.scope.graph(&loaded.model);
        let adapted = match planned {
            Some(planned) => Some(self.adapted(loaded, planned, site)?),
            None => None,
        };
        let methods = at_site(drawn).flat_map(|planned| &planned.methods);
        Ok(Neighborhood {
            path: site.path.clone(),
            matched: matched.len(),
            base: Painter::new(base, base, site, reach).paint(),
            adapted: adapted
                .map(|model| Painter::new(site.scope.graph(&model), base, site, reach).paint()),
            methods: methods.map(|method| method.name.clone()).collect(),
        })
    }

    /// The model with the site adapted; its parameters have types and no values.
    fn adapted(
        &mut self,
        loaded: &Loaded,
        planned: &Planned,
        site: &Site,
    ) -> Result<Model, Reported> {
        let sites = &loaded.modules.sites;
        let mut plan = planned.plan.clone();
        plan.sites.retain(|planned| {
            let other = &sites[planned.site];
            other.output == site.output && other.scope == site.scope
        });
        let parameters = plan.parameters.iter();
        let values: BTreeMap<String, Tensor> = parameters
            .map(|parameter| (parameter.name.clone(), without_values(&parameter.dims)))
            .collect();
        let mut model = loaded.model.clone();
        let reader =
            |_: &Tensor, _: &mut Sink| unreachable!("every parameter has its value already");
        let starts = Starts::new(0, &reader, &values);
        adapt::apply(&plan, &mut model, &loaded.modules, &starts, self.sink)?;
        // Types of the new values; what the model itself has wrong has been said already.
        let _ = passes::infer(&mut model, &mut Sink::new());
        Ok(model)
    }
}

/// A parameter that is somewhere else: a drawing shows its type only.
pub(super) fn without_values(dims: &[i64]) -> Tensor {
    let size = |dim: &i64| u64::try_from(*dim).unwrap_or(0);
    let elements = dims.iter().map(size).fold(1, u64::saturating_mul);
    Tensor {
        dtype: DType::F32,
        dims: dims.to_vec(),
        data: TensorData::External(ExternalData {
            location: String::new(),
            offset: 0,
            length: elements.saturating_mul(4),
        }),
    }
}

/// Paints the nodes near a site of one graph.
struct Painter<'a> {
    graph: &'a Graph,
    site: &'a Site,
    base_nodes: BTreeSet<NodeId>,
    base_values: BTreeSet<ValueId>,
    drawn: BTreeSet<NodeId>,
    picture: Picture,
    /// The item of a drawn node, and of a value that comes from elsewhere.
    of_node: BTreeMap<NodeId, usize>,
    of_value: BTreeMap<ValueId, usize>,
}

impl<'a> Painter<'a> {
    /// `graph` is `base` or what an adapter has made of it: ids of the base are valid in both.
    fn new(graph: &'a Graph, base: &'a Graph, site: &'a Site, reach: Reach) -> Self {
        let mut painter = Painter {
            graph,
            site,
            base_nodes: base.node_ids().collect(),
            base_values: base.value_ids().collect(),
            drawn: BTreeSet::new(),
            picture: Picture::default(),
            of_node: BTreeMap::new(),
            of_value: BTreeMap::new(),
        };
        painter.drawn.insert(site.node);
        painter.module();
        painter.surroundings(base, reach);
        // The name stays with what readers read: in the adapted graph another value.
        if let Some(public) = graph.find_value(&base.value(site.output).name) {
            painter.inserted(public);
        }
        painter
    }

    /// What lies between the module's input, its weight and its output.
    fn module(&mut self) {
        let mut open = vec![self.site.output];
        while let Some(value) = open.pop() {
            if value == self.site.input || self.drawn.len() > MOST {
                continue;
            }
            let Some(node) = self.producer(value) else {
                continue;
            };
            self.drawn.insert(node);
            let before_it = node == self.site.node && value != self.site.output;
            if !before_it {
                open.extend(self.operands(node));
            }
        }
    }

    /// Nodes a few hops up and down, as the base has them.
    fn surroundings(&mut self, base: &Graph, reach: Reach) {
        let producers = |value: ValueId| base.producer(value).into_iter().collect::<Vec<_>>();
        let operands = |node: NodeId| base.operands(node).into_iter().flatten().collect();
        self.walk(reach, self.site.input, &producers, &operands);
        let readers = |value: ValueId| base.uses(value).into_iter().map(|(node, _)| node).collect();
        let results = |node: NodeId| base.results(node).into_iter().flatten().collect();
        self.walk(reach, self.site.output, &readers, &results);
    }

    fn walk(
        &mut self,
        reach: Reach,
        start: ValueId,
        nodes: &dyn Fn(ValueId) -> Vec<NodeId>,
        values: &dyn Fn(NodeId) -> Vec<ValueId>,
    ) {
        let mut frontier = vec![start];
        let mut count = 0;
        for _ in 0..reach.hops {
            let mut next = Vec::new();
            for value in frontier {
                for node in nodes(value) {
                    if self.is_constant_node(node) || count >= MOST || !self.drawn.insert(node) {
                        continue;
                    }
                    count += 1;
                    next.extend(values(node));
                }
            }
            frontier = next;
        }
    }

    /// Everything new that the value is computed from, less what a first pass computes.
    fn inserted(&mut self, value: ValueId) {
        let mut open = vec![value];
        while let Some(value) = open.pop() {
            let Some(node) = self.producer(value) else {
                continue;
            };
            let is_drawn = !self.base_nodes.contains(&node) && !self.is_first_pass(node);
            if is_drawn && self.drawn.insert(node) {
                open.extend(self.operands(node));
            }
        }
    }

    /// The node that computes the value; a constant has none.
    fn producer(&self, value: ValueId) -> Option<NodeId> {
        let node = self.graph.producer(value)?;
        (!self.is_constant_node(node)).then_some(node)
    }

    fn is_first_pass(&self, node: NodeId) -> bool {
        adapt::is_first_pass(self.graph.node(node))
    }

    fn is_constant_node(&self, node: NodeId) -> bool {
        self.graph.node(node).op.is("Constant")
    }

    fn operands(&self, node: NodeId) -> Vec<ValueId> {
        let operands = self.graph.operands(node).into_iter().flatten();
        let mut found: Vec<ValueId> = operands.chain(self.graph.captures(node)).collect();
        let mut seen = BTreeSet::new();
        found.retain(|value| seen.insert(*value));
        found
    }

    fn paint(mut self) -> Picture {
        let order = self.graph.order().unwrap_or_default();
        let order: Vec<NodeId> = order
            .into_iter()
            .filter(|node| self.drawn.contains(node))
            .collect();
        for node in &order {
            self.node(*node);
        }
        for node in order {
            for value in self.graph.results(node).into_iter().flatten() {
                self.way_out(node, value);
            }
        }
        self.picture
    }

    /// A node behind the ends that it reads.
    fn node(&mut self, id: NodeId) {
        let mut lines = vec![(self.graph.display_name(id), Origin::Base)];
        let mut sources = Vec::new();
        for value in self.operands(id) {
            let drawn = self.producer(value).and_then(|p| self.of_node.get(&p));
            match (drawn, self.constant(value)) {
                (Some(item), _) => sources.push(*item),
                (None, Some(line)) => lines.push(line),
                (None, None) => sources.push(self.way_in(value)),
            }
        }
        let kind = match id {
            _ if id == self.site.node => ItemKind::Site,
            _ if self.base_nodes.contains(&id) => ItemKind::Node,
            _ => ItemKind::Inserted,
        };
        let results: Vec<ValueId> = self.graph.results(id).into_iter().flatten().collect();
        let item = self.push(Item {
            kind,
            title: self.graph.node(id).op.to_string(),
            lines,
            results: results.iter().map(|value| self.ty(*value)).collect(),
            text: self.graph.node_text(id).text,
        });
        self.of_node.insert(id, item);
        sources.sort_unstable();
        sources.dedup();
        for source in sources {
            self.picture.wires.push((source, item));
        }
    }

    fn push(&mut self, item: Item) -> usize {
        self.picture.items.push(item);
        self.picture.items.len() - 1
    }

    /// An initializer, or what is one in all but form, as a line of its reader.
    fn constant(&self, id: ValueId) -> Option<(String, Origin)> {
        let value = self.graph.value(id);
        let from_node = self.graph.producer(id).is_some();
        let is_new = !self.base_values.contains(&id);
        let is_constant = match &value.kind {
            ValueKind::Initializer(_) => true,
            // Outside of this graph: the adapter's tensors lie in the top graph.
            ValueKind::Captured => is_new,
            ValueKind::Computed => from_node,
            ValueKind::Input { .. } => false,
        };
        if !is_constant || (from_node && self.producer(id).is_some()) {
            return None;
        }
        let mut text = format!("{}: {}", value.name, self.ty(id));
        let scalar = value.constant().filter(|tensor| tensor.elements() == 1);
        if let Some([number]) = scalar.and_then(Tensor::to_f64s).as_deref() {
            text.push_str(&format!(" = {number}"));
        }
        let origin = if is_new {
            Origin::Adapter
        } else {
            Origin::Base
        };
        Some((text, origin))
    }

    /// The end that a value from elsewhere comes from.
    fn way_in(&mut self, id: ValueId) -> usize {
        if let Some(item) = self.of_value.get(&id) {
            return *item;
        }
        let value = self.graph.value(id);
        let title = match (self.producer(id), &value.kind) {
            (Some(node), _) if self.is_first_pass(node) => "from the first pass".to_owned(),
            (Some(node), _) => format!("from {}", self.graph.node(node).op),
            (None, ValueKind::Input { .. }) => "input".to_owned(),
            (None, _) => "from the enclosing graph".to_owned(),
        };
        let item = Item {
            kind: ItemKind::End,
            title,
            lines: vec![(value.name.to_string(), Origin::Base)],
            results: vec![self.ty(id)],
            text: String::new(),
        };
        let item = self.push(item);
        self.of_value.insert(id, item);
        item
    }

    /// Readers that are not drawn: an end where there are no others, else a line.
    fn way_out(&mut self, node: NodeId, value: ValueId) {
        let uses = self.graph.uses(value);
        let mut readers: Vec<NodeId> = uses.iter().map(|(reader, _)| *reader).collect();
        readers.dedup();
        let all = readers.len();
        readers.retain(|reader| !self.drawn.contains(reader));
        let item = self.of_node[&node];
        let title = match readers.as_slice() {
            _ if self.graph.is_output(value) => "output".to_owned(),
            [] => return,
            [one] => format!("to {}", self.graph.node(*one).op),
            several => format!("to {} nodes", several.len()),
        };
        if all > readers.len() {
            let line = (format!("also {title}"), Origin::Base);
            self.picture.items[item].lines.push(line);
            return;
        }
        let end = self.push(Item {
            kind: ItemKind::End,
            title,
            lines: vec![(self.graph.value(value).name.to_string(), Origin::Base)],
            results: Vec::new(),
            text: String::new(),
        });
        self.picture.wires.push((item, end));
    }

    fn ty(&self, value: ValueId) -> String {
        let ty = self.graph.value(value).ty.as_ref();
        ty.map_or("?".to_owned(), ToString::to_string)
    }
}
