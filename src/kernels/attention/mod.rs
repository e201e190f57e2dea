//! `softmax(scale · q kᵀ + mask) v` and its gradients, a block of queries at a time.
//!
//! In: queries `[.., n, d]`, keys `[.., m, d]` or `[.., d, m]`, values `[.., m, e]` and a mask that is
//! stretched to `[.., n, m]`. Out: `[.., n, e]`, or the gradients of queries, keys and values.
//!
//! Scores of a block stay in memory that a processor keeps close and are computed again for the
//! gradients, so that nothing of n × m elements is ever written out (Dao et al., "FlashAttention",
//! arXiv:2205.14135; a block has all of its keys here, so that a softmax is what it always is). Of a
//! block's keys those are left out whose probabilities are 0 whatever the scores are ([`spans`]): half
//! of them where the mask is causal.
//!
//! What holds: the same operands give the same bytes on a processor with any number of threads; what is
//! left out changes no result, where values are numbers: a value that is none is left out, too. Products are `linalg`'s, because ONNX Runtime's cannot be called from a
//! kernel.

mod compute;
mod form;
mod rows;
mod spans;
#[cfg(test)]
mod tests;

pub use compute::{Given, Gradients};
pub use form::{Form, Gradient};

/// The operator, and the attribute that holds its [`Form`].
pub const OPERATOR: &str = "Attention";
pub const FORM: &str = "form";

/// How keys lie, or their gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// `[.., keys, width]`.
    Rows,
    /// `[.., width, keys]`.
    Columns,
}

impl Keys {
    fn sizes(self, dims: &[usize]) -> [usize; 2] {
        match (self, dims) {
            (Keys::Rows, [keys, width]) | (Keys::Columns, [width, keys]) => [*keys, *width],
            _ => [0, 0],
        }
    }
}

/// Runs tasks at the same time.
pub trait Threads {
    /// Calls `one` with every number below `tasks` once.
    fn each(&self, tasks: usize, one: &(dyn Fn(usize) + Sync)) -> Result<(), String>;
}

/// What attention reads.
#[derive(Clone, Copy, Debug)]
pub struct Operands<'r> {
    pub queries: &'r [f32],
    pub keys: &'r [f32],
    pub values: &'r [f32],
    pub mask: Option<&'r [f32]>,
}

/// Sizes of operands, outermost axis first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperandSizes {
    pub queries: Vec<usize>,
    pub keys: Vec<usize>,
    pub values: Vec<usize>,
    pub mask: Option<Vec<usize>>,
}

/// Attention on operands of certain sizes.
#[derive(Clone, Debug)]
pub struct Attention {
    scale: f32,
    layout: Keys,
    guards: bool,
    lead: Vec<usize>,
    /// `n`, `m`, `d` and `e`.
    queries: usize,
    keys: usize,
    width: usize,
    value_width: usize,
    mask: Option<Mask>,
}

/// Where to find an element of the mask.
#[derive(Clone, Debug)]
struct Mask {
    elements: usize,
    /// Where that of every head begins.
    heads: Vec<usize>,
    /// How far apart elements of neighbouring queries and keys are; 0 where the mask is stretched.
    query: usize,
    key: usize,
}

impl Attention {
    /// Fails for sizes that do not fit together, in words that name the sizes.
    pub fn new(form: &Form, sizes: &OperandSizes) -> Result<Attention, String> {
        let layout = form.keys;
        let split = |dims: &[usize]| match dims.len().checked_sub(2) {
            Some(lead) => Ok((dims[..lead].to_vec(), [dims[lead], dims[lead + 1]])),
            None => Err(format!("{dims:?} are no matrices")),
        };
        let (lead, [queries, width]) = split(&sizes.queries)?;
        let (of_keys, key_sizes) = split(&sizes.keys)?;
        let (of_values, [rows, value_width]) = split(&sizes.values)?;
        let [keys, key_width] = layout.sizes(&key_sizes);
        if of_keys != lead || of_values != lead || key_width != width || rows != keys {
            let OperandSizes {
                queries,
                keys,
                values,
                ..
            } = sizes;
            return Err(format!(
                "queries {queries:?}, keys {keys:?} and values {values:?} do not go together"
            ));
        }
        if width == 0 {
            return Err("queries and keys have no elements".to_owned());
        }
        let mask = sizes.mask.as_ref();
        let mask = mask.map(|dims| Mask::new(dims, &lead, queries, keys));
        Ok(Attention {
            scale: form.scale,
            layout,
            guards: form.guards,
            mask: mask.transpose()?,
            lead,
            queries,
            keys,
            width,
            value_width,
        })
    }

    /// Sizes of the result.
    pub fn result(&self) -> Vec<usize> {
        self.of_heads([self.queries, self.value_width])
    }

    /// Sizes of the gradients of queries, keys and values.
    pub fn gradients(&self, keys: Keys) -> [Vec<usize>; 3] {
        let of_keys = match keys {
            Keys::Rows => [self.keys, self.width],
            Keys::Columns => [self.width, self.keys],
        };
        [
            self.of_heads([self.queries, self.width]),
            self.of_heads(of_keys),
            self.of_heads([self.keys, self.value_width]),
        ]
    }

    fn of_heads(&self, matrix: [usize; 2]) -> Vec<usize> {
        [&self.lead[..], &matrix].concat()
    }

    fn heads(&self) -> usize {
        self.lead.iter().product()
    }

    fn check(&self, of: &Operands<'_>) -> Result<(), String> {
        let heads = self.heads();
        let mask = self.mask.as_ref().map(|mask| mask.elements);
        let fits = of.queries.len() == heads * self.queries * self.width
            && of.keys.len() == heads * self.keys * self.width
            && of.values.len() == heads * self.keys * self.value_width
            && of.mask.map(<[f32]>::len) == mask;
        match fits {
            true => Ok(()),
            false => Err("operands of other sizes than planned".to_owned()),
        }
    }
}

impl Mask {
    fn new(dims: &[usize], lead: &[usize], queries: usize, keys: usize) -> Result<Mask, String> {
        let whole = [lead, &[queries, keys]].concat();
        let refused = || format!("a mask {dims:?} does not go with scores {whole:?}");
        let ahead = whole.len().checked_sub(dims.len()).ok_or_else(refused)?;
        let mut strides = vec![0; whole.len()];
        let mut stride = 1;
        for (axis, size) in dims.iter().enumerate().rev() {
            match *size {
                1 => {}
                size if size == whole[ahead + axis] => strides[ahead + axis] = stride,
                _ => return Err(refused()),
            }
            stride *= size;
        }
        let mut heads = vec![0];
        for (size, stride) in lead.iter().zip(&strides) {
            let deeper = heads.iter().flat_map(|start| {
                let inner = 0..*size;
                inner.map(move |index| start + index * stride)
            });
            heads = deeper.collect();
        }
        Ok(Mask {
            elements: stride,
            heads,
            query: strides[lead.len()],
            key: strides[lead.len() + 1],
        })
    }
}
