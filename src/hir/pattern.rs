//! Module patterns: globs with braces and ranges, or regular expressions.
//!
//! A glob matches a whole module path or the end of one that begins behind a dot, so that a
//! wrapper's prefix does not matter: `self_attn.q_proj` matches `model.layers.0.self_attn.q_proj`.
//! `*` stands for any characters within one segment, `**` for any characters, `?` for one
//! character, `{a,b}` for either, `{0..11}` for every number from 0 to 11, `{0..3,7}` for both.

use super::errors;
use super::glob::{Glob, expand};
use crate::diag::{Reported, Sink};
use crate::syntax::ast::Pattern;
use regex::Regex;

/// A compiled pattern: one alternative for every combination of its braces.
#[derive(Debug)]
pub struct Compiled {
    pub alternatives: Vec<Alternative>,
}

/// One expansion of the braces.
#[derive(Debug)]
pub struct Alternative {
    /// The glob without braces, or the regular expression.
    pub text: String,
    matcher: Matcher,
}

#[derive(Debug)]
enum Matcher {
    Glob(Glob),
    Regex(Regex),
}

/// What is wrong with a regular expression that escapes its backslashes as a string would.
const DOUBLED: &str = r"`\\` is a backslash, which no module path has; write `\.` for a point";

/// Compiles a pattern or reports what is wrong with it.
pub fn compile_pattern(pattern: &Pattern, sink: &mut Sink) -> Result<Compiled, Reported> {
    let compiled = if pattern.regex {
        Compiled::regex(&pattern.text.node)
    } else {
        Compiled::glob(&pattern.text.node)
    };
    compiled.map_err(|why| sink.emit(errors::bad_pattern(pattern.text.span, &why)))
}

impl Compiled {
    /// Compiles a glob; `Err` says what is wrong with it.
    pub fn glob(text: &str) -> Result<Compiled, String> {
        if text.is_empty() {
            return Err("the pattern is empty".to_owned());
        }
        let alternative = |text: String| Alternative {
            matcher: Matcher::Glob(Glob::new(&text)),
            text,
        };
        let alternatives = expand(text)?.into_iter().map(alternative).collect();
        Ok(Compiled { alternatives })
    }

    /// Compiles a regular expression that must match the whole path.
    pub fn regex(text: &str) -> Result<Compiled, String> {
        if text.contains(r"\\") {
            return Err(DOUBLED.to_owned());
        }
        let regex = Regex::new(&format!("^(?:{text})$")).map_err(|error| {
            let message = error.to_string();
            message
                .lines()
                .last()
                .unwrap_or("not a regular expression")
                .trim_start_matches("error: ")
                .trim()
                .to_owned()
        })?;
        Ok(Compiled {
            alternatives: vec![Alternative {
                text: text.to_owned(),
                matcher: Matcher::Regex(regex),
            }],
        })
    }

    pub fn matches(&self, path: &str) -> bool {
        self.alternatives.iter().any(|a| a.matches(path))
    }
}

impl Alternative {
    pub fn matches(&self, path: &str) -> bool {
        match &self.matcher {
            Matcher::Glob(glob) => glob.matches(path),
            Matcher::Regex(regex) => regex.is_match(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(glob: &str, path: &str) -> bool {
        Compiled::glob(glob).expect("a good pattern").matches(path)
    }

    #[test]
    fn a_star_stays_within_a_segment_and_two_do_not() {
        assert!(matches(
            "model.layers.*.self_attn.q_proj",
            "model.layers.11.self_attn.q_proj"
        ));
        assert!(!matches("model.*.q_proj", "model.layers.0.q_proj"));
        assert!(matches("model.**.q_proj", "model.layers.0.q_proj"));
    }

    #[test]
    fn the_end_of_a_path_matches_only_behind_a_dot() {
        assert!(matches("q_proj", "model.layers.0.q_proj"));
        assert!(!matches("proj", "model.layers.0.q_proj"));
        assert!(matches("*proj", "model.layers.0.q_proj"));
    }

    #[test]
    fn braces_and_ranges_expand() {
        let compiled = Compiled::glob("layers.{0..2}.{q,{k,v}}_proj").expect("a good pattern");
        assert_eq!(compiled.alternatives.len(), 9);
        assert!(compiled.matches("layers.2.v_proj"));
        assert!(!compiled.matches("layers.3.v_proj"));
        let compiled = Compiled::glob("layers.{0..1, 4, {6..7}}").expect("a good pattern");
        let texts: Vec<&str> = compiled.alternatives.iter().map(|a| &*a.text).collect();
        assert_eq!(
            texts,
            ["layers.0", "layers.1", "layers.4", "layers.6", "layers.7"]
        );
    }

    #[test]
    fn broken_patterns_say_what_is_wrong() {
        for (glob, why) in [
            ("a.{b", "not closed"),
            ("a}", "without"),
            ("", "empty"),
            ("{3..1}", "ends before"),
            ("{0..99999}", "more than"),
            ("{0..4000,0..4000}", "more than"),
            ("{a..b}", "no range"),
            ("{1,2..}", "no range"),
        ] {
            let error = Compiled::glob(glob).expect_err("a bad pattern");
            assert!(error.contains(why), "{glob}: {error}");
        }
        let error = Compiled::regex(r"layers\\.0").expect_err("a bad pattern");
        assert!(error.contains(r"write `\.`"), "{error}");
    }
}
