//! Values as expressions: arithmetic, functions and comparisons.

use super::{Builder, Refusal, refuse};
use crate::graph::{Attribute, Operand};
use crate::ty::{DType, Dim};
use std::ops::{Add, Div, Mul, Neg, Sub};

/// A value of the graph or a new one.
#[derive(Clone, Copy)]
pub struct Expr<'b> {
    pub builder: &'b Builder<'b>,
    pub operand: Operand,
}

impl<'b> Expr<'b> {
    /// The element type; where it is not known, that is remembered as trouble.
    pub fn dtype(self) -> DType {
        self.builder.ty(self.operand).map_or_else(
            || {
                let name = self.name();
                self.builder
                    .remember(format!("the element type of {name} is not known"));
                DType::F32
            },
            |ty| ty.dtype,
        )
    }

    /// The sizes.
    pub fn dims(self) -> Result<Vec<Dim>, Refusal> {
        match self.builder.ty(self.operand).and_then(|ty| ty.shape) {
            Some(shape) => Ok(shape.0),
            None => refuse!("the shape of {} is not known", self.name()),
        }
    }

    pub fn rank(self) -> Result<usize, Refusal> {
        self.dims().map(|dims| dims.len())
    }

    /// How messages call it.
    fn name(self) -> String {
        match self.operand {
            Operand::Existing(id) | Operand::Original(id) => {
                format!("`{}`", self.builder.graph().value(id).name)
            }
            Operand::New(_) => "a new value".to_owned(),
        }
    }

    /// A number of this value's element type.
    pub fn number(self, value: f64) -> Expr<'b> {
        self.builder.scalar(value, self.dtype())
    }

    /// A function of one value.
    pub fn apply(self, op_type: &str) -> Expr<'b> {
        self.builder.node(op_type, &[self], Vec::new())
    }

    /// A function of two values.
    pub fn apply2(self, op_type: &str, other: Expr<'b>) -> Expr<'b> {
        self.builder.node(op_type, &[self, other], Vec::new())
    }

    pub fn with(self, op_type: &str, attributes: Vec<Attribute>) -> Expr<'b> {
        self.builder.node(op_type, &[self], attributes)
    }

    pub fn exp(self) -> Expr<'b> {
        self.apply("Exp")
    }

    pub fn log(self) -> Expr<'b> {
        self.apply("Log")
    }

    pub fn sqrt(self) -> Expr<'b> {
        self.apply("Sqrt")
    }

    pub fn reciprocal(self) -> Expr<'b> {
        self.apply("Reciprocal")
    }

    pub fn tanh(self) -> Expr<'b> {
        self.apply("Tanh")
    }

    pub fn sigmoid(self) -> Expr<'b> {
        self.apply("Sigmoid")
    }

    pub fn square(self) -> Expr<'b> {
        self * self
    }

    pub fn pow(self, exponent: Expr<'b>) -> Expr<'b> {
        self.apply2("Pow", exponent)
    }

    pub fn matmul(self, other: Expr<'b>) -> Expr<'b> {
        self.apply2("MatMul", other)
    }

    /// As another element type; nothing if it has it already.
    pub fn cast(self, to: DType) -> Expr<'b> {
        if self.dtype() == to {
            return self;
        }
        self.with("Cast", vec![Attribute::int("to", i64::from(to.number()))])
    }

    // --- truth ------------------------------------------------------------------------------

    pub fn is_less(self, other: Expr<'b>) -> Expr<'b> {
        self.apply2("Less", other)
    }

    pub fn is_equal(self, other: Expr<'b>) -> Expr<'b> {
        self.apply2("Equal", other)
    }

    pub fn and(self, other: Expr<'b>) -> Expr<'b> {
        self.apply2("And", other)
    }

    #[expect(
        clippy::should_implement_trait,
        reason = "a node of its own, as the others here"
    )]
    pub fn not(self) -> Expr<'b> {
        self.apply("Not")
    }

    /// `self ? yes : no`.
    pub fn choose(self, yes: Expr<'b>, no: Expr<'b>) -> Expr<'b> {
        self.builder.node("Where", &[self, yes, no], Vec::new())
    }

    /// `self ? value : 0`.
    pub fn keep(self, value: Expr<'b>) -> Expr<'b> {
        self.choose(value, value.number(0.0))
    }
}

macro_rules! binary {
    ($($trait:ident $method:ident $op:literal;)*) => {$(
        impl<'b> $trait for Expr<'b> {
            type Output = Expr<'b>;

            fn $method(self, other: Expr<'b>) -> Expr<'b> {
                self.apply2($op, other)
            }
        }

        impl<'b> $trait<f64> for Expr<'b> {
            type Output = Expr<'b>;

            fn $method(self, other: f64) -> Expr<'b> {
                if is_neutral($op, other) {
                    return self;
                }
                self.apply2($op, self.number(other))
            }
        }

        impl<'b> $trait<Expr<'b>> for f64 {
            type Output = Expr<'b>;

            fn $method(self, other: Expr<'b>) -> Expr<'b> {
                other.number(self).apply2($op, other)
            }
        }
    )*};
}

binary! {
    Add add "Add";
    Sub sub "Sub";
    Mul mul "Mul";
    Div div "Div";
}

/// Whether `x op value` is `x`.
fn is_neutral(op_type: &str, value: f64) -> bool {
    match op_type {
        "Add" | "Sub" => value == 0.0,
        _ => value == 1.0,
    }
}

impl<'b> Neg for Expr<'b> {
    type Output = Expr<'b>;

    fn neg(self) -> Expr<'b> {
        self.apply("Neg")
    }
}
