//! Faults that the grammar does not catch, and input without measure.

use super::{check_reports, codes};

#[test]
fn faults_of_trees_are_reported_together() {
    check_reports(
        "fn f() {\n  a = 1 b = 2\n  0 < a < 3\n  g(x = 1, 2)\n}",
        &[
            ("E0111", "b = 2"),
            ("E0113", "<"),
            ("E0114", "0 < a < 3"),
            ("E0115", "2"),
        ],
    );
    check_reports(
        "adapter a {\n  adapt \"x\" with m except \"a\" where in > 1 except \"b\" where out > 1\n}",
        &[("E0116", "except \"b\""), ("E0116", "where out > 1")],
    );
    check_reports(
        "fn f() { 9223372036854775808 + 1e999 }",
        &[("E0109", "9223372036854775808"), ("E0109", "1e999")],
    );
    check_reports(
        r#"fn f() { "a\qb\é" }"#,
        &[("E0110", r"\q"), ("E0110", r"\é")],
    );
}

#[test]
fn depth_is_bounded_however_it_is_made() {
    let many = 10_000;
    for (what, value) in [
        (
            "parentheses",
            format!("{}x{}", "(".repeat(many), ")".repeat(many)),
        ),
        ("open parentheses", "(".repeat(many)),
        ("lists", format!("{}{}", "[".repeat(many), "]".repeat(many))),
        ("blocks", "if c { ".repeat(many)),
        ("minus signs", format!("{}x", "-".repeat(many))),
        ("powers", format!("{}x", "x ** ".repeat(many))),
        ("sums", format!("{}x", "x + ".repeat(many))),
        ("fields", format!("x{}", ".T".repeat(many))),
        ("subscripts", format!("x{}", "[0]".repeat(many))),
        (
            "else if",
            format!(
                "if c {{ 1 }} {} else {{ 2 }}",
                "else if c { 1 }".repeat(many / 4)
            ),
        ),
    ] {
        let text = format!("fn f() {{ {value} }}");
        let found = codes(&text);
        assert!(
            found.iter().any(|(code, _)| code == "E0107"),
            "{what}: {found:?}"
        );
    }
}

#[test]
fn large_files_are_refused() {
    check_reports(
        &" ".repeat(crate::syntax::parse::MAX_BYTES + 1),
        &[("E0108", "")],
    );
}
