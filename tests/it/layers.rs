//! Dependencies run one way: which room may use which, and who alone may use a library.
//!
//! The test reads `src/` as text. Unit tests inside a room are left out: they may use anything.

use regex::Regex;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Every room with the rooms that it may use. A room that is not listed fails the test.
const ROOMS: &[(&str, &[&str])] = &[
    ("diag", &[]),
    ("ty", &[]),
    ("linalg", &[]),
    ("kernels", &["linalg"]),
    ("stdlib", &[]),
    ("files", &["diag"]),
    ("syntax", &["diag"]),
    ("hir", &["diag", "ty", "syntax", "stdlib"]),
    ("graph", &["diag", "ty"]),
    ("onnx", &["diag", "ty", "files", "graph"]),
    ("ops", &["diag", "ty", "graph"]),
    ("passes", &["diag", "ty", "kernels", "graph", "ops"]),
    // Shares no code with the rooms that it is a witness for.
    ("reference", &["ty", "graph"]),
    ("modules", &["diag", "ty", "graph"]),
    (
        "adapt",
        &[
            "diag", "ty", "linalg", "syntax", "hir", "graph", "ops", "passes", "modules",
        ],
    ),
    ("autodiff", &["diag", "ty", "graph", "ops", "passes"]),
    (
        "train",
        &[
            "diag", "ty", "hir", "graph", "ops", "passes", "adapt", "autodiff",
        ],
    ),
    ("weights", &["diag", "ty", "files"]),
    ("data", &["diag", "files"]),
    // Of `train` only its manifest; never a graph.
    (
        "runtime",
        &["diag", "ty", "kernels", "files", "weights", "data", "train"],
    ),
    // Reference and ONNX Runtime side by side.
    (
        "prove",
        &[
            "diag",
            "ty",
            "syntax",
            "hir",
            "graph",
            "onnx",
            "ops",
            "passes",
            "reference",
            "modules",
            "adapt",
            "autodiff",
            "runtime",
        ],
    ),
    ("report", &["diag"]),
    (
        "driver",
        &[
            "diag", "ty", "linalg", "stdlib", "files", "syntax", "hir", "graph", "onnx", "ops",
            "passes", "modules", "adapt", "autodiff", "train", "weights", "data", "runtime",
        ],
    ),
    (
        "cli",
        &[
            "diag", "files", "syntax", "data", "report", "runtime", "prove", "driver",
        ],
    ),
];

/// Libraries that one place alone may name.
const LIBRARIES: &[(&str, &[&str])] = &[
    ("pest", &["syntax/"]),
    ("pest_derive", &["syntax/"]),
    ("petgraph", &["graph/"]),
    ("faer", &["linalg/"]),
    ("prost", &["onnx/"]),
    ("ort", &["runtime/"]),
    ("libloading", &["runtime/"]),
    ("zip", &["runtime/", "data/read/"]),
    ("miette", &["diag/render/"]),
    ("clap", &["cli/"]),
    ("indicatif", &["cli/progress.rs"]),
    ("signal_hook", &["cli/"]),
    ("tokenizers", &["data/"]),
    ("plotters", &["report/"]),
    ("minijinja", &["data/template/"]),
    ("minijinja_contrib", &["data/template/"]),
    ("csv", &["data/read/"]),
    ("parquet", &["data/read/"]),
];

fn source_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every source file, by its path below `src/`, without comments and unit tests.
fn sources() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![source_folder()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("src is readable") {
            let path = entry.expect("src is readable").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(source_folder()).expect("below src");
            let name = name.to_string_lossy().replace('\\', "/");
            let is_test = name.ends_with("tests.rs") || name.contains("/tests/");
            if name.ends_with(".rs") && !is_test {
                let text = fs::read_to_string(&path).expect("sources are UTF-8");
                found.insert(name, production(&text));
            }
        }
    }
    found
}

/// The text without line comments and without the test module, which comes last in a file.
fn production(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..end]
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .fold(String::new(), |all, line| all + line + "\n")
}

/// The rooms that a text names behind `crate::`, in the order of the alphabet.
fn used_rooms(text: &str) -> BTreeSet<String> {
    let single = Regex::new(r"\bcrate::([a-z_]+)").expect("a pattern");
    let group = Regex::new(r"(?s)\bcrate::\{(.*?)\};").expect("a pattern");
    let mut rooms: BTreeSet<String> = single
        .captures_iter(text)
        .map(|found| found[1].to_owned())
        .collect();
    for found in group.captures_iter(text) {
        rooms.extend(top_names(&found[1]));
    }
    rooms
}

/// The first segments of a `use` group: `a::b, c::{d, e}` has `a` and `c`.
fn top_names(group: &str) -> Vec<String> {
    let mut names = Vec::new();
    let (mut depth, mut item) = (0_usize, String::new());
    for c in group.chars().chain([',']) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let first = item.split("::").next().unwrap_or_default().trim();
                names.push(first.to_owned());
                item.clear();
                continue;
            }
            _ => {}
        }
        item.push(c);
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Every arrow that the table does not allow, as `file uses room`.
fn forbidden_arrows(sources: &BTreeMap<String, String>) -> Vec<String> {
    let mut forbidden = Vec::new();
    for (file, text) in sources {
        let Some((room, _)) = file.split_once('/') else {
            continue;
        };
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            forbidden.push(format!("{file} is in a room that the table lacks"));
            continue;
        };
        for used in used_rooms(text) {
            // Macros and items of the crate root are no rooms.
            let is_room = ROOMS.iter().any(|(name, _)| *name == used);
            if is_room && used != room && !allowed.contains(&used.as_str()) {
                forbidden.push(format!("{file} uses {used}"));
            }
        }
    }
    forbidden
}

fn forbidden_libraries(sources: &BTreeMap<String, String>) -> Vec<String> {
    let mut forbidden = Vec::new();
    for (library, places) in LIBRARIES {
        // A path that begins with the library, a derive's attribute, or an import of all of it.
        let pattern = format!(r"(?m)(^|[^\w:.]|(^|[^\w>])::){library}(::|;)|#\[{library}\(");
        let pattern = Regex::new(&pattern).expect("a pattern");
        for (file, text) in sources {
            let allowed = places.iter().any(|place| file.starts_with(place));
            if !allowed && pattern.is_match(text) {
                forbidden.push(format!("{file} uses {library}"));
            }
        }
    }
    forbidden
}

#[test]
fn dependencies_between_rooms_run_one_way() {
    let forbidden = forbidden_arrows(&sources());
    assert!(forbidden.is_empty(), "{}", forbidden.join("\n"));
}

#[test]
fn a_library_has_one_user() {
    let forbidden = forbidden_libraries(&sources());
    assert!(forbidden.is_empty(), "{}", forbidden.join("\n"));
}

#[test]
fn the_table_has_no_cycle() {
    // The table is written bottom up: a room uses only rooms above its own line.
    for (index, (room, uses)) in ROOMS.iter().enumerate() {
        for used in *uses {
            let above = ROOMS[..index].iter().any(|(name, _)| name == used);
            assert!(above, "{room} uses {used}, which comes later");
        }
    }
}

#[test]
fn the_main_function_only_calls_the_command_line() {
    let text = fs::read_to_string(source_folder().join("main.rs")).expect("main.rs");
    assert!(text.lines().count() < 60);
}

#[test]
fn every_way_to_name_a_room_or_a_library_is_seen() {
    let check = |text: &str| {
        let sources = BTreeMap::from([("graph/x.rs".to_owned(), production(text))]);
        [forbidden_arrows(&sources), forbidden_libraries(&sources)].concat()
    };
    assert!(check("use crate::diag::Span; use petgraph::Graph;").is_empty());
    for (text, count) in [
        ("use crate::onnx::import;", 1),
        (
            "use crate::{\n    onnx::{a, b},\n    ty::Dim,\n    ops,\n};",
            2,
        ),
        ("fn f() { crate::runtime::load(); }", 1),
        ("use ort::session;", 1),
        ("use ort;", 1),
        ("#[prost(message)]", 1),
        ("let x = ::prost::Message::encode();", 1),
        ("// use crate::onnx;", 0),
        ("#[cfg(test)]\nmod tests { use crate::onnx::import; }", 0),
        ("let x = self.ort::<u8>();", 0),
    ] {
        assert_eq!(check(text).len(), count, "{text}: {:?}", check(text));
    }
}
