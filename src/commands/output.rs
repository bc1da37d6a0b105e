//! What a verb prints: one JSON document or text for people, on stdout.

use crate::error::{Context, Result};
use serde::Serialize;
use std::io::Write;

/// How results are printed.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// One JSON document instead of text.
    pub json: bool,
}

impl Output {
    /// Prints the value as JSON, or what `text` makes of it.
    pub fn print<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
        let mut shown = if self.json {
            serde_json::to_string_pretty(value).context(|| "failed to write the result as JSON".into())?
        } else {
            text(value)
        };
        if !shown.ends_with('\n') {
            shown.push('\n');
        }
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(shown.as_bytes()).and_then(|()| stdout.flush()) {
            // `| head` closes the pipe: nothing is wrong.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => other.context(|| "failed to write to standard output".into()),
        }
    }
}

/// A line on stderr for whoever watches. Where it takes nothing there is nobody to tell, which is no reason to panic.
pub fn tell(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
