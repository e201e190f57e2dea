//! Dimensions computed with something else than numbers, such as the nodes of a graph.

use super::{Atom, Dim, Repr, Symbol};

/// How two dimensions are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DimOp {
    Add,
    Mul,
    /// Towards zero or downwards: the operands are sizes, so both are the same.
    Div,
    Min,
    Max,
}

/// What a dimension can be computed with.
pub trait DimAlgebra {
    type Value;

    fn number(&mut self, value: i64) -> Self::Value;

    /// `None` if there is no way to tell the size.
    fn symbol(&mut self, symbol: &Symbol) -> Option<Self::Value>;

    fn combine(&mut self, op: DimOp, a: Self::Value, b: Self::Value) -> Self::Value;
}

impl Dim {
    /// The dimension's value; `None` if that of one of its symbols cannot be told.
    pub fn compute<A: DimAlgebra>(&self, algebra: &mut A) -> Option<A::Value> {
        match &self.0 {
            Repr::Known(value) => Some(algebra.number(*value)),
            Repr::Symbol(symbol) => algebra.symbol(symbol),
            Repr::Sum(polynomial) => {
                let mut sum = None;
                for (term, factor) in polynomial.iter() {
                    let term = monomial(term, *factor, algebra)?;
                    sum = Some(joined(sum, DimOp::Add, term, algebra));
                }
                sum
            }
        }
    }
}

fn monomial<A: DimAlgebra>(atoms: &[Atom], factor: i64, algebra: &mut A) -> Option<A::Value> {
    let mut product = (factor != 1 || atoms.is_empty()).then(|| algebra.number(factor));
    for atom in atoms {
        let value = match atom {
            Atom::Symbol(symbol) => algebra.symbol(symbol)?,
            Atom::FloorDiv(a, b) => pair(DimOp::Div, a, b, algebra)?,
            Atom::Min(a, b) => pair(DimOp::Min, a, b, algebra)?,
            Atom::Max(a, b) => pair(DimOp::Max, a, b, algebra)?,
        };
        product = Some(joined(product, DimOp::Mul, value, algebra));
    }
    product
}

fn pair<A: DimAlgebra>(op: DimOp, a: &Dim, b: &Dim, algebra: &mut A) -> Option<A::Value> {
    let (a, b) = (a.compute(algebra)?, b.compute(algebra)?);
    Some(algebra.combine(op, a, b))
}

fn joined<A: DimAlgebra>(
    before: Option<A::Value>,
    op: DimOp,
    next: A::Value,
    algebra: &mut A,
) -> A::Value {
    match before {
        Some(before) => algebra.combine(op, before, next),
        None => next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `N` is 7, `M` is 3, nothing else is known.
    struct Numbers;

    impl DimAlgebra for Numbers {
        type Value = i64;

        fn number(&mut self, value: i64) -> i64 {
            value
        }

        fn symbol(&mut self, symbol: &Symbol) -> Option<i64> {
            match symbol.name() {
                "N" => Some(7),
                "M" => Some(3),
                _ => None,
            }
        }

        fn combine(&mut self, op: DimOp, a: i64, b: i64) -> i64 {
            match op {
                DimOp::Add => a + b,
                DimOp::Mul => a * b,
                DimOp::Div => a / b,
                DimOp::Min => a.min(b),
                DimOp::Max => a.max(b),
            }
        }
    }

    #[test]
    fn a_dimension_is_computed_from_its_symbols() {
        let (n, m) = (Dim::symbol("N"), Dim::symbol("M"));
        let value = |dim: Dim| dim.compute(&mut Numbers);
        assert_eq!(value(Dim::from(5)), Some(5));
        assert_eq!(value(n.clone() * m.clone() - Dim::from(1)), Some(20));
        assert_eq!(value(n.floor_div(&Dim::from(2)) + m.clone()), Some(6));
        assert_eq!(value(n.larger(&m) - n.smaller(&m)), Some(4));
        assert_eq!(value(n.clone() - n), Some(0));
        assert_eq!(value(m + Dim::symbol("K")), None);
    }
}
