//! Templates in Jinja's language, as Hugging Face's tokenizers write them for chats.
//!
//! In: a template's text, and a row's cells as its variables. Out: text, with the places that the
//! template marks as what a model is to say (`{% generation %}` to `{% endgeneration %}`). What
//! holds: as there, blocks are trimmed (`trim_blocks`, `lstrip_blocks`), `tojson` writes what
//! Python's `json.dumps` writes, and methods of Python's strings are known. Nothing else than the row
//! decides: there is no clock, so `strftime_now` is not defined, and templates that ask for it first
//! take the date that they hold; a render ends after a bounded number of steps.

mod python;

use super::errors;
use super::row::Fault;
use super::value::Value;
use crate::diag::{Diagnostic, Excerpt};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind};
use regex::Regex;
use std::ops::Range;

/// A template with the name that messages have for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateText {
    pub name: String,
    pub text: String,
}

/// Steps of a render. A message of a chat takes some hundreds.
const FUEL: u64 = 20_000_000;

/// A template that has been understood.
pub(super) struct Template {
    text: TemplateText,
    environment: Environment<'static>,
    /// Between the marks of what a model is to say.
    marked: Vec<Range<usize>>,
}

/// What a template makes of a row.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rendered {
    pub text: String,
    /// The bytes that come from between marks, in order, not touching each other.
    pub marked: Vec<Range<usize>>,
}

/// The only template of an environment.
const NAME: &str = "template";

impl Template {
    pub fn new(text: TemplateText) -> Result<Template, Diagnostic> {
        let (source, marked) = without_marks(&text.text);
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.expect("the standard delimiters differ"));
        environment.set_debug(true);
        environment.set_fuel(Some(FUEL));
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_formatter(python::format);
        environment.add_filter("tojson", python::to_json);
        environment.add_function("raise_exception", python::raise_exception);
        let added = environment.add_template_owned(NAME, source);
        match added {
            Ok(()) => Ok(Template {
                environment,
                marked,
                text,
            }),
            Err(error) => {
                let diagnostic = errors::template_not_read(&text.name, &words(&error));
                Err(with_excerpt(diagnostic, &text, &error))
            }
        }
    }

    pub fn name(&self) -> &str {
        &self.text.name
    }

    /// Whether it says itself what a model is to say.
    pub fn has_marks(&self) -> bool {
        !self.marked.is_empty()
    }

    /// Fills the template in.
    pub fn render(&self, variables: &[(&str, &Value)]) -> Result<Rendered, Fault> {
        let variables = variables.iter();
        let variables = variables.map(|(name, value)| (*name, python::value(value)));
        let variables = minijinja::Value::from_pairs(variables);
        let template = self.environment.get_template(NAME);
        let rendered = template.and_then(|template| template.render_with_spans(variables));
        let (text, spans) = rendered.map_err(|error| self.fault(&error))?;
        let mut marked: Vec<Range<usize>> = Vec::new();
        for span in spans {
            let source = span.source_range();
            let inside =
                |block: &&Range<usize>| block.start <= source.start && source.end <= block.end;
            if self.marked.iter().find(inside).is_none() {
                continue;
            }
            let output = span.output_range();
            match marked.last_mut() {
                Some(last) if last.end == output.start => last.end = output.end,
                _ => marked.push(output),
            }
        }
        Ok(Rendered { text, marked })
    }

    fn fault(&self, error: &minijinja::Error) -> Fault {
        // What a template itself says about a row is of the row, not of the template.
        let diagnostic = match python::raised(error) {
            Some(message) => errors::template_refuses(&self.text.name, message),
            None => {
                let diagnostic = errors::template_fails(&self.text.name, &words(error));
                with_excerpt(diagnostic, &self.text, error)
            }
        };
        Fault::new(diagnostic, "with this row")
    }
}

/// Replaces the marks by blocks of the same length that always hold; says what lies between them.
fn without_marks(text: &str) -> (String, Vec<Range<usize>>) {
    let mark = Regex::new(r"\{%[-+]?\s*(generation|endgeneration)\s*[-+]?%\}").expect("a pattern");
    let mut source = text.to_owned();
    let mut marked = Vec::new();
    let mut open = Vec::new();
    for found in mark.captures_iter(text) {
        let (whole, word) = (found.get(0), found.get(1));
        let (Some(whole), Some(word)) = (whole, word) else {
            continue;
        };
        let starts = word.as_str() == "generation";
        let block = if starts { "if true" } else { "endif" };
        source.replace_range(word.range(), &format!("{block:<0$}", word.len()));
        if starts {
            open.push(whole.end());
        } else if let Some(start) = open.pop() {
            marked.push(start..whole.start());
        }
    }
    (source, marked)
}

/// What the engine says, without the place.
fn words(error: &minijinja::Error) -> String {
    let what = match error.kind() {
        ErrorKind::OutOfFuel => return "it takes too many steps".to_owned(),
        kind => kind.to_string(),
    };
    match error.detail() {
        Some(detail) => format!("{what}: {detail}"),
        None => what,
    }
}

/// Adds the part of the template that an error is about.
fn with_excerpt(
    diagnostic: Diagnostic,
    text: &TemplateText,
    error: &minijinja::Error,
) -> Diagnostic {
    let line = error.line().map(|line| line_range(&text.text, line));
    let Some(range) = error.range().or(line) else {
        return diagnostic;
    };
    let end = text.text.len();
    let starts = |at: &usize| text.text.is_char_boundary(*at);
    let boundary = |at: usize| (at..end).find(starts).unwrap_or(end);
    diagnostic.excerpt(Excerpt {
        title: text.name.clone(),
        text: text.text.clone(),
        labels: vec![(
            boundary(range.start)..boundary(range.end),
            "here".to_owned(),
        )],
    })
}

/// The bytes of a line, from 1.
fn line_range(text: &str, line: usize) -> Range<usize> {
    let mut start = 0;
    for (number, content) in (1..).zip(text.split_inclusive('\n')) {
        if number == line {
            return start..start + content.trim_end().len();
        }
        start += content.len();
    }
    start..start
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> Template {
        let name = "chat".to_owned();
        let text = text.to_owned();
        Template::new(TemplateText { name, text }).unwrap_or_else(|error| panic!("{error:?}"))
    }

    fn json(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_lies_between_marks_is_known_in_the_output() {
        let template = template(
            "a{% for x in xs %}\n{{ x }}:{% generation %}{{ x }}!{% endgeneration %};{% endfor %}b",
        );
        let xs = json(r#"["1", "22"]"#);
        let rendered = template.render(&[("xs", &xs)]).unwrap();
        assert_eq!(rendered.text, "a1:1!;22:22!;b");
        let marked = rendered
            .marked
            .iter()
            .map(|range| &rendered.text[range.clone()]);
        assert!(marked.eq(["1!", "22!"]));
        assert!(template.has_marks());
    }

    #[test]
    fn json_is_written_as_python_does() {
        let value = json(r#"{"b": [1, 2.5, null, true, {}], "a": "<é\"\n\u0001>", "c": []}"#);
        let render = |text| template(text).render(&[("x", &value)]).unwrap().text;
        assert_eq!(
            render("{{ x | tojson }}"),
            "{\"b\": [1, 2.5, null, true, {}], \"a\": \"<é\\\"\\n\\u0001>\", \"c\": []}"
        );
        assert_eq!(
            render("{{ x.b | tojson(indent=2) }}"),
            "[\n  1,\n  2.5,\n  null,\n  true,\n  {}\n]"
        );
        assert_eq!(render("{{ x.b }}"), "[1, 2.5, None, True, {}]");
        assert_eq!(
            render("{{ x.b[3] }} {{ x.b[2] }} {{ none }}"),
            "True None None"
        );
        assert_eq!(
            render("{{ x.a | tojson(ensure_ascii=true) }}"),
            "\"<\\u00e9\\\"\\n\\u0001>\""
        );
        assert_eq!(
            render("{{ {'k': 'v\\'', 1: none} }}"),
            "{'k': \"v'\", 1: None}"
        );
    }

    #[test]
    fn a_template_that_does_not_end_is_ended() {
        let loops = "{% for i in range(9999) %}".repeat(3) + "x" + &"{% endfor %}".repeat(3);
        assert!(template(&loops).render(&[]).is_err());
    }

    #[test]
    fn a_fault_is_shown_in_the_template() {
        let text = "a\n{{ x +/ 2 }}";
        let (name, text) = ("chat".to_owned(), text.to_owned());
        let Err(diagnostic) = Template::new(TemplateText { name, text }) else {
            panic!("the template is read");
        };
        assert_eq!(diagnostic.excerpts[0].labels[0].0.start, 8);
        let text = "a\n{{ x.y.z }}";
        let x = json("{}");
        let fault = template(text).render(&[("x", &x)]).unwrap_err();
        let (diagnostic, ..) = fault.parts();
        assert!(diagnostic.excerpts[0].labels[0].0.start > 2);
    }
}
