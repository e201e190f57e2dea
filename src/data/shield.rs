//! Panics of libraries that read what others have written.
//!
//! A damaged file must be an error. Two libraries here say so by a panic where their authors did not
//! expect damage: it ends at this shield, and becomes the error that it should have been.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static SHIELDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread would end at a shield, so that nobody has to be told.
pub fn shielded() -> bool {
    SHIELDED.get()
}

/// What the work gives, or what it says when it panics. It must not leave anything half changed
/// that is used afterwards.
pub(super) fn shield<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let before = SHIELDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    SHIELDED.set(before);
    result.map_err(|panic| {
        let words = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let words = words.or_else(|| panic.downcast_ref::<String>().cloned());
        words.unwrap_or_else(|| "no reason is given".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_at_the_shield() {
        assert_eq!(shield(shielded), Ok(true));
        assert_eq!(
            shield(|| panic!("damaged {}", 1)),
            Err::<(), _>("damaged 1".to_owned())
        );
        assert!(!shielded());
    }
}
