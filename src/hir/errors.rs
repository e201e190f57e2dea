//! Diagnostics of this room: names (E02) and types (E03), and what targets show by themselves (E04).

use super::claim::{Fact, Property};
use super::formula::TermType;
use super::program::{HyperSpec, Method};
use crate::diag::{Code, Diagnostic, Span, Spanned, nearest};
use std::collections::BTreeSet;

fn did_you_mean<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    // A name of another length is hardly a slip.
    let alike = |name: &&str| 2 * name.len() >= wanted.len() && 2 * wanted.len() >= name.len();
    let near = nearest(wanted, known.into_iter().filter(alike), 3);
    let list: Vec<String> = near.iter().map(|name| format!("`{name}`")).collect();
    (!list.is_empty()).then(|| format!("did you mean {}?", list.join(" or ")))
}

fn with_help(diagnostic: Diagnostic, help: Option<String>) -> Diagnostic {
    match help {
        Some(text) => diagnostic.help(text),
        None => diagnostic,
    }
}

pub(super) fn unknown_name<'a>(
    span: Span,
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Diagnostic {
    let help = did_you_mean(name, known);
    with_help(
        Diagnostic::new(Code::E0201, format!("`{name}` is not defined"))
            .label(span, "not defined here"),
        help,
    )
}

/// A name inside the statement that gives it its first value.
pub(super) fn not_yet_defined(span: Span, name: &str) -> Diagnostic {
    Diagnostic::new(Code::E0201, format!("`{name}` is not defined"))
        .label(span, "gets its first value in this statement")
        .help("a line that starts with an operator, also `-`, goes on with the line before: put it in parentheses to start anew")
}

pub(super) fn duplicate(span: Span, first: Span, what: &str, name: &str) -> Diagnostic {
    Diagnostic::new(Code::E0202, format!("{what} `{name}` is declared twice"))
        .label(span, "declared again here")
        .label(first, "first declared here")
        .help("rename or remove one of them")
}

pub(super) fn unknown_hyper(span: Span, name: &str, method: &Method) -> Diagnostic {
    let known: Vec<&str> = method.hypers.iter().map(|h| h.name.node.as_str()).collect();
    let list = if known.is_empty() {
        format!("`{}` has no hyper-parameters", method.name.node)
    } else {
        format!(
            "hyper-parameters of `{}`: {}",
            method.name.node,
            method.hyper_list()
        )
    };
    Diagnostic::new(
        Code::E0203,
        format!("`{}` has no hyper-parameter `{name}`", method.name.node),
    )
    .label(
        span,
        format!("not a hyper-parameter of `{}`", method.name.node),
    )
    .help(did_you_mean(name, known).unwrap_or(list))
}

pub(super) fn missing_hyper(span: Span, hyper: &HyperSpec, method: &Method) -> Diagnostic {
    Diagnostic::new(
        Code::E0204,
        format!(
            "`{}` needs a value for `{}`",
            method.name.node, hyper.name.node
        ),
    )
    .label(span, format!("`{}` is not given", hyper.name.node))
    .label(hyper.name.span, "declared without a default here")
    .help(format!(
        "write `{}({} = …)`",
        method.name.node, hyper.name.node
    ))
}

pub(super) fn unknown_library(span: Span, name: &str) -> Diagnostic {
    Diagnostic::new(Code::E0205, format!("there is no library `{name}`"))
        .label(span, "not a library")
        .help("the standard library is `std`; import a file with `use \"./file.peft\"::{name}`")
}

pub(super) fn not_in_library<'a>(
    span: Span,
    name: &str,
    source: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Diagnostic {
    let known: Vec<&str> = known.into_iter().collect();
    let list = format!(
        "`{source}` has {}",
        known
            .iter()
            .map(|k| format!("`{k}`"))
            .collect::<Vec<_>>()
            .join(", ")
    );
    Diagnostic::new(Code::E0206, format!("`{source}` has no method `{name}`"))
        .label(span, "not found there")
        .help(did_you_mean(name, known).unwrap_or(list))
}

/// `circle` are the files from the first to itself.
pub(super) fn import_cycle(span: Span, circle: &[&str]) -> Diagnostic {
    let names: Vec<String> = circle.iter().map(|name| format!("`{name}`")).collect();
    Diagnostic::new(
        Code::E0207,
        format!("files import each other in a circle: {}", names.join(" → ")),
    )
    .label(span, "this import closes the circle")
    .help("move what these files need of each other into one that imports none of them")
}

pub(super) fn unknown_kind(span: Span, kind: &str) -> Diagnostic {
    with_help(
        Diagnostic::new(Code::E0208, format!("there is no layer kind `{kind}`"))
            .label(span, "not a layer kind"),
        Some("layer kinds are `linear`, `conv`, `embedding`, `norm` and `cache`".to_owned()),
    )
}

pub(super) fn unknown_role(span: Span, role: &str) -> Diagnostic {
    let words: Vec<String> = super::targets::ROLES
        .iter()
        .map(|role| format!("`{role}`"))
        .collect();
    let help = match nearest(role, super::targets::ROLES.iter().copied(), 1).first() {
        Some(near) => format!("did you mean `{near}`? Roles are {}", words.join(", ")),
        None => format!("roles are {}", words.join(", ")),
    };
    Diagnostic::new(Code::E0211, format!("there is no role `{role}`"))
        .label(span, "not a role")
        .help(help)
}

/// No module of the model is called so.
pub(super) fn no_such_module<'a>(
    span: Span,
    name: &str,
    known: impl Iterator<Item = &'a str>,
) -> Diagnostic {
    let known: Vec<&str> = known.collect();
    let near = nearest(name, known.iter().copied(), 3);
    let list: Vec<String> = near.iter().map(|path| format!("`{path}`")).collect();
    let help = (!list.is_empty()).then(|| format!("the nearest modules are {}", list.join(", ")));
    let diagnostic = Diagnostic::new(Code::E0401, format!("`{name}` is no module of the model"))
        .label(span, "names no module");
    with_help(diagnostic, help).note("`peftc inspect MODEL` lists every module")
}

/// A module does not read what an attention gives.
pub(super) fn no_query(span: Span, path: &str, why: &str) -> Diagnostic {
    Diagnostic::new(Code::E0462, format!("`{path}` reads no attention: {why}"))
        .label(span, "asks for the query of the attention in front of the module")
        .help("adapt the layer that reads what an attention gives, such as `o_proj`, in an export that has the attention as operators")
}

/// A module that cannot be applied to another input.
pub(super) fn not_applied(span: Span, path: &str, why: &str) -> Diagnostic {
    Diagnostic::new(Code::E0463, format!("`{path}` cannot be applied: {why}"))
        .label(span, "names this module")
        .help("name a linear layer; `peftc inspect MODEL` lists every module with its kind")
}

/// Several calls of modules are called so.
pub(super) fn several_modules(code: Code, span: Span, name: &str, paths: &[&str]) -> Diagnostic {
    let distinct: BTreeSet<&str> = paths.iter().copied().collect();
    let (message, help) = match distinct.len() {
        1 => (
            format!("the model calls `{}` {} times", paths[0], paths.len()),
            "name a module that is called once".to_owned(),
        ),
        count => {
            let some: Vec<String> = distinct.iter().take(3).map(|p| format!("`{p}`")).collect();
            (
                format!("`{name}` is the end of the paths of {count} modules"),
                match code {
                    Code::E0463 => format!(
                        "write more of the path, such as {}, or `.{name}` for the one beside the module",
                        some.join(", ")
                    ),
                    _ => format!("write more of the path, such as {}", some.join(", ")),
                },
            )
        }
    };
    Diagnostic::new(code, message)
        .label(span, "means no single module")
        .help(help)
}

pub(super) fn bad_pattern(span: Span, why: &str) -> Diagnostic {
    Diagnostic::new(Code::E0407, format!("the pattern cannot be read: {why}"))
        .label(span, "this pattern")
}

pub(super) fn nothing_to_do(adapter: &str, span: Span) -> Diagnostic {
    Diagnostic::new(
        Code::E0458,
        format!("adapter `{adapter}` adapts and trains nothing"),
    )
    .label(span, "no `adapt` and no `train` in here")
    .help("add `adapt \"pattern\" with method(…)`")
}

/// A range of layers with nothing in it.
pub(super) fn no_layers_in_range(span: Span, start: i64, end: i64) -> Diagnostic {
    let diagnostic = Diagnostic::new(
        Code::E0416,
        format!("the range runs from layer {start} to before layer {end}: it has no layer"),
    )
    .label(span, "empty");
    match start > end {
        true => diagnostic.help(format!(
            "layers stand in the order of the list: `{end}..{start}` runs upwards"
        )),
        false => diagnostic.help(format!(
            "the end is not part of a range: `{start}` or `{start}..{}` is layer {start} alone",
            start.saturating_add(1)
        )),
    }
}

/// What `expect` is followed by; `found` says what stands there.
pub(super) fn not_a_claim(span: Span, found: &str) -> Diagnostic {
    let facts = enumerated(Fact::ALL.iter().map(|fact| fact.name()), "and");
    let properties = enumerated(Property::ALL.iter().map(|property| property.name()), "or");
    Diagnostic::new(Code::E0301, format!("expected a comparison, found {found}"))
        .label(span, "not a comparison")
        .help(format!(
            "compare one of the facts {facts} with a number, as in `sites == 24`"
        ))
        .help(format!("or expect a property: {properties}"))
}

pub(super) fn unknown_fact(span: Span, name: &str, known: &[&str]) -> Diagnostic {
    let list = format!("there are {}", enumerated(known.iter().copied(), "and"));
    let help = did_you_mean(name, known.iter().copied()).unwrap_or(list);
    Diagnostic::new(Code::E0201, format!("`{name}` is not defined"))
        .label(span, "not a fact of an adapter")
        .help(help)
}

/// `` `a`, `b` and `c` ``.
fn enumerated<'a>(words: impl Iterator<Item = &'a str>, last: &str) -> String {
    let words: Vec<String> = words.map(|word| format!("`{word}`")).collect();
    match words.split_last() {
        Some((end, [])) => end.clone(),
        Some((end, first)) => format!("{} {last} {end}", first.join(", ")),
        None => String::new(),
    }
}

pub(super) fn no_forward(span: Span, name: &str) -> Diagnostic {
    Diagnostic::new(Code::E0209, format!("method `{name}` has no `forward`"))
        .label(span, "a method says what the adapted output is")
        .help("add `forward(x, y) { … }`")
}

pub(super) fn recursion(span: Span, name: &str) -> Diagnostic {
    Diagnostic::new(Code::E0210, format!("`{name}` calls itself without end"))
        .label(span, "the call nests too deep")
        .help("functions and methods are expanded when compiling: use a `for` loop")
}

pub(super) fn wrong_type(span: Span, wanted: &str, found: &str) -> Diagnostic {
    Diagnostic::new(Code::E0301, format!("expected {wanted}, found {found}"))
        .label(span, format!("this is {found}"))
}

pub(super) fn too_many_subscripts(span: Span, count: usize, ty: &TermType) -> Diagnostic {
    let axes = ty.dims.len();
    Diagnostic::new(
        Code::E0301,
        format!("{count} subscripts for a value with {axes} axes of known size"),
    )
    .label(span, format!("the value is {ty}"))
    .help("the leading axes `…` and `tokens` are not subscripted; leave them out")
}

pub(super) fn wrong_hyper_type(span: Span, hyper: &HyperSpec, found: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0301,
        format!(
            "`{}` is of type {}, the value is {found}",
            hyper.name.node,
            hyper.kind.describe()
        ),
    )
    .label(span, format!("expected {}", hyper.kind.describe()))
    .label(hyper.name.span, "declared here")
}

/// `in` and `out` are sizes, `features` and `tokens` axes.
pub(super) fn axis_as_size(span: Span) -> Diagnostic {
    wrong_type(span, "a size", "an axis")
        .help("sizes are `in` and `out`; at a norm `features` is one, too")
}

pub(super) fn not_finite(span: Span, value: f64) -> Diagnostic {
    let value = if value.is_nan() {
        "no number"
    } else {
        "infinite"
    };
    Diagnostic::new(
        Code::E0301,
        format!("the value of this expression is {value}"),
    )
    .label(span, "computed when compiling")
    .help("`require` what it needs, such as `rank >= 1` for a division by `rank`")
}

pub(super) fn not_in_choice(
    span: Span,
    hyper: &HyperSpec,
    value: &str,
    options: &[String],
) -> Diagnostic {
    let list: Vec<String> = options.iter().map(|o| format!("\"{o}\"")).collect();
    Diagnostic::new(
        Code::E0309,
        format!("`{}` cannot be \"{value}\"", hyper.name.node),
    )
    .label(span, "not one of the choices")
    .help(
        did_you_mean(value, options.iter().map(String::as_str))
            .unwrap_or(format!("choose one of {}", list.join(", "))),
    )
}

pub(super) fn shapes_do_not_fit(
    span: Span,
    operation: &str,
    left: (Span, &TermType),
    right: (Span, &TermType),
) -> Diagnostic {
    Diagnostic::new(
        Code::E0302,
        format!("{operation}: {} does not fit {}", left.1, right.1),
    )
    .label(span, "these shapes do not fit")
    .label(left.0, format!("{}", left.1))
    .label(right.0, format!("{}", right.1))
}

pub(super) fn wrong_result(span: Span, found: &TermType, wanted: &TermType) -> Diagnostic {
    Diagnostic::new(
        Code::E0303,
        format!("`forward` gives {found}, the module's output is {wanted}"),
    )
    .label(span, format!("this is {found}"))
    .help("the result of `forward` replaces the output of the module, so it has its shape")
}

pub(super) fn not_a_size(span: Span, why: &str) -> Diagnostic {
    Diagnostic::new(Code::E0304, format!("not a size: {why}"))
        .label(span, "sizes are integers of at least 1")
        .help("say what it needs: `require rank % 2 == 0`, `require rank >= 1`")
}

/// What no sequence of tokens has in it.
pub(super) fn not_an_id(span: Span, found: &str) -> Diagnostic {
    Diagnostic::new(Code::E0304, format!("no sequence of token ids: {found}"))
        .label(span, "ids are integers of at least 0, one or more of them")
        .help("give the ids that the tokenizer makes of the text: `invocation = [128006, 78191]`")
}

/// A slice or a position that its axis or list does not have.
pub(super) fn outside(span: Span, wanted: &str, of: &str) -> Diagnostic {
    Diagnostic::new(Code::E0304, format!("{wanted} lies outside {of}"))
        .label(span, "outside")
        .help("positions count from 0, and the end of a slice is not included")
}

/// A key without `shared`.
pub(super) fn key_of_one(span: Span, name: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0310,
        format!("`{name}` is not shared, so `by` has nothing to tell apart"),
    )
    .label(span, "a key of shared tensors")
    .help("write `shared` in front of it, or leave `by` out")
}

/// A learning rate of a tensor that is not trained.
pub(super) fn rate_of_frozen(span: Span, name: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0310,
        format!("`{name}` is a `const`, so it has no learning rate"),
    )
    .label(span, "a factor of the learning rate")
    .help("leave `rate` out, or train it: `param`")
}

pub(super) fn not_a_rate(span: Span, found: &str) -> Diagnostic {
    wrong_type(span, "a factor above 0", found)
        .help("the learning rate is multiplied with it; a tensor that is not trained is a `const`")
}

pub(super) fn requirement_fails(span: Span, message: &str) -> Diagnostic {
    Diagnostic::new(Code::E0305, message).label(span, "this requirement does not hold")
}

pub(super) fn wrong_arguments(span: Span, name: &str, signature: &str) -> Diagnostic {
    Diagnostic::new(Code::E0306, format!("wrong arguments for `{name}`"))
        .label(span, "this call")
        .help(format!("it is called as `{signature}`"))
}

pub(super) fn not_known_when_compiling(span: Span, what: &str) -> Diagnostic {
    not_known_when_compiling_as(span, what)
        .help("conditions and loop bounds are made of hyper-parameters and sizes")
}

/// `let` is computed once, for start values and `forward` alike.
pub(super) fn let_of_tensor(span: Span, name: &str) -> Diagnostic {
    not_known_when_compiling_as(span, &format!("`let {name}`")).help(format!(
        "compute it where it is used, or give it a name with `fn {name}() {{ … }}`"
    ))
}

fn not_known_when_compiling_as(span: Span, what: &str) -> Diagnostic {
    Diagnostic::new(Code::E0307, format!("{what} must be known when compiling"))
        .label(span, "this depends on a tensor")
}

pub(super) fn loop_too_long(span: Span, count: i64) -> Diagnostic {
    Diagnostic::new(
        Code::E0308,
        format!("the formula grows too large: {count} steps"),
    )
    .label(span, "unrolled when compiling")
    .help("loops are unrolled: keep a formula under 10000 terms, or use a reshape and one product")
}

pub(super) fn not_available(span: Span, name: &str, why: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0310,
        format!("`{name}` is not available here: {why}"),
    )
    .label(span, "used here")
}

pub(super) fn in_start_value(span: Span, name: &str) -> Diagnostic {
    not_available(
        span,
        name,
        "a start value sees the base weight and bias only",
    )
}

pub(super) fn in_hook(span: Span, name: &str) -> Diagnostic {
    let why = "a hook sees the method's own tensors, and nothing of the module";
    not_available(span, name, why)
        .help("keep what it needs as a tensor of the method: `const W : [out, in] = weight`")
}

pub(super) fn drawn_in_a_loss(span: Span) -> Diagnostic {
    let why = "a loss reads what `forward` has drawn, and draws nothing itself";
    not_available(span, "noise", why)
        .help("put it into a function that `forward` calls, too: `fn drawn() { noise([4]) }`")
}

pub(super) fn lost_draw(span: Span) -> Diagnostic {
    let why = "`loss` reads what is drawn here, and the result of `forward` does not depend on it";
    not_available(span, "noise", why).help("use it in the result, or draw nothing")
}

/// Of what is joined in a start value.
pub(super) fn joined_too_early(span: Span) -> Diagnostic {
    let why = "start values of all modules are joined before there are any: of the weight, and of what data tells";
    not_available(span, "everywhere", why)
        .help("keep parameters, random numbers and a second `everywhere` outside of it")
}

pub(super) fn joined_in_shared(span: Span) -> Diagnostic {
    let why = "a tensor that modules share starts as the first of them says";
    not_available(span, "everywhere", why).help("give every module a tensor of its own")
}

/// Of what is there in hooks alone.
pub(super) fn outside_of_hooks(span: Span, name: &str) -> Diagnostic {
    let why = "it is there in training alone, inside `on gradient { … }` or `on step { … }`";
    not_available(span, name, why)
}

pub(super) fn state_in_gradient(span: Span, name: &str) -> Diagnostic {
    let why = "a state has its new value behind the update";
    not_available(span, name, why).help("give it the value in `on step { … }`")
}

pub(super) fn state_starts_as_zeros(span: Span, name: &str) -> Diagnostic {
    Diagnostic::new(Code::E0301, format!("the state `{name}` starts as something else than zeros"))
        .label(span, "no other start")
        .help("write `zeros`, and let `on step` say what it is behind the first update: `step` is 1 there")
}

pub(super) fn state_never_changes(span: Span, name: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0312,
        format!("the state `{name}` stays zero: no hook changes it"),
    )
    .label(span, "declared here")
    .help(format!(
        "give it a value behind every update: `on step {{ {name} = … }}`"
    ))
}

pub(super) fn loss_is_no_number(span: Span, found: &TermType) -> Diagnostic {
    Diagnostic::new(
        Code::E0301,
        format!("`loss` gives {found}, and a loss is one number"),
    )
    .label(span, format!("this is {found}"))
    .help("reduce it to a number: `sum(v, over = 0)`, `norm(v, over = 0)`")
}

/// A name in a hook that is no parameter's and that nothing reads.
pub(super) fn changes_nothing(span: Span, name: &str, event: &str, known: &[String]) -> Diagnostic {
    let message = format!(
        "`{name}` in `{event}` changes nothing: it is no tensor of the method, and not read"
    );
    let diagnostic = Diagnostic::new(Code::E0201, message).label(span, "gets a value here");
    match known {
        [] => diagnostic.help("a hook changes tensors of its method, which has none"),
        known => diagnostic.help(format!("the hook changes some of {}", known.join(", "))),
    }
}

pub(super) fn hook_on_frozen(span: Span, name: &str, declared: Span) -> Diagnostic {
    let message = format!("`{name}` is frozen: it has no gradient, and no hook changes it");
    Diagnostic::new(Code::E0311, message)
        .label(span, "not trained")
        .label(declared, "declared as `const` here")
        .help("declare it as `param` if it is to be trained")
}

pub(super) fn hook_on_shared(span: Span, name: &str, declared: Span) -> Diagnostic {
    let message =
        format!("`{name}` is shared by several modules: no hook of one of them changes it");
    Diagnostic::new(Code::E0311, message)
        .label(span, "changed for all modules")
        .label(declared, "declared as `shared` here")
        .help("give every module a tensor of its own: declare it without `shared`")
}

pub(super) fn hook_of_another_shape(
    (span, found): (Span, &TermType),
    name: &str,
    (declared, wanted): (Span, &TermType),
) -> Diagnostic {
    let message = format!("`{name}` is {wanted}, and the hook gives it {found}");
    Diagnostic::new(Code::E0302, message)
        .label(span, format!("this is {found}"))
        .label(declared, format!("declared as {wanted} here"))
        .help("what a hook gives has the shape of what it changes")
}

/// The name of a start value inside an expression.
pub(super) fn lone_initialiser(span: Span, name: &str) -> Diagnostic {
    not_available(span, name, "it is a whole start value")
        .help("a parameter starts as one of these, or as an expression, such as `0.5 * weight`, in which random numbers say their shape: `normal(std = 0.01, shape = [out, in])`")
}

/// A method called at a layer that it is not for.
pub(super) fn called_at_another_kind(span: Span, method: &Method, kind: &str) -> Diagnostic {
    let kinds: Vec<String> = method
        .kinds
        .iter()
        .map(|known| format!("`{}`", known.node))
        .collect();
    let name = &method.name.node;
    Diagnostic::new(Code::E0404, format!("`{name}` does not adapt `{kind}`"))
        .label(span, format!("`{name}` is for {}", kinds.join(", ")))
        .help(format!(
            "take `{kind}` out of this method's `on`, or do without `{name}`"
        ))
}

pub(super) fn parameter_unused(span: Span, name: &str) -> Diagnostic {
    Diagnostic::new(
        Code::W0301,
        format!("parameter `{name}` does not reach the result of `forward`"),
    )
    .label(span, "declared here")
    .help("remove it, or use it in `forward`: it could never be trained")
}

/// A word in a rule `interchange` that stands for nothing.
pub(super) fn interchange_word<'a>(
    word: &Spanned<String>,
    what: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Diagnostic {
    let known: Vec<&str> = known.into_iter().collect();
    let list: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
    let help = did_you_mean(&word.node, known).or_else(|| match list.as_slice() {
        [] => None,
        list => Some(format!("there is {}", list.join(", "))),
    });
    let diagnostic = Diagnostic::new(Code::E0313, format!("`{}` is not {what}", word.node));
    with_help(diagnostic.label(word.span, format!("not {what}")), help)
}

pub(super) fn interchange_condition(span: Span) -> Diagnostic {
    Diagnostic::new(
        Code::E0313,
        "a setting of another tool hangs on what hyper-parameters are",
    )
    .label(
        span,
        "no comparison of a hyper-parameter with a value of its own",
    )
    .help("write `flag`, `not flag`, `hyper == value` or `hyper != value`, with `and` between several: it is read and written")
}

pub(super) fn interchange_modules(span: Span) -> Diagnostic {
    Diagnostic::new(Code::E0313, "a list of modules has a condition")
        .label(span, "which modules it lists is not said")
        .help("write `key = modules when flag` or `key = modules when hyper == value`")
}

pub(super) fn interchange_value(span: Span) -> Diagnostic {
    Diagnostic::new(Code::E0313, "a setting of another tool cannot be computed")
        .label(span, "neither a hyper-parameter nor a value")
        .help("write a hyper-parameter, a value, several with `or` between them, or `any`: it is read and written")
}

pub(super) fn interchange_exceptions(span: Span) -> Diagnostic {
    Diagnostic::new(
        Code::E0313,
        "only a hyper-parameter differs from module to module",
    )
    .label(span, "exceptions of a value that has none")
    .help("take `by` out")
}

pub(super) fn interchange_twice(span: Span, name: &str) -> Diagnostic {
    Diagnostic::new(Code::E0313, format!("two parameters are `{name}` at once"))
        .label(span, "another one has this name already")
        .help("give each its condition: `when …`")
}
