//! What the databases share: values as text.

use super::{Error, State};
use crate::token::{Role, Token};
use ablate_common::plan::Plan;

pub(super) fn damaged(e: impl std::fmt::Display) -> Error {
    Error::Damaged(e.to_string())
}

/// A stored plan.
pub(super) fn plan_of(id: &str, text: &str) -> Result<Plan, Error> {
    serde_json::from_str(text)
        .map_err(|e| damaged(format!("the plan of experiment {id} isn't readable: {e}")))
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

/// Most tokens of a store: every call looks into a table of them in memory.
pub(super) const MAX_TOKENS: usize = 10_000;

pub(super) fn name_taken(token: &Token) -> Error {
    Error::Refused(format!(
        "a token is called {:?} already; choose another --name, or revoke that one first",
        token.name
    ))
}

pub(super) fn too_many_tokens() -> Error {
    Error::Refused(format!("the store keeps {MAX_TOKENS} tokens, its limit; revoke those that nobody uses"))
}

/// A token from its columns: id, name, role, hash, created, expires.
pub(super) fn token_of(
    id: String,
    name: String,
    role: &str,
    hash: &[u8],
    created: i64,
    expires: Option<i64>,
) -> Result<Token, Error> {
    let role = Role::named(role).ok_or_else(|| damaged(format!("token {id} has the role {role:?}")))?;
    let hash = hash.try_into().map_err(|_| damaged(format!("token {id} has no hash")))?;
    Ok(Token { id, name, role, hash, created, expires })
}
