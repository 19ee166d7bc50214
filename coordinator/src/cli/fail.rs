//! Failures as users see them: what, where, and what to do, with the exit code of the contract.

use super::say;
use ablate_coordinator::{server, store};

/// A failure.
#[derive(Debug)]
pub struct Fail {
    /// Exit code: 1 failed, 2 wrong usage or spec, 130 interrupted.
    pub code: u8,
    message: String,
    place: Option<String>,
    help: Option<String>,
}

impl Fail {
    fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), place: None, help: None }
    }

    /// Wrong usage or spec.
    pub fn wrong(message: impl Into<String>) -> Self {
        Self::new(2, message)
    }

    /// Anything that isn't the user's input.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(1, message)
    }

    /// Ended by a signal, to be resumed.
    pub fn interrupted(message: impl Into<String>) -> Self {
        Self::new(130, message)
    }

    /// With what to do.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// With what to do, where nothing more to the point is known.
    pub fn or_help(mut self, help: impl Into<String>) -> Self {
        self.help.get_or_insert_with(|| help.into());
        self
    }

    /// With what to do after that.
    pub fn then(mut self, help: impl std::fmt::Display) -> Self {
        self.help = Some(self.help.map_or_else(|| help.to_string(), |first| format!("{first}; {help}")));
        self
    }

    /// With where it is.
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// A complaint of one line whose last part, after a semicolon, is what to do.
    pub fn with_advice(code: u8, complaint: &str) -> Self {
        match complaint.rsplit_once("; ") {
            Some((what, todo)) if !todo.contains('\n') => Self::new(code, what).help(todo),
            _ => Self::new(code, complaint),
        }
    }

    /// What and where, and what to do.
    pub fn parts(self) -> (String, String) {
        let place = self.place.map(|p| format!("{p}: ")).unwrap_or_default();
        (format!("{place}{}", self.message), self.help.unwrap_or_default())
    }

    /// To stderr.
    pub fn print(&self) {
        let word = if self.code == 130 { "interrupted" } else { "error" };
        say::err(format_args!("{word}: {self}"));
    }
}

impl std::fmt::Display for Fail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        if let Some(place) = &self.place {
            write!(f, "\n  at: {place}")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\nhelp: {help}")?;
        }
        Ok(())
    }
}

impl From<server::Error> for Fail {
    fn from(e: server::Error) -> Self {
        match e {
            server::Error::Store(e) => e.into(),
            server::Error::AddressInUse(_) | server::Error::NoExperiment(_) | server::Error::State(_) => {
                Self::with_advice(2, &e.to_string())
            }
            _ => Self::with_advice(1, &e.to_string()),
        }
    }
}

impl From<store::Error> for Fail {
    fn from(e: store::Error) -> Self {
        match e {
            store::Error::Refused(why) => Self::with_advice(2, &why),
            store::Error::Unavailable(_) => Self::failed(e.to_string())
                .help("start the database there, or correct host and port in the URL"),
            e => Self::with_advice(1, &e.to_string()),
        }
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

/// Names the file that an operation failed on.
pub fn on(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Fail {
    move |e| Fail::from(e).at(path.display().to_string())
}
