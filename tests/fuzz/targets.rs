//! What is fuzzed: one line a reader of bytes.

use crate::random::Random;
use crate::shrink::Pieces;
use crate::{model, names, patterns, proto, spec, tensors, text, wire};

pub struct Target {
    pub name: &'static str,
    /// What mutations start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    pub mutate: fn(&[Vec<u8>], &mut Random) -> Vec<u8>,
    /// What may be left out of an input that fails.
    pub pieces: fn(&[u8]) -> Pieces,
    /// Answers in a word what happened; panics are faults.
    pub run: fn(&[u8]) -> String,
}

pub static TARGETS: &[Target] = &[
    Target {
        name: "spec",
        seeds: spec::seeds,
        mutate: text::mutate,
        pieces: text::pieces,
        run: spec::run,
    },
    Target {
        name: "model",
        seeds: model::seeds,
        mutate: proto::mutate,
        pieces: wire::pieces,
        run: model::run,
    },
    Target {
        name: "names",
        seeds: names::seeds,
        mutate: text::mutate,
        pieces: text::pieces,
        run: names::run,
    },
    Target {
        name: "safetensors",
        seeds: tensors::seeds,
        mutate: tensors::mutate,
        pieces: text::pieces,
        run: tensors::run,
    },
    Target {
        name: "pattern",
        seeds: patterns::seeds,
        mutate: patterns::mutate,
        pieces: text::pieces,
        run: patterns::run,
    },
];
