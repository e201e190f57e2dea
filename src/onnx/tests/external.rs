//! External data: what is accepted, what is refused and with which code.

use super::build::*;
use super::*;
use crate::graph::TensorData;
use crate::onnx::proto::*;
use crate::onnx::{import, import_without_weights};
use std::fs;
use std::path::Path;

/// `w` of [`small`], 24 bytes, in a file with these pairs.
fn external(pairs: &[(&str, &str)]) -> ModelProto {
    small_with(|graph| {
        let tensor = &mut graph.initializer[0];
        tensor.raw_data = None;
        tensor.data_location = Some(EXTERNAL);
        tensor.external_data = pairs
            .iter()
            .map(|(key, value)| StringStringEntryProto {
                key: text(key),
                value: text(value),
            })
            .collect();
    })
}

fn at(location: &str) -> ModelProto {
    external(&[("location", location)])
}

/// A folder with `m.onnx` and whatever `arrange` puts there.
struct Layout(tempfile::TempDir);

impl Layout {
    fn new(model: &ModelProto, arrange: impl FnOnce(&Path)) -> Layout {
        let folder = tempfile::tempdir().unwrap();
        let models = folder.path().join("models");
        fs::create_dir(&models).unwrap();
        fs::write(models.join("m.onnx"), serialized(model)).unwrap();
        arrange(&models);
        Layout(folder)
    }

    fn check_accepted(&self) -> Vec<Code> {
        self.check_accepted_at("models/m.onnx")
    }

    /// The model is accepted and `w` holds the bytes 0 to 23.
    fn check_accepted_at(&self, path: &str) -> Vec<Code> {
        let mut sink = Sink::new();
        let Ok(imported) = import(&self.0.path().join(path), &mut sink) else {
            panic!("{:#?}", sink.diagnostics());
        };
        let graph = &imported.model.graph;
        let w = graph.value(graph.find_value("w").unwrap());
        let bytes = imported.weights.bytes(w.tensor().unwrap()).unwrap();
        assert_eq!(bytes, data());
        sink.diagnostics().iter().map(|d| d.code).collect()
    }

    fn check_refused(&self, code: Code, words: &[&str]) {
        let mut sink = Sink::new();
        let result = import(&self.0.path().join("models/m.onnx"), &mut sink);
        assert!(result.is_err(), "it is accepted");
        let message = &sink.diagnostics()[0].message;
        assert_eq!(sink.diagnostics()[0].code, code, "{message}");
        for word in words.iter().chain(&["`w`"]) {
            assert!(message.contains(word), "no `{word}` in: {message}");
        }
    }
}

fn data() -> Vec<u8> {
    (0..24).collect()
}

#[test]
fn files_beside_and_below_the_model_are_read() {
    for location in ["w.bin", "sub/w.bin", "sub/../w.bin", "./w.bin"] {
        Layout::new(&at(location), |folder| {
            fs::create_dir(folder.join("sub")).unwrap();
            fs::write(folder.join(location), data()).unwrap();
        })
        .check_accepted();
    }
}

#[test]
fn regions_are_cut_out_where_they_say() {
    let model = external(&[("location", "w.bin"), ("offset", "3"), ("length", "24")]);
    Layout::new(&model, |folder| {
        fs::write(folder.join("w.bin"), [vec![9; 3], data(), vec![9]].concat()).unwrap();
    })
    .check_accepted();
}

#[test]
fn places_outside_of_the_folder_are_refused_by_their_text() {
    for location in [
        "../w.bin",
        "sub/../../w.bin",
        "/etc/passwd",
        "C:\\w.bin",
        "sub\\w.bin",
        "",
        "w\0",
        ".",
    ] {
        Layout::new(&at(location), |folder| {
            fs::create_dir(folder.join("sub")).unwrap();
            fs::write(folder.join("../w.bin"), data()).unwrap();
        })
        .check_refused(Code::E0608, &[]);
    }
    Layout::new(&external(&[]), |_| {}).check_refused(Code::E0608, &[]);
}

#[cfg(unix)]
#[test]
fn links_may_stay_inside_and_not_lead_out() {
    use std::os::unix::fs::symlink;
    let layout = Layout::new(&at("w.bin"), |folder| {
        fs::write(folder.join("real.bin"), data()).unwrap();
        symlink("real.bin", folder.join("w.bin")).unwrap();
    });
    layout.check_accepted();
    Layout::new(&at("w.bin"), |folder| {
        fs::write(folder.join("../out.bin"), data()).unwrap();
        symlink("../out.bin", folder.join("w.bin")).unwrap();
    })
    .check_refused(Code::E0608, &["symbolic link"]);
    // A link to a folder, through which the text stays inside.
    Layout::new(&at("sub/w.bin"), |folder| {
        fs::create_dir(folder.join("../out")).unwrap();
        fs::write(folder.join("../out/w.bin"), data()).unwrap();
        symlink("../out", folder.join("sub")).unwrap();
    })
    .check_refused(Code::E0608, &["symbolic link"]);
}

#[cfg(unix)]
#[test]
fn hub_caches_and_hard_links_are_read() {
    use std::os::unix::fs::symlink;
    let layout = Layout::new(&at("w.bin"), |folder| {
        let blobs = folder.join("../blobs");
        fs::create_dir(&blobs).unwrap();
        fs::rename(folder.join("m.onnx"), blobs.join("aaa")).unwrap();
        fs::write(blobs.join("bbb"), data()).unwrap();
        symlink("../blobs/aaa", folder.join("m.onnx")).unwrap();
        symlink("../blobs/bbb", folder.join("w.bin")).unwrap();
    });
    layout.check_accepted();
    Layout::new(&at("w.bin"), |folder| {
        fs::write(folder.join("../other"), data()).unwrap();
        fs::hard_link(folder.join("../other"), folder.join("w.bin")).unwrap();
    })
    .check_accepted();
}

#[test]
fn a_model_in_the_working_folder_needs_no_folder_in_its_name() {
    // The name of a file without a folder is relative to `.`, which always resolves.
    let mut sink = Sink::new();
    assert!(import(Path::new("Cargo.toml"), &mut sink).is_err());
    assert_eq!(sink.diagnostics()[0].code, Code::E0601);
}

#[test]
fn missing_files_and_folders_are_refused() {
    Layout::new(&at("w.bin"), |_| {}).check_refused(Code::E0609, &["w.bin", "no file"]);
    Layout::new(&at("w.bin"), |folder| {
        fs::create_dir(folder.join("w.bin")).unwrap();
    })
    .check_refused(Code::E0609, &["no regular file"]);
}

#[test]
fn regions_that_do_not_fit_are_refused() {
    let check = |pairs: &[(&str, &str)], words: &[&str]| {
        let pairs = [&[("location", "w.bin")], pairs].concat();
        Layout::new(&external(&pairs), |folder| {
            fs::write(folder.join("w.bin"), data()).unwrap();
        })
        .check_refused(Code::E0610, words);
    };
    check(&[("length", "23")], &["23", "24"]);
    check(&[("length", "25")], &["25", "24"]);
    check(&[("length", "-24")], &["`-24`"]);
    check(&[("length", "")], &["``"]);
    check(&[("offset", "-4")], &["`-4`"]);
    check(&[("offset", "+4")], &["`+4`"]);
    check(&[("offset", "4x")], &["`4x`"]);
    check(&[("offset", "99999999999999999999")], &["no size"]);
    check(&[("offset", "18446744073709551615")], &["no file"]);
    check(&[("offset", "1")], &["byte 25", "24 bytes"]);
    check(&[("offset", "1099511627776")], &["24 bytes"]);
    check(&[("offset", "0"), ("offset", "8")], &["twice"]);
}

#[test]
fn data_may_not_be_inside_and_outside() {
    let mut model = at("w.bin");
    graph(&mut model).initializer[0].raw_data = Some(Bytes::from(vec![0; 24]));
    Layout::new(&model, |_| {}).check_refused(Code::E0605, &["twice"]);
    let mut model = at("w.bin");
    graph(&mut model).initializer[0].data_type = Some(8);
    Layout::new(&model, |_| {}).check_refused(Code::E0605, &["strings"]);
}

#[test]
fn unknown_keys_are_left_out_and_it_is_said() {
    let model = external(&[
        ("location", "w.bin"),
        ("prepacked_0", "x"),
        ("length", "24"),
    ]);
    let layout = Layout::new(&model, |folder| {
        fs::write(folder.join("w.bin"), data()).unwrap();
    });
    assert_eq!(layout.check_accepted(), [Code::W0603]);
    let (imported, _) = accepted_with_warnings(serialized(&model));
    let plain = external(&[("location", "w.bin"), ("length", "24")]);
    assert_eq!(written(&imported.model), serialized(&plain));
}

#[test]
fn unknown_keys_of_tensors_in_attributes_are_left_out() {
    let mut tensor = external(&[("location", "w.bin"), ("k", "x")])
        .graph
        .unwrap()
        .initializer
        .remove(0);
    tensor.name = None;
    let model = small_with(|graph| {
        let mut constant = node("Constant", &[], &["c"]);
        constant.attribute = vec![AttributeProto {
            name: text("value"),
            r#type: Some(attribute_type::TENSOR),
            t: Some(tensor),
            ..AttributeProto::default()
        }];
        graph.node.push(constant);
    });
    let (imported, codes) = accepted_with_warnings(serialized(&model));
    assert_eq!(codes, [Code::W0603]);
    let out = ModelProto::decode(&written(&imported.model)[..]).unwrap();
    let tensor = out.graph.unwrap().node[2].attribute[0].t.clone().unwrap();
    let keys: Vec<&str> = tensor
        .external_data
        .iter()
        .map(|entry| entry.key.as_deref().unwrap())
        .collect();
    assert_eq!(keys, ["location", "offset", "length"]);
}

#[test]
fn a_sha1_is_verified_when_the_data_is_read() {
    use sha1::{Digest, Sha1};
    let hex = |digest: &[u8]| -> String { digest.iter().map(|b| format!("{b:02X}")).collect() };
    let good = hex(&Sha1::digest(data()));
    let with = |checksum: &str| {
        Layout::new(
            &external(&[("location", "w.bin"), ("checksum", checksum)]),
            |folder| fs::write(folder.join("w.bin"), data()).unwrap(),
        )
    };
    assert_eq!(with(&good).check_accepted(), []);
    assert_eq!(with("md5:123").check_accepted(), [Code::W0604]);
    let wrong = with(&good.replace('0', "1"));
    let mut sink = Sink::new();
    let imported = import(&wrong.0.path().join("models/m.onnx"), &mut sink).unwrap();
    let w = imported.model.graph.find_value("w").unwrap();
    let tensor = imported.model.graph.value(w).tensor().unwrap();
    let error = imported.weights.bytes(tensor).unwrap_err();
    assert_eq!(error.code, Code::E0614);
    assert!(error.message.contains(&good.to_lowercase()));
}

#[test]
fn weights_may_be_absent_where_they_are_not_needed() {
    let layout = Layout::new(&at("w.bin"), |_| {});
    let mut sink = Sink::new();
    let path = layout.0.path().join("models/m.onnx");
    let imported = import_without_weights(&path, &mut sink).unwrap();
    assert_eq!(imported.weights.locations(), ["w.bin"]);
    let w = imported.model.graph.find_value("w").unwrap();
    let tensor = imported.model.graph.value(w).tensor().unwrap();
    assert_eq!(
        imported.weights.bytes(tensor).unwrap_err().code,
        Code::E0609
    );
    // The text of a location is checked all the same.
    let layout = Layout::new(&at("../w.bin"), |_| {});
    let path = layout.0.path().join("models/m.onnx");
    assert!(import_without_weights(&path, &mut sink).is_err());
    assert_eq!(sink.diagnostics()[0].code, Code::E0608);
}

#[test]
fn a_file_that_shrinks_after_the_check_is_an_error_and_not_a_crash() {
    let layout = Layout::new(&at("w.bin"), |folder| {
        fs::write(folder.join("w.bin"), data()).unwrap();
    });
    let mut sink = Sink::new();
    let imported = import(&layout.0.path().join("models/m.onnx"), &mut sink).unwrap();
    fs::write(layout.0.path().join("models/w.bin"), b"short").unwrap();
    let w = imported.model.graph.find_value("w").unwrap();
    let tensor = imported.model.graph.value(w).tensor().unwrap();
    assert!(matches!(tensor.data, TensorData::External(_)));
    assert_eq!(
        imported.weights.bytes(tensor).unwrap_err().code,
        Code::E0610
    );
}
