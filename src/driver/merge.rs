//! Writes a model whose weights have an adapter in them.

use super::artifacts::{Destination, copy_data, external_files};
use super::errors;
use super::session::{Loaded, Planned, Session};
use super::training::BaseData;
use super::values::trained_values;
use crate::adapt::{self, MergedSite};
use crate::diag::{Reported, Sink};
use crate::files::Staging;
use crate::graph::{Tensor, TensorData};
use crate::onnx;
use std::path::{Path, PathBuf};

/// What a merge has written.
#[derive(Debug)]
pub struct MergeArtifacts {
    pub model: PathBuf,
    /// New weights, where those of the base lie beside it, too.
    pub data: Option<PathBuf>,
    /// Copied external data with sizes in bytes.
    pub copied: Vec<(PathBuf, u64)>,
    pub sites: Vec<MergedSite>,
}

/// Puts the tensors of `values` into the weights of a planned model, and writes it as
/// `<model>.<adapter>.merged.onnx` beside the base or as `model.onnx` in a folder. The loaded model
/// is changed in place.
pub fn merge(
    session: &mut Session<'_>,
    loaded: &mut Loaded,
    planned: &Planned,
    values: &Path,
    destination: &Destination,
) -> Result<MergeArtifacts, Reported> {
    let sink = &mut *session.sink;
    let values = trained_values(&planned.plan, None, values, sink)?;
    let names = Names::new(&loaded.path, &planned.plan.adapter, destination);
    let target = names.folder.join(&names.model);
    let same = |path: &Path| path.canonicalize().ok();
    if same(&target).is_some_and(|real| same(&loaded.path) == Some(real)) {
        return Err(sink.emit(errors::target_is_base(&target)));
    }
    let staging = Staging::new(&names.folder, sink)?;
    let mut data = BaseData::create(names.data.clone(), &staging, sink)?;
    let Loaded {
        model,
        modules,
        weights,
        path,
        ..
    } = loaded;
    let reader = |tensor: &Tensor, sink: &mut Sink| weights.read(tensor, sink);
    // A weight of the file stays in the file, one of the data beside it stays beside it.
    let mut keep = |old: &Tensor, bytes: Vec<u8>, sink: &mut Sink| match old.data {
        TensorData::External(_) => data.keep(&bytes, sink).map(TensorData::External),
        _ => Ok(TensorData::Raw(bytes.into())),
    };
    let plan = &planned.plan;
    let sites = adapt::merge(plan, model, modules, &values, &reader, &mut keep, sink)?;
    let data = data.finish(sink)?;
    let mut base = external_files(&model.graph);
    base.remove(&names.data);
    let copied = match destination {
        Destination::Beside => Vec::new(),
        Destination::Folder(folder) => copy_data(&base, path, folder, &staging, sink)?,
    };
    onnx::save(model, &staging.path(&names.model), sink)?;
    let mut order: Vec<String> = copied.iter().map(|(name, _)| name.clone()).collect();
    order.extend(data.clone());
    order.push(names.model.clone());
    staging.publish(&order, sink)?;
    let place = |name: &String| names.folder.join(name);
    Ok(MergeArtifacts {
        model: place(&names.model),
        data: data.as_ref().map(place),
        copied: copied
            .iter()
            .map(|(name, size)| (place(name), *size))
            .collect(),
        sites,
    })
}

struct Names {
    folder: PathBuf,
    model: String,
    data: String,
}

impl Names {
    fn new(model: &Path, adapter: &str, destination: &Destination) -> Names {
        let stem = model
            .file_stem()
            .map_or_else(String::new, |s| s.to_string_lossy().into_owned());
        match destination {
            Destination::Folder(folder) => Names {
                folder: folder.clone(),
                model: "model.onnx".to_owned(),
                data: "merged.data".to_owned(),
            },
            Destination::Beside => Names {
                folder: model.parent().unwrap_or(Path::new("")).to_owned(),
                model: format!("{stem}.{adapter}.merged.onnx"),
                data: format!("{stem}.{adapter}.merged.data"),
            },
        }
    }
}
