//! Programs are resolved and checked through one function.

use super::{Program, SiteFacts, affine, instantiate, resolve, start};
use crate::diag::render::{Style, render};
use crate::diag::{Code, Sink, SourceMap};
use std::collections::BTreeMap;

fn check(text: &str) -> (Option<Program>, Vec<Code>, String) {
    let mut sources = SourceMap::new();
    let file = sources.add("test.peft", text);
    let mut sink = Sink::new();
    let mut load = |_: &mut SourceMap, _, _: &crate::syntax::ast::StringLit, _: &mut Sink| {
        unreachable!("no file is imported")
    };
    let program = resolve(&mut sources, file, &mut load, &mut sink).ok();
    let codes = sink.diagnostics().iter().map(|d| d.code).collect();
    let text = sink
        .diagnostics()
        .iter()
        .map(|d| render(d, &sources, Style::PLAIN))
        .collect();
    (program, codes, text)
}

#[track_caller]
fn program(text: &str) -> Program {
    let (program, codes, text) = check(text);
    assert!(codes.is_empty(), "{text}");
    program.expect("no error was reported")
}

#[track_caller]
fn check_codes(text: &str, wanted: &[Code]) {
    let (_, codes, text) = check(text);
    assert_eq!(codes, wanted, "{text}");
}

/// The instance of `use std::…` with defaults, 64 to 96.
fn library(name: &str, settings: &[(&str, super::HyperValue)]) -> super::Instance {
    let program = program(&format!("use std::{name}\n"));
    let method = program
        .methods
        .iter()
        .find(|m| m.name.node == name)
        .expect("the library declares it")
        .clone();
    let mut values: BTreeMap<String, super::HyperValue> = method
        .hypers
        .iter()
        .filter_map(|h| Some((h.name.node.clone(), h.default.clone()?)))
        .collect();
    values.extend(settings.iter().map(|(n, v)| ((*n).to_owned(), v.clone())));
    let facts = SiteFacts {
        kernel: 1.into(),
        kind: method.kinds[0].node.clone(),
        input: 64.into(),
        output: if method.kinds[0].node == "norm" {
            64.into()
        } else {
            96.into()
        },
        has_bias: true,
        largest_input: 64.into(),
        largest_output: 96.into(),
        total_input: 64.into(),
        total_output: 96.into(),
        place: super::Place::alone("q_proj"),
        outputs: None,
    };
    instantiate(&program, &method, &values, &facts, None, &mut Sink::new())
        .expect("the library is sound")
}

#[test]
fn every_library_method_is_sound_for_symbolic_sizes() {
    for file in crate::stdlib::LIBRARY {
        // A file's own methods are checked when it is the main file.
        let program = program(file.text);
        assert!(
            program.methods.iter().any(|m| m.name.node == file.name),
            "{} declares its method",
            file.name
        );
    }
    program(crate::stdlib::TRAIN.text);
}

#[test]
fn identity_at_start_is_proved_for_the_library() {
    for name in [
        "lora",
        "dynamic_lora",
        "ia3",
        "bitfit",
        "norm_tuning",
        "dora",
        "vera",
    ] {
        assert!(start::is_identity_at_start(&library(name, &[])), "{name}");
    }
}

#[test]
fn identity_at_start_is_refused_where_it_does_not_hold() {
    let program = program(
        "method m() on linear {\n  param A : [4, in] = normal(std = 1)\n  param B : [out, 4] = normal(std = 1)\n  forward(x, y) { y + x @ A.T @ B.T }\n}\n",
    );
    let method = program
        .methods
        .iter()
        .find(|m| m.name.node == "m")
        .expect("declared");
    let instance = instantiate(
        &program,
        method,
        &BTreeMap::new(),
        &SiteFacts::symbolic("linear", true),
        None,
        &mut Sink::new(),
    )
    .expect("sound");
    assert!(!start::is_identity_at_start(&instance));
}

#[test]
fn merging_is_proved_for_methods_that_are_affine_and_refused_for_gates() {
    for name in ["lora", "ia3", "bitfit", "dora", "vera"] {
        assert_eq!(
            affine::is_affine(&library(name, &[]).forward),
            affine::Affine::Yes,
            "{name}"
        );
    }
    assert!(matches!(
        affine::is_affine(&library("dynamic_lora", &[]).forward),
        affine::Affine::No { .. }
    ));
}

#[test]
fn the_reach_across_tokens_follows_the_pooling() {
    use affine::Tokens;
    for (pool, wanted) in [
        ("mean", Tokens::All),
        ("masked_mean", Tokens::Masked),
        ("causal_mean", Tokens::Earlier),
        ("per_token", Tokens::Own),
    ] {
        let instance = library(
            "dynamic_lora",
            &[("pool", super::HyperValue::String(pool.to_owned()))],
        );
        assert_eq!(affine::token_reach(&instance.forward), wanted, "{pool}");
    }
}

/// Occurrences in padding are none where the mask says so.
#[test]
fn what_looks_through_the_ids_reads_all_tokens_that_count() {
    use affine::Tokens;
    for (padded, wanted) in [(true, Tokens::Masked), (false, Tokens::All)] {
        let ids = super::HyperValue::Ints(vec![5, 6]);
        let settings = [
            ("invocation", ids),
            ("padded", super::HyperValue::Bool(padded)),
        ];
        let instance = library("alora", &settings);
        assert_eq!(affine::token_reach(&instance.forward), wanted);
        assert!(start::is_identity_at_start(&instance));
        assert!(matches!(
            affine::is_affine(&instance.forward),
            affine::Affine::No { .. }
        ));
    }
}

#[test]
fn two_sequences_of_ids_are_not_one() {
    for (second, same) in [("[5, 6]", true), ("[5]", false)] {
        let text = format!(
            "method m() on linear {{\n  param A : [out] = ones\n  forward(x, y) {{\n    \
             y + (since_last([5, 6]) - since_last({second})) * A\n  }}\n}}\n"
        );
        let program = program(&text);
        let method = &program.methods[0];
        let facts = SiteFacts::symbolic("linear", true);
        let none = BTreeMap::new();
        let instance = instantiate(&program, method, &none, &facts, None, &mut Sink::new());
        assert_eq!(
            start::is_identity_at_start(&instance.unwrap()),
            same,
            "{second}"
        );
    }
}

#[test]
fn shapes_are_checked_with_symbolic_sizes() {
    check_codes(
        "method m(rank: int = 4) on linear {\n  param A : [rank, in] = zeros\n  forward(x, y) { y + x @ A.T }\n}\n",
        &[Code::E0302],
    );
    check_codes(
        "method m(rank: int = 4) on linear {\n  param A : [rank, in] = zeros\n  forward(x, y) { x @ A.T }\n}\n",
        &[Code::E0303],
    );
    check_codes(
        "method m() on linear {\n  param A : [out] = zeros\n  forward(x, y) { y + B }\n}\n",
        &[Code::E0201],
    );
}

#[test]
fn both_sides_of_a_choice_are_checked() {
    check_codes(
        "method m(f: bool = false) on linear {\n  param A : [out] = zeros\n  forward(x, y) { if f { y * A } else { y + x * A } }\n}\n",
        &[Code::E0302],
    );
}

#[test]
fn a_parameter_that_reaches_nothing_is_a_warning() {
    check_codes(
        "method m() on linear {\n  param A : [out] = zeros\n  forward(x, y) { y + 1 }\n}\n",
        &[Code::W0301],
    );
}

#[test]
fn methods_call_methods_and_functions() {
    let program = program(
        "use std::lora\nmethod twice() on linear {\n  fn double(v) { 2 * v }\n  forward(x, y) { double(lora(x, y, rank = 2)) - y }\n}\n",
    );
    let method = program
        .methods
        .iter()
        .find(|m| m.name.node == "twice")
        .expect("declared");
    let instance = instantiate(
        &program,
        method,
        &BTreeMap::new(),
        &SiteFacts::symbolic("linear", true),
        None,
        &mut Sink::new(),
    )
    .expect("sound");
    let names: Vec<&str> = instance.params.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["lora.A", "lora.B"]);
}

/// The instance of the method `m` of a text, at a linear layer of unknown size.
#[track_caller]
fn instance(text: &str) -> super::Instance {
    let program = program(text);
    let method = program
        .methods
        .iter()
        .find(|m| m.name.node == "m")
        .expect("declared");
    let values: BTreeMap<String, super::HyperValue> = method
        .hypers
        .iter()
        .filter_map(|h| Some((h.name.node.clone(), h.default.clone()?)))
        .collect();
    let facts = SiteFacts::symbolic("linear", true);
    instantiate(&program, method, &values, &facts, None, &mut Sink::new()).expect("sound")
}

#[test]
fn every_call_of_a_method_has_parameters_of_its_own() {
    let instance = instance(
        "use std::bitfit\nmethod m() on linear {\n  forward(x, y) {\n    for i in 0..2 { y = bitfit(x, y) }\n    y\n  }\n}\n",
    );
    let names: Vec<&str> = instance.params.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["bitfit.c", "bitfit_2.c"]);
}

#[test]
fn a_called_method_may_depend_on_the_size_of_the_layer() {
    let instance = instance(
        "use std::lora\nmethod m() on linear {\n  require in >= 4\n  forward(x, y) { lora(x, y, rank = in / 4, alpha = in / 2, rslora = in == out) }\n}\n",
    );
    let rank = crate::ty::Dim::symbol("in").floor_div(&4.into());
    assert_eq!(instance.params[0].dims[0], rank);
}

#[test]
fn a_function_changes_nothing_of_its_caller() {
    program(
        "method m(rank: int = 4) on linear {\n  param A : [rank, in] = zeros\n  param B : [out, rank] = zeros\n  fn double(v) {\n    t = 2 * v\n    rank = 1\n    t\n  }\n  forward(x, y) {\n    t = x @ A.T\n    d = double(y) - y\n    d + (t @ B.T) / rank\n  }\n}\n",
    );
}

#[test]
fn a_name_of_the_method_can_be_bound_anew_in_a_loop() {
    let instance = instance(
        "method m() on linear {\n  param A : [out] = zeros\n  forward(x, y) {\n    for i in 0..2 { A = 2 * A }\n    y + A\n  }\n}\n",
    );
    let products = instance.forward.terms().filter(|(_, term)| {
        matches!(
            term.kind,
            super::TermKind::Binary(super::Binary::Multiply, ..)
        )
    });
    assert_eq!(products.count(), 2);
    assert!(start::is_identity_at_start(&instance));
}

#[test]
fn a_loop_of_unknown_length_is_checked_once() {
    check_codes(
        "method m() on linear {\n  param A : [out] = zeros\n  forward(x, y) {\n    for i in 0..in { y = y + x }\n    y + A\n  }\n}\n",
        &[Code::E0302],
    );
}

#[test]
fn a_start_value_may_depend_on_a_condition() {
    use super::{Init, Random};
    let text = "method m(random: bool = true) on linear {\n  param A : [4, in] = if random { normal(std = 0.5) } else if has_bias { zeros } else { weight[0..4, :] }\n  param B : [out, 4] = zeros\n  forward(x, y) { y + x @ A.T @ B.T }\n}\n";
    let instance = instance(text);
    assert!(matches!(
        instance.params[0].init,
        Init::Random(Random::Normal(0.0, 0.5))
    ));
    check_codes(&text.replace("weight[0..4, :]", "weight"), &[Code::E0301]);
}

#[test]
fn the_names_of_the_site_are_known() {
    for kind in ["linear", "norm"] {
        let scope = super::instance::site_scope(&SiteFacts::symbolic(kind, true));
        assert!(
            scope
                .keys()
                .all(|name| super::SITE_NAMES.contains(&name.as_str()))
        );
    }
    for name in super::SITE_NAMES {
        let (_, codes, text) = check(&format!(
            "method m() on linear {{\n  let v = {name}\n  forward(x, y) {{ y }}\n}}\n"
        ));
        assert!(!codes.contains(&Code::E0201), "{text}");
    }
}

#[test]
fn endless_recursion_is_an_error() {
    check_codes(
        "method m() on linear {\n  fn f(v) { f(v) }\n  forward(x, y) { f(y) }\n}\n",
        &[Code::E0210],
    );
}

#[test]
fn arguments_are_checked_against_the_declaration() {
    let spec = |call: &str| format!("use std::lora\nadapter a {{\n  adapt \"q\" with {call}\n}}\n");
    check_codes(&spec("lora(rnk = 4)"), &[Code::E0203]);
    check_codes(&spec("lora(rank = 4.5)"), &[Code::E0301]);
    check_codes(&spec("lroa(rank = 4)"), &[Code::E0201]);
    check_codes("use std::nothing\n", &[Code::E0206]);
    check_codes("use other::lora\n", &[Code::E0205]);
}
