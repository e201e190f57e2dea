//! Layers in a sequence of their own, as a configuration of PEFT lists them.

use super::config::written_ranges;
use super::{MODEL, errors};
use crate::diag::{Reported, Sink};
use crate::driver::session::Loaded;
use crate::hir::{Interchange, SettingValue};
use crate::weights::NamedTensor;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// The statement `layers` of the configuration, if it has such a setting: the list is the one whose numbers
/// the tensors have.
pub(super) fn layers(
    rule: &Interchange,
    config: &Map<String, Value>,
    tensors: &[NamedTensor],
    loaded: &Loaded,
    sink: &mut Sink,
) -> Result<Option<String>, Reported> {
    let mut settings = rule.settings.iter();
    let setting = settings.find(|setting| setting.value == SettingValue::Sequence);
    let ranges =
        setting.and_then(|s| Some((&s.key.node, written_ranges(config.get(&s.key.node)?)?)));
    let Some((key, ranges)) = ranges.filter(|(_, ranges)| !ranges.is_empty()) else {
        return Ok(None);
    };
    let named = tensors
        .iter()
        .filter_map(|tensor| tensor.name.strip_prefix(MODEL));
    let mut lists: BTreeSet<&str> = BTreeSet::new();
    for name in named {
        let numbers = name.match_indices('.').filter(|(at, _)| {
            let number = name[at + 1..].split('.').next();
            number.is_some_and(|number| number.parse::<usize>().is_ok())
        });
        // Lists within layers come behind those of layers.
        lists.extend(numbers.map(|(at, _)| &name[..at]).take(1));
    }
    let has = |list: &&str| {
        let first = format!("{list}.0.");
        let mut sites = loaded.modules.sites.iter();
        sites.any(|site| site.paths().any(|path| path.starts_with(&first)))
    };
    let known: Vec<&str> = lists.into_iter().filter(has).collect();
    match known.as_slice() {
        [list] => Ok(Some(format!(
            "  layers \"{list}\" = [{}]\n",
            ranges.join(", ")
        ))),
        _ => Err(sink.emit(errors::no_list_of_layers(key))),
    }
}
