//! The manifest: what an artifact was made from, and what is in it.

use super::session::{Loaded, Planned};
use crate::adapt::Adapted;
use serde::Serialize;
use std::ops::Range;

/// Version of the manifest's schema: the minor part grows with additions, the major part with
/// changes that break readers.
pub const SCHEMA_VERSION: &str = "1.0";

/// `manifest.json`. Sizes are elements, shapes are torch's (`A: [rank, in]`).
#[derive(Debug, Serialize)]
pub struct Manifest {
    pub schema_version: &'static str,
    /// The compiler that wrote it, as `peftc 0.1.0`.
    pub compiler: String,
    pub adapter: String,
    pub spec: SpecEntry,
    pub base: BaseEntry,
    pub files: Files,
    /// Seed of the start values.
    pub seed: u64,
    /// `--set` values that won over the spec.
    pub settings: Vec<Setting>,
    pub sites: Vec<SiteEntry>,
    pub parameters: Vec<ParameterEntry>,
    pub counts: Counts,
    pub expectations: Vec<ExpectationEntry>,
}

#[derive(Debug, Serialize)]
pub struct SpecEntry {
    /// File name without its folder.
    pub name: String,
    /// `blake3:` and the hash of the text.
    pub digest: String,
}

#[derive(Debug, Serialize)]
pub struct BaseEntry {
    pub name: String,
    /// See [`fingerprint`](super::fingerprint()).
    pub fingerprint: String,
    pub ir_version: i64,
    /// Domain and version; "" is the default domain.
    pub opsets: Vec<(String, i64)>,
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
    pub methods: Vec<String>,
    /// Names of [`ParameterEntry`]s.
    pub parameters: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct ParameterEntry {
    /// Name in the weights file.
    pub name: String,
    /// Name of the initializer in the model.
    pub initializer: String,
    pub dtype: &'static str,
    pub shape: Vec<i64>,
    pub trainable: bool,
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
            methods: planned.methods.iter().map(|m| m.name.clone()).collect(),
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

pub(super) fn parameters(adapted: &Adapted) -> Vec<ParameterEntry> {
    adapted
        .tensors
        .iter()
        .map(|tensor| ParameterEntry {
            name: tensor.name.clone(),
            initializer: tensor.initializer.clone(),
            dtype: tensor.tensor.dtype.name(),
            shape: tensor.tensor.dims.clone(),
            trainable: tensor.trainable,
        })
        .collect()
}

pub(super) fn counts(planned: &Planned, loaded: &Loaded) -> Counts {
    let plan = &planned.plan;
    let trainable = plan.trainable();
    let base = crate::adapt::base_parameters(&loaded.model);
    Counts {
        modules: plan.module_count(&loaded.modules),
        trainable,
        frozen: plan
            .parameters
            .iter()
            .filter(|p| !p.trainable)
            .map(|p| p.elements())
            .sum(),
        base,
        trainable_share: trainable as f64 / (trainable + base).max(1) as f64,
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
