//! Data as a training sees it: exact batches of the quickstart's rows, orders, resuming.

use peftc::data::{
    Batch, BatchOptions, Batcher, Broken, Dataset, Elements, Encoder, EncoderOptions, Input,
    Length, Order, Position, Prefetch, Side, Source, Task, TokenName, TooLong,
};
use peftc::diag::{Diagnostic, Sink, SourceMap};
use proptest::prelude::*;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn quickstart(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/quickstart")
        .join(name)
}

/// Learning with the quickstart's tokenizer: ids are bytes, a line break ends a text.
fn bytes_of(task: Task) -> EncoderOptions {
    EncoderOptions {
        tokenizer: Some(quickstart("tokenizer.json")),
        end: Some(TokenName::Text("\n".to_owned())),
        padding: Some(TokenName::Id(0)),
        ..EncoderOptions::new(task)
    }
}

/// Loads one file; panics with what was said if it fails.
fn load(path: &Path, options: EncoderOptions) -> (Arc<Dataset>, Vec<Diagnostic>) {
    let mut sink = Sink::new();
    let loaded = Encoder::open(options, &mut sink).and_then(|encoder| {
        let sources = [Source::file(path)];
        let mut texts = SourceMap::new();
        Dataset::load(&sources, &encoder, Broken::Refuse, &mut texts, &mut sink)
    });
    let dataset = loaded.unwrap_or_else(|_| panic!("{:?}", sink.diagnostics()));
    (Arc::new(dataset), sink.diagnostics().to_vec())
}

fn load_text(name: &str, text: &str, options: EncoderOptions) -> Arc<Dataset> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    load(&path, options).0
}

fn batcher(dataset: &Arc<Dataset>, options: BatchOptions) -> Batcher {
    Batcher::new(dataset.clone(), options, &mut Sink::new()).unwrap()
}

fn rows(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

/// A matrix of a batch, row by row.
fn matrix(batch: &Batch, input: Input) -> Vec<Vec<i64>> {
    let tensor = batch.tensor(input).unwrap();
    let Elements::I64(elements) = &tensor.elements else {
        panic!("{} is not of integers", input.name());
    };
    assert_eq!(tensor.dims, [batch.rows, batch.length()]);
    elements
        .chunks(tensor.dims[1])
        .map(<[i64]>::to_vec)
        .collect()
}

const A_AND_B: &str = "{\"prompt\": \"1+1=\", \"completion\": \"2\"}\n\
                       {\"prompt\": \"9+9=\", \"completion\": \"18\"}\n";

#[test]
fn rows_become_ids_masks_and_labels() {
    let dataset = load_text("a.jsonl", A_AND_B, bytes_of(Task::CausalLm));
    let mut options = BatchOptions::in_order(rows(2));
    options.position_ids = true;
    options.token_type_ids = true;
    let batch = batcher(&dataset, options.clone()).next_batch();
    let b = |c: char| i64::from(c as u32);
    let one = [b('1'), b('+'), b('1'), b('='), b('2'), 10, 0];
    let two = [b('9'), b('+'), b('9'), b('='), b('1'), b('8'), 10];
    assert_eq!(matrix(&batch, Input::InputIds), [one, two]);
    let none = -100;
    let labels = [
        [none, none, none, none, b('2'), 10, none],
        [none, none, none, none, b('1'), b('8'), 10],
    ];
    assert_eq!(matrix(&batch, Input::Labels), labels);
    let mask = [[1, 1, 1, 1, 1, 1, 0], [1; 7]];
    assert_eq!(matrix(&batch, Input::AttentionMask), mask);
    let positions = [[0, 1, 2, 3, 4, 5, 0], [0, 1, 2, 3, 4, 5, 6]];
    assert_eq!(matrix(&batch, Input::PositionIds), positions);
    assert_eq!(matrix(&batch, Input::TokenTypeIds), [[0; 7]; 2]);
    assert_eq!((batch.tokens, batch.counted), (13, 5));
    assert_eq!(batch.examples, [0, 1]);
    assert!(dataset.place(1).ends_with("a.jsonl:2"));

    options.side = Side::Left;
    options.length = Length::Multiple(4);
    let batch = batcher(&dataset, options).next_batch();
    assert_eq!(batch.length(), 8);
    let one = [0, 0, b('1'), b('+'), b('1'), b('='), b('2'), 10];
    assert_eq!(matrix(&batch, Input::InputIds)[0], one);
    assert_eq!(
        matrix(&batch, Input::PositionIds)[0],
        [0, 0, 0, 1, 2, 3, 4, 5]
    );
    assert_eq!(
        matrix(&batch, Input::AttentionMask)[0],
        [0, 0, 1, 1, 1, 1, 1, 1]
    );
}

#[test]
fn packed_examples_share_a_row_and_learn_nothing_from_each_other() {
    let dataset = load_text("a.jsonl", A_AND_B, bytes_of(Task::CausalLm));
    let mut options = BatchOptions::in_order(rows(2));
    options.pack = Some(rows(13));
    options.position_ids = true;
    let batch = batcher(&dataset, options).next_batch();
    assert_eq!((batch.rows, batch.length()), (1, 13));
    let positions = [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 6];
    assert_eq!(matrix(&batch, Input::PositionIds), [positions]);
    let text = load_text("a.txt", "ab\ncd\n", bytes_of(Task::CausalLm));
    let mut options = BatchOptions::in_order(rows(1));
    options.pack = Some(rows(6));
    let batch = batcher(&text, options).next_batch();
    let labels = [-100, 98, 10, -100, 100, 10];
    assert_eq!(matrix(&batch, Input::Labels), [labels]);
    assert_eq!(batch.counted, 4);
}

#[test]
fn every_row_of_the_quickstart_is_read() {
    let path = quickstart("math_task.train.jsonl");
    let (dataset, said) = load(&path, bytes_of(Task::CausalLm));
    assert_eq!(said, []);
    let text = std::fs::read_to_string(&path).unwrap();
    for (example, line) in text.lines().enumerate() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let (prompt, completion) = (&row["prompt"], &row["completion"]);
        let (prompt, completion) = (prompt.as_str().unwrap(), completion.as_str().unwrap());
        let ids: Vec<u32> = format!("{prompt}{completion}\n")
            .bytes()
            .map(u32::from)
            .collect();
        let tokens = dataset.examples().tokens(example);
        assert_eq!(tokens.ids, ids);
        let learned = tokens.labels.iter().filter(|label| **label != -100);
        let learned: Vec<u8> = learned.map(|label| *label as u8).collect();
        assert_eq!(learned, format!("{completion}\n").as_bytes());
    }
    assert_eq!(dataset.examples().len(), 4000);
}

/// Every way to order, with the seed that the tests use.
fn orders() -> Vec<BatchOptions> {
    let mut all = Vec::new();
    for order in [Order::AsRead, Order::Shuffled, Order::Grouped { pool: 3 }] {
        for pack in [None, Some(rows(40))] {
            let mut options = BatchOptions::new(rows(7), 5);
            options.order = order;
            options.pack = pack;
            all.push(options);
        }
    }
    all
}

#[test]
fn a_run_that_resumes_gets_what_one_that_went_on_would_get() {
    let (dataset, _) = load(
        &quickstart("code_task.test.jsonl"),
        bytes_of(Task::CausalLm),
    );
    for options in orders() {
        let straight: Vec<Batch> = batcher(&dataset, options.clone()).take(70).collect();
        assert!(straight[69].position.epoch > 0);
        for stop in 1..straight.len() {
            let position = straight[stop - 1].next;
            assert_eq!(position, straight[stop].position);
            let text = serde_json::to_string(&position).unwrap();
            let position: Position = serde_json::from_str(&text).unwrap();
            let resumed = batcher(&dataset, options.clone()).at(position).next_batch();
            assert_eq!(resumed, straight[stop]);
        }
        let ahead = Prefetch::start(batcher(&dataset, options), rows(3));
        assert!(ahead.take(70).eq(straight));
    }
}

#[test]
fn epochs_differ_unless_rows_stay_in_order() {
    let (dataset, _) = load(
        &quickstart("code_task.test.jsonl"),
        bytes_of(Task::CausalLm),
    );
    for options in orders() {
        let in_order = options.order == Order::AsRead;
        let mut batcher = batcher(&dataset, options);
        let mut epoch = || {
            let batches = batcher.batches();
            let members = (0..batches).flat_map(|_| batcher.next_batch().examples);
            members.collect::<Vec<usize>>()
        };
        let (first, second) = (epoch(), epoch());
        assert_eq!(first == second, in_order);
        let sorted = |mut members: Vec<usize>| {
            members.sort_unstable();
            members
        };
        assert!(sorted(first).into_iter().eq(0..200));
        assert!(sorted(second).into_iter().eq(0..200));
    }
}

#[test]
fn a_long_text_is_split_so_that_every_token_is_predicted_once() {
    let mut options = bytes_of(Task::CausalLm);
    options.max_length = Some(4);
    options.too_long = TooLong::Split;
    let dataset = load_text("a.txt", "abcdefghi\nxy\n", options);
    let examples = dataset.examples();
    let text = |example| examples.tokens(example).ids.to_vec();
    let all: Vec<Vec<u32>> = (0..examples.len()).map(text).collect();
    let bytes = |text: &str| text.bytes().map(u32::from).collect::<Vec<u32>>();
    let wanted = ["abcd", "defg", "ghi\n", "xy\n"];
    assert_eq!(all, wanted.map(bytes));
    let counted: usize = (0..examples.len())
        .map(|e| examples.tokens(e).counted())
        .sum();
    assert_eq!(counted, 9 + 2);
    assert!(dataset.place(2).ends_with("a.txt:1"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Masks and labels agree, and padding has neither.
    #[test]
    fn every_token_is_in_a_batch_once_with_its_label(
        texts in prop::collection::vec("[a-z]{1,12}", 1..40),
        size in 1usize..6, left: bool, seed: u64, packed: bool,
        length in prop_oneof![
            Just(Length::Longest), (1usize..9).prop_map(Length::Multiple), Just(Length::Fixed(30))
        ],
    ) {
        let dataset = load_text("a.txt", &texts.join("\n"), bytes_of(Task::CausalLm));
        let mut options = BatchOptions::new(rows(size), seed);
        options.side = if left { Side::Left } else { Side::Right };
        options.length = length;
        options.pack = packed.then(|| rows(30));
        options.position_ids = true;
        let mut batcher = batcher(&dataset, options);
        let (mut seen, mut counted) = (Vec::new(), 0);
        for _ in 0..batcher.batches() {
            let batch = batcher.next_batch();
            let ids = matrix(&batch, Input::InputIds).concat();
            let mask = matrix(&batch, Input::AttentionMask).concat();
            let labels = matrix(&batch, Input::Labels).concat();
            let positions = matrix(&batch, Input::PositionIds).concat();
            for at in 0..ids.len() {
                prop_assert_eq!(mask[at] == 1, ids[at] != 0);
                let learned = mask[at] == 1 && positions[at] > 0;
                prop_assert_eq!(labels[at], if learned { ids[at] } else { -100 });
                counted += usize::from(learned);
                if mask[at] == 1 {
                    seen.push(ids[at] as u8);
                }
            }
            prop_assert_eq!(batch.tokens as i64, mask.iter().sum::<i64>());
        }
        let mut wanted: Vec<u8> = texts.iter().flat_map(|text| text.bytes().chain([10])).collect();
        prop_assert_eq!(counted, wanted.len() - texts.len());
        wanted.sort_unstable();
        seen.sort_unstable();
        prop_assert_eq!(seen, wanted);
    }
}
