//! Tokens: who may call, and as what.
//!
//! A token is `ablate_ID_SECRET`: 8 hexadecimal digits that name it, and 256 random bits. Only a BLAKE3 hash of the whole is kept.
//! A slow, salted hash protects words that people choose; 2^256 secrets can't be tried out, however fast the hash is.

use std::time::{SystemTime, UNIX_EPOCH};

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Take work, fetch its data, hand in results.
    Worker,
    /// Submit, pause, resume, cancel, retry, and all that `Read` may.
    Submit,
    /// See experiments, workers and tables.
    Read,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Worker, Self::Submit, Self::Read];

    /// Its name in commands, certificates and the store.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Submit => "submit",
            Self::Read => "read",
        }
    }

    /// The role of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.name() == name)
    }
}

/// A token as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its public part.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What its bearer may do.
    pub role: Role,
    /// BLAKE3 of the whole token.
    pub hash: [u8; 32],
    /// When it was made, in UNIX seconds.
    pub created: i64,
    /// When it ends, in UNIX seconds; none: when it is revoked.
    pub expires: Option<i64>,
}

/// Now, in UNIX seconds.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "tokens end at a date, which only the wall clock knows")]
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64)
}

const PREFIX: &str = "ablate";
/// Bytes of the public part.
const ID: usize = 4;
/// Bytes of the secret part.
const SECRET: usize = 32;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

impl Token {
    /// A new token, and the word that its bearer shows. `name`: none: after role and id.
    ///
    /// # Errors
    /// Where the system gives no random bytes.
    pub fn issue(role: Role, name: Option<String>, expires: Option<i64>) -> std::io::Result<(Self, String)> {
        let mut random = [0u8; ID + SECRET];
        getrandom::fill(&mut random)?;
        let id = hex(&random[..ID]);
        let word = format!("{PREFIX}_{id}_{}", hex(&random[ID..]));
        let name = name.unwrap_or_else(|| format!("{}-{id}", role.name()));
        let hash = *blake3::hash(word.as_bytes()).as_bytes();
        Ok((Self { id, name, role, hash, created: now(), expires }, word))
    }

    /// The public part of a word, where it has the form of a token.
    #[must_use]
    pub fn id_of(word: &str) -> Option<&str> {
        let (id, secret) = word.strip_prefix(PREFIX)?.strip_prefix('_')?.split_once('_')?;
        let digits = |s: &str, bytes: usize| s.len() == 2 * bytes && s.bytes().all(|b| b.is_ascii_hexdigit());
        (digits(id, ID) && digits(secret, SECRET)).then_some(id)
    }

    /// Whether a word is this token. Takes the same time whatever part of it is right.
    #[must_use]
    pub fn fits(&self, word: &str) -> bool {
        // `blake3::Hash` compares in constant time.
        blake3::hash(word.as_bytes()) == blake3::Hash::from_bytes(self.hash)
    }

    /// Whether it has ended by `now`, in UNIX seconds.
    #[must_use]
    pub fn expired(&self, now: i64) -> bool {
        self.expires.is_some_and(|e| now >= e)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_token_fits_its_own_word_only_and_is_kept_without_it() {
        let (a, word) = Token::issue(Role::Worker, None, Some(100)).unwrap();
        let (b, other) = Token::issue(Role::Worker, None, None).unwrap();
        assert_eq!(Token::id_of(&word), Some(a.id.as_str()));
        assert!(a.fits(&word) && !a.fits(&other) && !b.fits(&word) && a.id != b.id);
        let secret = word.rsplit('_').next().unwrap();
        assert_eq!(secret.len(), 64);
        assert!(!format!("{a:?}").contains(secret));
        assert!(!a.expired(99) && a.expired(100) && !b.expired(i64::MAX));
        for bad in ["", "ablate", "ablate__", &word[1..], &word[..word.len() - 1], &word.replace('_', "-")] {
            assert_eq!(Token::id_of(bad), None, "{bad}");
        }
    }
}
