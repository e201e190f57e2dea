//! The key/value pairs of a tensor with external data.

use super::{Seen, errors, location};
use crate::diag::Diagnostic;
use crate::graph::ExternalData;
use crate::onnx::proto::{StringStringEntryProto, TensorProto};
use crate::onnx::wire::{Payload, split};
use bytes::Bytes;
use prost::Message;
use std::collections::btree_map::Entry;

const KEYS: [&str; 4] = ["location", "offset", "length", "checksum"];

/// The pairs by key, each at most once.
#[derive(Default)]
struct Stated<'a> {
    values: [Option<&'a str>; KEYS.len()],
}

/// Reads and checks where a tensor's data is; `tensor` names it and `needed` is its size.
pub(in crate::onnx) fn region(
    seen: &mut Seen,
    tensor: &str,
    proto: &TensorProto,
    needed: u64,
) -> Result<ExternalData, Box<Diagnostic>> {
    let mut stated = Stated::default();
    for entry in &proto.external_data {
        let key = entry.key.as_deref().unwrap_or_default();
        let Some(index) = KEYS.iter().position(|known| *known == key) else {
            *seen.unknown_keys.entry(key.to_owned()).or_default() += 1;
            continue;
        };
        let value = entry.value.as_deref().unwrap_or_default();
        if stated.values[index].replace(value).is_some() {
            let why = format!("that states its {key} twice");
            return Err(Box::new(errors::region(tensor, &why)));
        }
    }
    let [place, offset, length, checksum] = stated.values;
    let place = place.unwrap_or_default();
    location::check(place).map_err(|why| errors::location(tensor, place, why))?;
    let offset = number(tensor, "offset", offset)?.unwrap_or(0);
    if let Some(length) = number(tensor, "length", length)?
        && length != needed
    {
        let why = format!("of {length} bytes, its type needs {needed}");
        return Err(Box::new(errors::region(tensor, &why)));
    }
    if offset
        .checked_add(needed)
        .is_none_or(|end| end > i64::MAX as u64)
    {
        let why = format!("at offset {offset}, with which no file could hold it");
        return Err(Box::new(errors::region(tensor, &why)));
    }
    let region = ExternalData {
        location: place.to_owned(),
        offset,
        length: needed,
    };
    note_checksum(seen, tensor, place, checksum)?;
    seen.add(&region, tensor);
    Ok(region)
}

fn number(tensor: &str, key: &str, text: Option<&str>) -> Result<Option<u64>, Box<Diagnostic>> {
    let Some(text) = text else {
        return Ok(None);
    };
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(number) if is_number => Ok(Some(number)),
        _ => {
            let why = format!("with the {key} `{}`, which is no size", text.escape_debug());
            Err(Box::new(errors::region(tensor, &why)))
        }
    }
}

fn note_checksum(
    seen: &mut Seen,
    tensor: &str,
    place: &str,
    checksum: Option<&str>,
) -> Result<(), Box<Diagnostic>> {
    let Some(text) = checksum else {
        return Ok(());
    };
    let Some(digest) = sha1_digest(text) else {
        *seen.unknown_checksums.entry(text.to_owned()).or_default() += 1;
        return Ok(());
    };
    match seen.checksums.entry(place.to_owned()) {
        Entry::Occupied(first) if *first.get() != digest => {
            Err(Box::new(errors::two_checksums(place, tensor)))
        }
        entry => {
            entry.or_insert(digest);
            Ok(())
        }
    }
}

fn sha1_digest(text: &str) -> Option<[u8; 20]> {
    let is_hex = text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let mut digest = [0; 20];
    for (index, byte) in digest.iter_mut().enumerate() {
        let digits = is_hex.then(|| &text[2 * index..2 * index + 2])?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(digest)
}

/// A serialized tensor without the external-data keys that ONNX does not define.
pub(in crate::onnx) fn without_unknown_keys(tensor: &Bytes) -> Bytes {
    const EXTERNAL_DATA: u32 = 13;
    let is_unknown = |range: &std::ops::Range<usize>| {
        StringStringEntryProto::decode(tensor.slice(range.clone()))
            .is_ok_and(|entry| !KEYS.contains(&entry.key.as_deref().unwrap_or_default()))
    };
    let kept: Vec<u8> = split(tensor)
        .unwrap_or_default()
        .into_iter()
        .filter(|(record, _)| {
            !matches!(&record.value, Payload::Bytes(range)
                if record.field == EXTERNAL_DATA && is_unknown(range))
        })
        .flat_map(|(_, raw)| raw)
        .collect();
    Bytes::from(kept)
}
