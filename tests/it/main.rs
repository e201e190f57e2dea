//! Integration tests, in one binary because each test binary links ONNX Runtime's loader.
//!
//! Tests that need ONNX Runtime take it from `runtime::library()`, which installs it when it is
//! missing and fails the test when it cannot: such a test never passes without it.

// In a test, `unwrap` is an assertion.
#![allow(clippy::unwrap_used)]

mod adapters;
mod adaption_prompt;
mod arrow;
mod attention;
mod bad_input;
mod bodies;
mod calibrate;
mod checker;
mod cli;
mod contrib;
mod contrib_cases;
mod data;
mod differentiated;
mod evaluate;
mod first_pass;
mod flags;
mod fmt;
mod functions;
mod gradients;
mod gradients_recorded;
mod graph;
mod hooks;
mod inference;
mod inspect;
mod int8_weights;
mod interchange;
mod interrupted;
mod layers;
mod merges;
mod method_nets;
mod method_steps;
mod methods;
mod models;
mod mutated_cases;
mod node_cases;
mod node_gradients;
mod past;
mod pieces;
mod prefix;
mod proofs;
mod python;
mod queries;
mod recompute;
mod recorded;
mod reference;
mod relayered;
mod rewriting;
mod roles;
mod runtime;
mod since_last;
mod starts;
mod statements;
mod steps_recorded;
mod stored;
mod tasks;
mod tolerances;
mod train_command;
mod train_inputs;
mod train_tasks;
mod training;
mod values;
mod witness;
mod xlora;
