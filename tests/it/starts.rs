//! Starts from data and starts at random, beside PEFT's recordings, where no tensor is the same.

use crate::adapters::model;
use crate::methods::{Dense, error, lora_starts, product};
use crate::tolerances::{METHOD_OUTPUT, START_PRODUCT};
use peftc::adapt::{self, Calibration, Plan, Starts};
use peftc::diag::{Code, Sink, SourceMap};
use peftc::driver::{ModelOptions, PlanOptions, Session};
use peftc::graph::Tensor;
use peftc::hir::Statistic;
use peftc::modules::Modules;
use peftc::runtime::NamedTensors;
use std::collections::BTreeMap;

const SITES: [&str; 2] = ["layers.0.q", "layers.0.v"];

/// What the recorded calibration data says of the modules of a plan; nothing where there is none. The
/// loss is the sum over sites of the mean of their squared outputs.
pub(crate) fn calibration(recording: &NamedTensors, plan: &Plan, modules: &Modules) -> Calibration {
    let mut found = Calibration::default();
    for (site, statistic) in adapt::statistics(plan, modules, |_| false) {
        let path = &modules.sites[site].path;
        if let Some((dims, data)) = statistic_of(recording, path, statistic) {
            let single: Vec<f32> = data.iter().map(|value| *value as f32).collect();
            found.insert(path, statistic, Tensor::from_f32(&dims, &single));
        }
    }
    found
}

/// A statistic of the recorded data of a site.
pub(crate) fn statistic_of(
    recording: &NamedTensors,
    path: &str,
    statistic: Statistic,
) -> Option<Dense> {
    let data = recording.get(&format!("calibration.{path}"))?;
    let [batches, tokens, features] = <[i64; 3]>::try_from(data.dims()).unwrap();
    let values = data.to_f64s().unwrap();
    let (width, batch) = (features as usize, (tokens * features) as usize);
    let mut sums = Sums {
        width,
        data: Vec::new(),
    };
    match statistic {
        Statistic::InputMean => return Some((vec![features], mean_of(&values, width))),
        Statistic::InputCovariance => {
            let mean = mean_of(&values, width);
            for row in values.chunks(width) {
                let row: Vec<f64> = row.iter().zip(&mean).map(|(x, m)| x - m).collect();
                sums.add(&row, &row, 1.0 / (batches * tokens) as f64);
            }
        }
        Statistic::InputGram => {
            for rows in values.chunks(batch) {
                let most = rows.iter().copied().fold(f64::MIN, f64::max);
                let factor = 1.0 / (most * most * batches as f64);
                rows.chunks(width)
                    .for_each(|row| sums.add(row, row, factor));
            }
        }
        Statistic::WeightGradient => {
            for row in values.chunks(width) {
                let y = output(recording, path, row);
                let count = (y.len() as i64 * tokens * batches) as f64;
                sums.add(&y, row, 2.0 / count);
            }
        }
    }
    let rows = (sums.data.len() / width) as i64;
    Some(((vec![rows, features]), sums.data))
}

/// What the layer makes of a row.
fn output(recording: &NamedTensors, path: &str, row: &[f64]) -> Vec<f64> {
    let read = |part: &str| recording.get(&format!("base.{path}.{part}"))?.to_f64s();
    let weight = read("weight").unwrap();
    let products = weight
        .chunks(row.len())
        .map(|w| w.iter().zip(row).map(|(a, b)| a * b).sum());
    let products: Vec<f64> = products.collect();
    match read("bias") {
        Some(bias) => products.iter().zip(bias).map(|(a, b)| a + b).collect(),
        None => products,
    }
}

fn mean_of(values: &[f64], width: usize) -> Vec<f64> {
    let rows = values.chunks(width);
    let count = rows.len() as f64;
    let mut mean = vec![0.0; width];
    rows.for_each(|row| mean.iter_mut().zip(row).for_each(|(m, x)| *m += x / count));
    mean
}

/// Sums of outer products.
struct Sums {
    width: usize,
    data: Vec<f64>,
}

impl Sums {
    fn add(&mut self, a: &[f64], b: &[f64], factor: f64) {
        assert_eq!(b.len(), self.width);
        self.data.resize(a.len() * b.len(), 0.0);
        let cells = a.iter().flat_map(|a| b.iter().map(move |b| a * b));
        self.data
            .iter_mut()
            .zip(cells)
            .for_each(|(sum, cell)| *sum += factor * cell);
    }
}

/// The sum of the diagonal of A C Aᵀ.
fn explained(a: &Dense, c: &Dense) -> f64 {
    let named = |name: &str| match name {
        "A" => a.clone(),
        _ => c.clone(),
    };
    let (dims, data) = product("A C A.T", &named);
    (0..dims[0] as usize)
        .map(|at| data[at * dims[1] as usize + at])
        .sum()
}

#[test]
fn eva_explains_no_less_of_the_inputs_than_pefts() {
    let with = "eva(rank = 3) override \"layers.0.v\" (rank = 5)";
    let (recording, found) = lora_starts("start_eva", None, with);
    for site in SITES {
        let ours = &found[&(site.to_owned(), "A".to_owned())];
        let theirs = recording.get(&format!("{site}.lora_A.weight")).unwrap();
        let theirs = (theirs.dims().to_vec(), theirs.to_f64s().unwrap());
        assert_eq!(ours.0, theirs.0);
        let covariance = statistic_of(&recording, site, Statistic::InputCovariance).unwrap();
        let (ours, theirs) = (
            explained(ours, &covariance),
            explained(&theirs, &covariance),
        );
        // PEFT's is incremental and keeps six directions between batches.
        assert!(
            ours >= theirs && theirs > 0.95 * ours,
            "{site}: {ours} beside {theirs}"
        );
    }
}

/// Modules share out the ranks that PEFT gives them, and have the same directions as without.
#[test]
fn eva_gives_every_module_the_rank_that_peft_gives_it() {
    let (recording, found) = lora_starts("start_eva", None, "eva(rank = 4, rho = 1.5)");
    let (_, whole) = lora_starts("start_eva", None, "eva(rank = 6)");
    let mut ranks = Vec::new();
    for site in SITES {
        let place = (site.to_owned(), "A".to_owned());
        let (dims, data) = &found[&place];
        assert_eq!(dims[0], 6, "4 times 1.5");
        let theirs = recording.get(&format!("{site}.lora_A.weight")).unwrap();
        let rank = theirs.dims()[0] as usize;
        let (kept, left) = data.split_at(rank * dims[1] as usize);
        assert!(left.iter().all(|value| *value == 0.0), "{site}");
        assert_eq!(kept, &whole[&place].1[..kept.len()], "{site}");
        ranks.push(rank);
    }
    assert_eq!(ranks, [3, 5]);
}

#[test]
fn an_orthogonal_start_is_none_of_the_two_factors() {
    let with = "lora(rank = 4, alpha = 6, start = \"orthogonal\")";
    let (recording, found) = lora_starts("start_orthogonal", None, with);
    for site in SITES {
        let of = |name: &str| found[&(site.to_owned(), name.to_owned())].clone();
        let theirs = |name: &str| {
            let tensor = recording
                .get(&format!("{site}.lora_{name}.weight"))
                .unwrap();
            (tensor.dims().to_vec(), tensor.to_f64s().unwrap())
        };
        let length = |(_, data): &Dense| data.iter().map(|v| v * v).sum::<f64>().sqrt();
        for (from, tensor) in [("ours", &of as &dyn Fn(&str) -> Dense), ("PEFT's", &theirs)] {
            let both = length(&tensor("A")) * length(&tensor("B"));
            let change = length(&product("B A", tensor));
            assert!(
                change < START_PRODUCT * both,
                "{from} at {site}: {change} of {both}"
            );
            for name in ["A", "B"] {
                let (dims, data) = tensor(name);
                let deviation = length(&(dims, data.clone())) / (data.len() as f64).sqrt();
                // Entries have variance 1/200.
                assert!(
                    (0.05..0.1).contains(&deviation),
                    "{from} at {site}: {name} {deviation}"
                );
            }
        }
    }
}

#[test]
fn a_randomized_start_is_near_the_exact_one() {
    let delta = |with: &str| -> BTreeMap<&str, Dense> {
        let (_, found) = lora_starts("start_pissa", Some("lora"), with);
        let of = |site: &str, name: &str| found[&(site.to_owned(), name.to_owned())].clone();
        SITES
            .iter()
            .map(|site| (*site, product("B A", &|name| of(site, name))))
            .collect()
    };
    let exact = delta("pissa(rank = 4, alpha = 6)");
    for (niter, most) in [(4, 2e-2), (40, METHOD_OUTPUT)] {
        let randomized = delta(&format!("pissa(rank = 4, alpha = 6, niter = {niter})"));
        for site in SITES {
            let error = error(&randomized[site].1, &exact[site].1);
            assert!(error <= most, "{site} after {niter}: {error:e}");
        }
    }
}

/// Modules are computed side by side; what is said of them is not a matter of luck.
#[test]
fn of_several_weights_that_cannot_be_used_the_first_one_is_told() {
    let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
    let mut session = Session {
        sources: &mut sources,
        sink: &mut sink,
    };
    let text = "use std::pissa\nadapter a { adapt all linear with pissa(rank = 2) }\n";
    let spec = session.spec_of("a.peft", text).unwrap();
    let adapter = session.adapters(&spec, &[]).unwrap()[0];
    let loaded = session
        .model(&model("llama.ts"), &ModelOptions::default())
        .unwrap();
    let (_, planned) = session
        .plan(&spec, adapter, &loaded, &PlanOptions::default())
        .unwrap();
    let (none, mut told) = (BTreeMap::new(), Vec::new());
    // Every weight but the first one that is asked for in the order of the plan.
    let first = &loaded.modules.sites[planned.plan.sites[0].site];
    let good = loaded.model.graph.value(first.weight.value).name.clone();
    let good = loaded.model.graph.find_value(&good);
    let good = good
        .and_then(|id| loaded.model.graph.value(id).constant())
        .unwrap();
    for _ in 0..20 {
        let read = |tensor: &Tensor, sink: &mut Sink| {
            let bytes = loaded.weights.read(tensor, sink)?;
            match std::ptr::eq(tensor, good) {
                true => Ok(bytes),
                false => Ok(f32::NAN.to_le_bytes().repeat(bytes.len() / 4).into()),
            }
        };
        let starts = Starts::new(0, &read, &none);
        let mut sink = Sink::new();
        // On the loaded model itself: its tensors are known by where they lie.
        let found = adapt::start_values(
            &planned.plan,
            &loaded.model,
            &loaded.modules,
            &starts,
            &mut sink,
        );
        assert!(found.is_err());
        let all = sink.diagnostics();
        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!(all[0].code, Code::E0457);
        told.push(all[0].message.clone());
    }
    told.dedup();
    let second = &loaded.modules.sites[planned.plan.sites[1].site].path;
    assert!(
        told.len() == 1 && told[0].contains(second.as_str()),
        "{told:?}"
    );
}
