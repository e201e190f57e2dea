//! peftc compiles adapter specifications (`.peft`) and ONNX models into adapted ONNX models.
//!
//! # Phases
//!
//! ```text
//! text ── syntax ─▶ ast::File ── hir ─▶ Program ─┐
//!                                                ├─ adapt::plan ─▶ Plan ─ adapt::apply ─▶ Model' ─ onnx ─▶ files
//! model ─ onnx ─▶ Model ─ passes, modules ───────┘
//! ```
//!
//! `autodiff` appends the gradients of a loss to a model. `driver` calls the phases, `cli` puts them
//! into commands.
//!
//! # Invariants
//!
//! 1. `syntax` and `hir` never see a model: a method is checked with symbolic sizes before any model
//!    is opened.
//! 2. `graph` does not know protobuf; `onnx` is the only room that does. Items that nobody changes
//!    carry their serialized form and are written back byte for byte.
//! 3. Only a [`Patch`](graph::Patch) changes a finished graph. Everything is matched on the original
//!    graph and applied once: an adapter never matches its own output. With its layers in another
//!    sequence it is another graph, made before anything is matched.
//! 4. A patch leaves a graph that verifies (checked in debug builds and at import).
//! 5. `runtime` never sees a graph: it gets model bytes and names.
//! 6. Nothing below `cli` reads the clock, the environment or unseeded randomness. Same inputs, same
//!    bytes.
//! 7. Weights stay on disk: mapped or referred to, read only where a start value needs them.
//!
//! # Choices
//!
//! * A method is evaluated with its hyper-parameters into a [`Formula`](hir::Formula), a typed graph of
//!   terms without control flow. Lowering, identity at start and merging are walks over it, so that
//!   none of them knows any method.
//! * What a method needs is written in the language and not in the compiler: inverses, circulant and skew
//!   matrices are formulas of a few primitive terms (`hir/builtins/blocks.rs`), so that gradients, merging
//!   and start values have nothing to learn from them. An inverse is Newton's iteration without a
//!   gradient and one step with it: ONNX has no operator for it, and at the fixed point that step has
//!   the inverse's own derivative.
//! * What a method does between steps is formulas, too: over its parameters, their gradients and what it
//!   keeps. They are part of the update (`train/hooks.rs`), so that gradients of several batches are added
//!   up before a method sees them, and nothing of them is in a model that is run. The number of all steps
//!   is a hyper-parameter of the methods that have a schedule: an update knows its own number alone.
//! * A prompt is rows that an embedding puts in front of its tokens (`adapt/prepend.rs`): the model gets
//!   placeholders for them in its inputs, so that nothing inside of it has to know, and its outputs lose
//!   what belongs to them. A prefix is rows in front of caches, which are inputs: they are sites of a kind
//!   of their own, though no layers, so that a method for them is written as any other.
//! * A first pass (`adapt/first_pass.rs`) is a copy of what leads to a module, made in the patch that
//!   adapts: copies read what modules give before the patch replaces it. So it knows no adapter, shares all
//!   weights, and begins where the first adapted module stands. Terms that no module tells apart are emitted
//!   once a graph (`adapt/lower/once.rs`), so that one network decides for all modules.
//! * What a method reads beside its module is of the base model: the query of an attention is found from the
//!   layer behind it (`modules/attention.rs`), in front of the factor of its scores, so that it is one
//!   value whatever the export; another module is its node once more (`adapt/beside.rs`).
//! * Clusters of rows (`linalg/clusters.rs`) begin at the rows farthest from each other and not at random
//!   ones: no seed, and the same on every machine.
//! * A start value never changes the base weight. A method that wants the principal part of it taken off
//!   subtracts its own start in `forward`: the adapter stays one for the base model, and two of them add.
//! * Layers that an adapter repeats are found by dominators (`adapt/layers`), not by names of operators: what
//!   flows from a layer's modules to the outputs goes through one value, whatever the layer is made of. The
//!   model with these layers takes the place of the file's as the adapter is planned, so that nothing after
//!   that knows of them but the manifest; fingerprints stay those of the file.
//! * What data tells of a module is a term like the base weight (`Statistic`), measured by a pass of its
//!   own and kept in a file: a start value stays a formula that is computed when compiling, and the file
//!   serves every spec whose modules it covers. The gradient of a weight is dYᵀX of the module's output
//!   and input, so that it asks nothing of how the weight is stored.
//! * Positions are floats in specs and exact integers in graphs: at a site of half precision they are
//!   computed in 32 bits (`adapt/lower/axes.rs`).
//! * A size divided by a size is taken to come out even while sizes are symbols; at every module the
//!   numbers decide.
//! * A gradient rule, like a shape rule, is data in the registry of operators, and an operator says
//!   what it has: a rule, a gradient of zero, or none with what to do then. Formulas are written with
//!   expressions that emit nodes (`ops::Expr`). What broadcasting stretched is summed in one place, the
//!   sweep.
//! * A convolution is a linear layer over patches, an embedding one over one-hot rows (`adapt/rows.rs`):
//!   a method is written once for all three, and its parameters are matrices for all three.
//! * A head (pooling and a linear layer on an encoder's output) belongs to a task, not to a spec: it is
//!   added behind the adapter, to the adapted model, so that no pattern matches it and a spec stays
//!   one for every task. Its tensors are trained in full and lie in the adapter's file.
//! * When a value's uses move to a replacement, its name moves too, so graph outputs and the captures of
//!   subgraphs need no rewriting and a diff shows insertions only.
//! * Decompositions (`linalg`) are `faer`'s, not `nalgebra`'s: they are taken of every weight of a
//!   model, and blocked kernels take them several times as fast. Each runs on one thread, so that its
//!   result does not depend on what runs beside it.
//! * `files` is a room of its own: reading with a cap and writing by rename are needed by `onnx`,
//!   `weights` and `driver` alike.
//!
//! * Nothing is fused before it is differentiated: a chain of operators that is an activation has that one's
//!   gradient (`ops/grad/chain.rs`), a softmax in attention one that reads its result (`ops/grad/softmax.rs`),
//!   and kernels are put in afterwards. So the written graphs are the operators that they were, and a rule
//!   that does not know a spelling costs memory, never a wrong gradient.
//! * Where logits are large, the loss is cut along the tokens and not along the vocabulary
//!   (`train/pieces.rs`): a softmax needs all classes of a token, and with tokens in pieces it has them.
//! * Kernels are no part of a graph that anybody writes down. `passes::fuse` puts them into a copy in
//!   memory when a session for training opens; one operator runs all of them, each a short program
//!   (`kernels`), so that what is fused is decided by the graph, not by a list of patterns. Attention is the
//!   exception and has an operator of its own: it is made of products, which a program of rows cannot call,
//!   and what it may leave out only its mask says.
//!
//! Dependencies between rooms run one way; `tests/it/layers.rs` holds the table.

// In reading order.
pub mod diag;
pub mod files;
pub mod linalg;
pub mod ty;

pub mod kernels;

pub mod stdlib;
pub mod syntax;

pub mod hir;

pub mod graph;
pub mod ops;

pub mod onnx;

pub mod passes;

pub mod reference;

pub mod modules;

pub mod adapt;

pub mod autodiff;

pub mod train;

pub mod weights;

pub mod data;

pub mod runtime;

pub mod prove;

pub mod driver;

pub mod report;

pub mod cli;

#[cfg(test)]
#[path = "../tests/it/tolerances.rs"]
mod tolerances;
