//! Heads on a model of a few nodes.

use super::*;
use crate::train::{Head, Pool, Trains, add_head, plan_head};

/// `y = x + w` of `f32[2, 3, 2]` with a mask of its tokens.
fn with_mask() -> Model {
    let mut model = model(&[2, 3, 2], None);
    let ty = TensorType::new(DType::I64, Shape(vec![Dim::from(2), Dim::from(3)]));
    let kind = ValueKind::Input { default: None };
    let mask = Value::with_kind("attention_mask", Some(ty), kind);
    model.graph.add_value(mask).unwrap();
    model
}

fn head(pool: Pool, size: Option<i64>) -> Head {
    Head {
        on: None,
        pool,
        size,
        trains: Trains::default(),
    }
}

/// What the head's output is for tokens 1 to 6, whose second element is ten times the first.
fn pooled(mut model: Model, pool: Pool, mask: [i128; 6]) -> Vec<f64> {
    let mut sink = Sink::new();
    crate::passes::infer(&mut model, &mut sink).unwrap();
    let planned = plan_head(&model, &head(pool, None), &|_| false, &mut sink).unwrap();
    let added = add_head(&mut model, &planned, &[], &mut sink).unwrap();
    assert_eq!(added.output, "embedding");
    let x: Vec<f64> = (1..=6)
        .flat_map(|token| [token.into(), f64::from(10 * token)])
        .collect();
    let mut inputs = vec![("x", floats(&[2, 3, 2], &x))];
    if model.graph.find_value("attention_mask").is_some() {
        let mask = Array::ints(DType::I64, &[2, 3], mask.to_vec()).unwrap();
        inputs.push(("attention_mask", mask));
    }
    let found = reference::run(&model, &inputs, &reference::Options::default()).unwrap();
    get(&found, "embedding")
}

#[test]
fn padding_on_either_side_is_left_out() {
    let right_and_left = [1, 1, 0, 0, 1, 1];
    let of = |pool| pooled(with_mask(), pool, right_and_left);
    assert_eq!(of(Pool::Mean), [1.5, 15.0, 5.5, 55.0]);
    assert_eq!(of(Pool::Last), [2.0, 20.0, 6.0, 60.0]);
    assert_eq!(of(Pool::First), [1.0, 10.0, 4.0, 40.0]);
    let without = |pool| pooled(model(&[2, 3, 2], None), pool, [0; 6]);
    assert_eq!(without(Pool::Mean), [2.0, 20.0, 5.0, 50.0]);
    assert_eq!(without(Pool::Last), [3.0, 30.0, 6.0, 60.0]);
    assert_eq!(without(Pool::None).len(), 12);
}

/// Loss and gradients of a linear layer by hand: y = W p + b with one row of weights.
#[test]
fn the_linear_layer_is_trained() {
    let mut model = with_mask();
    let mut sink = Sink::new();
    crate::passes::infer(&mut model, &mut sink).unwrap();
    let planned = plan_head(
        &model,
        &head(Pool::Mean, Some(1)),
        &|name| name == "head",
        &mut sink,
    );
    let planned = planned.unwrap();
    assert_eq!(planned.module, "head_2");
    assert_eq!(
        planned.parameters(),
        [("weight", vec![1, 2]), ("bias", vec![1])]
    );
    let tensors = [
        Tensor::from_f32(&[1, 2], &[2.0, 0.5]),
        Tensor::from_f32(&[1], &[1.0]),
    ];
    let added = add_head(&mut model, &planned, &tensors, &mut sink).unwrap();
    assert_eq!(added.output, "logits");
    let parameters = added.initializers.iter().map(|name| Parameter {
        initializer: name.clone(),
        module: Some("head_2".to_owned()),
        name: name.clone(),
        rate: 1.0,
    });
    let parameters: Vec<Parameter> = parameters.collect();
    let recipe = Recipe {
        output: Some(added.output),
        ..recipe(Task::Regression, Optimizer::AdamW(Adam::default()))
    };
    let graphs = graphs(&model, &parameters, &Hooks::default(), &recipe, &mut sink).unwrap();
    let ones = Array::ints(DType::I64, &[2, 3], vec![1, 1, 0, 1, 1, 1]).unwrap();
    let x = [1.0, 0.0, 3.0, 2.0, 9.0, 9.0, 0.0, 1.0, 0.0, 1.0, 3.0, 1.0];
    let inputs = [
        ("x", floats(&[2, 3, 2], &x)),
        ("attention_mask", ones),
        ("head_2.weight", floats(&[1, 2], &[2.0, 0.5])),
        ("head_2.bias", floats(&[1], &[1.0])),
        ("labels", floats(&[2], &[4.5, 3.5])),
    ];
    let found = run(&graphs.grad, &inputs);
    // Means (2, 1) and (1, 1) give 5.5 and 3.5: errors 1 and 0 of two.
    assert_close(&get(&found, "loss"), &[0.5]);
    assert_close(&get(&found, "head_2.weight.grad"), &[2.0, 1.0]);
    assert_close(&get(&found, "head_2.bias.grad"), &[1.0]);
}

#[test]
fn a_head_that_does_not_fit_is_refused() {
    let mut rows = model(&[4, 3], None);
    let mut sink = Sink::new();
    crate::passes::infer(&mut rows, &mut sink).unwrap();
    let codes = |head: &Head| {
        let mut sink = Sink::new();
        assert!(plan_head(&rows, head, &|_| false, &mut sink).is_err());
        sink.diagnostics()[0].code
    };
    assert_eq!(codes(&head(Pool::Mean, Some(2))), Code::E0755);
    let on = Some("nothing".to_owned());
    let head = Head {
        on,
        ..head(Pool::None, Some(2))
    };
    assert_eq!(codes(&head), Code::E0752);
}
