//! What text means which tree.

use super::check_parses;
use super::show::{expr, show};
use crate::syntax::ast::{Item, MethodItem};

/// The expression `text` as a tree with all parentheses.
fn tree(text: &str) -> String {
    let file = check_parses(&format!("fn f() {{ {text} }}"));
    let Item::Function(function) = &file.items[0] else {
        panic!("not a function: {:?}", file.items[0]);
    };
    assert!(function.body.statements.is_empty(), "in: {text}");
    expr(function.body.value.as_ref().expect("the body has a value"))
}

#[test]
fn operators_bind_as_their_precedence_says() {
    for (text, expected) in [
        ("a + b * c", "(a + (b * c))"),
        ("a * b + c", "((a * b) + c)"),
        ("a - b - c", "((a - b) - c)"),
        ("x @ A.T @ B.T", "((x @ A.T) @ B.T)"),
        ("a ** b ** c", "(a ** (b ** c))"),
        ("-a ** b", "(- (a ** b))"),
        ("a ** -b", "(a ** (- b))"),
        ("-a * b", "((- a) * b)"),
        ("not a == b", "(not (a == b))"),
        ("not a and b", "((not a) and b)"),
        ("a or b and c", "(a or (b and c))"),
        ("a < b and b < c", "((a < b) and (b < c))"),
        ("a % b", "(a % b)"),
        ("(a + b) * c", "((a + b) * c)"),
        ("- -a", "(- (- a))"),
        ("not not a", "(not (not a))"),
    ] {
        assert_eq!(tree(text), expected, "of {text}");
    }
}

#[test]
fn a_percent_sign_is_a_share_unless_an_operand_follows() {
    for (text, expected) in [
        ("trainable < 1%", "(trainable < 1.0%)"),
        ("trainable < 1.5% and a", "((trainable < 1.5%) and a)"),
        ("7 % 3", "(7 % 3)"),
        ("7%3", "(7 % 3)"),
        ("7% n", "(7 % n)"),
        ("7%(n)", "(7 % n)"),
    ] {
        assert_eq!(tree(text), expected, "of {text}");
    }
}

#[test]
fn numbers_have_separators_fractions_and_exponents() {
    for (text, expected) in [
        ("1_000", "1000"),
        ("1.5", "1.5"),
        ("1e-3", "0.001"),
        ("2.5E2", "250.0"),
        ("1_0.0_1", "10.01"),
        ("9223372036854775807", "9223372036854775807"),
    ] {
        assert_eq!(tree(text), expected, "of {text}");
    }
}

#[test]
fn subscripts_are_positions_or_ranges() {
    assert_eq!(
        tree("a[0..k, :, i, .., 1.., ..2]"),
        "a[0..k, .., i, .., 1.., ..2]"
    );
    assert_eq!(tree("a[0][1].T.x"), "a[0][1].T.x");
}

#[test]
fn a_bracket_continues_an_expression_only_on_its_line() {
    let file = check_parses("fn f() {\n  a = b\n  [c, d]\n}\nfn g() {\n  a = b\n  (c)\n}");
    insta::assert_snapshot!(show(&file), @r"
    fn f [] { a := b; list[c, d] }
    fn g [] { a := b; c }
    ");
}

#[test]
fn a_line_that_starts_with_an_operator_continues() {
    let file = check_parses("fn f() {\n  a = b\n    + c *\n    d // why\n    .T\n  a }");
    insta::assert_snapshot!(show(&file), @"fn f [] { a := (b + (c * d.T)); a }");
}

#[test]
fn words_of_one_place_are_names_elsewhere() {
    let names =
        "in + out + as + at + all + role + regex + choice + gradient + identity + start + step + T";
    assert_eq!(tree(names).matches('+').count(), 12);
    let file = check_parses("fn f(in) { for in in in..out { in = in }; in }");
    insta::assert_snapshot!(show(&file), @"fn f [in] { for in in in..out { in := in; }; in }");
}

#[test]
fn else_if_nests() {
    assert_eq!(
        tree("if a { 1 } else if b { 2 } else { 3 }"),
        "if a { 1 } else { if b { 2 } else { 3 } }"
    );
}

#[test]
fn strings_have_escapes_and_regular_expressions_do_not() {
    let file = check_parses(
        r#"use "a\"b\\c.peft"::d
adapter a { train regex "x\.\d+\"", "y\\z" }"#,
    );
    insta::assert_snapshot!(show(&file), @r#"
    use "a\"b\\c.peft" [d]
    adapter a
      train [regex "x\\.\\d+\\\"", "y\\z"] except []
    "#);
}

#[test]
fn line_ends_and_marks_of_editors_do_not_matter() {
    let unix = "//! doc\nfn f() {\n\ta = 1\n\ta\n}\n";
    let file = check_parses(unix);
    for other in [unix.replace('\n', "\r\n"), format!("\u{FEFF}{unix}")] {
        assert_eq!(show(&check_parses(&other)), show(&file));
    }
}

#[test]
fn the_example_of_the_reference_parses() {
    let file = check_parses(include_str!("support.peft"));
    insta::assert_snapshot!("support", show(&file));
}

#[test]
fn every_construct_has_its_node() {
    let file = check_parses(include_str!("everything.peft"));
    insta::assert_snapshot!("everything", show(&file));
}

#[test]
fn spans_end_with_the_last_token() {
    let text =
        "method m(a: int) on linear { // c\n  param A : [a] = zeros  // why\n\n  let b = a\n}";
    let file = check_parses(text);
    let Item::Method(method) = &file.items[0] else {
        panic!("not a method");
    };
    let MethodItem::Param(param) = &method.body[0] else {
        panic!("not a param");
    };
    let slice = |span: crate::diag::Span| &text[span.start as usize..span.end as usize];
    assert_eq!(slice(param.span), "param A : [a] = zeros");
    assert_eq!(slice(method.span), text);
}
