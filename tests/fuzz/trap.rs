//! The limits themselves: what ends a process is tried in one of its own.

use crate::guard;
use crate::shrink::Pieces;
use crate::targets::Target;
use std::hint::black_box;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Behaves as its input says.
pub static TARGET: Target = Target {
    name: "trap",
    seeds: Vec::new,
    mutate: |_, _| Vec::new(),
    pieces: |input| Pieces::bytes(input),
    run,
};

/// What an input does, how long it may take, and what is said then.
const TRAPS: &[(&str, &str, &str)] = &[
    ("fine", "60000", "1 passed"),
    ("panic", "60000", "on purpose"),
    ("terabyte", "60000", "more than 256 MiB"),
    ("growth", "60000", "more than 256 MiB"),
    ("stack", "60000", "overflow"),
    ("time", "200", "no answer"),
];

fn run(input: &[u8]) -> String {
    match input {
        b"panic" => panic!("on purpose"),
        b"terabyte" => drop(black_box(Vec::<u8>::with_capacity(1 << 40))),
        b"growth" => {
            let mut grown = Vec::new();
            loop {
                grown.push(black_box(0_u64));
            }
        }
        b"stack" => drop(black_box(deep(1))),
        b"time" => std::thread::sleep(Duration::from_secs(3600)),
        _ => {}
    }
    String::new()
}

#[expect(unconditional_recursion, reason = "it is a trap")]
fn deep(level: u64) -> u64 {
    let room = black_box([level; 64]);
    deep(level + 1) + room[7]
}

/// Tries every trap; panics if one does not hold.
pub fn check() -> &'static str {
    for (word, limit, said) in TRAPS {
        let file = guard::folder().join(format!("trap.{word}"));
        std::fs::write(&file, word).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--target", "trap", "--limit-ms", limit, "--file"])
            .arg(&file)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let current = guard::folder().join(format!("trap.{}.current", child.id()));
        let output = child.wait_with_output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert!(text.contains(said), "{word}: {text}");
        assert_eq!(output.status.success(), *word == "fine", "{word}: {text}");
        // Who ends the process leaves the input behind, as it was before it ran.
        match *word {
            "fine" | "panic" => assert!(!current.exists()),
            _ => assert_eq!(std::fs::read_to_string(&current).unwrap(), *word),
        }
        let _ = std::fs::remove_file(current);
        std::fs::remove_file(file).unwrap();
    }
    "trap: every limit holds"
}
