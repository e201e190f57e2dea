//! Modules drawn as the tree that their paths make.
//!
//! In: paths with a text for each. Out: lines. Numbered neighbours with equal contents are drawn
//! once, as a pattern writes them (`{0..31}`); a branch with nothing but one branch below it is
//! drawn with it (`model.layers`).

use std::fmt::Write;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Branch {
    name: String,
    /// What is said of the module of this path, once for each call that differs.
    texts: Vec<String>,
    children: Vec<Branch>,
}

/// Paths are written by tools: what is deeper is drawn as one name.
const DEEPEST: usize = 64;

/// Longer labels push their text to the right instead of everybody's.
const WIDEST: usize = 100;

/// Draws the modules, in the order of their first appearance; every line starts with `margin`.
pub(super) fn draw<'p>(
    modules: impl IntoIterator<Item = (&'p str, String)>,
    margin: &str,
) -> String {
    let mut root = Branch::default();
    for (path, text) in modules {
        root.insert(path.splitn(DEEPEST, '.'), text);
    }
    root.fold();
    let mut lines = Vec::new();
    for child in &root.children {
        child.lines("", "", &mut lines);
    }
    let width = |label: &str| label.chars().count();
    let widest = lines
        .iter()
        .map(|(label, _)| width(label))
        .max()
        .unwrap_or(0)
        .min(WIDEST);
    let mut out = String::new();
    for (label, text) in lines {
        let line = format!("{margin}{label:widest$}  {text}");
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

impl Branch {
    fn insert<'s>(&mut self, mut segments: impl Iterator<Item = &'s str>, text: String) {
        let Some(name) = segments.next() else {
            if !self.texts.contains(&text) {
                self.texts.push(text);
            }
            return;
        };
        let at = self.children.iter().position(|child| child.name == name);
        let at = at.unwrap_or_else(|| {
            self.children.push(Branch {
                name: name.to_owned(),
                ..Branch::default()
            });
            self.children.len() - 1
        });
        self.children[at].insert(segments, text);
    }

    /// Joins what is drawn as one, from the leaves up.
    fn fold(&mut self) {
        for child in &mut self.children {
            child.fold();
        }
        self.fold_numbers();
        for child in &mut self.children {
            if child.texts.is_empty() && child.children.len() == 1 {
                let mut only = child.children.remove(0);
                only.name = format!("{}.{}", child.name, only.name);
                *child = only;
            }
        }
    }

    fn fold_numbers(&mut self) {
        let mut folded: Vec<(Branch, Option<(u64, u64)>)> = Vec::new();
        for child in self.children.drain(..) {
            let number: Option<u64> = child.name.parse().ok();
            if let (Some(number), Some((first, Some((_, last))))) = (number, folded.last_mut())
                && Some(number) == last.checked_add(1)
                && first.texts == child.texts
                && first.children == child.children
            {
                *last = number;
                continue;
            }
            folded.push((child, number.map(|number| (number, number))));
        }
        let renamed = folded.into_iter().map(|(mut branch, numbers)| {
            if let Some((first, last)) = numbers.filter(|(first, last)| first < last) {
                branch.name = format!("{{{first}..{last}}}");
            }
            branch
        });
        self.children = renamed.collect();
    }

    /// A label and a text for every line; `head` stands before the name, `below` before what is
    /// below it.
    fn lines<'b>(&'b self, head: &str, below: &str, lines: &mut Vec<(String, &'b str)>) {
        let label = format!("{head}{}", self.name);
        let mut texts = self.texts.iter();
        lines.push((label, texts.next().map_or("", |text| text)));
        for text in texts {
            lines.push((below.to_owned(), text));
        }
        for (index, child) in self.children.iter().enumerate() {
            let (corner, bar) = if index + 1 == self.children.len() {
                ("└─ ", "   ")
            } else {
                ("├─ ", "│  ")
            };
            child.lines(&format!("{below}{corner}"), &format!("{below}{bar}"), lines);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(modules: &[(&str, &str)], expected: &str) {
        let modules = modules
            .iter()
            .map(|(path, text)| (*path, (*text).to_owned()));
        assert_eq!(draw(modules, ""), expected);
    }

    #[test]
    fn equal_layers_are_drawn_once_under_a_pattern() {
        check(
            &[
                ("model.embed", "e"),
                ("model.layers.0.q", "q"),
                ("model.layers.0.k", "k"),
                ("model.layers.1.q", "q"),
                ("model.layers.1.k", "k"),
                ("head", "h"),
            ],
            "\
model
├─ embed          e
└─ layers.{0..1}
   ├─ q           q
   └─ k           k
head              h
",
        );
    }

    #[test]
    fn layers_that_differ_are_drawn_apart() {
        check(
            &[
                ("b.0.q", "4"),
                ("b.1.q", "8"),
                ("b.2.q", "8"),
                ("b.4.q", "8"),
            ],
            "\
b
├─ 0.q       4
├─ {1..2}.q  8
└─ 4.q       8
",
        );
    }

    #[test]
    fn an_endless_path_is_cut_and_not_followed() {
        let path = vec!["a"; 100_000].join(".");
        let drawn = draw([(path.as_str(), String::new())], "");
        assert_eq!(drawn.trim_end(), path);
    }

    #[test]
    fn calls_of_one_module_are_listed_where_they_differ() {
        check(
            &[
                ("a.b", "first"),
                ("a.b", "second"),
                ("a.b", "first"),
                ("a", "own"),
            ],
            "\
a     own
└─ b  first
      second
",
        );
    }
}
