//! The comments by which a case says what it is and what it expects.

use std::collections::BTreeMap;

/// A diagnostic that is expected: its code, and its line unless it has no place in the file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// From 1.
    pub line: Option<usize>,
    pub code: String,
}

/// What the comments of a case say.
pub struct Case {
    /// The `//# key = value` lines.
    pub options: BTreeMap<String, String>,
    pub marks: Vec<Mark>,
}

impl Case {
    /// Reads the comments. A mark is `//~ CODE …` for its own line, `//~^ CODE …` for the line
    /// above (one `^` per line), `//~? CODE …` for diagnostics without a place in the file.
    pub fn read(text: &str) -> Result<Case, String> {
        let mut case = Case {
            options: BTreeMap::new(),
            marks: Vec::new(),
        };
        for (line, content) in text.lines().enumerate().map(|(at, line)| (at + 1, line)) {
            if let Some(option) = content.strip_prefix("//#") {
                let (key, value) = option
                    .split_once('=')
                    .ok_or(format!("line {line}: expected `//# key = value`"))?;
                let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
                case.options.insert(key, value);
            } else if let Some((_, mark)) = content.split_once("//~") {
                case.read_mark(line, mark)?;
            }
        }
        case.marks.sort();
        Ok(case)
    }

    fn read_mark(&mut self, line: usize, mark: &str) -> Result<(), String> {
        let codes = mark.trim_start_matches(['^', '?']);
        let sign = &mark[..mark.len() - codes.len()];
        let line = match sign {
            "?" => None,
            above => Some(line.checked_sub(above.len()).ok_or("mark above the file")?),
        };
        let mut any = false;
        for code in codes.split_whitespace() {
            any = true;
            let code = code.to_owned();
            self.marks.push(Mark { line, code });
        }
        any.then_some(())
            .ok_or(format!("mark without a code: {mark}"))
    }
}
