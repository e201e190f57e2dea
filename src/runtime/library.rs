//! Loading the library: once in a process, from the first place that works.

use super::install::{self, Flavor, Install, Network};
use super::locate::{self, Candidate, Rung, Surroundings, Wanted};
use super::{LOWEST_VERSION, errors, raw};
use crate::diag::Diagnostic;
use ort::ep::ExecutionProvider;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The loaded ONNX Runtime. There is one in a process, and it stays.
#[derive(Debug)]
pub struct Library {
    pub(super) environment: ort::environment::Environment,
    /// The file that was loaded, or the name that the system's loader resolved.
    pub path: PathBuf,
    /// How it was found.
    pub rung: Rung,
    /// Such as `1.32.0`.
    pub version: String,
}

impl Library {
    /// Whether it was built with the CUDA provider; the provider's own needs show when it is used.
    pub fn has_cuda(&self) -> bool {
        ort::ep::CUDA::is_available().unwrap_or(false)
    }
}

/// A place that was tried without success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    pub candidate: Candidate,
    /// Why it did not serve, in one line.
    pub reason: String,
}

/// What loading came to: the library, or every place that was tried.
pub type Load = Result<&'static Library, Vec<Tried>>;

static LIBRARY: OnceLock<Library> = OnceLock::new();
/// One attempt at a time: `ort` keeps the first library that loads.
static LOADING: Mutex<()> = Mutex::new(());

/// The library, if it has been loaded.
pub fn loaded() -> Option<&'static Library> {
    LIBRARY.get()
}

/// Loads the first library that works. Later calls return the same one, whatever they ask for.
pub fn load(surroundings: &Surroundings, wanted: Wanted) -> Load {
    let _one = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(library) = LIBRARY.get() {
        return Ok(library);
    }
    let mut tried = Vec::new();
    for candidate in locate::candidates(surroundings, wanted) {
        match try_candidate(&candidate, surroundings.keep_log) {
            Ok(library) => return Ok(LIBRARY.get_or_init(|| library)),
            Err(reason) => tried.push(Tried { candidate, reason }),
        }
    }
    Err(tried)
}

/// Loads the library of one file: what `peftc runtime check --path` does in a process of its own.
pub fn check(path: &Path) -> Result<&'static Library, Diagnostic> {
    let surroundings = Surroundings {
        explicit: Some(path.to_owned()),
        ..Surroundings::default()
    };
    load(&surroundings, Wanted::Cpu).map_err(|tried| errors::not_loaded(&tried))
}

/// Loads the library, and installs it first when there is none and `network` allows it; `say`
/// gets a line about what happens. The diagnostic lists every place that was tried.
pub fn ready(
    surroundings: &Surroundings,
    wanted: Wanted,
    network: Network,
    say: &mut dyn FnMut(&str),
) -> Result<&'static Library, Diagnostic> {
    let tried = match load(surroundings, wanted) {
        Ok(library) => return Ok(library),
        Err(tried) => tried,
    };
    let is_file = |t: &Tried| t.candidate.there && t.candidate.rung != Rung::Loader;
    // A library that is there and does not load is for the user to see, not to be covered up.
    if surroundings.explicit.is_some() || tried.iter().any(is_file) {
        return Err(errors::not_loaded(&tried));
    }
    if network == Network::Forbidden {
        return Err(errors::not_loaded(&tried).note("`--offline` forbids installing it now"));
    }
    let request = Install::new(match wanted {
        Wanted::Cpu => Flavor::Cpu,
        Wanted::Cuda => Flavor::Cuda,
    });
    say(&format!(
        "ONNX Runtime not found; installing {} once (`--offline` forbids this)",
        request.requirement()
    ));
    let installed = install::install(&request, surroundings, network, say)?;
    say(&format!(
        "ONNX Runtime {} is in {}",
        installed.version,
        installed.folder.display()
    ));
    load(surroundings, wanted).map_err(|tried| errors::not_loaded(&tried))
}

fn try_candidate(candidate: &Candidate, keep_log: bool) -> Result<Library, String> {
    if !candidate.there {
        return Err("not there".to_owned());
    }
    // A relative path would be resolved against the executable's folder by `ort`; only the
    // loader's bare name is meant to be left to the loader.
    let path = match candidate.rung {
        Rung::Loader => candidate.path.clone(),
        _ => std::path::absolute(&candidate.path).map_err(|error| error.to_string())?,
    };
    let builder = ort::init_from(&path).map_err(|error| load_reason(&error))?;
    let environment = builder
        .with_name("peftc")
        .with_telemetry(false)
        .build()
        .map_err(|error| error.to_string())?;
    if !keep_log {
        // Errors come back as values; ONNX Runtime would print them a second time.
        environment.set_log_level(ort::logging::LogLevel::Fatal);
    }
    Ok(Library {
        environment,
        version: raw::library_version(&path).unwrap_or_else(|| "unknown".to_owned()),
        path,
        rung: candidate.rung,
    })
}

/// One line: `libloading` keeps the loader's own words in its source.
fn load_reason(error: &ort::LoadDynamicError) -> String {
    match error {
        ort::LoadDynamicError::Dlopen { error, .. } => error
            .source()
            .map_or_else(|| error.to_string(), |source| source.to_string()),
        ort::LoadDynamicError::MissingApi { .. } => "it is not ONNX Runtime".to_owned(),
        ort::LoadDynamicError::BadVersion { version_str, .. } => {
            format!("version {version_str} is too old, {LOWEST_VERSION} is the lowest")
        }
        other => other.to_string(),
    }
}

/// Loads the CUDA libraries that lie beside the loaded library, because its CUDA provider does not
/// look there itself. Missing ones are skipped: the system may have them.
pub fn preload_cuda(library: &Library) {
    let Some(folder) = library.path.parent() else {
        return;
    };
    // Installed by peftc: `<folder>/nvidia`; in a Python environment: `site-packages/nvidia`, two
    // levels above `onnxruntime/capi`.
    let roots = [
        Some(folder.join("nvidia")),
        folder
            .parent()
            .and_then(Path::parent)
            .map(|site| site.join("nvidia")),
    ];
    for root in roots.into_iter().flatten().filter(|root| root.is_dir()) {
        let of = |folder: &'static str, names: &'static [&'static str]| {
            let folder = root.join(folder).join("lib");
            names.iter().map(move |name| folder.join(name))
        };
        let cuda = of("cu13", ort::ep::cuda::CUDA_DYLIBS);
        let cudnn = of("cudnn", ort::ep::cuda::CUDNN_DYLIBS);
        for file in cuda.chain(cudnn).filter(|file| file.is_file()) {
            // A library that does not load shows when the provider needs it, with its reason.
            let _ = ort::util::preload_dylib(file);
        }
    }
}
