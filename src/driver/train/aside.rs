//! What a run has kept, moved out of the way of another one and back.
//!
//! Whatever moment a process is killed at, nothing is lost: [`settle`] ends or takes back what was begun.

use super::checkpoint::{BEST, LAST, kept_step};
use crate::diag::{Reported, Sink};
use crate::files;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The figures of a run as JSON lines.
pub const METRICS: &str = "metrics.jsonl";

/// The same for TensorBoard, which reads files of which the name holds `tfevents`.
pub const EVENTS: &str = "events.out.tfevents.peftc";

/// The folder, in that of a run, of what the run before it has kept.
const EARLIER: &str = "earlier";

/// What will be [`EARLIER`]. It is complete when it holds the last checkpoint, which is moved last.
const NEXT: &str = ".earlier-next";

/// What was [`EARLIER`] and goes back to the folder of the run.
const BACK: &str = ".earlier-back";

/// Moves what an earlier run has kept out of the way of one that starts anew, in place of what a run
/// before that had kept: the numbers of one would be counted with those of the other, and who forgot
/// `--resume` loses nothing.
pub(super) fn set_aside(folder: &Path, sink: &mut Sink) -> Result<(), Reported> {
    move_aside(folder).map_err(|error| sink.emit(cannot_move(folder, &error)))
}

/// Lets the run in a folder and the one that was set aside change places.
pub(super) fn swap(folder: &Path, sink: &mut Sink) -> Result<(), Reported> {
    let (earlier, back) = (folder.join(EARLIER), folder.join(BACK));
    let swap = || -> io::Result<()> {
        fs::rename(&earlier, &back)?;
        move_aside(folder)?;
        // From here on it is not taken back any more.
        fs::create_dir_all(&earlier)?;
        bring_back(folder)
    };
    swap().map_err(|error| sink.emit(cannot_move(folder, &error)))
}

/// Ends what a process has begun that was killed while it moved files, or takes it back.
pub(super) fn settle(folder: &Path, sink: &mut Sink) -> Result<(), Reported> {
    let (next, back) = (folder.join(NEXT), folder.join(BACK));
    let settle = || -> io::Result<()> {
        if next.join(LAST).exists() {
            become_earlier(folder)?;
        } else if next.is_dir() {
            move_all(&next, folder)?;
        }
        match back.is_dir() {
            true if folder.join(EARLIER).exists() => bring_back(folder),
            true => fs::rename(&back, folder.join(EARLIER)),
            false => Ok(()),
        }
    };
    settle().map_err(|error| sink.emit(cannot_move(folder, &error)))
}

/// The checkpoint that a run before has left, if it was set aside.
pub(super) fn earlier(folder: &Path) -> Option<PathBuf> {
    let path = folder.join(EARLIER).join(LAST);
    path.exists().then_some(path)
}

/// Where a checkpoint lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the folder of the run, under this path.
    Here(PathBuf),
    /// In that of the run before it; this is its path when they have changed places.
    Earlier(PathBuf),
    Elsewhere,
}

pub(super) fn place(path: &Path, folder: &Path) -> Place {
    let real = path.canonicalize().ok();
    let real = real
        .as_deref()
        .and_then(|path| path.parent().zip(path.file_name()));
    let Some((parent, name)) = real else {
        return Place::Elsewhere;
    };
    let is = |folder: &Path| folder.canonicalize().is_ok_and(|folder| folder == parent);
    match (is(folder), is(&folder.join(EARLIER))) {
        (true, _) => Place::Here(folder.join(name)),
        (_, true) => Place::Earlier(folder.join(name)),
        _ => Place::Elsewhere,
    }
}

fn cannot_move(folder: &Path, error: &io::Error) -> crate::diag::Diagnostic {
    files::cannot_write(&folder.join(EARLIER), error)
}

fn move_aside(folder: &Path) -> io::Result<()> {
    if !fs::read_dir(folder)?
        .flatten()
        .any(|entry| is_checkpoint(&entry.file_name()))
    {
        return Ok(());
    }
    let earlier = folder.join(EARLIER);
    if fs::symlink_metadata(&earlier).is_ok_and(|found| !found.is_dir()) {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let next = folder.join(NEXT);
    fs::create_dir_all(&next)?;
    for name in names(folder, is_kept)? {
        fs::rename(folder.join(&name), next.join(&name))?;
    }
    become_earlier(folder)
}

/// Puts what is complete in the place of what a run before had kept. What else lies there stays there.
fn become_earlier(folder: &Path) -> io::Result<()> {
    let (earlier, next) = (folder.join(EARLIER), folder.join(NEXT));
    if earlier.is_dir() {
        for name in names(&earlier, |name| !is_kept(name))? {
            fs::rename(earlier.join(&name), next.join(&name))?;
        }
        fs::remove_dir_all(&earlier)?;
    }
    fs::rename(next, earlier)
}

/// Brings back what was set aside; what else lay there goes where it was.
fn bring_back(folder: &Path) -> io::Result<()> {
    let (earlier, back) = (folder.join(EARLIER), folder.join(BACK));
    for name in names(&back, |name| !is_kept(name))? {
        fs::rename(back.join(&name), earlier.join(&name))?;
    }
    move_all(&back, folder)
}

/// Moves everything from a folder to another one and removes it.
fn move_all(from: &Path, to: &Path) -> io::Result<()> {
    for name in names(from, |_| true)? {
        fs::rename(from.join(&name), to.join(&name))?;
    }
    fs::remove_dir(from)
}

/// Names of some of what is in a folder; the checkpoint to go on from is the last one.
fn names(folder: &Path, which: impl Fn(&OsString) -> bool) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name());
    }
    names.retain(which);
    names.sort_by_key(|name| name == LAST);
    Ok(names)
}

fn is_checkpoint(name: &OsString) -> bool {
    let is_numbered = |name: &str| kept_step(name).is_some();
    name == LAST || name == BEST || name.to_str().is_some_and(is_numbered)
}

/// What belongs to one run and no other.
fn is_kept(name: &OsString) -> bool {
    name == METRICS || name == EVENTS || is_checkpoint(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&str; 4] = [BEST, "checkpoint-4.safetensors", METRICS, LAST];

    /// Files of a run, which hold its name.
    fn put(folder: &Path, run: &str, names: &[&str]) {
        fs::create_dir_all(folder).unwrap();
        for name in names {
            fs::write(folder.join(name), run).unwrap();
        }
    }

    /// The names of runs of which everything is in a folder.
    fn runs(folder: &Path) -> Vec<String> {
        let all = ALL.iter().map(|name| folder.join(name));
        let mut runs: Vec<String> = all
            .map(|path| fs::read_to_string(path).unwrap_or("none".to_owned()))
            .collect();
        runs.dedup();
        runs
    }

    #[test]
    fn a_run_goes_aside_and_back() {
        let folder = tempfile::tempdir().unwrap();
        let (out, earlier) = (folder.path(), folder.path().join(EARLIER));
        let mut sink = Sink::new();
        put(out, "a", &ALL);
        put(out, "", &["model.onnx"]);
        set_aside(out, &mut sink).unwrap();
        assert_eq!(
            (runs(out), runs(&earlier)),
            (vec!["none".to_owned()], vec!["a".to_owned()])
        );
        put(&earlier, "", &["notes.txt"]);
        put(out, "b", &ALL);
        swap(out, &mut sink).unwrap();
        assert_eq!(
            (runs(out), runs(&earlier)),
            (vec!["a".to_owned()], vec!["b".to_owned()])
        );
        set_aside(out, &mut sink).unwrap();
        assert_eq!(runs(&earlier), ["a"]);
        assert!(earlier.join("notes.txt").exists() && out.join("model.onnx").exists());
        // One that has kept nothing has nothing to take another's place.
        set_aside(out, &mut sink).unwrap();
        swap(out, &mut sink).unwrap();
        assert_eq!(
            (runs(out), runs(&earlier)),
            (vec!["a".to_owned()], vec!["none".to_owned()])
        );
        assert_eq!(fs::read_dir(out).unwrap().count(), ALL.len() + 2);
    }

    /// Whatever a process that was killed has left, both runs are there as a whole.
    #[test]
    fn what_was_begun_is_ended_or_taken_back() {
        let (a, b) = (vec!["a".to_owned()], vec!["b".to_owned()]);
        for moved in 0..=ALL.len() {
            // Whether `a` comes back from `earlier` at the same time.
            for comes_back in [false, true] {
                let folder = tempfile::tempdir().unwrap();
                let (out, earlier) = (folder.path(), folder.path().join(EARLIER));
                put(&out.join(NEXT), "b", &ALL[..moved]);
                put(out, "b", &ALL[moved..]);
                let of_a = if comes_back { BACK } else { EARLIER };
                put(&out.join(of_a), "a", &ALL);
                settle(out, &mut Sink::new()).unwrap();
                let is_whole = moved == ALL.len();
                let wanted = match (is_whole, comes_back) {
                    (false, _) => (b.clone(), a.clone()),
                    (true, true) => (a.clone(), b.clone()),
                    (true, false) => (vec!["none".to_owned()], b.clone()),
                };
                assert_eq!((runs(out), runs(&earlier)), wanted, "{moved} {comes_back}");
                assert!(!out.join(NEXT).exists() && !out.join(BACK).exists());
            }
            // The end of a swap.
            let folder = tempfile::tempdir().unwrap();
            let (out, earlier) = (folder.path(), folder.path().join(EARLIER));
            put(&earlier, "b", &ALL);
            put(out, "a", &ALL[..moved]);
            put(&out.join(BACK), "a", &ALL[moved..]);
            settle(out, &mut Sink::new()).unwrap();
            assert_eq!(
                (runs(out), runs(&earlier)),
                (a.clone(), b.clone()),
                "{moved}"
            );
        }
    }
}
