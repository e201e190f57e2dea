//! The language reference is complete: what the compiler's own tables know occurs in it, and its
//! tables hold nothing else.

use crate::documents;
use libtest_mimic::{Failed, Trial};
use peftc::diag::{Sink, SourceMap};
use peftc::hir::{self, Fact, Property};
use peftc::stdlib::LIBRARY;
use peftc::syntax::ast::{self, AdapterItem, BinaryOp, Item, Target, UnaryOp};
use peftc::syntax::{reserved_words, words_in_place};
use std::collections::BTreeSet;

const REFERENCE: &str = "grammar/README.md";

type Words = BTreeSet<String>;
/// What is held against the compiler's own table.
type Table = fn(&Reference) -> Result<(), Failed>;

/// One test for every table.
pub fn trials() -> Vec<Trial> {
    let tests: [(&str, Table); 9] = [
        ("functions", functions),
        ("start_values", start_values),
        ("words", words),
        ("grammar", grammar),
        ("operators", operators),
        ("names", names),
        ("expectations", expectations),
        ("targets", targets),
        ("library", library),
    ];
    let trials = tests.into_iter().map(|(name, test)| {
        Trial::test(format!("reference/{name}"), move || {
            let text = documents::read(REFERENCE)?;
            test(&Reference { text })
        })
    });
    trials.collect()
}

struct Reference {
    text: String,
}

impl Reference {
    /// What stands under a heading, up to the next one of its level or above.
    fn section(&self, heading: &str) -> Result<&str, Failed> {
        let start = self.text.find(&format!("\n{heading}\n"));
        let start = start.ok_or(format!("there is no heading `{heading}`"))? + heading.len() + 1;
        let rest = &self.text[start..];
        let level = heading.split(' ').next().unwrap_or_default().len();
        let ends = (1..=level).filter_map(|level| rest.find(&format!("\n{} ", "#".repeat(level))));
        Ok(&rest[..ends.min().unwrap_or(rest.len())])
    }
}

/// The pieces of code within the lines of a text.
fn spans(text: &str) -> Words {
    let lines = text.lines().filter(|line| !line.starts_with("```"));
    let pieces = lines.flat_map(|line| line.split('`').skip(1).step_by(2));
    pieces.map(|piece| piece.replace("\\|", "|")).collect()
}

/// The pieces of code in the first column of the tables of a text.
fn first_column(text: &str) -> Words {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| "));
    rows.flat_map(|row| spans(row.split(" | ").next().unwrap_or_default()))
        .collect()
}

fn owned<'a>(words: impl IntoIterator<Item = &'a str>) -> Words {
    words.into_iter().map(str::to_owned).collect()
}

fn same(found: Words, wanted: Words) -> Result<(), Failed> {
    let missing: Vec<_> = wanted.difference(&found).collect();
    let surplus: Vec<_> = found.difference(&wanted).collect();
    if missing.is_empty() && surplus.is_empty() {
        return Ok(());
    }
    let complaint =
        format!("not in the reference: {missing:#?}\nin it, but not in the language: {surplus:#?}");
    Err(complaint.into())
}

fn contains(found: &Words, wanted: Words) -> Result<(), Failed> {
    same(found.intersection(&wanted).cloned().collect(), wanted)
}

fn functions(reference: &Reference) -> Result<(), Failed> {
    let found = first_column(reference.section("## Functions")?);
    same(found, hir::functions().collect())
}

fn start_values(reference: &Reference) -> Result<(), Failed> {
    let mut found = first_column(reference.section("### Start values")?);
    found.remove("if c { … } else { … }");
    same(found, hir::initialisers().collect())
}

fn words(reference: &Reference) -> Result<(), Failed> {
    let section = reference.section("## Words")?;
    let (reserved, elsewhere) = section
        .split_once("names elsewhere")
        .ok_or("the words that are names elsewhere have no list")?;
    same(spans(reserved), owned(reserved_words()))?;
    same(spans(elsewhere), owned(words_in_place()))
}

/// The words of the grammar in short are those of the grammar.
fn grammar(reference: &Reference) -> Result<(), Failed> {
    let section = reference.section("## The grammar in short")?;
    let quoted = section.split('"').skip(1).step_by(2);
    let found = quoted.filter(|text| text.starts_with(|c: char| c.is_alphabetic()));
    same(
        owned(found),
        owned(reserved_words().chain(words_in_place())),
    )
}

fn operators(reference: &Reference) -> Result<(), Failed> {
    let found = spans(reference.section("### Operators")?);
    let binary = BinaryOp::ALL.iter().map(|op| op.symbol());
    let unary = [UnaryOp::Negate, UnaryOp::Not].map(UnaryOp::symbol);
    contains(&found, owned(binary.chain(unary)))
}

/// Names of the module, kinds of layers, types of hyper-parameters.
fn names(reference: &Reference) -> Result<(), Failed> {
    let methods = spans(reference.section("## Methods")?);
    contains(&methods, owned(hir::SITE_NAMES))?;
    contains(&methods, owned(hir::KINDS.iter().copied()))?;
    let hypers = spans(reference.section("### Hyper-parameters")?).into_iter();
    let hypers = hypers.map(|span| span.split('(').next().unwrap_or_default().to_owned());
    contains(&hypers.collect(), owned(hir::HYPER_TYPES.iter().copied()))
}

fn expectations(reference: &Reference) -> Result<(), Failed> {
    let found = first_column(reference.section("### `expect`")?);
    let facts = Fact::ALL.iter().map(|fact| fact.name());
    let properties = Property::ALL.iter().map(|property| property.name());
    same(found, owned(facts.chain(properties)))
}

/// Every example of a target is one, every kind of target has an example, every role is told.
fn targets(reference: &Reference) -> Result<(), Failed> {
    let section = reference.section("### Targets")?;
    let mut seen = Words::new();
    for example in first_column(section) {
        seen.insert(form(&example)?);
    }
    same(seen, owned(["glob", "regex", "all", "role", "slice"]))?;
    contains(&spans(section), owned(hir::ROLES.iter().copied()))
}

/// What kind of target a text is.
fn form(example: &str) -> Result<String, String> {
    let mut sources = SourceMap::new();
    let text = format!("adapter a {{ adapt {example} with m() }}\n");
    let file = sources.add("example.peft", text);
    let tree = peftc::syntax::parse(&sources, file, &mut Sink::new());
    let tree = tree.map_err(|_| format!("`{example}` is no target"))?;
    let target = match tree.items.as_slice() {
        [Item::Adapter(adapter)] => match adapter.items.as_slice() {
            [AdapterItem::Adapt(adapt)] => &adapt.targets[0],
            _ => return Err(format!("`{example}` is more than a target")),
        },
        _ => return Err(format!("`{example}` is more than a target")),
    };
    let form = match target {
        Target::Pattern(ast::Pattern { slice: Some(_), .. }) => "slice",
        Target::Pattern(ast::Pattern { regex: true, .. }) => "regex",
        Target::Pattern(_) => "glob",
        Target::All { .. } => "all",
        Target::Role { .. } => "role",
    };
    Ok(form.to_owned())
}

/// The library's methods with all of their hyper-parameters.
fn library(reference: &Reference) -> Result<(), Failed> {
    let mut wanted = Words::new();
    for file in LIBRARY {
        wanted.insert(signature(file.name)?);
    }
    same(first_column(reference.section("## The library")?), wanted)
}

fn signature(name: &str) -> Result<String, String> {
    let mut sources = SourceMap::new();
    let file = sources.add("example.peft", format!("use std::{name}\n"));
    let mut load = |_: &mut SourceMap, _, _: &ast::StringLit, _: &mut Sink| unreachable!();
    let program = hir::resolve(&mut sources, file, &mut load, &mut Sink::new())
        .map_err(|_| format!("`{name}` is not in the library"))?;
    let method = program.methods.iter().find(|m| m.name.node == name);
    let method = method.ok_or(format!("the library does not declare `{name}`"))?;
    let hypers = method.hypers.iter().map(|hyper| {
        let head = format!("{}: {}", hyper.name.node, hyper.kind.describe());
        match &hyper.default {
            Some(default) => format!("{head} = {default}"),
            None => head,
        }
    });
    let hypers: Vec<String> = hypers.collect();
    let kinds: Vec<&str> = method.kinds.iter().map(|kind| kind.node.as_str()).collect();
    Ok(format!(
        "{name}({}) on {}",
        hypers.join(", "),
        kinds.join(", ")
    ))
}
