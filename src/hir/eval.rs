//! Evaluates the expressions of a method: control flow and numbers away, terms out.

use super::builtins;
use super::errors;
use super::formula::{Binary, Formula, Lead, Reduce, TermId, TermKind, TermType, Unary};
use super::instance::{ParamInstance, SiteFacts};
use super::program::{HyperValue, Method, Program};
use super::scalar::{NamedAxis, Value};
use crate::diag::{Diagnostic, Reported, Sink, Span};
use crate::syntax::ast::{self, BinaryOp, Expr, ExprKind, Statement, Subscript, UnaryOp};
use crate::ty::{Dim, Proof};
use std::collections::BTreeMap;

/// Calls of functions and methods nest at most this deep.
pub(super) const CALL_DEPTH: usize = 64;
/// A formula has at most this many terms.
const TERM_LIMIT: usize = 10_000;

/// Where an instance was asked for: added to every error of its evaluation.
#[derive(Clone, Debug)]
pub struct Context {
    pub span: Span,
    pub text: String,
}

/// One walk over the body of a method.
pub(super) struct Eval<'a> {
    pub program: &'a Program,
    pub method: &'a Method,
    pub facts: &'a SiteFacts,
    pub sink: &'a mut Sink,
    pub context: Option<&'a Context>,
    pub formula: Formula,
    pub params: Vec<ParamInstance>,
    pub scopes: Vec<BTreeMap<String, Value>>,
    /// Names that exist in the method but not here, with the reason.
    pub absent: BTreeMap<String, String>,
    /// In front of the names of parameters: the path of methods called inside `forward`.
    pub prefix: String,
    pub depth: usize,
}

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

    /// Binds where the name already lives, else in the innermost scope.
    fn rebind(&mut self, name: &str, value: Value) {
        for scope in self.scopes.iter_mut().rev() {
            if let Some(slot) = scope.get_mut(name) {
                *slot = value;
                return;
            }
        }
        self.bind(name, value);
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

    fn statements(&mut self, statements: &[Statement]) -> Result<()> {
        for statement in statements {
            match statement {
                Statement::Bind { name, value, .. } => {
                    let value = self.expr(value)?;
                    self.rebind(&name.node, value);
                }
                Statement::For {
                    variable,
                    start,
                    end,
                    body,
                    span,
                } => {
                    let start = self.known_int(start)?;
                    let end = self.known_int(end)?;
                    if end.saturating_sub(start) > TERM_LIMIT as i64 {
                        return Err(
                            self.fail(errors::loop_too_long(*span, end.saturating_sub(start)))
                        );
                    }
                    for step in start..end {
                        self.scopes.push(BTreeMap::new());
                        self.bind(&variable.node, Value::Int(Dim::from(step)));
                        let done = self.statements(body);
                        self.scopes.pop();
                        done?;
                    }
                }
            }
        }
        Ok(())
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
        if let Some(value) = self.scopes.iter().rev().find_map(|scope| scope.get(name)) {
            return Ok(value.clone());
        }
        if let Some(why) = self.absent.get(name).cloned() {
            return Err(self.fail(errors::not_available(span, name, &why)));
        }
        match name {
            "tokens" => return Ok(Value::Axis(NamedAxis::Tokens)),
            "features" => return Ok(Value::Axis(NamedAxis::Features)),
            "weight" | "bias" | "mask" => return self.site_tensor(name, span),
            _ => {}
        }
        let known: Vec<String> = self.scopes.iter().flat_map(|s| s.keys().cloned()).collect();
        Err(self.fail(errors::unknown_name(
            span,
            name,
            known.iter().map(String::as_str),
        )))
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

    fn known_int(&mut self, expr: &Expr) -> Result<i64> {
        let dim = self.size(expr)?;
        match dim.known() {
            Some(value) => Ok(value),
            // Without a model the loop body is checked once.
            None => Ok(0),
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
            other => Err(self.fail(errors::wrong_type(span, "a size", other.describe()))),
        }
    }

    /// The value as a term; numbers become constants.
    pub fn as_term(&mut self, value: Value, span: Span) -> Result<TermId> {
        match value {
            Value::Term(id) => Ok(id),
            ref number @ (Value::Int(_) | Value::Float(_)) => {
                // An unknown number only occurs without a model, where no value is computed.
                let number = number.number().flatten().unwrap_or(f64::NAN);
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
            _ => return Err(self.fail(errors::not_known_when_compiling(span, "a comparison"))),
        };
        Ok(Value::Term(self.elementwise(function, a, b, span)?))
    }

    fn logical(&mut self, op: BinaryOp, left: &Expr, right: &Expr) -> Result<Value> {
        let a = self.condition(left)?;
        let b = self.condition(right)?;
        Ok(Value::Bool(match (op, a, b) {
            (BinaryOp::And, Some(false), _) | (BinaryOp::And, _, Some(false)) => Some(false),
            (BinaryOp::Or, Some(true), _) | (BinaryOp::Or, _, Some(true)) => Some(true),
            (_, Some(a), Some(b)) => Some(if op == BinaryOp::And { a && b } else { a || b }),
            _ => None,
        }))
    }

    fn number_binary(&mut self, op: BinaryOp, a: (Value, Span), b: (Value, Span)) -> Result<Value> {
        use BinaryOp::*;
        if let (Value::String(x), Value::String(y)) = (&a.0, &b.0) {
            match op {
                Equal => return Ok(Value::Bool(Some(x == y))),
                NotEqual => return Ok(Value::Bool(Some(x != y))),
                _ => {}
            }
        }
        if let (Value::Bool(x), Value::Bool(y)) = (&a.0, &b.0) {
            match (op, x, y) {
                (Equal, Some(x), Some(y)) => return Ok(Value::Bool(Some(x == y))),
                (NotEqual, Some(x), Some(y)) => return Ok(Value::Bool(Some(x != y))),
                _ => {}
            }
        }
        if let (Value::Int(x), Value::Int(y)) = (&a.0, &b.0)
            && let Some(value) = int_binary(op, x, y)
        {
            return Ok(value);
        }
        let Some(x) = a.0.number() else {
            return Err(self.fail(errors::wrong_type(a.1, "a number", a.0.describe())));
        };
        let Some(y) = b.0.number() else {
            return Err(self.fail(errors::wrong_type(b.1, "a number", b.0.describe())));
        };
        let both = x.zip(y);
        Ok(match op {
            Add => Value::Float(both.map(|(x, y)| x + y)),
            Subtract => Value::Float(both.map(|(x, y)| x - y)),
            Multiply => Value::Float(both.map(|(x, y)| x * y)),
            Divide => Value::Float(both.map(|(x, y)| x / y)),
            Remainder => Value::Float(both.map(|(x, y)| x.rem_euclid(y))),
            Power => Value::Float(both.map(|(x, y)| x.powf(y))),
            Equal => Value::Bool(both.map(|(x, y)| x == y)),
            NotEqual => Value::Bool(both.map(|(x, y)| x != y)),
            Less => Value::Bool(both.map(|(x, y)| x < y)),
            LessEqual => Value::Bool(both.map(|(x, y)| x <= y)),
            Greater => Value::Bool(both.map(|(x, y)| x > y)),
            GreaterEqual => Value::Bool(both.map(|(x, y)| x >= y)),
            MatMul | And | Or => {
                return Err(self.fail(errors::wrong_type(a.1, "a tensor", a.0.describe())));
            }
        })
    }

    // --- tensors -----------------------------------------------------------------------------

    /// An elementwise operation with broadcasting; a factor of 1 and a summand of 0 disappear.
    pub fn elementwise(
        &mut self,
        function: Binary,
        a: TermId,
        b: TermId,
        span: Span,
    ) -> Result<TermId> {
        let (ta, tb) = (self.ty(a), self.ty(b));
        let Some(ty) = broadcast(&ta, &tb) else {
            let (sa, sb) = (self.span_of(a), self.span_of(b));
            return Err(self.fail(errors::shapes_do_not_fit(
                span,
                "elementwise operation",
                (sa, &ta),
                (sb, &tb),
            )));
        };
        let number = |id: TermId| match self.formula.term(id).kind {
            TermKind::Number(value) => Some(value),
            _ => None,
        };
        match (function, number(a), number(b)) {
            (Binary::Multiply, Some(1.0), _) => return Ok(b),
            (Binary::Multiply | Binary::Divide | Binary::Power, _, Some(1.0)) => return Ok(a),
            _ => {}
        }
        self.term(TermKind::Binary(function, a, b), ty, span)
    }

    pub fn matmul(&mut self, a: TermId, b: TermId, span: Span) -> Result<TermId> {
        let (ta, tb) = (self.ty(a), self.ty(b));
        let Some(ty) = matmul_type(&ta, &tb) else {
            let (sa, sb) = (self.span_of(a), self.span_of(b));
            return Err(self.fail(errors::shapes_do_not_fit(
                span,
                "matrix product",
                (sa, &ta),
                (sb, &tb),
            )));
        };
        self.term(TermKind::MatMul(a, b), ty, span)
    }

    /// A reduction; `over` is `tokens` (the axis stays, with size 1) or one of the dims.
    pub fn reduce(
        &mut self,
        function: Reduce,
        operand: TermId,
        over: super::formula::Axis,
        keep: bool,
        span: Span,
    ) -> Result<TermId> {
        use super::formula::Axis;
        let mut ty = self.ty(operand);
        match over {
            Axis::Tokens => ty.lead = Lead::Pooled,
            Axis::Dim(axis) if keep => ty.dims[axis] = Dim::from(1),
            Axis::Dim(axis) => {
                ty.dims.remove(axis);
            }
        }
        self.term(
            TermKind::Reduce {
                function,
                over,
                keep,
                operand,
            },
            ty,
            span,
        )
    }

    fn field(&mut self, base: &Expr, field: &ast::Ident, span: Span) -> Result<Value> {
        if field.node != "T" {
            return Err(self.fail(errors::unknown_name(field.span, &field.node, ["T"])));
        }
        let value = self.expr(base)?;
        let id = self.as_term(value, base.span)?;
        let ty = self.ty(id);
        if ty.lead != Lead::None || ty.dims.len() != 2 {
            return Err(self.fail(errors::wrong_type(base.span, "a matrix", &format!("{ty}"))));
        }
        if let TermKind::Transpose(inner) = self.formula.term(id).kind {
            return Ok(Value::Term(inner));
        }
        let ty = TermType::of(Lead::None, [ty.dims[1].clone(), ty.dims[0].clone()]);
        Ok(Value::Term(self.term(TermKind::Transpose(id), ty, span)?))
    }

    fn index(&mut self, base: &Expr, subscripts: &[Subscript], span: Span) -> Result<Value> {
        let value = self.expr(base)?;
        if let Value::List(items) = &value {
            return self.list_item(items, subscripts, span);
        }
        let mut id = self.as_term(value, base.span)?;
        let rank = self.ty(id).dims.len();
        if subscripts.len() > rank {
            let ty = self.ty(id);
            return Err(self.fail(errors::wrong_type(
                span,
                &format!("at most {rank} subscripts"),
                &format!("{} for {ty}", subscripts.len()),
            )));
        }
        let mut axis = 0;
        for subscript in subscripts {
            match subscript {
                Subscript::Range { start, end, span } => {
                    id = self.slice(id, axis, start.as_ref(), end.as_ref(), *span)?;
                    axis += 1;
                }
                Subscript::At(position) => {
                    let start = self.size(position)?;
                    let end = start.clone() + Dim::from(1);
                    id = self.slice_to(id, axis, start, end, position.span)?;
                    let mut ty = self.ty(id);
                    ty.dims.remove(axis);
                    id = self.term(TermKind::Reshape(id), ty, span)?;
                }
            }
        }
        Ok(Value::Term(id))
    }

    fn list_item(
        &mut self,
        items: &[Value],
        subscripts: &[Subscript],
        span: Span,
    ) -> Result<Value> {
        let [Subscript::At(position)] = subscripts else {
            return Err(self.fail(errors::wrong_type(
                span,
                "one position of a list",
                "a range",
            )));
        };
        let position = self.size(position)?;
        let item = position
            .known()
            .and_then(|at| items.get(usize::try_from(at).ok()?));
        match item {
            Some(item) => Ok(item.clone()),
            None => Err(self.fail(errors::not_a_size(
                span,
                &format!("position {position} of a list of {}", items.len()),
            ))),
        }
    }

    fn slice(
        &mut self,
        id: TermId,
        axis: usize,
        start: Option<&Expr>,
        end: Option<&Expr>,
        span: Span,
    ) -> Result<TermId> {
        let full = self.ty(id).dims[axis].clone();
        let start = match start {
            Some(start) => self.size(start)?,
            None => Dim::from(0),
        };
        let end = match end {
            Some(end) => self.size(end)?,
            None => full.clone(),
        };
        self.slice_to(id, axis, start, end, span)
    }

    fn slice_to(
        &mut self,
        id: TermId,
        axis: usize,
        start: Dim,
        end: Dim,
        span: Span,
    ) -> Result<TermId> {
        let mut ty = self.ty(id);
        let full = ty.dims[axis].clone();
        if start.known() == Some(0) && end == full {
            return Ok(id);
        }
        let size = end.clone() - start.clone();
        let outside = (full.clone() - end.clone())
            .known()
            .is_some_and(|rest| rest < 0);
        if size.known().is_some_and(|size| size < 1)
            || start.known().is_some_and(|s| s < 0)
            || outside
        {
            return Err(self.fail(errors::not_a_size(
                span,
                &format!("{start}..{end} of an axis of {full}"),
            )));
        }
        ty.dims[axis] = size;
        self.term(
            TermKind::Slice {
                operand: id,
                axis,
                start,
                end,
            },
            ty,
            span,
        )
    }
}

fn int_binary(op: BinaryOp, x: &Dim, y: &Dim) -> Option<Value> {
    use BinaryOp::*;
    let difference = || (x.clone() - y.clone()).known();
    Some(match op {
        Add => Value::Int(x.clone() + y.clone()),
        Subtract => Value::Int(x.clone() - y.clone()),
        Multiply => Value::Int(x.clone() * y.clone()),
        // Even divisions stay integers; others become numbers, which no shape accepts.
        Divide => match (x.known(), y.known()) {
            (Some(_), Some(0)) => return None,
            (Some(a), Some(b)) if a % b != 0 => return None,
            _ => Value::Int(x.floor_div(y)),
        },
        Remainder => match (x.known(), y.known()) {
            (Some(a), Some(b)) if b != 0 => Value::Int(Dim::from(a.rem_euclid(b))),
            _ => Value::Float(None),
        },
        Power => match (x.known(), y.known()) {
            (Some(a), Some(b)) if (0..=62).contains(&b) => {
                Value::Int(Dim::from(a.checked_pow(b as u32)?))
            }
            _ => return None,
        },
        Equal => Value::Bool(match x.compare(y) {
            Proof::Equal => Some(true),
            Proof::Different => Some(false),
            Proof::Unknown => None,
        }),
        NotEqual => Value::Bool(match x.compare(y) {
            Proof::Equal => Some(false),
            Proof::Different => Some(true),
            Proof::Unknown => None,
        }),
        Less => Value::Bool(difference().map(|d| d < 0)),
        LessEqual => Value::Bool(difference().map(|d| d <= 0)),
        Greater => Value::Bool(difference().map(|d| d > 0)),
        GreaterEqual => Value::Bool(difference().map(|d| d >= 0)),
        MatMul | And | Or => return None,
    })
}

/// The type of an elementwise result: dims aligned at the right, sizes equal or 1; leading axes
/// stand in front of all dims of the other side.
pub(super) fn broadcast(a: &TermType, b: &TermType) -> Option<TermType> {
    let (long, short) = if (a.lead, a.dims.len()) >= (b.lead, b.dims.len()) {
        (a, b)
    } else {
        (b, a)
    };
    if long.lead != Lead::None && short.lead != Lead::None && long.dims.len() != short.dims.len() {
        return None;
    }
    let mut short_dims = short.dims.as_slice();
    while short_dims.len() > long.dims.len() {
        if short_dims[0].known() != Some(1) {
            return None;
        }
        short_dims = &short_dims[1..];
    }
    let offset = long.dims.len() - short_dims.len();
    let mut dims = long.dims.clone();
    for (index, dim) in short_dims.iter().enumerate() {
        let slot = &mut dims[offset + index];
        if slot.known() == Some(1) {
            *slot = dim.clone();
        } else if dim.known() != Some(1) && slot.compare(dim) != Proof::Equal {
            return None;
        }
    }
    Some(TermType {
        lead: a.lead.max(b.lead),
        dims,
    })
}

fn matmul_type(a: &TermType, b: &TermType) -> Option<TermType> {
    let inner = a.dims.last()?;
    if b.lead != Lead::None {
        return None;
    }
    let mut dims = a.dims.clone();
    dims.pop();
    match b.dims.as_slice() {
        [k, n] if inner.compare(k) == Proof::Equal => dims.push(n.clone()),
        [k] if inner.compare(k) == Proof::Equal && a.lead == Lead::None && a.dims.len() == 2 => {}
        _ => return None,
    }
    Some(TermType { lead: a.lead, dims })
}

/// The scope of hyper-parameters.
pub(super) fn hyper_scope(values: &BTreeMap<String, HyperValue>) -> BTreeMap<String, Value> {
    values
        .iter()
        .map(|(name, value)| {
            let value = match value {
                HyperValue::Int(value) => Value::Int(Dim::from(*value)),
                HyperValue::Float(value) => Value::Float(Some(*value)),
                HyperValue::Bool(value) => Value::Bool(Some(*value)),
                HyperValue::String(value) => Value::String(value.clone()),
            };
            (name.clone(), value)
        })
        .collect()
}
