use super::super::fuse;
use super::super::tests::Draft;
use crate::diag::Sink;
use crate::graph::{Attribute, Graph, Model, Tensor, Value, ValueId, ValueKind};
use crate::kernels::attention::{FORM, Form, Gradient, Keys, OPERATOR};
use crate::ty::{DType, Dim, Shape, TensorType};

/// Queries, keys, values and the gradient of the result.
struct Tensors {
    queries: ValueId,
    keys: ValueId,
    values: ValueId,
    of_result: ValueId,
}

fn new() -> (Draft, Tensors) {
    let mut draft = Draft(Graph::new("test"));
    let [queries, of_result] =
        ["queries", "of_result"].map(|name| draft.input(name, &["batch", "8", "n", "64"]));
    let [keys, values] =
        ["keys", "values"].map(|name| draft.input(name, &["batch", "8", "m", "64"]));
    let tensors = Tensors {
        queries,
        keys,
        values,
        of_result,
    };
    (draft, tensors)
}

impl Draft {
    /// Dimensions are symbols where they are no numbers.
    fn input(&mut self, name: &str, dims: &[&str]) -> ValueId {
        let dim = |dim: &&str| {
            dim.parse::<i64>()
                .map_or_else(|_| Dim::symbol(dim), Dim::from)
        };
        let shape = Shape(dims.iter().map(dim).collect());
        let ty = TensorType::new(DType::F32, shape);
        let kind = ValueKind::Input { default: None };
        self.0
            .add_value(Value::with_kind(name, Some(ty), kind))
            .unwrap()
    }

    fn number(&mut self, name: &str, number: f32) -> ValueId {
        let tensor = Tensor::from_f32(&[], &[number]);
        self.0.add_value(Value::initializer(name, tensor)).unwrap()
    }

    fn exchanged(&mut self, name: &str, x: ValueId) -> ValueId {
        self.with(
            "Transpose",
            name,
            &[x],
            vec![Attribute::ints("perm", [0, 1, 3, 2])],
        )
    }

    /// Probabilities of scaled scores with a mask.
    fn probabilities(&mut self, of: &Tensors, mask: Option<ValueId>) -> ValueId {
        let keys = self.exchanged("keys_t", of.keys);
        let scale = self.number("scale", 0.125);
        let scores = self.node("MatMul", "scores", &[of.queries, keys]);
        let scaled = self.node("Mul", "scaled", &[scores, scale]);
        let masked = match mask {
            Some(mask) => self.node("Add", "masked", &[mask, scaled]),
            None => scaled,
        };
        self.node("Softmax", "probabilities", &[masked])
    }

    /// The forms of attention nodes of the fused graph.
    fn attentions(mut self, outputs: &[ValueId]) -> Vec<Form> {
        outputs.iter().for_each(|id| self.0.add_output(*id));
        let mut model = Model::new("test.onnx", self.0, 10, 20);
        fuse(&mut model, &mut Sink::new()).unwrap();
        assert!(
            model.graph.verify().is_empty(),
            "{:?}",
            model.graph.verify()
        );
        let order = model.graph.order().unwrap();
        let nodes: Vec<_> = order.iter().map(|id| model.graph.node(*id)).collect();
        let found = nodes.iter().filter(|node| &*node.op.op_type == OPERATOR);
        found
            .map(|node| Form::decode(node.ints(FORM).unwrap()).unwrap())
            .collect()
    }
}

#[test]
fn attention_becomes_a_node() {
    let (mut draft, of) = new();
    let mask = draft.input("mask", &["batch", "1", "n", "m"]);
    let p = draft.probabilities(&of, Some(mask));
    let result = draft.node("MatMul", "result", &[p, of.values]);
    let forms = draft.attentions(&[result]);
    let expected = Form {
        scale: 0.125,
        keys: Keys::Rows,
        guards: false,
        has_mask: true,
        has_inner: false,
        gradients: Vec::new(),
    };
    assert_eq!(forms, [expected]);
}

/// What leads back, as a gradient rule writes it that does not know the result.
struct Back {
    of_probabilities: ValueId,
    of_scores: ValueId,
    queries: ValueId,
    keys: ValueId,
    values: ValueId,
}

/// Scores are not scaled, and keys lie in columns.
fn backwards(draft: &mut Draft, of: &Tensors, columns: ValueId, p: ValueId) -> Back {
    let values = draft.exchanged("values_t", of.values);
    let of_probabilities = draft.node("MatMul", "dp", &[of.of_result, values]);
    let weighted = draft.node("Mul", "weighted", &[of_probabilities, p]);
    let axes = Value::initializer("axes", Tensor::from_i64(&[1], &[3]));
    let axes = draft.0.add_value(axes).unwrap();
    let sum = draft.node("ReduceSum", "sum", &[weighted, axes]);
    let stretched = draft.node("Mul", "stretched", &[p, sum]);
    let of_scores = draft.node("Sub", "ds", &[weighted, stretched]);
    let rows = draft.exchanged("rows", columns);
    let queries = draft.node("MatMul", "dq", &[of_scores, rows]);
    let transposed = draft.exchanged("queries_t", of.queries);
    let keys = draft.node("MatMul", "dk", &[transposed, of_scores]);
    let transposed = draft.exchanged("p_t", p);
    Back {
        of_probabilities,
        of_scores,
        queries,
        keys,
        values: draft.node("MatMul", "dv", &[transposed, of.of_result]),
    }
}

fn both_ways() -> (Draft, Tensors, ValueId, ValueId, Back) {
    let (mut draft, of) = new();
    let columns = draft.input("columns", &["batch", "8", "64", "m"]);
    let scores = draft.node("MatMul", "scores", &[of.queries, columns]);
    let p = draft.node("Softmax", "p", &[scores]);
    let result = draft.node("MatMul", "result", &[p, of.values]);
    let back = backwards(&mut draft, &of, columns, p);
    (draft, of, p, result, back)
}

#[test]
fn what_leads_back_becomes_a_node() {
    let (draft, _, _, result, back) = both_ways();
    let forms = draft.attentions(&[result, back.queries, back.keys, back.values]);
    let gradients: Vec<&[Gradient]> = forms.iter().map(|form| &form.gradients[..]).collect();
    let expected = [
        Gradient::Values,
        Gradient::Queries,
        Gradient::Keys(Keys::Columns),
    ];
    assert_eq!(gradients, [&[][..], &expected]);
    assert_eq!((forms[0].keys, forms[0].scale), (Keys::Columns, 1.0));
}

/// Only some gradients are asked for.
#[test]
fn gradients_that_nobody_asks_for_are_not_computed() {
    let (draft, _, _, result, back) = both_ways();
    let forms = draft.attentions(&[result, back.values]);
    // What nobody reads is there until the file is written, and it reads probabilities.
    assert_eq!(forms.len(), 2);
    let (mut draft, of) = new();
    let p = draft.probabilities(&of, None);
    let transposed = draft.exchanged("p_t", p);
    let result = draft.node("MatMul", "result", &[p, of.values]);
    let values = draft.node("MatMul", "dv", &[transposed, of.of_result]);
    let forms = draft.attentions(&[result, values]);
    assert_eq!(forms[1].gradients, [Gradient::Values]);
}

/// Somebody else reads probabilities, or their gradients, or what scores are computed from.
#[test]
fn what_others_read_stays() {
    let (mut draft, _, p, result, back) = both_ways();
    let other = draft.node("Exp", "other", &[p]);
    let outputs = [result, back.queries, back.keys, back.values, other];
    assert_eq!(draft.attentions(&outputs), []);
    let (draft, _, p, result, back) = both_ways();
    let outputs = [result, back.queries, back.keys, back.values, p];
    assert_eq!(draft.attentions(&outputs), []);
    let (mut draft, _, _, result, back) = both_ways();
    let other = draft.node("Exp", "other", &[back.of_scores]);
    let outputs = [result, back.queries, back.keys, back.values, other];
    assert_eq!(draft.attentions(&outputs), []);
    let (draft, _, _, result, back) = both_ways();
    let outputs = [result, back.queries, back.keys, back.values, back.of_scores];
    assert_eq!(draft.attentions(&outputs), []);
    // A gradient that is read besides costs nothing but its own product.
    let (mut draft, _, _, result, back) = both_ways();
    let other = draft.node("Exp", "other", &[back.of_probabilities]);
    let outputs = [result, back.queries, back.keys, back.values, other];
    assert_eq!(draft.attentions(&outputs).len(), 2);
}

/// Gradients that would wait for themselves if they were computed together.
#[test]
fn a_cycle_is_not_made() {
    let (mut draft, of) = new();
    let columns = draft.input("columns", &["batch", "8", "64", "m"]);
    let scores = draft.node("MatMul", "scores", &[of.queries, columns]);
    let p = draft.node("Softmax", "p", &[scores]);
    let values = draft.exchanged("values_t", of.values);
    let transposed = draft.exchanged("p_t", p);
    let dv = draft.node("MatMul", "dv", &[transposed, of.of_result]);
    let dp = draft.node("MatMul", "dp", &[of.of_result, values]);
    let inner = draft.input("inner", &["batch", "8", "n", "1"]);
    let axes = Value::initializer("axes", Tensor::from_i64(&[2], &[2, 3]));
    let axes = draft.0.add_value(axes).unwrap();
    let sum = draft.node("ReduceSum", "sum", &[dv, axes]);
    let late = draft.node("Add", "late", &[inner, sum]);
    for (inner, expected) in [(late, 0), (inner, 1)] {
        let mut draft = Draft(draft.0.clone());
        let difference = draft.node("Sub", "difference", &[dp, inner]);
        let ds = draft.node("Mul", "ds", &[p, difference]);
        let rows = draft.exchanged("rows", columns);
        let dq = draft.node("MatMul", "dq", &[ds, rows]);
        let forms = draft.attentions(&[dv, dq, late]);
        assert_eq!(forms.len(), expected);
    }
}

/// Values that are computed from the same probabilities.
#[test]
fn what_is_read_is_not_computed_along() {
    let (mut draft, of) = new();
    let keys = draft.exchanged("keys_t", of.keys);
    let scores = draft.node("MatMul", "scores", &[of.queries, keys]);
    let p = draft.node("Softmax", "p", &[scores]);
    let transposed = draft.exchanged("p_t", p);
    let values = draft.node("MatMul", "x", &[transposed, of.of_result]);
    let result = draft.node("MatMul", "y", &[p, values]);
    assert_eq!(draft.attentions(&[result]), []);
}

/// Of two that would wait for each other only one is computed together.
#[test]
fn two_do_not_wait_for_each_other() {
    let (mut draft, of) = new();
    let columns = draft.input("columns", &["batch", "8", "64", "m"]);
    let rows = draft.exchanged("rows", columns);
    let values = draft.exchanged("values_t", of.values);
    let axes = Value::initializer("axes", Tensor::from_i64(&[2], &[2, 3]));
    let axes = draft.0.add_value(axes).unwrap();
    let own = draft.input("inner", &["batch", "8", "n", "1"]);
    let mut halves = Vec::new();
    for of_query in ["a", "b"] {
        let queries = draft.input(of_query, &["batch", "8", "n", "64"]);
        let node = |name: &str| format!("{of_query}.{name}");
        let scores = draft.node("MatMul", &node("scores"), &[queries, columns]);
        let p = draft.node("Softmax", &node("p"), &[scores]);
        let transposed = draft.exchanged(&node("p_t"), p);
        let dv = draft.node("MatMul", &node("dv"), &[transposed, of.of_result]);
        let sum = draft.node("ReduceSum", &node("sum"), &[dv, axes]);
        let dp = draft.node("MatMul", &node("dp"), &[of.of_result, values]);
        let late = draft.node("Add", &node("late"), &[own, sum]);
        halves.push((p, dv, dp, late));
    }
    let mut outputs = Vec::new();
    for at in 0..2 {
        let ((p, dv, dp, _), (_, _, _, late)) = (halves[at], halves[1 - at]);
        let difference = draft.node("Sub", &format!("{at}.difference"), &[dp, late]);
        let ds = draft.node("Mul", &format!("{at}.ds"), &[p, difference]);
        outputs.extend([dv, draft.node("MatMul", &format!("{at}.dq"), &[ds, rows])]);
    }
    assert_eq!(draft.attentions(&outputs).len(), 1);
}

/// A kernel stretches nothing but the mask, and that to the sizes of the scores.
#[test]
fn what_is_stretched_stays() {
    for (queries, mask, values, fuses) in [
        ("n", &["batch", "1", "n", "m"][..], "8", true),
        ("n", &["m"], "8", true),
        ("n", &["1", "8", "1", "1"], "8", true),
        // Scores would become more.
        ("1", &["batch", "1", "n", "m"], "8", false),
        ("n", &["other", "batch", "8", "n", "m"], "8", false),
        ("n", &["other", "1", "n", "m"], "8", false),
        ("n", &["batch", "1", "n", "m"], "1", false),
    ] {
        let (mut draft, of) = new();
        let queries = draft.input("own", &["batch", "8", queries, "64"]);
        let mask = draft.input("mask", mask);
        let values = draft.input("v", &["batch", values, "m", "64"]);
        let of = Tensors { queries, ..of };
        let p = draft.probabilities(&of, Some(mask));
        let result = draft.node("MatMul", "result", &[p, values]);
        let forms = draft.attentions(&[result]);
        assert_eq!(forms.len(), usize::from(fuses));
    }
}
