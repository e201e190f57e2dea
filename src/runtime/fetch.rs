//! Getting wheels through the user's own pip or uv, and the libraries out of them.
//!
//! No address is known here: the tools use the index that the user has configured for them.

use super::errors;
use super::locate::is_library;
use crate::diag::Diagnostic;
use crate::files;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Downloads wheels into `folder` without what they depend on, and returns their paths. The first
/// tool that works does it: pip for the running Python, pip for a Python that the wheels exist
/// for (the libraries inside are the same), uv.
pub(super) fn wheels(
    requirements: &[String],
    python: &OsStr,
    folder: &Path,
) -> Result<Vec<PathBuf>, Diagnostic> {
    let mut attempts = Vec::new();
    for tool in [Tool::Pip, Tool::PipForeign, Tool::Uv] {
        let mut command = tool.command(requirements, python, folder);
        match run(&mut command) {
            Ok(()) => {
                return packages(folder).map_err(|error| files::cannot_read(folder, &error));
            }
            Err(words) => attempts.push((tool.name().to_owned(), words)),
        }
    }
    Err(errors::download_failed(&requirements.join(" "), &attempts))
}

#[derive(Clone, Copy)]
enum Tool {
    Pip,
    PipForeign,
    Uv,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Tool::Pip => "python3 -m pip download",
            Tool::PipForeign => "python3 -m pip download --python-version 3.12",
            Tool::Uv => "uv pip install --target",
        }
    }

    fn command(self, requirements: &[String], python: &OsStr, folder: &Path) -> Command {
        let mut command = match self {
            Tool::Pip | Tool::PipForeign => Command::new(python),
            Tool::Uv => Command::new("uv"),
        };
        match self {
            Tool::Pip | Tool::PipForeign => command.args(PIP).arg("--dest").arg(folder),
            // uv has no download; what it unpacks has the same layout as the wheel.
            Tool::Uv => command
                .args(UV)
                .arg("--target")
                .arg(folder.join("unpacked")),
        };
        if let Tool::PipForeign = self {
            command.args(["--python-version", "3.12", "--implementation", "cp"]);
            let machine = std::env::consts::ARCH;
            for tag in ["2_28", "2_27", "2_17"] {
                command
                    .arg("--platform")
                    .arg(format!("manylinux_{tag}_{machine}"));
            }
            command
                .arg("--platform")
                .arg(format!("manylinux2014_{machine}"));
        }
        command.args(requirements);
        command
    }
}

const PIP: &[&str] = &[
    "-m",
    "pip",
    "download",
    "--quiet",
    "--no-input",
    "--disable-pip-version-check",
    "--no-deps",
    "--only-binary=:all:",
];
const UV: &[&str] = &[
    "pip",
    "install",
    "--quiet",
    "--no-deps",
    "--only-binary=:all:",
    "--python-version",
    "3.12",
];

/// `Err` with the tool's last line, or why it did not start.
fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("does not start: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let last = words
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty())
        .unwrap_or("it says nothing");
    Err(last.to_owned())
}

/// The wheels, or the unpacked tree, of a download folder, sorted.
fn packages(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() || path.extension() == Some(OsStr::new("whl")) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Copies the libraries and licences of a wheel (or of its unpacked tree) into `target`:
/// ONNX Runtime's flat, NVIDIA's under `nvidia/` as they are.
pub(super) fn unpack(package: &Path, target: &Path) -> Result<(), Diagnostic> {
    if package.is_dir() {
        return unpack_tree(package, package, target)
            .map_err(|error| files::cannot_write(target, &error));
    }
    unpack_wheel(package, target).map_err(|error| {
        let name = package.file_name().unwrap_or_default().to_string_lossy();
        errors::bad_wheel(&name, &error.to_string())
    })
}

fn unpack_wheel(wheel: &Path, target: &Path) -> io::Result<()> {
    let mut archive = zip::ZipArchive::new(File::open(wheel)?)?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        let Some(place) = entry.enclosed_name().and_then(|name| place(&name)) else {
            continue;
        };
        let mut file = create(&target.join(place))?;
        io::copy(&mut entry, &mut file)?;
    }
    Ok(())
}

fn unpack_tree(root: &Path, folder: &Path, target: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            unpack_tree(root, &path, target)?;
            continue;
        }
        let name = path.strip_prefix(root).expect("below its own root");
        if let Some(place) = place(name) {
            io::copy(&mut File::open(&path)?, &mut create(&target.join(place))?)?;
        }
    }
    Ok(())
}

fn create(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    File::create(path)
}

/// Where a file of a package goes; `None` for what is not needed.
fn place(name: &Path) -> Option<PathBuf> {
    let file = name.file_name()?.to_str()?;
    let folder: Vec<&OsStr> = name.parent()?.iter().collect();
    let folder: Option<Vec<&str>> = folder.iter().map(|part| part.to_str()).collect();
    match folder?.as_slice() {
        ["onnxruntime", "capi"] if is_library(file) || is_provider(file) => Some(file.into()),
        ["onnxruntime"] if matches!(file, "LICENSE" | "ThirdPartyNotices.txt") => Some(file.into()),
        ["nvidia", _, "lib"] if file.contains(".so") => Some(name.to_owned()),
        _ => None,
    }
}

/// Provider libraries lie beside the main one. TensorRT is not used.
fn is_provider(file: &str) -> bool {
    let stem = file.trim_start_matches("lib");
    stem.starts_with("onnxruntime_providers_") && !stem.contains("tensorrt")
}

/// The Python to ask; the system's when the surroundings name none.
pub(super) fn python(asked: Option<&OsString>) -> OsString {
    asked.cloned().unwrap_or_else(|| OsString::from("python3"))
}
