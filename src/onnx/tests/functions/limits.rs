//! Functions that are refused: those that do not fit, and those that would become too much.

use super::*;

#[test]
fn another_version_of_an_opset_is_refused() {
    let mut model = with(
        vec![product()],
        vec![call("fc", "Product", &["x", "w"], &["y"])],
    );
    model.functions[0].opset_import = vec![opset("ai.onnx", 18)];
    let newest = crate::onnx::errors::NEWEST_OPSET.to_string();
    let words = ["local::Product", "18", &newest, "ai.onnx"];
    check_refused(&model, Code::E0621, &words);
    // One that nothing calls does no harm.
    graph(&mut model).node = small().graph.unwrap().node;
    accepted(&model);
}

#[test]
fn functions_that_call_each_other_are_refused() {
    let caller = |name: &str, called: &str| {
        let nodes = vec![call("", called, &["a"], &["r"])];
        function(name, &["a"], &["r"], nodes)
    };
    let start = vec![call("f", "A", &["x"], &["y"])];
    let circle = vec![caller("A", "B"), caller("B", "C"), caller("C", "B")];
    check_refused(
        &with(circle, start.clone()),
        Code::E0620,
        &["`local::B` → `local::C` → `local::B`"],
    );
    check_refused(
        &with(vec![caller("A", "A")], start.clone()),
        Code::E0620,
        &["`local::A` → `local::A`"],
    );
    // Through a subgraph.
    let mut hidden = caller("A", "A");
    let body = GraphProto {
        node: std::mem::take(&mut hidden.node),
        ..GraphProto::default()
    };
    hidden.node = vec![NodeProto {
        attribute: vec![subgraph("body", &body)],
        ..node("Loop", &["a"], &["r"])
    }];
    check_refused(&with(vec![hidden], start), Code::E0620, &["`local::A`"]);
}

/// `levels` functions, each of which calls the next one `times` times.
fn tower(levels: usize, times: usize) -> ModelProto {
    let level = |at: usize| {
        let nodes = (0..times)
            .map(|time| {
                let result = format!("r{time}");
                match at + 1 == levels {
                    true => node("Abs", &["a"], &[&result]),
                    false => call("", &format!("F{}", at + 1), &["a"], &[&result]),
                }
            })
            .collect();
        function(&format!("F{at}"), &["a"], &["r0"], nodes)
    };
    with(
        (0..levels).map(level).collect(),
        vec![call("f", "F0", &["x"], &["y"])],
    )
}

#[test]
fn an_expansion_is_counted_before_it_is_made() {
    let words = ["000 nodes when they are inlined"];
    check_refused(&tower(60, 10), Code::E0607, &words);
    check_refused(&tower(6, 10), Code::E0607, &words);
    assert_eq!(accepted(&tower(4, 10)).graph.node_ids().count(), 10_000);
    check_refused(&tower(65, 1), Code::E0607, &["64 levels"]);
    let largest = accepted(&tower(64, 1));
    assert_eq!(largest.graph.node_ids().count(), 1);
}

#[test]
fn a_large_file_may_become_more_than_a_small_one() {
    let mut model = tower(2, 250);
    check_refused(&model, Code::E0607, &["more than 51000 nodes"]);
    graph(&mut model).doc_string = Some("d".repeat(200_000));
    assert_eq!(accepted(&model).graph.node_ids().count(), 62_500);
}

#[test]
fn long_names_and_large_attributes_are_counted_too() {
    let mut model = tower(2, 200);
    graph(&mut model).node[0].name = Some("n".repeat(1 << 19));
    check_refused(&model, Code::E0607, &["bytes"]);
    let mut model = tower(2, 200);
    graph(&mut model).node[0].attribute = vec![attribute("given", |a| {
        a.ints = vec![1; 1 << 19];
        a.r#type = Some(attribute_type::INTS);
    })];
    let reference = attribute("axes", |a| a.ref_attr_name = text("given"));
    for function in &mut model.functions {
        for node in &mut function.node {
            node.attribute.push(AttributeProto {
                name: text(if node.domain.is_some() {
                    "given"
                } else {
                    "axes"
                }),
                ..reference.clone()
            });
        }
    }
    check_refused(&model, Code::E0607, &["bytes"]);
}

#[test]
fn functions_and_calls_that_do_not_fit_are_refused() {
    let start = vec![call("fc", "Product", &["x", "w"], &["y"])];
    let check = |change: fn(&mut ModelProto), words: &[&str]| {
        let mut model = with(vec![product()], start.clone());
        change(&mut model);
        check_refused(&model, Code::E0606, words);
    };
    check(
        |m| graph(m).node[0].input.push("x".to_owned()),
        &["`fc`", "3 inputs", "`local::Product` has 2"],
    );
    check(
        |m| graph(m).node[0].output.push("z".to_owned()),
        &["`fc`", "2 outputs", "1"],
    );
    check(
        |m| m.functions[0].input[1] = "a".to_owned(),
        &["`local::Product`", "`a`"],
    );
    check(
        |m| m.functions[0].output[0] = "q".to_owned(),
        &["`local::Product`", "`q`"],
    );
    check(
        |m| m.functions.push(product()),
        &["`local::Product`", "twice"],
    );
    check(
        |m| m.training_info = vec![TrainingInfoProto::default()],
        &["training graphs"],
    );
}
