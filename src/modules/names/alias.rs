//! Names that ONNX Runtime's model builder gives instead of torch's.

use super::super::level::Levels;

/// Who wrote the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Dialect {
    /// Torch's own module names.
    Torch,
    /// `onnxruntime_genai.models.builder`: one vocabulary for all architectures.
    Builder,
    /// The builder's Whisper, whose vocabulary differs again.
    BuilderWhisper,
}

impl Dialect {
    /// The builder names its attention node `/model/layers.<i>/attn/<operator>` and puts it in ONNX
    /// Runtime's domain; no torch export has that operator under a path.
    pub fn of(levels: &Levels<'_>) -> Dialect {
        let mut dialect = Dialect::Torch;
        for level in &levels.0 {
            for id in level.graph.node_ids() {
                let node = level.graph.node(id);
                if &*node.op.domain != "com.microsoft" || !node.name.starts_with("/model/layers.") {
                    continue;
                }
                if node.name.contains("/cross_attn/") || node.name.contains("/attn/cross/") {
                    return Dialect::BuilderWhisper;
                }
                if node.name.contains("/attn/") {
                    dialect = Dialect::Builder;
                }
            }
        }
        dialect
    }

    /// The torch path for a path of this dialect.
    pub fn torch_path(self, path: &str) -> String {
        match self {
            Dialect::Torch => path.to_owned(),
            Dialect::Builder => renamed(path, &[("attn", "self_attn")]),
            Dialect::BuilderWhisper => whisper(path),
        }
    }
}

fn renamed(path: &str, names: &[(&str, &str)]) -> String {
    if path.ends_with(".final_norm_layernorm") {
        return "model.norm".to_owned();
    }
    let segments: Vec<&str> = path
        .split('.')
        .map(|segment| {
            names
                .iter()
                .find(|(theirs, _)| *theirs == segment)
                .map_or(segment, |(_, torch)| *torch)
        })
        .collect();
    segments.join(".")
}

fn whisper(path: &str) -> String {
    const NAMES: &[(&str, &str)] = &[
        ("attn", "self_attn"),
        ("cross_attn", "encoder_attn"),
        ("o_proj", "out_proj"),
    ];
    let path = path.replace(".attn.cross.", ".encoder_attn.");
    let path = renamed(&path, NAMES);
    path.replace(".mlp.fc", ".fc")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builder_names_become_torch_names() {
        let cases = [
            (
                Dialect::Builder,
                "model.layers.0.attn.o_proj",
                "model.layers.0.self_attn.o_proj",
            ),
            (
                Dialect::Builder,
                "model.layers.2.final_norm_layernorm",
                "model.norm",
            ),
            (
                Dialect::Torch,
                "transformer.h.0.attn.c_attn",
                "transformer.h.0.attn.c_attn",
            ),
            (
                Dialect::BuilderWhisper,
                "model.layers.0.cross_attn.o_proj",
                "model.layers.0.encoder_attn.out_proj",
            ),
            (
                Dialect::BuilderWhisper,
                "model.layers.0.attn.cross.k_proj",
                "model.layers.0.encoder_attn.k_proj",
            ),
            (
                Dialect::BuilderWhisper,
                "model.layers.0.mlp.fc1",
                "model.layers.0.fc1",
            ),
        ];
        for (dialect, theirs, torch) in cases {
            assert_eq!(dialect.torch_path(theirs), torch);
        }
    }
}
