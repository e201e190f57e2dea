//! Output formats and where they go.

use std::path::PathBuf;

/// A format of diagnostics and payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Format {
    #[default]
    Human,
    Json,
    Sarif,
    Github,
    Junit,
}

impl Format {
    const ALL: &[(&str, Format)] = &[
        ("human", Format::Human),
        ("json", Format::Json),
        ("sarif", Format::Sarif),
        ("github", Format::Github),
        ("junit", Format::Junit),
    ];
}

/// A format with its target: a file, or the terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    pub format: Format,
    pub file: Option<PathBuf>,
}

/// Reads `json` or `sarif=out.sarif`.
pub(super) fn parse_report(text: &str) -> Result<Report, String> {
    let (name, file) = match text.split_once('=') {
        Some((_, "")) => return Err("a file name is missing behind `=`".to_owned()),
        Some((name, file)) => (name, Some(PathBuf::from(file))),
        None => (text, None),
    };
    let found = Format::ALL.iter().find(|(known, _)| *known == name);
    let Some((_, format)) = found else {
        let known: Vec<&str> = Format::ALL.iter().map(|(known, _)| *known).collect();
        return Err(format!("formats are {}", known.join(", ")));
    };
    Ok(Report {
        format: *format,
        file,
    })
}

/// Whether arguments that could not be parsed ask for JSON on stdout.
pub(super) fn asks_for_json(arguments: &[std::ffi::OsString]) -> bool {
    let texts: Vec<&str> = arguments
        .iter()
        .map(|argument| argument.to_str().unwrap_or_default())
        .take_while(|argument| *argument != "--")
        .collect();
    let has_json = |list: &str| list.split(',').any(|item| item == "json");
    texts
        .iter()
        .enumerate()
        .any(|(at, text)| match text.strip_prefix("--format") {
            Some("") => texts.get(at + 1).is_some_and(|list| has_json(list)),
            Some(rest) => rest.strip_prefix('=').is_some_and(has_json),
            None => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_read_with_their_files() {
        assert_eq!(parse_report("json").unwrap().format, Format::Json);
        let sarif = parse_report("sarif=a=b.sarif").unwrap();
        assert_eq!(sarif.file, Some(PathBuf::from("a=b.sarif")));
        assert!(parse_report("sarif=").is_err());
        assert!(parse_report("yaml").unwrap_err().contains("junit"));
    }

    #[test]
    fn json_is_recognised_in_arguments_that_do_not_parse() {
        let asks = |line: &str| {
            let arguments: Vec<_> = line.split(' ').map(Into::into).collect();
            asks_for_json(&arguments)
        };
        assert!(asks("peftc chek --format json"));
        assert!(asks("peftc --format=github,json check"));
        assert!(!asks("peftc --format human json"));
        assert!(!asks("peftc run -- --format json"));
    }
}
