//! Diagnostics of this room.

use crate::diag::{Code, Diagnostic, Span, nearest};
use crate::ty::DType;
use crate::weights::NamedTensor;
use std::collections::BTreeSet;
use std::path::Path;

pub(super) fn no_such_adapter(name: &str, known: &[&str]) -> Diagnostic {
    let diagnostic = Diagnostic::new(Code::E0452, format!("the spec has no adapter `{name}`"));
    diagnostic.help(known_adapters(known))
}

/// One adapter is asked for, and the spec has several.
pub(super) fn which_adapter(known: &[&str]) -> Diagnostic {
    let diagnostic = Diagnostic::new(Code::E0452, "it is not said which adapter of the spec");
    diagnostic.help(format!(
        "say it with `--adapter`; {}",
        known_adapters(known)
    ))
}

pub(super) fn no_adapter(file: &str) -> Diagnostic {
    Diagnostic::new(Code::E0452, format!("`{file}` declares no adapter")).help(known_adapters(&[]))
}

fn known_adapters(known: &[&str]) -> String {
    if known.is_empty() {
        return "declare one: `adapter name { adapt … with … }`".to_owned();
    }
    let list: Vec<String> = known.iter().map(|k| format!("`{k}`")).collect();
    format!("it declares {}", list.join(", "))
}

pub(super) fn import_not_found(span: Span, path: &str, why: &str) -> Diagnostic {
    Diagnostic::new(Code::E0001, format!("`{path}` cannot be read: {why}"))
        .label(span, "imported here")
        .help("paths of imports are relative to the importing file")
}

pub(super) fn target_is_base(path: &Path) -> Diagnostic {
    Diagnostic::new(
        Code::E0002,
        format!(
            "cannot write `{}`: it belongs to the base model",
            path.display()
        ),
    )
    .help("give another folder with `-o`, or none: then the names differ")
}

pub(super) fn target_is_read(path: &Path) -> Diagnostic {
    Diagnostic::new(
        Code::E0002,
        format!("cannot write `{}`: it is read, too", path.display()),
    )
    .help("give another folder with `-o`, or the file another name")
}

pub(super) fn unknown_tensor<'a>(
    path: &Path,
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Diagnostic {
    let near = nearest(name, known, 3);
    let list: Vec<String> = near.iter().map(|n| format!("`{n}`")).collect();
    let diagnostic = Diagnostic::new(
        Code::E0902,
        format!(
            "`{}` has a tensor `{name}` that the adapter does not have",
            path.display()
        ),
    );
    if list.is_empty() {
        diagnostic.help("give the weights that belong to this spec and model")
    } else {
        diagnostic.help(format!("the nearest are {}", list.join(", ")))
    }
}

pub(super) fn missing_tensor(path: &Path, name: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0903,
        format!("`{}` lacks the tensor `{name}`", path.display()),
    )
    .help("give the weights that belong to this spec and model")
}

pub(super) fn tensor_does_not_fit(
    path: &Path,
    name: &str,
    dtype: DType,
    found: &[i64],
    wanted: &[i64],
) -> Diagnostic {
    Diagnostic::new(
        Code::E0904,
        format!(
            "`{name}` of `{}` is {dtype}{found:?}, the adapter has f32{wanted:?}",
            path.display()
        ),
    )
    .help("give weights of the same rank and target modules, or change the spec")
}

pub(super) fn bad_rate(glob: &str, why: &str) -> Diagnostic {
    Diagnostic::new(Code::E0756, format!("`{glob}` names no parameters: {why}"))
        .help("write it as in a target: `*.v_proj.B`, or the name of a parameter")
}

/// `names` are those of everything that is trained.
pub(super) fn rate_of_nothing<'n>(glob: &str, names: impl Iterator<Item = &'n str>) -> Diagnostic {
    let names: BTreeSet<&str> = names.collect();
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    let message = format!("no trained parameter is called `{glob}`, so it needs no learning rate");
    Diagnostic::new(Code::E0756, message)
        .note(format!("parameters are called {}", names.join(", ")))
        .help("name one of them, or a module and one of them: `*.v_proj.B`")
}

pub(super) fn calibration_of_another_model(path: &Path) -> Diagnostic {
    let message = format!("`{}` was measured of another model", path.display());
    Diagnostic::new(Code::E0907, message).help("measure this one: `peftc calibrate CONFIG.yaml`")
}

pub(super) fn no_calibration_file(path: &Path) -> Diagnostic {
    let message = format!("`{}` is no calibration", path.display());
    Diagnostic::new(Code::E0907, message).help("give the file that `peftc calibrate` has written")
}

pub(super) fn calibration_not_finite(path: &Path, name: &str) -> Diagnostic {
    let message = format!(
        "`{name}` of `{}` has an entry that is not a finite number",
        path.display()
    );
    Diagnostic::new(Code::E0907, message).help("measure again: `peftc calibrate CONFIG.yaml`")
}

/// Of files that are stacked: `lacks` has no tensor of a name that `has` has.
pub(super) fn not_in_both(lacks: &Path, has: &Path, name: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0903,
        format!("`{}` has no tensor `{name}`", lacks.display()),
    )
    .note(format!("`{}` has one", has.display()))
    .help("adapters that are stacked are of one spec: the same modules and the same method")
}

/// Of files that are stacked: tensors of one name differ in type or shape.
pub(super) fn not_alike(
    path: &Path,
    tensor: &NamedTensor,
    first: &Path,
    of_first: &NamedTensor,
) -> Diagnostic {
    let said = |tensor: &NamedTensor| {
        let dims: Vec<String> = tensor.dims.iter().map(i64::to_string).collect();
        format!("{}[{}]", tensor.dtype, dims.join(", "))
    };
    let name = &tensor.name;
    Diagnostic::new(
        Code::E0904,
        format!("`{name}` of `{}` is {}", path.display(), said(tensor)),
    )
    .note(format!(
        "that of `{}` is {}",
        first.display(),
        said(of_first)
    ))
    .help("adapters that are stacked have one rank; `peftc convert --to lora --rank R` changes that of one")
}

/// A tensor is stacked, and lies in the file beside.
pub(super) fn stacked_twice(path: &Path, name: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0902,
        format!("`{name}` is stacked, and `{}` has one, too", path.display()),
    )
    .help("another name comes from `--suffix`, such as `--suffix _general`")
}
