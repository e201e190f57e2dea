//! Identity at start: propagates initial values through a formula.
//!
//! Every term gets a canonical form in which zeros, ones and equal subterms have cancelled. If the
//! form of the result is the base output itself, the adapter changes nothing at the start. The
//! analysis is sound but not complete: "not proved" is not "refuted"; `peftc test` measures.

use super::formula::{Binary, Formula, TermId, TermKind, Unary};
use super::init::Init;
use super::instance::Instance;
use std::collections::HashMap;

/// The canonical form of a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Form {
    Zero,
    One,
    /// A class of terms that are equal at the start.
    Class(u32),
}

#[derive(Default)]
struct Classes {
    ids: HashMap<String, u32>,
}

impl Classes {
    fn form(&mut self, key: String) -> Form {
        let next = self.ids.len() as u32;
        Form::Class(*self.ids.entry(key).or_insert(next))
    }
}

/// Whether the result of `forward` is provably the module's own output with the initial values.
pub fn is_identity_at_start(instance: &Instance) -> bool {
    let mut classes = Classes::default();
    let output = classes.form(key(&TermKind::Output, &[]));
    let mut params: Vec<Form> = Vec::with_capacity(instance.params.len());
    for (index, param) in instance.params.iter().enumerate() {
        params.push(match &param.init {
            Init::Constant(value) => number(*value, &mut classes),
            Init::Random(_) => classes.form(format!("param {index}")),
            // Every tensor draws numbers of its own.
            Init::Computed(formula) if formula.uses(|kind| matches!(kind, TermKind::Drawn(_))) => {
                classes.form(format!("param {index}"))
            }
            Init::Computed(formula) => {
                forms(formula, &params, &mut classes)[formula.result().0 as usize]
            }
        });
    }
    let forms = forms(&instance.forward, &params, &mut classes);
    forms[instance.forward.result().0 as usize] == output
}

fn number(value: f64, classes: &mut Classes) -> Form {
    if value == 0.0 {
        Form::Zero
    } else if value == 1.0 {
        Form::One
    } else {
        classes.form(format!("number {:x}", value.to_bits()))
    }
}

/// The kind's own operand ids say nothing across formulas: their forms stand in.
fn key(kind: &TermKind, operands: &[Form]) -> String {
    format!("{} {operands:?}", kind.text())
}

fn forms(formula: &Formula, params: &[Form], classes: &mut Classes) -> Vec<Form> {
    let mut forms: Vec<Form> = Vec::with_capacity(formula.terms.len());
    for (_, term) in formula.terms() {
        let of = |id: TermId| forms[id.0 as usize];
        let form = match &term.kind {
            TermKind::Param(index) => params[*index],
            TermKind::Number(value) => number(*value, classes),
            TermKind::StopGradient(a) => of(*a),
            TermKind::Noise { .. } => Form::Zero,
            TermKind::Transpose(a)
            | TermKind::Reshape(a)
            | TermKind::CumulativeSum(a)
            | TermKind::LastToken(a)
            | TermKind::Dropout(a, _)
            | TermKind::Slice { operand: a, .. }
            | TermKind::Reduce { operand: a, .. }
            | TermKind::Pad { operand: a, .. }
            | TermKind::Gather { table: a, .. }
            | TermKind::Scatter { values: a, .. }
                if of(*a) == Form::Zero =>
            {
                Form::Zero
            }
            TermKind::Einsum { operands, .. } if operands.iter().any(|a| of(*a) == Form::Zero) => {
                Form::Zero
            }
            TermKind::Concat { operands, .. } if operands.iter().all(|a| of(*a) == Form::Zero) => {
                Form::Zero
            }
            TermKind::MatMul(a, b) if of(*a) == Form::Zero || of(*b) == Form::Zero => Form::Zero,
            TermKind::Unary(
                Unary::Negate | Unary::Abs | Unary::Sin | Unary::Sqrt | Unary::Erf,
                a,
            ) if of(*a) == Form::Zero => Form::Zero,
            TermKind::Binary(function, a, b) => {
                binary(*function, of(*a), of(*b), &term.kind, classes)
            }
            TermKind::Base {
                input,
                weight,
                bias,
            } => base(
                of(*input),
                weight.map(of),
                bias.map(of),
                &term.kind,
                classes,
            ),
            kind => {
                let operands: Vec<Form> = kind.operands().into_iter().map(of).collect();
                let key = key(kind, &operands);
                classes.form(match says_its_shape(kind) {
                    true => key,
                    false => format!("{key} {}", term.ty),
                })
            }
        };
        forms.push(form);
    }
    forms
}

/// Whether the shape of a term follows from its kind and its operands.
fn says_its_shape(kind: &TermKind) -> bool {
    !matches!(
        kind,
        TermKind::Reshape(_)
            | TermKind::Scatter { .. }
            | TermKind::Iota
            | TermKind::Largest(_)
            | TermKind::LargestAt(_)
            | TermKind::Factor(..)
    )
}

fn binary(function: Binary, a: Form, b: Form, kind: &TermKind, classes: &mut Classes) -> Form {
    use Form::{One, Zero};
    match (function, a, b) {
        (Binary::Add, other, Zero)
        | (Binary::Add, Zero, other)
        | (Binary::Subtract, other, Zero) => other,
        (Binary::Subtract, x, y) if x == y => Zero,
        (Binary::Multiply, Zero, _) | (Binary::Multiply, _, Zero) | (Binary::Divide, Zero, _) => {
            Zero
        }
        (Binary::Multiply, other, One)
        | (Binary::Multiply, One, other)
        | (Binary::Divide, other, One) => other,
        (Binary::Divide, x, y) if x == y => One,
        _ => classes.form(key(kind, &[a, b])),
    }
}

/// The base module on its own input with its own weight and bias is the base output.
fn base(
    input: Form,
    weight: Option<Form>,
    bias: Option<Form>,
    kind: &TermKind,
    classes: &mut Classes,
) -> Form {
    let own_input = input == classes.form(key(&TermKind::Input, &[]));
    let own_weight = weight.is_none_or(|form| form == classes.form(key(&TermKind::Weight, &[])));
    let own_bias = bias.is_none_or(|form| form == classes.form(key(&TermKind::Bias, &[])));
    if own_input && own_weight && own_bias {
        return classes.form(key(&TermKind::Output, &[]));
    }
    let operands: Vec<Form> = std::iter::once(input).chain(weight).chain(bias).collect();
    classes.form(key(kind, &operands))
}
