//! From patterns and methods to a changed graph.
//!
//! In: a resolved [`Program`](crate::hir::Program), a typed [`Model`](crate::graph::Model) and its
//! [`Modules`](crate::modules::Modules). [`plan`](plan()) decides everything (which sites, which
//! hyper-parameters, which tensors) without changing anything; [`apply`](apply()) lowers the plan
//! into one patch for every graph and applies it.
//!
//! What holds: everything is matched on the original graph, so an adapter never matches its own
//! output; a pattern, branch, exclusion or override that matches nothing is an error; a site that
//! cannot be adapted is an error; the plan and the tensors depend on the inputs alone. Not here:
//! reading weights (a callback does), writing files.

mod apply;
mod beside;
mod calibration;
mod errors;
mod expect;
mod first_pass;
mod hooks;
mod initial;
mod layers;
mod lower;
mod merge;
mod methods;
mod norms;
mod numeric;
mod plan;
mod planner;
mod prepend;
mod random;
mod refusal;
mod rows;
mod rowwise;
mod select;
mod settings;
mod starts;
mod stored;

pub use apply::{Adapted, NewTensor, apply};
pub use calibration::{Calibration, statistics};
pub use expect::{CheckedExpectation, base_parameters, check_expectations};
pub use first_pass::{computed_twice, is_first_pass};
pub use hooks::{Changed, HookState, HookTensor, Hooks, Read};
pub use initial::WeightReader;
pub use layers::{Relayered, relayer};
pub use merge::{Keep, MergedSite, SiteChange, changes, merge};
pub use plan::{
    Options, Plan, PlannedMethod, PlannedParameter, PlannedSite, Settings, StatementPlan, plan,
    total,
};
pub use random::random_tensor;
pub use select::sites_named;
pub use starts::{Starts, start_values};
