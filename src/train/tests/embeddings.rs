//! Losses of embeddings and of a teacher, against PyTorch's (`fixtures/peft/make_training.py`).

use super::*;

fn contrast(labels: [i64; 2]) -> (f64, Vec<f64>) {
    let task = Task::Contrastive { temperature: 0.5 };
    loss(task, Array::vector(&labels))
}

#[test]
fn anchors_are_compared_with_all_other_rows() {
    let (value, gradient) = contrast([0, 1]);
    assert_close(&[value], &[2.0552042507067316]);
    assert_close(
        &gradient,
        &[
            0.193235709,
            0.0164341142,
            -0.452207875,
            -0.257920361,
            0.0138933769,
            0.013228471,
            -0.272211807,
            -0.903492249,
            0.0,
            -0.187506389,
            0.219530969,
            -0.15548181,
        ],
    );
    let (value, gradient) = contrast([1, -100]);
    assert_close(&[value], &[0.36776997250390014]);
    assert_close(
        &gradient,
        &[
            -0.171790303,
            -0.0146102471,
            0.402021595,
            0.0,
            0.0,
            0.0,
            0.268603174,
            0.537206348,
            0.0,
            0.0182761311,
            -0.155347114,
            -0.118794852,
        ],
    );
}

#[test]
fn cosines_follow_their_scores() {
    let (value, gradient) = loss(Task::Cosine, floats(&[2], &[0.75, -0.5]));
    assert_close(&[value], &[0.1414428336517079]);
    assert_close(
        &gradient,
        &[
            0.0221036895,
            0.0442073791,
            -0.221036895,
            0.00254217115,
            0.000773866806,
            0.000173216564,
            -0.23208874,
            -0.46417748,
            0.0,
            0.00170479161,
            -0.000457383114,
            0.0029522001,
        ],
    );
}

/// A row of zeros has no direction: nothing becomes of it but finite numbers.
#[test]
fn an_embedding_of_zeros_is_no_division_by_zero() {
    let graphs = made(
        &model(&[4, 3], None),
        &recipe(
            Task::Contrastive { temperature: 0.5 },
            Optimizer::AdamW(Adam::default()),
        ),
    );
    let inputs = [
        ("x", floats(&[4, 3], &[0.0; 12])),
        ("w", floats(&[4, 3], &[0.0; 12])),
        ("labels", Array::vector(&[0, 1])),
    ];
    let found = run(&graphs.grad, &inputs);
    assert_close(&get(&found, "loss"), &[2f64.ln()]);
    assert!(get(&found, "w.grad").iter().all(|g| *g == 0.0));
}

const TEACHER: [f64; 12] = [0.5, 2.0, 0.0, 1.0, -1.0, 3.5, -2.0, 0.0, 1.0, 0.0, 3.0, 1.0];

#[test]
fn a_teacher_is_followed_where_it_is_known() {
    let (value, gradient) = loss(
        Task::Distillation { temperature: 2.0 },
        floats(&[4, 3], &TEACHER),
    );
    assert_close(&[value], &[0.44166304046634586]);
    assert_close(
        &gradient,
        &[
            0.0175346641,
            -0.0311906742,
            0.0136560101,
            -0.0173028067,
            0.0115343164,
            0.0057684903,
            0.0760584834,
            -0.0287151707,
            -0.0473433127,
            0.203152502,
            -0.148516379,
            -0.0546361227,
        ],
    );
    let mut teacher = TEACHER;
    teacher[3..6].fill(f64::NAN);
    let (value, gradient) = loss(
        Task::Distillation { temperature: 1.0 },
        floats(&[4, 3], &teacher),
    );
    assert_close(&[value], &[0.3897986033186391]);
    assert_close(
        &gradient,
        &[
            0.02232409,
            -0.035864335,
            0.013540245,
            0.0,
            0.0,
            0.0,
            0.0589408436,
            -0.0158516342,
            -0.0430892093,
            0.221124816,
            -0.194766091,
            -0.0263587241,
        ],
    );
}

/// What a teacher rules out has the share 0, and 0 · log 0 is 0.
#[test]
fn a_class_that_a_teacher_rules_out_counts_nothing() {
    let mut teacher = TEACHER;
    teacher[0] = f64::NEG_INFINITY;
    let (value, gradient) = loss(
        Task::Distillation { temperature: 1.0 },
        floats(&[4, 3], &teacher),
    );
    assert!(value.is_finite() && gradient.iter().all(|g| g.is_finite()));
}

fn measured(task: Task, labels: Array) -> Vec<(String, Array)> {
    let graphs = made(
        &model(&[4, 3], None),
        &recipe(task, Optimizer::AdamW(Adam::default())),
    );
    let inputs = [
        ("x", floats(&[4, 3], &LOGITS)),
        ("w", floats(&[4, 3], &[0.0; 12])),
        ("labels", labels),
    ];
    run(&graphs.eval, &inputs)
}

/// Hits, and rows in which everything is one.
#[test]
fn what_is_right_is_counted() {
    // Both anchors are nearer to the second of the other rows, or exactly between: the first counts.
    let found = measured(
        Task::Contrastive { temperature: 0.5 },
        Array::vector(&[1, 0]),
    );
    assert_eq!(get(&found, "count"), [2.0]);
    assert_eq!(get(&found, "correct"), [2.0]);
    let labels = [1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0];
    let found = measured(Task::MultiLabel, floats(&[4, 3], &labels));
    // A score of 0 says no: the first row is right, of the others 2, 0 and 2 of 3.
    assert_eq!(get(&found, "count"), [12.0]);
    assert_eq!(get(&found, "correct"), [7.0]);
    assert_eq!(get(&found, "exact"), [1.0]);
    let found = measured(
        Task::Distillation { temperature: 1.0 },
        floats(&[4, 3], &TEACHER),
    );
    assert_eq!(get(&found, "correct"), [3.0]);
}

/// One number a row may come as `[B, 1]` from the model and as `[B]` from the data.
#[test]
fn labels_and_answers_are_counted_by_class() {
    let task = Task::Classification {
        label_smoothing: 0.0,
    };
    // The answers are 1, 2, 2 and 0.
    let found = measured(task, Array::vector(&[1, 2, -100, 1]));
    assert_eq!(get(&found, "class_said"), [1.0, 1.0, 1.0]);
    assert_eq!(get(&found, "class_meant"), [0.0, 2.0, 1.0]);
    assert_eq!(get(&found, "class_hits"), [0.0, 1.0, 1.0]);
    let meant = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0];
    let found = measured(Task::MultiLabel, floats(&[4, 3], &meant));
    assert_eq!(get(&found, "class_said"), [3.0, 2.0, 3.0]);
    assert_eq!(get(&found, "class_meant"), [1.0, 1.0, 2.0]);
    assert_eq!(get(&found, "class_hits"), [1.0, 0.0, 1.0]);
}

#[test]
fn a_number_a_row_needs_no_second_axis() {
    let graphs = made(
        &model(&[4, 1], None),
        &recipe(Task::Regression, Optimizer::AdamW(Adam::default())),
    );
    let inputs = [
        ("x", floats(&[4, 1], &[1.0, 2.0, 0.5, 0.0])),
        ("w", floats(&[4, 1], &[0.0; 4])),
        ("labels", floats(&[4], &[0.0, 2.0, 1.5, 2.0])),
    ];
    let found = run(&graphs.grad, &inputs);
    assert_close(&get(&found, "loss"), &[1.5]);
    assert_close(&get(&found, "w.grad"), &[0.5, 0.0, -0.5, -1.0]);
}
