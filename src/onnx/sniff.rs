//! Recognizes files that are given in place of an ONNX model.

/// What a file that starts so is, with what to do instead.
pub(super) struct Lookalike {
    pub what: &'static str,
    pub help: &'static str,
}

const EXPORT: &str = "export the model to ONNX first, for instance with `torch.onnx.export` or \
                      `optimum-cli export onnx`";
const UNPACK: &str = "unpack it and give the `.onnx` file inside";
const ADAPTER: &str = "give the base model's `.onnx` file";

/// Magic numbers: offset, bytes, what it is, what to do.
const MAGICS: &[(usize, &[u8], &str, &str)] = &[
    (
        0,
        b"version https://git-lfs",
        "a Git LFS pointer, not the file it points to",
        "run `git lfs pull` in its repository, or download the file itself",
    ),
    (
        0,
        b"PK\x03\x04",
        "a zip archive (PyTorch checkpoints are, too)",
        EXPORT,
    ),
    (0, b"PK\x05\x06", "an empty zip archive", EXPORT),
    (0, b"\x1f\x8b", "a gzip file", UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file", UNPACK),
    (0, b"GGUF", "a GGUF model", EXPORT),
    (0, b"\x89HDF", "an HDF5 file", EXPORT),
    (0, b"\x80\x02", "a Python pickle", EXPORT),
    (0, b"\x80\x04", "a Python pickle", EXPORT),
    (4, b"TFL3", "a TensorFlow Lite model", EXPORT),
    (
        4,
        b"ORTM",
        "a model in ONNX Runtime's own format",
        "give the `.onnx` file that it was made from",
    ),
    (4, b"TORT", "an ONNX Runtime adapter", ADAPTER),
    (
        0,
        b"<!DOCTYPE",
        "a web page",
        "download the file itself, not the page that shows it",
    ),
    (
        0,
        b"<html",
        "a web page",
        "download the file itself, not the page that shows it",
    ),
    (0, b"<?xml", "an XML file (OpenVINO models are)", EXPORT),
    (
        0,
        b"ir_version:",
        "ONNX in protobuf's text form",
        "convert it with `onnx.parser` or `protoc --encode`",
    ),
    (
        0,
        b"\x7fELF",
        "an executable",
        "give the model's `.onnx` file",
    ),
];

/// What the bytes are, if they are something well known.
pub(super) fn lookalike(bytes: &[u8]) -> Option<Lookalike> {
    if bytes.is_empty() {
        return Some(Lookalike {
            what: "empty",
            help: "the download or export that made it did not finish: make it again",
        });
    }
    if let Some((_, _, what, help)) = MAGICS
        .iter()
        .find(|(offset, magic, ..)| bytes.get(*offset..).is_some_and(|b| b.starts_with(magic)))
    {
        return Some(Lookalike { what, help });
    }
    if is_safetensors(bytes) {
        return Some(Lookalike {
            what: "a safetensors file",
            help: EXPORT,
        });
    }
    let text = bytes.trim_ascii_start();
    if matches!(text, [b'{', ..] | [b'[', ..]) && looks_like_json(text) {
        return Some(Lookalike {
            what: "a JSON file",
            help: "give the model's `.onnx` file",
        });
    }
    None
}

/// Whether the beginning is readable text: letters and no control characters.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    const SAMPLE: usize = 512;
    let sample = &bytes[..bytes.len().min(SAMPLE)];
    let text = match std::str::from_utf8(sample) {
        Ok(text) => text,
        // The sample ends inside a letter.
        Err(error) if error.error_len().is_none() && sample.len() < bytes.len() => {
            std::str::from_utf8(&sample[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    text.chars()
        .all(|c| !c.is_control() || c.is_ascii_whitespace())
}

/// Safetensors start with the length of a JSON header.
fn is_safetensors(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return false;
    };
    let length = u64::from_le_bytes(*length);
    rest.starts_with(b"{\"") && (2..1 << 30).contains(&length)
}

fn looks_like_json(text: &[u8]) -> bool {
    matches!(
        text[1..].trim_ascii_start(),
        [b'"' | b'{' | b'[' | b'}' | b']', ..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_files_are_named() {
        for (bytes, what) in [
            (&b""[..], "empty"),
            (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
            (b"PK\x03\x04....", "zip"),
            (b"\x10\0\0\0\0\0\0\0{\"a\":1}", "safetensors"),
            (b" {\"a\": 1}", "JSON"),
            (b"\0\0\0\0TORT", "adapter"),
        ] {
            assert!(lookalike(bytes).unwrap().what.contains(what), "{what}");
        }
    }

    #[test]
    fn texts_are_told_from_bytes() {
        assert!(is_text("use std::lora\n".as_bytes()));
        assert!(is_text("ä".repeat(400).as_bytes()));
        assert!(is_text(format!("x{}", "ä".repeat(400)).as_bytes()));
        assert!(!is_text(b"\x08\x08\x12\x07pytorch"));
        assert!(!is_text(b"text \xff text"));
        assert!(!is_text(&[0xff; 40]));
    }

    #[test]
    fn the_start_of_a_model_is_not_mistaken() {
        assert!(lookalike(b"\x08\x08\x12\x07pytorch").is_none());
        assert!(lookalike(b"[x").is_none());
    }
}
