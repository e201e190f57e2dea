use super::check_grad;
use crate::graph::Attribute;

#[test]
fn arithmetic_broadcasts() {
    for op in ["Add", "Sub", "Mul"] {
        check_grad(op, 14, &["normal[2, 3]", "normal[2, 3]"], &[]);
        check_grad(op, 14, &["normal[B, S, 4]", "normal[4]"], &[]);
        check_grad(op, 14, &["normal[B, 1, S]", "normal[T, 1]"], &[]);
        check_grad(op, 14, &["normal[]", "normal[2, S]"], &[]);
        check_grad(op, 14, &["normal[1, 3]", "normal[B, 1, 1, 3]"], &[]);
    }
    check_grad("Div", 14, &["normal[B, 1, S]", "positive[T, 1]"], &[]);
    check_grad("Sum", 13, &["normal[2, S]", "normal[S]", "normal[]"], &[]);
    check_grad("Mean", 13, &["normal[2, S]", "normal[S]", "normal[]"], &[]);
    let truncates = [Attribute::int("fmod", 1)];
    check_grad("Mod", 13, &["apart[2, 4]", "positive[4]"], &truncates);
}

#[test]
fn sizes_that_only_a_run_tells_apart() {
    // `N` and `B` may both be 1, or the same.
    check_grad("Mul", 14, &["normal[N, S]", "normal[1, S]"], &[]);
}

#[test]
fn powers() {
    for exponent in ["2", "3", "0.5", "-1.5"] {
        let exponent = format!("f64[] = {exponent}");
        check_grad("Pow", 15, &["positive[2, S]", &exponent], &[]);
    }
    check_grad("Pow", 15, &["positive[B, 1]", "normal[S]"], &[]);
    // At zero, too, and of an exponent of another type.
    for exponent in ["f64[] = 0", "f64[] = 1", "i32[] = 4", "u8[] = 2"] {
        check_grad("Pow", 15, &["whole[4, S]", exponent], &[]);
    }
    check_grad("Pow", 15, &["positive[B, 3]", "i32[3] = [0, 2, 5]"], &[]);
}

#[test]
fn extrema_pass_the_gradient_to_the_operand_that_is_taken() {
    check_grad("Max", 13, &["apart[3, 4]", "normal[4]"], &[]);
    check_grad(
        "Min",
        13,
        &["apart[B, 4]", "f64[] = 0.3", "normal[B, 1]"],
        &[],
    );
    check_grad("Max", 13, &["normal[3]"], &[]);
}

#[test]
fn elementary_functions() {
    for op in [
        "Neg", "Exp", "Sin", "Cos", "Atan", "Sinh", "Cosh", "Asinh", "Erf",
    ] {
        check_grad(op, 13, &["normal[2, S]"], &[]);
    }
    for op in ["Sqrt", "Log", "Reciprocal"] {
        check_grad(op, 13, &["positive[2, S]"], &[]);
    }
    for op in ["Tan", "Asin", "Acos", "Atanh"] {
        check_grad(op, 13, &["unit[2, S]"], &[]);
    }
    check_grad("Acosh", 13, &["above_one[2, S]"], &[]);
    check_grad("Abs", 13, &["apart[2, S]"], &[]);
    check_grad("PRelu", 16, &["apart[2, S]", "normal[S]"], &[]);
}
