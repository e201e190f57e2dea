use super::{check_grad, check_refused};
use crate::graph::Attribute;

fn check(equation: &str, operands: &[&str]) {
    check_grad(
        "Einsum",
        12,
        operands,
        &[Attribute::string("equation", equation)],
    );
}

#[test]
fn products_sums_and_permutations() {
    check(
        "bhid,bhjd->bhij",
        &["normal[B, 2, S, 4]", "normal[B, 2, T, 4]"],
    );
    check("ij,jk", &["normal[2, S]", "normal[S, 3]"]);
    check("ij->ji", &["normal[2, S]"]);
    check("ij->i", &["normal[2, S]"]);
    check("ij->", &["normal[2, S]"]);
    check("i,j->ij", &["normal[2]", "normal[S]"]);
    check("ij,kl->il", &["normal[2, S]", "normal[T, 3]"]);
    check(
        "ab,bc,cd->ad",
        &["normal[2, 3]", "normal[3, S]", "normal[S, 2]"],
    );
}

#[test]
fn what_has_no_einsum_as_its_gradient_is_refused() {
    let twice = [Attribute::string("equation", "ii->i")];
    check_refused("Einsum", 12, &["normal[3, 3]"], &twice, "repeats a letter");
    let dots = [Attribute::string("equation", "...i->...")];
    check_refused("Einsum", 12, &["normal[3, 3]"], &dots, "ellipsis");
}
