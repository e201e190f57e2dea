//! Going on from a checkpoint, and back to the best one.

use super::Run;
use crate::diag::{Reported, Sink};
use crate::driver::train::aside::{self, Place};
use crate::driver::train::checkpoint::{self, BEST, Best, State, kept_name};
use crate::driver::train::errors;
use crate::files;
use std::path::{Path, PathBuf};

impl Run<'_> {
    /// Goes on from a checkpoint; answers with the steps that it has done.
    pub(super) fn resume(&mut self, path: PathBuf, sink: &mut Sink) -> Result<u64, Reported> {
        let state = self.restore(&path, sink)?;
        let path = self.bring(path, sink)?;
        self.next = state.position;
        self.best = self.with_best(&state, &path, sink)?;
        self.saved = Some(path);
        Ok(state.step)
    }

    /// Lets the run of a checkpoint be that of the output folder; answers with where the checkpoint is
    /// then. What lies there and would be written over is set aside.
    fn bring(&self, path: PathBuf, sink: &mut Sink) -> Result<PathBuf, Reported> {
        let (folder, last) = (&self.config.output, self.checkpoint());
        let path = match aside::place(&path, folder) {
            Place::Here(path) => path,
            Place::Earlier(path) => {
                aside::swap(folder, sink)?;
                path
            }
            Place::Elsewhere => {
                if self.own(&last).is_none() {
                    aside::set_aside(folder, sink)?;
                }
                path
            }
        };
        if path != last {
            self.keep(&last, sink)?;
        }
        Ok(path)
    }

    /// Keeps a copy of a checkpoint of this run under the number of its step, if there is none.
    fn keep(&self, path: &Path, sink: &mut Sink) -> Result<(), Reported> {
        let Some(state) = self.own(path) else {
            return Ok(());
        };
        let kept = self.config.output.join(kept_name(state.step));
        if !kept.exists() {
            files::copy(path, &kept, sink)?;
        }
        Ok(())
    }

    /// What a file says, if it is a checkpoint of this run, of whatever step.
    fn own(&self, path: &Path) -> Option<State> {
        let mut unseen = Sink::new();
        let (state, _) = checkpoint::load(path, &mut unseen).ok()?;
        let schedule = self.config.optimizer.schedule;
        let checked = self
            .identity
            .check(&state.run, 0, schedule, path, &mut unseen);
        checked.is_ok().then_some(state)
    }

    /// The best measurement up to a checkpoint, if its values are there: in the output folder or beside
    /// the checkpoint, from where they are brought. That of a later step belongs to what is trained
    /// again, and is kept under its number.
    fn with_best(
        &self,
        state: &State,
        checkpoint: &Path,
        sink: &mut Sink,
    ) -> Result<Option<Best>, Reported> {
        let path = self.best_checkpoint();
        let kept = state.best.map(|best| kept_name(best.step));
        let beside = kept.as_deref().into_iter().chain([BEST]);
        let beside = beside.map(|name| checkpoint.with_file_name(name));
        let measured = |path: PathBuf| {
            let own = self.own(&path)?;
            let best = own.best.filter(|best| best.step == own.step)?;
            (best.step <= state.step).then_some((best, path))
        };
        let found = [path.clone()].into_iter().chain(beside);
        let found = found
            .filter_map(measured)
            .min_by(|a, b| a.0.loss.total_cmp(&b.0.loss))
            .filter(|_| state.best.is_some());
        match found {
            Some((best, found)) if found == path => Ok(Some(best)),
            found => {
                self.keep(&path, sink)?;
                if let Some((_, found)) = &found {
                    files::copy(found, &path, sink)?;
                }
                Ok(found.map(|(best, _)| best))
            }
        }
    }

    /// Has the values of the best measurement again; answers with its step.
    pub(super) fn restore_best(&mut self, sink: &mut Sink) -> Result<u64, Reported> {
        let state = self.restore(&self.best_checkpoint(), sink)?;
        self.best = state.best;
        Ok(state.step)
    }

    fn restore(&mut self, path: &Path, sink: &mut Sink) -> Result<State, Reported> {
        let (state, tensors) = checkpoint::load(path, sink)?;
        let schedule = self.config.optimizer.schedule;
        self.identity
            .check(&state.run, state.step, schedule, path, sink)?;
        for carried in self.step.carried.clone() {
            let Some(tensor) = tensors.get(&carried.name) else {
                return Err(sink.emit(errors::tensor_lacks(path, &carried.name)));
            };
            self.step.set(&carried, tensor, sink)?;
        }
        Ok(state)
    }
}
