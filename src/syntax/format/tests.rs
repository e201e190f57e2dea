use super::same::{mean_the_same, pieces};
use crate::diag::{Code, Sink, SourceMap};
use crate::syntax::parse;
use crate::syntax::tests::show::show;
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The formatted text, or the codes for which there is none.
fn formatted(text: &str) -> Result<String, Vec<Code>> {
    let mut sources = SourceMap::new();
    let file = sources.add("a.peft", text);
    let mut sink = Sink::new();
    let result = super::format(&sources, file, &mut sink);
    let codes: Vec<Code> = sink.diagnostics().iter().map(|d| d.code).collect();
    assert!(!codes.contains(&Code::E9901), "changes meaning: {text:?}");
    assert_eq!(result.is_err(), !codes.is_empty(), "{codes:?}");
    result.map_err(|_| codes)
}

fn tree(text: &str) -> String {
    let mut sources = SourceMap::new();
    let file = sources.add("a.peft", text);
    show(&parse(&sources, file, &mut Sink::new()).unwrap_or_else(|_| panic!("{text}")))
}

/// What holds for every text that can be formatted; answers with the formatted one.
fn check(text: &str) -> String {
    let once = formatted(text).unwrap_or_else(|codes| panic!("{codes:?} in:\n{text}"));
    assert_eq!(tree(&once), tree(text), "another tree than:\n{text}");
    assert_eq!(pieces(&once), pieces(text), "another token than:\n{text}");
    assert_eq!(
        formatted(&once).as_deref(),
        Ok(&*once),
        "it goes on changing"
    );
    assert!(!once.contains("\n\n\n") && !once.starts_with('\n') && !once.ends_with("\n\n"));
    assert!(once.is_empty() || once.ends_with('\n'));
    assert!(
        once.lines().all(|line| line == line.trim_end()),
        "blanks at an end:\n{once}"
    );
    once
}

/// The specs and the Markdown files below a folder.
fn files(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, out);
        } else if path.extension().is_some_and(|e| e == "peft" || e == "md") {
            out.push(path);
        }
    }
}

/// An example of a document with what its tag says is around it.
fn whole(tags: &str, block: &str) -> String {
    let (head, end) = match tags.split_once("in(").map(|(_, part)| part) {
        Some(part) if part.starts_with("method") => ("method m() on linear {\n", "}\n"),
        Some(part) if part.starts_with("forward") => {
            ("method m() on linear {\n  forward(x, y) {\n", "  }\n}\n")
        }
        Some(part) if part.starts_with("adapter") => ("adapter a {\n", "}\n"),
        _ => ("", ""),
    };
    format!("{head}{block}{end}")
}

/// Every spec of the repository without a fault of syntax, also those inside of documents, with a
/// name for it.
fn specs() -> &'static [(String, String)] {
    static SPECS: OnceLock<Vec<(String, String)>> = OnceLock::new();
    SPECS.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut paths = vec![root.join("README.md")];
        for folder in ["src", "fixtures", "tests", "grammar"] {
            files(&root.join(folder), &mut paths);
        }
        paths.sort();
        let mut found = Vec::new();
        for path in paths {
            let Ok(text) = std::fs::read_to_string(&path) else {
                continue;
            };
            let name = path.strip_prefix(root).unwrap().display().to_string();
            if name.ends_with(".peft") {
                found.push((name, text));
                continue;
            }
            let blocks = text.split("```peft").skip(1);
            for (tags, block) in blocks.filter_map(|block| block.split_once('\n')) {
                let (block, _) = block.split_once("```").unwrap();
                found.push((name.clone(), whole(tags, block)));
            }
        }
        found.retain(|(_, text)| formatted(text).is_ok());
        found
    })
}

#[test]
fn every_spec_of_the_repository_is_formatted() {
    let specs = specs();
    assert!(specs.len() > 90, "{}", specs.len());
    // Cases of tests may be ugly.
    let ugly: Vec<_> = specs
        .iter()
        .filter(|(name, text)| check(text) != *text && !name.starts_with("tests/"))
        .collect();
    assert!(ugly.is_empty(), "{ugly:#?}");
}

#[test]
fn tabs_line_ends_and_marks_of_editors_leave_no_trace() {
    for (name, text) in specs() {
        let once = formatted(text).unwrap();
        for other in [
            text.replace('\n', " \t\r\n\t "),
            format!("\u{FEFF}\r\r{}\r", text.replace('\n', "\r")),
            text.trim_end().to_owned(),
        ] {
            assert_eq!(formatted(&other).as_deref(), Ok(&*once), "{name}");
        }
    }
}

#[test]
fn blanks_are_those_of_the_library() {
    let ugly = r#"

use   std :: { lora,ia3 as   scale , }
use "./x.peft"::gated
fn f( a,b ){-a*( b+ -1 )-not  c==[ 1,2 ] .T [ : ,0 .. n-1,..2 , .. ]}
method m ( rank:int=8,pool :choice( "a","b" )="a" )on linear,conv{require rank>=1,"a  b"
param A:[rank,in]=zeros when(rank>1)rate(2*rank)
shared   const  B :[ ]=f (1, x=2)  ;let s=if a{1}else{-2}
forward (x ,y) {for i in 0 .. n{h=x [i]}
y%2+7 %3 }

}
adapter  a{
layers"model.layers"=[0 .. 4,2..5 , ..3,7, 3 .. ]
adapt "q" [ ..3],regex   "\d",all   linear,role ( q )with lora( rank=8 )+ia3 except"a" where in>2 override "q"(rank=1)
expect   trainable<1%;expect identity   at start
}
adapter b{ }
"#;
    insta::assert_snapshot!(check(ugly), @r#"
    use std::{lora, ia3 as scale,}
    use "./x.peft"::gated
    fn f(a, b) { -a * (b + -1) - not c == [1, 2].T[:, 0..n - 1, ..2, ..] }
    method m(rank: int = 8, pool: choice("a", "b") = "a") on linear, conv { require rank >= 1, "a  b"
      param A        : [rank, in] = zeros when (rank > 1) rate (2 * rank)
      shared const B : []         = f(1, x = 2); let s = if a { 1 } else { -2 }
      forward(x, y) { for i in 0..n { h = x[i] }
        y % 2 + 7 % 3 }
    }
    adapter a {
      layers "model.layers" = [0..4, 2..5, ..3, 7, 3..]
      adapt "q"[..3], regex "\d", all linear, role(q) with lora(rank = 8) + ia3 except "a" where in > 2 override "q" (rank = 1)
      expect trainable < 1%; expect identity at start
    }
    adapter b {}
    "#);
}

#[test]
fn lines_are_indented_by_what_they_are_in() {
    let ugly = "
adapter a {
      adapt \"a\",
  \"b\"
  // small ones
  with lora(
rank = 8,
      // the last
      alpha = 2
        + rank,
      ) + ia3
  except \"c\"

  // one
    expect sites == 1
    // two
}
method m(
/// how many
rank: int = 8,

  ) on linear,
conv
{

  // about A
param A : [rank,
in] = zeros
  forward(x, y) {
  a = concat([f(g(
x
)), h(
y,
z)],
axis = 1)
  b = a
* if rank == 1 { 2 }
// otherwise
else if rank == 2
and true {
  3
  } else {
4
}
.T
  for i in 0..2 { a = b
      b = a }
  (a)
// the end

  }
}
";
    insta::assert_snapshot!(check(ugly), @r#"
    adapter a {
      adapt "a",
        "b"
        // small ones
        with lora(
          rank = 8,
          // the last
          alpha = 2
            + rank,
        ) + ia3
        except "c"

      // one
      expect sites == 1
      // two
    }
    method m(
      /// how many
      rank: int = 8,
    ) on linear,
      conv
    {
      // about A
      param A : [rank,
        in] = zeros
      forward(x, y) {
        a = concat([f(g(
          x
        )), h(
          y,
          z)],
          axis = 1)
        b = a
          * if rank == 1 { 2 }
          // otherwise
          else if rank == 2
          and true {
            3
          } else {
            4
          }
          .T
        for i in 0..2 { a = b
          b = a }
        (a)
        // the end
      }
    }
    "#);
}

#[test]
fn parameters_and_comments_stand_in_columns() {
    let ugly = "
method m() on linear { // a
param A:[rank, in]=zeros// b
/// Longer.
param longer:[out]=kaiming_uniform(a = sqrt(5)) // c
// between
shared const c:[1]=ones(
  1)
param d:[1]=ones

param e:[1]=ones; param ff:[1,1]=ones // d
require rank == 1   // e

require 1 == 1// f
// g
let s = 1 // h
}
";
    insta::assert_snapshot!(check(ugly), @r"
    method m() on linear { // a
      param A        : [rank, in] = zeros // b
      /// Longer.
      param longer   : [out]      = kaiming_uniform(a = sqrt(5)) // c
      // between
      shared const c : [1]        = ones(
        1)
      param d : [1] = ones

      param e : [1] = ones; param ff : [1, 1] = ones // d
      require rank == 1                              // e

      require 1 == 1 // f
      // g
      let s = 1 // h
    }
    ");
}

#[test]
fn comments_stay_where_they_are() {
    let ugly = "// a


//b\u{20}\u{20}
//! c
//// d
use std::lora   // e
/// f

/// g
// h
fn f(a, // i
b) { // j

// k

a // l
// m

} // n

// o";
    insta::assert_snapshot!(check(ugly), @r"
    // a

    //b
    //! c
    //// d
    use std::lora // e
    /// f
    /// g
    // h
    fn f(a, // i
      b) { // j
      // k

      a // l
      // m
    } // n

    // o
    ");
}

#[test]
fn texts_of_blanks_and_of_comments_are_formatted_too() {
    for (text, expected) in [
        ("", ""),
        (" \r\n\t\n", ""),
        ("\u{FEFF}", ""),
        ("  //a", "//a\n"),
        ("//! a\n\n\n\n//! b", "//! a\n\n//! b\n"),
    ] {
        assert_eq!(check(text), expected);
    }
}

#[test]
fn texts_outside_the_language_are_refused_with_their_codes() {
    for (text, code) in [
        ("adapter a {", Code::E0103),
        ("fn f() { a b }", Code::E0111),
        ("fn f() { a; b }", Code::E0114),
        ("adapter a { train \"x }", Code::E0104),
        ("fn f() { a } /// b", Code::E0112),
    ] {
        let codes = formatted(text).expect_err(text);
        assert!(codes.contains(&code), "{text}: {codes:?}");
    }
}

#[test]
fn what_has_another_meaning_is_noticed() {
    let text = "fn f() {\n  a = 7 % // c\n    3\n  a\n}\n";
    assert!(mean_the_same(text, text));
    for (other, why) in [
        (
            text.replace("7 %", "7%"),
            "a share and a statement of its own",
        ),
        (text.replace("a = 7", "b = 7"), "a name"),
        (text.replace(" // c", ""), "a lost comment"),
        (text.replace(" // c", "\n// c"), "a moved comment"),
        (text.replace("3\n  a", "3; a"), "a lost line end"),
        (text.replace("3\n  a", "3 a"), "two statements on one line"),
    ] {
        assert!(!mean_the_same(text, &other), "{why}: {other}");
    }
    let text = "fn f() {\n  a = 7 %\n    b\n}\n";
    let other = text.replace("7 %", "7%");
    assert_ne!(tree(text), tree(&other));
    assert_eq!(pieces(text), pieces(&other));
    assert!(!mean_the_same(text, &other));
}

/// Aligned without a limit, the first text would take gigabytes; indented, the second more than is
/// read.
#[test]
fn large_texts_stay_in_bounds() {
    let wide = "a + ".repeat(100) + "a";
    let lines = "param A : [a] = zeros\n".repeat(500);
    let text = format!("method m() on linear {{\nparam B : [{wide}] = zeros\n{lines}}}\n");
    let once = formatted(&text).expect("it parses");
    assert!(
        once.len() < 3 * text.len(),
        "{} of {}",
        once.len(),
        text.len()
    );
    let (open, close) = ("f(\n".repeat(60), ")".repeat(60));
    let text = format!("fn f() {{\n{open}{}{close}\n}}\n", "a,\n".repeat(9_000));
    assert!(text.len() < 30_000);
    assert_eq!(formatted(&text), Err(vec![Code::E0108]));
}

/// A text with other blanks wherever it has some, and with some where it has none. Of the line ends
/// in a gap it keeps none, one, or several.
fn respaced(text: &str, choices: &[u8]) -> String {
    const BLANKS: [&str; 5] = ["", " ", "  ", "\t", " \t  "];
    let mut choices = choices.iter().cycle();
    let mut blanks = || BLANKS[usize::from(*choices.next().unwrap()) % BLANKS.len()];
    let mut out = String::new();
    let mut rest = text;
    for (piece, _) in pieces(text) {
        let (gap, behind) = rest.split_once(piece).unwrap();
        out.push_str(blanks());
        match gap.matches('\n').count() {
            0 if !gap.is_empty() => out.push(' '),
            0 => {}
            1 => out.push('\n'),
            _ => out.push_str("\r\n \t\r\n\n"),
        }
        out.push_str(blanks());
        out.push_str(piece);
        rest = behind;
    }
    out + rest
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_blanks_of_a_text_do_not_matter(
        at in any::<prop::sample::Index>(),
        choices in prop::collection::vec(any::<u8>(), 1..200),
    ) {
        let (_, text) = at.get(specs());
        let other = respaced(text, &choices);
        // A blank may also part what belongs together, such as `7%`.
        if mean_the_same(text, &other) {
            prop_assert_eq!(Ok(check(&other)), formatted(text));
        }
    }
}
