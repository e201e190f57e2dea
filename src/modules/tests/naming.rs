use super::builder::Build;
use super::{recovered, sites, with_map};
use crate::diag::Code;
use crate::modules::NameSource;
use crate::ty::DType;

fn start() -> Build {
    Build::new().input("x", &[-1, -1, 8])
}

#[test]
fn metadata_comes_before_names() {
    let build = start()
        .weight("b.weight", &[8, 4])
        .named("/c/MatMul", "MatMul(x, b.weight) -> y")
        .scope("a")
        .output("y");
    let model = build.model();
    let modules = recovered(&model);
    assert_eq!(modules.sites[0].path, "a");
    assert_eq!(
        modules.sites[0].disagreements,
        [
            (NameSource::NodePath, "c".to_owned()),
            (NameSource::WeightName, "b".to_owned())
        ]
    );
}

#[test]
fn a_tied_weight_names_nobody() {
    let build = Build::new()
        .ids("ids", &[-1])
        .weight("wte.weight", &[10, 8])
        .node("Gather(wte.weight, ids) -> e")
        .scope("wte")
        .node("Transpose(wte.weight) -> t")
        .node("MatMul(e, t) -> y")
        .output("y");
    let model = build.model();
    let modules = recovered(&model);
    assert_eq!(modules.sites.len(), 1);
    assert_eq!(modules.unnamed.len(), 1, "the head is not called wte");
    assert!(!modules.unnamed[0].unnamed_because.is_empty());
}

#[test]
fn tied_sites_know_each_other() {
    let build = Build::new()
        .ids("ids", &[-1])
        .weight("wte.weight", &[10, 8])
        .node("Gather(wte.weight, ids) -> e")
        .scope("wte")
        .node("Transpose(wte.weight) -> t")
        .node("MatMul(e, t) -> y")
        .scope("lm_head")
        .output("y");
    let modules = recovered(&build.model());
    assert_eq!(modules.sites[0].shared_with, ["lm_head"]);
    assert_eq!(modules.sites[1].shared_with, ["wte"]);
}

#[test]
fn a_folded_weight_is_named_by_what_it_was_folded_from() {
    let key = "pkg.onnxscript.optimizer.folded_from";
    let build = start()
        .described("val_1", DType::F32, &[8, 4], &[(key, "['m.q.weight']")])
        .node("MatMul(x, val_1) -> y")
        .output("y");
    assert_eq!(sites(build), ["m.q linear [4, 8] in_out x->y folded_from"]);
}

#[test]
fn a_bias_names_an_anonymous_weight() {
    let build = start()
        .weight("val_1", &[8, 4])
        .weight("m.q.bias", &[4])
        .node("MatMul(x, val_1) -> h")
        .node("Add(h, m.q.bias) -> y")
        .output("y");
    assert_eq!(
        sites(build),
        ["m.q linear [4, 8] in_out x->y +m.q.bias bias_name"]
    );
}

#[test]
fn the_second_call_of_a_module_has_the_same_path() {
    let build = start()
        .weight("onnx::MatMul_1", &[8, 8])
        .named("/shared/MatMul", "MatMul(x, onnx::MatMul_1) -> h")
        .node("Identity(onnx::MatMul_1) -> onnx::MatMul_2")
        .named("/shared_1/MatMul", "MatMul(h, onnx::MatMul_2) -> y")
        .output("y");
    assert_eq!(
        sites(build),
        [
            "shared linear [8, 8] in_out x->h node_path",
            "shared linear [8, 8] in_out h->y node_path"
        ]
    );
}

#[test]
fn a_numbered_module_with_its_own_weight_keeps_its_number() {
    let build = start()
        .weight("onnx::MatMul_1", &[8, 4])
        .weight("onnx::MatMul_2", &[4, 8])
        .named("/q/default/MatMul", "MatMul(x, onnx::MatMul_1) -> h")
        .named("/q/default_1/MatMul", "MatMul(h, onnx::MatMul_2) -> y")
        .output("y");
    let lines = sites(build);
    assert!(lines[1].starts_with("q.default_1 "), "{lines:?}");
}

#[test]
fn functional_calls_are_told_apart_by_their_weights() {
    // nn.MultiheadAttention calls both projections in its own scope.
    let build = start()
        .weight("onnx::MatMul_1", &[8, 24])
        .weight("mha.in_proj_bias", &[24])
        .named("/mha/MatMul", "MatMul(x, onnx::MatMul_1) -> h")
        .named("/mha/Add", "Add(h, mha.in_proj_bias) -> i")
        .weight("mha.out_proj.weight", &[8, 8])
        .input("z", &[-1, 8])
        .named("/mha/Gemm", "Gemm(z, mha.out_proj.weight) -> y")
        .output("y")
        .output("i");
    assert_eq!(
        sites(build),
        [
            "mha.out_proj linear [8, 8] in_out z->y weight_name",
            "? linear [24, 8] in_out x->i +mha.in_proj_bias none"
        ]
    );
}

#[test]
fn different_layers_in_one_scope_stay_unnamed() {
    let build = start()
        .weight("onnx::MatMul_1", &[8, 4])
        .weight("onnx::MatMul_2", &[4, 8])
        .named("/mlp/MatMul", "MatMul(x, onnx::MatMul_1) -> h")
        .named("/mlp/MatMul_1", "MatMul(h, onnx::MatMul_2) -> y")
        .output("y");
    let modules = recovered(&build.model());
    assert_eq!((modules.sites.len(), modules.unnamed.len()), (0, 2));
    assert!(modules.unnamed[0].unnamed_because.contains("`mlp`"));
}

#[test]
fn a_parameter_decides_between_readings_of_a_path() {
    let build = start()
        .weight("blocks.blocks.0.weight", &[8, 4])
        .named(
            "/blocks/blocks.0/MatMul",
            "MatMul(x, blocks.blocks.0.weight) -> y",
        )
        .output("y");
    assert_eq!(
        sites(build),
        ["blocks.blocks.0 linear [4, 8] in_out x->y node_path"]
    );
}

fn anonymous() -> Build {
    start()
        .weight("val_1", &[8, 4])
        .node("MatMul(x, val_1) -> linear")
        .output("linear")
}

#[test]
fn the_name_map_wins() {
    let text = r#"{"schema_version": 1, "modules": {"linear": "m.q"}}"#;
    let modules = with_map(anonymous(), text).expect("a good map");
    assert_eq!(modules.sites[0].path, "m.q");
    assert_eq!(modules.sites[0].source, NameSource::Map);
}

#[test]
fn the_name_map_cuts_an_output_into_modules() {
    let text = r#"{"schema_version": 1, "modules":
        {"linear": [{"path": "m.q", "slice": [0, 1]}, {"path": "m.k", "slice": [1, 4]}]}}"#;
    let modules = with_map(anonymous(), text).expect("a good map");
    assert_eq!(modules.sites[1].path, "m.k");
    assert_eq!(modules.sites[1].slice, Some(1..4));
    assert_eq!(modules.sites[1].out_features, 3);
}

/// The code, the marked text and the message of the first fault.
fn fault(text: &str) -> (Code, String) {
    let faults = with_map(anonymous(), text).expect_err("a fault");
    let span = faults[0].labels[0].span;
    let marked = &text[span.start as usize..span.end as usize];
    (faults[0].code, format!("{marked}|{}", faults[0].message))
}

#[test]
fn faults_of_name_maps_are_shown_in_place() {
    let unknown_output = r#"{"schema_version": 1, "modules": {"liner": "linear"}}"#;
    let (code, message) = fault(unknown_output);
    assert_eq!(code, Code::E0411);
    assert!(message.starts_with("\"liner\"|"), "{message}");

    let outside =
        r#"{"schema_version": 1, "modules": {"linear": [{"path": "m", "slice": [0, 5]}]}}"#;
    assert_eq!(fault(outside).0, Code::E0412);

    let cases = [
        ("[", "EOF"),
        (
            r#"{"schema_version": 1, "modules": {}, "x": 0}"#,
            "unknown field `x`",
        ),
        (
            r#"{"schema_version": 2, "modules": {}}"#,
            "schema_version is 2",
        ),
        (
            r#"{"schema_version": 1, "modules": {"a": "b", "a": "c"}}"#,
            "`a` occurs twice",
        ),
        (
            r#"{"schema_version": 1, "modules": {"a": "b..c"}}"#,
            "no module path",
        ),
        (
            r#"{"schema_version": 1, "modules": {"a": []}}"#,
            "list of modules is empty",
        ),
        (
            r#"{"schema_version": 1, "modules": {"a": 1}}"#,
            "a module path or a list",
        ),
    ];
    for (text, part) in cases {
        let (code, message) = fault(text);
        assert_eq!(code, Code::E0410, "{text}");
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_written_name_map_is_read_again() {
    use crate::modules::NameMap;
    let text = r#"{"schema_version": 1, "modules":
        {"linear": [{"path": "m.q", "slice": [0, 1]}, {"path": "m.k", "slice": [1, 4]}]}}"#;
    let modules = with_map(anonymous(), text).expect("a good map");
    let written = NameMap::of(&anonymous().model(), &modules).to_text();
    let again = with_map(anonymous(), &written).expect("a good map");
    assert_eq!(NameMap::of(&anonymous().model(), &again).to_text(), written);
}

#[test]
fn an_output_that_stands_for_several_modules_is_no_key_of_a_name_map() {
    use crate::modules::NameMap;
    let build = Build::new()
        .ids("ids", &[-1, -1])
        .weight("bert.word.weight", &[10, 8])
        .weight("bert.position.weight", &[6, 8])
        .weight("bert.norm.weight", &[8])
        .weight("bert.norm.bias", &[8])
        .node(
            "com.microsoft:EmbedLayerNormalization(ids, _, bert.word.weight, \
             bert.position.weight, _, bert.norm.weight, bert.norm.bias) -> y",
        )
        .output("y");
    let model = build.model();
    let modules = recovered(&model);
    assert_eq!(modules.sites.len(), 3);
    assert!(NameMap::of(&model, &modules).is_empty());
}
