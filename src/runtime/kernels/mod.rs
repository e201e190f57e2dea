//! The operators of [`kernels`](crate::kernels), on the CPU and in ONNX Runtime's own threads. A panic stays
//! inside and comes out as an error of the run.

mod attention;
mod rows;

use crate::kernels::DOMAIN;
use crate::kernels::attention::Threads;
use ort::operator::{ComputeContext, OperatorDomain};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

/// The operators that a session with kernels knows besides ONNX Runtime's own.
pub(super) fn domain() -> ort::Result<OperatorDomain> {
    OperatorDomain::new(DOMAIN)?
        .add(rows::Rows)?
        .add(attention::Attention)
}

fn guarded(compute: impl FnOnce() -> ort::Result<()>) -> ort::Result<()> {
    let computed = catch_unwind(AssertUnwindSafe(compute));
    computed.unwrap_or_else(|panic| Err(ort::Error::new(words(&*panic))))
}

/// The threads of the session that computes.
struct Pool<'c>(&'c ComputeContext);

impl Pool<'_> {
    /// Computes all tasks, each once, and answers with what stopped one that failed.
    fn run(
        &self,
        tasks: usize,
        one: &(dyn Fn(usize) -> Result<(), String> + Sync),
    ) -> ort::Result<()> {
        let failed: Mutex<Option<String>> = Mutex::new(None);
        let one = |task: usize| {
            let done = catch_unwind(AssertUnwindSafe(|| one(task)));
            if let Err(why) = done.unwrap_or_else(|panic| Err(words(&*panic))) {
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.get_or_insert(why);
            }
        };
        match tasks {
            0 => {}
            1 => one(0),
            tasks => self.0.par_for(tasks, tasks, one)?,
        }
        let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        match failed {
            Some(why) => Err(ort::Error::new(why)),
            None => Ok(()),
        }
    }
}

impl Threads for Pool<'_> {
    fn each(&self, tasks: usize, one: &(dyn Fn(usize) + Sync)) -> Result<(), String> {
        let done = self.run(tasks, &|task| {
            one(task);
            Ok(())
        });
        done.map_err(|error| error.message().to_owned())
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    format!("a bug in peftc: {}", text.unwrap_or_default())
}
