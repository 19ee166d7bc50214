//! Failures as users see them: what, and what to do, with the exit code of the contract.

use ablate_coordinator::{server, store};

/// A failure.
#[derive(Debug)]
pub struct Fail {
    /// Exit code: 1 failed, 2 wrong usage or spec, 130 interrupted.
    pub code: u8,
    message: String,
    help: Option<String>,
}

impl Fail {
    /// Wrong usage or spec.
    pub fn wrong(message: impl Into<String>) -> Self {
        Self { code: 2, message: message.into(), help: None }
    }

    /// Anything that isn't the user's input.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into(), help: None }
    }

    /// With what to do.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// To stderr.
    pub fn print(&self) {
        let word = if self.code == 130 { "interrupted" } else { "error" };
        eprintln!("{word}: {}", self.message);
        if let Some(help) = &self.help {
            eprintln!("help: {help}");
        }
    }
}

impl std::fmt::Display for Fail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<server::Error> for Fail {
    fn from(e: server::Error) -> Self {
        match e {
            server::Error::AddressInUse(_) | server::Error::NoExperiment(_) | server::Error::State(_) => {
                Self::wrong(e.to_string())
            }
            _ => Self::failed(e.to_string()),
        }
    }
}

impl From<store::Error> for Fail {
    fn from(e: store::Error) -> Self {
        Self::failed(e.to_string())
    }
}

impl From<std::io::Error> for Fail {
    fn from(e: std::io::Error) -> Self {
        if e.kind() == std::io::ErrorKind::StorageFull {
            return Self::failed("the disk is full")
                .help("free some space and run the same command again: it resumes");
        }
        Self::failed(e.to_string())
    }
}
