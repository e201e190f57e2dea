//! Module paths in what exporters write on nodes.

use crate::graph::Node;

const NAME_SCOPES: &str = "pkg.torch.onnx.name_scopes";

/// The path in `name_scopes` metadata: the element before the last, which is the operation itself.
pub(super) fn scope_path(node: &Node) -> Option<String> {
    let scopes = string_list(node.metadata(NAME_SCOPES)?)?;
    let path = scopes.iter().rev().nth(1)?;
    let known = !path.is_empty() && !path.starts_with("_empty_nn_module_stack");
    known.then(|| tidy(path))
}

/// The paths that a TorchScript node name may stand for, the likelier first: without the repeated
/// prefix that a Sequential or ModuleList leaves, and, where they differ, with it.
pub(super) fn node_paths(name: &str) -> Vec<String> {
    let Some(scopes) = scopes(name) else {
        return Vec::new();
    };
    let mut merged: Vec<&str> = Vec::new();
    for segment in scopes.split('/') {
        match merged.last_mut() {
            Some(previous) if extends(segment, previous) => *previous = segment,
            _ => merged.push(segment),
        }
    }
    let mut paths = vec![tidy(&merged.join("."))];
    if merged.len() < scopes.split('/').count() {
        paths.push(tidy(&scopes.replace('/', ".")));
    }
    paths
}

/// What a TorchScript node name has in front of the operation, without the first slash.
pub(super) fn scopes(name: &str) -> Option<&str> {
    let name = name.strip_suffix("/output_0").unwrap_or(name);
    let (scopes, _operation) = name.strip_prefix('/')?.rsplit_once('/')?;
    Some(scopes)
}

/// Whether a scope repeats the one before and goes on: `layer1.0` behind `layer1`.
fn extends(segment: &str, previous: &str) -> bool {
    segment
        .strip_prefix(previous)
        .is_some_and(|rest| rest.starts_with('.'))
}

/// The path as torch's `named_modules` gives it: PEFT's wrapper of a base layer and the marks of
/// repeated calls are left out.
pub(in super::super) fn tidy(path: &str) -> String {
    let without_marks = |path: &str| {
        let names = path.split('.').map(|segment| {
            let name = segment.split_once('@');
            name.map_or(segment, |(name, _)| name)
        });
        names.collect::<Vec<&str>>().join(".")
    };
    let mut path = match path.contains('@') {
        true => without_marks(path),
        false => path.to_owned(),
    };
    if path.ends_with(".base_layer") {
        path.truncate(path.len() - ".base_layer".len());
    }
    path
}

/// A Python list of string literals, as `repr` writes it.
pub(super) fn string_list(text: &str) -> Option<Vec<String>> {
    let inside = text.trim().strip_prefix('[')?.strip_suffix(']')?;
    let mut characters = inside.chars();
    let mut items = Vec::new();
    loop {
        let quote = match characters.next() {
            None => return Some(items),
            Some(',' | ' ') => continue,
            Some(quote @ ('\'' | '"')) => quote,
            Some(_) => return None,
        };
        let mut item = String::new();
        loop {
            match characters.next()? {
                '\\' => item.push(characters.next()?),
                end if end == quote => break,
                other => item.push(other),
            }
        }
        items.push(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequential_prefixes_are_merged() {
        let cases = [
            (
                "/model/layers.0/self_attn/q_proj/MatMul",
                "model.layers.0.self_attn.q_proj",
            ),
            (
                "/stages/stages.0/blocks/blocks.0/conv_dw/Conv",
                "stages.0.blocks.0.conv_dw",
            ),
            ("/seq/seq.2/seq.2.0/MatMul", "seq.2.0"),
            ("/encoder/encoder/layer.0/MatMul", "encoder.encoder.layer.0"),
            (
                "/model/layers.0/attn/q_proj/MatMul/output_0",
                "model.layers.0.attn.q_proj",
            ),
        ];
        for (name, path) in cases {
            assert_eq!(node_paths(name)[0], path);
        }
        assert_eq!(node_paths("/seq/seq.0/MatMul")[1], "seq.seq.0");
    }

    #[test]
    fn names_that_are_no_paths_give_none() {
        for name in ["node_linear", "MatMul_3", "/MatMul", ""] {
            assert!(node_paths(name).is_empty(), "{name}");
        }
    }

    #[test]
    fn python_lists_are_read_with_both_quotes() {
        assert_eq!(
            string_list(r#"['', "a'b", 'c\'d']"#),
            Some(vec![String::new(), "a'b".to_owned(), "c'd".to_owned()])
        );
        for broken in ["", "[", "['a", "['a'] + x", "[1]", "__import__('os')"] {
            assert_eq!(string_list(broken), None, "{broken}");
        }
    }

    #[test]
    fn wrappers_and_call_marks_are_left_out() {
        assert_eq!(tidy("m.q_proj.base_layer"), "m.q_proj");
        assert_eq!(tidy("m.layer@1.q"), "m.layer.q");
    }
}
