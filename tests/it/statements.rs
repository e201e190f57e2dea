//! What one statement becomes that adapts a module in several places or by several methods.

use crate::adapters::{compiled, distance, fixtures, model, outputs, recorded};
use crate::tolerances::START_ABSOLUTE;
use peftc::runtime::NamedTensors;
use std::path::Path;

/// Names and shapes of the adapter's tensors, and the model's bytes.
fn adapted(spec: &str, name: &str) -> (Vec<(String, Vec<i64>)>, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let path = compiled(spec, &model(name), None, folder.path());
    let beside = |file: &str| path.parent().unwrap_or(Path::new("")).join(file);
    let tensors = NamedTensors::read_safetensors(&beside("adapter.safetensors")).unwrap();
    let shapes = tensors.0.iter();
    let mut shapes: Vec<_> = shapes
        .map(|(name, tensor)| (name.clone(), tensor.dims().to_vec()))
        .collect();
    shapes.sort();
    (shapes, std::fs::read(path).unwrap())
}

#[test]
fn slices_of_one_statement_are_those_of_several() {
    let spec = |body: &str| format!("use std::lora\nadapter a {{\n{body}\n}}\n");
    let one = adapted(
        &spec(
            "adapt \"h.0.attn.c_attn\"[..out / 3], \"h.0.attn.c_attn\"[2 * out / 3..] with lora(rank = 4)",
        ),
        "gpt2.ts",
    );
    let names: Vec<&str> = one.0.iter().map(|(name, _)| name.as_str()).collect();
    let path = "transformer.h.0.attn.c_attn";
    let expected = ["[0..64].A", "[0..64].B", "[128..192].A", "[128..192].B"];
    assert_eq!(names, expected.map(|part| format!("{path}{part}")));
    let two = adapted(
        &spec(
            "adapt \"h.0.attn.c_attn\"[0..64] with lora(rank = 4)\nadapt \"h.0.attn.c_attn\"[128..192] with lora(rank = 4)",
        ),
        "gpt2.ts",
    );
    assert_eq!(one, two);
}

#[test]
fn a_method_may_stand_twice_in_a_statement() {
    let spec = "use std::{lora, lora as wide}\nadapter a {\n  adapt \"layers.0.self_attn.q_proj\" with lora(rank = 2) + wide(rank = 4)\n}\n";
    let (shapes, _) = adapted(spec, "llama.ts");
    let path = "model.layers.0.self_attn.q_proj";
    let expected = [
        ("lora.A", [2, 64]),
        ("lora.B", [128, 2]),
        ("lora_2.A", [4, 64]),
        ("lora_2.B", [128, 4]),
    ];
    let expected = expected.map(|(name, dims)| (format!("{path}.{name}"), dims.to_vec()));
    assert_eq!(shapes, expected);
}

/// What adapts a part of a module's outputs computes this part of the base module.
#[test]
fn a_part_of_a_module_starts_as_the_base() {
    let methods = "use std::ia3
method table() on embedding {
  param s : [1] = ones
  forward(x, y) { base(x, weight = weight) * s }
}
method again() on embedding {
  param s : [1] = ones
  forward(x, y) { base(x) * s }
}
method copied() on embedding {
  param W : [in, out] = weight
  forward(x, y) { x @ W }
}
";
    for (name, statement) in [
        ("bert.ts", "adapt \"word_embeddings\"[0..32] with table()"),
        ("bert.ts", "adapt \"word_embeddings\"[16..48] with again()"),
        ("bert.ts", "adapt \"word_embeddings\"[32..] with copied()"),
        (
            "gpt2.ts",
            "adapt \"c_attn\"[64..128] with ia3(feedforward = true)",
        ),
        (
            "llama.genai_int4",
            "adapt \"q_proj\" with ia3(feedforward = true)",
        ),
        (
            "llama.genai_int4",
            "adapt \"o_proj\"[..32] with ia3(feedforward = true)",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let spec = format!("{methods}\nadapter a {{\n  {statement}\n}}\n");
        let adapted = compiled(&spec, &model(name), None, folder.path());
        let recording = fixtures().join(format!("models/{name}.io.safetensors"));
        let inputs = recorded(&recording, "input.");
        let found = outputs(&adapted, &inputs);
        for (output, expected) in outputs(&model(name), &inputs).iter() {
            let (difference, _) = distance(found.get(output).unwrap(), expected);
            assert!(
                difference <= START_ABSOLUTE,
                "{statement}: `{output}` differs by {difference:e}"
            );
        }
    }
}
