//! Integer lists that an operator takes as attributes in one opset and as operands in a later one.

use crate::graph::Attribute;

/// How a node is written: lists to be made constants and appended to the operands, and attributes.
pub(super) struct Form {
    pub lists: Vec<Vec<i64>>,
    pub attributes: Vec<Attribute>,
}

impl Form {
    /// Lists under their attributes' names, as attributes or as operands in this order.
    fn new(as_operands: bool, lists: &[(&str, &[i64])]) -> Form {
        let mut form = Form {
            lists: Vec::new(),
            attributes: Vec::new(),
        };
        for (name, list) in lists {
            if as_operands {
                form.lists.push(list.to_vec());
            } else {
                form.attributes.push(Attribute::ints(name, *list));
            }
        }
        form
    }

    fn with(mut self, attribute: Attribute) -> Form {
        self.attributes.push(attribute);
        self
    }
}

/// A reduction: the axes became an operand in opset 13 for ReduceSum and in 18 for the others.
pub(super) fn reduce(opset: i64, op_type: &str, axes: &[i64], keep: bool) -> Form {
    let since = if op_type == "ReduceSum" { 13 } else { 18 };
    let keep = Attribute::int("keepdims", i64::from(keep));
    Form::new(opset >= since, &[("axes", axes)]).with(keep)
}

/// A slice of some axes by steps of 1.
pub(super) fn slice(opset: i64, axes: &[i64], starts: &[i64], ends: &[i64]) -> Form {
    let lists = [("starts", starts), ("ends", ends), ("axes", axes)];
    Form::new(opset >= 10, &lists)
}

/// A split of the first axis.
pub(super) fn split(opset: i64, lengths: &[i64]) -> Form {
    Form::new(opset >= 13, &[("split", lengths)]).with(Attribute::int("axis", 0))
}

/// `Squeeze` or `Unsqueeze`.
pub(super) fn squeeze(opset: i64, axes: &[i64]) -> Form {
    Form::new(opset >= 13, &[("axes", axes)])
}

/// `Pad` with zeros. Every axis is listed: ONNX Runtime 1.32 moves the pads of a list of axes
/// wrongly when it moves a transpose over them.
pub(super) fn pad(opset: i64, pads: &[i64]) -> Form {
    Form::new(opset >= 11, &[("pads", pads)])
}
