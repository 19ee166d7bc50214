//! Words to people and programs. A reader that has gone (`ablate list | head`) is no reason to fail, let
//! alone to end a run: what can't be said isn't.

use std::io::Write;

/// A line to stdout; false where nobody reads it any more.
pub fn out(text: impl std::fmt::Display) -> bool {
    let mut to = std::io::stdout().lock();
    writeln!(to, "{text}").and_then(|()| to.flush()).is_ok()
}

/// A line to stderr.
pub fn err(text: impl std::fmt::Display) {
    // Where stderr is closed there is nobody to tell.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
