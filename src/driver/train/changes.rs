//! Keys of a configuration that the command line changes.

use super::config::Config;
use super::errors;
use crate::diag::{Reported, Sink};
use serde_yaml::Value;

/// The configuration with keys (`optimizer.learning_rate`) and values that win over its text. One change
/// comes after the other, so that the one that does not fit is named.
pub(super) fn changed(
    config: Config,
    text: &str,
    changes: &[(String, String)],
    sink: &mut Sink,
) -> Result<Config, Reported> {
    let mut config = config;
    let mut all: Value = serde_yaml::from_str(text).unwrap_or_default();
    for (key, text) in changes {
        let fits = |value: Value| {
            let mut all = all.clone();
            set(&mut all, key, value);
            let config = serde_yaml::from_value(all.clone());
            config.map(|config: Config| (all, config))
        };
        // A value is YAML. What is none, or does not fit, may still be text: a template in braces, a path,
        // or `-`, in which YAML sees the start of a list.
        let as_text = || fits(Value::String(text.clone()));
        let found = match serde_yaml::from_str::<Value>(text) {
            _ if text == "-" => as_text(),
            Ok(Value::Null) => fits(Value::Null),
            Ok(value) => fits(value).or_else(|why| as_text().map_err(|_| why)),
            Err(why) => as_text().map_err(|_| why),
        };
        (all, config) =
            found.map_err(|why| sink.emit(errors::bad_change(key, text, &why.to_string())))?;
    }
    Ok(config)
}

/// Puts a value under a key, in place of what is there.
fn set(all: &mut Value, key: &str, value: Value) {
    let mut at = all;
    for part in key.split('.') {
        if !at.is_mapping() {
            *at = Value::Mapping(serde_yaml::Mapping::new());
        }
        let mapping = at.as_mapping_mut().expect("it was just made one");
        at = mapping.entry(part.into()).or_insert(Value::Null);
    }
    *at = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "model: m.onnx\nspec: a.peft\ndata: {train: d.jsonl}\nbatch_size: 4\nsteps: 10\noutput: out\n";

    fn with(changes: &[(&str, &str)]) -> Result<Config, String> {
        let config = serde_yaml::from_str(RUN).unwrap();
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let changes: Vec<(String, String)> = changes.iter().map(owned).collect();
        let mut sink = Sink::new();
        changed(config, RUN, &changes, &mut sink).map_err(|_| sink.diagnostics()[0].message.clone())
    }

    fn train(changes: &[(&str, &str)]) -> Vec<String> {
        let config = with(changes).unwrap();
        let paths = config.data.train.paths().iter();
        paths.map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn text_is_a_value_where_text_is_expected() {
        assert_eq!(train(&[("data.train", "-")]), ["-"]);
        assert_eq!(train(&[("data.train", "\"-\"")]), ["-"]);
        assert_eq!(train(&[("data.train", "[a, \"-\"]")]), ["a", "-"]);
        // No YAML, YAML of two documents to its reader, and a mapping.
        for template in ["{{ a", "{{ a }} ->", "{{ a }}", "Q: {{ a }}"] {
            let config = with(&[("data.prompt_template", template)]).unwrap();
            assert_eq!(config.data.prompt_template.as_deref(), Some(template));
        }
        assert_eq!(with(&[("steps", "7")]).unwrap().steps.unwrap().get(), 7);
        let none = with(&[("data.eval", "a"), ("data.eval", "null")]).unwrap();
        assert!(none.data.eval.is_none());
    }

    #[test]
    fn the_change_that_does_not_fit_is_named() {
        let said = with(&[("steps", "many"), ("seed", "1"), ("epochs", "2")]).unwrap_err();
        assert!(
            said.starts_with("`--with steps=many` does not fit"),
            "{said}"
        );
        assert!(said.ends_with("expected a whole number above 0"), "{said}");
        let said = with(&[("seed", "-1")]).unwrap_err();
        assert!(
            said.ends_with("expected a whole number, 0 or above"),
            "{said}"
        );
        let said = with(&[("seed", "1"), ("data.train", "null")]).unwrap_err();
        assert!(said.contains("`--with data.train=null`"), "{said}");
        assert!(said.contains("a file or a list of files"), "{said}");
        let said = with(&[("optimizer.nme", "adam")]).unwrap_err();
        assert!(said.contains("unknown field `nme`"), "{said}");
    }
}
