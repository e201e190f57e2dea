//! Hand-built graphs, one for each spelling, and what is recovered from them.

mod attention;
mod builder;
mod convention;
mod linear;
mod naming;
mod others;

use super::{Modules, NameMap, Options, recover};
use crate::diag::{Diagnostic, Sink};
use crate::graph::Model;
use builder::Build;

/// The sites of a graph, one line each:
/// `path kind [out, in] layout (slice) (+bias) (quantization) source`.
fn sites(build: Build) -> Vec<String> {
    let model = build.model();
    let modules = recovered(&model);
    modules
        .sites
        .iter()
        .chain(&modules.unnamed)
        .map(|site| line(&model, site))
        .collect()
}

fn recovered(model: &Model) -> Modules {
    assert!(
        model.graph.verify().is_empty(),
        "{:?}",
        model.graph.verify()
    );
    let mut sink = Sink::new();
    recover(model, &Options::default(), &mut sink).expect("no name map, no fault")
}

fn line(model: &Model, site: &super::Site) -> String {
    let graph = site.scope.graph(model);
    let name = |value| &*graph.value(value).name;
    let mut line = format!(
        "{} {} [{}, {}] {} {}->{}",
        if site.path.is_empty() {
            "?"
        } else {
            &site.path
        },
        site.kind.name(),
        site.out_features,
        site.in_features,
        site.weight.stored.name(),
        name(site.input),
        name(site.output),
    );
    if let Some(slice) = &site.slice {
        line += &format!(" {}..{}", slice.start, slice.end);
    }
    if let Some(bias) = site.bias {
        line += &format!(" +{}", name(bias));
    }
    if let Some(quantization) = &site.weight.quantization {
        line += &format!(" {}/{}", quantization.op_type, quantization.bits);
    }
    line + " " + site.source.name()
}

/// The diagnostics of recovering with a name map.
fn with_map(build: Build, text: &str) -> Result<Modules, Vec<Diagnostic>> {
    let mut sources = crate::diag::SourceMap::new();
    let file = sources.add("peft.names.json", text);
    let mut sink = Sink::new();
    let map = match NameMap::parse(text, file, &sources, &mut sink) {
        Ok(map) => map,
        Err(_) => return Err(sink.diagnostics().to_vec()),
    };
    let options = Options {
        names: Some(&map),
        ..Options::default()
    };
    recover(&build.model(), &options, &mut sink).map_err(|_| sink.diagnostics().to_vec())
}
