//! Dimensions as integer polynomials over symbols.
//!
//! A dimension is kept in normal form, a sum of monomials with integer coefficients, so that two
//! dimensions that are equal as polynomials are equal as values. What is no polynomial (a floor
//! division that does not come out even, a minimum, a maximum) is an atom of its own.

mod compute;
mod even;

pub use compute::{DimAlgebra, DimOp};

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Add, Mul, Neg, Sub};
use std::sync::Arc;

/// A named unknown, such as `batch` or `in`. Equal names are equal numbers within one model or
/// one method.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol(Arc<str>);

impl Symbol {
    pub fn new(name: &str) -> Self {
        Symbol(Arc::from(name))
    }

    pub fn name(&self) -> &str {
        &self.0
    }

    /// Whether the name is peftc's own: the model does not name this size. See [`Dim::open`].
    pub fn is_open(&self) -> bool {
        self.0.starts_with(OPEN)
    }
}

/// Starts the names of sizes that the model does not name.
const OPEN: char = '?';

/// The answer to "are these two the same?".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proof {
    /// The same for every value of the symbols.
    Equal,
    /// Neither could be shown.
    Unknown,
    /// Different for every value of the symbols.
    Different,
}

impl Proof {
    /// Both must hold: one difference decides, one unknown weakens.
    #[must_use]
    pub fn and(self, other: Proof) -> Proof {
        self.max(other)
    }
}

/// The size of one axis: a number, a symbol or an expression over symbols.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dim(Repr);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Repr {
    Known(i64),
    Symbol(Symbol),
    /// Never a constant nor a lone symbol: those have their own variants.
    Sum(Arc<Polynomial>),
}

/// Coefficient of every monomial; no coefficient is zero.
type Polynomial = BTreeMap<Monomial, i64>;

/// A product of atoms, sorted, with repetition; empty for the constant term.
type Monomial = Vec<Atom>;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Atom {
    Symbol(Symbol),
    FloorDiv(Dim, Dim),
    Min(Dim, Dim),
    Max(Dim, Dim),
}

impl From<i64> for Dim {
    fn from(value: i64) -> Self {
        Dim(Repr::Known(value))
    }
}

impl From<&str> for Dim {
    fn from(name: &str) -> Self {
        Dim::symbol(name)
    }
}

impl Dim {
    pub fn symbol(name: &str) -> Self {
        Dim(Repr::Symbol(Symbol::new(name)))
    }

    /// A size that the model does not name, after the value that has it, such as `?NonZero_12.0`.
    pub fn open(value: &str, axis: usize) -> Self {
        Dim::symbol(&format!("{OPEN}{value}.{axis}"))
    }

    /// The number, if it is one.
    pub fn known(&self) -> Option<i64> {
        match self.0 {
            Repr::Known(value) => Some(value),
            _ => None,
        }
    }

    /// The symbol, if it is nothing else.
    pub fn as_symbol(&self) -> Option<&Symbol> {
        match &self.0 {
            Repr::Symbol(symbol) => Some(symbol),
            _ => None,
        }
    }

    /// Whether two dimensions are the same for every value of their symbols.
    pub fn compare(&self, other: &Dim) -> Proof {
        if self == other {
            return Proof::Equal;
        }
        let difference = self.clone() - other.clone();
        match difference.known() {
            Some(0) => Proof::Equal,
            Some(_) => Proof::Different,
            None if difference.is_positive() || (-difference).is_positive() => Proof::Different,
            None => Proof::Unknown,
        }
    }

    fn is_positive(&self) -> bool {
        self.lower_bound().is_some_and(|bound| bound > 0)
    }

    /// The largest number that the dimension is shown never to fall below, where every symbol is
    /// at least 0; `None` if none is found.
    pub fn lower_bound(&self) -> Option<i64> {
        match &self.0 {
            Repr::Known(value) => Some(*value),
            Repr::Symbol(_) => Some(0),
            Repr::Sum(polynomial) => polynomial.iter().try_fold(0_i64, |sum, (term, factor)| {
                if term.is_empty() {
                    return Some(sum.saturating_add(*factor));
                }
                let product = term.iter().try_fold(*factor, |product, atom| {
                    let bound = atom.lower_bound().filter(|bound| *bound >= 0)?;
                    Some(product.saturating_mul(bound))
                })?;
                (*factor > 0).then(|| sum.saturating_add(product))
            }),
        }
    }

    /// How many factors it takes to write the dimension down: what a caller bounds when it
    /// computes with dimensions from untrusted input.
    pub fn size(&self) -> usize {
        match &self.0 {
            Repr::Known(_) | Repr::Symbol(_) => 1,
            Repr::Sum(polynomial) => polynomial
                .keys()
                .map(|term| 1 + term.iter().map(Atom::size).sum::<usize>())
                .sum(),
        }
    }

    /// `floor(self / divisor)`; exact where the division comes out even.
    #[must_use]
    pub fn floor_div(&self, divisor: &Dim) -> Dim {
        if let (Some(a), Some(b)) = (self.known(), divisor.known()) {
            return match b {
                0 => Dim::atom(Atom::FloorDiv(self.clone(), divisor.clone())),
                1.. => Dim::from(a.div_euclid(b)),
                // Euclidean division rounds down only where the divisor is positive.
                _ => Dim::from(a.saturating_neg().div_euclid(b.saturating_neg())),
            };
        }
        if divisor.known() == Some(1) {
            return self.clone();
        }
        if divisor.known().is_some_and(|b| b < 0) {
            return (-self.clone()).floor_div(&-divisor.clone());
        }
        self.exact_div(divisor)
            .unwrap_or_else(|| Dim::atom(Atom::FloorDiv(self.clone(), divisor.clone())))
    }

    /// The quotient if the polynomial division comes out even.
    fn exact_div(&self, divisor: &Dim) -> Option<Dim> {
        let divisor = divisor.polynomial();
        let (monomial, coefficient) = divisor.iter().next()?;
        if divisor.len() != 1 {
            return None;
        }
        let mut quotient = Polynomial::new();
        for (term, factor) in self.polynomial() {
            if factor.checked_rem(*coefficient)? != 0 {
                return None;
            }
            let mut rest = term.clone();
            for atom in monomial {
                rest.remove(rest.iter().position(|a| a == atom)?);
            }
            quotient.insert(rest, factor.checked_div(*coefficient)?);
        }
        Some(Dim::from_polynomial(quotient))
    }

    /// The smaller of the two.
    #[must_use]
    pub fn smaller(&self, other: &Dim) -> Dim {
        if self.is_minimum_of(other) || other.is_maximum_of(self) {
            return self.clone();
        }
        if other.is_minimum_of(self) || self.is_maximum_of(other) {
            return other.clone();
        }
        let difference = other.clone() - self.clone();
        if difference.lower_bound().is_some_and(|bound| bound >= 0) {
            return self.clone();
        }
        if (-difference).lower_bound().is_some_and(|bound| bound >= 0) {
            return other.clone();
        }
        let (own, other, shift) = self.unshifted(other);
        let (first, second) = (own.min_by_name(&other), own.max_by_name(&other));
        Dim::atom(Atom::Min(first.clone(), second.clone())) + shift
    }

    /// The larger of the two.
    #[must_use]
    pub fn larger(&self, other: &Dim) -> Dim {
        // max(max(a, b), a) = max(a, b) and max(min(a, b), a) = a.
        if self.is_maximum_of(other) || other.is_minimum_of(self) {
            return self.clone();
        }
        if other.is_maximum_of(self) || self.is_minimum_of(other) {
            return other.clone();
        }
        let difference = self.clone() - other.clone();
        if difference.lower_bound().is_some_and(|bound| bound >= 0) {
            return self.clone();
        }
        if (-difference).lower_bound().is_some_and(|bound| bound >= 0) {
            return other.clone();
        }
        let (own, other, shift) = self.unshifted(other);
        let (first, second) = (own.min_by_name(&other), own.max_by_name(&other));
        Dim::atom(Atom::Max(first.clone(), second.clone())) + shift
    }

    /// Both without the constant that they have in common, and that: max(a + 2, b + 2) = max(a, b) + 2.
    fn unshifted(&self, other: &Dim) -> (Dim, Dim, Dim) {
        let shift = match (self.constant(), other.constant()) {
            (a, b) if a > 0 && b > 0 => a.min(b),
            (a, b) if a < 0 && b < 0 => a.max(b),
            _ => 0,
        };
        let shift = Dim::from(shift);
        let less = |dim: &Dim| dim.clone() - shift.clone();
        (less(self), less(other), shift.clone())
    }

    /// The term without a symbol.
    fn constant(&self) -> i64 {
        match &self.0 {
            Repr::Known(value) => *value,
            Repr::Symbol(_) => 0,
            Repr::Sum(polynomial) => polynomial.get(&Monomial::new()).copied().unwrap_or(0),
        }
    }

    /// Whether it is written as a maximum, at any depth, that `dim` takes part in.
    fn is_maximum_of(&self, dim: &Dim) -> bool {
        matches!(self.lone_atom(), Some(Atom::Max(a, b))
            if a == dim || b == dim || a.is_maximum_of(dim) || b.is_maximum_of(dim))
    }

    /// Whether it is written as a minimum, at any depth, that `dim` takes part in.
    fn is_minimum_of(&self, dim: &Dim) -> bool {
        matches!(self.lone_atom(), Some(Atom::Min(a, b))
            if a == dim || b == dim || a.is_minimum_of(dim) || b.is_minimum_of(dim))
    }

    /// The division, minimum or maximum, if it is nothing else.
    fn lone_atom(&self) -> Option<&Atom> {
        match &self.0 {
            Repr::Sum(polynomial) if polynomial.len() == 1 => {
                match polynomial.first_key_value()? {
                    (term, 1) if term.len() == 1 => term.first(),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    // Min and Max commute: the operands are ordered, so that equal expressions are equal values.
    fn min_by_name<'a>(&'a self, other: &'a Dim) -> &'a Dim {
        if self <= other { self } else { other }
    }

    fn max_by_name<'a>(&'a self, other: &'a Dim) -> &'a Dim {
        if self <= other { other } else { self }
    }

    /// The dimension with every symbol replaced for which `value` has an answer.
    #[must_use]
    pub fn substitute(&self, value: &dyn Fn(&Symbol) -> Option<Dim>) -> Dim {
        match &self.0 {
            Repr::Known(_) => self.clone(),
            Repr::Symbol(symbol) => value(symbol).unwrap_or_else(|| self.clone()),
            Repr::Sum(polynomial) => polynomial.iter().fold(Dim::from(0), |sum, (term, factor)| {
                sum + term.iter().fold(Dim::from(*factor), |product, atom| {
                    product * atom.substitute(value)
                })
            }),
        }
    }

    /// Every symbol that occurs, in the order of their names.
    pub fn symbols(&self) -> Vec<Symbol> {
        let mut found = Vec::new();
        self.collect_symbols(&mut found);
        found.sort();
        found.dedup();
        found
    }

    fn collect_symbols(&self, found: &mut Vec<Symbol>) {
        match &self.0 {
            Repr::Known(_) => {}
            Repr::Symbol(symbol) => found.push(symbol.clone()),
            Repr::Sum(polynomial) => {
                for atom in polynomial.keys().flatten() {
                    match atom {
                        Atom::Symbol(symbol) => found.push(symbol.clone()),
                        Atom::FloorDiv(a, b) | Atom::Min(a, b) | Atom::Max(a, b) => {
                            a.collect_symbols(found);
                            b.collect_symbols(found);
                        }
                    }
                }
            }
        }
    }

    fn atom(atom: Atom) -> Dim {
        Dim::from_polynomial(Polynomial::from([(vec![atom], 1)]))
    }

    fn polynomial(&self) -> Polynomial {
        match &self.0 {
            Repr::Known(0) => Polynomial::new(),
            Repr::Known(value) => Polynomial::from([(Vec::new(), *value)]),
            Repr::Symbol(symbol) => Polynomial::from([(vec![Atom::Symbol(symbol.clone())], 1)]),
            Repr::Sum(polynomial) => (**polynomial).clone(),
        }
    }

    fn from_polynomial(mut polynomial: Polynomial) -> Dim {
        polynomial.retain(|_, factor| *factor != 0);
        if polynomial.is_empty() {
            return Dim::from(0);
        }
        if polynomial.len() == 1 {
            let (term, factor) = polynomial.first_key_value().expect("one entry");
            match (term.as_slice(), factor) {
                ([], value) => return Dim::from(*value),
                ([Atom::Symbol(symbol)], 1) => return Dim(Repr::Symbol(symbol.clone())),
                _ => {}
            }
        }
        Dim(Repr::Sum(Arc::new(polynomial)))
    }
}

impl Atom {
    fn lower_bound(&self) -> Option<i64> {
        match self {
            Atom::Symbol(_) => Some(0),
            Atom::FloorDiv(a, b) => (a.lower_bound()? >= 0 && b.lower_bound()? >= 0).then_some(0),
            Atom::Min(a, b) => Some(a.lower_bound()?.min(b.lower_bound()?)),
            Atom::Max(a, b) => a.lower_bound().max(b.lower_bound()),
        }
    }

    fn size(&self) -> usize {
        match self {
            Atom::Symbol(_) => 1,
            Atom::FloorDiv(a, b) | Atom::Min(a, b) | Atom::Max(a, b) => 1 + a.size() + b.size(),
        }
    }

    fn substitute(&self, value: &dyn Fn(&Symbol) -> Option<Dim>) -> Dim {
        match self {
            Atom::Symbol(symbol) => {
                value(symbol).unwrap_or_else(|| Dim(Repr::Symbol(symbol.clone())))
            }
            Atom::FloorDiv(a, b) => a.substitute(value).floor_div(&b.substitute(value)),
            Atom::Min(a, b) => a.substitute(value).smaller(&b.substitute(value)),
            Atom::Max(a, b) => a.substitute(value).larger(&b.substitute(value)),
        }
    }
}

impl Add for Dim {
    type Output = Dim;

    fn add(self, other: Dim) -> Dim {
        // Sums beyond i64 saturate: no tensor is that large, and import has refused it before.
        if let (Some(a), Some(b)) = (self.known(), other.known()) {
            return Dim::from(a.saturating_add(b));
        }
        let mut sum = self.polynomial();
        for (term, factor) in other.polynomial() {
            let entry = sum.entry(term).or_insert(0);
            *entry = entry.saturating_add(factor);
        }
        Dim::from_polynomial(sum)
    }
}

impl Neg for Dim {
    type Output = Dim;

    fn neg(self) -> Dim {
        self * Dim::from(-1)
    }
}

impl Sub for Dim {
    type Output = Dim;

    fn sub(self, other: Dim) -> Dim {
        if let (Some(a), Some(b)) = (self.known(), other.known()) {
            return Dim::from(a.saturating_sub(b));
        }
        self + -other
    }
}

impl Mul for Dim {
    type Output = Dim;

    fn mul(self, other: Dim) -> Dim {
        match (self.known(), other.known()) {
            (Some(a), Some(b)) => return Dim::from(a.saturating_mul(b)),
            (Some(1), None) => return other,
            (None, Some(1)) => return self,
            _ => {}
        }
        let mut product = Polynomial::new();
        for (a, x) in &self.polynomial() {
            for (b, y) in &other.polynomial() {
                let mut term: Monomial = a.iter().chain(b).cloned().collect();
                term.sort();
                let entry = product.entry(term).or_insert(0);
                *entry = entry.saturating_add(x.saturating_mul(*y));
            }
        }
        Dim::from_polynomial(product)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Known(value) => write!(f, "{value}"),
            Repr::Symbol(symbol) => f.write_str(symbol.name()),
            Repr::Sum(polynomial) => fmt_polynomial(polynomial, f),
        }
    }
}

fn fmt_polynomial(polynomial: &Polynomial, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    // The constant term sorts first; people expect it last.
    let constant = polynomial
        .get(&Vec::new())
        .map(|factor| (Vec::new(), *factor));
    let terms = polynomial
        .iter()
        .filter(|(term, _)| !term.is_empty())
        .map(|(term, factor)| (term.clone(), *factor))
        .chain(constant);
    for (index, (term, factor)) in terms.enumerate() {
        match (index, factor < 0) {
            (0, true) => f.write_str("-")?,
            (0, false) => {}
            (_, true) => f.write_str(" - ")?,
            (_, false) => f.write_str(" + ")?,
        }
        let size = factor.unsigned_abs();
        if size != 1 || term.is_empty() {
            write!(f, "{size}")?;
            if !term.is_empty() {
                f.write_str("*")?;
            }
        }
        for (at, atom) in term.iter().enumerate() {
            if at > 0 {
                f.write_str("*")?;
            }
            match atom {
                Atom::Symbol(symbol) => f.write_str(symbol.name())?,
                Atom::FloorDiv(a, b) => write!(f, "floor({a} / {b})")?,
                Atom::Min(a, b) => write!(f, "min({a}, {b})")?,
                Atom::Max(a, b) => write!(f, "max({a}, {b})")?,
            }
        }
    }
    Ok(())
}

impl fmt::Debug for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_polynomials_are_equal_values() {
        let (n, k) = (Dim::symbol("N"), Dim::symbol("K"));
        let left = (n.clone() + k.clone()) * (n.clone() - k.clone());
        let right = n.clone() * n.clone() - k.clone() * k.clone();
        assert_eq!(left.compare(&right), Proof::Equal);
        assert_eq!(left, right);
    }

    #[test]
    fn a_common_constant_stands_outside_of_a_maximum() {
        let (a, b) = (Dim::symbol("a"), Dim::symbol("b"));
        let shifted = |dim: &Dim, by: i64| dim.clone() + Dim::from(by);
        let plain = a.larger(&b);
        assert_eq!(shifted(&a, 3).larger(&shifted(&b, 3)), shifted(&plain, 3));
        assert_eq!(
            shifted(&a, -3).larger(&shifted(&b, -3)),
            shifted(&plain, -3)
        );
        let apart = shifted(&a, 1).smaller(&shifted(&b, 5));
        assert_eq!(apart, shifted(&a.smaller(&shifted(&b, 4)), 1));
    }

    #[test]
    fn a_constant_difference_is_a_proof_and_a_symbolic_one_is_not() {
        let n = Dim::symbol("N");
        assert_eq!(n.compare(&(n.clone() + Dim::from(1))), Proof::Different);
        assert_eq!(n.compare(&Dim::symbol("M")), Proof::Unknown);
    }

    #[test]
    fn symbols_are_sizes_and_never_negative() {
        let n = Dim::symbol("N");
        assert_eq!(n.compare(&Dim::from(-1)), Proof::Different);
        assert_eq!(n.compare(&Dim::from(0)), Proof::Unknown);
        assert_eq!((n.clone() - Dim::from(1)).lower_bound(), Some(-1));
        assert_eq!((-n.clone()).lower_bound(), None);
        let longer = n.clone() + Dim::symbol("P");
        assert_eq!(n.smaller(&longer), n);
        assert_eq!(n.larger(&longer), longer);
        let either = n.larger(&Dim::symbol("M"));
        assert_eq!(either.larger(&n), either);
        assert_eq!(either.smaller(&n), n);
        assert_eq!(n.smaller(&Dim::symbol("M")).larger(&n), n);
        assert_eq!(either.size(), 4);
    }

    #[test]
    fn division_is_exact_where_it_comes_out_even() {
        let n = Dim::symbol("N");
        assert_eq!(
            (n.clone() * Dim::from(6)).floor_div(&Dim::from(3)),
            n.clone() * Dim::from(2)
        );
        assert_eq!(
            (n.clone() * Dim::symbol("H")).floor_div(&Dim::symbol("H")),
            n.clone()
        );
        assert_eq!(n.floor_div(&Dim::from(2)).to_string(), "floor(N / 2)");
        assert_eq!(Dim::from(7).floor_div(&Dim::from(-2)), Dim::from(-4));
        let most = Dim::from(i64::MIN).floor_div(&Dim::from(-1));
        assert_eq!(most, Dim::from(i64::MAX));
        let halved = n.floor_div(&Dim::from(2));
        assert_eq!(halved.substitute(&|_| Some(Dim::from(7))), Dim::from(3));
    }
}
