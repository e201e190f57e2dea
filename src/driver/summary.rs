//! What a plan means in numbers, for people and for programs.

use super::session::{Loaded, Planned};
use crate::adapt::{Plan, base_parameters, computed_twice, total};
use crate::graph::{Graph, Model};
use crate::hir::{Formula, Lead, TermId, TermKind};
use crate::modules::SiteKind;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Longer paths push their row to the right instead of every row.
const WIDEST: usize = 100;

/// The numbers of a plan. Bytes count weights and state; activations come on top.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    pub adapter: String,
    pub statements: Vec<Statement>,
    /// Where the spec asks for other layers than the base's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<Layers>,
    pub groups: Vec<Group>,
    pub modules: usize,
    /// Trained elements.
    pub trainable: u64,
    /// Elements of the base.
    pub base: u64,
    /// Trained over all elements.
    pub trainable_share: f64,
    /// Base weights and adapter.
    pub inference_bytes: u64,
    /// The same with gradients and AdamW's two moments, in f32.
    pub training_bytes: u64,
    /// Floating-point operations of linear layers for one token, forward.
    pub base_flops_per_token: u64,
    /// The same for what the adapter adds.
    pub adapter_flops_per_token: u64,
    pub expectations: Vec<Expectation>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Statement {
    pub targets: Vec<String>,
    pub methods: Vec<String>,
    pub modules: usize,
    /// Output heads that `all …` leaves out.
    pub heads: Vec<String>,
}

/// The layers that the adapter asks for: of which list, and which of the base.
#[derive(Clone, Debug, Serialize)]
pub struct Layers {
    pub list: String,
    pub sequence: Vec<usize>,
}

/// Modules whose paths differ in layer numbers only, of one size.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    pub path: String,
    pub kind: &'static str,
    pub count: usize,
    pub in_features: i64,
    pub out_features: i64,
    pub methods: Vec<String>,
    /// Names without the path, and shapes.
    pub parameters: Vec<(String, Vec<i64>)>,
    /// Trained elements of the whole group.
    pub trainable: u64,
    pub paths: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Expectation {
    pub claim: String,
    pub fact: String,
    pub holds: bool,
}

impl Summary {
    pub fn new(planned: &Planned, loaded: &Loaded) -> Self {
        let plan = &planned.plan;
        let base = base_parameters(&loaded.model);
        let trainable = plan.trainable();
        let run = weight_bytes(&loaded.model.graph).saturating_add(plan.bytes());
        Summary {
            adapter: plan.adapter.clone(),
            statements: plan
                .statements
                .iter()
                .map(|s| Statement {
                    targets: s.targets.clone(),
                    methods: s.methods.clone(),
                    modules: s.modules.len(),
                    heads: s.heads.clone(),
                })
                .collect(),
            layers: loaded.layers().map(|(list, sequence)| Layers {
                list: list.to_owned(),
                sequence: sequence.to_vec(),
            }),
            groups: groups(planned, loaded),
            modules: plan.module_count(&loaded.modules),
            trainable,
            base,
            trainable_share: trainable as f64 / trainable.saturating_add(base).max(1) as f64,
            inference_bytes: run,
            training_bytes: run.saturating_add(trainable.saturating_mul(12)),
            base_flops_per_token: base_flops(loaded),
            adapter_flops_per_token: adapter_flops(plan, loaded),
            expectations: planned
                .expectations
                .iter()
                .map(|e| Expectation {
                    claim: e.claim.clone(),
                    fact: e.fact.clone(),
                    holds: e.holds,
                })
                .collect(),
        }
    }

    /// The plan as JSON.
    pub fn to_json(&self) -> Value {
        json!(self)
    }

    /// The plan as text.
    pub fn to_text(&self, model: &Model) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "adapter {} on {}\n", self.adapter, model.name);
        if let Some(Layers { list, sequence }) = &self.layers {
            let (of, last) = (ranges(sequence), sequence.len().saturating_sub(1));
            let _ = writeln!(
                out,
                "  {list}.0 to {list}.{last} are the base's layers {of}"
            );
        }
        for statement in &self.statements {
            let _ = writeln!(
                out,
                "  {} with {}: {}",
                statement.targets.join(", "),
                statement.methods.join(" + "),
                count(statement.modules, "module")
            );
            for head in &statement.heads {
                let _ = writeln!(
                    out,
                    "    the output head {head} is left out; name it to adapt it"
                );
            }
        }
        let _ = writeln!(out);
        let width = self
            .groups
            .iter()
            .map(|g| g.path.chars().count())
            .max()
            .unwrap_or(0)
            .min(WIDEST);
        for group in &self.groups {
            let parameters: Vec<String> = group
                .parameters
                .iter()
                .map(|(name, shape)| format!("{name} {shape:?}"))
                .collect();
            let _ = writeln!(
                out,
                "  {:width$}  {:>3} × {} → {}  {}  {}",
                group.path,
                group.count,
                group.in_features,
                group.out_features,
                parameters.join("  "),
                grouped(group.trainable),
            );
        }
        let _ = writeln!(
            out,
            "\n  trained    {} of {} ({:.3} %)",
            grouped(self.trainable),
            grouped(self.trainable.saturating_add(self.base)),
            100.0 * self.trainable_share
        );
        let _ = writeln!(
            out,
            "  memory     {} to run, {} to train with AdamW, activations not counted",
            bytes(self.inference_bytes),
            bytes(self.training_bytes)
        );
        let _ = writeln!(
            out,
            "  compute    {} FLOP a token, {} of them the adapter's",
            si(total([
                self.base_flops_per_token,
                self.adapter_flops_per_token
            ])),
            si(self.adapter_flops_per_token)
        );
        for expectation in &self.expectations {
            let mark = if expectation.holds { "holds" } else { "FAILS" };
            let _ = writeln!(
                out,
                "  {mark}      expect {}: {}",
                expectation.claim, expectation.fact
            );
        }
        out
    }
}

/// The numbers with runs of neighbours as ranges, as the language writes them.
fn ranges(numbers: &[usize]) -> String {
    let runs = numbers.chunk_by(|a, b| a + 1 == *b);
    let shown = runs.map(|run| match run {
        [one] => one.to_string(),
        _ => format!("{}..{}", run[0], run[run.len() - 1] + 1),
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// What the members of a group have in common: path, sizes, methods and parameter shapes.
type GroupKey = (String, i64, i64, Vec<String>, Vec<(String, Vec<i64>)>);

/// What follows a module's path in the name of its parameter, from the method or the parameter on.
fn without_slice(rest: &str) -> &str {
    let sliced = rest.strip_prefix('[').and_then(|r| r.split_once(']'));
    sliced
        .map_or(rest, |(_, rest)| rest)
        .trim_start_matches('.')
}

fn groups(planned: &Planned, loaded: &Loaded) -> Vec<Group> {
    let plan = &planned.plan;
    let mut groups: Vec<Group> = Vec::new();
    let mut index: BTreeMap<GroupKey, usize> = BTreeMap::new();
    let mut seen: BTreeSet<usize> = BTreeSet::new();
    for planned in &plan.sites {
        let site = &loaded.modules.sites[planned.site];
        let out = planned
            .slice
            .as_ref()
            .map_or(site.out_features, |s| s.end - s.start);
        let mut path = star_numbers(&site.path);
        if let Some(slice) = &planned.slice {
            let _ = write!(path, "[{}..{}]", slice.start, slice.end);
        }
        let methods: Vec<String> = planned.methods.iter().map(|m| m.name.clone()).collect();
        let mut parameters = Vec::new();
        let mut trainable = 0;
        for parameter in planned.methods.iter().flat_map(|m| &m.parameters) {
            let tensor = &plan.parameters[*parameter];
            let short = tensor
                .name
                .strip_prefix(&site.path)
                .map_or(tensor.name.as_str(), without_slice);
            parameters.push((short.to_owned(), tensor.dims.clone()));
            if seen.insert(*parameter) && tensor.trainable {
                trainable = total([trainable, tensor.elements()]);
            }
        }
        let key = (
            path.clone(),
            site.in_features,
            out,
            methods.clone(),
            parameters.clone(),
        );
        let at = *index.entry(key).or_insert_with(|| {
            groups.push(Group {
                path,
                kind: site.kind.name(),
                count: 0,
                in_features: site.in_features,
                out_features: out,
                methods,
                parameters,
                trainable: 0,
                paths: Vec::new(),
            });
            groups.len() - 1
        });
        let group = &mut groups[at];
        group.trainable = total([group.trainable, trainable]);
        if !group.paths.contains(&site.path) {
            group.count += 1;
            group.paths.push(site.path.clone());
        }
    }
    groups
}

/// The path with its layer numbers as `*`.
fn star_numbers(path: &str) -> String {
    let segments: Vec<&str> = path
        .split('.')
        .map(|s| if s.parse::<u32>().is_ok() { "*" } else { s })
        .collect();
    segments.join(".")
}

fn weight_bytes(graph: &Graph) -> u64 {
    let initializers = graph.initializers();
    let tensors = initializers
        .iter()
        .filter_map(|id| graph.value(*id).tensor());
    total(tensors.map(|tensor| tensor.byte_len()))
}

fn base_flops(loaded: &Loaded) -> u64 {
    let linear = loaded
        .modules
        .sites
        .iter()
        .filter(|s| s.kind == SiteKind::Linear);
    total(linear.map(|s| multiplications(s.in_features, s.out_features)))
}

fn adapter_flops(plan: &Plan, loaded: &Loaded) -> u64 {
    let linear = plan
        .sites
        .iter()
        .filter(|s| loaded.modules.sites[s.site].kind == SiteKind::Linear);
    let methods = linear.flat_map(|s| &s.methods);
    let own = total(methods.map(|m| flops(&m.instance.forward)));
    let sites = &loaded.modules.sites;
    let twice = computed_twice(plan, &loaded.model, &loaded.modules);
    let twice = twice.into_iter().map(|site| &sites[site]);
    let linear = twice.filter(|s| s.kind == SiteKind::Linear);
    let first = linear.map(|s| multiplications(s.in_features, s.out_features));
    total(std::iter::once(own).chain(first))
}

/// Operations of a product with a matrix, an addition for every multiplication.
fn multiplications(inner: i64, outer: i64) -> u64 {
    (inner as u64)
        .saturating_mul(outer as u64)
        .saturating_mul(2)
}

/// Operations of the matrix products that a linear site computes for every token. Convolutions have
/// positions instead, whose number the plan does not know; embeddings look rows up.
fn flops(formula: &Formula) -> u64 {
    let reached = formula.reachable();
    // A formula without the base output has the base module elsewhere.
    let keeps_base = formula.uses(|kind| *kind == TermKind::Output);
    let size = |id: TermId, axis: usize| formula.term(id).ty.dims.get(axis)?.known();
    let products = formula
        .terms()
        .zip(reached)
        .filter(|((_, term), reached)| *reached && term.ty.lead == Lead::Full)
        .filter_map(|((_, term), _)| match &term.kind {
            TermKind::MatMul(a, _) => {
                let inner = formula.term(*a).ty.dims.last()?.known()?;
                let outer = term.ty.dims.last()?.known()?;
                Some(multiplications(inner, outer))
            }
            TermKind::Base { input, .. } if keeps_base => {
                Some(multiplications(size(*input, 0)?, term.ty.dims[0].known()?))
            }
            TermKind::Einsum { equation, operands } if operands.len() > 1 => {
                let mut sizes: BTreeMap<char, i64> = BTreeMap::new();
                for (letters, id) in equation.operands.iter().zip(operands) {
                    for (axis, letter) in letters.chars().enumerate() {
                        sizes.insert(letter, size(*id, axis)?);
                    }
                }
                let all = sizes
                    .values()
                    .fold(1, |all: i64, size| all.saturating_mul(*size));
                Some(multiplications(all, operands.len() as i64 - 1))
            }
            _ => None,
        });
    total(products)
}

fn count(number: usize, word: &str) -> String {
    if number == 1 {
        format!("1 {word}")
    } else {
        format!("{number} {word}s")
    }
}

/// A number with a space between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

fn bytes(number: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = number as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{number} B")
    } else {
        format!("{value:.1} {}", units[unit])
    }
}

fn si(number: u64) -> String {
    let units = ["", " k", " M", " G", " T"];
    let mut value = number as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{number}")
    } else {
        format!("{value:.1}{}", units[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_as_people_read_them() {
        assert_eq!(grouped(1_234_567), "1 234 567");
        assert_eq!(grouped(12), "12");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(si(2_500_000), "2.5 M");
    }
}
