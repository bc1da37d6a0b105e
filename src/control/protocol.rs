//! What is said over the socket: one line of JSON to ask, lines of JSON to answer. Pure.
//!
//! Holds: whatever the bytes, parsing ends in a value or an error, and neither grows beyond its limit.

use super::status::Status;
use crate::error::{Context, Error, Result};
use crate::profile::NAME_BYTES_MAX;
use crate::warm::several::VOLUMES_MAX;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A question: a verb, a stage and a time fit many times over.
pub const LINE_BYTES_MAX: usize = 4096;
/// An answer: the status of 64 stages with names of 255 bytes, each byte escaped; of each volume, and of all together.
pub const ANSWER_BYTES_MAX: usize = (VOLUMES_MAX + 1) << 18;
/// Nobody is waited for longer.
pub const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// What a client may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// How far it is.
    Status {},
    /// To be told when a stage is warm.
    Wait {
        /// Its name.
        stage: String,
        /// For so long.
        timeout_ms: u64,
    },
    /// No more reads for now.
    Pause {},
    /// Go on.
    Resume {},
    /// End; the connection stays until the process has ended.
    Stop {},
    /// In the text format of Prometheus.
    Metrics {},
}

impl Request {
    /// As metrics name it.
    pub fn verb(&self) -> &'static str {
        match self {
            Request::Status {} => "status",
            Request::Wait { .. } => "wait",
            Request::Pause {} => "pause",
            Request::Resume {} => "resume",
            Request::Stop {} => "stop",
            Request::Metrics {} => "metrics",
        }
    }
}

/// All verbs, for metrics that are there from the start.
pub const VERBS: [&str; 6] = ["status", "wait", "pause", "resume", "stop", "metrics"];

/// What came of waiting for a stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "lowercase", deny_unknown_fields)]
pub enum Waited {
    /// It is warm, but for so many blocks that could not be read.
    Warm {
        /// Reads of it and of the stages before it that failed.
        errors: u64,
    },
    /// It will not become warm any more.
    Never {
        /// Why.
        reason: String,
    },
    /// It is not warm yet.
    Timeout {},
    /// The profile has no such stage.
    Unknown {
        /// Those that it has.
        stages: Vec<String>,
    },
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Answer {
    /// How far it is.
    Status(Box<Status>),
    /// The end of a wait.
    Waited(Waited),
    /// A sign of life, while a client waits: so far it is.
    Waiting(Box<Status>),
    /// An order was taken.
    Done(String),
    /// Metrics.
    Metrics(String),
    /// The question was not understood, or cannot be answered now.
    Error(String),
}

/// Reads a question, without the end of its line.
pub fn request(line: &[u8]) -> Result<Request> {
    let fail = || "failed to understand the request".to_string();
    if line.len() > LINE_BYTES_MAX {
        return Err(Error::usage(format!("{}: it is longer than {LINE_BYTES_MAX} bytes", fail())));
    }
    let request: Request = serde_json::from_slice(line)
        .context(fail)
        .map_err(|error| error.hint(r#"ask for instance {"verb":"status"}, in one line"#))?;
    match &request {
        Request::Wait { stage, .. } if stage.len() > NAME_BYTES_MAX => {
            Err(Error::usage(format!("{}: a stage has a name of at most {NAME_BYTES_MAX} bytes", fail())))
        }
        _ => Ok(request),
    }
}

/// Reads an answer, without the end of its line.
pub fn answer(line: &[u8]) -> Result<Answer> {
    let fail = || "failed to understand the daemon's answer".to_string();
    if line.len() > ANSWER_BYTES_MAX {
        return Err(Error::failed(format!("{}: it is longer than {ANSWER_BYTES_MAX} bytes", fail())));
    }
    serde_json::from_slice(line).context(fail).map_err(|error| error.hint("is it of the same version?"))
}

/// A line to send.
pub fn line<T: Serialize>(value: &T) -> Vec<u8> {
    // No map with keys that are no text, and no type that refuses: it cannot fail.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_verb_is_read_as_it_is_written() {
        let wait = Request::Wait { stage: "ready".into(), timeout_ms: 30_000 };
        let all = [
            Request::Status {},
            wait,
            Request::Pause {},
            Request::Resume {},
            Request::Stop {},
            Request::Metrics {},
        ];
        for (asked, verb) in all.into_iter().zip(VERBS.iter().copied().cycle()) {
            let text = line(&asked);
            assert_eq!(request(text.strip_suffix(b"\n").unwrap()).unwrap(), asked);
            assert_eq!(asked.verb(), verb);
        }
        assert_eq!(line(&Request::Status {}), b"{\"verb\":\"status\"}\n", "people type it, too");
    }

    #[test]
    fn what_is_no_question_is_refused_with_an_example() {
        let deep = "[".repeat(LINE_BYTES_MAX);
        let long = format!("{{\"verb\":\"wait\",\"stage\":\"{}\",\"timeout_ms\":1}}", "x".repeat(300));
        for text in [
            "",
            "status",
            "{}",
            "[]",
            r#"{"verb":"reboot"}"#,
            r#"{"verb":"status","more":1}"#,
            r#"{"verb":"wait","stage":"ready"}"#,
            r#"{"verb":"wait","stage":"ready","timeout_ms":-1}"#,
            r#"{"verb":"stop"}{"verb":"stop"}"#,
            &deep,
            &long,
            &" ".repeat(LINE_BYTES_MAX + 1),
        ] {
            let error = request(text.as_bytes()).unwrap_err().full_text();
            assert!(error.starts_with("failed to understand the request"), "{error}");
        }
        assert!(request(b"{}").unwrap_err().full_text().contains(r#"{"verb":"status"}"#));
        assert!(answer(&vec![b' '; ANSWER_BYTES_MAX + 1]).is_err() && answer(b"{}").is_err());
    }

    #[test]
    fn the_largest_status_fits_an_answer() {
        use crate::control::status::StageStatus;
        let volume = |number: usize| {
            let name = |stage: usize| format!("{:\u{1}<240}{number:02}{stage:02}", "");
            let stage = |stage| StageStatus { name: name(stage), reads: u64::MAX, ..StageStatus::default() };
            Status { stages: (0..64).map(stage).collect(), ..Status::default() }
        };
        let volumes: Vec<Status> = (0..VOLUMES_MAX).map(volume).collect();
        // None of them has a stage of another's.
        let stages = volumes.iter().flat_map(|volume| volume.stages.clone()).collect();
        let all = Status { stages, volumes, ..Status::default() };
        let text = line(&Answer::Status(Box::new(all.clone())));
        assert_eq!(answer(text.strip_suffix(b"\n").unwrap()).unwrap(), Answer::Status(Box::new(all)));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (request(&bytes), answer(&bytes));
        }
    }
}
