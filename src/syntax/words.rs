//! The words of the language, for messages and for the recovery from faults. The grammar decides
//! what they mean; a test compares the two.

/// Where a statement or item stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    File,
    Method,
    Adapter,
    /// The body of `forward`, `fn`, `for` or a hook.
    Block,
}

impl Level {
    const ALL: [Level; 4] = [Level::File, Level::Method, Level::Adapter, Level::Block];

    /// The words that start something here.
    pub fn starters(self) -> &'static [&'static str] {
        match self {
            Level::File => &["use", "method", "fn", "adapter"],
            Level::Method => &[
                "require",
                "let",
                "param",
                "const",
                "shared",
                "state",
                "fn",
                "forward",
                "on",
                "loss",
                "interchange",
            ],
            Level::Adapter => &["layers", "adapt", "train", "expect"],
            Level::Block => &["for"],
        }
    }

    /// The place in the user's words.
    pub fn place(self) -> &'static str {
        match self {
            Level::File => "at the top of a file",
            Level::Method => "in a `method`",
            Level::Adapter => "in an `adapter`",
            Level::Block => "in a block",
        }
    }

    /// The levels at which `word` starts something.
    pub fn of(word: &str) -> impl Iterator<Item = Level> {
        Level::ALL
            .into_iter()
            .filter(move |level| level.starters().contains(&word))
    }

    /// The level inside the braces of what `word` starts.
    pub fn inside(word: &str) -> Option<Level> {
        Some(match word {
            "method" => Level::Method,
            "adapter" => Level::Adapter,
            "fn" | "forward" | "for" | "on" | "loss" => Level::Block,
            _ => return None,
        })
    }
}

/// Whether `word` starts something at some level; such words are reserved.
pub(super) fn starts_something(word: &str) -> bool {
    STARTERS.contains(&word)
}

/// The words that start something at some level.
pub(super) const STARTERS: &[&str] = &[
    "adapt",
    "adapter",
    "const",
    "expect",
    "fn",
    "for",
    "forward",
    "interchange",
    "layers",
    "let",
    "loss",
    "method",
    "on",
    "param",
    "require",
    "shared",
    "state",
    "train",
    "use",
];

/// Whether `word` can only stand at the outermost level.
pub(super) fn starts_a_file_item(word: &str) -> bool {
    matches!(word, "use" | "method" | "adapter")
}

/// Words that continue what stands before them.
pub(super) const CONTINUING: &[&str] = &[
    "and", "as", "else", "except", "on", "or", "override", "when", "where", "with",
];

/// Reserved words that are neither starters nor continue something.
const OTHERS: &[&str] = &["false", "if", "not", "true"];

/// Words with a meaning in one place, which are names elsewhere.
const NAMES_ELSEWHERE: &[&str] = &[
    "all", "as", "at", "by", "choice", "gradient", "identity", "in", "rate", "regex", "role",
    "start", "step",
];

/// Whether `word` is not a name anywhere.
pub(super) fn is_reserved(word: &str) -> bool {
    starts_something(word)
        || OTHERS.contains(&word)
        || CONTINUING.contains(&word) && !NAMES_ELSEWHERE.contains(&word)
}

/// The words that are no names.
pub fn reserved_words() -> impl Iterator<Item = &'static str> {
    let words = STARTERS.iter().chain(CONTINUING).chain(OTHERS).copied();
    words.filter(|word| is_reserved(word))
}

/// The words that mean something in one place and are names elsewhere.
pub fn words_in_place() -> impl Iterator<Item = &'static str> {
    NAMES_ELSEWHERE.iter().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax::grammar::{Grammar, Rule};
    use pest::Parser;

    #[test]
    fn starters_are_those_of_the_levels() {
        for word in STARTERS {
            assert!(Level::of(word).next().is_some(), "{word}");
        }
        for word in Level::ALL.iter().flat_map(|level| level.starters()) {
            assert!(STARTERS.contains(word), "{word}");
        }
    }

    #[test]
    fn reserved_words_are_those_of_the_grammar() {
        let text = include_str!("../../grammar/peft.pest");
        let words = text.split(|c: char| !c.is_ascii_lowercase());
        for word in words.filter(|word| !word.is_empty()) {
            let is_name = Grammar::parse(Rule::name, word).is_ok();
            assert_eq!(is_reserved(word), !is_name, "{word}");
        }
    }

    #[test]
    fn every_keyword_of_the_grammar_is_reserved_or_has_its_place() {
        let rules = Rule::all_rules().iter().map(|rule| format!("{rule:?}"));
        let mut found: Vec<String> = rules
            .filter_map(|rule| rule.strip_prefix("kw_").map(str::to_owned))
            .filter(|word| !is_reserved(word))
            .collect();
        found.sort();
        assert_eq!(found, NAMES_ELSEWHERE);
    }
}
