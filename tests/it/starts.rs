//! Starts at random, beside PEFT's recordings, where no tensor is the same.

use crate::adapters::model;
use crate::methods::{Dense, error, lora_starts, product};
use crate::tolerances::{METHOD_OUTPUT, START_PRODUCT};
use peftc::adapt::{self, Starts};
use peftc::diag::{Code, Sink, SourceMap};
use peftc::driver::{ModelOptions, PlanOptions, Session};
use peftc::graph::Tensor;
use std::collections::BTreeMap;

const SITES: [&str; 2] = ["layers.0.q", "layers.0.v"];

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
    let planned = session
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
