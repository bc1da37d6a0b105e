//! One error type: what failed, what to do about it, and the exit code it stands for.
//!
//! Holds: a message reads `failed to VERB NOUN "VALUE"`, lower case, no full stop; the cause is only
//! ever the source; where the user can mend it, the hint says how. Nothing here prints or exits.

use std::fmt;

/// What kind of failure it is; decides the exit code (a contract, see README).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Exit code 1.
    Failed,
    /// The command line or a value in it; exit code 2.
    Usage,
    /// Done, but some blocks could not be read; exit code 3.
    Unreadable,
    /// The profile is not for this volume; exit code 4.
    OtherVolume,
    /// A deadline or a timeout passed; exit code 5.
    Deadline,
    /// There is no daemon to ask; exit code 6.
    NoDaemon,
    /// What was waited for will not become warm any more; exit code 7.
    NotWarm,
}

impl Kind {
    /// The process' exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Unreadable => 3,
            Kind::OtherVolume => 4,
            Kind::Deadline => 5,
            Kind::NoDaemon => 6,
            Kind::NotWarm => 7,
        }
    }
}

type Cause = Box<dyn std::error::Error + Send + Sync + 'static>;

/// An error with its kind, a remedy where there is one, and its cause.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
    source: Option<Cause>,
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of the given kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), hint: None, source: None }
    }

    /// A plain failure.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// A wrong argument.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Adds what the user can do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    pub fn because(mut self, cause: impl Into<Cause>) -> Self {
        self.source = Some(cause.into());
        self
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The remedy, where one is known.
    pub fn remedy(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Message, causes and remedy, a line each where they are many, for people.
    pub fn full_text(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = std::error::Error::source(self);
        let mut hint = self.hint.clone();
        while let Some(inner) = cause {
            text.push_str(": ");
            text.push_str(&inner.to_string());
            if let Some(inner) = inner.downcast_ref::<Error>()
                && hint.is_none()
            {
                hint = inner.hint.clone();
            }
            cause = inner.source();
        }
        if let Some(hint) = hint {
            text.push_str("\nhelp: ");
            text.push_str(&hint);
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|cause| cause as _)
    }
}

/// Gives a cause its context.
pub trait Context<T> {
    /// Wraps the error under a message ("failed to open device `/dev/x`").
    fn context(self, message: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Cause>> Context<T> for std::result::Result<T, E> {
    fn context(self, message: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|cause| {
            let cause = cause.into();
            let kind = cause.downcast_ref::<Error>().map_or(Kind::Failed, Error::kind);
            Error { kind, message: message(), hint: None, source: Some(cause) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_text_names_causes_and_the_innermost_remedy() {
        let inner = Error::usage("failed to parse size `12Q`").hint("write 512KiB or 12MB");
        let outer = Err::<(), _>(inner).context(|| "failed to read model `m.yaml`".into()).unwrap_err();
        assert_eq!(
            outer.full_text(),
            "failed to read model `m.yaml`: failed to parse size `12Q`\nhelp: write 512KiB or 12MB"
        );
        assert_eq!(outer.kind().exit_code(), 2);
    }
}
