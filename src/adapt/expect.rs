//! Evaluates `expect` lines against a plan.

use super::errors;
use super::plan::{Plan, total};
use crate::diag::{Sink, SourceMap};
use crate::graph::Model;
use crate::hir::affine::{Affine, Tokens, is_affine, token_reach};
use crate::hir::start::is_identity_at_start;
use crate::hir::{Adapter, Claim, Fact, Instance, Operand, Property};
use crate::modules::{Modules, SiteKind};
use crate::syntax::ast::BinaryOp;

/// An expectation with the fact that it was held against.
#[derive(Clone, Debug)]
pub struct CheckedExpectation {
    /// As written.
    pub claim: String,
    /// The fact, such as `sites is 24`.
    pub fact: String,
    pub holds: bool,
}

/// Checks every expectation; those that fail are emitted as errors and answered all the same.
pub fn check_expectations(
    adapter: &Adapter,
    plan: &Plan,
    model: &Model,
    modules: &Modules,
    sources: &SourceMap,
    sink: &mut Sink,
) -> Vec<CheckedExpectation> {
    let facts = Facts {
        plan,
        model,
        modules,
    };
    let mut checked = Vec::new();
    for expect in &adapter.expects {
        let claim = sources
            .slice(expect.span)
            .trim()
            .trim_start_matches("expect")
            .trim()
            .to_owned();
        let (holds, fact) = match expect.claim {
            Claim::Comparison { op, left, right } => facts.comparison(op, left, right),
            Claim::Property(property) => facts.property(property),
        };
        if !holds {
            sink.emit(errors::expectation_fails(expect.span, &claim, &fact));
        }
        checked.push(CheckedExpectation { claim, fact, holds });
    }
    checked
}

struct Facts<'a> {
    plan: &'a Plan,
    model: &'a Model,
    modules: &'a Modules,
}

impl Facts<'_> {
    fn comparison(&self, op: BinaryOp, left: Operand, right: Operand) -> (bool, String) {
        let (a, b) = (self.number(left), self.number(right));
        let holds = match op {
            BinaryOp::Equal => a == b,
            BinaryOp::NotEqual => a != b,
            BinaryOp::Less => a < b,
            BinaryOp::LessEqual => a <= b,
            BinaryOp::Greater => a > b,
            BinaryOp::GreaterEqual => a >= b,
            other => unreachable!("`{}` is no comparison", other.symbol()),
        };
        let is_share = |operand| matches!(operand, Operand::Share(_));
        let percent = is_share(left) || is_share(right);
        let named = [left, right].into_iter().filter_map(|operand| {
            let Operand::Fact(fact) = operand else {
                return None;
            };
            let value = show(self.number(operand), percent);
            Some(format!("{} is {value}", fact.name()))
        });
        (holds, named.collect::<Vec<_>>().join(", "))
    }

    fn number(&self, operand: Operand) -> f64 {
        match operand {
            Operand::Number(value) | Operand::Share(value) => value,
            Operand::Fact(Fact::Sites) => self.plan.module_count(self.modules) as f64,
            Operand::Fact(Fact::Parameters) => self.plan.trainable() as f64,
            Operand::Fact(Fact::Trainable) => self.trainable_share(),
            Operand::Fact(Fact::Coverage) => self.coverage(),
        }
    }

    /// Trained elements over all elements, as PEFT counts.
    fn trainable_share(&self) -> f64 {
        let trainable = self.plan.trainable() as f64;
        trainable / (trainable + base_parameters(self.model) as f64)
    }

    /// Adapted linear modules over all linear modules.
    fn coverage(&self) -> f64 {
        let linear = |index: &usize| self.modules.sites[*index].kind == SiteKind::Linear;
        let all = (0..self.modules.sites.len()).filter(linear).count();
        let adapted: std::collections::BTreeSet<usize> = self
            .plan
            .sites
            .iter()
            .map(|s| s.site)
            .filter(linear)
            .collect();
        adapted.len() as f64 / all.max(1) as f64
    }

    fn methods(&self) -> impl Iterator<Item = (&str, &str, &Instance)> {
        self.plan.sites.iter().flat_map(|site| {
            let path = self.modules.sites[site.site].path.as_str();
            site.methods
                .iter()
                .map(move |m| (path, m.name.as_str(), &*m.instance))
        })
    }

    fn identity(&self) -> (bool, String) {
        match self
            .methods()
            .find(|(_, _, instance)| !is_identity_at_start(instance))
        {
            Some((path, method, _)) => (
                false,
                format!("`{method}` at `{path}` is not proved to change nothing at the start"),
            ),
            None => (
                true,
                "every adapted module gives its base output at the start".to_owned(),
            ),
        }
    }

    fn property(&self, property: Property) -> (bool, String) {
        match property {
            Property::IdentityAtStart => self.identity(),
            Property::Mergeable => self.mergeable(),
            Property::PadInvariant => self.reads_at_most(Tokens::Masked),
            Property::CacheSafe => self.reads_at_most(Tokens::Own),
        }
    }

    fn reads_at_most(&self, limit: Tokens) -> (bool, String) {
        let further = self
            .methods()
            .find(|(_, _, instance)| token_reach(&instance.forward) > limit);
        match further {
            Some((path, method, _)) => {
                (false, format!("`{method}` at `{path}` reads other tokens"))
            }
            None => (true, "no method reads tokens that it must not".to_owned()),
        }
    }

    fn mergeable(&self) -> (bool, String) {
        for (path, method, instance) in self.methods() {
            if let Affine::No { why, .. } = is_affine(&instance.forward) {
                return (
                    false,
                    format!("`{method}` at `{path}` does not merge: {why}"),
                );
            }
        }
        (true, "every method is affine in its input".to_owned())
    }
}

fn show(value: f64, percent: bool) -> String {
    if percent {
        format!("{:.3} %", value * 100.0)
    } else {
        format!("{value}")
    }
}

/// Elements of the model's float and packed constants; small integer constants are shapes, not
/// weights.
pub fn base_parameters(model: &Model) -> u64 {
    let graph = &model.graph;
    let elements = graph
        .initializers()
        .iter()
        .filter_map(|id| graph.value(*id).tensor())
        .filter(|tensor| {
            tensor.dtype.is_float() || tensor.dtype.bits() <= 8 && tensor.dims.len() >= 2
        })
        .map(|tensor| {
            if tensor.dtype == crate::ty::DType::U8 && tensor.dims.len() == 3 {
                tensor.elements().saturating_mul(2)
            } else {
                tensor.elements()
            }
        });
    total(elements)
}
