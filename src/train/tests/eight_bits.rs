//! States of an optimizer in codes of 8 bits.

use super::{floats, get, integer, made, model, recipe, run};
use crate::reference::Array;
use crate::train::{Adam, Moments, Optimizer, Task, TrainingGraph};
use crate::ty::DType;

/// Of the only parameter.
const COUNT: usize = 300;

/// Updates of `w` towards a target by gradients with noise; the distance after every step, and the
/// states behind the last one.
fn distances(moments: Moments, steps: i64) -> (Vec<f64>, Vec<(String, Array)>) {
    let adam = Adam {
        moments,
        ..Adam::default()
    };
    let recipe = recipe(Task::Regression, Optimizer::AdamW(adam));
    let graphs = made(&model(&[COUNT as i64], None), &recipe);
    let mut carried = start(&graphs.update);
    let target = |at: usize| (at % 17) as f64 * 0.1 - 0.8;
    let mut found = Vec::new();
    for step in 1..=steps {
        let w = get(&carried, "w");
        let gradient = w.iter().enumerate().map(|(at, w)| {
            let noise = ((at * 31 + step as usize * 57) % 101) as f64 * 2e-3 - 0.1;
            // Elements of a block lie far apart.
            (w - target(at) + noise) * 10_f64.powi(-((at % 5) as i32))
        });
        let mut inputs: Vec<(&str, Array)> = carried
            .iter()
            .map(|(name, array)| (name.as_str(), array.clone()))
            .collect();
        inputs.push(("w.grad", floats(&[COUNT], &gradient.collect::<Vec<f64>>())));
        inputs.push(("learning_rate", floats(&[], &[1e-2])));
        inputs.push(("step", integer(step)));
        let results = run(&graphs.update, &inputs);
        let next = carried.iter().map(|(name, _)| {
            let result = format!("{name}.next");
            let (_, array) = results.iter().find(|(other, _)| *other == result).unwrap();
            (name.clone(), array.clone())
        });
        carried = next.collect();
        let w = get(&carried, "w");
        let squares = w.iter().enumerate().map(|(at, w)| (w - target(at)).powi(2));
        found.push((squares.sum::<f64>() / COUNT as f64).sqrt());
    }
    (found, carried)
}

/// Zeros for everything that is carried.
fn start(update: &TrainingGraph) -> Vec<(String, Array)> {
    let ports = update.inputs.iter().filter(|port| {
        let fed = update.outputs.iter();
        fed.filter_map(|output| output.feeds.as_ref())
            .any(|name| *name == port.name)
    });
    let zeros = ports.map(|port| {
        let dims = port.ty.shape.as_ref().unwrap().known().unwrap();
        let sizes: Vec<usize> = dims.iter().map(|dim| *dim as usize).collect();
        let count = sizes.iter().product();
        let array = match port.ty.dtype {
            DType::F32 => floats(&sizes, &vec![0.0; count]),
            other => Array::ints(other, &sizes, vec![0; count]).unwrap(),
        };
        (port.name.clone(), array)
    });
    zeros.collect()
}

#[test]
fn the_state_takes_a_quarter() {
    let (_, carried) = distances(Moments::Int8, 1);
    let named = |name: &str| carried.iter().find(|(other, _)| other == name).unwrap();
    let about: Vec<(DType, Vec<usize>)> =
        ["exp_avg", "exp_avg.scale", "exp_avg_sq", "exp_avg_sq.scale"]
            .iter()
            .map(|name| named(&format!("optimizer.{name}")))
            .map(|(_, array)| (array.dtype(), array.dims().to_vec()))
            .collect();
    let expected = [
        (DType::I8, vec![2, 256]),
        (DType::F32, vec![2, 1]),
        (DType::U8, vec![2, 256]),
        (DType::F32, vec![2, 1]),
    ];
    assert_eq!(about, expected);
}

/// Codes space numbers by up to a tenth, and still every step of the way is within two hundredths of
/// the way that the states themselves would have gone.
#[test]
fn the_way_is_that_of_states_in_32_bits() {
    let (whole, _) = distances(Moments::F32, 200);
    let (codes, carried) = distances(Moments::Int8, 200);
    assert!(whole[199] < 0.3 * whole[0], "{} {}", whole[0], whole[199]);
    for (step, (a, b)) in whole.iter().zip(&codes).enumerate() {
        assert!(
            (a - b).abs() <= 0.02 * whole[0],
            "step {step}: {b} is not {a}"
        );
    }
    // No second moment has become zero, not even of gradients that are ten thousand times smaller.
    let squares = get(&carried, "optimizer.exp_avg_sq");
    assert!(squares[..COUNT].iter().all(|code| *code >= 1.0));
}

#[test]
fn a_step_is_the_same_again() {
    assert_eq!(distances(Moments::Int8, 5).0, distances(Moments::Int8, 5).0);
    // Half way and on is what the whole way is: thresholds come from the number of the step.
    let (whole, _) = distances(Moments::Int8, 6);
    assert_eq!(whole[..3], distances(Moments::Int8, 3).0[..]);
}
