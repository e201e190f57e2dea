//! The fenced blocks of a Markdown text.

/// A fenced block with the words behind its opening fence.
pub struct Fence {
    /// The line of the opening fence, from 1.
    pub line: usize,
    /// `peft` in `peft,fails(E0101)`.
    pub language: String,
    /// `("fails", "E0101")`; the second part is empty without parentheses.
    pub tags: Vec<(String, String)>,
    pub text: String,
}

impl Fence {
    /// The value of a tag, if it is there.
    pub fn tag(&self, name: &str) -> Option<&str> {
        let tag = self.tags.iter().find(|(tag, _)| tag == name)?;
        Some(&tag.1)
    }
}

/// All blocks fenced by three backticks, in order.
pub fn fences(markdown: &str) -> Vec<Fence> {
    let mut found = Vec::new();
    let mut open: Option<Fence> = None;
    for (at, line) in markdown.lines().enumerate() {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, Some(info)) => open = Some(opened(at + 1, info)),
            (None, None) => {}
        }
    }
    found
}

fn opened(line: usize, info: &str) -> Fence {
    let mut words = info.trim().split(',');
    let language = words.next().unwrap_or_default().to_owned();
    let tags = words.map(|word| match word.trim().split_once('(') {
        Some((tag, value)) => (tag.to_owned(), value.trim_end_matches(')').to_owned()),
        None => (word.trim().to_owned(), String::new()),
    });
    Fence {
        line,
        language,
        tags: tags.collect(),
        text: String::new(),
    }
}
