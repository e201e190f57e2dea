//! A method on its net: planned, adapted, and evaluated with any values.

use super::cases::Case;
use super::facts;
use super::net::{self, Layout};
use super::numbers::{Named, array, elements, normal};
use crate::adapt::{self, Calibration, NewTensor, Plan, Starts};
use crate::diag::{Reported, Sink};
use crate::graph::{Model, Tensor};
use crate::hir::{Adapt, Adapter, Call, Program, Statistic, TermKind};
use crate::modules::{self, Modules, SiteKind};
use crate::passes;
use crate::reference::{Array, Evaluator, Options};
use crate::syntax::ast::{Pattern, Target};
use std::collections::BTreeMap;

/// How far values for proofs lie from the start, where a tensor starts at zeros.
const SPREAD: f64 = 0.2;

pub(super) struct Stand {
    pub layout: Layout,
    pub base: Model,
    pub modules: Modules,
    pub plan: Plan,
    pub adapted: Model,
    /// The adapter's tensors at the start, in the order of the plan.
    pub start: Vec<NewTensor>,
    pub inputs: Named,
    /// How many a sample has.
    pub tokens: usize,
}

/// The method `times` over on the first layout that takes it; `Err` says why none does.
pub(super) fn build(
    program: &Program,
    case: &Case,
    times: usize,
    seed: u64,
) -> Result<Stand, String> {
    let mut why = "no sizes are known for it".to_owned();
    let prepends = facts::prepends(program, case);
    let mixes = |layout: &Layout| prepends && layout.kind != SiteKind::Cache;
    let read = facts::read(program, case);
    for layout in &case.layouts {
        let mut sink = Sink::new();
        let layout = match mixes(layout) {
            true => layout.mixed(),
            false => layout.with(&read),
        };
        match on_layout(program, case, times, &layout, seed, &mut sink) {
            Ok(stand) => return Ok(stand),
            Err(Some(text)) => why = text,
            Err(None) => {
                // What a larger layout would not mend is said by the last of them.
                if let Some(first) = sink.diagnostics().first() {
                    why = first.message.clone();
                }
            }
        }
    }
    Err(why)
}

fn on_layout(
    program: &Program,
    case: &Case,
    times: usize,
    layout: &Layout,
    seed: u64,
    sink: &mut Sink,
) -> Result<Stand, Option<String>> {
    let reported = |_: Reported| None;
    let mut base = net::net(layout, seed).map_err(Some)?;
    passes::infer(&mut base, sink).map_err(reported)?;
    let options = modules::Options::default();
    let mut modules = modules::recover(&base, &options, sink).map_err(reported)?;
    modules.add_caches(&base, &passes::past(&base));
    let adapter = adapter(program, case, times, layout);
    let options = adapt::Options::default();
    let plan = adapt::plan(program, &adapter, &base, &modules, &options, sink).map_err(reported)?;
    let mut adapted = base.clone();
    let none = BTreeMap::new();
    let read = |tensor: &Tensor, _: &mut Sink| Ok(tensor.raw().cloned().unwrap_or_default());
    let calibration = calibration(&plan, &modules, seed);
    let starts = Starts {
        calibration: Some(&calibration),
        ..Starts::new(seed, &read, &none)
    };
    let start = adapt::apply(&plan, &mut adapted, &modules, &starts, sink)
        .map_err(reported)?
        .tensors;
    passes::infer(&mut adapted, sink).map_err(reported)?;
    let sequences = sequences(&plan);
    let inputs = net::inputs(layout, &sequences, seed).map_err(Some)?;
    Ok(Stand {
        layout: layout.clone(),
        base,
        modules,
        plan,
        adapted,
        start,
        inputs,
        tokens: net::tokens_with(&sequences),
    })
}

/// What methods look for in the ids of tokens, one behind the other.
fn sequences(plan: &Plan) -> Vec<i64> {
    let methods = plan.sites.iter().flat_map(|site| &site.methods);
    let terms = methods.flat_map(|method| method.instance.forward.terms());
    let mut found: Vec<&[i64]> = Vec::new();
    for (_, term) in terms {
        if let TermKind::SinceLast(sequence) = &term.kind
            && !found.contains(&sequence.ids.as_slice())
        {
            found.push(&sequence.ids);
        }
    }
    found.concat()
}

/// What data could tell of the modules: start values made from it hold for any data.
fn calibration(plan: &Plan, modules: &Modules, seed: u64) -> Calibration {
    let mut calibration = Calibration::default();
    for (site, statistic) in adapt::statistics(plan, modules, |_| false) {
        let site = &modules.sites[site];
        let name = format!("{}.{}", site.path, statistic.name());
        let drawn = |rows: i64| normal(&name, &[rows, site.in_features], 1.0, seed);
        let tensor = match statistic {
            Statistic::InputMean => normal(&name, &[site.in_features], 1.0, seed),
            Statistic::WeightGradient => drawn(site.out_features),
            // Of twice as many tokens as features.
            Statistic::InputCovariance | Statistic::InputGram => {
                moments(&elements(&drawn(2 * site.in_features)), site.in_features)
            }
        };
        calibration.insert(&site.path, statistic, tensor);
    }
    calibration
}

/// XᵀX of rows of so many features.
fn moments(rows: &[f64], features: i64) -> Tensor {
    let size = features as usize;
    let cells = (0..size).flat_map(|a| (0..size).map(move |b| (a, b)));
    let sums = cells.map(|(a, b)| rows.chunks(size).map(|row| row[a] * row[b]).sum::<f64>());
    let single: Vec<f32> = sums.map(|sum| sum as f32).collect();
    Tensor::from_f32(&[features, features], &single)
}

/// `adapt "fc1", "fc2" with method(…) + method(…)`.
fn adapter(program: &Program, case: &Case, times: usize, layout: &Layout) -> Adapter {
    let method = program.method(case.method);
    let span = method.name.span;
    let word = |text: String| crate::diag::Spanned { node: text, span };
    let names = 0..layout.sizes.len();
    let targets = names.map(|at| {
        Target::Pattern(Pattern {
            regex: false,
            text: word(net::path(at)),
            slice: None,
            span,
        })
    });
    let targets: Vec<Target> = match layout.kind {
        SiteKind::Cache => vec![Target::All {
            kind: word(SiteKind::Cache.name().to_owned()),
            span,
        }],
        _ => targets.collect(),
    };
    let call = Call {
        method: case.method,
        arguments: case.arguments.clone(),
        span,
    };
    Adapter {
        name: word("proof".to_owned()),
        doc: String::new(),
        layers: None,
        adapts: vec![Adapt {
            targets,
            except: Vec::new(),
            condition: None,
            calls: vec![call; times],
            overrides: Vec::new(),
            span,
        }],
        trains: Vec::new(),
        expects: Vec::new(),
        span,
    }
}

impl Stand {
    /// Values away from the start for what is trained; frozen tensors keep theirs.
    pub fn values(&self, seed: u64) -> Vec<(String, Tensor)> {
        let moved = |tensor: &NewTensor| {
            let start = elements(&tensor.tensor);
            let square = start.iter().map(|v| v * v).sum::<f64>() / start.len().max(1) as f64;
            let spread = if square == 0.0 {
                SPREAD
            } else {
                SPREAD * square.sqrt()
            };
            let noise = elements(&normal(&tensor.name, &tensor.tensor.dims, spread, seed));
            let sums = start.iter().zip(noise).map(|(a, b)| (a + b) as f32);
            Tensor::from_f32(&tensor.tensor.dims, &sums.collect::<Vec<f32>>())
        };
        self.start
            .iter()
            .map(|tensor| {
                let value = match tensor.trainable {
                    true => moved(tensor),
                    false => tensor.tensor.clone(),
                };
                (tensor.initializer.clone(), value)
            })
            .collect()
    }

    /// Names of the outputs.
    pub fn outputs(&self) -> Vec<String> {
        let places = 1..=self.layout.sizes.len();
        places.map(|at| format!("y{at}")).collect()
    }

    /// By the names of the plan, as a merge takes them.
    pub fn by_name(&self, values: &[(String, Tensor)]) -> BTreeMap<String, Tensor> {
        let tensors = self.start.iter().zip(values);
        tensors
            .map(|(tensor, (_, value))| (tensor.name.clone(), value.clone()))
            .collect()
    }
}

/// Values as the reference takes them.
pub(super) fn arrays(values: &[(String, Tensor)]) -> Result<Named, String> {
    let all = values.iter();
    all.map(|(name, tensor)| Ok((name.clone(), array(tensor)?)))
        .collect()
}

/// Evaluates a model in double precision: some values, from inputs and replaced initializers.
pub(super) fn evaluate(
    model: &Model,
    given: &[&Named],
    wanted: &[String],
) -> Result<Named, String> {
    let evaluator = Evaluator::new(model, &Options::default()).map_err(|f| f.to_string())?;
    evaluated(&evaluator, given, wanted)
}

/// [`evaluate`] with a model that is ready.
pub(super) fn evaluated(
    evaluator: &Evaluator<'_>,
    given: &[&Named],
    wanted: &[String],
) -> Result<Named, String> {
    let inputs: Vec<(&str, Array)> = given
        .iter()
        .flat_map(|named| named.iter())
        .map(|(name, array)| (name.as_str(), array.clone()))
        .collect();
    let names: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let found = evaluator.values(&inputs, &names);
    found.map_err(|failure| failure.to_string())
}
