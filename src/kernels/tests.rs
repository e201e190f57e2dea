use super::*;
use std::ops::Range;

/// Numbers that are the same in every run (Steele, Lea and Flood's SplitMix).
struct Rng(u64);

impl Rng {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 24) as f32
    }

    fn index(&mut self, range: Range<usize>) -> usize {
        range.start + (self.bits() % range.len() as u64) as usize
    }
}

/// A tensor with its sizes.
#[derive(Clone)]
struct Tensor {
    dims: Vec<usize>,
    values: Vec<f32>,
}

fn tensor(rng: &mut Rng, dims: &[usize]) -> Tensor {
    let count = dims.iter().product();
    Tensor {
        dims: dims.to_vec(),
        values: (0..count).map(|_| 6.0 * rng.unit() - 3.0).collect(),
    }
}

/// Runs a program, task by task from the last to the first.
fn run(program: &Program, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
    run_on(program, inputs, Processor::Own)
}

#[derive(Clone, Copy, PartialEq)]
enum Processor {
    Own,
    /// One without wide instructions.
    Narrow,
}

fn run_on(
    program: &Program,
    inputs: &[Tensor],
    processor: Processor,
) -> Result<Vec<Tensor>, String> {
    let truths: Vec<Vec<u8>> = inputs.iter().map(truths).collect();
    let integers: Vec<Vec<i64>> = inputs.iter().map(integers).collect();
    let dims: Vec<Vec<usize>> = inputs.iter().map(|t| t.dims.clone()).collect();
    let plan = Plan::new(program, &dims)?;
    let sources = program
        .inputs
        .iter()
        .enumerate()
        .map(|(at, kind)| match kind {
            Kind::F32 => Source::floats(&inputs[at].values),
            Kind::Bool => Source::truths(&truths[at]),
            Kind::I64 => Source::integers(&integers[at]),
        });
    let sources: Vec<Source<'_>> = sources.collect();
    let counts = plan.outputs().iter().map(|dims| dims.iter().product());
    let mut found: Vec<Vec<f32>> = counts.map(|count| vec![f32::NAN; count]).collect();
    let targets: Vec<Target<'_>> = found.iter_mut().map(|t| Target::floats(t)).collect();
    compute(program, &plan, &sources, &targets, processor)?;
    let dims = plan.outputs().iter().cloned();
    Ok(dims
        .zip(found)
        .map(|(dims, values)| Tensor { dims, values })
        .collect())
}

#[allow(unsafe_code)]
fn compute(
    program: &Program,
    plan: &Plan,
    sources: &[Source<'_>],
    targets: &[Target<'_>],
    processor: Processor,
) -> Result<(), String> {
    let run = Run::new(program, plan, sources, targets)?;
    // SAFETY: one after the other.
    (0..plan.tasks()).rev().try_for_each(|task| unsafe {
        match processor {
            Processor::Own => run.task(task),
            Processor::Narrow => run.narrow_task(task),
        }
    })
}

fn truths(tensor: &Tensor) -> Vec<u8> {
    tensor.values.iter().map(|v| u8::from(*v > 0.0)).collect()
}

fn integers(tensor: &Tensor) -> Vec<i64> {
    tensor.values.iter().map(|v| *v as i64).collect()
}

/// What a row of a value is, element by element in 64 bits.
fn row(program: &Program, value: usize, rows: &[Vec<f64>]) -> Vec<f64> {
    let inputs = program.inputs.len();
    let Some(step) = value.checked_sub(inputs).map(|at| &program.steps[at]) else {
        return rows[value].clone();
    };
    let operands: Vec<Vec<f64>> = step
        .operands
        .iter()
        .map(|v| row(program, *v as usize, rows))
        .collect();
    let length = operands.iter().map(Vec::len).max().unwrap_or(1);
    let at = |slot: usize, i: usize| operands[slot][i.min(operands[slot].len() - 1)];
    let each = |f: &dyn Fn(usize) -> f64| (0..length).map(f).collect::<Vec<f64>>();
    let x = |i| at(0, i);
    let sum = |row: &[f64]| row.iter().sum::<f64>();
    let place = |slot: usize| {
        let index = operands[slot][0];
        (if index < 0.0 {
            index + operands[0].len() as f64
        } else {
            index
        }) as usize
    };
    let exp_sum = || operands[0].iter().map(|x| x.exp()).sum::<f64>();
    match step.op {
        Op::Number => vec![f64::from(f32::from_bits(step.numbers[0] as u32))],
        Op::Neg => each(&|i| -x(i)),
        Op::Exp => each(&|i| x(i).exp()),
        Op::Log => each(&|i| x(i).ln()),
        Op::Sqrt => each(&|i| x(i).sqrt()),
        Op::Reciprocal => each(&|i| x(i).recip()),
        Op::Sigmoid => each(&|i| 1.0 / (1.0 + (-x(i)).exp())),
        Op::Tanh => each(&|i| x(i).tanh()),
        Op::Erf => each(&|i| erf(x(i))),
        Op::Square => each(&|i| x(i) * x(i)),
        Op::Add => each(&|i| x(i) + at(1, i)),
        Op::Sub => each(&|i| x(i) - at(1, i)),
        Op::Mul => each(&|i| x(i) * at(1, i)),
        Op::Div => each(&|i| x(i) / at(1, i)),
        Op::Max => each(&|i| x(i).max(at(1, i))),
        Op::Min => each(&|i| x(i).min(at(1, i))),
        Op::Select => each(&|i| if x(i) != 0.0 { at(1, i) } else { at(2, i) }),
        Op::Sum => vec![sum(&operands[0])],
        Op::Mean => vec![sum(&operands[0]) / operands[0].len() as f64],
        Op::Largest => vec![
            operands[0]
                .iter()
                .copied()
                .fold(f64::NEG_INFINITY, f64::max),
        ],
        Op::Softmax => each(&|i| x(i).exp() / exp_sum()),
        Op::LogSoftmax => each(&|i| x(i) - exp_sum().ln()),
        Op::Slice => operands[0][step.numbers[0] as usize..step.numbers[1] as usize].to_vec(),
        Op::Concat => operands.concat(),
        Op::Pick => vec![operands[0][place(1)]],
        Op::AddAt => {
            let mut found = operands[0].clone();
            found[place(1)] += operands[2][0];
            found
        }
    }
}

fn erf(x: f64) -> f64 {
    // Simpson's rule: exact to 1e-12 with so many parts.
    let (parts, size) = (2000, x.abs().min(6.0));
    let width = size / parts as f64;
    let weight = |i: usize| match i {
        0 => 1.0,
        i if i == parts => 1.0,
        i => 2.0 + 2.0 * (i % 2) as f64,
    };
    let sum: f64 = (0..=parts)
        .map(|i| weight(i) * (-(i as f64 * width).powi(2)).exp())
        .sum();
    (sum * width / 3.0 * std::f64::consts::FRAC_2_SQRT_PI).copysign(x)
}

/// Compares with the program computed row by row and number by number.
fn check(program: &Program, inputs: &[Tensor], tolerance: f64) {
    let again = Program::decode(&program.encode());
    assert_eq!(again.as_ref(), Some(program));
    for processor in [Processor::Own, Processor::Narrow] {
        check_on(program, inputs, tolerance, processor);
    }
}

fn check_on(program: &Program, inputs: &[Tensor], tolerance: f64, processor: Processor) {
    let found = run_on(program, inputs, processor);
    let found = found.unwrap_or_else(|why| panic!("{why}: {program:?}"));
    let lead = found[0].dims[..found[0].dims.len() - 1].to_vec();
    for at in 0..lead.iter().product::<usize>() {
        let rows: Vec<Vec<f64>> = inputs
            .iter()
            .zip(&program.inputs)
            .map(|(tensor, kind)| {
                let length = *tensor.dims.last().expect("has rows");
                let (mut rest, mut start, mut stride) = (at, 0, length);
                for (axis, size) in lead.iter().enumerate().rev() {
                    let own = (axis + tensor.dims.len()).checked_sub(lead.len() + 1);
                    let size_here = own.map_or(1, |own| tensor.dims[own]);
                    start += if size_here == 1 {
                        0
                    } else {
                        rest % size * stride
                    };
                    stride *= size_here;
                    rest /= size;
                }
                let values = tensor.values[start..start + length].iter();
                values
                    .map(|v| match kind {
                        Kind::F32 => f64::from(*v),
                        Kind::Bool => f64::from(u8::from(*v > 0.0)),
                        Kind::I64 => *v as i64 as f64,
                    })
                    .collect()
            })
            .collect();
        for (tensor, value) in found.iter().zip(&program.outputs) {
            let expected = row(program, *value as usize, &rows);
            let own = &tensor.values[at * expected.len()..(at + 1) * expected.len()];
            for (own, expected) in own.iter().zip(&expected) {
                let error = (f64::from(*own) - expected).abs();
                let is_close = error <= tolerance * (1.0 + expected.abs());
                assert!(
                    is_close,
                    "{own} where {expected} is right, row {at} of {program:?}"
                );
            }
        }
    }
}

fn program(inputs: &[Kind], steps: Vec<Step>, outputs: &[u32]) -> Program {
    Program {
        inputs: inputs.to_vec(),
        steps,
        outputs: outputs.to_vec(),
    }
}

#[test]
fn every_step_is_what_it_says() {
    let mut rng = Rng(1);
    for op in Op::ALL {
        let (kinds, step) = match op {
            Op::Number => (vec![], Step::number(1.5)),
            Op::Slice => (vec![Kind::F32], Step::slice(0, 2, 7)),
            Op::Concat => (vec![Kind::F32; 3], Step::new(*op, vec![0, 2, 1])),
            Op::Pick => (vec![Kind::F32, Kind::I64], Step::new(*op, vec![0, 1])),
            Op::AddAt => (
                vec![Kind::F32, Kind::I64, Kind::F32],
                Step::new(*op, vec![0, 1, 2]),
            ),
            Op::Select => (
                vec![Kind::Bool, Kind::F32, Kind::F32],
                Step::new(*op, vec![0, 1, 2]),
            ),
            op => {
                let count = op.operands().expect("has a fixed number");
                (
                    vec![Kind::F32; count],
                    Step::new(*op, (0..count as u32).collect()),
                )
            }
        };
        // With a step behind it, so that the lengths of all kinds of results are used.
        let defined = kinds.len() as u32;
        let mut kinds = kinds;
        kinds.push(Kind::F32);
        let shift = |v: u32| if v >= defined { v + 1 } else { v };
        let step = Step {
            operands: step.operands.iter().map(|v| shift(*v)).collect(),
            ..step
        };
        let behind = Step::new(Op::Mul, vec![defined + 1, defined]);
        let tested = program(&kinds, vec![step, behind], &[defined + 2, defined + 1]);
        for width in [1, 9, 40] {
            let width = if *op == Op::Slice {
                width.max(7)
            } else {
                width
            };
            let mut inputs: Vec<Tensor> = kinds
                .iter()
                .map(|_| tensor(&mut rng, &[2, 3, width]))
                .collect();
            inputs[defined as usize] = tensor(&mut rng, &[3, 1]);
            for (input, kind) in inputs.iter_mut().zip(&kinds) {
                if *kind == Kind::I64 {
                    *input = tensor(&mut rng, &[2, 1, 1]);
                    input
                        .values
                        .iter_mut()
                        .for_each(|v| *v = v.clamp(-(width as f32), width as f32 - 1.0));
                }
            }
            if *op == Op::AddAt {
                inputs[2] = tensor(&mut rng, &[2, 3, 1]);
            }
            if [Op::Sqrt, Op::Log].contains(op) {
                inputs[0].values.iter_mut().for_each(|v| *v = v.abs() + 0.1);
            }
            if matches!(op, Op::Div | Op::Reciprocal) {
                let slot = op.operands().expect("is fixed") - 1;
                inputs[slot]
                    .values
                    .iter_mut()
                    .for_each(|v| *v += 0.5_f32.copysign(*v));
            }
            if *op != Op::Number {
                check(&tested, &inputs, 3e-6);
            }
        }
    }
}

#[test]
fn operands_are_stretched_as_onnx_has_it() {
    let mut rng = Rng(2);
    let sizes = [1, 2, 3, 5];
    for round in 0..300 {
        let rank = rng.index(1..5);
        let whole: Vec<usize> = (0..rank).map(|_| sizes[rng.index(0..4)]).collect();
        let mut inputs = Vec::new();
        for _ in 0..3 {
            let skipped = rng.index(0..rank);
            let stretched = |size: &usize| if rng.unit() < 0.4 { 1 } else { *size };
            let dims: Vec<usize> = whole[skipped..].iter().map(stretched).collect();
            inputs.push(tensor(&mut rng, &dims));
        }
        inputs.push(tensor(&mut rng, &whole));
        let mut steps = vec![
            Step::new(Op::Mul, vec![0, 1]),
            Step::new(Op::Sub, vec![2, 4]),
            Step::number(0.25),
            Step::new(Op::Mul, vec![6, 5]),
            Step::new(Op::Add, vec![7, 3]),
        ];
        if round % 2 == 1 {
            steps.push(Step::new(Op::Mean, vec![8]));
            steps.push(Step::new(Op::Sub, vec![8, 9]));
        }
        let outputs: &[u32] = if round % 2 == 1 { &[9, 10, 4] } else { &[8, 5] };
        check(&program(&[Kind::F32; 4], steps, outputs), &inputs, 3e-6);
    }
}

#[test]
fn long_rows_are_computed_in_pieces_and_in_tasks() {
    let mut rng = Rng(3);
    let steps = vec![
        Step::new(Op::Mul, vec![0, 1]),
        Step::new(Op::Sigmoid, vec![2]),
        Step::new(Op::Mul, vec![2, 3]),
    ];
    let gate = program(&[Kind::F32; 2], steps, &[4, 3]);
    for (dims, other) in [(vec![7, 11, 1408], vec![1408]), (vec![100_000], vec![1])] {
        let inputs = [tensor(&mut rng, &dims), tensor(&mut rng, &other)];
        check(&gate, &inputs, 3e-6);
    }
    let plan = Plan::new(&gate, &[vec![7, 11, 1408], vec![1]]).expect("fits");
    assert!(plan.pieces > 1 && plan.lead.is_empty() && plan.tasks() > 1);
}

#[test]
fn a_result_may_lie_where_an_operand_of_its_size_lies() {
    let mut rng = Rng(4);
    let steps = vec![
        Step::new(Op::Softmax, vec![0]),
        Step::new(Op::Mul, vec![2, 1]),
        Step::new(Op::Add, vec![3, 0]),
    ];
    let tested = program(&[Kind::F32; 2], steps, &[4, 2]);
    let inputs = [tensor(&mut rng, &[50, 300]), tensor(&mut rng, &[50, 1])];
    let expected = run(&tested, &inputs).expect("runs");
    let plan = Plan::new(&tested, &[vec![50, 300], vec![50, 1]]).expect("fits");
    let mut place = inputs[0].values.clone();
    let mut other = vec![0.0; place.len()];
    let place = Target::floats(&mut place);
    let sources = [place.as_source(), Source::floats(&inputs[1].values)];
    compute(
        &tested,
        &plan,
        &sources,
        &[place, Target::floats(&mut other)],
        Processor::Own,
    )
    .expect("runs");
    assert_eq!(place.to_vec(), expected[0].values);
    assert_eq!(other, expected[1].values);
    // Every row reads all of the operand, of which the first would overwrite a part.
    let steps = vec![Step::slice(0, 0, 2), Step::new(Op::Add, vec![2, 1])];
    let stretched = program(&[Kind::F32; 2], steps, &[3]);
    let plan = Plan::new(&stretched, &[vec![1, 6], vec![3, 1]]).expect("fits");
    let mut place = vec![1.0; 6];
    let place = Target::floats(&mut place);
    let sources = [place.as_source(), Source::floats(&[0.0; 3])];
    let refused = compute(&stretched, &plan, &sources, &[place], Processor::Own);
    assert!(refused.is_err_and(|why| why.contains("memory of another operand")));
    // One row further it would be overwritten before it is read.
    let small = Plan::new(&tested, &[vec![49, 300], vec![49, 1]]).expect("fits");
    let mut long = inputs[0].values.clone();
    let long = Target::floats(&mut long);
    let sources = [
        long.part(300, 49 * 300).as_source(),
        Source::floats(&inputs[1].values[..49]),
    ];
    let mut other = vec![0.0; 49 * 300];
    let targets = [long.part(0, 49 * 300), Target::floats(&mut other)];
    let refused = compute(&tested, &small, &sources, &targets, Processor::Own);
    assert!(refused.is_err_and(|why| why.contains("memory of another operand")));
}

#[test]
fn what_does_not_fit_is_refused() {
    let sum = program(&[Kind::F32; 2], vec![Step::new(Op::Add, vec![0, 1])], &[2]);
    let refused = |program: &Program, dims: &[Vec<usize>]| Plan::new(program, dims).err();
    assert!(refused(&sum, &[vec![2, 3], vec![2, 4]]).is_some());
    assert!(refused(&sum, &[vec![2, 3], vec![3, 3]]).is_some());
    assert!(refused(&sum, &[vec![2, 3]]).is_some());
    let slice = program(&[Kind::F32], vec![Step::slice(0, 2, 5)], &[1]);
    assert!(refused(&slice, &[vec![4]]).is_some());
    let pick = program(
        &[Kind::F32, Kind::I64],
        vec![Step::new(Op::Pick, vec![0, 1])],
        &[2],
    );
    assert!(refused(&pick, &[vec![4, 8], vec![4, 2]]).is_some());
    let rows = Tensor {
        dims: vec![1, 3],
        values: vec![1.0, 2.0, 3.0],
    };
    for index in [3.0, -4.0] {
        let index = Tensor {
            dims: vec![1, 1],
            values: vec![index],
        };
        let found = run(&pick, &[rows.clone(), index]);
        assert!(found.is_err_and(|why| why.contains("outside a row of 3")));
    }
}

#[test]
fn nothing_is_computed_of_nothing() {
    let steps = vec![Step::new(Op::Softmax, vec![0]), Step::new(Op::Neg, vec![1])];
    let tested = program(&[Kind::F32], steps, &[2]);
    for dims in [vec![0, 4], vec![4, 0], vec![0]] {
        let empty = Tensor {
            dims: dims.clone(),
            values: Vec::new(),
        };
        let found = run(&tested, &[empty]).expect("runs");
        assert_eq!(found[0].dims, dims);
    }
}

#[test]
fn masked_scores_and_lost_numbers_come_out_as_from_the_operators() {
    let softmax = program(&[Kind::F32], vec![Step::new(Op::Softmax, vec![0])], &[1]);
    let of = |values: &[f32]| {
        let row = Tensor {
            dims: vec![1, values.len()],
            values: values.to_vec(),
        };
        run(&softmax, &[row]).expect("runs").remove(0).values
    };
    let (least, most) = (f32::NEG_INFINITY, f32::MAX);
    assert_eq!(of(&[0.0, least, 0.0]), [0.5, 0.0, 0.5]);
    assert_eq!(of(&[0.0, -most, 0.0]), [0.5, 0.0, 0.5]);
    assert_eq!(of(&[-most, -most]), [0.5, 0.5]);
    assert!(of(&[least, least]).iter().all(|x| x.is_nan()));
    assert!(of(&[1.0, f32::NAN]).iter().all(|x| x.is_nan()));
}

#[test]
fn functions_are_as_close_as_stated() {
    check_functions::<true>();
    check_functions::<false>();
}

fn check_functions<const FUSED: bool>() {
    let points = (0..400_000).map(|i| (i as f32 - 200_000.0) * 5e-4);
    let relative =
        |found: f32, exact: f64| (f64::from(found) - exact).abs() / exact.abs().max(2e-38);
    let mut worst = [0.0_f64; 4];
    for x in points {
        let wide = f64::from(x);
        let is_normal = (-86.9..88.7).contains(&x);
        let far = (f64::from(math::erf::<FUSED>(x)) - wide.signum()).abs();
        let found = [
            if is_normal {
                relative(math::exp::<FUSED>(x), wide.exp())
            } else {
                0.0
            },
            if x > -86.9 {
                relative(math::sigmoid::<FUSED>(x), 1.0 / (1.0 + (-wide).exp()))
            } else {
                0.0
            },
            relative(math::tanh::<FUSED>(x), wide.tanh()),
            if x.abs() > 6.0 { far } else { 0.0 },
        ];
        for (worst, found) in worst.iter_mut().zip(found) {
            *worst = worst.max(found);
        }
    }
    assert!(math::sigmoid::<FUSED>(-87.0) < 2e-38 && math::exp::<FUSED>(-87.0) == 0.0);
    for x in (0..1300).map(|i| (i as f32 - 650.0) * 0.01) {
        worst[3] = worst[3].max((f64::from(math::erf::<FUSED>(x)) - erf(f64::from(x))).abs());
    }
    assert!(
        worst[0] < 2e-7 && worst[1] < 3e-7 && worst[2] < 3e-7 && worst[3] < 2e-7,
        "{worst:?}"
    );
    assert_eq!(math::exp::<FUSED>(f32::NEG_INFINITY), 0.0);
    assert_eq!(math::exp::<FUSED>(f32::INFINITY), f32::INFINITY);
    for function in [
        math::exp::<FUSED>,
        math::sigmoid::<FUSED>,
        math::tanh::<FUSED>,
        math::erf::<FUSED>,
    ] {
        assert!(function(f32::NAN).is_nan());
    }
}

#[test]
fn what_is_no_program_is_not_read() {
    let mut rng = Rng(5);
    let steps = vec![Step::new(Op::Concat, vec![0, 1]), Step::slice(2, 1, 3)];
    let whole = program(&[Kind::F32, Kind::Bool], steps, &[3]).encode();
    assert!(Program::decode(&whole).is_some());
    for _ in 0..20_000 {
        let mut numbers = whole.clone();
        numbers.truncate(rng.index(0..whole.len() + 1));
        if let Some(place) = numbers.len().checked_sub(1) {
            numbers[rng.index(0..place + 1)] = rng.index(0..33) as i64 - 3;
        }
        if let Some(program) = Program::decode(&numbers) {
            let dims: Vec<Vec<usize>> = program.inputs.iter().map(|_| vec![2, 5]).collect();
            let inputs: Vec<Tensor> = dims.iter().map(|dims| tensor(&mut rng, dims)).collect();
            let _ = run(&program, &inputs);
        }
    }
}
