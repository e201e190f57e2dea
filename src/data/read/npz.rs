//! NumPy arrays in a zip archive (`numpy.savez`).

use crate::data::arrays::Array;
use crate::data::batch::Elements;
use regex::Regex;
use std::io::{Cursor, Read};
use zip::ZipArchive;

/// The arrays of an archive, in the order of the archive.
pub(in crate::data) fn arrays_of(content: &[u8]) -> Result<Vec<Array>, String> {
    let mut archive = ZipArchive::new(Cursor::new(content)).map_err(|e| e.to_string())?;
    let mut arrays: Vec<Array> = Vec::new();
    for number in 0..archive.len() {
        let mut entry = archive
            .by_index(number)
            .map_err(|error| error.to_string())?;
        let file = entry
            .name()
            .map_err(|error| error.to_string())?
            .into_owned();
        let Some(name) = file.strip_suffix(".npy") else {
            return Err(format!("`{file}` in it is no array"));
        };
        if arrays.iter().any(|array| array.name == name) {
            return Err(format!("the array `{name}` is there twice"));
        }
        let array = array(name, &mut entry);
        arrays.push(array.map_err(|why| format!("array `{name}`: {why}"))?);
    }
    Ok(arrays)
}

fn array(name: &str, entry: &mut dyn Read) -> Result<Array, String> {
    let header = header(entry)?;
    let bytes = header.bytes().ok_or("it is too large")?;
    let mut data = Vec::new();
    // One byte more than stated, so that what is too much is noticed.
    let read = entry.take(bytes.saturating_add(1)).read_to_end(&mut data);
    read.map_err(|error| error.to_string())?;
    if data.len() as u64 != bytes {
        return Err(format!(
            "it has not the {bytes} bytes that its header states"
        ));
    }
    Ok(Array {
        name: name.to_owned(),
        elements: (header.decode)(&data),
        dims: header.dims,
    })
}

struct Header {
    dims: Vec<usize>,
    /// Of an element.
    width: usize,
    decode: fn(&[u8]) -> Elements,
}

impl Header {
    fn bytes(&self) -> Option<u64> {
        let sizes = self.dims.iter().map(|dim| *dim as u64);
        let bytes = sizes.chain([self.width as u64]);
        bytes.into_iter().try_fold(1_u64, u64::checked_mul)
    }
}

/// Reads up to the elements.
fn header(entry: &mut dyn Read) -> Result<Header, String> {
    let mut take = |count: usize| {
        let mut bytes = vec![0; count];
        let read = entry.read_exact(&mut bytes);
        read.map_err(|error| error.to_string()).map(|()| bytes)
    };
    let start = take(8)?;
    if !start.starts_with(b"\x93NUMPY") {
        return Err("it does not start as an array does".to_owned());
    }
    let length = match start[6] {
        1 => u64::from(u16::from_le_bytes(take(2)?.try_into().unwrap_or_default())),
        2 | 3 => u64::from(u32::from_le_bytes(take(4)?.try_into().unwrap_or_default())),
        version => return Err(format!("version {version} of the format is not known")),
    };
    if length > 1 << 16 {
        return Err("its header is too long".to_owned());
    }
    let text = String::from_utf8_lossy(&take(length as usize)?).into_owned();
    parse(&text)
}

/// A header such as `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
fn parse(text: &str) -> Result<Header, String> {
    let find = |pattern: &str| {
        let pattern = Regex::new(pattern).expect("a pattern");
        let found = pattern.captures(text).map(|found| found[1].to_owned());
        found.ok_or_else(|| format!("its header cannot be read: {}", text.trim()))
    };
    let ty = find(r"'descr':\s*'([^']*)'")?;
    let columns_first = find(r"'fortran_order':\s*(True|False)")? == "True";
    let shape = find(r"'shape':\s*\(([^)]*)\)")?;
    let dims = shape
        .split(',')
        .map(str::trim)
        .filter(|dim| !dim.is_empty());
    let dims: Result<Vec<usize>, _> = dims.map(str::parse).collect();
    let dims = dims.map_err(|_| format!("its shape cannot be read: ({shape})"))?;
    if dims.is_empty() {
        return Err("it is a single number, without rows".to_owned());
    }
    if columns_first && dims.len() > 1 {
        return Err("it lies column by column: save `numpy.ascontiguousarray` of it".to_owned());
    }
    let found = TYPES.iter().find(|(name, ..)| *name == ty);
    let (_, width, decode) = found.ok_or_else(|| {
        let names: Vec<&str> = TYPES.iter().map(|(name, ..)| *name).collect();
        format!("its type `{ty}` is none of {}", names.join(", "))
    })?;
    Ok(Header {
        dims,
        width: *width,
        decode: *decode,
    })
}

macro_rules! types {
    ($($name:literal $ty:ty => $kind:ident as $element:ty;)*) => {
        /// The types that are read: NumPy's name, bytes of an element, and how elements are taken.
        const TYPES: &[(&str, usize, fn(&[u8]) -> Elements)] = &[$(
            ($name, size_of::<$ty>(), |bytes| {
                let elements = bytes.chunks_exact(size_of::<$ty>()).map(|bytes| {
                    <$ty>::from_le_bytes(bytes.try_into().unwrap_or_default()) as $element
                });
                Elements::$kind(elements.collect())
            }),
        )*];
    };
}

types! {
    "<f4" f32 => F32 as f32;
    "<f8" f64 => F32 as f32;
    "<i8" i64 => I64 as i64;
    "<i4" i32 => I64 as i64;
    "<i2" i16 => I64 as i64;
    "|i1" i8 => I64 as i64;
    "<u4" u32 => I64 as i64;
    "<u2" u16 => I64 as i64;
    "|u1" u8 => I64 as i64;
    "|b1" u8 => I64 as i64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_and_what_cannot_be_used_is_named() {
        let header = |ty: &str, order: &str, shape: &str| {
            parse(&format!(
                "{{'descr': '{ty}', 'fortran_order': {order}, 'shape': {shape}, }}  \n"
            ))
        };
        let found = header("<f4", "False", "(3, 4)").unwrap();
        assert_eq!(
            (found.dims.as_slice(), found.bytes()),
            ([3, 4].as_slice(), Some(48))
        );
        assert_eq!(header("|b1", "True", "(3,)").unwrap().dims, [3]);
        let huge = header("<i8", "False", "(4294967296, 4294967296)").unwrap();
        assert_eq!(huge.bytes(), None);
        for (ty, order, shape) in [
            ("<f4", "True", "(3, 4)"),
            ("<U5", "False", "(3,)"),
            (">f4", "False", "(3,)"),
            ("<f4", "False", "()"),
            ("<f4", "False", "(-1,)"),
        ] {
            assert!(header(ty, order, shape).is_err(), "{ty} {order} {shape}");
        }
    }
}
