//! The checks themselves, one function each.

use super::additive::is_additive;
use super::cases::Case;
use super::gradient::Slopes;
use super::net::{BATCH, ones};
use super::numbers::{Named, apart, cut, distance, join, made};
use super::stand::{self, Stand, arrays, evaluate};
use super::{CHECKS, Options, Row, Verdict};
use crate::adapt;
use crate::diag::Sink;
use crate::graph::{Model, Tensor, TensorData};
use crate::hir::affine::{Affine, Tokens, is_affine, token_reach};
use crate::hir::start::is_identity_at_start;
use crate::hir::{Instance, Program};
use crate::modules::SiteKind;
use crate::onnx;
use crate::reference::Array;
use crate::runtime::{HostTensor, Library, ModelSource, NamedTensors, Session};
use std::sync::Arc;

/// Two ways to compute the same in double precision, relative.
const EXACT: f64 = 1e-9;
/// The same where start values are rounded to single precision.
const ROUNDED: f64 = 1e-6;
/// A slope measured on both sides, whose own error is about 1e-9 of it.
const SLOPE: f64 = 1e-5;
/// A merged weight is rounded to single precision.
const MERGED: f64 = 1e-5;
/// ONNX Runtime computes in single precision; gradients go through more nodes.
const SINGLE: f64 = 1e-3;

type Found = Result<Verdict, String>;

/// Everything that the checks of a row work with.
struct Bench<'a> {
    program: &'a Program,
    case: &'a Case,
    options: &'a Options,
    stand: Stand,
    /// Values away from the start.
    values: Vec<(String, Tensor)>,
    /// What the adapted model gives with them.
    outputs: Named,
    slopes: Result<Slopes, String>,
}

/// All verdicts of one case.
pub(super) fn row(program: &Program, case: &Case, options: &Options) -> Row {
    let method = program.method(case.method);
    let kind = case.layouts.first().map_or("", |layout| layout.kind.name());
    let mut row = Row {
        method: case.label.clone(),
        kind: kind.to_owned(),
        sizes: String::new(),
        verdicts: Vec::new(),
        span: method.name.span,
    };
    let bench = match Bench::new(program, case, options) {
        Ok(bench) => bench,
        Err(why) => {
            row.verdicts = vec![Verdict::Skipped(why); CHECKS.len()];
            return row;
        }
    };
    row.sizes = bench.stand.layout.describe();
    let found = [
        bench.start(),
        bench.gradient(),
        bench.reached(),
        bench.alive(),
        bench.runtime(),
        bench.merge(),
        bench.base(),
        bench.sum(),
        bench.batch(),
        bench.padding(),
        bench.prefix(),
        bench.cache(),
    ];
    debug_assert_eq!(found.len(), CHECKS.len());
    let verdicts = found.into_iter();
    row.verdicts = verdicts
        .map(|found| found.unwrap_or_else(Verdict::Skipped))
        .collect();
    row
}

impl<'a> Bench<'a> {
    fn new(program: &'a Program, case: &'a Case, options: &'a Options) -> Result<Self, String> {
        let stand = stand::build(program, case, 1, options.seed)?;
        let values = stand.values(options.seed.wrapping_add(1));
        let outputs = evaluate(
            &stand.adapted,
            &[&stand.inputs, &arrays(&values)?],
            &stand.outputs(),
        )?;
        let slopes = Slopes::new(&stand, options.seed);
        Ok(Bench {
            program,
            case,
            options,
            stand,
            values,
            outputs,
            slopes,
        })
    }

    fn instances(&self) -> impl Iterator<Item = &Arc<Instance>> {
        let methods = self.stand.plan.sites.iter().flat_map(|site| &site.methods);
        methods.map(|method| &method.instance)
    }

    fn reach(&self) -> Tokens {
        let reaches = self
            .instances()
            .map(|instance| token_reach(&instance.forward));
        reaches.max().unwrap_or(Tokens::Own)
    }

    /// What the adapted model gives for other inputs.
    fn on(&self, inputs: &Named) -> Result<Named, String> {
        let values = arrays(&self.values)?;
        evaluate(
            &self.stand.adapted,
            &[inputs, &values],
            &self.stand.outputs(),
        )
    }

    fn base_outputs(&self) -> Result<Named, String> {
        evaluate(
            &self.stand.base,
            &[&self.stand.inputs],
            &self.stand.outputs(),
        )
    }

    fn start(&self) -> Found {
        let outputs = self.stand.outputs();
        let found = evaluate(&self.stand.adapted, &[&self.stand.inputs], &outputs)?;
        let error = apart(&found, &self.base_outputs()?);
        let is_claimed = self
            .instances()
            .all(|instance| is_identity_at_start(instance));
        let why = format!("the output changes by {error:.1e} at the start");
        Ok(verdict(error, ROUNDED, is_claimed, why))
    }

    fn gradient(&self) -> Found {
        let slopes = self.slopes()?;
        let found = slopes.gradients(&self.stand, &self.values)?;
        let seed = self.options.seed.wrapping_add(2);
        let errors = slopes.errors(&self.stand, &self.values, &found, seed)?;
        let worst = errors.iter().max_by(|a, b| a.1.total_cmp(&b.1));
        let Some((name, error)) = worst else {
            return Err("nothing is trained".to_owned());
        };
        let why = format!("the gradient of `{name}` is not the slope of the loss");
        Ok(verdict(*error, SLOPE, true, why))
    }

    fn slopes(&self) -> Result<&Slopes, String> {
        self.slopes.as_ref().map_err(Clone::clone)
    }

    fn reached(&self) -> Found {
        let slopes = self.slopes()?;
        if let Some(name) = slopes.unreached.first() {
            return Ok(Verdict::Fails {
                error: 0.0,
                why: format!("no gradient flows to `{name}`"),
            });
        }
        let found = slopes.gradients(&self.stand, &self.values)?;
        if found.is_empty() {
            return Err("nothing is trained".to_owned());
        }
        let names = slopes.gradients.iter().map(|(name, _)| name).zip(&found);
        let dead = names
            .into_iter()
            .find(|(_, (_, gradient))| is_zero(gradient));
        Ok(match dead {
            Some((name, _)) => Verdict::Fails {
                error: 0.0,
                why: format!("the gradient of `{name}` is zero, whatever the values"),
            },
            None => Verdict::Holds(0.0),
        })
    }

    fn alive(&self) -> Found {
        let slopes = self.slopes()?;
        let start = self.stand.start.iter();
        let start = start.map(|tensor| (tensor.initializer.clone(), tensor.tensor.clone()));
        let found = slopes.gradients(&self.stand, &start.collect::<Vec<_>>())?;
        if found.is_empty() {
            return Err("nothing is trained".to_owned());
        }
        Ok(match found.iter().all(|(_, gradient)| is_zero(gradient)) {
            true => Verdict::Fails {
                error: 0.0,
                why: "at the start every gradient is zero, so that nothing is ever learned"
                    .to_owned(),
            },
            false => Verdict::Holds(0.0),
        })
    }

    fn runtime(&self) -> Found {
        let Some(library) = self.options.library else {
            return Err("ONNX Runtime is left out".to_owned());
        };
        let values = arrays(&self.values)?;
        let (model, wanted, inputs) = match &self.slopes {
            Ok(slopes) => {
                let mut wanted = self.stand.outputs();
                wanted.extend(slopes.gradients.iter().map(|(_, name)| name.clone()));
                let inputs = [self.stand.inputs.clone(), slopes.projections.clone()].concat();
                (&slopes.model, wanted, inputs)
            }
            Err(_) => (
                &self.stand.adapted,
                self.stand.outputs(),
                self.stand.inputs.clone(),
            ),
        };
        let expected = evaluate(model, &[&inputs, &values], &wanted)?;
        let found = in_onnx_runtime(library, model, &self.values, &inputs, &wanted)?;
        let error = apart(&found, &expected);
        let why = "ONNX Runtime computes something else than the reference".to_owned();
        Ok(verdict(error, SINGLE, true, why))
    }

    fn merge(&self) -> Found {
        for instance in self.instances() {
            if let Affine::No { why, .. } = is_affine(&instance.forward) {
                return Ok(Verdict::Not(why.to_owned()));
            }
        }
        let stand = &self.stand;
        let mut model = stand.base.clone();
        let mut sink = Sink::new();
        let values = stand.by_name(&self.values);
        let read = |tensor: &Tensor, _: &mut Sink| Ok(tensor.raw().cloned().unwrap_or_default());
        let mut keep = |_: &Tensor, bytes: Vec<u8>, _: &mut Sink| Ok(TensorData::Raw(bytes.into()));
        let merged = adapt::merge(
            &stand.plan,
            &mut model,
            &stand.modules,
            &values,
            &read,
            &mut keep,
            &mut sink,
        );
        if merged.is_err() {
            let first = sink.diagnostics().first();
            let why = first.map_or_else(String::new, |diagnostic| diagnostic.message.clone());
            return Ok(match stand.layout.kind {
                // Linear in what it normalizes alone: said by the merge.
                SiteKind::Norm => Verdict::Not(why),
                _ => Verdict::Fails {
                    error: f64::INFINITY,
                    why,
                },
            });
        }
        let found = evaluate(&model, &[&stand.inputs], &stand.outputs())?;
        let why = "the merged model gives something else than the adapted one".to_owned();
        Ok(verdict(apart(&found, &self.outputs), MERGED, true, why))
    }

    fn base(&self) -> Found {
        let (base, adapted) = (&self.stand.base.graph, &self.stand.adapted.graph);
        for id in base.initializers() {
            let value = base.value(*id);
            let now = adapted.find_value(&value.name).map(|id| adapted.value(id));
            let Some(now) = now else { continue };
            let raw = |value: &crate::graph::Value| value.tensor().and_then(|t| t.raw().cloned());
            if raw(now) != raw(value) {
                return Ok(Verdict::Fails {
                    error: f64::INFINITY,
                    why: format!("`{}` of the base is changed", value.name),
                });
            }
        }
        Ok(Verdict::Holds(0.0))
    }

    fn sum(&self) -> Found {
        let pair = stand::build(self.program, self.case, 2, self.options.seed)?;
        let other = self.stand.values(self.options.seed.wrapping_add(3));
        let base = self.base_outputs()?;
        let given = arrays(&other)?;
        let outputs = self.stand.outputs();
        let second = evaluate(&self.stand.adapted, &[&self.stand.inputs, &given], &outputs)?;
        let mut both = Vec::new();
        for (own, planned) in self.stand.plan.sites.iter().zip(&pair.plan.sites) {
            for (values, method) in [&self.values, &other].into_iter().zip(&planned.methods) {
                for (to, from) in method.parameters.iter().zip(&own.methods[0].parameters) {
                    let name = pair.start[*to].initializer.clone();
                    both.push((name, values[*from].1.clone()));
                }
            }
        }
        let found = evaluate(&pair.adapted, &[&pair.inputs, &arrays(&both)?], &outputs)?;
        let mut error = 0.0_f64;
        for (((_, y), (_, a)), ((_, b), (_, ab))) in base
            .iter()
            .zip(&self.outputs)
            .zip(second.iter().zip(&found))
        {
            let (y, a, b) = (y.to_f64s(), a.to_f64s(), b.to_f64s());
            let sums = a.iter().zip(&b).zip(&y).map(|((a, b), y)| a + b - y);
            error = error.max(distance(&ab.to_f64s(), &sums.collect::<Vec<_>>()));
        }
        let is_claimed = self
            .instances()
            .all(|instance| is_additive(&instance.forward));
        let why = "the second of two adapters works on what the first gives".to_owned();
        Ok(verdict(error, EXACT, is_claimed, why))
    }

    fn batch(&self) -> Found {
        let mut error = 0.0_f64;
        for sample in 0..BATCH {
            let inputs = part(&self.stand.inputs, 0, sample, sample + 1)?;
            let alone = self.on(&inputs)?;
            let together = part(&self.outputs, 0, sample, sample + 1)?;
            error = error.max(apart(&alone, &together));
        }
        let why = "a sample's output depends on the others of its batch".to_owned();
        Ok(verdict(error, EXACT, true, why))
    }

    fn padding(&self) -> Found {
        self.has_tokens()?;
        let reach = self.reach();
        let mut error = self.padded(true)?;
        // A method that reads earlier tokens and no mask counts padding in front, as a decoder does.
        if reach != Tokens::Earlier {
            error = error.max(self.padded(false)?);
        }
        let why = format!("padding changes the output by {error:.1e}");
        Ok(verdict(error, EXACT, reach <= Tokens::Masked, why))
    }

    /// How far outputs are apart without and with padding behind, or in front.
    fn padded(&self, behind: bool) -> Result<f64, String> {
        let tokens = self.stand.tokens;
        let more = tokens - 2;
        let mut inputs = Named::new();
        for (name, array) in &self.stand.inputs {
            // The padding holds other tokens, which the mask leaves out.
            let other = match name.as_str() {
                "attention_mask" => made(array.dtype(), &[BATCH, more], vec![0.0; BATCH * more])?,
                _ => cut(array, 1, 0, more)?,
            };
            let (first, second) = if behind {
                (array, &other)
            } else {
                (&other, array)
            };
            inputs.push((name.clone(), join(first, second, 1)?));
        }
        let start = if behind { 0 } else { more };
        let own = part(&self.on(&inputs)?, 1, start, start + tokens)?;
        Ok(apart(&own, &self.outputs))
    }

    fn prefix(&self) -> Found {
        self.has_tokens()?;
        let length = self.stand.tokens - 2;
        let found = self.on(&part(&self.stand.inputs, 1, 0, length)?)?;
        let error = apart(&found, &part(&self.outputs, 1, 0, length)?);
        let is_claimed = self.reach() <= Tokens::Earlier;
        let why = format!("later tokens change the output by {error:.1e}");
        Ok(verdict(error, EXACT, is_claimed, why))
    }

    fn cache(&self) -> Found {
        self.has_tokens()?;
        let tokens = self.stand.tokens;
        let last = tokens - 1;
        let mut inputs = part(&self.stand.inputs, 1, last, tokens)?;
        inputs.retain(|(name, _)| name != "attention_mask");
        inputs.push(("attention_mask".to_owned(), ones(BATCH, 1)?));
        let error = apart(&self.on(&inputs)?, &part(&self.outputs, 1, last, tokens)?);
        let is_claimed = self.reach() == Tokens::Own;
        let why = format!("a token by itself has another output, by {error:.1e}");
        Ok(verdict(error, EXACT, is_claimed, why))
    }

    fn has_tokens(&self) -> Result<(), String> {
        match self.stand.layout.kind {
            SiteKind::Conv => Err("a convolution has positions, no tokens".to_owned()),
            SiteKind::Cache => Err("a cache holds tokens of earlier calls".to_owned()),
            _ => Ok(()),
        }
    }
}

/// What is claimed must hold; what is not may.
fn verdict(error: f64, tolerance: f64, is_claimed: bool, why: String) -> Verdict {
    match (error <= tolerance, is_claimed) {
        (true, _) => Verdict::Holds(error),
        (false, true) => Verdict::Fails { error, why },
        (false, false) => Verdict::Not(why),
    }
}

fn is_zero(array: &Array) -> bool {
    array.to_f64s().iter().all(|value| *value == 0.0)
}

/// A part of every array along an axis.
fn part(named: &Named, axis: usize, start: usize, end: usize) -> Result<Named, String> {
    let parts = named.iter();
    parts
        .map(|(name, array)| Ok((name.clone(), cut(array, axis, start, end)?)))
        .collect()
}

/// Runs a model with these values for its initializers.
fn in_onnx_runtime(
    library: &'static Library,
    model: &Model,
    values: &[(String, Tensor)],
    inputs: &Named,
    wanted: &[String],
) -> Result<Named, String> {
    let mut model = model.clone();
    for (name, tensor) in values {
        if let Some(id) = model.graph.find_value(name) {
            model.graph.replace_elements(id, tensor.clone());
        }
    }
    for name in wanted {
        let id = model.graph.find_value(name).ok_or("a value is missing")?;
        if !model.graph.is_output(id) {
            model.graph.add_output(id);
        }
    }
    let mut bytes = Vec::new();
    onnx::write_model(&model, &mut bytes).map_err(|error| error.to_string())?;
    let mut sink = Sink::new();
    let first = |sink: &Sink| {
        let first = sink.diagnostics().first();
        first.map_or_else(String::new, |diagnostic| diagnostic.message.clone())
    };
    let source = ModelSource::Bytes {
        name: "proof",
        bytes: &bytes,
    };
    let options = crate::runtime::Options::default();
    let opened = Session::open(library, source, &options, &mut sink);
    let Ok(mut session) = opened else {
        return Err(first(&sink));
    };
    let mut given = NamedTensors::default();
    for (name, array) in inputs {
        let dims: Vec<i64> = array.dims().iter().map(|d| *d as i64).collect();
        let bytes = crate::reference::encode(array);
        let tensor = HostTensor::new(array.dtype(), &dims, bytes);
        given.push(name.clone(), tensor.ok_or("an input has no bytes")?);
    }
    let Ok(results) = session.run(&given, &mut sink) else {
        return Err(first(&sink));
    };
    let mut found = Named::new();
    for name in wanted {
        let tensor = results.get(name).ok_or("an output is missing")?;
        let dims: Vec<usize> = tensor.dims().iter().map(|d| *d as usize).collect();
        let data = tensor.to_f64s().ok_or("an output is no float")?;
        found.push((name.clone(), made(tensor.dtype(), &dims, data)?));
    }
    Ok(found)
}
