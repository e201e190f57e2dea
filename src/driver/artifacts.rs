//! The files that a compilation writes: their names, and writing them.

use super::errors;
use super::manifest::Manifest;
use super::training::Brought;
use crate::diag::{Reported, Sink};
use crate::files::{self, Staging};
use crate::graph::{Graph, Model, Tensor, TensorData};
use crate::onnx;
use crate::train::Base;
use crate::weights::{NamedTensor, write_tensors};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Where artifacts go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Beside the model, as `<model>.<adapter>.onnx` and so on; external data is shared.
    Beside,
    /// Into a folder, as `model.onnx`, `adapter.safetensors` and `manifest.json`; external data is
    /// copied, unless it is the model's own folder.
    Folder(PathBuf),
}

/// The folder of the artifacts and their names in it.
pub(super) struct Names {
    pub folder: PathBuf,
    pub model: String,
    pub weights: String,
    pub manifest: String,
}

impl Names {
    pub fn new(model: &Path, adapter: &str, destination: &Destination) -> Self {
        match destination {
            Destination::Folder(folder) => Names {
                folder: folder.clone(),
                model: "model.onnx".to_owned(),
                weights: "adapter.safetensors".to_owned(),
                manifest: "manifest.json".to_owned(),
            },
            Destination::Beside => {
                let stem = model
                    .file_stem()
                    .map_or_else(String::new, |s| s.to_string_lossy().into_owned());
                let name = |suffix: &str| format!("{stem}.{adapter}.{suffix}");
                Names {
                    folder: model.parent().unwrap_or(Path::new("")).to_owned(),
                    model: name("onnx"),
                    weights: name("safetensors"),
                    manifest: name("manifest.json"),
                }
            }
        }
    }
}

impl Names {
    /// The file of a training graph: `step.onnx` in a folder, `<model>.<adapter>.step.onnx` beside
    /// the model.
    pub fn graph(&self, name: &str) -> String {
        match self.model.strip_suffix(".onnx") {
            Some("model") | None => format!("{name}.onnx"),
            Some(stem) => format!("{stem}.{name}.onnx"),
        }
    }

    /// The file of the frozen weights of training graphs.
    pub fn base_data(&self, base: Base) -> String {
        let own = match base {
            Base::Own => "base.data".to_owned(),
            rounded => format!("base.{}.data", rounded.name()),
        };
        match self.model.strip_suffix(".onnx") {
            Some("model") | None => own,
            Some(stem) => format!("{stem}.{own}"),
        }
    }

    /// An artifact never takes the place of the model that it was made from.
    pub fn check_base(
        &self,
        model: &Path,
        data: &BTreeSet<String>,
        sink: &mut Sink,
    ) -> Result<(), Reported> {
        let beside = model.parent().unwrap_or(Path::new(""));
        let data = data.iter().map(|location| beside.join(location));
        let base: BTreeSet<PathBuf> = std::iter::once(model.to_owned())
            .chain(data)
            .filter_map(|path| path.canonicalize().ok())
            .collect();
        for name in [&self.model, &self.weights, &self.manifest] {
            let target = self.folder.join(name);
            if target.canonicalize().is_ok_and(|real| base.contains(&real)) {
                return Err(sink.emit(errors::target_is_base(&target)));
            }
        }
        Ok(())
    }
}

/// The folder of an adapter without a model, and its names in it.
pub(super) struct AdapterNames {
    pub folder: PathBuf,
    pub spec: String,
    pub weights: String,
}

impl AdapterNames {
    /// In a folder it has a name of its own, beside the model one behind that of the model.
    pub fn new(model: &Path, destination: &Destination, beside: &str, inside: &str) -> Self {
        let (folder, name) = match destination {
            Destination::Folder(folder) => (folder.clone(), inside.to_owned()),
            Destination::Beside => {
                let stem = model
                    .file_stem()
                    .map_or_else(String::new, |s| s.to_string_lossy().into_owned());
                let folder = model.parent().unwrap_or(Path::new("")).to_owned();
                (folder, format!("{stem}.{beside}"))
            }
        };
        AdapterNames {
            folder,
            spec: format!("{name}.peft"),
            weights: format!("{name}.safetensors"),
        }
    }
}

/// What is read is not written.
pub(super) fn check_unread(
    folder: &Path,
    names: [&str; 2],
    read: &[PathBuf],
    sink: &mut Sink,
) -> Result<(), Reported> {
    for name in names {
        let target = folder.join(name);
        let Ok(real) = target.canonicalize() else {
            continue;
        };
        let is_target = |path: &PathBuf| path.canonicalize().is_ok_and(|path| path == real);
        if read.iter().any(is_target) {
            return Err(sink.emit(errors::target_is_read(&target)));
        }
    }
    Ok(())
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Writes the model on a thread of its own while the adapter and the manifest are written.
pub(super) fn write_all(
    model: &Model,
    tensors: Vec<Brought>,
    manifest: &Manifest,
    names: &Names,
    staging: &Staging,
    sink: &mut Sink,
) -> Result<(), Reported> {
    let save = || {
        let mut sink = Sink::new();
        let saved = onnx::save(model, &staging.path(&names.model), &mut sink);
        (saved, sink)
    };
    let ((saved, said), adapter) = std::thread::scope(|scope| {
        let model = scope.spawn(save);
        let adapter = write_adapter(tensors, manifest, names, staging, sink);
        (model.join().expect("writing does not panic"), adapter)
    });
    sink.append(said);
    saved.and(adapter)
}

fn write_adapter(
    tensors: Vec<Brought>,
    manifest: &Manifest,
    names: &Names,
    staging: &Staging,
    sink: &mut Sink,
) -> Result<(), Reported> {
    let tensors: Vec<NamedTensor> = tensors
        .into_iter()
        .map(|t| NamedTensor {
            name: t.name,
            dtype: t.tensor.dtype,
            data: t.tensor.raw().expect("new tensors are inline").clone(),
            dims: t.tensor.dims,
        })
        .collect();
    let identity = format!("{} on {}", manifest.adapter, manifest.base.fingerprint);
    write_tensors(
        &staging.path(&names.weights),
        &tensors,
        ("peftc", identity),
        sink,
    )?;
    let mut json = serde_json::to_string_pretty(manifest).expect("a manifest is plain data");
    json.push('\n');
    let path = staging.path(&names.manifest);
    files::write(&path, sink, |out| out.write_all(json.as_bytes()))
}

/// Locations of external data, relative to the model's folder.
pub(super) fn external_files(graph: &Graph) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for id in graph.value_ids() {
        if let Some(Tensor {
            data: TensorData::External(external),
            ..
        }) = graph.value(id).tensor()
        {
            found.insert(external.location.clone());
        }
    }
    for id in graph.node_ids() {
        for attribute in &graph.node(id).attributes {
            for body in attribute.value.graphs() {
                found.extend(external_files(body));
            }
        }
    }
    found
}

/// Copies external data into another folder: runtimes refuse data outside the model's folder,
/// symbolic links and hard links. The system copies without passing the bytes through this process
/// where it can.
pub(super) fn copy_data(
    data: &BTreeSet<String>,
    model: &Path,
    folder: &Path,
    staging: &Staging,
    sink: &mut Sink,
) -> Result<Vec<(String, u64)>, Reported> {
    let from = model
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let same = from
        .canonicalize()
        .ok()
        .zip(folder.canonicalize().ok())
        .is_some_and(|(a, b)| a == b);
    if same {
        return Ok(Vec::new());
    }
    let mut copied = Vec::new();
    for location in data {
        let size = files::copy(&from.join(location), &staging.path(location), sink)?;
        copied.push((location.clone(), size));
    }
    Ok(copied)
}
