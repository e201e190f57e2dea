//! The files of a case.

use super::{Content, models};
use safetensors::tensor::{Dtype, TensorView};
use std::fs;
use std::path::Path;

/// Makes a file. Sources of what is no text: `model NAME` (see [`models`]), `bytes 00 ff`,
/// `zeros 5000000`, `fixture PATH` (a copy), `link TARGET`, `folder`, `tensors NAME F32 2 3, …` (a safetensors file of
/// zeros; of ones where the type is written `ONES`).
pub fn make(folder: &Path, name: &str, content: &Content<'_>) -> Result<(), String> {
    let path = folder.join(name);
    let fail = |error: std::io::Error| format!("{name}: {error}");
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(fail)?;
    }
    let source = match content {
        Content::Text(text) => return fs::write(&path, text).map_err(fail),
        Content::Made(source) => source,
    };
    let (kind, rest) = source.split_once(' ').unwrap_or((source, ""));
    match kind {
        "model" => models::write(rest, &path),
        "bytes" => fs::write(&path, bytes(rest)?).map_err(fail),
        "fixture" => {
            let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
            fs::copy(fixtures.join(rest), &path).map(drop).map_err(fail)
        }
        "zeros" => fs::File::create(&path)
            .and_then(|file| file.set_len(number(rest)?))
            .map_err(fail),
        "folder" => fs::create_dir(&path).map_err(fail),
        "link" => std::os::unix::fs::symlink(rest, &path).map_err(fail),
        "tensors" => fs::write(&path, tensors(rest)?).map_err(fail),
        other => Err(format!("{name}: no source `{other}`")),
    }
}

fn number(text: &str) -> std::io::Result<u64> {
    text.parse().map_err(std::io::Error::other)
}

fn bytes(text: &str) -> Result<Vec<u8>, String> {
    text.split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).map_err(|error| format!("{byte}: {error}")))
        .collect()
}

fn tensors(text: &str) -> Result<Vec<u8>, String> {
    let mut made = Vec::new();
    for entry in text.split(", ") {
        let mut words = entry.split_whitespace();
        let (Some(name), Some(dtype)) = (words.next(), words.next()) else {
            return Err(format!("`{entry}` is no tensor"));
        };
        let element = match dtype {
            "ONES" => 1f32,
            "HALVES" => 0.5,
            _ => 0.0,
        };
        let dtype = match dtype {
            "F32" | "ONES" | "HALVES" => Dtype::F32,
            "I64" => Dtype::I64,
            "C64" => Dtype::C64,
            other => return Err(format!("no type `{other}`")),
        };
        let dims: Vec<usize> = words.map(|dim| dim.parse().unwrap_or(0)).collect();
        let size = dims.iter().product::<usize>() * dtype.bitsize() / 8;
        let data = match element == 0.0 {
            false => element.to_le_bytes().repeat(size / 4),
            true => vec![0u8; size],
        };
        made.push((name, dtype, dims, data));
    }
    let views = made.iter().map(|(name, dtype, dims, data)| {
        (
            *name,
            TensorView::new(*dtype, dims.clone(), data).expect("the data has this size"),
        )
    });
    safetensors::serialize(views, None).map_err(|error| error.to_string())
}
