//! Evaluates the expressions of a method: control flow and numbers away, terms out.

mod numbers;
mod tensors;

use super::builtins;
use super::errors;
use super::formula::{Binary, Formula, Lead, Statistic, TermId, TermKind, TermType, Unary};
use super::hook::{HookScope, Training};
use super::initialiser;
use super::instance::{ParamInstance, SiteFacts};
use super::program::{HyperValue, Method, Program};
use super::scalar::{NamedAxis, Value};
use crate::diag::{Diagnostic, Reported, Sink, Span};
use crate::syntax::ast::{self, BinaryOp, Expr, ExprKind, Statement, UnaryOp};
use crate::ty::Dim;
use std::collections::BTreeMap;

/// Calls of functions and methods nest at most this deep.
pub(in crate::hir) const CALL_DEPTH: usize = 64;
/// A formula has at most this many terms.
const TERM_LIMIT: usize = 10_000;

/// Where an instance was asked for: added to every error of its evaluation.
#[derive(Clone, Debug)]
pub struct Context {
    pub span: Span,
    pub text: String,
}

/// What every method sees of its layer: sizes, facts, axes and tensors.
pub const SITE_NAMES: [&str; 21] = [
    "name",
    "site",
    "sites",
    "sibling",
    "siblings",
    "in",
    "out",
    "features",
    "heads",
    "kind",
    "kernel",
    "has_bias",
    "batch",
    "tokens",
    "weight",
    "bias",
    "mask",
    "input_mean",
    "input_covariance",
    "input_gram",
    "weight_gradient",
];

/// One walk over the body of a method.
pub(in crate::hir) struct Eval<'a> {
    pub program: &'a Program,
    pub method: &'a Method,
    pub facts: &'a SiteFacts,
    pub sink: &'a mut Sink,
    pub context: Option<&'a Context>,
    pub formula: Formula,
    pub params: Vec<ParamInstance>,
    pub training: Training,
    pub scopes: Vec<BTreeMap<String, Value>>,
    /// Names that exist in the method but not here, with the reason.
    pub absent: BTreeMap<String, String>,
    /// In front of the names of parameters: the path of methods called inside `forward`.
    pub prefix: String,
    /// How often each method has been called inside `forward`, by its path.
    pub calls: BTreeMap<String, usize>,
    pub depth: usize,
    /// A start value is evaluated: it sees no parameter and no token.
    pub starting: bool,
    /// What the hook in hand has changed.
    pub hook: Option<HookScope>,
    /// The name that the statement in hand gives a value to.
    pub binding: Option<String>,
    /// Whether the place of the site has been asked for.
    pub reads_place: bool,
}

/// The scopes of an evaluation from the outside in: the site, the method, then those of functions
/// and blocks, which alone are rebound.
pub(in crate::hir) const METHOD_SCOPE: usize = 1;
const LOCAL_SCOPES: usize = METHOD_SCOPE + 1;

type Result<T> = std::result::Result<T, Reported>;

impl Eval<'_> {
    /// Reports an error together with the place that asked for this instance.
    pub fn fail(&mut self, diagnostic: Diagnostic) -> Reported {
        let diagnostic = match self.context {
            Some(context) => diagnostic.label(context.span, context.text.clone()),
            None => diagnostic,
        };
        self.sink.emit(diagnostic)
    }

    pub fn bind(&mut self, name: &str, value: Value) {
        self.scopes
            .last_mut()
            .expect("an evaluation has a scope")
            .insert(name.to_owned(), value);
    }

    /// Binds where the name already lives in the function, else in the innermost scope. A name of
    /// the method or the site is hidden to the end of the function, not changed.
    pub fn rebind(&mut self, name: &str, value: Value) {
        let outer = self.scopes.len().min(LOCAL_SCOPES);
        let (outer, local) = self.scopes.split_at_mut(outer);
        let known = local.iter_mut().rev().find_map(|scope| scope.get_mut(name));
        if let Some(slot) = known {
            *slot = value;
        } else if outer.iter().any(|scope| scope.contains_key(name))
            && let Some(function) = local.first_mut()
        {
            function.insert(name.to_owned(), value);
        } else {
            self.bind(name, value);
        }
    }

    pub fn term(&mut self, kind: TermKind, ty: TermType, span: Span) -> Result<TermId> {
        if self.formula.terms.len() >= TERM_LIMIT {
            let count = self.formula.terms.len() as i64;
            return Err(self.fail(errors::loop_too_long(span, count)));
        }
        Ok(self.formula.push(kind, ty, span))
    }

    pub fn ty(&self, id: TermId) -> TermType {
        self.formula.term(id).ty.clone()
    }

    pub fn kind_of(&self, id: TermId) -> &TermKind {
        &self.formula.term(id).kind
    }

    pub fn span_of(&self, id: TermId) -> Span {
        self.formula.term(id).span
    }

    // --- blocks ----------------------------------------------------------------------------

    /// The value of a block in a scope of its own.
    pub fn block(&mut self, block: &ast::Block) -> Result<Value> {
        self.scopes.push(BTreeMap::new());
        let value = self.block_here(block);
        self.scopes.pop();
        value
    }

    fn block_here(&mut self, block: &ast::Block) -> Result<Value> {
        self.statements(&block.statements)?;
        match &block.value {
            Some(value) => self.expr(value),
            None => Err(self.fail(errors::wrong_type(
                block.span,
                "a value at the end of the block",
                "nothing",
            ))),
        }
    }

    pub fn statements(&mut self, statements: &[Statement]) -> Result<()> {
        for statement in statements {
            match statement {
                Statement::Bind { name, value, .. } => {
                    let outer = self.binding.replace(name.node.clone());
                    let value = self.expr(value);
                    self.binding = outer;
                    if !self.changes(name, value.as_ref().ok())? {
                        self.rebind(&name.node, value?);
                    }
                }
                Statement::For {
                    variable,
                    start,
                    end,
                    body,
                    span,
                } => {
                    let (start, end) = (self.size(start)?, self.size(end)?);
                    for step in self.steps(start, end, *span)? {
                        self.scopes.push(BTreeMap::new());
                        self.bind(&variable.node, Value::Int(step));
                        let done = self.statements(body);
                        self.scopes.pop();
                        done?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The values of a loop's variable. Where a bound is not known without a model, the body is
    /// checked once.
    fn steps(&mut self, start: Dim, end: Dim, span: Span) -> Result<Vec<Dim>> {
        let (Some(from), Some(to)) = (start.known(), end.known()) else {
            return Ok(vec![start]);
        };
        if to.saturating_sub(from) > TERM_LIMIT as i64 {
            return Err(self.fail(errors::loop_too_long(span, to.saturating_sub(from))));
        }
        Ok((from..to).map(Dim::from).collect())
    }

    // --- expressions -------------------------------------------------------------------------

    pub fn expr(&mut self, expr: &Expr) -> Result<Value> {
        match &expr.kind {
            ExprKind::Int(value) => Ok(Value::Int(Dim::from(*value))),
            ExprKind::Float(value) => Ok(Value::Float(Some(*value))),
            ExprKind::Percent(value) => Ok(Value::Float(Some(*value / 100.0))),
            ExprKind::Bool(value) => Ok(Value::Bool(Some(*value))),
            ExprKind::Str(value) => Ok(Value::String(value.clone())),
            ExprKind::Name(name) => self.name(name, expr.span),
            ExprKind::Unary(op, operand) => self.unary(*op, operand, expr.span),
            ExprKind::Binary(op, left, right) => self.binary(op.node, left, right, expr.span),
            ExprKind::Call { callee, arguments } => {
                builtins::call(self, callee, arguments, expr.span)
            }
            ExprKind::Index(base, subscripts) => self.index(base, subscripts, expr.span),
            ExprKind::Field(base, field) => self.field(base, field, expr.span),
            ExprKind::List(items) => {
                let items: Result<Vec<Value>> = items.iter().map(|item| self.expr(item)).collect();
                Ok(Value::List(items?))
            }
            ExprKind::If {
                condition,
                then,
                otherwise,
            } => match self.condition(condition)? {
                Some(true) => self.block(then),
                Some(false) => self.block(otherwise),
                // Not decided without a model: both branches must be sound.
                None => {
                    let value = self.block(then)?;
                    self.block(otherwise)?;
                    Ok(value)
                }
            },
        }
    }

    fn name(&mut self, name: &str, span: Span) -> Result<Value> {
        let scopes = self.scopes.iter().enumerate().rev();
        let mut found = scopes.filter_map(|(depth, scope)| Some((depth, scope.get(name)?)));
        if let Some((depth, value)) = found.next() {
            let value = value.clone();
            if depth == METHOD_SCOPE && value.holds_tensor() {
                if self.starting {
                    return self.started(name, span);
                }
                if self.hook.is_some()
                    && let Some(value) = self.hooked(name, span)?
                {
                    return Ok(value);
                }
            }
            if depth > METHOD_SCOPE {
                self.has_read(name);
            }
            return Ok(value);
        }
        if let Some(why) = self.absent.get(name).cloned() {
            return Err(self.fail(errors::not_available(span, name, &why)));
        }
        if let Some(value) = self.hooked(name, span)? {
            return Ok(value);
        }
        if initialiser::is_initialiser(name) {
            return Err(self.fail(errors::lone_initialiser(span, name)));
        }
        match name {
            "in" | "out" if self.facts.kind == "norm" => {
                let why = "the size of a norm is `features`";
                return Err(self.fail(errors::not_available(span, name, why)));
            }
            "in" | "out" if self.facts.kind == "cache" => {
                let why = "the sizes of a cache are `heads` and `features`";
                return Err(self.fail(errors::not_available(span, name, why)));
            }
            "heads" if self.facts.kind == "linear" => {
                return Ok(Value::Int(self.heads(span)?));
            }
            "heads" => {
                let why = "only a cache, and a linear layer that reads an attention, have heads";
                return Err(self.fail(errors::not_available(span, name, why)));
            }
            "weight" | "bias" if self.facts.kind == "cache" => {
                let why = "a cache has no weight";
                return Err(self.fail(errors::not_available(span, name, why)));
            }
            "weight" | "bias" | "mask" if self.hook.is_some() => {
                return Err(self.fail(errors::in_hook(span, name)));
            }
            "mask" if self.starting => {
                return Err(self.fail(errors::in_start_value(span, name)));
            }
            "name" | "site" | "sites" | "sibling" | "siblings" => {
                self.reads_place = true;
                let place = &self.facts.place;
                return Ok(match name {
                    "name" => Value::String(place.name.clone()),
                    "site" => Value::Int(place.site.clone()),
                    "sites" => Value::Int(place.sites.clone()),
                    "sibling" => Value::Int(place.sibling.clone()),
                    _ => Value::Int(place.siblings.clone()),
                });
            }
            "batch" => return Ok(Value::Axis(NamedAxis::Batch)),
            "tokens" => return Ok(Value::Axis(NamedAxis::Tokens)),
            "features" => return Ok(Value::Axis(NamedAxis::Features)),
            "weight" | "bias" | "mask" => return self.site_tensor(name, span),
            _ => {}
        }
        if let Some(statistic) = Statistic::named(name) {
            return self.calibrated(statistic, span);
        }
        if self.binding.as_deref() == Some(name) {
            return Err(self.fail(errors::not_yet_defined(span, name)));
        }
        let scopes = self.scopes.iter().flat_map(|scope| scope.keys().cloned());
        let known: Vec<String> = scopes.chain(SITE_NAMES.map(str::to_owned)).collect();
        Err(self.fail(errors::unknown_name(
            span,
            name,
            known.iter().map(String::as_str),
        )))
    }

    /// An earlier parameter in a start value: what it starts as.
    fn started(&mut self, name: &str, span: Span) -> Result<Value> {
        let full = format!("{}{name}", self.prefix);
        let Some(index) = self.params.iter().position(|param| param.name == full) else {
            return Err(self.fail(errors::in_start_value(span, name)));
        };
        let ty = TermType::of(Lead::None, self.params[index].dims.iter().cloned());
        Ok(Value::Term(self.term(TermKind::Param(index), ty, span)?))
    }

    /// What data tells of the module, in a start value.
    fn calibrated(&mut self, statistic: Statistic, span: Span) -> Result<Value> {
        let facts = self.facts;
        let why = match (self.starting, facts.kind.as_str()) {
            (false, _) => Some("it is measured once, before training: in a start value"),
            (true, "linear") => None,
            (true, _) => Some("data is measured at linear layers alone"),
        };
        if let Some(why) = why {
            return Err(self.fail(errors::not_available(span, statistic.name(), why)));
        }
        let rows = match statistic {
            Statistic::InputMean => None,
            Statistic::WeightGradient => Some(facts.output.clone()),
            Statistic::InputCovariance | Statistic::InputGram => Some(facts.input.clone()),
        };
        let dims = rows.into_iter().chain([facts.input.clone()]);
        let ty = TermType::of(Lead::None, dims);
        let kind = TermKind::Calibrated(statistic);
        Ok(Value::Term(self.term(kind, ty, span)?))
    }

    /// How many heads the query has of the attention whose result the module reads: without a model, a
    /// symbol for them.
    pub fn heads(&mut self, span: Span) -> Result<Dim> {
        self.reads_place = true;
        let Some(outputs) = self.facts.outputs.clone() else {
            return Ok(Dim::symbol("heads"));
        };
        let path = &self.facts.place.path;
        let own = outputs.at(path).next();
        match own.map(|own| &own.heads) {
            Some(Ok(heads)) => Ok(Dim::from(*heads)),
            Some(Err(why)) => Err(self.fail(errors::no_query(span, path, why))),
            None => Err(self.fail(errors::no_query(span, path, "it has no path of its own"))),
        }
    }

    fn site_tensor(&mut self, name: &str, span: Span) -> Result<Value> {
        let facts = self.facts;
        let (kind, ty) = match name {
            "weight" => (TermKind::Weight, facts.weight_type()),
            "bias" if facts.has_bias => (
                TermKind::Bias,
                TermType::of(Lead::None, [facts.output.clone()]),
            ),
            "bias" => {
                return Err(self.fail(
                    errors::not_available(span, "bias", "the module has none")
                        .help("ask `has_bias` first: `if has_bias { … } else { … }`"),
                ));
            }
            _ => (TermKind::Mask, TermType::of(Lead::Full, [Dim::from(1)])),
        };
        Ok(Value::Term(self.term(kind, ty, span)?))
    }

    /// A truth value that decides what is compiled; `None` where it depends on unknown sizes.
    pub fn condition(&mut self, expr: &Expr) -> Result<Option<bool>> {
        match self.expr(expr)? {
            Value::Bool(value) => Ok(value),
            Value::Term(_) => {
                Err(self.fail(errors::not_known_when_compiling(expr.span, "a condition")))
            }
            other => Err(self.fail(errors::wrong_type(
                expr.span,
                "a truth value",
                other.describe(),
            ))),
        }
    }

    /// An integer for a shape, a bound or a slice.
    pub fn size(&mut self, expr: &Expr) -> Result<Dim> {
        let value = self.expr(expr)?;
        self.as_size(&value, expr.span)
    }

    pub fn as_size(&mut self, value: &Value, span: Span) -> Result<Dim> {
        match value {
            Value::Int(dim) => Ok(dim.clone()),
            Value::Float(Some(number)) if number.fract() == 0.0 && number.abs() < 1e15 => {
                Ok(Dim::from(*number as i64))
            }
            Value::Float(Some(number)) => {
                Err(self.fail(errors::not_a_size(span, &format!("{number} is no integer"))))
            }
            Value::Float(None) => {
                Err(self.fail(errors::not_a_size(span, "a number of unknown value")))
            }
            Value::Term(_) => Err(self.fail(errors::not_known_when_compiling(span, "a size"))),
            Value::Axis(_) => Err(self.fail(errors::axis_as_size(span))),
            other => Err(self.fail(errors::wrong_type(span, "a size", other.describe()))),
        }
    }

    /// The value as a term; numbers become constants.
    pub fn as_term(&mut self, value: Value, span: Span) -> Result<TermId> {
        match value {
            Value::Term(id) => Ok(id),
            ref number @ (Value::Int(_) | Value::Float(_)) => {
                let number = number.number().flatten();
                if let Some(number) = number.filter(|number| !number.is_finite()) {
                    return Err(self.fail(errors::not_finite(span, number)));
                }
                // An unknown number only occurs without a model, where no value is computed.
                let number = number.unwrap_or(f64::NAN);
                self.term(TermKind::Number(number), TermType::scalar(), span)
            }
            other => Err(self.fail(errors::wrong_type(
                span,
                "a tensor or a number",
                other.describe(),
            ))),
        }
    }

    fn unary(&mut self, op: UnaryOp, operand: &Expr, span: Span) -> Result<Value> {
        let value = self.expr(operand)?;
        match (op, value) {
            (UnaryOp::Not, Value::Bool(value)) => Ok(Value::Bool(value.map(|v| !v))),
            (UnaryOp::Not, other) => Err(self.fail(errors::wrong_type(
                operand.span,
                "a truth value",
                other.describe(),
            ))),
            (UnaryOp::Negate, Value::Int(dim)) => Ok(Value::Int(dim * Dim::from(-1))),
            (UnaryOp::Negate, Value::Float(value)) => Ok(Value::Float(value.map(|v| -v))),
            (UnaryOp::Negate, value) => {
                let id = self.as_term(value, operand.span)?;
                let ty = self.ty(id);
                Ok(Value::Term(self.term(
                    TermKind::Unary(Unary::Negate, id),
                    ty,
                    span,
                )?))
            }
        }
    }

    fn binary(&mut self, op: BinaryOp, left: &Expr, right: &Expr, span: Span) -> Result<Value> {
        if matches!(op, BinaryOp::And | BinaryOp::Or) {
            return self.logical(op, left, right);
        }
        let a = self.expr(left)?;
        let b = self.expr(right)?;
        if let (BinaryOp::Add, Value::List(a), Value::List(b)) = (op, &a, &b) {
            return Ok(Value::List(a.iter().chain(b).cloned().collect()));
        }
        if !matches!(a, Value::Term(_)) && !matches!(b, Value::Term(_)) {
            return self.number_binary(op, (a, left.span), (b, right.span));
        }
        let a = self.as_term(a, left.span)?;
        let b = self.as_term(b, right.span)?;
        let function = match op {
            BinaryOp::Add => Binary::Add,
            BinaryOp::Subtract => Binary::Subtract,
            BinaryOp::Multiply => Binary::Multiply,
            BinaryOp::Divide => Binary::Divide,
            BinaryOp::Power => Binary::Power,
            BinaryOp::MatMul => return Ok(Value::Term(self.matmul(a, b, span)?)),
            BinaryOp::Remainder => return Ok(Value::Term(self.remainder(a, b, span)?)),
            _ => return Err(self.fail(errors::not_known_when_compiling(span, "a comparison"))),
        };
        Ok(Value::Term(self.elementwise(function, a, b, span)?))
    }
}

/// The scope of hyper-parameters.
pub(in crate::hir) fn hyper_scope(
    values: &BTreeMap<String, HyperValue>,
) -> BTreeMap<String, Value> {
    values
        .iter()
        .map(|(name, value)| (name.clone(), Value::from(value)))
        .collect()
}
