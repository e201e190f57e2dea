//! A corpus-driven fuzzer for everything that reads bytes from strangers.
//!
//! Inputs are mutations of the repository's own specs, models, name maps, adapter tensors and
//! patterns. An input fails when the code under test panics, holds more memory than the limit, or
//! takes longer than the limit. What fails is kept under `target/fuzzed`.
//! In `cargo test` a fixed number of inputs runs from a fixed seed, after all inputs that have
//! failed before (`tests/fuzz/regressions`). A long run, one target a process:
//!
//! ```sh
//! cargo test --profile fuzz --test fuzz -- --target model --seconds 600 --seed 1
//! ```
//!
//! `tests/README.md` says more.

// In a test, `unwrap` is an assertion.
#![allow(clippy::unwrap_used)]

#[path = "fuzz/corpus.rs"]
mod corpus;
#[path = "fuzz/guard.rs"]
mod guard;
#[path = "fuzz/model.rs"]
mod model;
#[path = "fuzz/names.rs"]
mod names;
#[path = "fuzz/options.rs"]
mod options;
#[path = "fuzz/patterns.rs"]
mod patterns;
#[path = "fuzz/proto/mod.rs"]
mod proto;
#[path = "fuzz/random.rs"]
mod random;
#[path = "fuzz/shrink.rs"]
mod shrink;
#[path = "fuzz/spec.rs"]
mod spec;
#[path = "fuzz/targets.rs"]
mod targets;
#[path = "fuzz/tensors.rs"]
mod tensors;
#[path = "fuzz/text.rs"]
mod text;
#[path = "fuzz/told.rs"]
mod told;
#[path = "fuzz/trap.rs"]
mod trap;
#[path = "fuzz/wire.rs"]
mod wire;

use guard::{Fault, Guard, Outcome};
use options::{End, Options};
use random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use targets::Target;

#[global_allocator]
static ALLOCATOR: guard::Counting = guard::Counting;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let options = match options::read(&arguments) {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    };
    std::fs::create_dir_all(guard::folder()).unwrap();
    guard::silence_panics();
    if options.traps {
        println!("{}", trap::check());
    }
    let mut failed = 0;
    for target in &options.targets {
        let told = match &options.file {
            Some(path) => run_file(target, &options, path),
            None => run(target, &options),
        };
        failed += usize::from(told.is_err());
        let (Ok(told) | Err(told)) = told;
        println!("{}: {told}", target.name);
    }
    std::fs::remove_dir_all(guard::scratch()).unwrap();
    println!("{} passed, {failed} failed", options.targets.len() - failed);
    ExitCode::from(u8::from(failed > 0))
}

/// One input, as it is.
fn run_file(target: &'static Target, options: &Options, path: &Path) -> Result<String, String> {
    let input = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut guard = Guard::new(target, options.limit);
    let told = match guard.attempt(&input) {
        Outcome::Passed(behaviour) => Ok(format!("{behaviour}\n  {}", guard.cost())),
        Outcome::Failed(fault) => Err(fault.why),
    };
    guard.finish();
    told
}

/// Replays what has failed before, then tries mutations until the end.
fn run(target: &'static Target, options: &Options) -> Result<String, String> {
    let mut guard = Guard::new(target, options.limit);
    replay(target, &mut guard)?;
    let mut corpus = corpus::of(target);
    let mut random = Random::new(options.seed);
    let mut seen: BTreeSet<String> = BTreeSet::new();
    // By the places of the panics.
    let mut faults: BTreeMap<String, PathBuf> = BTreeMap::new();
    let (start, mut inputs, first) = (Instant::now(), 0, corpus.inputs.len());
    while !options.end.is_reached(inputs, start) {
        let input = (target.mutate)(&corpus.inputs, &mut random);
        inputs += 1;
        match guard.attempt(&input) {
            Outcome::Failed(fault) if !faults.contains_key(&fault.place) => {
                println!("{}: input {inputs}: {}", target.name, fault.why);
                let path = keep(target, &mut guard, &input, &fault);
                println!("  kept as {}", path.display());
                faults.insert(fault.place, path);
            }
            Outcome::Failed(_) => {}
            // What behaves like nothing before is worth mutating further.
            Outcome::Passed(behaviour) => {
                if seen.insert(behaviour) {
                    corpus.add(input);
                }
            }
        }
        if matches!(options.end, End::Inputs(_)) && !faults.is_empty() {
            break;
        }
    }
    guard.finish();
    let report = format!(
        "seed {}, {inputs} inputs in {:.0} s, {} behaviours, {first} inputs in the corpus and {} new, {}",
        options.seed,
        start.elapsed().as_secs_f64(),
        seen.len(),
        corpus.inputs.len() - first,
        guard.cost(),
    );
    match faults.len() {
        0 => Ok(report),
        count => Err(format!("panics at {count} places, {report}")),
    }
}

/// Tries everything that has failed before.
fn replay(target: &'static Target, guard: &mut Guard) -> Result<(), String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/regressions");
    for (path, bytes) in corpus::files(&folder.join(target.name)) {
        if let Outcome::Failed(fault) = guard.attempt(&bytes) {
            return Err(format!("{} fails again: {}", path.display(), fault.why));
        }
    }
    Ok(())
}

/// Makes a failing input smaller and writes it where it can be looked at.
fn keep(target: &'static Target, guard: &mut Guard, input: &[u8], fault: &Fault) -> PathBuf {
    let place: String = fault.place.chars().map(file_letter).collect();
    let path = guard::folder().join(format!("{}-{place}", target.name));
    // Before it is made smaller, which may end the process.
    std::fs::write(&path, input).unwrap();
    let smaller = shrink::shrunk(
        (target.pieces)(input),
        input,
        |bytes| matches!(guard.attempt(bytes), Outcome::Failed(found) if found.place == fault.place),
    );
    std::fs::write(&path, smaller).unwrap();
    path
}

fn file_letter(letter: char) -> char {
    match letter {
        'a'..='z' | 'A'..='Z' | '0'..='9' => letter,
        _ => '_',
    }
}
