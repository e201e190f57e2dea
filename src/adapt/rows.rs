//! Convolutions as linear layers over patches, embeddings as linear layers over one-hot rows.
//!
//! A convolution is the product of its unfolded input, `[batch, positions, in]` with
//! `in = channels · kernel`, and its flattened weight `[out, in]`; an embedding is the product of a
//! one-hot row of size `in` for every id and its table. So the mathematics of a linear method holds
//! for both as it is written. Neither input is ever built: `x @ M` is a convolution with the kernel
//! `M`, or rows of `M` looked up. What else a formula does with `x` has no such form, and
//! [`refusal`] says so before anything is lowered.
//!
//! At a convolution every term has its features last, as everywhere; the base output is transposed
//! on the way in and the result on the way out.

use super::apply::graph_at;
use super::lower::Lowering;
use crate::graph::{Attribute, Graph, Model, Operand};
use crate::hir::{Formula, Lead, TermId, TermKind};
use crate::modules::{Site, SiteKind};

/// Why a formula has no lowering at such a site, if it has none. `groups` is 1 but for grouped
/// convolutions.
pub(super) fn refusal(formula: &Formula, site: &Site, groups: i64) -> Option<&'static str> {
    if !matches!(site.kind, SiteKind::Conv | SiteKind::Embedding) {
        return None;
    }
    let reached = formula.reachable();
    let carried = carries_input(formula);
    let mut terms = formula.terms().filter(|(id, _)| reached[id.0 as usize]);
    terms.find_map(|(id, term)| {
        let reads = term
            .kind
            .operands()
            .iter()
            .any(|operand| carried[operand.0 as usize]);
        match &term.kind {
            TermKind::Dropout(_, p) if reads && site.kind == SiteKind::Embedding && *p > 0.0 => {
                Some("dropout has no meaning on the ids that an embedding reads")
            }
            _ if carried[id.0 as usize] || !reads => None,
            TermKind::MatMul(a, b) if carried[a.0 as usize] && !carried[b.0 as usize] => {
                // A matrix of the shape of the weight stands for the layer with another weight.
                let columns = term.ty.dims.last().and_then(|dim| dim.known());
                (groups > 1 && columns != Some(site.out_features)).then_some(
                    "the convolution has groups: its input has a matrix product only with what \
                     has the shape of the weight",
                )
            }
            TermKind::Base { weight, bias, .. } => base_refusal(site, *weight, *bias),
            _ if site.kind == SiteKind::Conv => {
                Some("of a convolution's input only matrix products `x @ …` and `base(x, …)` can be computed")
            }
            _ => Some("of an embedding's input only `x @ …` and `base(x, …)` can be computed"),
        }
    })
}

fn base_refusal(site: &Site, weight: Option<TermId>, bias: Option<TermId>) -> Option<&'static str> {
    let embedding = site.kind == SiteKind::Embedding;
    match (weight, bias) {
        (None, _) if embedding && site.weight.quantization.is_some() => {
            Some("the table is quantized, and the formula reads it again")
        }
        (_, Some(_)) if embedding => Some("an embedding has no bias"),
        (_, Some(_)) if site.bias.is_none() => Some("the convolution has no bias to replace"),
        _ => None,
    }
}

/// Which terms are the input itself, or the input with some of its values dropped.
fn carries_input(formula: &Formula) -> Vec<bool> {
    let mut carried = vec![false; formula.terms().count()];
    for (id, term) in formula.terms() {
        carried[id.0 as usize] = match &term.kind {
            TermKind::Input => true,
            TermKind::Dropout(a, _) | TermKind::StopGradient(a) => carried[a.0 as usize],
            _ => false,
        };
    }
    carried
}

impl Lowering<'_> {
    /// Whether `x @ …` needs a form of its own, and `id` is such an `x`.
    pub(super) fn is_unbuilt(&self, id: TermId) -> bool {
        let kind = self.place.map(|(_, site)| site.kind);
        matches!(kind, Some(SiteKind::Conv | SiteKind::Embedding))
            && carries_input(self.formula)[id.0 as usize]
    }

    /// `x @ matrix` without building `x`.
    pub(super) fn product_with_input(&mut self, input: Operand, matrix: TermId) -> Operand {
        if self.site().kind == SiteKind::Embedding {
            let table = self.value(matrix);
            return self.emitter.node("Gather", &[table, input], Vec::new());
        }
        let columns = self.dims(matrix)[1];
        let rows = match self.formula.term(matrix).kind {
            TermKind::Transpose(inner) => self.value(inner),
            _ => {
                let matrix = self.value(matrix);
                self.transpose(matrix)
            }
        };
        let kernel = self.as_kernel(rows, columns);
        let attributes = self.graph().node(self.site().node).attributes.clone();
        let product = self.emitter.node("Conv", &[input, kernel], attributes);
        self.features_last(product)
    }

    /// A `[rows, in]` matrix in the layout of the site's convolution.
    pub(super) fn as_kernel(&mut self, matrix: Operand, rows: i64) -> Operand {
        let mut dims = kernel_dims(self);
        dims[0] = rows;
        let target = self.emitter.ints(&dims);
        self.emitter.node("Reshape", &[matrix, target], Vec::new())
    }

    /// The weight of a convolution as a matrix `[out, in]`.
    pub(super) fn as_matrix(&mut self, kernel: Operand) -> Operand {
        let target = self.emitter.ints(&[self.site().out_features, -1]);
        self.emitter.node("Reshape", &[kernel, target], Vec::new())
    }

    /// `[N, C, …]` to `[N, …, C]`.
    pub(super) fn features_last(&mut self, value: Operand) -> Operand {
        let rank = kernel_dims(self).len() as i64;
        let order = std::iter::once(0).chain(2..rank).chain([1]);
        let order = Attribute::ints("perm", order.collect::<Vec<i64>>());
        self.emitter.node("Transpose", &[value], vec![order])
    }

    /// `[N, …, C]` to `[N, C, …]`.
    pub(super) fn channels_second(&mut self, value: Operand) -> Operand {
        let rank = kernel_dims(self).len() as i64;
        let order = [0, rank - 1].into_iter().chain(1..rank - 1);
        let order = Attribute::ints("perm", order.collect::<Vec<i64>>());
        self.emitter.node("Transpose", &[value], vec![order])
    }

    /// Leading axes of a term that has them: the axes of the input but its features.
    pub(super) fn lead_axes(&self) -> usize {
        let Some((graph, site)) = self.place else {
            return 0;
        };
        let value = graph.value(site.input);
        let shape = value.ty.as_ref().and_then(|ty| ty.shape.as_ref());
        let rank = shape.map_or(3, |shape| shape.rank());
        match site.kind {
            SiteKind::Embedding => rank,
            _ => rank - 1,
        }
    }

    /// The axis of the module's input that counts its tokens; ids have no features behind it.
    pub(super) fn input_token_axis(&self) -> i64 {
        match self.site().kind {
            SiteKind::Embedding => -1,
            _ => -2,
        }
    }

    /// The result in the layout of the site's output.
    pub(super) fn finished(&mut self, result: TermId) -> Operand {
        let value = self.value(result);
        let is_output = self.formula.term(result).kind == TermKind::Output;
        if self.site().kind != SiteKind::Conv {
            return value;
        }
        debug_assert!(self.formula.term(result).ty.lead == Lead::Full);
        if is_output {
            self.bindings.output
        } else {
            self.channels_second(value)
        }
    }
}

fn kernel_dims(lowering: &Lowering<'_>) -> Vec<i64> {
    kernel(lowering.graph(), lowering.site())
        .expect("a convolution is a site only where its kernel has a known shape")
}

/// The shape of a convolution's weight, `[out, channels / groups, …]`.
pub(super) fn kernel(graph: &Graph, site: &Site) -> Option<Vec<i64>> {
    let ty = graph.value(site.weight.operand).ty.as_ref()?;
    ty.shape.as_ref()?.0.iter().map(|dim| dim.known()).collect()
}

/// The columns of a site's weight as a matrix: what a method calls `in`.
pub(super) fn columns(model: &Model, site: &Site) -> i64 {
    match kernel(graph_at(model, &site.scope), site) {
        Some(dims) if site.kind == SiteKind::Conv => dims[1..].iter().product(),
        _ => site.in_features,
    }
}

/// How many places of the input a convolution looks at for one place of its output.
pub(super) fn kernel_size(model: &Model, site: &Site) -> i64 {
    match kernel(graph_at(model, &site.scope), site) {
        Some(dims) if site.kind == SiteKind::Conv => dims[2..].iter().product(),
        _ => 1,
    }
}
