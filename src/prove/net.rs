//! A small model of two modules of one kind, each with an input and an output of its own.

use super::numbers::{made, normal};
use crate::graph::{Attribute, Graph, Model, NewNode, OpName, Operand, Patch, Tensor};
use crate::modules::SiteKind;
use crate::reference::Array;
use crate::ty::{DType, Dim, Shape, TensorType};

/// Samples of an input.
pub(super) const BATCH: usize = 2;
/// Tokens of a sample, where a method asks for no more.
pub(super) const TOKENS: usize = 5;
/// Tokens that a cache holds.
const PAST: usize = 3;
/// Sides of a convolution's kernel.
const KERNEL: i64 = 2;

/// One module of a net.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Size {
    /// As methods count: columns of the weight; rows of an embedding; features of a norm.
    pub input: i64,
    pub output: i64,
    pub has_bias: bool,
}

/// What a method reads beside its module.
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// Modules in a first pass, as it names them.
    pub first_passes: Vec<String>,
    /// Modules that it applies.
    pub applied: Vec<String>,
    /// Whether it reads the query of an attention.
    pub query: bool,
}

/// The kind and the sizes of the modules of a net.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    pub kind: SiteKind,
    pub sizes: Vec<Size>,
    /// Whether outputs are means over a token and those before it: what stands in front of tokens is
    /// seen in what comes behind it.
    pub is_mixed: bool,
    /// Paths of norms of what the first module gives, with means over a token and those before it: for
    /// methods that read modules in a first pass.
    pub behind: Vec<String>,
    /// Whether modules read the result of an attention of their input.
    pub attends: bool,
    /// Paths of linear modules of the same input, which methods apply.
    pub beside: Vec<String>,
}

/// Heads of an attention, where so many divide its size.
const HEADS: i64 = 4;

impl Layout {
    /// Modules that have nothing beside them.
    pub fn of(kind: SiteKind, sizes: Vec<Size>) -> Layout {
        Layout {
            kind,
            sizes,
            is_mixed: false,
            behind: Vec::new(),
            attends: false,
            beside: Vec::new(),
        }
    }

    /// With one module, so that what stands beside it is no other's.
    fn alone(&self) -> Layout {
        Layout {
            sizes: self.sizes[..1].to_vec(),
            ..self.clone()
        }
    }

    /// For a method that puts tokens in front: one module, whose tokens are mixed.
    pub fn mixed(&self) -> Layout {
        Layout {
            is_mixed: true,
            ..self.alone()
        }
    }

    /// For a method that reads this beside its module.
    pub fn with(&self, read: &Read) -> Layout {
        let own = match read.query || !read.applied.is_empty() {
            true => self.alone(),
            false => self.clone(),
        };
        Layout {
            behind: read.first_passes.clone(),
            attends: read.query,
            beside: read.applied.clone(),
            ..own
        }
    }

    pub fn describe(&self) -> String {
        let one = |size: &Size| match self.kind {
            SiteKind::Norm => size.input.to_string(),
            _ => format!("{} × {}", size.input, size.output),
        };
        let all: Vec<String> = self.sizes.iter().map(one).collect();
        all.join(" and ")
    }
}

/// The name of the module at a place.
pub(super) fn path(at: usize) -> String {
    format!("fc{}", at + 1)
}

/// The model, with weights from the seed.
pub(super) fn net(layout: &Layout, seed: u64) -> Result<Model, String> {
    let mut patch = Patch::new();
    patch.front();
    let all = match layout.kind {
        SiteKind::Cache => symbol("past") + symbol("tokens"),
        _ => symbol("tokens"),
    };
    let mask = TensorType::new(DType::I64, Shape(vec![symbol("batch"), all]));
    if has_ids(layout) {
        let each = TensorType::new(DType::I64, Shape(vec![symbol("batch"), symbol("tokens")]));
        patch.input("input_ids", each, None);
    }
    let mask = patch.input("attention_mask", mask, None);
    let mut first = None;
    for (at, size) in layout.sizes.iter().enumerate() {
        if layout.kind == SiteKind::Cache {
            cached(&mut patch, *size, at, mask);
            continue;
        }
        let x = patch.input(
            &format!("x{}", at + 1),
            input_type(layout.kind, *size),
            None,
        );
        // One module that a method with a query applies may be that of queries, keys and values.
        let parts = match layout.beside.as_slice() {
            [_] if layout.attends => 3,
            _ => 1,
        };
        for (number, path) in layout.beside.iter().enumerate() {
            let sizes = [size.input, parts * size.input];
            let made = linear(&mut patch, path, x, sizes, true, seed);
            patch.named_output(made, &format!("beside{}", number + 1));
        }
        let x = match layout.attends {
            true => attended(&mut patch, x, size.input, seed),
            false => x,
        };
        let mut y = module(&mut patch, layout.kind, *size, at, x, seed);
        if layout.is_mixed {
            y = mixed(&mut patch, y, mask);
        }
        patch.named_output(y, &format!("y{}", at + 1));
        first = first.or(Some((y, size.output)));
    }
    if let Some((y, features)) = first {
        for (at, path) in layout.behind.iter().enumerate() {
            let seen = mixed(&mut patch, y, mask);
            let state = norm(&mut patch, path, seen, features, seed);
            patch.named_output(state, &format!("state{}", at + 1));
        }
    }
    let mut graph = Graph::new("net");
    graph.apply(patch)?;
    Ok(Model::new("net.onnx", graph, 9, 20))
}

/// Whether it reads ids beside the inputs of its modules, where those are of tokens alone.
fn has_ids(layout: &Layout) -> bool {
    !layout.is_mixed && layout.kind != SiteKind::Cache
}

fn symbol(name: &str) -> Dim {
    Dim::symbol(name)
}

fn input_type(kind: SiteKind, size: Size) -> TensorType {
    let (batch, tokens) = (symbol("batch"), symbol("tokens"));
    let features = Dim::from(size.input);
    let (dtype, dims) = match kind {
        SiteKind::Embedding => (DType::I64, vec![batch, tokens]),
        SiteKind::Conv => {
            let channels = Dim::from(size.input / (KERNEL * KERNEL));
            (
                DType::F32,
                vec![batch, channels, symbol("height"), symbol("width")],
            )
        }
        _ => (DType::F32, vec![batch, tokens, features]),
    };
    TensorType {
        dtype,
        shape: Some(Shape(dims)),
    }
}

fn module(
    patch: &mut Patch,
    kind: SiteKind,
    size: Size,
    at: usize,
    x: Operand,
    seed: u64,
) -> Operand {
    let path = path(at);
    let scope = format!("/{path}");
    let constant = |patch: &mut Patch, part: &str, dims: &[i64], scale: f64| {
        let name = format!("{path}.{part}");
        let tensor = normal(&name, dims, scale, seed);
        patch.constant(&name, shifted(tensor, kind, part))
    };
    let bias_of = |patch: &mut Patch, features: i64| {
        size.has_bias
            .then(|| constant(patch, "bias", &[features], 0.3))
    };
    let scale = 1.0 / (size.input.max(1) as f64).sqrt();
    let (input, output) = (size.input, size.output);
    match kind {
        SiteKind::Linear => linear(patch, &path, x, [input, output], size.has_bias, seed),
        SiteKind::Conv => {
            let dims = [output, input / (KERNEL * KERNEL), KERNEL, KERNEL];
            let weight = constant(patch, "weight", &dims, scale);
            let operands: Vec<Operand> = [x, weight]
                .into_iter()
                .chain(bias_of(patch, output))
                .collect();
            node(patch, &scope, "Conv", &operands, vec![])
        }
        SiteKind::Embedding => {
            let table = constant(patch, "weight", &[input, output], 0.3);
            node(patch, &scope, "Gather", &[table, x], vec![])
        }
        SiteKind::Cache => unreachable!("a cache computes nothing"),
        SiteKind::Norm => {
            let weight = constant(patch, "weight", &[input], 0.3);
            let operands: Vec<Operand> = [x, weight]
                .into_iter()
                .chain(bias_of(patch, input))
                .collect();
            let epsilon = vec![Attribute::float("epsilon", 1e-5)];
            node(patch, &scope, "LayerNormalization", &operands, epsilon)
        }
    }
}

/// A linear layer under a path.
fn linear(
    patch: &mut Patch,
    path: &str,
    x: Operand,
    [input, output]: [i64; 2],
    has_bias: bool,
    seed: u64,
) -> Operand {
    let scope = format!("/{}", path.replace('.', "/"));
    let constant = |patch: &mut Patch, part: &str, dims: &[i64], scale: f64| {
        let name = format!("{path}.{part}");
        let tensor = normal(&name, dims, scale, seed);
        patch.constant(&name, tensor)
    };
    // Stored as torch does, and turned: a merge has to turn it back.
    let scale = 1.0 / (input.max(1) as f64).sqrt();
    let weight = constant(patch, "weight", &[output, input], scale);
    let order = vec![Attribute::ints("perm", [1, 0])];
    let turned = node(patch, &scope, "Transpose", &[weight], order);
    let product = node(patch, &scope, "MatMul", &[x, turned], vec![]);
    if !has_bias {
        return product;
    }
    let bias = constant(patch, "bias", &[output], 0.3);
    node(patch, &scope, "Add", &[product, bias], vec![])
}

/// An attention in which every token sees itself alone, so that what a method claims of tokens is seen.
/// Keys and values are the input.
fn attended(patch: &mut Patch, x: Operand, size: i64, seed: u64) -> Operand {
    let scope = "/attention";
    let heads = if size % HEADS == 0 { HEADS } else { 1 };
    let q = linear(patch, "q", x, [size; 2], false, seed);
    let target = patch.constant(
        "heads",
        Tensor::from_i64(&[4], &[0, 0, heads, size / heads]),
    );
    let merged = patch.constant("merged", Tensor::from_i64(&[3], &[0, 0, size]));
    let order = |order: [i64; 4]| vec![Attribute::ints("perm", order)];
    let apart = |patch: &mut Patch, value: Operand, to: [i64; 4]| {
        let heads = node(patch, scope, "Reshape", &[value, target], vec![]);
        node(patch, scope, "Transpose", &[heads], order(to))
    };
    let q = apart(patch, q, [0, 2, 1, 3]);
    let k = apart(patch, x, [0, 2, 3, 1]);
    let v = apart(patch, x, [0, 2, 1, 3]);
    let factor = 1.0 / ((size / heads) as f32).sqrt();
    let factor = patch.constant("factor", Tensor::from_f32(&[], &[factor]));
    let scores = node(patch, scope, "MatMul", &[q, k], vec![]);
    let scores = node(patch, scope, "Mul", &[scores, factor], vec![]);
    // The numbers of tokens, as rows and as columns.
    let shape = node(patch, scope, "Shape", &[x], vec![]);
    let one = number(patch, "one token", 1);
    let tokens = node(patch, scope, "Gather", &[shape, one], vec![]);
    let ones = Tensor::from_i64(&[1], &[1]);
    let ones = vec![Attribute::tensor("value", ones)];
    let ones = node(patch, scope, "ConstantOfShape", &[tokens], ones);
    let first = number(patch, "first axis", 0);
    let counted = node(patch, scope, "CumSum", &[ones, first], vec![]);
    let column = node(patch, scope, "Unsqueeze", &[counted, one], vec![]);
    let is_own = node(patch, scope, "Equal", &[counted, column], vec![]);
    let [seen, unseen] = [("seen", 0.0), ("unseen", -1e9)]
        .map(|(name, value)| patch.constant(name, Tensor::from_f32(&[], &[value])));
    let mask = node(patch, scope, "Where", &[is_own, seen, unseen], vec![]);
    let scores = node(patch, scope, "Add", &[scores, mask], vec![]);
    let axis = vec![Attribute::int("axis", -1)];
    let weights = node(patch, scope, "Softmax", &[scores], axis);
    let mixed = node(patch, scope, "MatMul", &[weights, v], vec![]);
    let turned = node(patch, scope, "Transpose", &[mixed], order([0, 2, 1, 3]));
    node(patch, scope, "Reshape", &[turned, merged], vec![])
}

/// A norm under a path of its own.
fn norm(patch: &mut Patch, path: &str, x: Operand, features: i64, seed: u64) -> Operand {
    let name = format!("{path}.weight");
    let weight = normal(&name, &[features], 0.3, seed);
    let weight = patch.constant(&name, shifted(weight, SiteKind::Norm, "weight"));
    let scope = format!("/{}", path.replace('.', "/"));
    let epsilon = vec![Attribute::float("epsilon", 1e-5)];
    node(patch, &scope, "LayerNormalization", &[x, weight], epsilon)
}

/// A cache, the tokens at hand, and these with the mean over both: an output, and so is the cache for the
/// next call.
fn cached(patch: &mut Patch, size: Size, at: usize, mask: Operand) {
    let heads = |tokens: &str| {
        let sizes = [
            Dim::from(size.input),
            symbol(tokens),
            Dim::from(size.output),
        ];
        let dims = std::iter::once(symbol("batch")).chain(sizes);
        TensorType::new(DType::F32, Shape(dims.collect()))
    };
    let past = patch.input(&past(at), heads("past"), None);
    let x = patch.input(&format!("x{}", at + 1), heads("tokens"), None);
    let scope = format!("/cache.{at}");
    let to_float = vec![Attribute::int("to", i64::from(DType::F32.number()))];
    let axes = patch.constant("heads and features", Tensor::from_i64(&[2], &[1, 3]));
    let tokens = number(patch, "tokens", 2);
    let mask = node(patch, &scope, "Cast", &[mask], to_float);
    let mask = node(patch, &scope, "Unsqueeze", &[mask, axes], vec![]);
    let axis = vec![Attribute::int("axis", 2)];
    let joined = node(patch, &scope, "Concat", &[past, x], axis);
    let counted = node(patch, &scope, "Mul", &[joined, mask], vec![]);
    let sums = node(patch, &scope, "ReduceSum", &[counted, tokens], vec![]);
    let count = node(patch, &scope, "ReduceSum", &[mask, tokens], vec![]);
    let mean = node(patch, &scope, "Div", &[sums, count], vec![]);
    let y = node(patch, &scope, "Add", &[x, mean], vec![]);
    patch.named_output(y, &format!("y{}", at + 1));
    patch.named_output(joined, &format!("present.{at}.key"));
}

/// The name of a cache.
fn past(at: usize) -> String {
    format!("past_key_values.{at}.key")
}

fn number(patch: &mut Patch, name: &str, value: i64) -> Operand {
    patch.constant(name, Tensor::from_i64(&[1], &[value]))
}

/// Means over a token and those before it, less those that are padding.
fn mixed(patch: &mut Patch, y: Operand, mask: Operand) -> Operand {
    let scope = "/mixed";
    let (tokens, features) = (number(patch, "tokens", 1), number(patch, "features", -1));
    let to_float = vec![Attribute::int("to", i64::from(DType::F32.number()))];
    let mask = node(patch, scope, "Cast", &[mask], to_float);
    let mask = node(patch, scope, "Unsqueeze", &[mask, features], vec![]);
    let counted = node(patch, scope, "Mul", &[y, mask], vec![]);
    let sums = node(patch, scope, "CumSum", &[counted, tokens], vec![]);
    let count = node(patch, scope, "CumSum", &[mask, tokens], vec![]);
    // The tokens of padding in front have no others.
    let one = patch.constant("one", Tensor::from_f32(&[1], &[1.0]));
    let count = node(patch, scope, "Add", &[count, one], vec![]);
    node(patch, scope, "Div", &[sums, count], vec![])
}

/// The weight of a norm lies around 1.
fn shifted(tensor: Tensor, kind: SiteKind, part: &str) -> Tensor {
    if kind != SiteKind::Norm || part != "weight" {
        return tensor;
    }
    let values = super::numbers::elements(&tensor);
    let values: Vec<f32> = values.iter().map(|v| (1.0 + v) as f32).collect();
    Tensor::from_f32(&tensor.dims, &values)
}

/// A node with one result, named after its operator within a scope.
pub(super) fn node(
    patch: &mut Patch,
    scope: &str,
    op_type: &str,
    inputs: &[Operand],
    attributes: Vec<Attribute>,
) -> Operand {
    let node = NewNode {
        op: OpName::new("", op_type),
        name: format!("{scope}/{op_type}"),
        attributes,
        inputs: inputs.iter().map(|operand| Some(*operand)).collect(),
        metadata: Vec::new(),
    };
    patch.node(node, None)
}

/// Inputs of the net: numbers for every module, a mask without padding, and ids in which the
/// sequences that a method looks for occur.
pub(super) fn inputs(
    layout: &Layout,
    sequences: &[i64],
    seed: u64,
) -> Result<super::numbers::Named, String> {
    let tokens = tokens_with(sequences);
    let earlier = match layout.kind {
        SiteKind::Cache => PAST,
        _ => 0,
    };
    let mut all = vec![("attention_mask".to_owned(), ones(BATCH, earlier + tokens)?)];
    if has_ids(layout) {
        all.push(("input_ids".to_owned(), ids(sequences, tokens)?));
    }
    for (at, size) in layout.sizes.iter().enumerate() {
        let name = format!("x{}", at + 1);
        let given = values(layout.kind, *size, tokens, &name, seed)?;
        all.push((name, given));
        if layout.kind == SiteKind::Cache {
            let dims = [BATCH, size.input as usize, PAST, size.output as usize];
            let sizes: Vec<i64> = dims.iter().map(|d| *d as i64).collect();
            let held = super::numbers::elements(&normal(&past(at), &sizes, 1.0, seed));
            all.push((past(at), made(DType::F32, &dims, held)?));
        }
    }
    Ok(all)
}

/// So many that the sequences occur twice.
pub(super) fn tokens_with(sequences: &[i64]) -> usize {
    TOKENS.max(2 * sequences.len() + 1)
}

/// One row that ends a token behind the second occurrence, and one that starts a token in front of
/// the only one.
fn ids(sequences: &[i64], tokens: usize) -> Result<Array, String> {
    let other = (0..).find(|id| !sequences.contains(id)).unwrap_or_default();
    let mut rows = vec![other; BATCH * tokens];
    let count = sequences.len();
    for start in [0, tokens - 1 - count, tokens + 1] {
        rows[start..start + count].copy_from_slice(sequences);
    }
    let rows = rows.into_iter().map(|id| id as f64).collect();
    made(DType::I64, &[BATCH, tokens], rows)
}

pub(super) fn ones(batch: usize, tokens: usize) -> Result<Array, String> {
    made(DType::I64, &[batch, tokens], vec![1.0; batch * tokens])
}

fn values(
    kind: SiteKind,
    size: Size,
    tokens: usize,
    name: &str,
    seed: u64,
) -> Result<Array, String> {
    let (batch, tokens) = (BATCH as i64, tokens as i64);
    let dims = match kind {
        SiteKind::Embedding => vec![batch, tokens],
        SiteKind::Conv => {
            let side = 3;
            vec![batch, size.input / (KERNEL * KERNEL), side, side]
        }
        SiteKind::Cache => vec![batch, size.input, tokens, size.output],
        _ => vec![batch, tokens, size.input],
    };
    let drawn = super::numbers::elements(&normal(name, &dims, 1.0, seed));
    let dims: Vec<usize> = dims.iter().map(|d| *d as usize).collect();
    if kind == SiteKind::Embedding {
        let rows = size.input as f64;
        let ids = drawn
            .iter()
            .map(|v| (v.abs() * 1e4).floor() % rows)
            .collect();
        return made(DType::I64, &dims, ids);
    }
    made(DType::F32, &dims, drawn)
}
