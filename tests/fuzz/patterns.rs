//! Globs and regular expressions that select modules.

use crate::random::Random;
use crate::spec::plan_all;
use crate::text;
use crate::told::{resolved, told};
use peftc::diag::{Sink, SourceMap};

const SEEDS: &[&str] = &[
    "*",
    "**",
    "encoder.layer.*.attention.**",
    "encoder.layer.{0..1}.output.dense",
    "**.{query,key,value}",
    "encoder.layer.[01].*",
    "?ncoder.**.dense",
    r"encoder\.layer\.\d+\.(attention|output)\..*dense",
    r"(?i)ENCODER\.(.*)\.(query|key)",
    "(a{1,50}){1,50}",
    r"\p{L}+[^.]*$",
];

const PIECES: &[&str] = &[
    "*",
    "**",
    ".",
    "?",
    "{",
    "}",
    "{0..",
    "..",
    ",",
    "[",
    "]",
    "[^",
    "-",
    "(",
    ")",
    "(?",
    "|",
    "+",
    "^",
    "$",
    "\\",
    "\\d",
    "\\p{",
    "\\x{10FFFF}",
    "{1000}",
    "{0,999999}",
    "0",
    "999999999999",
    "a",
    "é",
    "\0",
    "\"",
    "\n",
    "encoder",
    "layer",
    "dense",
];

pub fn seeds() -> Vec<Vec<u8>> {
    SEEDS.iter().map(|text| text.as_bytes().to_vec()).collect()
}

pub fn mutate(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = random.pick(corpus).clone();
    for _ in 0..=random.below(5) {
        let at = random.below(bytes.len() + 1);
        match random.below(8) {
            0 => text::flip(&mut bytes, random),
            1 => {
                let other = random.pick(corpus);
                text::splice(&mut bytes, other, random);
            }
            2 => text::remove(&mut bytes, random),
            3 => {
                let piece = bytes[at..bytes.len().min(at + 8)].to_vec();
                let times = 1 << random.below(9);
                bytes.splice(at..at, piece.repeat(times));
            }
            _ => drop(bytes.splice(at..at, random.pick(PIECES).bytes())),
        }
    }
    bytes.truncate(1 << 16);
    bytes
}

/// Selects by the input as a glob, and as a regular expression.
pub fn run(input: &[u8]) -> String {
    let text = String::from_utf8_lossy(input);
    let glob = text.replace('\\', "\\\\").replace('"', "\\\"");
    let patterns = [format!("\"{glob}\""), format!("regex \"{text}\"")];
    let words = patterns.map(|pattern| {
        let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
        let spec = format!("use std::lora\nadapter a {{ adapt {pattern} with lora(rank = 1) }}\n");
        let planned = resolved("fuzz.peft", &spec, &mut sources, &mut sink)
            .map(|spec| plan_all(&spec, &mut sources, &mut sink));
        format!("{} {}", told(&sources, &sink), planned.unwrap_or_default())
    });
    words.join(" ")
}
