//! Data as a training sees it: exact batches of the quickstart's rows, orders, resuming.

use peftc::data::{
    Batch, BatchOptions, BatchTensor, Batcher, Broken, Columns, Dataset, Elements, Encoder,
    EncoderOptions, Input, Length, Order, Position, Prefetch, Role, Side, Source, Task,
    TemplateText, TokenName, TooLong,
};
use peftc::diag::{Diagnostic, Sink, SourceMap};
use proptest::prelude::*;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn fixture(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("fixtures").join(name)
}

fn quickstart(name: &str) -> PathBuf {
    fixture("quickstart").join(name)
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

/// A row that `fixtures/make_tokens.py` recorded: its line, in which fields keep their order, and what
/// that says.
struct Recorded {
    line: String,
    value: serde_json::Value,
}

impl Recorded {
    fn numbers(&self, name: &str) -> Vec<i64> {
        numbers(&self.value[name])
    }
}

/// What was recorded under a name.
fn recorded(name: &str) -> Vec<Recorded> {
    let text = std::fs::read_to_string(fixture("data/tokens.json")).unwrap();
    let start = format!("{name:?}: [");
    let below = text.lines().skip_while(|line| *line != start).skip(1);
    let lines = below.take_while(|line| line.starts_with(' '));
    let row = |line: &str| {
        let line = line.trim().trim_end_matches(',').to_owned();
        let value = serde_json::from_str(&line).unwrap();
        Recorded { line, value }
    };
    let rows: Vec<Recorded> = lines.map(row).collect();
    assert!(!rows.is_empty(), "no `{name}`");
    rows
}

fn numbers(value: &serde_json::Value) -> Vec<i64> {
    let items = value.as_array().unwrap().iter();
    items.map(|item| item.as_i64().unwrap()).collect()
}

/// The only example of a row.
fn encoded(row: &Recorded, options: EncoderOptions) -> (Vec<i64>, Vec<i64>, Vec<i64>) {
    let dataset = load_text("a.jsonl", &row.line, options);
    let row = &row.line;
    assert_eq!(dataset.examples().len(), 1, "{row}");
    let tokens = dataset.examples().tokens(0);
    let ids = tokens.ids.iter().map(|id| i64::from(*id)).collect();
    let labels = tokens
        .labels
        .iter()
        .map(|label| i64::from(*label))
        .collect();
    let types = tokens.types.iter().map(|ty| i64::from(*ty)).collect();
    (ids, labels, types)
}

fn with_tokenizer(name: &str, task: Task) -> EncoderOptions {
    EncoderOptions {
        tokenizer: Some(fixture(&format!("data/{name}/tokenizer.json"))),
        ..EncoderOptions::new(task)
    }
}

#[test]
fn rows_of_the_quickstart_have_the_tokens_of_hugging_face() {
    let rows = recorded("quickstart");
    assert_eq!(rows.len(), 100);
    for file in ["math_task.test.jsonl", "code_task.test.jsonl"] {
        let (dataset, _) = load(&quickstart(file), bytes_of(Task::CausalLm));
        for row in rows.iter().filter(|row| row.value["file"] == file) {
            let example = row.value["line"].as_u64().unwrap() as usize - 1;
            let tokens = dataset.examples().tokens(example);
            let ids = tokens.ids.iter().map(|id| i64::from(*id));
            assert!(ids.eq(row.numbers("wanted_ids")), "{}", row.line);
            let labels = tokens.labels.iter().map(|label| i64::from(*label));
            assert!(labels.eq(row.numbers("wanted_labels")), "{}", row.line);
        }
    }
}

#[test]
fn texts_and_pairs_have_the_tokens_of_hugging_face() {
    for row in recorded("texts") {
        let mut options = with_tokenizer("words", Task::Classification);
        options.max_length = row.value["max_length"]
            .as_u64()
            .map(|longest| longest as usize);
        options.too_long = match row.value["side"] == "left" {
            true => TooLong::CutStart,
            false => TooLong::CutEnd,
        };
        let (ids, labels, types) = encoded(&row, options);
        assert_eq!(ids, row.numbers("wanted_ids"), "{}", row.line);
        assert_eq!(labels, [0_i64; 0]);
        let wanted = row.numbers("wanted_types");
        match wanted.contains(&1) {
            true => assert_eq!(types, wanted, "{}", row.line),
            false => assert_eq!(types, [0_i64; 0], "{}", row.line),
        }
    }
}

#[test]
fn words_have_their_tags_where_hugging_face_puts_them() {
    for row in recorded("tags") {
        let options = with_tokenizer("words", Task::TokenClassification);
        let (ids, labels, _) = encoded(&row, options);
        assert_eq!(ids, row.numbers("wanted_ids"), "{}", row.line);
        assert_eq!(labels, row.numbers("wanted_labels"), "{}", row.line);
    }
}

#[test]
fn conversations_have_the_tokens_and_the_answers_of_hugging_face() {
    let rows = recorded("chats");
    assert_eq!(rows.len(), 9);
    for row in rows {
        let mut options = with_tokenizer("chat", Task::CausalLm);
        if row.value["template"] == "plain" {
            let path = fixture("data/chat/plain.jinja");
            options.templates.chat = Some(TemplateText {
                name: "plain".to_owned(),
                text: std::fs::read_to_string(path).unwrap(),
            });
        }
        let (ids, labels, _) = encoded(&row, options);
        assert_eq!(ids, row.numbers("wanted_ids"), "{}", row.line);
        if row.value["template"] == "marked" {
            assert_eq!(labels, row.numbers("wanted_labels"), "{}", row.line);
            continue;
        }
        // Without marks the answers are the assistant's contents, each with its end.
        let end = 259;
        let messages = row.value["messages"].as_array().unwrap().iter();
        let answers = messages.filter(|message| message["role"] == "assistant");
        let answers = answers.flat_map(|message| {
            let content = message["content"].as_str().unwrap();
            content
                .bytes()
                .map(i64::from)
                .chain([end])
                .collect::<Vec<i64>>()
        });
        let learned = labels.into_iter().filter(|label| *label != -100);
        assert!(learned.eq(answers), "{}", row.line);
    }
}

#[test]
fn templates_make_prompt_and_completion_of_columns() {
    let template = |text: &str| {
        let (name, text) = ("template".to_owned(), text.to_owned());
        Some(TemplateText { name, text })
    };
    let mut options = bytes_of(Task::CausalLm);
    options.templates.prompt = template("{{ a }}+{{ b | length }}=");
    options.templates.completion = template("{{ sum }}{% if b | length > 1 %}!{% endif %}");
    let rows = "{\"a\": 1, \"b\": \"xy\", \"sum\": 3}\n";
    let dataset = load_text("a.jsonl", rows, options);
    let tokens = dataset.examples().tokens(0);
    let text: Vec<u8> = tokens.ids.iter().map(|id| *id as u8).collect();
    assert_eq!(text, b"1+2=3!\n");
    assert_eq!(tokens.counted(), 3);
}

/// The labels of a batch of two rows in order.
fn labels_of(task: Task, text: &str) -> BatchTensor {
    let dataset = load_text("a.jsonl", text, with_tokenizer("words", task));
    let batch = batcher(&dataset, BatchOptions::in_order(rows(2))).next_batch();
    assert_eq!(batch.counted, 2);
    batch.tensor(Input::Labels).unwrap().clone()
}

#[test]
fn labels_of_rows_are_classes_or_numbers() {
    let rows = |labels: [&str; 2]| {
        let row = |label| format!("{{\"text\": \"a cat\", {label}}}\n");
        labels.map(row).concat()
    };
    let check = |task, texts, dims: &[usize], elements| {
        let labels = labels_of(task, &rows(texts));
        assert_eq!((labels.dims.as_slice(), labels.elements), (dims, elements));
    };
    let i64s = |values: &[i64]| Elements::I64(values.to_vec());
    let f32s = |values: &[f32]| Elements::F32(values.to_vec());
    let class = Task::Classification;
    check(class, ["\"label\": 2", "\"label\": 0"], &[2], i64s(&[2, 0]));
    check(
        class,
        ["\"label\": \"no\"", "\"label\": \"maybe\""],
        &[2],
        i64s(&[1, 0]),
    );
    check(
        class,
        ["\"label\": true", "\"label\": false"],
        &[2],
        i64s(&[1, 0]),
    );
    let number = Task::Regression;
    check(
        number,
        ["\"label\": 2", "\"label\": 0.5"],
        &[2],
        f32s(&[2.0, 0.5]),
    );
    check(
        number,
        ["\"label\": [2, 1]", "\"label\": [0, 3]"],
        &[2, 2],
        f32s(&[2.0, 1.0, 0.0, 3.0]),
    );
    let several = Task::MultiLabel;
    let names = ["\"labels\": [\"b\", \"a\"]", "\"labels\": [\"c\"]"];
    check(
        several,
        names,
        &[2, 3],
        f32s(&[1.0, 1.0, 0.0, 0.0, 0.0, 1.0]),
    );
    let shares = ["\"labels\": [true, false]", "\"labels\": [0.25, 1.0]"];
    check(several, shares, &[2, 2], f32s(&[1.0, 0.0, 0.25, 1.0]));
}

#[test]
fn pairs_lie_below_each_other() {
    let text = "{\"anchor\": \"a\", \"positive\": \"b\", \"negative\": \"c d\"}\n\
                {\"anchor\": \"x\", \"positive\": \"y\", \"negative\": \"z\"}\n";
    let dataset = load_text("a.jsonl", text, bytes_of(Task::Pairs));
    let batch = batcher(&dataset, BatchOptions::in_order(rows(2))).next_batch();
    let byte = |c: char| i64::from(u32::from(c));
    let firsts = matrix(&batch, Input::InputIds)
        .into_iter()
        .map(|row| row[0]);
    assert!(firsts.eq("axbycz".chars().map(byte)));
    assert_eq!((batch.rows, batch.length(), batch.counted), (6, 3, 2));
    let belongs = batch.tensor(Input::Labels).unwrap();
    assert_eq!(belongs.elements, Elements::I64(vec![0, 1]));
    let text = text.replace("}\n", ", \"score\": 0.5}\n");
    let dataset = load_text("a.jsonl", &text, bytes_of(Task::Pairs));
    let batch = batcher(&dataset, BatchOptions::in_order(rows(2))).next_batch();
    let scores = batch.tensor(Input::Labels).unwrap();
    assert_eq!(scores.elements, Elements::F32(vec![0.5, 0.5]));
    assert_eq!(scores.dims, [2]);
}

/// A resumed run goes on with the data that it began with.
#[test]
fn a_digest_is_of_every_token_and_label() {
    let row = |text: &str, label: i64| format!("{{\"text\": \"{text}\", \"label\": {label}}}\n");
    let digest = |rows: [String; 2]| {
        let dataset = load_text("a.jsonl", &rows.concat(), bytes_of(Task::Classification));
        dataset.digest()
    };
    let wanted = digest([row("ab", 1), row("c", 0)]);
    assert_eq!(digest([row("ab", 1), row("c", 0)]), wanted);
    for other in [
        [row("ab", 1), row("c", 1)],
        [row("a", 1), row("bc", 0)],
        [row("c", 0), row("ab", 1)],
    ] {
        assert_ne!(digest(other), wanted);
    }
}

/// Tokens, labels, class and numbers of an example.
type Content = (Vec<u32>, Vec<i32>, Option<i64>, Vec<f32>);

fn content(dataset: &Dataset) -> Vec<Content> {
    let examples = dataset.examples();
    let example = |example| {
        let tokens = examples.tokens(example);
        let numbers = examples.numbers(example).to_vec();
        (
            tokens.ids.to_vec(),
            tokens.labels.to_vec(),
            examples.class(example),
            numbers,
        )
    };
    (0..examples.len()).map(example).collect()
}

#[test]
fn the_same_rows_are_the_same_in_every_format() {
    let score = Columns(vec![(Role::Label, "score".to_owned())]);
    let prompt = |columns: &[(Role, String)]| {
        let text = (Role::Text, "completion".to_owned());
        Columns([columns, &[text]].concat())
    };
    let tags = (Role::Labels, "tags".to_owned());
    for (task, columns) in [
        (Task::CausalLm, Columns::default()),
        (Task::Classification, prompt(&[])),
        (Task::Regression, prompt(&score.0)),
        (Task::MultiLabel, prompt(&[tags])),
    ] {
        let read = |name: &str| {
            let mut options = bytes_of(task);
            options.columns = columns.clone();
            content(&load(&fixture(&format!("data/rows.{name}")), options).0)
        };
        let wanted = read("jsonl");
        assert_eq!(wanted.len(), 4);
        let compressions = ["zstd", "snappy", "gzip", "lz4", "none"];
        let parquet = compressions.map(|name| format!("{name}.parquet"));
        let others = ["json", "csv", "tsv"].map(str::to_owned);
        for name in others.into_iter().chain(parquet) {
            assert!(read(&name) == wanted, "{name} for {}", task.name());
        }
    }
    let chats = |name: &str| {
        let options = with_tokenizer("chat", Task::CausalLm);
        content(&load(&fixture(&format!("data/chats.{name}")), options).0)
    };
    assert_eq!(chats("parquet"), chats("jsonl"));
}

#[test]
fn arrays_are_inputs_as_they_are() {
    let (dataset, said) = load(
        &fixture("data/arrays.npz"),
        EncoderOptions::new(Task::Arrays),
    );
    assert_eq!(said, []);
    let mut batches = batcher(&dataset, BatchOptions::in_order(rows(2)));
    assert_eq!(batches.batches(), 3);
    batches.next_batch();
    let batch = batches.next_batch();
    let labels = batch.tensor(Input::Labels).unwrap();
    assert_eq!(labels.dims, [2]);
    assert_eq!(labels.elements, Elements::I64(vec![2, 1]));
    let array = |name: &str| {
        batch
            .arrays
            .iter()
            .find(|array| array.name == name)
            .unwrap()
    };
    assert_eq!(array("pixels").dims, [2, 2, 3]);
    let pixels = (12..24).map(|number| number as f32 / 8.0).collect();
    assert_eq!(array("pixels").elements, Elements::F32(pixels));
    assert_eq!(array("kind").elements, Elements::I64(vec![7, 0]));
    assert_eq!(array("weight").elements, Elements::F32(vec![0.5, 0.75]));
    assert_eq!(array("flags").elements, Elements::I64(vec![1, 0, 1, 0]));
    assert_eq!(batches.next_batch().rows, 1);
    assert!(dataset.place(4).ends_with("arrays.npz:5"));
}

/// A change anywhere in a file is an error with a code, or other values; never a panic, and no row
/// is lost quietly: as many come as before.
#[test]
fn a_changed_byte_is_an_error_or_another_value() {
    let folder = tempfile::tempdir().unwrap();
    for (name, options, count) in [
        ("rows.zstd.parquet", bytes_of(Task::CausalLm), 4),
        ("rows.none.parquet", bytes_of(Task::CausalLm), 4),
        ("chats.parquet", with_tokenizer("chat", Task::CausalLm), 4),
        ("arrays.npz", EncoderOptions::new(Task::Arrays), 5),
    ] {
        // One change a place, each of them at every third.
        let changes = [0x01, 0x80, 0xff];
        let bytes = std::fs::read(fixture(&format!("data/{name}"))).unwrap();
        let path = folder.path().join(name);
        let mut sink = Sink::new();
        let encoder = Encoder::open(options, &mut sink).unwrap();
        let (mut failed, mut read) = (0, 0);
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= changes[at % 3];
            std::fs::write(&path, bytes).unwrap();
            let mut sink = Sink::new();
            let sources = [Source::file(&path)];
            let mut texts = SourceMap::new();
            match Dataset::load(&sources, &encoder, Broken::Refuse, &mut texts, &mut sink) {
                Ok(dataset) => {
                    assert_eq!(dataset.examples().len(), count, "{name}, byte {at}");
                    read += 1;
                }
                Err(_) => {
                    assert!(sink.error_count() > 0);
                    failed += 1;
                }
            }
        }
        assert!(
            failed > read / 10,
            "{name}: {failed} of {} failed",
            failed + read
        );
    }
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
