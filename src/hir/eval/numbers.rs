//! Operators on numbers, sizes, strings and truth values: what is known when compiling.

use super::{Eval, Result};
use crate::diag::Span;
use crate::hir::errors;
use crate::hir::scalar::Value;
use crate::syntax::ast::{BinaryOp, Expr};
use crate::ty::{Dim, Proof};

impl Eval<'_> {
    pub(super) fn logical(&mut self, op: BinaryOp, left: &Expr, right: &Expr) -> Result<Value> {
        let a = self.condition(left)?;
        let b = self.condition(right)?;
        Ok(Value::Bool(match (op, a, b) {
            (BinaryOp::And, Some(false), _) | (BinaryOp::And, _, Some(false)) => Some(false),
            (BinaryOp::Or, Some(true), _) | (BinaryOp::Or, _, Some(true)) => Some(true),
            (_, Some(a), Some(b)) => Some(if op == BinaryOp::And { a && b } else { a || b }),
            _ => None,
        }))
    }

    pub(super) fn number_binary(
        &mut self,
        op: BinaryOp,
        a: (Value, Span),
        b: (Value, Span),
    ) -> Result<Value> {
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
