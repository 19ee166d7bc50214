//! The options by which a program proves who it is and checks whom it speaks to.

use std::path::PathBuf;

/// A word that is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The word itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(word: String) -> Self {
        Self(word)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Options of every program that speaks to a coordinator.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Security")]
pub struct AccessArgs {
    /// Authorities (PEM) that sign the coordinator's certificate [default: the system's]
    #[arg(long, env = "ABLATE_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Certificate (PEM) that says who this program is
    #[arg(long, env = "ABLATE_CERT", value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, env = "ABLATE_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Token of `ablate token create`; every user of the machine can read command lines, so rather in $ABLATE_TOKEN or a file
    #[arg(long, env = "ABLATE_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<Secret>,
    /// File that holds the token; goes before --token
    #[arg(long, env = "ABLATE_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}
