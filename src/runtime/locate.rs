//! Where an ONNX Runtime library may lie, in the order in which the places are tried.

use std::cmp::Ordering;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the search depends on, read once from the process by the caller, so that nothing below
/// looks at the environment.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// `ORT_DYLIB_PATH`: when set, nothing else is tried.
    pub explicit: Option<PathBuf>,
    /// The running executable.
    pub executable: Option<PathBuf>,
    /// The user's data folder; installations lie in `peftc/runtime` below it.
    pub data_home: Option<PathBuf>,
    /// `VIRTUAL_ENV` and `CONDA_PREFIX`, where set.
    pub environments: Vec<PathBuf>,
    /// The Python that is asked where its `onnxruntime` lies; `None` asks nobody.
    pub python: Option<OsString>,
    /// Folders of the system's own libraries.
    pub system: Vec<PathBuf>,
    /// Whether ONNX Runtime keeps its own log on stderr, as `ORT_LOG` asks.
    pub keep_log: bool,
}

impl Surroundings {
    /// Reads the variables through `variable`, the way `std::env::var_os` gives them.
    pub fn new(
        variable: impl Fn(&str) -> Option<OsString>,
        executable: Option<PathBuf>,
    ) -> Surroundings {
        let path = |name: &str| {
            variable(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let home = path("HOME").or_else(|| path("USERPROFILE"));
        Surroundings {
            explicit: path("ORT_DYLIB_PATH"),
            executable,
            // The XDG rule: a relative path in the variable is ignored.
            data_home: path("XDG_DATA_HOME")
                .filter(|folder| folder.is_absolute())
                .or_else(|| home.map(|home| home.join(".local").join("share"))),
            environments: ["VIRTUAL_ENV", "CONDA_PREFIX"]
                .into_iter()
                .filter_map(path)
                .collect(),
            python: Some(OsString::from(if cfg!(windows) {
                "python"
            } else {
                "python3"
            })),
            system: SYSTEM_FOLDERS.iter().map(PathBuf::from).collect(),
            keep_log: variable("ORT_LOG").is_some(),
        }
    }

    /// Where installations lie: `<data home>/peftc/runtime`.
    pub fn runtime_folder(&self) -> Option<PathBuf> {
        Some(self.data_home.as_ref()?.join("peftc").join("runtime"))
    }
}

const SYSTEM_FOLDERS: &[&str] = if cfg!(windows) {
    &[]
} else {
    &[
        "/usr/local/lib",
        "/usr/local/lib64",
        "/usr/lib",
        "/usr/lib64",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/opt/homebrew/lib",
        "/opt/onnxruntime/lib",
    ]
};

/// The way a place was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rung {
    Variable,
    Executable,
    Installed,
    OwnEnvironment,
    ActiveEnvironment,
    Python,
    System,
    Loader,
}

impl Rung {
    /// The word of JSON outputs.
    pub fn name(self) -> &'static str {
        match self {
            Rung::Variable => "variable",
            Rung::Executable => "executable",
            Rung::Installed => "installed",
            Rung::OwnEnvironment => "own_environment",
            Rung::ActiveEnvironment => "active_environment",
            Rung::Python => "python",
            Rung::System => "system",
            Rung::Loader => "loader",
        }
    }

    /// The kind of place, in words.
    pub fn place(self) -> &'static str {
        match self {
            Rung::Variable => "named by `ORT_DYLIB_PATH`",
            Rung::Executable => "next to the executable",
            Rung::Installed => "installed by `peftc runtime install`",
            Rung::OwnEnvironment => "Python environment that holds peftc",
            Rung::ActiveEnvironment => "active Python environment",
            Rung::Python => "onnxruntime package of this Python",
            Rung::System => "system folder",
            Rung::Loader => "the system loader's path",
        }
    }
}

/// A place that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub rung: Rung,
    /// The library when it is there, the folder or name that was looked at when it is not.
    pub path: PathBuf,
    pub there: bool,
}

/// Which build to prefer among the installed ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    #[default]
    Cpu,
    Cuda,
}

/// Every place in order, looked at one by one as the iterator advances: asking Python costs some
/// 40 ms and is reached only when the places before it fail.
pub fn candidates(
    surroundings: &Surroundings,
    wanted: Wanted,
) -> impl Iterator<Item = Candidate> + '_ {
    type Look = fn(&Surroundings, Wanted) -> Vec<Candidate>;
    let looks: &'static [Look] = if surroundings.explicit.is_some() {
        &[explicit]
    } else {
        &[
            beside_executable,
            installed,
            environments,
            python,
            system,
            loader,
        ]
    };
    looks
        .iter()
        .flat_map(move |look| look(surroundings, wanted))
}

fn explicit(surroundings: &Surroundings, _: Wanted) -> Vec<Candidate> {
    surroundings
        .explicit
        .iter()
        .map(|path| Candidate {
            rung: Rung::Variable,
            path: path.clone(),
            there: path.is_file(),
        })
        .collect()
}

fn beside_executable(surroundings: &Surroundings, _: Wanted) -> Vec<Candidate> {
    let folder = surroundings.executable.as_ref().and_then(|e| e.parent());
    folder
        .map(|folder| in_folder(Rung::Executable, folder))
        .into_iter()
        .collect()
}

fn installed(surroundings: &Surroundings, wanted: Wanted) -> Vec<Candidate> {
    let Some(folder) = surroundings.runtime_folder() else {
        return Vec::new();
    };
    let mut versions: Vec<PathBuf> = std::fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        // Folders under construction begin with a dot.
        .filter(|path| !file_name(path).starts_with('.') && path.is_dir())
        .collect();
    if versions.is_empty() {
        return vec![Candidate {
            rung: Rung::Installed,
            path: folder,
            there: false,
        }];
    }
    let rank = |path: &Path| {
        let cuda = file_name(path).ends_with("-cuda");
        cuda == (wanted == Wanted::Cuda)
    };
    versions.sort_by(|a, b| {
        rank(b)
            .cmp(&rank(a))
            .then_with(|| newest_first(&file_name(a), &file_name(b)))
    });
    versions
        .iter()
        .map(|folder| in_folder(Rung::Installed, folder))
        .collect()
}

fn environments(surroundings: &Surroundings, _: Wanted) -> Vec<Candidate> {
    // An executable that pip or conda installed lies in `<environment>/bin`.
    let own = surroundings
        .executable
        .as_ref()
        .and_then(|executable| executable.parent()?.parent())
        .filter(|root| root.join("pyvenv.cfg").is_file() || root.join("conda-meta").is_dir());
    let own = own.map(|root| (Rung::OwnEnvironment, root));
    let active = surroundings
        .environments
        .iter()
        .map(|root| (Rung::ActiveEnvironment, root.as_path()));
    own.into_iter()
        .chain(active)
        .flat_map(|(rung, root)| in_environment(rung, root))
        .collect()
}

/// `lib/python3.*/site-packages/onnxruntime/capi` of a virtual environment, newest Python first.
fn in_environment(rung: Rung, root: &Path) -> Vec<Candidate> {
    let mut pythons: Vec<PathBuf> = if cfg!(windows) {
        vec![root.join("Lib")]
    } else {
        std::fs::read_dir(root.join("lib"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| file_name(path).starts_with("python3"))
            .collect()
    };
    pythons.sort_by(|a, b| newest_first(&file_name(a), &file_name(b)));
    if pythons.is_empty() {
        return vec![Candidate {
            rung,
            path: root.to_owned(),
            there: false,
        }];
    }
    pythons
        .iter()
        .map(|python| {
            in_folder(
                rung,
                &python
                    .join("site-packages")
                    .join("onnxruntime")
                    .join("capi"),
            )
        })
        .collect()
}

fn python(surroundings: &Surroundings, _: Wanted) -> Vec<Candidate> {
    // `find_spec` finds the package without importing it; `-I` keeps the working folder out.
    const ASK: &str = "import importlib.util as u\n\
        s = u.find_spec('onnxruntime')\n\
        print(s.submodule_search_locations[0] if s and s.submodule_search_locations else '')";
    let Some(program) = &surroundings.python else {
        return Vec::new();
    };
    let answer = Command::new(program)
        .args(["-I", "-c", ASK])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let package = answer
        .ok()
        .filter(|answer| answer.status.success())
        .and_then(|answer| String::from_utf8(answer.stdout).ok())
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty());
    vec![match package {
        Some(package) => in_folder(Rung::Python, &Path::new(&package).join("capi")),
        None => Candidate {
            rung: Rung::Python,
            path: PathBuf::from(program),
            there: false,
        },
    }]
}

fn system(surroundings: &Surroundings, _: Wanted) -> Vec<Candidate> {
    surroundings
        .system
        .iter()
        .filter(|folder| folder.is_dir())
        .map(|folder| in_folder(Rung::System, folder))
        .collect()
}

fn loader(_: &Surroundings, _: Wanted) -> Vec<Candidate> {
    // Whether the loader knows the name shows only when it is loaded.
    vec![Candidate {
        rung: Rung::Loader,
        path: PathBuf::from(LOADER_NAME),
        there: true,
    }]
}

const LOADER_NAME: &str = if cfg!(windows) {
    "onnxruntime.dll"
} else if cfg!(target_os = "macos") {
    "libonnxruntime.dylib"
} else {
    "libonnxruntime.so.1"
};

/// The newest ONNX Runtime library of a folder.
pub(super) fn in_folder(rung: Rung, folder: &Path) -> Candidate {
    let newest = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is_library(&file_name(path)) && path.is_file())
        .min_by(|a, b| newest_first(&file_name(a), &file_name(b)));
    Candidate {
        rung,
        there: newest.is_some(),
        path: newest.unwrap_or_else(|| folder.to_owned()),
    }
}

/// Whether a file name is that of the main library, not of a provider.
pub(super) fn is_library(name: &str) -> bool {
    if cfg!(windows) {
        name == "onnxruntime.dll"
    } else if cfg!(target_os = "macos") {
        name.starts_with("libonnxruntime.") && name.ends_with(".dylib")
    } else {
        name == "libonnxruntime.so" || name.starts_with("libonnxruntime.so.")
    }
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Compares names by the numbers in them, higher first, then by the text.
fn newest_first(a: &str, b: &str) -> Ordering {
    numbers(b).cmp(&numbers(a)).then_with(|| a.cmp(b))
}

fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter(|part| !part.is_empty())
        // A number too long for the type is no version of anything.
        .map(|part| part.parse().unwrap_or(u64::MAX))
        .collect()
}

#[cfg(test)]
#[path = "locate_tests.rs"]
mod tests;
