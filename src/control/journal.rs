//! Log lines as the journal understands them: with their priority in front, without what it adds itself.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Formats for the journal.
#[derive(Clone, Copy, Debug)]
pub struct JournalFormat;

impl JournalFormat {
    /// Where stderr is the journal's, by `JOURNAL_STREAM` (systemd.exec: device and inode of the stream).
    pub fn of_process() -> Option<JournalFormat> {
        let told = std::env::var("JOURNAL_STREAM").ok()?;
        let stderr = std::fs::metadata("/proc/self/fd/2").ok()?;
        is_stream(&told, stderr.dev(), stderr.ino()).then_some(JournalFormat)
    }

    /// The error that a process ends with.
    pub fn error(self, text: &str) -> String {
        prefixed(Level::ERROR, text)
    }
}

fn is_stream(told: &str, device: u64, inode: u64) -> bool {
    let parts = told.split_once(':');
    parts.is_some_and(|(of, number)| of.parse() == Ok(device) && number.parse() == Ok(inode))
}

/// Priorities of syslog.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

/// Each line with its priority: the journal takes each as an entry.
fn prefixed(level: Level, text: &str) -> String {
    let priority = priority(level);
    text.lines().map(|line| format!("<{priority}>{line}\n")).collect()
}

impl<S, N> FormatEvent<S, N> for JournalFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        context.format_fields(Writer::new(&mut text), event)?;
        to.write_str(&prefixed(*event.metadata().level(), &text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_the_priority_of_all() {
        assert_eq!(prefixed(Level::ERROR, "failed\nhelp: do"), "<3>failed\n<3>help: do\n");
        assert_eq!(prefixed(Level::INFO, "warm"), "<6>warm\n");
    }

    #[test]
    fn the_journal_is_known_by_its_stream() {
        assert!(is_stream("8:1234", 8, 1234));
        for told in ["", "8", "8:", "9:1234", "8:1235", "8:1234:1"] {
            assert!(!is_stream(told, 8, 1234), "{told}");
        }
    }
}
