//! What a call site of a module is.

use super::roles::Place;
use crate::graph::{Graph, Model, NodeId, ValueId};
use crate::ty::DType;
use std::ops::Range;

/// Every site of a model, in graph order.
#[derive(Clone, Debug, Default)]
pub struct Modules {
    /// Sites with a module path, or with one that stands for their role ([`Site::is_named`]).
    pub sites: Vec<Site>,
    /// Sites for which no rung gave a path; `path` is empty.
    pub unnamed: Vec<Site>,
}

impl Modules {
    /// The sites with a torch module path.
    pub fn named(&self) -> impl Iterator<Item = &Site> {
        self.sites.iter().filter(|site| site.is_named())
    }

    /// The others.
    pub fn nameless(&self) -> impl Iterator<Item = &Site> {
        let modules = self.sites.iter().filter(|site| site.is_module());
        let by_role = modules.filter(|site| !site.is_named());
        by_role.chain(&self.unnamed)
    }
}

/// The graph that a site lies in: from the top graph, one step `(owner, attribute, graph)` for
/// every subgraph entered; empty for the top graph. Ids are those of the graph of that level.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(pub Vec<(NodeId, usize, usize)>);

impl Scope {
    /// The graph of this scope in the model that it was recovered from.
    pub fn graph<'m>(&self, model: &'m Model) -> &'m Graph {
        self.0.iter().fold(&model.graph, |graph, step| {
            let (node, attribute, index) = *step;
            &graph.node(node).attributes[attribute].value.graphs()[index]
        })
    }
}

/// One call of one layer.
#[derive(Clone, Debug)]
pub struct Site {
    /// The torch module path, such as `model.layers.0.self_attn.q_proj`.
    pub path: String,
    pub kind: SiteKind,
    /// Which rung named it.
    pub source: NameSource,
    pub scope: Scope,
    /// The node that computes: MatMul, Gemm, MatMulNBits, Conv, Gather, LayerNormalization, ….
    pub node: NodeId,
    /// The module's input: `[…, in_features]` for linear (in front of the Reshape that HF Conv1D
    /// exports have before their Gemm), `[N, C, …]` for conv, the ids for embedding.
    pub input: ValueId,
    /// The module's output, bias included, behind such a Reshape.
    pub output: ValueId,
    pub weight: Weight,
    /// The bias, where the module has one.
    pub bias: Option<ValueId>,
    /// Linear: in features. Conv: input channels (of all groups). Embedding: rows. Norm: features.
    /// Cache: heads.
    pub in_features: i64,
    /// Linear: out features (of the slice, if there is one). Conv: output channels. Embedding:
    /// columns. Norm: features.
    pub out_features: i64,
    /// The part of the output's last axis that belongs to this module, when it is a member of a
    /// fused projection.
    pub slice: Option<Range<i64>>,
    /// Element type of input and output.
    pub dtype: DType,
    /// Other torch paths of the same module that no site of the model has.
    pub aliases: Vec<String>,
    /// Paths of other sites that read the same weight; copies of a layer do not count.
    pub shared_with: Vec<String>,
    /// What keeps the site from being adapted as it stands, if anything does.
    pub obstacle: Option<Obstacle>,
    /// Other rungs of the ladder that gave another plausible path.
    pub disagreements: Vec<(NameSource, String)>,
    /// Why an unnamed site has no path; empty for a named one.
    pub unnamed_because: String,
    /// What it does in its block, after [`Modules::find_roles`], where structure tells.
    pub place: Option<Place>,
}

impl Site {
    /// Whether it has a path of its own, not one that stands for its role.
    pub fn is_named(&self) -> bool {
        self.is_module() && !self.path.is_empty() && self.source != NameSource::Role
    }

    /// Whether it is a call of a layer, and not a cache.
    pub fn is_module(&self) -> bool {
        self.kind != SiteKind::Cache
    }

    /// Every torch path of the module: that of this call first.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.path)
            .chain(&self.aliases)
            .map(String::as_str)
    }
}

/// What stands between an adapter and a site: the boundary of the module lies inside the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The node applies this activation to the module's output before it returns.
    FusedActivation(String),
    /// Projections and attention are one node: only their combined result is a value.
    FusedAttention,
    /// The node adds the residual (and perhaps a bias) first; its sum is not a value.
    FusedResidual,
    /// Several embeddings and their norm are one node.
    FusedEmbedding,
    /// Input and output are integer codes with scales of their own.
    QuantizedActivations,
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Obstacle::FusedActivation(name) => {
                write!(f, "the activation `{name}` is fused into the node")
            }
            Obstacle::FusedAttention => f.write_str("the attention is fused into the node"),
            Obstacle::FusedResidual => f.write_str("the residual sum is fused into the node"),
            Obstacle::FusedEmbedding => {
                f.write_str("several embeddings and a norm are fused into the node")
            }
            Obstacle::QuantizedActivations => f.write_str("input and output are quantized"),
        }
    }
}

/// The layer kinds that can be adapted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SiteKind {
    Linear,
    Conv,
    Embedding,
    Norm,
    /// Keys or values of earlier tokens, an input of the model: no module, but adapted like one.
    Cache,
}

impl SiteKind {
    pub const ALL: &'static [SiteKind] = &[
        SiteKind::Linear,
        SiteKind::Conv,
        SiteKind::Embedding,
        SiteKind::Norm,
        SiteKind::Cache,
    ];

    /// The word of the language and of JSON outputs.
    pub fn name(self) -> &'static str {
        match self {
            SiteKind::Linear => "linear",
            SiteKind::Conv => "conv",
            SiteKind::Embedding => "embedding",
            SiteKind::Norm => "norm",
            SiteKind::Cache => "cache",
        }
    }
}

/// The weight that a site reads.
#[derive(Clone, Debug)]
pub struct Weight {
    /// The graph that holds `value`: the site's own or one that encloses it.
    pub scope: Scope,
    /// The initializer (or input with a default) that holds it; packed codes when quantized.
    pub value: ValueId,
    /// The value of the site's graph that the node reads, behind Transpose, Identity, Cast or
    /// DequantizeLinear; the same as `value` when nothing lies between.
    pub operand: ValueId,
    /// Layout of `operand` as the site's node sees it.
    pub layout: Layout,
    /// Layout of `value` as it is stored.
    pub stored: Layout,
    pub quantization: Option<Quantization>,
}

/// How the weight lies in memory, in torch's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layout {
    /// `[out, in]`, torch's Linear; also `[rows, columns]` of embeddings and `[features]` of norms.
    OutIn,
    /// `[in, out]`: a MatMul's right operand, HF Conv1D.
    InOut,
    /// `[out, in / groups, …kernel]`.
    Conv,
}

impl Layout {
    /// The word of JSON outputs.
    pub fn name(self) -> &'static str {
        match self {
            Layout::OutIn => "out_in",
            Layout::InOut => "in_out",
            Layout::Conv => "out_in_kernel",
        }
    }

    /// The layout of the transposed matrix.
    #[must_use]
    pub fn transposed(self) -> Layout {
        match self {
            Layout::OutIn => Layout::InOut,
            Layout::InOut => Layout::OutIn,
            Layout::Conv => Layout::Conv,
        }
    }
}

/// How a frozen weight is quantized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantization {
    /// The operator that reads the codes, such as `MatMulNBits` or `DequantizeLinear`.
    pub op_type: String,
    pub bits: u32,
    /// Weights a scale; 0 for one scale a tensor or a channel.
    pub block_size: i64,
}

/// The rung of the ladder that named a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NameSource {
    /// The user's or peftc's own name map.
    Map,
    /// Exporter metadata on the node (`pkg.torch.onnx.name_scopes`).
    NameScopes,
    /// The node's name is a path.
    NodePath,
    /// Metadata on the weight (`folded_from`).
    FoldedFrom,
    /// The initializer's name.
    WeightName,
    /// The bias initializer's name.
    BiasName,
    /// The values of a `.safetensors` file.
    WeightValues,
    /// What another rung gave, and how the tool that wrote the model is known to change paths.
    Alias,
    /// Structure alone, on request.
    Role,
    None,
}

impl NameSource {
    /// The word of JSON outputs.
    pub fn name(self) -> &'static str {
        match self {
            NameSource::Map => "map",
            NameSource::NameScopes => "name_scopes",
            NameSource::NodePath => "node_path",
            NameSource::FoldedFrom => "folded_from",
            NameSource::WeightName => "weight_name",
            NameSource::BiasName => "bias_name",
            NameSource::WeightValues => "weight_values",
            NameSource::Alias => "alias",
            NameSource::Role => "role",
            NameSource::None => "none",
        }
    }
}
