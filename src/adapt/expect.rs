//! Evaluates `expect` lines against a plan.

use super::errors;
use super::plan::{Plan, total};
use crate::diag::{Sink, SourceMap};
use crate::graph::Model;
use crate::hir::affine::{Affine, Tokens, is_affine, token_reach};
use crate::hir::start::is_identity_at_start;
use crate::hir::{Adapter, Instance};
use crate::modules::{Modules, SiteKind};
use crate::syntax::ast::{BinaryOp, Claim, Expr, ExprKind};

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
        let (holds, fact) = match &expect.claim {
            Claim::Condition(expr) => match facts.condition(expr) {
                Ok(found) => found,
                Err(why) => {
                    sink.emit(errors::expectation_fails(expect.span, &claim, &why));
                    continue;
                }
            },
            Claim::IdentityAtStart => facts.identity(),
            Claim::Property(name) => match facts.property(&name.node) {
                Some(found) => found,
                None => {
                    let why = "properties are `mergeable`, `pad_invariant` and `cache_safe`";
                    sink.emit(errors::expectation_fails(name.span, &claim, why));
                    continue;
                }
            },
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
    fn condition(&self, expr: &Expr) -> Result<(bool, String), String> {
        let ExprKind::Binary(op, left, right) = &expr.kind else {
            return Err("expected a comparison, such as `sites == 24`".to_owned());
        };
        let (a, b) = (self.number(left)?, self.number(right)?);
        let holds = match op.node {
            BinaryOp::Equal => a.0 == b.0,
            BinaryOp::NotEqual => a.0 != b.0,
            BinaryOp::Less => a.0 < b.0,
            BinaryOp::LessEqual => a.0 <= b.0,
            BinaryOp::Greater => a.0 > b.0,
            BinaryOp::GreaterEqual => a.0 >= b.0,
            _ => return Err("expected a comparison, such as `sites == 24`".to_owned()),
        };
        let percent =
            matches!(left.kind, ExprKind::Percent(_)) || matches!(right.kind, ExprKind::Percent(_));
        let named: Vec<String> = [a, b]
            .into_iter()
            .filter_map(|(value, name)| Some(format!("{} is {}", name?, show(value, percent))))
            .collect();
        Ok((holds, named.join(", ")))
    }

    /// A fact by name or a literal.
    fn number(&self, expr: &Expr) -> Result<(f64, Option<String>), String> {
        match &expr.kind {
            ExprKind::Int(value) => Ok((*value as f64, None)),
            ExprKind::Float(value) => Ok((*value, None)),
            ExprKind::Percent(value) => Ok((*value / 100.0, None)),
            ExprKind::Name(name) => {
                let value = match name.as_str() {
                    "sites" => self.plan.module_count(self.modules) as f64,
                    "parameters" => self.plan.trainable() as f64,
                    "trainable" => self.trainable_share(),
                    "coverage" => self.coverage(),
                    _ => {
                        return Err(
                            "facts are `sites`, `parameters`, `trainable` and `coverage`"
                                .to_owned(),
                        );
                    }
                };
                Ok((value, Some(name.clone())))
            }
            _ => Err(
                "expected a number or one of `sites`, `parameters`, `trainable`, `coverage`"
                    .to_owned(),
            ),
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

    fn property(&self, name: &str) -> Option<(bool, String)> {
        let limit = match name {
            "mergeable" => return Some(self.mergeable()),
            "pad_invariant" => Tokens::Masked,
            "cache_safe" => Tokens::Own,
            _ => return None,
        };
        Some(
            match self
                .methods()
                .find(|(_, _, i)| token_reach(&i.forward) > limit)
            {
                Some((path, method, _)) => {
                    (false, format!("`{method}` at `{path}` reads other tokens"))
                }
                None => (true, "no method reads tokens that it must not".to_owned()),
            },
        )
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
