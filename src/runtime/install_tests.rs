use super::*;
use crate::diag::Code;
use std::io::Write;

/// A `python3` that answers `-m pip download` by copying a wheel, or by failing.
#[cfg(unix)]
fn fake_python(folder: &Path, script: &str) -> std::ffi::OsString {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join("python");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.into_os_string()
}

fn wheel(path: &Path, entries: &[(&str, &str)]) {
    let mut archive = zip::ZipWriter::new(fs::File::create(path).unwrap());
    for (name, text) in entries {
        archive
            .start_file(*name, zip::write::SimpleFileOptions::default())
            .unwrap();
        archive.write_all(text.as_bytes()).unwrap();
    }
    archive.finish().unwrap();
}

/// Installs from a pip that delivers a wheel of these entries; the folder holds the data home.
#[cfg(unix)]
fn install_from(entries: &[(&str, &str)]) -> (tempfile::TempDir, Result<Installed, Diagnostic>) {
    let root = tempfile::tempdir().unwrap();
    wheel(&root.path().join("source.whl"), entries);
    let copy = "while [ \"$1\" != --dest ]; do shift; done\n\
                cp \"$(dirname \"$0\")/source.whl\" \"$2/onnxruntime-1.32.0.whl\"";
    let surroundings = Surroundings {
        data_home: Some(root.path().to_owned()),
        python: Some(fake_python(root.path(), copy)),
        ..Surroundings::default()
    };
    let result = install(
        &Install::new(Flavor::Cpu),
        &surroundings,
        Network::Allowed,
        &mut |_| {},
    );
    (root, result)
}

#[cfg(unix)]
#[test]
fn only_libraries_and_licences_are_kept() {
    let (_root, result) = install_from(&[
        ("onnxruntime/capi/libonnxruntime.so.1.32.0", "library"),
        (
            "onnxruntime/capi/libonnxruntime_providers_shared.so",
            "shared",
        ),
        (
            "onnxruntime/capi/libonnxruntime_providers_tensorrt.so",
            "no",
        ),
        ("onnxruntime/capi/onnxruntime_pybind11_state.so", "no"),
        ("onnxruntime/LICENSE", "licence"),
        ("onnxruntime/__init__.py", "no"),
        ("../../escape/libonnxruntime.so", "no"),
    ]);
    let installed = result.unwrap();
    let mut names: Vec<String> = fs::read_dir(&installed.folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "LICENSE",
            "libonnxruntime.so.1.32.0",
            "libonnxruntime_providers_shared.so"
        ]
    );
    assert!(!installed.already);
}

#[cfg(unix)]
#[test]
fn a_wheel_without_a_library_leaves_nothing_behind() {
    let (root, result) = install_from(&[("onnxruntime/__init__.py", "")]);
    assert_eq!(result.unwrap_err().code, Code::E0803);
    let runtime = root.path().join("peftc/runtime");
    assert_eq!(fs::read_dir(runtime).unwrap().count(), 0);
}

#[cfg(unix)]
#[test]
fn a_tool_that_fails_is_quoted() {
    let root = tempfile::tempdir().unwrap();
    let surroundings = Surroundings {
        data_home: Some(root.path().to_owned()),
        python: Some(fake_python(
            root.path(),
            "echo 'ERROR: no index' >&2; exit 1",
        )),
        ..Surroundings::default()
    };
    let request = Install {
        version: "0.0.1".to_owned(),
        ..Install::new(Flavor::Cpu)
    };
    // With a uv on the machine, the third attempt asks for a version that does not exist.
    let error = install(&request, &surroundings, Network::Allowed, &mut |_| {}).unwrap_err();
    assert_eq!(error.code, Code::E0803);
    assert!(error.notes[0].contains("ERROR: no index"), "{error:?}");
}

#[test]
fn a_version_is_no_path_and_no_option() {
    for version in ["", "1", "../1.2", "--pre", "1.2/3", "1.2;x", "1..2"] {
        let request = Install {
            version: version.to_owned(),
            ..Install::new(Flavor::Cpu)
        };
        assert!(request.check_version().is_err(), "{version}");
    }
    assert!(Install::new(Flavor::Cuda).check_version().is_ok());
}

#[test]
fn offline_forbids_the_download_but_not_what_is_there() {
    let root = tempfile::tempdir().unwrap();
    let surroundings = Surroundings {
        data_home: Some(root.path().to_owned()),
        ..Surroundings::default()
    };
    let request = Install::new(Flavor::Cpu);
    let ask = || install(&request, &surroundings, Network::Forbidden, &mut |_| {});
    assert_eq!(ask().unwrap_err().code, Code::E0803);
    let folder = root.path().join("peftc/runtime").join(&request.version);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("libonnxruntime.so.1.32.0"), b"").unwrap();
    assert!(ask().unwrap().already);
}
