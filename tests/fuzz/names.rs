//! Name maps: read, and applied to a model with subgraphs.

use crate::corpus::below;
use crate::guard;
use crate::spec::loaded;
use crate::told::told;
use peftc::diag::{Reported, Sink, SourceMap};
use peftc::driver::{Loaded, write_names};
use peftc::files;
use peftc::modules::{self, NameMap};
use std::path::Path;
use std::sync::OnceLock;

fn model() -> &'static Loaded {
    static MODEL: OnceLock<Loaded> = OnceLock::new();
    MODEL.get_or_init(|| loaded("synthetic.if"))
}

/// A map by hand, and the one that peftc writes.
pub fn seeds() -> Vec<Vec<u8>> {
    let path = guard::scratch().join("names.json");
    write_names(model(), &path, &mut Sink::new()).unwrap();
    let written = std::fs::read(&path).unwrap();
    below("tests/fuzz/seeds", ".json")
        .chain([written])
        .collect()
}

pub fn run(input: &[u8]) -> String {
    let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
    let found = named(input, &mut sources, &mut sink).is_ok();
    format!("{} {found}", told(&sources, &sink))
}

fn named(input: &[u8], sources: &mut SourceMap, sink: &mut Sink) -> Result<(), Reported> {
    let text = files::text(Path::new("names.json"), input.to_vec(), sink)?;
    let file = sources.add("names.json", text.clone());
    let map = NameMap::parse(&text, file, sources, sink)?;
    let options = modules::Options {
        names: Some(&map),
        ..modules::Options::default()
    };
    modules::recover(&model().model, &options, sink).map(drop)
}
