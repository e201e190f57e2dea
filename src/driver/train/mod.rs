//! Training: a compiled adapter, data, and ONNX Runtime, step by step.
//!
//! In: a [`Config`]. Out: the folder of `peftc compile --train` with the trained adapter in it, the
//! run's figures as JSON lines, and a checkpoint from which a stopped run goes on. What holds: a run
//! that is resumed computes what one that never stopped computes, bit for bit on the same machine;
//! nothing that was complete is lost when a run ends early. Not here: what is computed in a step
//! (`train`), and how batches are made (`data`).

mod aside;
mod bench;
mod calibrate;
mod changes;
mod checkpoint;
mod config;
mod data_config;
mod errors;
mod evaluate;
mod examples;
mod finite;
mod identity;
mod job;
mod moments;
mod numerics;
mod run;
mod schedule;
mod scores;
mod session;
mod stepper;

pub use aside::{EVENTS, METRICS};
pub use bench::{Bench, BenchOptions};
pub use calibrate::{CalibrateOptions, Calibrated, calibrate};
pub use config::{Config, read_config};
pub use evaluate::{Measured, comparable, evaluate};
pub use run::{Begin, Event, Outcome, RunOptions, train};
pub use schedule::Schedule;
pub use scores::Scores;
pub use session::Engine;
