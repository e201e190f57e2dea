//! The modules of a model, for people and for programs.

use super::session::Loaded;
use crate::graph::Graph;
use crate::modules::{Layout, Scope, Site};
use serde_json::{Value, json};
use std::fmt::Write;

fn graph_of<'a>(loaded: &'a Loaded, scope: &Scope) -> &'a Graph {
    scope
        .0
        .iter()
        .fold(&loaded.model.graph, |graph, (node, attribute, index)| {
            &graph.node(*node).attributes[*attribute].value.graphs()[*index]
        })
}

/// `{modules: […], unnamed: […]}`; an unnamed site has its node and its output value.
pub fn modules_json(loaded: &Loaded) -> Value {
    let rows =
        |sites: &[Site]| -> Vec<Value> { sites.iter().map(|site| row(loaded, site)).collect() };
    json!({ "modules": rows(&loaded.modules.sites), "unnamed": rows(&loaded.modules.unnamed) })
}

fn row(loaded: &Loaded, site: &Site) -> Value {
    let graph = graph_of(loaded, &site.scope);
    let layout = match site.weight.layout {
        Layout::OutIn => "out_in",
        Layout::InOut => "in_out",
        Layout::Conv => "out_in_kernel",
    };
    json!({
        "path": site.path,
        "kind": site.kind.name(),
        "node": graph.display_name(site.node),
        "output": &*graph.value(site.output).name,
        "op_type": graph.node(site.node).op.to_string(),
        "weight": &*graph.value(site.weight.value).name,
        "in_features": site.in_features,
        "out_features": site.out_features,
        "layout": layout,
        "bias": site.bias.map(|bias| graph.value(bias).name.to_string()),
        "slice": site.slice.as_ref().map(|slice| [slice.start, slice.end]),
        "quantization": site.weight.quantization.as_ref().map(|q| json!({
            "op_type": q.op_type, "bits": q.bits, "block_size": q.block_size,
        })),
        "shared_with": site.shared_with,
        "source": site.source.name(),
    })
}

/// A table of one line a module, in graph order, unnamed sites at the end.
pub fn modules_text(loaded: &Loaded) -> String {
    let sites = &loaded.modules.sites;
    let width = sites
        .iter()
        .map(|site| site.path.chars().count())
        .max()
        .unwrap_or(0);
    let mut out = format!("{}: {} modules\n\n", loaded.model.name, sites.len());
    for site in sites {
        let _ = writeln!(out, "  {:width$}  {}", site.path, facts(site));
    }
    if !loaded.modules.unnamed.is_empty() {
        let _ = writeln!(out, "\n  without a name (give them one with --names):");
    }
    for site in &loaded.modules.unnamed {
        let graph = graph_of(loaded, &site.scope);
        let output = &graph.value(site.output).name;
        let _ = writeln!(
            out,
            "  {}  output {output}  {}",
            graph.display_name(site.node),
            facts(site)
        );
    }
    out
}

fn facts(site: &Site) -> String {
    let mut text = format!(
        "{:9} {:>6} → {:<6}",
        site.kind.name(),
        site.in_features,
        site.out_features
    );
    if site.bias.is_some() {
        text.push_str("  bias");
    }
    if let Some(slice) = &site.slice {
        let _ = write!(text, "  [{}..{}] of a fused output", slice.start, slice.end);
    }
    if let Some(quantization) = &site.weight.quantization {
        let _ = write!(text, "  {} bit", quantization.bits);
    }
    if !site.shared_with.is_empty() {
        let _ = write!(
            text,
            "  shares its weight with {}",
            site.shared_with.join(", ")
        );
    }
    text
}
