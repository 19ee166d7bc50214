//! The coordinator that leads, among those that a user named.

use super::args::ClientArgs;
use super::fail::Fail;
use super::say;
use ablate_net::{Access, Line, Trouble};
use ablate_proto::v1::{self, experiments_client::ExperimentsClient};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tonic::Code;
use tonic::transport::Endpoint;

/// A client of the coordinator that leads.
pub type Client = ExperimentsClient<Line>;

/// How long one of them may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How long to wait for a leader where only those that stand by answer: a takeover takes less.
const TAKEOVER: Duration = Duration::from_secs(15);
const AGAIN: Duration = Duration::from_millis(300);
/// How long to wait for one on this machine to listen: the line before may have started it.
const START: Duration = Duration::from_secs(3);

/// Whether a coordinator can be called that; what is wrong otherwise.
pub fn check(url: &str) -> Result<(), String> {
    Access::default().endpoint(url).map(drop)
}

/// Reads a list of URLs.
fn urls(list: &str, access: &Access) -> Result<Vec<String>, Fail> {
    let all: Vec<String> = list.split(',').map(|u| u.trim().to_owned()).collect();
    for url in &all {
        endpoint(access, url).map_err(|what| {
            Fail::wrong(format!("--coordinator {url}: {what}"))
                .help("give a URL such as https://HOST:7650, or http://127.0.0.1:7650 on the coordinator's machine; several with commas")
        })?;
    }
    Ok(all)
}

fn endpoint(access: &Access, url: &str) -> Result<Endpoint, String> {
    let endpoint = access.endpoint(url)?;
    // A stream to a coordinator whose process is stopped must end.
    let endpoint = endpoint.http2_keep_alive_interval(Duration::from_secs(5)).keep_alive_timeout(ANSWER);
    Ok(endpoint.connect_timeout(ANSWER).keep_alive_while_idle(true))
}

/// What one of them says.
enum Said {
    Leads(Client),
    /// Another does, where it knows which.
    StandsBy(String),
    /// It is there, and about to change its part, or stuck.
    Silent,
    /// It doesn't know this caller.
    Refuses(Fail),
    /// It can't be believed, or understood.
    Trouble(Trouble),
    /// Nobody is there.
    Nothing,
}

/// Whether somebody took the call and ended it, rather than nobody being there.
fn hung_up(e: &tonic::transport::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let first: &dyn std::error::Error = e;
    let io =
        std::iter::successors(Some(first), |e| e.source()).find_map(|e| e.downcast_ref::<std::io::Error>());
    io.is_none_or(|e| [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof].contains(&e.kind()))
}

async fn ask(access: &Access, url: &str) -> Said {
    let Ok(endpoint) = endpoint(access, url) else { return Said::Nothing };
    let channel = match tokio::time::timeout(ANSWER, endpoint.connect()).await {
        Ok(Ok(channel)) => channel,
        Ok(Err(e)) => {
            let trouble = Trouble::of(url, &e);
            return if trouble.settled {
                Said::Trouble(trouble)
            } else if hung_up(&e) {
                Said::Silent
            } else {
                Said::Nothing
            };
        }
        Err(_) => return Said::Nothing,
    };
    let mut client = ExperimentsClient::with_interceptor(channel, access.bearer())
        .max_decoding_message_size(ablate_proto::MAX_MESSAGE);
    let mut reply = tokio::time::timeout(ANSWER, client.leader(v1::LeaderRequest {})).await;
    if let Ok(Err(status)) = &reply
        && let Some(after) = ablate_proto::retry_after(status)
    {
        tokio::time::sleep(after).await;
        reply = tokio::time::timeout(ANSWER, client.leader(v1::LeaderRequest {})).await;
    }
    match reply {
        Ok(Ok(reply)) if !reply.get_ref().leading => Said::StandsBy(reply.into_inner().url),
        Ok(Ok(_)) => Said::Leads(client),
        // One of an earlier release knows of no others.
        Ok(Err(e)) if e.code() == Code::Unimplemented => Said::Leads(client),
        Ok(Err(e)) if [Code::Unauthenticated, Code::PermissionDenied].contains(&e.code()) => {
            Said::Refuses(super::client::refused(e).at(url.to_owned()))
        }
        Ok(Err(e)) => {
            let trouble = Trouble::of(url, &e);
            if trouble.settled { Said::Trouble(trouble) } else { Said::Silent }
        }
        Err(_) => Said::Silent,
    }
}

/// Connects to the one that leads. Where none of those that are there leads, waits for one of them to take over.
pub async fn leader(args: &ClientArgs) -> Result<Client, Fail> {
    let access = Access::open(&args.access).map_err(|e| Fail::with_advice(2, &e))?;
    let named = urls(&args.coordinator, &access)?;
    let began = Instant::now();
    let mut noted = false;
    loop {
        let mut queue: VecDeque<String> = named.iter().cloned().collect();
        let mut asked: Vec<String> = Vec::new();
        let (mut waiting, mut refused) = (None, None);
        while let Some(url) = queue.pop_front() {
            if asked.contains(&url) {
                continue;
            }
            match ask(&access, &url).await {
                Said::Leads(client) => return Ok(client),
                Said::StandsBy(other) => {
                    if access.follows(&url, &other) {
                        queue.push_back(other.clone());
                    }
                    waiting = Some(if other.is_empty() {
                        format!("{url} stands by")
                    } else {
                        format!("{url} stands by, and {other} leads")
                    });
                }
                Said::Silent => {
                    waiting.get_or_insert(format!("{url} doesn't answer yet"));
                }
                Said::Refuses(fail) => {
                    refused.get_or_insert(fail);
                }
                Said::Trouble(t) => {
                    refused.get_or_insert(Fail::wrong(t.what).help(t.help));
                }
                Said::Nothing => {}
            }
            asked.push(url);
        }
        // Another may still take over, but not one that refuses.
        let Some(by) = waiting else {
            if let Some(fail) = refused {
                return Err(fail);
            }
            if began.elapsed() < START && named.iter().all(|url| access.is_here(url)) {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            return Err(Fail::failed(format!("no coordinator answers at {}", args.coordinator)).help(
                "start one with `ablate serve`, or name it with --coordinator or $ABLATE_COORDINATOR",
            ));
        };
        if began.elapsed() > TAKEOVER {
            return Err(Fail::failed(format!("no coordinator that leads can be reached from here: {by}")).help(
                "name all coordinators in --coordinator, with commas; `ablate serve --advertise` sets what they call themselves",
            ));
        }
        if !noted {
            noted = true;
            say::err(format_args!("note: {by}; waiting for one that leads"));
        }
        tokio::time::sleep(AGAIN).await;
    }
}
