//! What differs between two texts of which one is the other laid out anew.
//!
//! The lines are taken to be the same ones in the same order, except that blank ones may be gone:
//! that takes one walk over both, however much differs. A diff of other texts is true as well,
//! though larger than it could be.

use std::fmt::Write;

/// Lines around a change that are shown as they are.
const CONTEXT: usize = 3;

/// A line of a text that is another one, or none, afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangedLine<'t> {
    /// Where it starts.
    pub offset: usize,
    /// With its end.
    pub before: &'t str,
    pub after: Option<&'t str>,
}

/// A line before and after; one of them may be missing.
type Pair<'t> = (Option<&'t str>, Option<&'t str>);

/// The first line that changes.
pub fn first_change<'t>(before: &'t str, after: &'t str) -> Option<ChangedLine<'t>> {
    let mut offset = 0;
    for (old, new) in pairs(before, after) {
        if old != new {
            return Some(ChangedLine {
                offset,
                before: old.unwrap_or_default(),
                after: new,
            });
        }
        offset += old.map_or(0, str::len);
    }
    None
}

/// The changes in the form that `patch` reads; nothing for equal texts.
pub fn unified_diff(name: &str, before: &str, after: &str) -> String {
    let pairs = pairs(before, after);
    let hunks = hunks(&pairs);
    let mut out = String::new();
    if !hunks.is_empty() {
        let _ = writeln!(out, "--- {name}\n+++ {name}");
    }
    let (mut old, mut new, mut at) = (0, 0, 0);
    for hunk in hunks {
        let (skipped, rest) = pairs[at..].split_at(hunk.start - at);
        let lines = &rest[..hunk.end - hunk.start];
        let (old_start, new_start) = (old + count_old(skipped), new + count_new(skipped));
        let (old_count, new_count) = (count_old(lines), count_new(lines));
        let ranges = [range(old_start, old_count), range(new_start, new_count)];
        let _ = writeln!(out, "@@ -{} +{} @@", ranges[0], ranges[1]);
        write_lines(&mut out, lines);
        (old, new, at) = (old_start + old_count, new_start + new_count, hunk.end);
    }
    out
}

fn pairs<'t>(before: &'t str, after: &'t str) -> Vec<Pair<'t>> {
    let old: Vec<&str> = before.split_inclusive('\n').collect();
    let new: Vec<&str> = after.split_inclusive('\n').collect();
    let is_blank = |line: &str| line.trim().is_empty();
    let mut pairs: Vec<Pair<'t>> = Vec::with_capacity(old.len());
    let mut rest = new.iter().copied().peekable();
    for &line in &old {
        let gone = is_blank(line) && !rest.peek().is_some_and(|next| is_blank(next));
        pairs.push((Some(line), if gone { None } else { rest.next() }));
    }
    pairs.extend(rest.map(|line| (None, Some(line))));
    pairs
}

/// The ranges of pairs to show, apart from each other.
fn hunks(pairs: &[Pair<'_>]) -> Vec<std::ops::Range<usize>> {
    let mut hunks: Vec<std::ops::Range<usize>> = Vec::new();
    for at in (0..pairs.len()).filter(|at| pairs[*at].0 != pairs[*at].1) {
        let (start, end) = (
            at.saturating_sub(CONTEXT),
            pairs.len().min(at + 1 + CONTEXT),
        );
        match hunks.last_mut() {
            Some(last) if last.end >= start => last.end = end,
            _ => hunks.push(start..end),
        }
    }
    hunks
}

fn count_old(pairs: &[Pair<'_>]) -> usize {
    pairs.iter().filter(|pair| pair.0.is_some()).count()
}

fn count_new(pairs: &[Pair<'_>]) -> usize {
    pairs.iter().filter(|pair| pair.1.is_some()).count()
}

/// `3,2` for two lines behind the first two; a range without lines has the line before it.
fn range(before: usize, count: usize) -> String {
    format!("{},{count}", before + usize::from(count > 0))
}

fn write_lines(out: &mut String, pairs: &[Pair<'_>]) {
    for run in pairs.chunk_by(|a, b| (a.0 == a.1) == (b.0 == b.1)) {
        let same = run[0].0 == run[0].1;
        for old in run.iter().filter_map(|pair| pair.0) {
            write_line(out, if same { ' ' } else { '-' }, old);
        }
        for new in run.iter().filter_map(|pair| pair.1).filter(|_| !same) {
            write_line(out, '+', new);
        }
    }
}

fn write_line(out: &mut String, sign: char, line: &str) {
    out.push(sign);
    out.push_str(line);
    if !line.ends_with('\n') {
        out.push_str("\n\\ No newline at end of file\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies a diff as `patch` does, and checks that it fits.
    fn patched(before: &str, diff: &str) -> String {
        let old: Vec<&str> = before.split_inclusive('\n').collect();
        let (mut out, mut at) = (String::new(), 0);
        let mut lines = diff.split_inclusive('\n').skip(2).peekable();
        while let Some(line) = lines.next() {
            if let Some(ranges) = line.strip_prefix("@@ -") {
                let (start, rest) = ranges.split_once(',').unwrap();
                let (count, _) = rest.split_once(' ').unwrap();
                let start: usize = start.parse().unwrap();
                let start = start - usize::from(count != "0");
                out.extend(old[at..start].iter().copied());
                at = start;
                continue;
            }
            let (sign, mut text) = line.split_at(1);
            if lines.peek().is_some_and(|next| next.starts_with('\\')) {
                lines.next();
                text = text.strip_suffix('\n').unwrap();
            }
            if sign != "+" {
                assert_eq!(old[at], text);
                at += 1;
            }
            if sign != "-" {
                out.push_str(text);
            }
        }
        out.extend(old[at..].iter().copied());
        out
    }

    #[test]
    fn the_diff_turns_one_text_into_the_other() {
        let many: Vec<String> = (0..30).map(|line| format!("{line}\n")).collect();
        let many = many.concat();
        let ugly = many.replace("7\n", " 7 \n\n\n").replace("19\n", "19\r\n");
        for (before, after) in [
            ("", ""),
            ("a\n", "a\n"),
            ("a", "a\n"),
            ("\n\n", ""),
            ("\n\n a\n\n\nb\n \n", "a\n\nb\n"),
            ("\u{FEFF}\na\n", "a\n"),
            ("a\rb\rc", "a\nb\nc\n"),
            (&*ugly, &*many),
            ("x\ny\n", "a\nb\nc\n"),
            ("x\ny\nz\n", "a\n\n"),
        ] {
            let diff = unified_diff("s", before, after);
            assert_eq!(diff.is_empty(), before == after, "{diff}");
            assert_eq!(patched(before, &diff), after, "{diff}");
            let first = first_change(before, after);
            assert_eq!(first.is_none(), before == after);
            if let Some(first) = first {
                assert!(before[first.offset..].starts_with(first.before));
                assert!(after.starts_with(&before[..first.offset]));
            }
        }
    }

    #[test]
    fn hunks_have_their_context_and_ranges() {
        let lines = |ugly: &str| format!("1\n2\n3\n4\n{ugly}6\n7\n8\n9\n");
        let diff = unified_diff("a.peft", &lines("  5 \n\n\n"), &lines("5\n\n"));
        let expected =
            "--- a.peft\n+++ a.peft\n@@ -2,9 +2,8 @@\n 2\n 3\n 4\n-  5 \n+5\n \n-\n 6\n 7\n 8\n";
        assert_eq!(diff, expected);
    }

    #[test]
    fn a_range_without_lines_has_the_line_before_it() {
        let diff = unified_diff("s", "\n\n", "");
        assert_eq!(diff, "--- s\n+++ s\n@@ -1,2 +0,0 @@\n-\n-\n");
    }

    #[test]
    fn the_first_change_is_found() {
        let first = first_change("a\n\n\n b\n", "a\n\nb\n");
        let expected = ChangedLine {
            offset: 3,
            before: "\n",
            after: None,
        };
        assert_eq!(first, Some(expected));
    }
}
