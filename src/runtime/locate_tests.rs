use super::*;
use std::fs;

fn nowhere() -> Surroundings {
    Surroundings::default()
}

fn touch(path: &Path) {
    fs::create_dir_all(path.parent().expect("a folder")).unwrap();
    fs::write(path, b"").unwrap();
}

fn found(surroundings: &Surroundings, wanted: Wanted) -> Vec<(Rung, PathBuf)> {
    candidates(surroundings, wanted)
        .filter(|candidate| candidate.there && candidate.rung != Rung::Loader)
        .map(|candidate| (candidate.rung, candidate.path))
        .collect()
}

#[test]
fn the_variable_admits_no_other_place() {
    let folder = tempfile::tempdir().unwrap();
    touch(&folder.path().join("libonnxruntime.so"));
    let surroundings = Surroundings {
        explicit: Some(folder.path().join("absent.so")),
        executable: Some(folder.path().join("peftc")),
        ..nowhere()
    };
    let all: Vec<Candidate> = candidates(&surroundings, Wanted::Cpu).collect();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].rung, Rung::Variable);
    assert!(!all[0].there);
}

#[test]
fn installed_versions_come_newest_first_and_by_flavor() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("peftc/runtime");
    for name in ["1.9.0", "1.32.0", "1.31.1-cuda", "1.20.1", ".incoming-x"] {
        touch(&folder.join(name).join("libonnxruntime.so.1"));
    }
    let surroundings = Surroundings {
        data_home: Some(data.path().to_owned()),
        ..nowhere()
    };
    let names = |wanted| -> Vec<String> {
        found(&surroundings, wanted)
            .iter()
            .map(|(_, path)| file_name(path.parent().expect("a folder")))
            .collect()
    };
    assert_eq!(
        names(Wanted::Cpu),
        ["1.32.0", "1.20.1", "1.9.0", "1.31.1-cuda"]
    );
    assert_eq!(
        names(Wanted::Cuda),
        ["1.31.1-cuda", "1.32.0", "1.20.1", "1.9.0"]
    );
}

#[test]
fn the_places_come_in_the_stated_order() {
    let root = tempfile::tempdir().unwrap();
    let own = root.path().join("own");
    touch(&own.join("pyvenv.cfg"));
    touch(&own.join("bin/libonnxruntime.so.1.20.1"));
    let capi = "lib/python3.11/site-packages/onnxruntime/capi";
    touch(&own.join(capi).join("libonnxruntime.so.1.21.0"));
    let active = root.path().join("active");
    touch(&active.join(capi).join("libonnxruntime.so.1.22.0"));
    touch(
        &root
            .path()
            .join("data/peftc/runtime/1.32.0/libonnxruntime.so.1.32.0"),
    );
    touch(&root.path().join("system/libonnxruntime.so.1.23.0"));
    let surroundings = Surroundings {
        executable: Some(own.join("bin/peftc")),
        data_home: Some(root.path().join("data")),
        environments: vec![active],
        system: vec![root.path().join("system")],
        ..nowhere()
    };
    let rungs: Vec<Rung> = found(&surroundings, Wanted::Cpu)
        .into_iter()
        .map(|(rung, _)| rung)
        .collect();
    assert_eq!(
        rungs,
        [
            Rung::Executable,
            Rung::Installed,
            Rung::OwnEnvironment,
            Rung::ActiveEnvironment,
            Rung::System
        ]
    );
    assert_eq!(
        candidates(&surroundings, Wanted::Cpu).last().unwrap().rung,
        Rung::Loader
    );
}

#[test]
fn a_provider_library_is_not_the_library() {
    let folder = tempfile::tempdir().unwrap();
    touch(&folder.path().join("libonnxruntime_providers_shared.so"));
    assert!(!in_folder(Rung::System, folder.path()).there);
    touch(&folder.path().join("libonnxruntime.so.1.9.0"));
    touch(&folder.path().join("libonnxruntime.so.1.32.0"));
    let newest = in_folder(Rung::System, folder.path());
    assert_eq!(file_name(&newest.path), "libonnxruntime.so.1.32.0");
}

#[test]
fn variables_are_read_as_the_xdg_rule_says() {
    let of = |pairs: &[(&str, &str)]| {
        let pairs: Vec<(String, OsString)> = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), OsString::from(v)))
            .collect();
        Surroundings::new(
            move |name| {
                pairs
                    .iter()
                    .find(|(key, _)| key == name)
                    .map(|(_, value)| value.clone())
            },
            None,
        )
    };
    let home = of(&[("HOME", "/home/me")]);
    assert_eq!(
        home.runtime_folder().unwrap(),
        Path::new("/home/me/.local/share/peftc/runtime")
    );
    let relative = of(&[("HOME", "/home/me"), ("XDG_DATA_HOME", "data")]);
    assert_eq!(relative.data_home, home.data_home);
    let set = of(&[
        ("HOME", "/home/me"),
        ("XDG_DATA_HOME", "/data"),
        ("ORT_DYLIB_PATH", ""),
    ]);
    assert_eq!(set.data_home.as_deref(), Some(Path::new("/data")));
    assert_eq!(set.explicit, None);
}
