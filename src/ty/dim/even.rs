//! Dimensions of which every division is known to come out even.

use super::{Atom, Dim, Repr, Symbol};

/// A dimension of that many symbols with quotients is not taken further apart.
const ROUNDS: usize = 8;

impl Dim {
    /// Whether two dimensions are the same if every division of a symbol in them comes out even:
    /// `in / 4 * 4` is `in` then.
    pub fn is_same_if_even(&self, other: &Dim) -> bool {
        let mut difference = self.clone() - other.clone();
        for _ in 0..ROUNDS {
            // What is undone may have been the dividend of another.
            for _ in 0..ROUNDS {
                let undone = difference.with_products();
                if undone == difference {
                    break;
                }
                difference = undone;
            }
            if difference.known().is_some() {
                break;
            }
            let Some((symbol, divisor)) = difference.quotient() else {
                break;
            };
            // The symbol becomes the divisor times something whole.
            let whole = Dim::symbol(&format!("{} / {divisor}", symbol.name()));
            let product = divisor * whole;
            difference =
                difference.substitute(&|found| (*found == symbol).then(|| product.clone()));
        }
        difference.known() == Some(0)
    }

    /// `a / b * b` as `a`, in every term that has both factors.
    fn with_products(&self) -> Dim {
        let Repr::Sum(polynomial) = &self.0 else {
            return self.clone();
        };
        let terms = polynomial.iter().map(|(term, factor)| {
            let undone = term.iter().enumerate().find_map(|(place, atom)| {
                let Atom::FloorDiv(a, b) = atom else {
                    return None;
                };
                let mut rest = term.clone();
                rest.remove(place);
                let others = Dim::from_polynomial([(rest, *factor)].into());
                others.exact_div(b).map(|others| others * a.clone())
            });
            undone.unwrap_or_else(|| Dim::from_polynomial([(term.clone(), *factor)].into()))
        });
        terms.fold(Dim::from(0), |sum, term| sum + term)
    }

    /// A division of a lone symbol in it.
    fn quotient(&self) -> Option<(Symbol, Dim)> {
        let Repr::Sum(polynomial) = &self.0 else {
            return None;
        };
        let found = |a: &Dim, b: &Dim| {
            let symbol = a.as_symbol()?;
            (!b.symbols().contains(symbol)).then(|| (symbol.clone(), b.clone()))
        };
        polynomial.keys().flatten().find_map(|atom| match atom {
            Atom::Symbol(_) => None,
            Atom::FloorDiv(a, b) => found(a, b)
                .or_else(|| a.quotient())
                .or_else(|| b.quotient()),
            Atom::Min(a, b) | Atom::Max(a, b) => a.quotient().or_else(|| b.quotient()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_quotients_cancel() {
        let (n, k) = (Dim::symbol("n"), Dim::symbol("k"));
        let quarter = n.floor_div(&Dim::from(4));
        assert!((quarter.clone() * Dim::from(4)).is_same_if_even(&n));
        assert!((n.floor_div(&k) * k.clone()).is_same_if_even(&n));
        let rows = quarter.clone() * Dim::from(3) + quarter.clone();
        assert!(rows.is_same_if_even(&n));
        assert!(!quarter.is_same_if_even(&n));
        assert!(!(quarter.clone() * Dim::from(3)).is_same_if_even(&n));
        assert!(!k.is_same_if_even(&n));
        let heads = Dim::symbol("heads");
        let size = n.floor_div(&heads);
        let width = (k.clone() - n.clone()).floor_div(&Dim::from(2));
        let split = Dim::from(10) * width.floor_div(&size) * size.clone();
        assert!(split.is_same_if_even(&(Dim::from(10) * width)));
        let padded = (n.clone() + Dim::from(3)).floor_div(&Dim::from(4)) * Dim::from(4);
        assert!(padded.is_same_if_even(&(n.clone() + Dim::from(3))));
        let both = quarter * k.floor_div(&Dim::from(2)) * Dim::from(8);
        assert!(both.is_same_if_even(&(n * k)));
    }
}
