//! The modules of a model, for people and for programs.

use super::session::Loaded;
use super::tree;
use crate::diag::{Reported, Sink};
use crate::files;
use crate::modules::{NameMap, NameSource, Site};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

/// `{modules: […], unnamed: […]}`; `layout` is that of `weight` as it is stored; an unnamed site has
/// its node, its output value and the reason.
pub fn modules_json(loaded: &Loaded) -> Value {
    let modules = loaded.modules.named().map(|site| row(loaded, site));
    let unnamed = loaded.modules.nameless().map(|site| row(loaded, site));
    json!({ "modules": modules.collect::<Vec<_>>(), "unnamed": unnamed.collect::<Vec<_>>() })
}

fn row(loaded: &Loaded, site: &Site) -> Value {
    let graph = site.scope.graph(&loaded.model);
    let holder = site.weight.scope.graph(&loaded.model);
    let disagreements: Vec<Value> = site
        .disagreements
        .iter()
        .map(|(source, path)| json!({ "source": source.name(), "path": path }))
        .collect();
    let mut row = json!({
        "path": if site.is_named() { &site.path } else { "" },
        "kind": site.kind.name(),
        "node": graph.display_name(site.node),
        "output": &*graph.value(site.output).name,
        "op_type": graph.node(site.node).op.to_string(),
        "weight": &*holder.value(site.weight.value).name,
        "in_features": site.in_features,
        "out_features": site.out_features,
        "layout": site.weight.stored.name(),
        "bias": site.bias.map(|bias| graph.value(bias).name.to_string()),
        "slice": site.slice.as_ref().map(|slice| [slice.start, slice.end]),
        "quantization": site.weight.quantization.as_ref().map(|q| json!({
            "op_type": q.op_type, "bits": q.bits, "block_size": q.block_size,
        })),
        "aliases": site.aliases,
        "shared_with": site.shared_with,
        "source": if site.is_named() { site.source.name() } else { "none" },
        "role": site.place.map(|place| place.role.name()),
        "block": site.place.map(|place| place.block),
        "disagreements": disagreements,
    });
    if !site.is_named() {
        row["because"] = site.unnamed_because.clone().into();
    }
    row
}

/// The tree of the modules in graph order, unnamed sites at the end.
pub fn modules_text(loaded: &Loaded) -> String {
    let sites: Vec<&Site> = loaded.modules.named().collect();
    let mut out = format!(
        "{}: {}{}\n\n",
        loaded.model.name,
        count(&sites),
        sources(&sites)
    );
    if let Some(restored) = sites
        .iter()
        .find_map(|site| site.aliases.iter().find_map(|alias| prefix(site, alias)))
    {
        let _ = writeln!(
            out,
            "  the file leaves out the beginning `{restored}` of every path\n"
        );
    }
    let lines = sites.iter().map(|site| (site.path.as_str(), facts(site)));
    out.push_str(&tree::draw(lines, "  "));
    for (index, site) in loaded.modules.nameless().enumerate() {
        if index == 0 {
            let gap = if sites.is_empty() { "" } else { "\n" };
            let _ = writeln!(
                out,
                "{gap}  without a name (give them one with --weights or --names, or adapt them by role):"
            );
        }
        let graph = site.scope.graph(&loaded.model);
        let output = &graph.value(site.output).name;
        let role = match site.place {
            Some(place) => format!("  role({})", place.role.name()),
            None => String::new(),
        };
        let line = format!(
            "  {}  output {output}  {}{role}",
            graph.display_name(site.node),
            facts(site)
        );
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

/// How many modules there are, and how many calls of them where that differs.
fn count(sites: &[&Site]) -> String {
    let paths: BTreeSet<&str> = sites.iter().map(|site| site.path.as_str()).collect();
    if paths.len() == sites.len() {
        return format!("{} modules", sites.len());
    }
    format!("{} modules in {} calls", paths.len(), sites.len())
}

/// How many sites each rung of the ladder has named: `, named by name_scopes (20), weight_name (1)`.
fn sources(sites: &[&Site]) -> String {
    let mut counts: BTreeMap<NameSource, usize> = BTreeMap::new();
    for site in sites {
        *counts.entry(site.source).or_default() += 1;
    }
    let counts = counts.iter();
    let counts: Vec<String> = counts
        .map(|(source, count)| format!("{} ({count})", source.name()))
        .collect();
    if counts.is_empty() {
        return String::new();
    }
    format!(", named by {}", counts.join(", "))
}

/// What a site's path has in front of an alias of it, if that is the only difference.
fn prefix<'s>(site: &'s Site, alias: &str) -> Option<&'s str> {
    let prefix = site.path.strip_suffix(alias)?;
    prefix.ends_with('.').then_some(prefix)
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
    // A path without its beginning matches like the whole one.
    let aliases = site
        .aliases
        .iter()
        .filter(|alias| prefix(site, alias).is_none());
    let aliases: Vec<&str> = aliases.map(String::as_str).collect();
    if !aliases.is_empty() {
        let _ = write!(text, "  also {}", aliases.join(", "));
    }
    if !site.shared_with.is_empty() {
        let others = site.shared_with.join(", ");
        let _ = write!(text, "  shares its weight with {others}");
    }
    for (source, path) in &site.disagreements {
        let _ = write!(text, "  {} says {path}", source.name());
    }
    text
}

/// Writes the map that names every site of the model again, and returns for how many outputs.
pub fn write_names(loaded: &Loaded, path: &Path, sink: &mut Sink) -> Result<usize, Reported> {
    let map = NameMap::of(&loaded.model, &loaded.modules);
    files::write(path, sink, |out| {
        std::io::Write::write_all(out, map.to_text().as_bytes())
    })?;
    Ok(map.len())
}
