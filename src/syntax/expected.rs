//! What was expected at a fault, in the user's words.
//!
//! In: the rules that the parser tried at the furthest place it reached. Out: a diagnostic. Not
//! here: where to look for faults (`recover`).

use super::grammar::Rule;
use super::token::TokenKind;
use super::words;
use crate::diag::nearest;

/// What was written where the parse stopped.
pub(super) struct Found<'a> {
    /// `None` at the end of the piece.
    pub token: Option<(TokenKind, &'a str)>,
    /// In the user's words.
    pub words: String,
    /// The token before, if it is on the same line.
    pub before: &'a str,
    /// The token behind the found one.
    pub after: &'a str,
    /// A number and a point stand before it.
    pub after_point: bool,
}

/// What could have been written, without repetition and in the order in which it is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expected(Vec<Word>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Word {
    Value,
    Target,
    Method,
    Name,
    Type,
    Text,
    Layers,
    Keyword(String),
    Mark(&'static str),
    Operator,
    /// The piece is complete; what may follow is said by the caller.
    End(&'static str),
}

impl Expected {
    /// `end` says in the user's words what follows a complete piece.
    pub fn new(rules: &[Rule], end: &'static str) -> Self {
        let complete = rules.contains(&Rule::EOI);
        let mut words: Vec<Word> = rules
            .iter()
            .filter_map(|rule| word(*rule, end))
            // Behind a complete statement any other may start.
            .filter(|word| !complete || !word.is_starter())
            .collect();
        // The only operator between methods.
        if rules.contains(&Rule::add) && !rules.contains(&Rule::subtract) {
            words.retain(|word| *word != Word::Operator);
            words.push(Word::Mark("+"));
        }
        words.sort();
        words.dedup();
        let (has_value, has_target) = (words.contains(&Word::Value), words.contains(&Word::Target));
        words.retain(|word| match word {
            Word::Keyword(text) => match text.as_str() {
                "identity" => !has_value,
                "all" | "role" => !has_target,
                _ => true,
            },
            _ => true,
        });
        // Brackets may follow most things: they are said where nothing else may.
        for mark in [Word::Mark("["), Word::Mark("(")] {
            if words.len() > 1 {
                words.retain(|word| *word != mark);
            }
        }
        Expected(words)
    }

    fn has(&self, word: &Word) -> bool {
        self.0.contains(word)
    }

    pub fn is_name(&self) -> bool {
        self.has(&Word::Name)
    }

    pub fn is_value(&self) -> bool {
        self.has(&Word::Value)
    }

    fn marks(&self, mark: &str) -> bool {
        self.0
            .iter()
            .any(|word| matches!(word, Word::Mark(m) if *m == mark))
    }

    fn keyword(&self, keyword: &str) -> bool {
        self.0
            .iter()
            .any(|word| matches!(word, Word::Keyword(k) if k == keyword))
    }

    fn keywords(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|word| match word {
            Word::Keyword(keyword) => Some(keyword.as_str()),
            _ => None,
        })
    }

    /// `a`, `a or b`, `a, b or c`.
    pub fn words(&self) -> String {
        let texts: Vec<String> = self.0.iter().map(Word::text).collect();
        match texts.split_last() {
            None => "something else".to_owned(),
            Some((last, [])) => last.clone(),
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
        }
    }

    /// What to do where the likely intention is known.
    pub fn help(&self, found: &Found<'_>) -> Option<String> {
        let (kind, text) = found.token.unwrap_or((TokenKind::Mark, ""));
        if kind == TokenKind::Word && !words::is_reserved(text) {
            let close = nearest(text, self.keywords(), 1);
            if let [keyword] = close[..] {
                return Some(format!("did you mean `{keyword}`?"));
            }
        }
        self.known_slip(kind, text, found).map(str::to_owned)
    }

    fn known_slip(&self, kind: TokenKind, text: &str, found: &Found<'_>) -> Option<&'static str> {
        Some(match (found.before, text) {
            ("+" | "-" | "*" | "/" | "@", "=") => "write `a = a + b`",
            ("*", "*") => "the power is written `**`, without a blank",
            ("/", "*") => "comments start with `//` and end with the line",
            _ if found.after_point => "a number has a digit behind the point, as in `1.0`",
            ("with", _) if kind == TokenKind::Str => "the name of a method has no quotes",
            ("return", _) => "the last line of a block is its value, without `return`",
            (_, ".") if self.is_value() => "a number has a digit before the point, as in `0.5`",
            (_, "=") if self.has(&Word::Operator) => "`=` gives a name; `==` compares",
            ("-", ">") | (_, "-") if found.after == ">" || text == ">" => {
                "the result of a function has no declared type"
            }
            (_, ":") if self.marks("]") => "a range is written `0..3`",
            (_, ":") if self.marks(")") => "parameters of a function have no types",
            (_, "{") if self.keyword("on") && !self.keyword("forward") => {
                "say what the method applies to, as in `on linear`"
            }
            (_, "*") if self.keyword("with") => "patterns stand in quotes",
            (_, _) if self.has(&Word::Target) && kind == TokenKind::Word => {
                "patterns stand in quotes, as in `\"*.q_proj\"`"
            }
            (_, _) if self.keyword("else") => "an `if` is a value, so it has an `else`",
            _ => return None,
        })
    }
}

impl Word {
    fn is_starter(&self) -> bool {
        match self {
            Word::Value | Word::Name => true,
            Word::Keyword(keyword) => words::starts_something(keyword),
            _ => false,
        }
    }

    fn text(&self) -> String {
        match self {
            Word::Value => "a value".to_owned(),
            Word::Target => "a target".to_owned(),
            Word::Method => "a method".to_owned(),
            Word::Name => "a name".to_owned(),
            Word::Type => "a type".to_owned(),
            Word::Text => "a string".to_owned(),
            Word::Layers => "a range of layers".to_owned(),
            Word::Keyword(keyword) => format!("`{keyword}`"),
            Word::Mark(mark) => format!("`{mark}`"),
            Word::Operator => "an operator".to_owned(),
            Word::End(words) => (*words).to_owned(),
        }
    }
}

/// What a rule stands for; nothing for rules that go without saying.
fn word(rule: Rule, end: &'static str) -> Option<Word> {
    use Rule::*;
    Some(match rule {
        expr | operand | negate | not | number | percent | boolean | call | paren | list
        | if_expr | subscript | argument => Word::Value,
        targets | pattern | regex_pattern => Word::Target,
        method_call => Word::Method,
        name | hyper | use_name => Word::Name,
        type_name | choice => Word::Type,
        string => Word::Text,
        layer_range => Word::Layers,
        or | and | equal | not_equal | less | less_equal | greater | greater_equal | add
        | subtract | multiply | divide | remainder | matmul | power => Word::Operator,
        EOI => Word::End(end),
        open_brace | block => Word::Mark("{"),
        close_brace => Word::Mark("}"),
        open_paren | names | hypers | arguments => Word::Mark("("),
        close_paren => Word::Mark(")"),
        open_bracket | shape | slice => Word::Mark("["),
        close_bracket => Word::Mark("]"),
        comma => Word::Mark(","),
        colon => Word::Mark(":"),
        path_mark => Word::Mark("::"),
        assign => Word::Mark("="),
        dots => Word::Mark(".."),
        condition => Word::Keyword("where".to_owned()),
        semicolon | doc_line | docs | file_doc | index | field | dot => return None,
        _ => Word::Keyword(keyword(rule)),
    })
}

/// The word that a rule starts with: rules of keywords and statements are named after it.
fn keyword(rule: Rule) -> String {
    let name = format!("{rule:?}");
    let word = name.strip_prefix("kw_").unwrap_or(&name);
    let end = word.find('_').unwrap_or(word.len());
    match &word[..end] {
        "function" => "fn".to_owned(),
        "hook" => "on".to_owned(),
        word => word.to_owned(),
    }
}
