//! `ablate token`: the operator makes, lists and revokes tokens in the store, whether a coordinator runs on it or not.

use super::fail::Fail;
use super::{say, serve, stores};
use ablate_coordinator::store::Store;
use ablate_coordinator::token::{Role, Token, now};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Debug, Args)]
#[command(
    long_about = "Makes, lists and revokes the tokens by which callers of a coordinator are known. They lie in its store, which this \
command opens beside the coordinator; a coordinator that runs takes a new token, and refuses a revoked one, within two seconds. \
A token is shown once and kept as a hash only.",
    after_help = "Examples:\n  ablate token create --role worker --name gpu-nodes > worker.token\n  ablate token create --role read --expires 30d\n  ablate token list\n  ablate token revoke gpu-nodes"
)]
pub struct TokenArgs {
    #[command(subcommand)]
    pub what: What,
    /// Settings of the coordinator, as for `ablate serve`: the store is taken from there
    #[arg(long, global = true)]
    pub config: Option<PathBuf>,
    /// The coordinator's store: sqlite://PATH or postgres://USER@HOST:PORT/DATABASE [default: sqlite://ablate.db]
    #[arg(long, global = true, env = "ABLATE_STORE", hide_env_values = true, value_name = "URL")]
    pub store: Option<String>,
    /// As JSON
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum What {
    /// Make a token, and show it this once
    Create {
        /// What its bearer may do: take work; submit and control experiments, and see all; or see all
        #[arg(long, value_enum)]
        role: RoleArg,
        /// What to call it [default: after role and id]
        #[arg(long)]
        name: Option<String>,
        /// When it ends: 30d, 12h, 45m or 90s from now [default: when it is revoked]
        #[arg(long, value_parser = seconds)]
        expires: Option<i64>,
    },
    /// List the tokens: id, name, role and end
    List,
    /// Revoke a token: its bearer's calls are refused, and its streams end
    Revoke {
        /// Name or id
        which: String,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum RoleArg {
    Worker,
    Submit,
    Read,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Worker => Self::Worker,
            RoleArg::Submit => Self::Submit,
            RoleArg::Read => Self::Read,
        }
    }
}

/// Reads a time such as 30d.
fn seconds(text: &str) -> Result<i64, String> {
    const UNITS: [(char, i64); 4] = [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];
    let form = || "give a number with d, h, m or s, such as 30d".to_owned();
    let (&(unit, factor), number) =
        UNITS.iter().find_map(|u| text.strip_suffix(u.0).map(|n| (u, n))).ok_or_else(form)?;
    let number: u32 = number.parse().map_err(|_| form())?;
    let all = i64::from(number) * factor;
    if (1..=100 * 365 * 86_400).contains(&all) {
        Ok(all)
    } else {
        Err(format!("{number}{unit} isn't between a second and a hundred years"))
    }
}

/// Checks a name: it stands in logs and lists.
fn name_checked(name: String) -> Result<String, Fail> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._@-".contains(c);
    if (1..=64).contains(&name.len()) && name.chars().all(plain) {
        Ok(name)
    } else {
        Err(Fail::wrong(format!("--name {name:?} is no name for a token"))
            .help("use 1 to 64 letters, digits and . _ @ -"))
    }
}

/// `ablate token`.
pub async fn token(args: TokenArgs) -> Result<u8, Fail> {
    let config = args.config.as_deref().map(serve::read).transpose()?.unwrap_or_default();
    let url = args.store.or(config.store).unwrap_or_else(|| "sqlite://ablate.db".to_owned());
    let place = stores::Place::read(&url, "--store")?;
    // Only a coordinator's URL is of use to others.
    let store = place.open("").await?;
    let done = act(&store, args.what, args.json, &place.to_string()).await;
    store.closed().await;
    done
}

async fn act(store: &Arc<dyn Store>, what: What, json: bool, place: &str) -> Result<u8, Fail> {
    match what {
        What::Create { role, name, expires } => {
            let name = name.map(name_checked).transpose()?;
            let (token, word) = Token::issue(role.into(), name, expires.map(|e| now() + e))?;
            store.put_token(token.clone()).await?;
            if json {
                let mut line = line(&token);
                line["token"] = word.into();
                say::out(line);
            } else {
                say::err(format_args!(
                    "{} {} for {}, in {place}; it is shown this once:",
                    token.id,
                    token.name,
                    token.role.name()
                ));
                say::out(word);
            }
        }
        What::List => {
            for t in store.tokens().await? {
                if json {
                    say::out(line(&t));
                } else {
                    let ends = match t.expires.map(|e| e - now()) {
                        None => "until revoked".to_owned(),
                        Some(left) if left <= 0 => "expired".to_owned(),
                        Some(left) => {
                            let left = std::time::Duration::from_secs(left as u64);
                            format!("ends in {}", indicatif::HumanDuration(left))
                        }
                    };
                    say::out(format_args!("{}  {:<32} {:<8} {ends}", t.id, t.name, t.role.name()));
                }
            }
        }
        What::Revoke { which } => {
            let gone = store.revoke_token(&which).await?;
            let gone = gone.ok_or_else(|| {
                Fail::wrong(format!("no token is called {which}"))
                    .at(format!("--store {place}"))
                    .help("see `ablate token list`")
            })?;
            if json {
                say::out(line(&gone));
            } else {
                say::err(format_args!("revoked {} {}", gone.id, gone.name));
            }
        }
    }
    Ok(0)
}

fn line(t: &Token) -> serde_json::Value {
    serde_json::json!({"id": t.id, "name": t.name, "role": t.role.name(), "created": t.created, "expires": t.expires})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_numbers_with_a_unit() {
        assert_eq!(seconds("30d"), Ok(2_592_000));
        assert_eq!((seconds("12h"), seconds("45m"), seconds("1s")), (Ok(43_200), Ok(2700), Ok(1)));
        for bad in ["", "30", "d", "-1d", "1.5h", "0s", "99999999d", "3 d", "1w"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
