//! Patterns of specs that peftc writes.

use crate::modules::Modules;
use std::collections::BTreeSet;

/// A pattern that matches one module alone.
pub(super) fn pattern(path: &str, modules: &Modules) -> String {
    let longer = format!(".{path}");
    match is_plain(path) && !modules.sites.iter().any(|s| s.path.ends_with(&longer)) {
        true => format!("\"{path}\""),
        false => format!("regex \"{}\"", regex::escape(path)),
    }
}

/// Patterns that match these modules alone: their last words where these say it, and paths else.
pub(super) fn patterns(paths: &[String], modules: &Modules) -> Vec<String> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let words: BTreeSet<String> = paths.iter().map(|path| last(path)).collect();
    let wanted: BTreeSet<&str> = paths.iter().map(String::as_str).collect();
    let all = modules.sites.iter().map(|site| site.path.as_str());
    let of_words: BTreeSet<&str> = all.filter(|path| words.contains(&last(path))).collect();
    // A number says nothing to who reads it.
    let is_word = |word: &String| is_plain(word) && word.contains(char::is_alphabetic);
    if of_words != wanted || !words.iter().all(is_word) {
        return paths.iter().map(|path| pattern(path, modules)).collect();
    }
    let words: Vec<String> = words.into_iter().collect();
    vec![match words.as_slice() {
        [word] => format!("\"{word}\""),
        words => format!("\"{{{}}}\"", words.join(",")),
    }]
}

fn is_plain(text: &str) -> bool {
    !text.contains(['*', '?', '{', '}', ',', '\\', '"'])
}
