//! Module patterns: globs with braces and ranges, or regular expressions.
//!
//! A glob matches a whole module path or the end of one that begins behind a dot, so that a
//! wrapper's prefix does not matter: `self_attn.q_proj` matches `model.layers.0.self_attn.q_proj`.
//! `*` stands for any characters within one segment, `**` for any characters, `?` for one
//! character, `{a,b}` for either, `{0..11}` for every number from 0 to 11.

use crate::modules::Site;
use regex::Regex;

/// A compiled pattern: one alternative for every combination of its braces.
#[derive(Debug)]
pub(super) struct Compiled {
    pub alternatives: Vec<Alternative>,
}

/// One expansion of the braces.
#[derive(Debug)]
pub(super) struct Alternative {
    /// The glob without braces, or the regular expression.
    pub text: String,
    regex: Regex,
}

/// Braces may expand to at most this many alternatives.
const ALTERNATIVE_LIMIT: usize = 4096;

impl Compiled {
    /// Compiles a glob; `Err` says what is wrong with it.
    pub fn glob(text: &str) -> Result<Compiled, String> {
        if text.is_empty() {
            return Err("the pattern is empty".to_owned());
        }
        let alternatives = expand(text)?
            .into_iter()
            .map(|text| {
                let regex = Regex::new(&format!(r"(?:^|\.){}$", glob_to_regex(&text)));
                regex
                    .map(|regex| Alternative { text, regex })
                    .map_err(|error| error.to_string())
            })
            .collect::<Result<Vec<_>, String>>()?;
        Ok(Compiled { alternatives })
    }

    /// Compiles a regular expression that must match the whole path.
    pub fn regex(text: &str) -> Result<Compiled, String> {
        let regex = Regex::new(&format!("^(?:{text})$")).map_err(|error| {
            let message = error.to_string();
            message
                .lines()
                .last()
                .unwrap_or("not a regular expression")
                .trim()
                .to_owned()
        })?;
        Ok(Compiled {
            alternatives: vec![Alternative {
                text: text.to_owned(),
                regex,
            }],
        })
    }

    /// Whether it matches one of the site's paths.
    pub fn names(&self, site: &Site) -> bool {
        self.alternatives.iter().any(|a| a.names(site))
    }

    pub fn matches(&self, path: &str) -> bool {
        self.alternatives.iter().any(|a| a.regex.is_match(path))
    }
}

impl Alternative {
    /// Whether it matches one of the site's paths.
    pub fn names(&self, site: &Site) -> bool {
        site.paths().any(|path| self.regex.is_match(path))
    }
}

fn glob_to_regex(glob: &str) -> String {
    let mut out = String::new();
    let mut rest = glob.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '*' if rest.peek() == Some(&'*') => {
                rest.next();
                out.push_str(".*");
            }
            '*' => out.push_str(r"[^.]*"),
            '?' => out.push_str(r"[^.]"),
            other => out.push_str(&regex::escape(&other.to_string())),
        }
    }
    out
}

/// Expands the braces of a glob from left to right; nested braces expand too.
fn expand(text: &str) -> Result<Vec<String>, String> {
    let Some(open) = text.find('{') else {
        return if text.contains('}') {
            Err("`}` without `{`".to_owned())
        } else {
            Ok(vec![text.to_owned()])
        };
    };
    let close = matching_brace(text, open).ok_or("`{` is not closed")?;
    let (head, body, tail) = (&text[..open], &text[open + 1..close], &text[close + 1..]);
    if head.contains('}') {
        return Err("`}` without `{`".to_owned());
    }
    let tails = expand(tail)?;
    let mut found = Vec::new();
    for branch in branches(body)? {
        for tail in &tails {
            if found.len() >= ALTERNATIVE_LIMIT {
                return Err(format!(
                    "the braces expand to more than {ALTERNATIVE_LIMIT} patterns"
                ));
            }
            found.push(format!("{head}{branch}{tail}"));
        }
    }
    Ok(found)
}

fn matching_brace(text: &str, open: usize) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in text[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return Some(open + at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// The alternatives inside one pair of braces.
fn branches(body: &str) -> Result<Vec<String>, String> {
    if let Some((start, end)) = body.split_once("..")
        && !body.contains(',')
    {
        let number = |text: &str| {
            text.trim()
                .parse::<u32>()
                .map_err(|_| format!("`{{{body}}}` is no range of numbers"))
        };
        let (start, end) = (number(start)?, number(end)?);
        if end < start {
            return Err(format!("`{{{body}}}` ends before it starts"));
        }
        if (end - start) as usize >= ALTERNATIVE_LIMIT {
            return Err(format!(
                "the braces expand to more than {ALTERNATIVE_LIMIT} patterns"
            ));
        }
        return Ok((start..=end).map(|n| n.to_string()).collect());
    }
    let mut parts = Vec::new();
    let (mut depth, mut from) = (0, 0);
    for (at, c) in body.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&body[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&body[from..]);
    let mut found = Vec::new();
    for part in parts {
        found.extend(expand(part.trim())?);
    }
    Ok(found)
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
    }

    #[test]
    fn broken_patterns_say_what_is_wrong() {
        for (glob, why) in [
            ("a.{b", "not closed"),
            ("a}", "without"),
            ("", "empty"),
            ("{3..1}", "ends before"),
            ("{0..99999}", "more than"),
        ] {
            let error = Compiled::glob(glob).expect_err("a bad pattern");
            assert!(error.contains(why), "{glob}: {error}");
        }
    }
}
