//! Caches of earlier tokens as sites.

use super::site::{Layout, Modules, NameSource, Scope, Site, SiteKind, Weight};
use crate::graph::{Model, ValueId};
use crate::ty::{Dim, TensorType};

impl Modules {
    /// Adds those of the inputs that hold `[batch, heads, earlier tokens, features]`, under their names. They
    /// stand behind all modules, and no pattern names them: an adapter has all of them or none.
    pub fn add_caches(&mut self, model: &Model, inputs: &[(ValueId, TensorType)]) {
        let sites = inputs.iter().filter_map(|(id, ty)| site(model, *id, ty));
        self.sites.extend(sites);
    }
}

fn site(model: &Model, id: ValueId, ty: &TensorType) -> Option<Site> {
    let graph = &model.graph;
    let value = graph.value(id);
    let [batch, heads, tokens, features] = ty.shape.as_ref()?.0.as_slice() else {
        return None;
    };
    let known = |dim: &Dim| dim.known().filter(|size| *size > 0);
    let (heads, features) = (known(heads)?, known(features)?);
    if tokens.as_symbol().is_none() || batch == tokens {
        return None;
    }
    let (reader, _) = graph.uses(id).into_iter().next()?;
    Some(Site {
        path: value.name.to_string(),
        kind: SiteKind::Cache,
        source: NameSource::None,
        scope: Scope::default(),
        node: reader,
        input: id,
        output: id,
        // None: what the language calls so is not there.
        weight: Weight {
            scope: Scope::default(),
            value: id,
            operand: id,
            layout: Layout::OutIn,
            stored: Layout::OutIn,
            quantization: None,
        },
        bias: None,
        in_features: heads,
        out_features: features,
        slice: None,
        dtype: ty.dtype,
        aliases: Vec::new(),
        shared_with: Vec::new(),
        obstacle: None,
        disagreements: Vec::new(),
        unnamed_because: String::new(),
        place: None,
    })
}
