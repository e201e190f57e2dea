//! Installing ONNX Runtime into the user's data folder: complete and checked, or not at all.

use super::locate::{Rung, Surroundings, in_folder};
use super::{DEFAULT_CUDA_VERSION, DEFAULT_VERSION, errors, fetch};
use crate::diag::Diagnostic;
use crate::files;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Which build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    Cpu,
    /// With the CUDA provider and the NVIDIA libraries that it needs: some 1.6 GB.
    Cuda,
}

/// Whether a download is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    Allowed,
    /// `--offline`.
    Forbidden,
}

/// What to install.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    pub flavor: Flavor,
    pub version: String,
}

impl Install {
    /// The build of the default version.
    pub fn new(flavor: Flavor) -> Install {
        let version = match flavor {
            Flavor::Cpu => DEFAULT_VERSION,
            Flavor::Cuda => DEFAULT_CUDA_VERSION,
        };
        Install {
            flavor,
            version: version.to_owned(),
        }
    }

    /// The package as pip names it, such as `onnxruntime==1.32.0`.
    pub fn requirement(&self) -> String {
        match self.flavor {
            Flavor::Cpu => format!("onnxruntime=={}", self.version),
            Flavor::Cuda => format!("onnxruntime-gpu=={}", self.version),
        }
    }

    fn requirements(&self) -> Vec<String> {
        let mut all = vec![self.requirement()];
        if self.flavor == Flavor::Cuda {
            all.extend(CUDA_PACKAGES.iter().map(|name| (*name).to_owned()));
        }
        all
    }

    fn folder_name(&self) -> String {
        match self.flavor {
            Flavor::Cpu => self.version.clone(),
            Flavor::Cuda => format!("{}-cuda", self.version),
        }
    }

    /// The version becomes a folder name and an argument of a command.
    fn check_version(&self) -> Result<(), Diagnostic> {
        let parts: Vec<&str> = self.version.split('.').collect();
        let is_number = |part: &&str| {
            !part.is_empty() && part.len() < 9 && part.bytes().all(|b| b.is_ascii_alphanumeric())
        };
        let starts_with_digit = self.version.starts_with(|c: char| c.is_ascii_digit());
        if starts_with_digit && parts.len() >= 2 && parts.iter().all(is_number) {
            Ok(())
        } else {
            Err(errors::bad_version(&self.version))
        }
    }
}

/// What the CUDA provider of version 1.31 links to, as its package states it.
const CUDA_PACKAGES: &[&str] = &[
    "nvidia-cuda-runtime~=13.0",
    "nvidia-cublas~=13.0",
    "nvidia-cuda-nvrtc~=13.0",
    "nvidia-cufft~=12.0",
    "nvidia-curand~=10.0",
    "nvidia-cudnn-cu13~=9.0",
];

/// An installation that is in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    pub folder: PathBuf,
    pub library: PathBuf,
    pub version: String,
    /// Whether it was there before.
    pub already: bool,
}

/// The command that helps name.
pub fn install_command() -> &'static str {
    "peftc runtime install"
}

/// Downloads, unpacks, checks and only then moves into place. `say` gets a line for each step
/// that takes a while.
pub fn install(
    request: &Install,
    surroundings: &Surroundings,
    network: Network,
    say: &mut dyn FnMut(&str),
) -> Result<Installed, Diagnostic> {
    request.check_version()?;
    let home = surroundings
        .runtime_folder()
        .ok_or_else(errors::no_data_folder)?;
    let folder = home.join(request.folder_name());
    if let Some(installed) = in_place(request, &folder, true) {
        return Ok(installed);
    }
    if network == Network::Forbidden {
        return Err(errors::offline());
    }
    fs::create_dir_all(&home).map_err(|error| files::cannot_write(&home, &error))?;
    // Inside the same folder, so that the last step is a rename.
    let make = || {
        tempfile::Builder::new()
            .prefix(".incoming-")
            .tempdir_in(&home)
    };
    let (incoming, _unfinished) = files::unfinished(make, tempfile::TempDir::path)
        .map_err(|error| files::cannot_write(&home, &error))?;
    let library = build(request, surroundings, incoming.path(), say)?;
    check_in_child(surroundings.executable.as_deref(), &library)?;
    let ready = incoming.path().join(READY);
    match fs::rename(&ready, &folder) {
        Ok(()) => in_place(request, &folder, false),
        // Another process was faster.
        Err(_) if folder.is_dir() => in_place(request, &folder, true),
        Err(error) => return Err(files::cannot_write(&folder, &error)),
    }
    .ok_or_else(|| errors::bad_wheel(&request.requirement(), NO_LIBRARY))
}

const READY: &str = "ready";
const NO_LIBRARY: &str = "it holds no ONNX Runtime library";

fn in_place(request: &Install, folder: &Path, already: bool) -> Option<Installed> {
    let candidate = in_folder(Rung::Installed, folder);
    candidate.there.then(|| Installed {
        folder: folder.to_owned(),
        library: candidate.path,
        version: request.version.clone(),
        already,
    })
}

/// Fills `<incoming>/ready` and returns the library in it.
fn build(
    request: &Install,
    surroundings: &Surroundings,
    incoming: &Path,
    say: &mut dyn FnMut(&str),
) -> Result<PathBuf, Diagnostic> {
    let (download, ready) = (incoming.join("download"), incoming.join(READY));
    for folder in [&download, &ready] {
        fs::create_dir(folder).map_err(|error| files::cannot_write(folder, &error))?;
    }
    if request.flavor == Flavor::Cuda {
        say("downloading the CUDA build and the NVIDIA libraries, some 1.6 GB");
    }
    let python = fetch::python(surroundings.python.as_ref());
    for package in fetch::wheels(&request.requirements(), &python, &download)? {
        fetch::unpack(&package, &ready)?;
    }
    let candidate = in_folder(Rung::Installed, &ready);
    if candidate.there {
        Ok(candidate.path)
    } else {
        Err(errors::bad_wheel(&request.requirement(), NO_LIBRARY))
    }
}

/// Loads the library in a process of its own, since a bad one could take this one down. Programs
/// other than peftc (tests) load it themselves a moment later.
fn check_in_child(executable: Option<&Path>, library: &Path) -> Result<(), Diagnostic> {
    let Some(peftc) = executable.filter(|path| path.file_stem() == Some("peftc".as_ref())) else {
        return Ok(());
    };
    let output = Command::new(peftc)
        .args(["--quiet", "runtime", "check", "--path"])
        .arg(library)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| errors::does_not_load(library, &error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(errors::does_not_load(library, words.trim()))
}

#[cfg(test)]
#[path = "install_tests.rs"]
mod tests;
