use super::*;
use crate::diag::{Code, Span};
use serde_json::Value;

/// Two errors in a file, with characters that every format must escape.
fn check(test: impl Fn(&Subject<'_>)) {
    let mut sources = SourceMap::new();
    let file = sources.add("specs/a b.peft", "adapt \"é*\"\n  with lora()\n");
    let first = Diagnostic::new(Code::E0401, "`é*` matches < 1 & \"none\"")
        .label(Span::new(file, 6, 11), "no module, 100%")
        .note("nearest: a, b")
        .help("check: the name");
    let second = Diagnostic::new(Code::E0801, "not\u{1} found");
    let diagnostics = [first.clone(), first, second];
    test(&Subject {
        command: "check",
        diagnostics: &diagnostics,
        sources: &sources,
    });
}

#[test]
fn sarif_has_the_fields_that_code_scanning_asks_for() {
    check(|subject| {
        let log: Value = serde_json::from_str(&sarif(subject)).unwrap();
        assert_eq!(log["version"], "2.1.0");
        let run = &log["runs"][0];
        let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
        assert_eq!(rules.len(), 2);
        assert_eq!(rules[0]["id"], "E0401");
        assert_eq!(rules[0]["defaultConfiguration"]["level"], "error");
        let results = run["results"].as_array().unwrap();
        assert_eq!(results.len(), 3);
        assert_eq!(results[2]["ruleIndex"], 1);
        assert_eq!(results[2]["locations"], serde_json::json!([]));
        let place = &results[0]["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "specs/a%20b.peft");
        // Columns count characters: `é` is one of them and two bytes.
        let region = serde_json::json!(
            {"startLine": 1, "startColumn": 7, "endLine": 1, "endColumn": 11}
        );
        assert_eq!(place["region"], region);
        let print = |index: usize| &results[index]["partialFingerprints"]["peftcFinding/v1"];
        assert_ne!(print(0), print(1));
        assert_eq!(sarif(subject), sarif(subject));
    });
}

#[test]
fn github_annotations_are_one_escaped_line_each() {
    check(|subject| {
        let text = github(subject);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(
            lines[0],
            "::error file=specs/a b.peft,line=1,endLine=1,col=7,endColumn=11,\
             title=E0401%3A pattern matches nothing::`é*` matches < 1 & \"none\"%0A\
             no module, 100%25%0Anote: nearest: a, b%0Ahelp: check: the name"
        );
        assert!(lines[2].starts_with("::error title=E0801%3A ONNX Runtime not found::not"));
    });
}

#[test]
fn junit_is_well_formed_and_counts_failures() {
    check(|subject| {
        let text = junit(subject);
        assert!(text.contains("tests=\"3\" failures=\"3\""), "{text}");
        assert!(
            text.contains("matches &lt; 1 &amp; &quot;none&quot;"),
            "{text}"
        );
        assert!(text.contains("not\u{fffd} found"), "{text}");
        assert!(
            text.contains("classname=\"specs/a b.peft\" name=\"E0401:1:7 "),
            "{text}"
        );
        assert_eq!(text.matches("<testcase").count(), 3);
        assert_eq!(text.matches("</testcase>").count(), 3);
    });
}

#[test]
fn no_finding_is_one_passed_case() {
    let sources = SourceMap::new();
    let subject = Subject {
        command: "check",
        diagnostics: &[],
        sources: &sources,
    };
    let text = junit(&subject);
    assert!(text.contains("tests=\"1\" failures=\"0\""), "{text}");
    assert!(
        text.contains("<testcase classname=\"peftc\" name=\"peftc check\"/>"),
        "{text}"
    );
    assert_eq!(github(&subject), "");
}
