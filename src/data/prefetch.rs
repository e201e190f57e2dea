//! Batches made ahead of their use, on a thread of their own.

use super::batch::Batch;
use super::batcher::Batcher;
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

/// The same batches as the batcher's, some of them ready before they are asked for.
pub struct Prefetch {
    batches: Option<Receiver<Batch>>,
    thread: Option<JoinHandle<()>>,
}

impl Prefetch {
    /// At most `ahead` batches are ready at a time.
    pub fn start(mut batcher: Batcher, ahead: NonZeroUsize) -> Prefetch {
        let (sender, receiver) = sync_channel(ahead.get());
        let thread = std::thread::spawn(move || {
            // An error means that nobody wants more.
            while sender.send(batcher.next_batch()).is_ok() {}
        });
        Prefetch {
            batches: Some(receiver),
            thread: Some(thread),
        }
    }

    fn end(&mut self) -> std::thread::Result<()> {
        self.batches = None;
        self.thread.take().map_or(Ok(()), JoinHandle::join)
    }
}

impl Iterator for Prefetch {
    type Item = Batch;

    /// Never `None`: a batcher has no end.
    fn next(&mut self) -> Option<Batch> {
        if let Some(batch) = self
            .batches
            .as_ref()
            .and_then(|batches| batches.recv().ok())
        {
            return Some(batch);
        }
        // The thread ends early only by a panic, which is this thread's then.
        match self.end() {
            Err(panic) => resume_unwind(panic),
            Ok(()) => None,
        }
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        let _ = self.end();
    }
}
