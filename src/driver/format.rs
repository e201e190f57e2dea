//! Formats specs.

use super::session::{SPEC_LIMIT, Session};
use crate::diag::{FileId, Reported};
use crate::{files, syntax};
use std::io::Read;
use std::path::Path;

/// A spec and its formatted text.
pub struct Formatted {
    /// The text as it is.
    pub file: FileId,
    pub text: String,
}

impl Session<'_> {
    /// Reads and formats a spec; nothing is written.
    pub fn formatted(&mut self, path: &Path) -> Result<Formatted, Reported> {
        let text = files::read_text(path, SPEC_LIMIT, self.sink)?;
        self.formatted_text(path, text)
    }

    /// The same of a spec from elsewhere, such as stdin; `name` is shown to the user.
    pub fn formatted_from(
        &mut self,
        source: impl Read,
        name: &Path,
    ) -> Result<Formatted, Reported> {
        let bytes = files::read_from(source, name, SPEC_LIMIT, self.sink)?;
        let text = files::text(name, bytes, self.sink)?;
        self.formatted_text(name, text)
    }

    fn formatted_text(&mut self, name: &Path, text: String) -> Result<Formatted, Reported> {
        let file = self.sources.add(name.to_string_lossy(), text);
        let text = syntax::format(self.sources, file, self.sink)?;
        Ok(Formatted { file, text })
    }
}
