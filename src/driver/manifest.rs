//! The manifest: what an artifact was made from, and what is in it. Its keys are described in the
//! project's `README.md`; a test holds the two together.

use super::session::{Loaded, Planned};
use super::training::{Brought, GraphEntry};
use crate::adapt::{PlannedMethod, total};
use crate::graph::Model;
use crate::hir::HyperValue;
use crate::modules::Modules;
use crate::train::{Head, Optimizer, Recipe};
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Range;

/// Version of the manifest's schema: the minor part grows with additions, the major part with
/// changes that break readers.
pub const SCHEMA_VERSION: &str = "1.5";

/// `manifest.json`. Sizes are elements, shapes are torch's (`A: [rank, in]`).
#[derive(Debug, Serialize)]
pub struct Manifest {
    pub schema_version: &'static str,
    /// The compiler that wrote it, as `peftc 0.1.0`.
    pub compiler: String,
    pub adapter: String,
    pub spec: SpecEntry,
    pub base: BaseEntry,
    /// Which layers of the base the model has, if it is another sequence than the base's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<LayersEntry>,
    pub files: Files,
    /// Seed of the start values.
    pub seed: u64,
    /// `--set` values that won over the spec.
    pub settings: Vec<Setting>,
    /// What start values were made from, if they were made from data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<ReadEntry>,
    /// The file that some tensors start as, if one is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<ReadEntry>,
    pub sites: Vec<SiteEntry>,
    pub parameters: Vec<ParameterEntry>,
    pub counts: Counts,
    pub expectations: Vec<ExpectationEntry>,
    /// What stands on the adapted model for its task, if anything does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<HeadEntry>,
    /// What the training graphs are for, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub training: Option<TrainingEntry>,
    /// The training graphs by name: `step`, `grad`, `update`, `eval`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub graphs: BTreeMap<&'static str, GraphEntry>,
}

/// A list of layers in a sequence of the adapter's own.
#[derive(Debug, Serialize)]
pub struct LayersEntry {
    /// Its path, such as `model.layers`.
    pub list: String,
    /// For every layer of the model which one of the base it is.
    pub sequence: Vec<usize>,
}

impl LayersEntry {
    pub fn new((list, sequence): (&str, &[usize])) -> LayersEntry {
        LayersEntry {
            list: list.to_owned(),
            sequence: sequence.to_vec(),
        }
    }
}

/// A head: pooling, and a linear layer if it has a size.
#[derive(Debug, Serialize)]
pub struct HeadEntry {
    /// The output that it adds to the model.
    pub output: String,
    pub pool: &'static str,
    pub size: Option<i64>,
}

impl HeadEntry {
    pub fn new(head: &Head, output: String) -> HeadEntry {
        HeadEntry {
            output,
            pool: head.pool.name(),
            size: head.size,
        }
    }
}

/// A recipe: what its graphs compute.
#[derive(Debug, Serialize)]
pub struct TrainingEntry {
    pub task: &'static str,
    /// Names of the classes by number, where they have names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    pub label_smoothing: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    pub optimizer: BTreeMap<&'static str, serde_json::Value>,
    pub max_grad_norm: Option<f64>,
    /// Learning rates of some parameters.
    pub rates: Vec<RateEntry>,
    /// The precision of the frozen weights in the training graphs.
    pub base: &'static str,
    /// The file of their codes, if they are rounded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_data: Option<String>,
    /// Whether activations are computed again in the backward pass.
    pub recompute: bool,
    /// In how many pieces of the tokens logits are computed.
    pub loss_pieces: usize,
}

impl TrainingEntry {
    pub fn new(
        recipe: &Recipe,
        classes: &[String],
        base_data: Option<String>,
        (recompute, loss_pieces): (bool, usize),
    ) -> TrainingEntry {
        let mut optimizer = BTreeMap::from([("name", recipe.optimizer.name().into())]);
        match recipe.optimizer {
            Optimizer::Sgd(sgd) => optimizer.extend([
                ("momentum", sgd.momentum.into()),
                ("nesterov", sgd.nesterov.into()),
                ("weight_decay", sgd.weight_decay.into()),
            ]),
            Optimizer::Adam(adam) | Optimizer::AdamW(adam) => optimizer.extend([
                ("beta1", adam.beta1.into()),
                ("beta2", adam.beta2.into()),
                ("epsilon", adam.epsilon.into()),
                ("weight_decay", adam.weight_decay.into()),
                ("state", adam.moments.name().into()),
            ]),
        }
        TrainingEntry {
            task: recipe.task.name(),
            classes: classes.to_vec(),
            label_smoothing: recipe.task.label_smoothing(),
            temperature: recipe.task.temperature(),
            optimizer,
            max_grad_norm: recipe.max_grad_norm,
            rates: recipe
                .rates
                .iter()
                .map(|rate| RateEntry {
                    parameters: rate.parameters.clone(),
                    times: rate.times,
                })
                .collect(),
            base: recipe.base.name(),
            base_data,
            recompute,
            loss_pieces,
        }
    }
}

/// A learning rate of its own.
#[derive(Debug, Serialize)]
pub struct RateEntry {
    pub parameters: String,
    pub times: f64,
}

#[derive(Debug, Serialize)]
pub struct SpecEntry {
    /// File name without its folder.
    pub name: String,
    /// `blake3:` and the hash of the text.
    pub digest: String,
}

#[derive(Debug, Serialize)]
pub struct ReadEntry {
    /// File name without its folder.
    pub name: String,
    /// `blake3:` and the hash of the file.
    pub digest: String,
}

#[derive(Debug, Serialize)]
pub struct BaseEntry {
    pub name: String,
    /// See [`fingerprint`](super::fingerprint()).
    pub fingerprint: String,
    pub ir_version: i64,
    pub opsets: Vec<OpsetEntry>,
}

/// An operator set that the base imports; "" is ONNX's own domain.
#[derive(Debug, Serialize)]
pub struct OpsetEntry {
    pub domain: String,
    pub version: i64,
}

/// Names relative to the manifest's folder.
#[derive(Debug, Serialize)]
pub struct Files {
    pub model: String,
    pub weights: String,
    /// External data that the model refers to.
    pub data: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Setting {
    pub name: String,
    pub value: String,
}

#[derive(Debug, Serialize)]
pub struct SiteEntry {
    pub path: String,
    pub kind: &'static str,
    pub in_features: i64,
    pub out_features: i64,
    /// First and last output feature (exclusive) where a pattern's slice adapts a part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slice: Option<Range<i64>>,
    /// In the order of application.
    pub methods: Vec<MethodEntry>,
    /// Names of [`ParameterEntry`]s.
    pub parameters: Vec<String>,
}

/// A method as it is at one site: overrides and settings included.
#[derive(Debug, PartialEq, Serialize)]
pub struct MethodEntry {
    pub name: String,
    pub hyper_parameters: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Serialize)]
pub struct ParameterEntry {
    /// Name in the weights file.
    pub name: String,
    /// Path of the module that it belongs to; `null` for one that several modules share.
    pub module: Option<String>,
    /// Its name in the method.
    pub parameter: String,
    /// Name of the initializer in the model.
    pub initializer: String,
    pub dtype: &'static str,
    pub shape: Vec<i64>,
    pub trainable: bool,
    /// What its learning rate is multiplied with in the training graphs, besides the recipe's `rates`.
    #[serde(skip_serializing_if = "is_one")]
    pub rate: f64,
}

fn is_one(rate: &f64) -> bool {
    *rate == 1.0
}

#[derive(Debug, Serialize)]
pub struct Counts {
    /// Distinct adapted modules.
    pub modules: usize,
    /// Trained elements.
    pub trainable: u64,
    /// Frozen elements that the adapter brings.
    pub frozen: u64,
    /// Elements of the base.
    pub base: u64,
    /// Trained over all elements.
    pub trainable_share: f64,
}

#[derive(Debug, Serialize)]
pub struct ExpectationEntry {
    pub claim: String,
    pub fact: String,
    pub holds: bool,
}

/// The entries that follow from a plan and from what was applied.
pub(super) fn sites(planned: &Planned, loaded: &Loaded) -> Vec<SiteEntry> {
    let plan = &planned.plan;
    let mut entries: Vec<SiteEntry> = Vec::new();
    for planned in &plan.sites {
        let site = &loaded.modules.sites[planned.site];
        let parameters = planned.methods.iter().flat_map(|m| &m.parameters);
        let entry = SiteEntry {
            path: site.path.clone(),
            kind: site.kind.name(),
            in_features: site.in_features,
            out_features: site.out_features,
            slice: planned.slice.clone(),
            methods: planned.methods.iter().map(method).collect(),
            parameters: parameters
                .map(|index| plan.parameters[*index].name.clone())
                .collect(),
        };
        // Two calls of one module are one entry.
        if !entries
            .iter()
            .rev()
            .take(8)
            .any(|e| e.path == entry.path && e.slice == entry.slice)
        {
            entries.push(entry);
        }
    }
    entries
}

pub(super) fn opsets(model: &Model) -> Vec<OpsetEntry> {
    model
        .opsets
        .iter()
        .map(|(domain, version)| OpsetEntry {
            domain: domain.clone(),
            version: *version,
        })
        .collect()
}

fn method(planned: &PlannedMethod) -> MethodEntry {
    let hyper_parameters = planned.values.iter().map(|(name, value)| {
        let value = match value {
            HyperValue::Int(value) => (*value).into(),
            HyperValue::Float(value) => (*value).into(),
            HyperValue::Bool(value) => (*value).into(),
            HyperValue::String(value) => value.as_str().into(),
            HyperValue::Ints(values) => values.as_slice().into(),
        };
        (name.clone(), value)
    });
    MethodEntry {
        name: planned.name.clone(),
        hyper_parameters: hyper_parameters.collect(),
    }
}

pub(super) fn parameters(tensors: &[Brought]) -> Vec<ParameterEntry> {
    tensors
        .iter()
        .map(|tensor| ParameterEntry {
            name: tensor.name.clone(),
            module: tensor.module.clone(),
            parameter: tensor.parameter.clone(),
            initializer: tensor.initializer.clone(),
            dtype: tensor.tensor.dtype.name(),
            shape: tensor.tensor.dims.clone(),
            trainable: tensor.trainable,
            rate: tensor.rate,
        })
        .collect()
}

/// `base` is the number of elements that the base had.
pub(super) fn counts(
    tensors: &[Brought],
    planned: &Planned,
    modules: &Modules,
    base: u64,
) -> Counts {
    let elements = |trainable: bool| {
        let tensors = tensors.iter().filter(|t| t.trainable == trainable);
        total(tensors.map(|t| t.tensor.dims.iter().map(|dim| *dim as u64).product()))
    };
    let trainable = elements(true);
    Counts {
        modules: planned.plan.module_count(modules),
        trainable,
        frozen: elements(false),
        base,
        trainable_share: trainable as f64 / trainable.saturating_add(base).max(1) as f64,
    }
}

pub(super) fn expectations(planned: &Planned) -> Vec<ExpectationEntry> {
    planned
        .expectations
        .iter()
        .map(|e| ExpectationEntry {
            claim: e.claim.clone(),
            fact: e.fact.clone(),
            holds: e.holds,
        })
        .collect()
}
