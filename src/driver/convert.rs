//! Writes what an adapter changes as an adapter of low rank: a spec and its tensors.

use super::artifacts::{AdapterNames, Destination, check_unread};
use super::compile::Progress;
use super::session::{Loaded, Planned, Session};
use super::targets::pattern;
use super::values::trained_values;
use crate::adapt::{self, SiteChange};
use crate::diag::{Reported, Sink};
use crate::files::{self, Staging};
use crate::graph::Tensor;
use crate::linalg::{Budget, low_rank, product};
use crate::modules::Modules;
use crate::ty::DType;
use crate::weights::{NamedTensor, write_tensors};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

/// What to convert, and how far.
#[derive(Clone, Debug)]
pub struct ConvertOptions {
    /// The method of the library that the adapter becomes: one that adds `alpha / rank` times the product
    /// `B A` of `A` `[rank, in]` and `B` `[out, rank]`, and with `bias = true` the same times `b`.
    pub to: String,
    /// The adapter's tensors.
    pub values: PathBuf,
    /// Of every module.
    pub budget: Budget,
    /// The error for which the report says the rank.
    pub asked: f64,
    pub destination: Destination,
    /// Hears of nodes that are done.
    pub progress: Progress,
}

/// What a conversion has written.
#[derive(Debug)]
pub struct ConvertArtifacts {
    pub spec: PathBuf,
    pub weights: PathBuf,
    pub sites: Vec<ConvertedSite>,
}

/// One converted module.
#[derive(Clone, Debug)]
pub struct ConvertedSite {
    /// The module's path, with its slice.
    pub name: String,
    pub rank: usize,
    /// The Frobenius norm of the change of the weight,
    pub length: f64,
    /// and of its difference from the product of the factors as they are written.
    pub distance: f64,
    /// The rank that leaves the error asked about.
    pub rank_for: usize,
    /// Whether the bias changes, too.
    pub bias: bool,
}

impl ConvertedSite {
    /// What is lost of the change: a share of its length.
    pub fn error(&self) -> f64 {
        share(self.distance, self.length)
    }
}

impl ConvertArtifacts {
    /// What is lost of all changes together.
    pub fn error(&self) -> f64 {
        let length = |of: fn(&ConvertedSite) -> f64| {
            let squares = self.sites.iter().map(|site| of(site).powi(2));
            squares.sum::<f64>().sqrt()
        };
        share(length(|site| site.distance), length(|site| site.length))
    }
}

fn share(part: f64, whole: f64) -> f64 {
    if part == 0.0 { 0.0 } else { part / whole }
}

/// Writes the adapter of a plan as `<model>.<adapter>.<method>.peft` and `.safetensors` beside the model,
/// or as `<method>.peft` and `.safetensors` in a folder.
pub fn convert(
    session: &mut Session<'_>,
    loaded: &Loaded,
    planned: &Planned,
    options: &ConvertOptions,
) -> Result<ConvertArtifacts, Reported> {
    let beside = format!("{}.{}", planned.plan.adapter, options.to);
    let names = AdapterNames::new(&loaded.path, &options.destination, &beside, &options.to);
    let mut read = vec![options.values.clone()];
    let spec = planned.plan.statements.first().map(|s| s.span.file);
    read.extend(spec.map(|file| PathBuf::from(session.sources.name(file))));
    let targets = [names.spec.as_str(), &names.weights];
    check_unread(&names.folder, targets, &read, session.sink)?;
    let values = trained_values(&planned.plan, None, &options.values, session.sink)?;
    let found = converted(loaded, planned, &values, options, session.sink)?;
    let text = written((&planned.plan.adapter, &options.to), &found, loaded);
    check_text(session, loaded, &names.spec, &text, &found)?;
    let sink = &mut *session.sink;
    let staging = Staging::new(&names.folder, sink)?;
    let tensors: Vec<NamedTensor> = found.iter().flat_map(Factors::tensors).collect();
    let identity = format!("{} as {}", planned.plan.adapter, options.to);
    let metadata = ("peftc", identity);
    write_tensors(&staging.path(&names.weights), &tensors, metadata, sink)?;
    files::write(&staging.path(&names.spec), sink, |out| {
        out.write_all(text.as_bytes())
    })?;
    staging.publish(&[names.weights.clone(), names.spec.clone()], sink)?;
    Ok(ConvertArtifacts {
        spec: names.folder.join(&names.spec),
        weights: names.folder.join(&names.weights),
        sites: found.into_iter().map(|factors| factors.site).collect(),
    })
}

/// The factors of one module.
struct Factors {
    site: ConvertedSite,
    path: String,
    slice: Option<std::ops::Range<i64>>,
    a: Tensor,
    b: Tensor,
    bias: Option<Tensor>,
}

impl Factors {
    fn new(change: &SiteChange, options: &ConvertOptions) -> Result<Factors, String> {
        let found = low_rank(&change.weight, options.budget).map_err(|why| why.to_string())?;
        let tensor = |dims: &[usize], data: &[f64]| {
            let dims: Vec<i64> = dims.iter().map(|dim| *dim as i64).collect();
            let data: Vec<f32> = data.iter().map(|value| *value as f32).collect();
            Tensor::from_f32(&dims, &data)
        };
        let (mut left, mut right) = (found.left.clone(), found.right.clone());
        for value in left.data.iter_mut().chain(&mut right.data) {
            *value = f64::from(*value as f32);
        }
        let written = product(&left, &right).ok_or("the factors do not fit")?;
        let pairs = change.weight.data.iter().zip(&written.data);
        let square = |sum: f64, value: f64| sum + value * value;
        let distance = pairs.map(|(a, b)| a - b).fold(0.0, square).sqrt();
        Ok(Factors {
            site: ConvertedSite {
                name: String::new(),
                rank: found.rank(),
                length: change.weight.data.iter().copied().fold(0.0, square).sqrt(),
                distance,
                rank_for: found.rank_for(options.asked),
                bias: change.bias.is_some(),
            },
            path: String::new(),
            slice: change.slice.clone(),
            a: tensor(&[right.rows, right.columns], &right.data),
            b: tensor(&[left.rows, left.columns], &left.data),
            bias: change.bias.as_ref().map(|bias| tensor(&[bias.len()], bias)),
        })
    }

    fn at(&self, path: &str) -> Factors {
        let name = match &self.slice {
            Some(slice) => format!("{path}[{}..{}]", slice.start, slice.end),
            None => path.to_owned(),
        };
        Factors {
            site: ConvertedSite {
                name,
                ..self.site.clone()
            },
            path: path.to_owned(),
            slice: self.slice.clone(),
            a: self.a.clone(),
            b: self.b.clone(),
            bias: self.bias.clone(),
        }
    }

    fn tensors(&self) -> impl Iterator<Item = NamedTensor> + '_ {
        let all = [
            ("A", Some(&self.a)),
            ("B", Some(&self.b)),
            ("b", self.bias.as_ref()),
        ];
        all.into_iter().filter_map(|(name, tensor)| {
            let tensor = tensor?;
            Some(NamedTensor {
                name: format!("{}.{name}", self.site.name),
                dtype: DType::F32,
                dims: tensor.dims.clone(),
                data: tensor.raw().cloned().unwrap_or_default(),
            })
        })
    }

    fn has_values_of(&self, other: &Factors) -> bool {
        let all = |factors: &Factors| {
            factors
                .tensors()
                .map(|t| (t.dims, t.data))
                .collect::<Vec<_>>()
        };
        all(self) == all(other)
    }
}

/// Every module once, in graph order.
fn converted(
    loaded: &Loaded,
    planned: &Planned,
    values: &BTreeMap<String, Tensor>,
    options: &ConvertOptions,
    sink: &mut Sink,
) -> Result<Vec<Factors>, Reported> {
    let mut found: Vec<Factors> = Vec::new();
    let mut each = |change: SiteChange, (done, of): (usize, usize)| {
        let factors = Factors::new(&change, options)?;
        for path in &change.paths {
            let factors = factors.at(path);
            match found
                .iter()
                .find(|known| known.site.name == factors.site.name)
            {
                Some(known) if known.has_values_of(&factors) => {}
                Some(_) => return Err("two nodes of this name change differently".to_owned()),
                None => found.push(factors),
            }
        }
        options.progress.tell(done, of);
        Ok(())
    };
    let reader = |tensor: &Tensor, sink: &mut Sink| loaded.weights.read(tensor, sink);
    let Loaded { model, modules, .. } = loaded;
    adapt::changes(
        &planned.plan,
        model,
        modules,
        values,
        &reader,
        &mut each,
        sink,
    )?;
    Ok(found)
}

/// The spec: one statement for every rank, with and without a bias.
fn written((adapter, to): (&str, &str), found: &[Factors], loaded: &Loaded) -> String {
    let mut groups: BTreeMap<(usize, bool), Vec<String>> = BTreeMap::new();
    for factors in found {
        let key = (factors.site.rank, factors.site.bias);
        groups
            .entry(key)
            .or_default()
            .push(target(factors, &loaded.modules));
    }
    let mut text = format!(
        "//! `{adapter}` as changes of low rank.\n\nuse std::{to}\n\nadapter {adapter} {{\n"
    );
    if let Some((list, sequence)) = loaded.layers() {
        let layers: Vec<String> = sequence.iter().map(usize::to_string).collect();
        let _ = writeln!(text, "  layers \"{list}\" = [{}]", layers.join(", "));
    }
    for ((rank, bias), targets) in groups {
        let bias = if bias { ", bias = true" } else { "" };
        let between = if targets.len() == 1 { " " } else { "\n    " };
        let targets = targets.join(",\n    ");
        // With alpha at the rank, what is added is B A as it is.
        let call = format!("{to}(rank = {rank}, alpha = {rank}.0{bias})");
        let _ = writeln!(text, "  adapt {targets}{between}with {call}");
    }
    text.push_str("}\n");
    text
}

/// A pattern that matches one module alone, and of it the part that is changed.
fn target(factors: &Factors, modules: &Modules) -> String {
    let mut pattern = pattern(&factors.path, modules);
    if let Some(slice) = &factors.slice {
        let _ = write!(pattern, "[{}..{}]", slice.start, slice.end);
    }
    pattern
}

/// The spec asks for the tensors that are written, or is not written.
fn check_text(
    session: &mut Session<'_>,
    loaded: &Loaded,
    name: &str,
    text: &str,
    found: &[Factors],
) -> Result<(), Reported> {
    let spec = session.spec_of(name, text)?;
    let adapter = session.one_adapter(&spec, None)?;
    let options = adapt::Options::default();
    let (_, planned) = session.plan(&spec, adapter, loaded, &options)?;
    session.sink.failed()?;
    let asked = planned
        .plan
        .parameters
        .iter()
        .map(|p| (p.name.clone(), p.dims.clone()));
    let tensors = found
        .iter()
        .flat_map(Factors::tensors)
        .map(|t| (t.name, t.dims));
    let (asked, tensors): (BTreeMap<_, _>, BTreeMap<_, _>) = (asked.collect(), tensors.collect());
    debug_assert_eq!(asked, tensors, "the spec is made for these tensors");
    Ok(())
}
