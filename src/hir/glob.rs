//! Globs: braces expanded, wildcards matched.
//!
//! In: the text of a glob. Out: one [`Glob`] for every combination of its braces. What holds: their
//! number, their length together and the nesting of braces are bounded, and so is the time that a
//! match takes. What a glob means says [`pattern`](super::pattern).

/// Braces may expand to at most this many globs,
const MOST_GLOBS: usize = 4096;
/// of this many bytes together,
const MOST_BYTES: usize = 1 << 20;
/// and stand in so many others.
const DEEPEST: usize = 16;

/// A glob without braces.
#[derive(Debug)]
pub(super) struct Glob {
    tokens: Vec<Token>,
    /// What every path that matches ends with: the letters behind the last wildcard.
    end: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Char(char),
    /// `?`
    One,
    /// `*`
    Within,
    /// `**`
    Any,
}

impl Glob {
    pub fn new(text: &str) -> Glob {
        let mut tokens = Vec::new();
        for letter in text.chars() {
            match (letter, tokens.last_mut()) {
                ('*', Some(star @ Token::Within)) => *star = Token::Any,
                ('*', _) => tokens.push(Token::Within),
                ('?', _) => tokens.push(Token::One),
                _ => tokens.push(Token::Char(letter)),
            }
        }
        let end = text
            .rsplit(['*', '?'])
            .next()
            .unwrap_or_default()
            .to_owned();
        Glob { tokens, end }
    }

    /// Whether it matches the whole path or its end behind a dot.
    pub fn matches(&self, path: &str) -> bool {
        if !path.ends_with(&self.end) {
            return false;
        }
        let mut walk = Walk {
            tokens: &self.tokens,
            places: Vec::new(),
            before: Vec::new(),
            entered: vec![0; self.tokens.len() + 1],
            step: 1,
        };
        walk.enter(0);
        for letter in path.chars() {
            walk.read(letter);
        }
        walk.places.contains(&self.tokens.len())
    }
}

/// All ways to match at once: the tokens before which they stand.
struct Walk<'g> {
    tokens: &'g [Token],
    places: Vec<usize>,
    /// Those of the step before, while a step is taken.
    before: Vec<usize>,
    /// For every place the step in which it was entered last.
    entered: Vec<u32>,
    step: u32,
}

impl Walk<'_> {
    fn enter(&mut self, mut place: usize) {
        while self.entered[place] != self.step {
            self.entered[place] = self.step;
            self.places.push(place);
            // A star may stand for nothing.
            match self.tokens.get(place) {
                Some(Token::Within | Token::Any) => place += 1,
                _ => return,
            }
        }
    }

    fn read(&mut self, letter: char) {
        self.step += 1;
        std::mem::swap(&mut self.places, &mut self.before);
        while let Some(place) = self.before.pop() {
            match self.tokens.get(place) {
                Some(Token::Char(wanted)) if *wanted == letter => self.enter(place + 1),
                Some(Token::One) if letter != '.' => self.enter(place + 1),
                Some(Token::Within) if letter != '.' => self.enter(place),
                Some(Token::Any) => self.enter(place),
                _ => {}
            }
        }
        if letter == '.' {
            self.enter(0);
        }
    }
}

/// The globs that the braces stand for, from left to right; nested braces expand too. `Err` says
/// what is wrong.
pub(super) fn expand(text: &str) -> Result<Vec<String>, String> {
    sequence(text, DEEPEST)
}

fn sequence(text: &str, deepest: usize) -> Result<Vec<String>, String> {
    let mut found = vec![String::new()];
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        if rest[at..].starts_with('}') {
            return Err("`}` without `{`".to_owned());
        }
        let close = matching_brace(rest, at).ok_or("`{` is not closed")?;
        append(&mut found, &rest[..at])?;
        let branches = branches(&rest[at + 1..close], deepest)?;
        found = product(&found, &branches)?;
        rest = &rest[close + 1..];
    }
    append(&mut found, rest)?;
    Ok(found)
}

fn append(globs: &mut [String], text: &str) -> Result<(), String> {
    let bytes: usize = globs.iter().map(String::len).sum();
    check_size(globs.len(), bytes + globs.len() * text.len())?;
    globs.iter_mut().for_each(|glob| glob.push_str(text));
    Ok(())
}

/// Every head with every tail.
fn product(heads: &[String], tails: &[String]) -> Result<Vec<String>, String> {
    let bytes = |globs: &[String]| globs.iter().map(String::len).sum::<usize>();
    check_size(
        heads.len() * tails.len(),
        bytes(heads) * tails.len() + bytes(tails) * heads.len(),
    )?;
    let joined = |head: &String| {
        let head = head.clone();
        tails.iter().map(move |tail| format!("{head}{tail}"))
    };
    Ok(heads.iter().flat_map(joined).collect())
}

fn check_size(globs: usize, bytes: usize) -> Result<(), String> {
    if globs > MOST_GLOBS {
        return Err(format!(
            "the braces expand to more than {MOST_GLOBS} patterns"
        ));
    }
    if bytes > MOST_BYTES {
        return Err(format!("the braces expand to more than {MOST_BYTES} bytes"));
    }
    Ok(())
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

/// The alternatives inside one pair of braces: texts, which may have braces of their own, and ranges.
fn branches(body: &str, deepest: usize) -> Result<Vec<String>, String> {
    let deepest = deepest
        .checked_sub(1)
        .ok_or_else(|| format!("braces stand in more than {DEEPEST} others"))?;
    let mut found = Vec::new();
    for part in parts(body) {
        match part.split_once("..") {
            Some((start, end)) if !part.contains('{') => found.extend(range(part, start, end)?),
            _ => found.extend(sequence(part, deepest)?),
        }
        check_size(found.len(), 0)?;
    }
    Ok(found)
}

/// Every number from `start` to `end`, both included.
fn range(body: &str, start: &str, end: &str) -> Result<Vec<String>, String> {
    let number = |text: &str| {
        text.trim()
            .parse::<u32>()
            .map_err(|_| format!("`{{{body}}}` is no range of numbers"))
    };
    let (start, end) = (number(start)?, number(end)?);
    if end < start {
        return Err(format!("`{{{body}}}` ends before it starts"));
    }
    check_size((end - start) as usize + 1, 0)?;
    Ok((start..=end).map(|n| n.to_string()).collect())
}

/// What the commas outside of inner braces separate.
fn parts(body: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut from) = (0, 0);
    for (at, c) in body.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(body[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(body[from..].trim());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_match_as_the_regular_expressions_that_say_the_same() {
        let pieces = ["a", ".", "*", "**", "?"];
        let paths = ["", "a", "b.a", "a.b.a", "ab", "a.ab.b", ".", "a..b"];
        let words = |n: usize| (0..4).map(move |at| n / 5_usize.pow(at) % 5);
        for number in 0..5_usize.pow(4) {
            let glob: String = words(number).map(|at| pieces[at]).collect();
            let regex = glob.replace('.', r"\.").replace("**", "§");
            let regex = regex
                .replace('*', "[^.]*")
                .replace('?', "[^.]")
                .replace('§', ".*");
            let regex = regex::Regex::new(&format!(r"(?:^|\.){regex}$")).unwrap();
            let ours = Glob::new(&glob);
            for path in paths {
                assert_eq!(ours.matches(path), regex.is_match(path), "{glob} on {path}");
            }
        }
    }

    #[test]
    fn what_braces_expand_to_is_bounded() {
        let many = "{a,b}".repeat(13);
        let long = format!("{{0..4000}}{}", "x".repeat(300));
        let deep = "{".repeat(100_000) + &"}".repeat(100_000);
        for (glob, why) in [
            (many.as_str(), "more than 4096 patterns"),
            (&long, "more than 1048576 bytes"),
            (&deep, "more than 16 others"),
        ] {
            assert!(expand(glob).unwrap_err().contains(why));
        }
        assert_eq!(expand(&"{a}".repeat(10_000)).unwrap(), ["a".repeat(10_000)]);
    }
}
