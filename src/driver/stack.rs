//! Adapters of one shape as one file: every tensor along a new first axis, an adapter behind the other.
//! Methods that mix trained adapters start from such a file.

use super::artifacts::check_unread;
use super::errors;
use crate::diag::{Reported, Sink};
use crate::weights::{NamedTensor, read_tensors, write_tensors};
use bytes::Bytes;
use std::path::{Path, PathBuf};

/// What is stacked, and how.
#[derive(Clone, Debug)]
pub struct StackOptions {
    /// Files of tensors, in the order of the new axis; at least one.
    pub adapters: Vec<PathBuf>,
    /// What comes behind the name of every tensor.
    pub suffix: String,
    /// A file whose tensors are written, too, as they are.
    pub beside: Option<PathBuf>,
    pub output: PathBuf,
}

/// How many tensors were stacked, and how many are in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stacked {
    pub stacked: usize,
    pub written: usize,
}

/// Stacks tensors by their names; every file must have the same ones, in the same types and shapes.
pub fn stack(options: &StackOptions, sink: &mut Sink) -> Result<Stacked, Reported> {
    let mut read = options.adapters.clone();
    read.extend(options.beside.clone());
    let folder = options.output.parent().unwrap_or(Path::new(""));
    let name = options.output.file_name().unwrap_or_default();
    let name = name.to_string_lossy();
    check_unread(folder, [&name; 2], &read, sink)?;

    let mut files = Vec::with_capacity(options.adapters.len());
    for path in &options.adapters {
        files.push((path.as_path(), read_tensors(path, sink)?));
    }
    let Some(((first, of_first), others)) = files.split_first() else {
        return Ok(Stacked {
            stacked: 0,
            written: 0,
        });
    };
    for (path, tensors) in others {
        let fits = |sink: &mut Sink| alike((*first, of_first), (*path, tensors), sink);
        fits(sink)?;
    }
    let mut found: Vec<NamedTensor> = of_first
        .iter()
        .enumerate()
        .map(|(at, tensor)| {
            let each = files.iter().map(|(_, tensors)| &*tensors[at].data);
            let mut dims = vec![files.len() as i64];
            dims.extend(&tensor.dims);
            NamedTensor {
                name: format!("{}{}", tensor.name, options.suffix),
                dtype: tensor.dtype,
                dims,
                data: Bytes::from(each.collect::<Vec<&[u8]>>().concat()),
            }
        })
        .collect();
    let stacked = found.len();
    if let Some(path) = &options.beside {
        for tensor in read_tensors(path, sink)? {
            if found.iter().any(|own| own.name == tensor.name) {
                return Err(sink.emit(errors::stacked_twice(path, &tensor.name)));
            }
            found.push(tensor);
        }
    }
    let count = files.len().to_string();
    write_tensors(&options.output, &found, ("stacked", count), sink)?;
    Ok(Stacked {
        stacked,
        written: found.len(),
    })
}

/// Reports every tensor that one of two files lacks or has in another type or shape.
fn alike(
    (first, of_first): (&Path, &[NamedTensor]),
    (path, tensors): (&Path, &[NamedTensor]),
    sink: &mut Sink,
) -> Result<(), Reported> {
    let find = |tensors: &'_ [NamedTensor], name: &str| -> Option<usize> {
        tensors.iter().position(|tensor| tensor.name == name)
    };
    let mut reported = None;
    for tensor in of_first {
        match find(tensors, &tensor.name) {
            None => reported = Some(sink.emit(errors::not_in_both(path, first, &tensor.name))),
            Some(at) => {
                let other = &tensors[at];
                if (other.dtype, &other.dims) != (tensor.dtype, &tensor.dims) {
                    reported = Some(sink.emit(errors::not_alike(path, other, first, tensor)));
                }
            }
        }
    }
    for tensor in tensors {
        if find(of_first, &tensor.name).is_none() {
            reported = Some(sink.emit(errors::not_in_both(first, path, &tensor.name)));
        }
    }
    reported.map_or(Ok(()), Err)
}
