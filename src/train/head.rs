//! A head: what stands between a model that gives a vector for every token, and a task that asks for
//! one a row, or for numbers of another meaning.
//!
//! In: an output of the model, how its tokens become one, and how many numbers come out. Out: the
//! same model with one more output. The linear layer is trained in full: its `weight` and `bias` are
//! tensors of the adapter, and of no module that a spec could name.

use super::errors;
use super::graphs::{apply, builder, free};
use super::open::{float_dims, output_named};
use crate::diag::{Reported, Sink};
use crate::graph::{Attribute, Model, Tensor};
use crate::ops::{Expr, Refusal};
use crate::passes;
use crate::ty::{DType, Dim};

/// How the vectors of a row's tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Their mean, without padding.
    Mean,
    /// That of the first token.
    First,
    /// That of the last token that is no padding.
    Last,
    /// Every token keeps its own.
    None,
}

impl Pool {
    /// The word of configurations.
    pub fn name(self) -> &'static str {
        match self {
            Pool::Mean => "mean",
            Pool::First => "first",
            Pool::Last => "last",
            Pool::None => "none",
        }
    }
}

/// A head as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The output that it stands on; the first one without it.
    pub on: Option<String>,
    pub pool: Pool,
    /// How many numbers a linear layer makes of a vector; without it there is none.
    pub size: Option<i64>,
    pub trains: Trains,
}

/// What is trained where there is a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trains {
    #[default]
    HeadAndAdapter,
    /// The head alone: the adapter stays as it starts. What a frozen model gives is what an adapter
    /// has to be better than.
    HeadAlone,
}

/// A head that fits its model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedHead {
    on: String,
    pool: Pool,
    /// The name of the module: `head`, unless that is taken.
    pub module: String,
    /// The linear layer: numbers that come out and go in.
    pub linear: Option<[i64; 2]>,
}

impl PlannedHead {
    /// The names of its tensors in the module, with their shapes as in PyTorch.
    pub fn parameters(&self) -> Vec<(&'static str, Vec<i64>)> {
        let linear = self.linear.into_iter();
        linear
            .flat_map(|[out, into]| [("weight", vec![out, into]), ("bias", vec![out])])
            .collect()
    }
}

/// Whether a head fits the model, whose types are inferred. `taken` says of a name whether a module
/// of the adapter has it.
pub fn plan_head(
    model: &Model,
    head: &Head,
    taken: &dyn Fn(&str) -> bool,
    sink: &mut Sink,
) -> Result<PlannedHead, Reported> {
    let output = output_named(model, head.on.as_deref()).map_err(|fault| sink.emit(*fault))?;
    let value = model.graph.value(output);
    let fault = |wanted: &str| errors::head_does_not_fit(&model.name, value, wanted);
    let Some(dims) = float_dims(value) else {
        return Err(sink.emit(fault("it needs floats of a known shape")));
    };
    if head.pool != Pool::None && dims.len() != 3 {
        let wanted = format!(
            "pool `{}` needs a vector for every token, `f32[batch, sequence, size]`",
            head.pool.name()
        );
        return Err(sink.emit(fault(&wanted)));
    }
    let width = dims.last().and_then(Dim::known);
    let linear = match (head.size, width) {
        (None, _) => None,
        (Some(size), Some(width)) => Some([size, width]),
        (Some(_), None) => return Err(sink.emit(fault("a linear layer needs a fixed last size"))),
    };
    let numbered = (2..).map(|number| format!("head_{number}"));
    let mut names = std::iter::once("head".to_owned()).chain(numbered);
    Ok(PlannedHead {
        on: value.name.to_string(),
        pool: head.pool,
        module: names.find(|name| !taken(name)).unwrap_or_default(),
        linear,
    })
}

/// The initializers of a head's tensors, in the order of [`PlannedHead::parameters`], and the output
/// that it has added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedHead {
    pub initializers: Vec<String>,
    pub output: String,
}

/// Adds a head with these tensors to a model.
pub fn add_head(
    model: &mut Model,
    head: &PlannedHead,
    tensors: &[Tensor],
    sink: &mut Sink,
) -> Result<AddedHead, Reported> {
    let known = passes::infer_values(model, sink)?;
    let on = output_named(model, Some(&head.on)).map_err(|fault| sink.emit(*fault))?;
    let mask = model.padding_mask();
    let wanted = if head.linear.is_some() {
        "logits"
    } else {
        "embedding"
    };
    let output = free(&model.graph, wanted);
    let mut initializers = Vec::new();
    let patch = {
        let build = builder(model, known.all());
        build.set_scope(head.module.clone());
        if let Some(last) = model.graph.producer(on) {
            build.behind(last);
        }
        let names = head.parameters().into_iter();
        let parameters = names.zip(tensors).map(|((name, _), tensor)| {
            let name = free(&model.graph, &format!("{}.{name}", head.module));
            let parameter = build.constant(&name, tensor.clone());
            initializers.push(name);
            parameter
        });
        let parameters: Vec<Expr<'_>> = parameters.collect();
        let mask = mask.map(|mask| build.expr(mask));
        let value = pooled(build.expr(on), head.pool, mask)
            .and_then(|vectors| match parameters.as_slice() {
                [weight, bias] => linear(vectors, *weight, *bias),
                _ => Ok(vectors),
            })
            .and_then(|value| build.trouble().map_or(Ok(value), Err))
            .map_err(|refusal| sink.emit(errors::no_head(&refusal)))?;
        build.with_patch(|patch| patch.named_output(value.operand, &output));
        build.finish()
    };
    apply(model, patch, sink)?;
    Ok(AddedHead {
        initializers,
        output,
    })
}

/// One vector a row. Without a mask every token counts.
fn pooled<'b>(x: Expr<'b>, pool: Pool, mask: Option<Expr<'b>>) -> Result<Expr<'b>, Refusal> {
    let build = x.builder;
    let dims = x.dims()?;
    match (pool, mask) {
        (Pool::None, _) => Ok(x),
        (Pool::First, _) => Ok(x.slice(1, 0, 1).squeeze(&[1])),
        (Pool::Mean, None) => Ok(x.mean_keeping(&[1]).squeeze(&[1])),
        (Pool::Last, None) => Ok(x.slice(1, -1, crate::ops::END).squeeze(&[1])),
        (Pool::Mean, Some(mask)) => {
            let mask = mask.cast(DType::F32);
            let count = mask.sum_keeping(&[1]);
            let share = mask / count.apply2("Max", count.number(1.0));
            weighted(x, share)
        }
        (Pool::Last, Some(mask)) => {
            let places = build.count(&dims[1])?;
            let tokens = mask.cast(DType::I64).is_equal(places.number(1.0));
            let numbered = tokens.choose(places, places.number(-1.0));
            let last = numbered.reduce_keeping("ReduceMax", &[1]);
            weighted(x, numbered.is_equal(last).cast(DType::F32))
        }
    }
}

/// x Wᵀ + b; for one vector a row as the node that exporters write, too.
fn linear<'b>(x: Expr<'b>, weight: Expr<'b>, bias: Expr<'b>) -> Result<Expr<'b>, Refusal> {
    let (weight, bias) = (weight.cast(x.dtype()), bias.cast(x.dtype()));
    if x.rank()? != 2 {
        return Ok(x.matmul(weight.transpose(&[1, 0])) + bias);
    }
    let transposed = vec![Attribute::int("transB", 1)];
    Ok(x.builder.node("Gemm", &[x, weight, bias], transposed))
}

/// Σ weight · x over the tokens.
fn weighted<'b>(x: Expr<'b>, weights: Expr<'b>) -> Result<Expr<'b>, Refusal> {
    let weights = weights.cast(x.dtype()).unsqueeze(&[1]);
    Ok(weights.matmul(x).squeeze(&[1]))
}
