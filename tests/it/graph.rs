//! `peftc graph`: drawings of real exports.

use crate::adapters::fixtures;
use crate::checker::models;
use peftc::diag::{Sink, SourceMap};
use peftc::driver::{ItemKind, ModelOptions, Reach, Session};
use std::path::Path;
use std::process::Command;

/// Draws a module of a fixture, under an adapter if there is one.
#[track_caller]
fn drawn(model: &str, spec: Option<&str>, site: &str, kind: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let model = Path::new("models").join(format!("{model}.onnx"));
    let mut peftc = Command::new(env!("CARGO_BIN_EXE_peftc"));
    peftc.current_dir(fixtures()).arg("graph");
    match spec {
        Some(spec) => {
            let path = folder.path().join("a.peft");
            std::fs::write(&path, spec).unwrap();
            peftc.arg(path).arg("--model").arg(model);
        }
        None => {
            peftc.arg(model);
        }
    }
    peftc.args(["--site", site, "--as", kind]);
    let output = peftc.output().unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{talk}");
    String::from_utf8(output.stdout).unwrap()
}

const LORA: &str = "use std::lora\nadapter support {\n  adapt all linear with lora(rank = 4)\n}\n";
const Q: &str = "model.layers.0.self_attn.q_proj";

#[test]
fn a_module_is_drawn_before_and_after_as_dot() {
    insta::assert_snapshot!(drawn("llama.dynamo", Some(LORA), Q, "dot"));
}

#[test]
fn a_module_is_drawn_before_and_after_as_svg() {
    let svg = drawn("llama.dynamo", Some(LORA), Q, "svg");
    assert_eq!(svg, drawn("llama.dynamo", Some(LORA), Q, "svg"));
    insta::assert_snapshot!(svg);
}

#[test]
fn a_module_is_drawn_as_text() {
    insta::assert_snapshot!(drawn("llama.dynamo", Some(LORA), Q, "text"));
    insta::assert_snapshot!(drawn("llama.dynamo", None, Q, "text"));
}

#[test]
fn the_kind_follows_from_the_name_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    for (name, start) in [("a.svg", "<svg "), ("a.gv", "digraph "), ("a.txt", Q)] {
        let path = folder.path().join(name);
        let mut peftc = Command::new(env!("CARGO_BIN_EXE_peftc"));
        peftc
            .current_dir(fixtures())
            .args(["graph", "models/llama.dynamo.onnx", "--site", Q]);
        assert!(
            peftc
                .arg("-o")
                .arg(&path)
                .output()
                .unwrap()
                .status
                .success()
        );
        assert!(
            std::fs::read_to_string(&path).unwrap().starts_with(start),
            "{name}"
        );
    }
}

/// Signs of the blocks of a drawing as text.
fn signs(text: &str, sign: &str) -> usize {
    let legend = ["* the module's node", "+ inserted by the adapter"];
    let lines = text.lines().filter(|line| !legend.contains(line));
    lines
        .filter(|line| line.starts_with(sign) && line.contains(" = "))
        .count()
}

#[test]
fn what_is_drawn_as_inserted_is_what_the_method_brings() {
    // Two transposed parameters, two products, a scale and a sum at a whole projection; a slice
    // more for each part of a fused one, and the join of all three.
    for (model, site, nodes) in [
        ("llama.dynamo", Q, 6),
        ("llama.genai_fp32", Q, 3 * 7 + 1),
        (
            "t5.optimum_merged",
            "decoder.block.0.layer.0.SelfAttention.q",
            6,
        ),
    ] {
        let text = drawn(model, Some(LORA), site, "text");
        assert_eq!(signs(&text, "* "), 1, "{model}: {text}");
        assert_eq!(signs(&text, "+ %"), nodes, "{model}: {text}");
    }
}

#[test]
fn every_module_of_every_export_can_be_drawn() {
    let mut drawings = 0;
    for (name, path) in models() {
        let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
        let mut session = Session {
            sources: &mut sources,
            sink: &mut sink,
        };
        let loaded = session.model(&path, &ModelOptions::default()).unwrap();
        for site in &loaded.modules.sites {
            let reach = Reach { hops: 2 };
            let found = session.neighborhood(&loaded, None, &site.path, reach);
            let picture = found.unwrap().base;
            let count = |kind| picture.items.iter().filter(|i| i.kind == kind).count();
            assert_eq!(count(ItemKind::Site), 1, "{name}: {}", site.path);
            for (index, item) in picture.items.iter().enumerate() {
                let is_wired = picture
                    .wires
                    .iter()
                    .any(|(a, b)| *a == index || *b == index);
                assert!(is_wired, "{name}: {}: {item:?}", site.path);
            }
            assert!(picture.wires.iter().all(|(from, to)| from < to));
            drawings += 1;
        }
    }
    assert!(drawings >= 500, "{drawings} drawings");
}
