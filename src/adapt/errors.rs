//! Diagnostics of this room: targets (E04).

use super::plan::{Plan, PlannedMethod, PlannedParameter};
use crate::diag::{Code, Diagnostic, Span, nearest};
use crate::hir::Compiled;
use crate::modules::{Role, Site};
use crate::ty::Dim;
use std::collections::BTreeSet;

/// How near misses are listed: the nearest paths, and how many there are.
fn near_misses(diagnostic: Diagnostic, text: &str, paths: &[&str]) -> Diagnostic {
    let distinct: std::collections::BTreeSet<String> =
        paths.iter().map(|path| number_free(path)).collect();
    let near = nearest(text, paths.iter().copied(), 3);
    let diagnostic = if near.is_empty() {
        let some: Vec<String> = distinct.iter().take(5).map(|p| format!("`{p}`")).collect();
        diagnostic.note(format!(
            "the model has {} modules, such as {}",
            paths.len(),
            some.join(", ")
        ))
    } else {
        let list: Vec<String> = near.iter().map(|p| format!("`{p}`")).collect();
        diagnostic.help(format!("the nearest modules are {}", list.join(", ")))
    };
    diagnostic.note("`peftc inspect MODEL` lists every module")
}

/// The path with its layer numbers as `*`.
pub(super) fn number_free(path: &str) -> String {
    path.split('.')
        .map(|segment| {
            if segment.parse::<u32>().is_ok() {
                "*"
            } else {
                segment
            }
        })
        .collect::<Vec<_>>()
        .join(".")
}

pub(super) fn matches_nothing(
    span: Span,
    text: &str,
    paths: &[&str],
    unnamed: usize,
) -> Diagnostic {
    let diagnostic = Diagnostic::new(Code::E0401, format!("`{text}` matches no module"))
        .label(span, "matches nothing");
    let diagnostic = match where_it_stops(text, paths) {
        Some(note) => diagnostic.note(note),
        None => diagnostic,
    };
    let diagnostic = match unnamed {
        0 => diagnostic,
        _ => diagnostic.help(format!(
            "{} no name: `--weights` takes the names from the checkpoint that the model was made from",
            match unnamed {
                1 => "a layer of the model has".to_owned(),
                _ => format!("{unnamed} layers of the model have"),
            }
        )),
    };
    near_misses(diagnostic, text, paths)
}

pub(super) fn only_the_head(span: Span, text: &str, head: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0401,
        format!("`{text}` matches no module beside the output head"),
    )
    .label(span, format!("leaves out the head `{head}`"))
    .help(format!(
        "name the head to adapt it: `adapt \"{head}\" with …`"
    ))
}

/// No layer has the role, as far as the structure of the model tells.
pub(super) fn no_such_role(span: Span, role: &str, found: &BTreeSet<Role>) -> Diagnostic {
    let diagnostic = Diagnostic::new(
        Code::E0401,
        format!("no layer of the model has the role `{role}`"),
    )
    .label(span, "matches nothing")
    .note("a role is given only to a layer whose surroundings leave no doubt")
    .note("`peftc inspect MODEL` lists every module");
    let found: Vec<String> = found.iter().map(|r| format!("`{}`", r.name())).collect();
    match found.as_slice() {
        [] => diagnostic.help("name the modules by patterns: no layer of this model has a role"),
        _ => diagnostic.help(format!(
            "the roles of this model's layers are {}",
            found.join(", ")
        )),
    }
}

/// Layers that neither patterns nor roles can mean.
pub(super) fn no_name_no_role(span: Span, node: &str, count: usize) -> Diagnostic {
    let layers = match count {
        1 => "a layer has".to_owned(),
        _ => format!("{count} layers have"),
    };
    Diagnostic::new(
        Code::W0406,
        format!("{layers} neither a name nor a role, and may be left out"),
    )
    .label(span, format!("such as the node `{node}`"))
    .help("say how many there must be (`expect sites == …`), or give the layers names (`--weights`, `--names`)")
}

pub(super) fn unnamed_sites(span: Span, kind: &str, node: &str, count: usize) -> Diagnostic {
    let layers = match count {
        1 => format!("a {kind} layer"),
        _ => format!("{count} {kind} layers"),
    };
    Diagnostic::new(
        Code::E0413,
        format!("`all {kind}` includes {layers} without a module path"),
    )
    .label(span, format!("the first one is the node `{node}`"))
    .help(
        "give the layers their paths with the checkpoint that the model was made from (`--weights`) \
         or with a name map (`--names`), or name what to adapt by patterns",
    )
    .note("`peftc inspect MODEL` lists the layers without a path")
}

/// The longest beginning of the pattern that some module has, and what follows there instead.
fn where_it_stops(text: &str, paths: &[&str]) -> Option<String> {
    let segments: Vec<&str> = text.split('.').collect();
    let parts: Vec<Vec<&str>> = paths.iter().map(|path| path.split('.').collect()).collect();
    let deepest = parts.iter().map(Vec::len).max().unwrap_or(0);
    for length in (1..segments.len()).rev().filter(|length| *length < deepest) {
        let head = segments[..length].join(".");
        let compiled = Compiled::glob(&head).ok()?;
        let behind = |parts: &Vec<&str>| {
            let starts = 0..parts.len().saturating_sub(length);
            let found = starts.filter(|start| {
                let prefix = &parts[*start..start + length];
                compiled.matches(&prefix.join("."))
            });
            let next = found.map(|start| parts[start + length].to_owned());
            next.collect::<Vec<String>>()
        };
        let mut next: Vec<String> = parts.iter().flat_map(behind).collect();
        next.sort();
        next.dedup();
        if !next.is_empty() {
            let list: Vec<String> = next.iter().take(6).map(|n| format!("`{n}`")).collect();
            return Some(format!(
                "`{head}` is there, followed by {}, not by `{}`",
                list.join(", "),
                segments[length]
            ));
        }
    }
    None
}

pub(super) fn branch_matches_nothing(
    span: Span,
    text: &str,
    branch: &str,
    matched: usize,
    paths: &[&str],
) -> Diagnostic {
    let others = match matched {
        1 => "1 module matches the other branches".to_owned(),
        _ => format!("{matched} modules match the other branches"),
    };
    let diagnostic = Diagnostic::new(
        Code::E0402,
        format!("a branch of `{text}` matches no module: `{branch}`"),
    )
    .label(span, others)
    .help("remove the branch, or correct it");
    near_misses(diagnostic, branch, paths)
}

pub(super) fn exclusion_matches_nothing(span: Span, text: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0403,
        format!("the exclusion `{text}` excludes nothing"),
    )
    .label(span, "none of the matched modules fits")
    .help("remove it, or correct it: it sees only what the statement's targets match")
}

pub(super) fn override_matches_nothing(span: Span, text: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0406,
        format!("the override `{text}` applies to nothing"),
    )
    .label(span, "none of the adapted modules fits")
    .help("remove it, or correct it: it sees only what the statement adapts")
}

pub(super) fn wrong_kind(
    span: Span,
    site: &Site,
    count: usize,
    method: &str,
    kinds: &[String],
) -> Diagnostic {
    let more = match count {
        0 | 1 => String::new(),
        2 => ", as is 1 more module".to_owned(),
        _ => format!(", as are {} more modules", count - 1),
    };
    Diagnostic::new(
        Code::E0404,
        format!(
            "`{method}` adapts {}, but `{}` is {}{more}",
            enumerated(kinds),
            site.path,
            article(site.kind.name())
        ),
    )
    .label(span, format!("matched `{}`", site.path))
    .help(format!(
        "narrow the pattern, or leave it out with `except \"{}\"`",
        number_free(&site.path)
    ))
}

/// How a message goes on that names the first of `count` modules.
fn and_more(count: usize) -> String {
    match count {
        0 | 1 => String::new(),
        2 => " and 1 more module".to_owned(),
        _ => format!(" and {} more modules", count - 1),
    }
}

/// `a, b and c`.
fn enumerated(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

fn article(kind: &str) -> String {
    if kind == "embedding" {
        format!("an {kind}")
    } else {
        format!("a {kind}")
    }
}

/// Slices of one statement that overlap.
pub(super) fn sliced_twice(span: Span, path: &str, count: usize) -> Diagnostic {
    let more = and_more(count);
    Diagnostic::new(
        Code::E0405,
        format!("some outputs of `{path}`{more} are adapted twice"),
    )
    .label(span, "two of the targets overlap")
    .help("the end of a slice is not included: `[0..64]` and `[64..128]` stand side by side")
}

/// `all cache` of a model without one.
pub(super) fn no_cache(span: Span, text: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0401,
        format!("`{text}` matches no input of the model"),
    )
    .label(span, "matches nothing")
    .note(
        "a cache is an input `[batch, heads, earlier tokens, features]`, such as \
             `past_key_values.0.key`",
    )
    .help("export the model with caches, as optimum's `text-generation-with-past` does")
}

/// Two methods that put tokens in front of the model's own.
pub(super) fn prepended_twice(span: Span, first: &str, second: &str) -> Diagnostic {
    let places = match first == second {
        true => format!("twice at `{first}`"),
        false => format!("at `{first}` and at `{second}`"),
    };
    Diagnostic::new(
        Code::E0405,
        format!("tokens are put in front of the model's own {places}"),
    )
    .label(span, "asked for here")
    .help("an adapter has one prompt: target one embedding, with one method that uses `prepend`")
}

/// Caches that would hold another number of tokens than others; each with its path and how many are put in front.
pub(super) fn prepended_apart(span: Span, first: (&str, i64), second: (&str, i64)) -> Diagnostic {
    let rows = |(path, count): (&str, i64)| match count {
        0 => format!("none in front of `{path}`"),
        count => format!("{count} in front of `{path}`"),
    };
    Diagnostic::new(
        Code::E0405,
        format!(
            "caches get different numbers of tokens: {}, {}",
            rows(first),
            rows(second)
        ),
    )
    .label(span, "asked for here")
    .help("`adapt all cache with …` means every cache of the model, with the same number of tokens")
}

pub(super) fn adapted_twice(second: Span, first: Span, path: &str, count: usize) -> Diagnostic {
    let more = and_more(count);
    let verb = if count > 1 { "are" } else { "is" };
    Diagnostic::new(
        Code::E0405,
        format!("`{path}`{more} {verb} adapted by two statements"),
    )
    .label(second, "adapted again here")
    .label(first, "first adapted here")
    .help("say the order in one statement, `with first + second`, or exclude it from one of them")
}

pub(super) fn cannot_adapt(span: Span, path: &str, count: usize, why: &str) -> Diagnostic {
    let more = and_more(count);
    let pattern = match count {
        0 | 1 => path.to_owned(),
        _ => number_free(path),
    };
    Diagnostic::new(
        Code::E0408,
        format!("`{path}`{more} cannot be adapted: {why}"),
    )
    .label(span, "asked for here")
    .help(format!(
        "leave it out with `except \"{pattern}\"`, or use another method"
    ))
}

/// A shared tensor, with the shapes that two modules ask of it.
pub(super) fn shared_shapes_differ(
    span: Span,
    parameter: &str,
    first: (&str, &[i64]),
    second: (&str, &[i64]),
) -> Diagnostic {
    Diagnostic::new(
        Code::E0302,
        format!(
            "`{parameter}` is shared, and is {:?} for `{}` but {:?} for `{}`",
            first.1, first.0, second.1, second.0
        ),
    )
    .label(span, "asked for here")
    .help("adapt modules of one size, or give it a shape that covers all of them: `largest(in)`, of which a module takes a part, `A[:, 0..in]`")
}

/// Two modules with their rates.
pub(super) fn shared_rates_differ(
    span: Span,
    parameter: &str,
    (first, second): ((&str, f64), (&str, f64)),
) -> Diagnostic {
    Diagnostic::new(
        Code::E0310,
        format!(
            "`{parameter}` is shared, and its `rate` is {} for `{}` but {} for `{}`",
            first.1, first.0, second.1, second.0
        ),
    )
    .label(span, "asked for here")
    .help(
        "make the rate of what these modules have in common, or give them statements of their own",
    )
}

/// `spans` are where the method is asked for, and what it joins.
pub(super) fn joined_shapes_differ(
    (span, joined): (Span, Span),
    first: (&str, &[Dim]),
    second: (&str, &[Dim]),
) -> Diagnostic {
    let shown = |dims: &[Dim]| {
        let dims: Vec<String> = dims.iter().map(Dim::to_string).collect();
        format!("[{}]", dims.join(", "))
    };
    let message = format!(
        "`everywhere` joins values of one shape, and this is {} for `{}` but {} for `{}`",
        shown(first.1),
        first.0,
        shown(second.1),
        second.0
    );
    Diagnostic::new(Code::E0302, message)
        .label(span, "asked for here")
        .label(joined, "joined over all modules here")
        .help("give all modules of the statement the same numbers, or adapt the others in a statement of their own")
}

pub(super) fn expectation_fails(span: Span, claim: &str, fact: &str) -> Diagnostic {
    Diagnostic::new(Code::E0409, format!("expectation fails: {claim}")).label(span, fact.to_owned())
}

pub(super) fn condition_leaves_nothing(span: Span, matched: usize) -> Diagnostic {
    Diagnostic::new(
        Code::E0451,
        format!("the condition leaves none of {matched} matched modules"),
    )
    .label(span, "false for every matched module")
    .help("`peftc inspect MODEL` shows the sizes of every module")
}

pub(super) fn no_mask(span: Span, site: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0454,
        format!("the model has no attention mask for `{site}`"),
    )
    .label(span, "reads `mask`")
    .note("the mask is the graph input `attention_mask` of shape [batch, tokens]")
    .help("choose a method that does without, or export the model with its mask")
}

pub(super) fn no_ids(span: Span, site: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0460,
        format!("the model has no ids of tokens for `{site}`"),
    )
    .label(span, "reads the ids of tokens")
    .note("the ids are the graph input `input_ids` of shape [batch, tokens]")
    .help("choose a method that does without, or export the model with its ids and not with embeddings")
}

/// What a module gives without the adapter cannot be had at a site.
pub(super) fn no_first_pass(span: Span, module: &str, site: &str, why: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0461,
        format!("there is no first pass to `{module}` for `{site}`: {why}"),
    )
    .label(span, "reads what the model gives without the adapter")
    .help("read another module in the first pass, or use a method that does without")
}

pub(super) fn bad_slice(span: Span, path: &str, count: usize, why: &str) -> Diagnostic {
    let more = and_more(count);
    Diagnostic::new(
        Code::E0455,
        format!("the slice does not fit `{path}`{more}: {why}"),
    )
    .label(span, "this slice")
}

pub(super) fn unknown_setting<'a>(
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Diagnostic {
    let known: Vec<&str> = known.into_iter().collect();
    let near = nearest(name, known.iter().copied(), 3);
    let list: Vec<String> = if near.is_empty() { &known } else { &near }
        .iter()
        .map(|k| format!("`{k}`"))
        .collect();
    Diagnostic::new(Code::E0456, format!("`--set {name}` sets nothing")).help(format!(
        "no method of the adapter has such a hyper-parameter; there is {}",
        list.join(", ")
    ))
}

pub(super) fn wrong_setting(name: &str, value: &str, wanted: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0456,
        format!("`--set {name}={value}`: `{value}` is not of type {wanted}"),
    )
    .help(format!("write `--set {name}=…` with a value of this type"))
}

pub(super) fn unreadable_weight(span: Span, path: &str, why: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0457,
        format!("the base weight of `{path}` cannot be used: {why}"),
    )
    .label(span, "the start value is computed from it")
    .help("check the model's weights, or use a method that does not read them")
}

/// A start value that does not read the base weight.
pub(super) fn start_not_computed(span: Span, name: &str, why: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0457,
        format!("the start of `{name}` cannot be computed: {why}"),
    )
    .label(span, "asked for here")
    .help(
        "look at the expression of its start value, and at the sizes and numbers that it is given",
    )
}

pub(super) fn no_calibration(span: Span) -> Diagnostic {
    let message = "start values are made from data, and there is no calibration";
    Diagnostic::new(Code::E0459, message)
        .label(span, "starts from what data tells of the module")
        .help("measure with `peftc calibrate CONFIG.yaml`, then compile with `--calibration FILE`, or train with `calibration: FILE`")
}

/// `found` is the shape that the calibration has.
pub(super) fn not_calibrated(
    span: Span,
    path: &str,
    name: &str,
    wanted: &[i64],
    found: Option<&[i64]>,
) -> Diagnostic {
    let what = match found {
        None => format!("the calibration lacks `{name}` of `{path}`"),
        Some(found) => {
            format!("`{name}` of `{path}` is {found:?} in the calibration, not {wanted:?}")
        }
    };
    Diagnostic::new(Code::E0907, what)
        .label(span, "its start value is made from it")
        .help("measure again with the spec and the model as they are now: `peftc calibrate CONFIG.yaml`")
}

/// The expression that prevents a merge, and the call that asks for the method.
pub(super) fn does_not_merge(
    method: &PlannedMethod,
    at: Span,
    path: &str,
    why: &str,
) -> Diagnostic {
    let name = &method.name;
    Diagnostic::new(
        Code::E0905,
        format!("`{name}` does not merge into the weight of `{path}`: {why}"),
    )
    .label(at, "this expression prevents it")
    .label(method.span, "asked for here")
    .help("deploy the adapted model that `peftc compile` writes, or use a method that merges")
}

pub(super) fn cannot_merge_into(span: Span, path: &str, why: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0906,
        format!("the weight of `{path}` cannot take the merged values: {why}"),
    )
    .label(span, "adapted here")
    .help("merge into the model in full precision, or deploy the adapted model that `peftc compile` writes")
}

pub(super) fn reads_padding(span: Span, method: &str) -> Diagnostic {
    Diagnostic::new(Code::W0401, format!("`{method}` reads every token of the sequence, padding included"))
        .label(span, "its output depends on padding, and on the tokens that a KV cache leaves out")
        .help("choose a masked or causal form, such as `pool = \"causal_mean\"`, or compare at equal lengths only")
}

pub(super) fn reads_other_tokens(span: Span, method: &str) -> Diagnostic {
    Diagnostic::new(
        Code::W0402,
        format!("`{method}` reads other tokens, and the model decodes with a KV cache"),
    )
    .label(
        span,
        "a cached step sees its own token only, so decoding differs from a full pass",
    )
    .help("use a method that works on each token by itself, such as `pool = \"per_token\"`, or decode without the cache")
}

pub(super) fn tied_weight(span: Span, path: &str, others: &[String]) -> Diagnostic {
    let list: Vec<String> = others.iter().map(|o| format!("`{o}`")).collect();
    Diagnostic::new(
        Code::W0403,
        format!("the weight of `{path}` is shared with {}", list.join(", ")),
    )
    .label(span, "only the module named here is adapted")
    .help("the other module keeps the base weight; merging would untie them")
}

pub(super) fn adapter_too_large(plan: &Plan, largest: &PlannedParameter, most: u64) -> Diagnostic {
    let (adapter, bytes) = (&plan.adapter, plan.bytes());
    Diagnostic::new(
        Code::E0414,
        format!("the tensors of adapter `{adapter}` take {bytes} bytes, a model file holds {most}"),
    )
    .label(
        largest.span,
        format!("such as `{}` {:?}", largest.name, largest.dims),
    )
    .help("lower the rank, or adapt fewer modules")
}
