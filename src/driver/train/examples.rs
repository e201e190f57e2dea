//! The examples of a run, read before anything is compiled: what a head has to give, they say.

use super::config::{Config, HeadConfig};
use super::errors;
use crate::data::{
    Array, Broken, Dataset, Elements, Encoder, EncoderOptions, Format, Limits, Task, TokenName,
};
use crate::diag::{Reported, Sink};
use crate::driver::session::{Loaded, Session};
use crate::graph::Model;
use crate::modules::SiteKind;
use crate::train::{Head, Pool, TaskKind, Trains};
use std::sync::Arc;

/// Examples to learn from, and held-out ones.
pub(super) struct Examples {
    pub train: Arc<Dataset>,
    pub held_out: Option<Arc<Dataset>>,
}

impl Examples {
    pub fn load(
        config: &Config,
        loaded: &Loaded,
        session: &mut Session<'_>,
    ) -> Result<Examples, Reported> {
        let data = &config.data;
        let broken = match data.skip_broken {
            true => Broken::Skip,
            false => Broken::Refuse,
        };
        let mut encoder = encoder(config, limits(config, loaded), session.sink)?;
        let sources = data.sources(&data.train);
        let (texts, sink) = (&mut *session.sources, &mut *session.sink);
        let train = Dataset::load(&sources, &encoder, broken, texts, sink)?;
        fits_task(config.task, &train, sink)?;
        let held_out = match &data.eval {
            None => None,
            Some(files) => {
                // A class has one number in both.
                encoder.set_classes(train.classes());
                let sources = data.sources(files);
                let held_out = Dataset::load(&sources, &encoder, broken, texts, sink)?;
                fits_task(config.task, &held_out, sink)?;
                Some(Arc::new(held_out))
            }
        };
        Ok(Examples {
            train: Arc::new(train),
            held_out,
        })
    }

    /// Names of the classes by number; none where they are numbers only.
    pub fn class_names(&self) -> Vec<String> {
        let names = self.train.classes();
        let is_number = |(at, name): (usize, &String)| *name == at.to_string();
        match names.iter().enumerate().all(is_number) {
            true => Vec::new(),
            false => names,
        }
    }

    /// Tokens of the longest example.
    pub fn longest(&self) -> usize {
        let all = std::iter::once(&self.train).chain(&self.held_out);
        let lengths = all.flat_map(|dataset| {
            let examples = dataset.examples();
            let texts = (0..examples.len()).map(|example| examples.length(example));
            // Arrays have their tokens along the second axis.
            let arrays = dataset.arrays().iter();
            texts.chain(arrays.filter_map(|array| array.dims.get(1).copied()))
        });
        lengths.max().unwrap_or(1).max(1)
    }

    /// How many numbers a head has to give for them.
    fn width(&self) -> usize {
        let classes = self.train.classes().len();
        if classes > 0 {
            return classes;
        }
        match labels(&self.train) {
            Some(array) => match &array.elements {
                Elements::I64(numbers) => {
                    let highest = numbers.iter().copied().max().unwrap_or(0);
                    usize::try_from(highest).unwrap_or(0) + 1
                }
                Elements::F32(_) if array.dims.len() == 1 => 1,
                Elements::F32(_) => array.dims.last().copied().unwrap_or(1),
            },
            None => self.train.examples().numbers(0).len(),
        }
    }
}

/// What a configuration's task asks of its data.
fn data_task(config: &Config) -> Task {
    let data = &config.data;
    let mut files = data.sources(&data.train).into_iter();
    if files.all(|file| file.format.or(Format::of(&file.path)) == Some(Format::Npz)) {
        return Task::Arrays;
    }
    match config.task {
        TaskKind::CausalLm => Task::CausalLm,
        TaskKind::Seq2Seq => Task::Seq2Seq,
        TaskKind::Classification => Task::Classification,
        TaskKind::TokenClassification => Task::TokenClassification,
        TaskKind::MultiLabel => Task::MultiLabel,
        // A teacher's logits are numbers of the row, as those of a regression are.
        TaskKind::Regression | TaskKind::Distillation => Task::Regression,
        TaskKind::Contrastive | TaskKind::Cosine => Task::Pairs,
    }
}

fn encoder(config: &Config, limits: Limits, sink: &mut Sink) -> Result<Encoder, Reported> {
    let data = &config.data;
    let name = |token: &Option<String>| token.as_deref().map(TokenName::parse);
    let options = EncoderOptions {
        tokenizer: data.tokenizer.clone(),
        columns: data.columns.clone(),
        end: name(&data.end_token),
        padding: name(&data.padding_token),
        start: name(&data.decoder_start_token),
        max_length: data.max_length,
        too_long: data.too_long.into(),
        classes: data.classes.clone(),
        templates: data.templates(sink)?,
        limits,
        ..EncoderOptions::new(data_task(config))
    };
    Encoder::open(options, sink)
}

/// What the model takes. Ids that are above it would end a run at the batch that has one.
fn limits(config: &Config, loaded: &Loaded) -> Limits {
    let tables = loaded.modules.sites.iter();
    let tables = tables.filter(|site| site.kind == SiteKind::Embedding);
    let is_of_places = |path: &str| {
        let mut names = path.split('.');
        names.any(|name| name.contains("position") || name == "wpe")
    };
    let (places, words): (Vec<_>, Vec<_>) = tables.partition(|site| is_of_places(&site.path));
    let rows = |sites: Vec<&crate::modules::Site>| {
        let rows = sites.into_iter().map(|site| site.in_features);
        // The table of tokens is the largest one; types have a small one.
        rows.max().and_then(|rows| usize::try_from(rows).ok())
    };
    let output = output_dims(config, &loaded.model).unwrap_or_default();
    let scores = output.last().copied().flatten();
    let task = config.task;
    let has_classes = matches!(
        task,
        TaskKind::Classification | TaskKind::TokenClassification | TaskKind::MultiLabel
    );
    let tokens = scores.filter(|_| output.len() == 3);
    let of_head = |head: &HeadConfig| head.size.map(|size| size.get() as usize);
    Limits {
        vocabulary: match task {
            _ if task.predicts_tokens() => tokens,
            _ => rows(words),
        },
        positions: rows(places),
        classes: match &config.head {
            _ if task.predicts_tokens() => tokens,
            _ if !has_classes => None,
            None => scores,
            Some(head) => of_head(head),
        },
        // Several classes of a row are as many numbers.
        labels_are_classes: (has_classes || task.predicts_tokens()) && task != TaskKind::MultiLabel,
    }
}

/// The sizes of the output that the loss or the head is of, as far as they are known.
fn output_dims(config: &Config, model: &Model) -> Option<Vec<Option<usize>>> {
    let mut outputs = model
        .graph
        .outputs()
        .iter()
        .map(|id| model.graph.value(*id));
    let output = match &config.model_output {
        None => outputs.next(),
        Some(name) => outputs.find(|output| *output.name == **name),
    };
    let dims = &output?.ty.as_ref()?.shape.as_ref()?.0;
    let size = |dim: &crate::ty::Dim| usize::try_from(dim.known()?).ok();
    Some(dims.iter().map(size).collect())
}

/// The head that the configuration asks for.
pub(super) fn head(config: &Config, examples: &Examples, loaded: &Loaded) -> Option<Head> {
    let head = config.head.as_ref()?;
    let size = match (config.task, head.size) {
        (_, Some(size)) => Some(size.get().into()),
        (TaskKind::Contrastive | TaskKind::Cosine, None) => None,
        (_, None) => Some(examples.width() as i64),
    };
    let rank = output_dims(config, &loaded.model).map(|dims| dims.len());
    let without = match (config.task, rank) {
        (TaskKind::TokenClassification, _) => Pool::None,
        (_, Some(3)) => Pool::Mean,
        _ => Pool::None,
    };
    Some(Head {
        on: config.model_output.clone(),
        pool: head.pool.map_or(without, Pool::from),
        size,
        trains: match head.alone {
            true => Trains::HeadAlone,
            false => Trains::HeadAndAdapter,
        },
    })
}

/// The labels of a data set of arrays.
fn labels(dataset: &Dataset) -> Option<&Array> {
    let mut arrays = dataset.arrays().iter();
    arrays.find(|array| array.name == "labels")
}

/// Whether examples have what the task compares with.
fn fits_task(task: TaskKind, dataset: &Dataset, sink: &mut Sink) -> Result<(), Reported> {
    let examples = dataset.examples();
    let has_scores = !examples.numbers(0).is_empty();
    match (task, dataset.task()) {
        (TaskKind::Cosine, Task::Pairs) if !has_scores => {
            Err(sink.emit(errors::no_scores(&dataset.place(0))))
        }
        (TaskKind::Cosine, Task::Pairs) if examples.parts() > 2 => {
            Err(sink.emit(errors::negatives_with_scores(&dataset.place(0))))
        }
        (TaskKind::Contrastive, Task::Pairs) if has_scores => {
            Err(sink.emit(errors::scores_unused(&dataset.place(0))))
        }
        _ => Ok(()),
    }
}
