//! Words to people and programs. A reader that has gone (`ablate list | head`) is no reason to fail, let
//! alone to end a run: what can't be said isn't. Output that is lost for another reason (a full disk) is remembered,
//! and a command that has otherwise done its work fails with it at its end.

use std::io::{ErrorKind, Write};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

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

/// What is kept back while a full screen is shown; none while none is.
static KEPT: Mutex<Option<Vec<String>>> = Mutex::new(None);
/// Lines that are kept, at most.
const KEEP: usize = 20;

fn kept() -> MutexGuard<'static, Option<Vec<String>>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps what goes to stderr back, which would spoil a full screen, until [`go_on`].
pub fn keep() {
    kept().get_or_insert_default();
}

/// Takes the lines that were kept since it was last asked.
pub fn take_kept() -> Vec<String> {
    kept().as_mut().map(std::mem::take).unwrap_or_default()
}

/// No more is kept back; what was is said.
pub fn go_on() {
    let all = kept().take().unwrap_or_default();
    all.into_iter().for_each(err);
}

/// A line to stderr.
pub fn err(text: impl std::fmt::Display) {
    if let Some(kept) = kept().as_mut() {
        if kept.len() < KEEP {
            kept.push(text.to_string());
        }
        return;
    }
    // Where stderr is closed there is nobody to tell.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
