//! Merges an adapter into the weights of its model.
//!
//! In: a plan, its model, and the adapter's tensors. Out: the same graph with other weights. The new
//! weight and bias of a module follow from the method's `forward` alone: it is evaluated in f64 on
//! the rows of the identity and on zero, in blocks of rows, with the base module in numbers; what
//! it gives for the rows, less what it gives for zero, is the weight, and what it gives for zero
//! the bias. [`affine`](crate::hir::affine) has shown that this is all there is to the method, and
//! one more row of numbers is a check on that.
//!
//! What holds: a method that does not merge is refused with the expression that prevents it, before
//! anything is changed; no weight is held in f64 but the one that is computed; a weight that others
//! read too gives way to one of the module's own. A bias that the module lacks, or shares, is an Add
//! behind it. [`changes`] gives what would be merged and leaves the graph alone. Not here: files (a
//! callback keeps the new tensors).

mod changes;
mod check;
mod compute;
mod place;

pub use changes::{SiteChange, changes};

use super::initial::WeightReader;
use super::plan::{Plan, PlannedSite};
use crate::diag::{Reported, Sink};
use crate::graph::{Model, Tensor, TensorData};
use crate::modules::Modules;
use crate::ty::DType;
use std::collections::BTreeMap;

/// Keeps the elements of a new tensor, and says where they are then.
pub type Keep<'a> = dyn FnMut(&Tensor, Vec<u8>, &mut Sink) -> Result<TensorData, Reported> + 'a;

/// One merged module.
#[derive(Clone, Debug)]
pub struct MergedSite {
    pub path: String,
    /// The length of the change of the weight over that of the weight.
    pub change: f64,
    /// The type that the weight is rounded to, if it is narrower than f32.
    pub rounded: Option<DType>,
    /// Whether the bias is another one, or a new one.
    pub bias: bool,
}

/// Puts an adapter into the weights. `values` holds every tensor of the plan, by name.
pub fn merge(
    plan: &Plan,
    model: &mut Model,
    modules: &Modules,
    values: &BTreeMap<String, Tensor>,
    weights: &WeightReader<'_>,
    keep: &mut Keep<'_>,
    sink: &mut Sink,
) -> Result<Vec<MergedSite>, Reported> {
    check::check(plan, model, modules, sink)?;
    let mut units = place::units(plan, modules);
    let mut merged = Vec::new();
    let mut changes = place::Changes::default();
    while let Some(group) = place::next_group(&mut units, modules) {
        let new = compute::Merging {
            plan,
            model,
            modules,
            values,
            weights,
        }
        .unit(&group[0], sink)?;
        for planned in group.iter().flat_map(|unit| &unit.sites) {
            merged.push(row(planned, modules, &new));
        }
        changes.plan(&group, new, model, modules, keep, sink)?;
    }
    changes.apply(model);
    merged.sort_by_key(|(site, _)| *site);
    Ok(merged.into_iter().map(|(_, row)| row).collect())
}

fn row(planned: &PlannedSite, modules: &Modules, new: &compute::New) -> (usize, MergedSite) {
    let narrow = new.dtype.bits() < DType::F32.bits();
    let row = MergedSite {
        path: modules.sites[planned.site].path.clone(),
        change: new.change,
        rounded: narrow.then_some(new.dtype),
        bias: new.bias.is_some(),
    };
    (planned.site, row)
}
