use super::builder::Build;
use super::recovered;
use crate::graph::Model;
use crate::modules::{NameSource, Site};

/// `path also alias, alias (source)` for every named site.
fn paths(model: &Model) -> Vec<String> {
    let line = |site: &Site| {
        let aliases = site.aliases.join(", ");
        format!("{} also {aliases} ({})", site.path, site.source.name())
    };
    recovered(model).sites.iter().map(line).collect()
}

fn encoder_reads(table: &str, node: &str) -> Build {
    Build::new()
        .ids("ids", &[-1])
        .weight(table, &[10, 8])
        .named(node, &format!("Gather({table}, ids) -> y"))
        .output("y")
}

#[test]
fn a_shared_table_is_the_table_of_its_caller() {
    let build = encoder_reads("shared.weight", "/encoder/shared/Gather");
    assert_eq!(
        paths(&build.model()),
        ["encoder.embed_tokens also shared (alias)"]
    );
    let build = encoder_reads("m.shared.weight", "/m/decoder/shared/Gather");
    assert_eq!(
        paths(&build.model()),
        ["m.decoder.embed_tokens also m.shared (alias)"]
    );
}

#[test]
fn another_module_that_is_called_elsewhere_has_the_path_of_its_weight() {
    let build = encoder_reads("table.weight", "/reader/table/Gather");
    let modules = recovered(&build.model());
    let site = &modules.sites[0];
    assert_eq!(
        (&*site.path, site.source),
        ("table", NameSource::WeightName)
    );
    let seen = (NameSource::NodePath, "reader.table".to_owned());
    assert_eq!(site.disagreements, [seen]);
}

#[test]
fn equal_norms_that_a_tool_keeps_once_are_not_taken_for_one() {
    let build = Build::new()
        .input("x", &[-1, 8])
        .weight("norm.weight", &[8])
        .named(
            "/norm/LayerNormalization",
            "LayerNormalization(x, norm.weight) -> h",
        )
        .named(
            "/encoder/norm/LayerNormalization",
            "LayerNormalization(h, norm.weight) -> y",
        )
        .output("y");
    assert_eq!(
        paths(&build.model()),
        ["norm also  (node_path)", "encoder.norm also  (node_path)"]
    );
}

#[test]
fn the_signature_of_the_exported_program_tells_of_a_shared_table() {
    let model = |signature: &str| {
        let mut model = Build::new()
            .ids("ids", &[-1])
            .weight("lm_head.weight", &[10, 8])
            .node("Gather(lm_head.weight, ids) -> y")
            .scope("encoder.embed_tokens")
            .output("y")
            .model();
        let key = "pkg.torch.export.ExportedProgram.graph_signature";
        let entry = (key.to_owned(), signature.to_owned());
        model.graph.metadata.push(entry);
        model
    };
    let told = "\n# inputs\np_shared_weight: PARAMETER target='shared.weight'\n";
    assert_eq!(
        paths(&model(told)),
        ["encoder.embed_tokens also shared (name_scopes)"]
    );
    let untold = "\n# inputs\np_unshared_weight: PARAMETER target='unshared.weight'\n";
    assert_eq!(
        paths(&model(untold)),
        ["encoder.embed_tokens also  (name_scopes)"]
    );
}

#[test]
fn paths_without_a_beginning_get_none_without_evidence() {
    let path = "block.0.layer.0.SelfAttention.q";
    let build = Build::new()
        .input("x", &[-1, 8])
        .weight("w", &[8, 4])
        .node("MatMul(x, w) -> last_hidden_state")
        .scope(path)
        .output("last_hidden_state");
    assert_eq!(
        paths(&build.model()),
        [format!("{path} also  (name_scopes)")]
    );
}

/// A layer between axes that are named as Optimum names an encoder's.
fn lone_encoder(path: &str) -> Build {
    let axes = ["batch_size", "encoder_sequence_length", "features"];
    Build::new()
        .axes("x", &axes)
        .typed("last_hidden_state", &axes)
        .weight("w", &[8, 4])
        .node("MatMul(x, w) -> last_hidden_state")
        .scope(path)
        .output("last_hidden_state")
}

#[test]
fn a_lone_encoder_of_optimum_gets_its_place_in_the_model_back() {
    let cases = [
        ("block.0.layer.0.SelfAttention.q", "encoder"),
        ("layers.11.self_attn.q_proj", "model.encoder"),
    ];
    for (path, prefix) in cases {
        assert_eq!(
            paths(&lone_encoder(path).model()),
            [format!("{prefix}.{path} also {path} (alias)")]
        );
    }
    let other = "stages.0.self_attn.q_proj";
    assert_eq!(
        paths(&lone_encoder(other).model()),
        [format!("{other} also  (name_scopes)")],
        "not a family whose place is known"
    );
}
