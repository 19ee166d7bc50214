//! What the databases share: values as text.

use super::{Error, State};

pub(super) fn damaged(e: impl std::fmt::Display) -> Error {
    Error::Damaged(e.to_string())
}

pub(super) fn json<T: serde::Serialize>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(damaged)
}

pub(super) fn state_of(name: &str, error: String) -> State {
    match name {
        "running" => State::Running,
        "paused" => State::Paused,
        "cancelled" => State::Cancelled,
        "done" => State::Done,
        _ => State::Failed(error),
    }
}
