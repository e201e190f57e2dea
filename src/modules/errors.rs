//! The faults of this room.

use super::map::NameMap;
use super::site::NameSource;
use crate::diag::{Code, Diagnostic, Span, nearest};

pub(super) fn bad_name_map(span: Span, fault: &str) -> Diagnostic {
    Diagnostic::new(Code::E0410, format!("name map is not valid: {fault}"))
        .label(span, "here")
        .help(
            "write `{\"schema_version\": 1, \"modules\": {\"<output value>\": \"<module path>\"}}`",
        )
}

pub(super) fn unknown_output(map: &NameMap, name: &str, outputs: &[&str]) -> Diagnostic {
    let diagnostic = Diagnostic::new(
        Code::E0411,
        format!("name map names `{name}`, which is the output of no layer"),
    );
    let diagnostic = labelled(diagnostic, map, name, "no layer has this output");
    let near = nearest(name, outputs.iter().copied(), 3);
    match &near[..] {
        [] => diagnostic.help("`peftc inspect` lists the outputs of unnamed layers"),
        near => diagnostic.help(format!("the nearest outputs are `{}`", near.join("`, `"))),
    }
}

pub(super) fn slice_outside(map: &NameMap, name: &str, end: i64, width: i64) -> Diagnostic {
    let diagnostic = Diagnostic::new(
        Code::E0412,
        format!("name map slices `{name}` up to {end}, but the layer has {width} output features"),
    );
    labelled(diagnostic, map, name, "a slice of this output")
        .help("the slices of an output must lie inside it")
}

pub(super) fn values_contradict(
    path: &str,
    source: NameSource,
    other: &str,
    count: usize,
) -> Diagnostic {
    let diagnostic = Diagnostic::new(
        Code::W0404,
        format!(
            "`{path}` has its name from {}, but the values of `{other}`",
            source.name()
        ),
    )
    .help("give the checkpoint that the model was made from, or the right path with `--names`");
    and_more(diagnostic, count)
}

pub(super) fn values_fit_several(node: &str, paths: &str, count: usize) -> Diagnostic {
    let diagnostic = Diagnostic::new(
        Code::W0405,
        format!("the layer at node `{node}` stays without a name: {paths} have its values"),
    )
    .help("give it its path with `--names`");
    and_more(diagnostic, count)
}

fn and_more(diagnostic: Diagnostic, count: usize) -> Diagnostic {
    match count {
        0 | 1 => diagnostic,
        _ => diagnostic.note(format!("the same holds for {} more", count - 1)),
    }
}

fn labelled(diagnostic: Diagnostic, map: &NameMap, key: &str, text: &str) -> Diagnostic {
    match map.span(key) {
        Some(span) => diagnostic.label(span, text),
        None => diagnostic,
    }
}
