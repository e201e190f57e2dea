//! A method with its hyper-parameters: parameters with shapes, and the formula of `forward`.

use super::errors;
pub use super::eval::Context;
use super::eval::{Eval, hyper_scope};
use super::formula::{Formula, Lead, TermId, TermKind, TermType};
use super::hook::{self, Training};
use super::init::Init;
use super::initialiser::start_value;
use super::interchange::{self, Foreign};
use super::outputs::Outputs;
use super::program::{HyperKind, HyperSpec, HyperValue, Method, Program};
use super::scalar::Value;
use crate::diag::{Diagnostic, Reported, Sink, Span};
use crate::syntax::ast::{self, Expr, ExprKind, MethodItem};
use crate::ty::Dim;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a method may ask about its site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteFacts {
    /// `linear`, `conv`, `embedding`, `norm` or `cache`.
    pub kind: String,
    /// Columns of the weight: channels of a group times the size of the kernel for a convolution,
    /// rows of the table for an embedding; of a cache its heads.
    pub input: Dim,
    pub output: Dim,
    /// The size of a convolution's kernel, 1 for other kinds.
    pub kernel: Dim,
    pub has_bias: bool,
    /// The largest sizes over the sites of the statement: what shared tensors must cover.
    pub largest_input: Dim,
    pub largest_output: Dim,
    /// The sums of the sizes over these sites.
    pub total_input: Dim,
    pub total_output: Dim,
    pub place: Place,
    /// What the modules of the model give; nothing where no model is known.
    pub outputs: Option<Arc<Outputs>>,
}

/// Where a site stands among those of its statement, in the order of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The last word of its path, and the path; that is nothing where no model is known.
    pub name: String,
    pub path: String,
    /// Its number, from 0, and how many sites there are.
    pub site: Dim,
    pub sites: Dim,
    /// The same among those of its name and sizes.
    pub sibling: Dim,
    pub siblings: Dim,
}

impl Place {
    fn symbolic() -> Place {
        Place {
            name: "site".to_owned(),
            path: String::new(),
            site: Dim::symbol("site"),
            sites: Dim::symbol("sites"),
            sibling: Dim::symbol("sibling"),
            siblings: Dim::symbol("siblings"),
        }
    }

    /// A site that is alone, by its path.
    pub fn alone(path: &str) -> Place {
        Place {
            name: path.rsplit('.').next().unwrap_or(path).to_owned(),
            path: path.to_owned(),
            site: 0.into(),
            sites: 1.into(),
            sibling: 0.into(),
            siblings: 1.into(),
        }
    }
}

impl SiteFacts {
    /// Symbolic sizes: what a method is checked with before any model is opened.
    pub fn symbolic(kind: &str, has_bias: bool) -> Self {
        let (input, output) = match kind {
            "norm" => ("features", "features"),
            "cache" => ("heads", "features"),
            _ => ("in", "out"),
        };
        SiteFacts {
            kind: kind.to_owned(),
            input: Dim::symbol(input),
            output: Dim::symbol(output),
            kernel: match kind {
                "conv" => Dim::symbol("kernel"),
                _ => Dim::from(1),
            },
            has_bias,
            largest_input: Dim::symbol("largest(in)"),
            largest_output: Dim::symbol("largest(out)"),
            total_input: Dim::symbol("total(in)"),
            total_output: Dim::symbol("total(out)"),
            place: Place::symbolic(),
            outputs: None,
        }
    }
}

impl SiteFacts {
    /// The type of the module's input: of an embedding a one-hot row for every id, of a convolution
    /// a patch for every position. A cache has none: its input stands for what it holds.
    pub(super) fn input_type(&self) -> TermType {
        let input = match self.kind.as_str() {
            "cache" => &self.output,
            _ => &self.input,
        };
        TermType::of(Lead::Full, [input.clone()])
    }

    /// The type of the module's weight, in torch's layout.
    pub(super) fn weight_type(&self) -> TermType {
        let dims = match self.kind.as_str() {
            "norm" => vec![self.output.clone()],
            "embedding" => vec![self.input.clone(), self.output.clone()],
            _ => vec![self.output.clone(), self.input.clone()],
        };
        TermType::of(Lead::None, dims)
    }
}

/// A method at one kind of site.
#[derive(Clone, Debug)]
pub struct Instance {
    pub params: Vec<ParamInstance>,
    /// `forward`; its parameters are indices into `params`.
    pub forward: Formula,
    /// What it does in training besides.
    pub training: Training,
    /// Whether it depends on the place of its site among the others.
    pub reads_place: bool,
    /// Its parameters in the files of other tools, by tool.
    pub foreign: BTreeMap<String, Vec<Foreign>>,
}

/// One parameter or constant of an instance.
#[derive(Clone, Debug)]
pub struct ParamInstance {
    /// With the path of inner methods: `A`, or `lora.A` for a method called inside `forward`.
    pub name: String,
    pub doc: String,
    /// Trained, or frozen and saved with the adapter.
    pub trainable: bool,
    /// One tensor for all sites of the statement, or for those with the same key.
    pub shared: bool,
    /// The values of the key, joined by points.
    pub key: Option<String>,
    /// Whether it is there depends on sizes that are not known yet.
    pub undecided: bool,
    pub dims: Vec<Dim>,
    pub init: Init,
    /// Of what is trained: what its learning rate is multiplied with.
    pub rate: f64,
    pub span: Span,
}

/// Evaluates a method with these hyper-parameters at such a site. `context` is added to errors.
pub fn instantiate(
    program: &Program,
    method: &Method,
    values: &BTreeMap<String, HyperValue>,
    facts: &SiteFacts,
    context: Option<&Context>,
    sink: &mut Sink,
) -> Result<Instance, Reported> {
    let mut eval = Eval {
        program,
        method,
        facts,
        sink,
        context,
        formula: Formula::default(),
        params: Vec::new(),
        training: Training::default(),
        scopes: vec![site_scope(facts), hyper_scope(values)],
        absent: BTreeMap::new(),
        prefix: String::new(),
        depth: 0,
        starting: false,
        hook: None,
        calls: BTreeMap::new(),
        binding: None,
        reads_place: false,
    };
    let (input_span, output_span) = input_and_output(method);
    let output = TermType::of(Lead::Full, [facts.output.clone()]);
    let input = facts.input_type();
    let x = eval.term(TermKind::Input, input, input_span)?;
    let y = eval.term(TermKind::Output, output, output_span)?;
    let result = evaluate_body(&mut eval, x, y)?;
    eval.formula.result = Some(result);
    if let Some(span) = eval.training.lost_draw(&eval.formula) {
        return Err(eval.fail(errors::lost_draw(span)));
    }
    let mut foreign = BTreeMap::new();
    for item in &method.body.body {
        if let MethodItem::Interchange(rule) = item {
            foreign.insert(
                rule.tool.node.clone(),
                interchange::tensors(&mut eval, rule)?,
            );
        }
    }
    Ok(Instance {
        params: eval.params,
        forward: eval.formula,
        training: eval.training,
        reads_place: eval.reads_place,
        foreign,
    })
}

/// Where `forward` names what it is given.
fn input_and_output(method: &Method) -> (Span, Span) {
    let forward = method.body.body.iter().find_map(|item| match item {
        MethodItem::Forward(forward) => Some(forward),
        _ => None,
    });
    match forward.map(|forward| forward.parameters.as_slice()) {
        Some([x, y, ..]) => (x.span, y.span),
        _ => (method.name.span, method.name.span),
    }
}

/// Sizes and facts of the site by name.
pub(super) fn site_scope(facts: &SiteFacts) -> BTreeMap<String, Value> {
    let mut scope = BTreeMap::from([
        ("has_bias".to_owned(), Value::Bool(Some(facts.has_bias))),
        ("kind".to_owned(), Value::String(facts.kind.clone())),
    ]);
    if facts.kind == "norm" || facts.kind == "cache" {
        scope.insert("features".to_owned(), Value::Int(facts.output.clone()));
    }
    if facts.kind == "cache" {
        scope.insert("heads".to_owned(), Value::Int(facts.input.clone()));
    } else if facts.kind != "norm" {
        scope.insert("in".to_owned(), Value::Int(facts.input.clone()));
        scope.insert("kernel".to_owned(), Value::Int(facts.kernel.clone()));
        scope.insert("out".to_owned(), Value::Int(facts.output.clone()));
    }
    scope
}

/// Evaluates the items of the method's body in order, `forward` on `x` and `y`, then its hooks.
pub(super) fn evaluate_body(eval: &mut Eval<'_>, x: TermId, y: TermId) -> Result<TermId, Reported> {
    let body = eval.method.body.clone();
    let mut forward = None;
    for item in &body.body {
        match item {
            MethodItem::Require(require) => check_requirement(eval, require)?,
            MethodItem::Let(binding) => {
                let value = eval.expr(&binding.value)?;
                if value.holds_tensor() {
                    let span = binding.value.span;
                    return Err(eval.fail(errors::let_of_tensor(span, &binding.name.node)));
                }
                eval.bind(&binding.name.node, value);
            }
            MethodItem::Param(param) => declare(eval, param)?,
            MethodItem::State(state) => hook::declare(eval, state)?,
            MethodItem::Function(_)
            | MethodItem::Hook(_)
            | MethodItem::Loss(_)
            | MethodItem::Interchange(_) => {}
            MethodItem::Forward(found) => forward = Some(found),
        }
    }
    let Some(forward) = forward else {
        let name = eval.method.name.clone();
        return Err(eval.fail(errors::no_forward(name.span, &name.node)));
    };
    let scope = forward
        .parameters
        .iter()
        .map(|name| name.node.clone())
        .zip([Value::Term(x), Value::Term(y)])
        .collect();
    if forward.parameters.len() != 2 {
        return Err(eval.fail(errors::wrong_arguments(
            forward.span,
            "forward",
            "forward(x, y) { … }",
        )));
    }
    eval.scopes.push(scope);
    let value = eval.block(&forward.body);
    eval.scopes.pop();
    let span = forward
        .body
        .value
        .as_ref()
        .map_or(forward.span, |value| value.span);
    let result = eval.as_term(value?, span)?;
    let (found, wanted) = (eval.ty(result), eval.ty(y));
    if !found.is_same(&wanted) {
        return Err(eval.fail(errors::wrong_result(span, &found, &wanted)));
    }
    hook::evaluate(eval, &body.body)?;
    Ok(result)
}

fn check_requirement(eval: &mut Eval<'_>, require: &ast::Require) -> Result<(), Reported> {
    if eval.condition(&require.condition)? != Some(false) {
        return Ok(());
    }
    let mut message = match &require.message {
        Some(message) => message.node.clone(),
        None => "a requirement of the method does not hold".to_owned(),
    };
    if let ExprKind::Binary(op, left, right) = &require.condition.kind
        && let (Some(left), Some(right)) = (shown(eval, left), shown(eval, right))
    {
        message = format!("{message}: {left} {} {right} is false", op.node.symbol());
    }
    Err(eval.fail(errors::requirement_fails(require.condition.span, &message)))
}

/// A number for a message.
fn shown(eval: &mut Eval<'_>, expr: &Expr) -> Option<String> {
    match eval.expr(expr).ok()? {
        Value::Int(dim) => dim.known().map(|value| value.to_string()),
        Value::Float(Some(value)) => Some(value.to_string()),
        _ => None,
    }
}

fn declare(eval: &mut Eval<'_>, param: &ast::Param) -> Result<(), Reported> {
    let present = match &param.when {
        Some(when) => eval.condition(when)?,
        None => Some(true),
    };
    if present == Some(false) {
        eval.absent.insert(
            param.name.node.clone(),
            "its `when` condition is false".to_owned(),
        );
        return Ok(());
    }
    let dims = eval.sizes(&param.shape)?;
    let key = match (&param.key, param.shared) {
        (None, _) => None,
        (Some(key), Some(_)) => Some(key_text(eval, key)?),
        (Some(key), None) => return Err(eval.fail(errors::key_of_one(key.span, &param.name.node))),
    };
    let ty = TermType::of(Lead::None, dims.clone());
    let init = start_value(eval, &param.init, &ty)?;
    if let (Some(_), Init::Computed(formula)) = (param.shared, &init)
        && let Some((operand, _)) = formula.everywhere().next()
    {
        let span = formula.term(operand).span;
        return Err(eval.fail(errors::joined_in_shared(span)));
    }
    let rate = match &param.rate {
        None => 1.0,
        Some(rate) if !param.trainable => {
            return Err(eval.fail(errors::rate_of_frozen(rate.span, &param.name.node)));
        }
        Some(rate) => rate_factor(eval, rate)?,
    };
    let index = eval.params.len();
    let instance = ParamInstance {
        name: format!("{}{}", eval.prefix, param.name.node),
        doc: param.doc.clone(),
        trainable: param.trainable,
        shared: param.shared.is_some(),
        key,
        undecided: present.is_none(),
        dims,
        init,
        rate,
        span: param.name.span,
    };
    if let Some(first) = eval.params.iter().find(|p| p.name == instance.name) {
        let first = first.span;
        return Err(eval.fail(errors::duplicate(
            param.name.span,
            first,
            "parameter",
            &param.name.node,
        )));
    }
    eval.params.push(instance);
    let term = eval.term(TermKind::Param(index), ty, param.name.span)?;
    eval.bind(&param.name.node, Value::Term(term));
    Ok(())
}

impl Eval<'_> {
    /// The sizes of a declared shape.
    pub(super) fn sizes(&mut self, shape: &[Expr]) -> Result<Vec<Dim>, Reported> {
        let mut dims = Vec::new();
        for size in shape {
            let dim = self.size(size)?;
            if dim.known().is_some_and(|value| value < 1) {
                return Err(self.fail(errors::not_a_size(size.span, &format!("{dim}"))));
            }
            dims.push(dim);
        }
        Ok(dims)
    }
}

/// A factor of a learning rate; 1 while it depends on sizes that are not known yet.
fn rate_factor(eval: &mut Eval<'_>, rate: &Expr) -> Result<f64, Reported> {
    let value = eval.expr(rate)?;
    match value.number() {
        Some(None) => Ok(1.0),
        Some(Some(factor)) if factor > 0.0 && factor.is_finite() => Ok(factor),
        Some(Some(factor)) => Err(eval.fail(errors::not_a_rate(rate.span, &factor.to_string()))),
        None => Err(eval.fail(errors::not_a_rate(rate.span, value.describe()))),
    }
}

/// A key as text: a string, a whole number, or a list of them.
fn key_text(eval: &mut Eval<'_>, key: &Expr) -> Result<String, Reported> {
    let items = match eval.expr(key)? {
        Value::List(items) => items,
        single => vec![single],
    };
    let mut words = Vec::new();
    for item in items {
        match item {
            Value::String(word) => words.push(word),
            number @ (Value::Int(_) | Value::Float(_)) => {
                let size = eval.as_size(&number, key.span)?;
                words.push(size.to_string());
            }
            other => {
                let wanted = "strings and whole numbers as a key";
                return Err(eval.fail(errors::wrong_type(key.span, wanted, other.describe())));
            }
        }
    }
    Ok(words.join("."))
}

/// Converts an evaluated argument to the declared type of the hyper-parameter.
pub(super) fn hyper_value(
    hyper: &HyperSpec,
    value: &Value,
    span: Span,
) -> Result<HyperValue, Diagnostic> {
    let mismatch = || errors::wrong_hyper_type(span, hyper, value.describe());
    match (&hyper.kind, value) {
        (HyperKind::Int, Value::Int(dim)) => dim.known().map(HyperValue::Int).ok_or_else(mismatch),
        (HyperKind::Ints, Value::List(items)) => {
            let all = items.iter().map(|item| match item {
                Value::Int(dim) => dim.known(),
                _ => None,
            });
            all.collect::<Option<Vec<i64>>>()
                .map(HyperValue::Ints)
                .ok_or_else(mismatch)
        }
        (HyperKind::Float, number) => match number.number() {
            Some(Some(value)) => Ok(HyperValue::Float(value)),
            _ => Err(mismatch()),
        },
        (HyperKind::Bool, Value::Bool(Some(value))) => Ok(HyperValue::Bool(*value)),
        (HyperKind::String, Value::String(value)) => Ok(HyperValue::String(value.clone())),
        (HyperKind::Choice(options), Value::String(value)) => {
            if options.contains(value) {
                Ok(HyperValue::String(value.clone()))
            } else {
                Err(errors::not_in_choice(span, hyper, value, options))
            }
        }
        _ => Err(mismatch()),
    }
}

/// The value of a hyper-parameter for a method called inside `forward`, where it may depend on a
/// size that is not known yet.
pub(super) fn hyper_argument(
    hyper: &HyperSpec,
    value: &Value,
    span: Span,
) -> Result<Value, Diagnostic> {
    match (&hyper.kind, value) {
        (HyperKind::Int, Value::Int(dim)) if dim.known().is_none() => Ok(value.clone()),
        (HyperKind::Float, number) if number.number() == Some(None) => Ok(Value::Float(None)),
        (HyperKind::Bool, Value::Bool(None)) => Ok(Value::Bool(None)),
        _ => hyper_value(hyper, value, span).map(|value| Value::from(&value)),
    }
}

/// At most this many combinations of truth values and choices are checked.
const COMBINATION_LIMIT: usize = 256;

/// Checks a method with symbolic sizes, for every combination of its truth values and choices,
/// with and without a bias. Numbers take their defaults, or 2 where there is none.
pub fn check_method(program: &Program, method: &Method, sink: &mut Sink) -> Result<(), Reported> {
    let mut used: BTreeSet<String> = BTreeSet::new();
    let mut declared: BTreeMap<String, Span> = BTreeMap::new();
    for kind in &method.kinds {
        for values in combinations(method) {
            for has_bias in [true, false] {
                let facts = SiteFacts::symbolic(&kind.node, has_bias);
                let instance = instantiate(program, method, &values, &facts, None, sink)?;
                note_usage(&instance, &mut used, &mut declared);
            }
        }
    }
    for (name, span) in declared {
        if !used.contains(&name) {
            sink.warn(errors::parameter_unused(span, &name));
        }
    }
    Ok(())
}

fn note_usage(
    instance: &Instance,
    used: &mut BTreeSet<String>,
    declared: &mut BTreeMap<String, Span>,
) {
    let reached = instance.forward.reachable();
    for (id, term) in instance.forward.terms() {
        if let TermKind::Param(index) = term.kind
            && reached[id.0 as usize]
        {
            used.insert(instance.params[index].name.clone());
        }
    }
    let training = &instance.training;
    let formulas = training.hooks.iter().map(|hook| &hook.formula);
    let formulas = formulas.chain(&training.losses);
    for (_, term) in formulas.flat_map(Formula::terms) {
        if let TermKind::Param(index) = term.kind
            && !instance.params[index].trainable
        {
            used.insert(instance.params[index].name.clone());
        }
    }
    // Of two branches of which either may be taken, one is in the formula.
    for param in instance.params.iter().filter(|param| !param.undecided) {
        declared.insert(param.name.clone(), param.span);
    }
}

fn combinations(method: &Method) -> Vec<BTreeMap<String, HyperValue>> {
    let mut all = vec![BTreeMap::new()];
    for hyper in &method.hypers {
        let options: Vec<HyperValue> = match (&hyper.kind, &hyper.default) {
            (HyperKind::Bool, _) => vec![HyperValue::Bool(false), HyperValue::Bool(true)],
            (HyperKind::Choice(options), _) => {
                options.iter().cloned().map(HyperValue::String).collect()
            }
            (_, Some(default)) => vec![default.clone()],
            (HyperKind::Int, None) => vec![HyperValue::Int(2)],
            (HyperKind::Float, None) => vec![HyperValue::Float(2.0)],
            (HyperKind::Ints, None) => vec![HyperValue::Ints(vec![0, 1])],
            (HyperKind::String, None) => vec![HyperValue::String(String::new())],
        };
        let options = if all.len() * options.len() > COMBINATION_LIMIT {
            &options[..1]
        } else {
            &options[..]
        };
        all = all
            .iter()
            .flat_map(|values: &BTreeMap<String, HyperValue>| {
                options.iter().map(move |option| {
                    let mut values = values.clone();
                    values.insert(hyper.name.node.clone(), option.clone());
                    values
                })
            })
            .collect();
    }
    all
}
