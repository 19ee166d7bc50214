//! Words to people and programs. A reader that has gone (`ablate list | head`) is no reason to fail, let
//! alone to end a run: what can't be said isn't. Output that is lost for another reason (a full disk) is remembered,
//! and a command that has otherwise done its work fails with it at its end.

use std::io::{ErrorKind, Write};
use std::sync::OnceLock;

static LOST: OnceLock<String> = OnceLock::new();

/// A line to stdout; false where nobody reads it any more.
pub fn out(text: impl std::fmt::Display) -> bool {
    let mut to = std::io::stdout().lock();
    let written = writeln!(to, "{text}").and_then(|()| to.flush());
    if let Err(e) = &written
        && e.kind() != ErrorKind::BrokenPipe
    {
        LOST.get_or_init(|| e.to_string());
    }
    written.is_ok()
}

/// Why output was lost, unless its reader has gone.
pub fn lost() -> Option<&'static str> {
    LOST.get().map(String::as_str)
}

/// A line to stderr.
pub fn err(text: impl std::fmt::Display) {
    // Where stderr is closed there is nobody to tell.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
