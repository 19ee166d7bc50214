//! The coordinator that leads, among those that a user named.

use super::args::ClientArgs;
use super::fail::Fail;
use super::say;
use ablate_proto::v1::{self, experiments_client::ExperimentsClient};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};

/// A client of the coordinator that leads.
pub type Client = ExperimentsClient<Channel>;

/// How long one of them may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How long to wait for a leader where only those that stand by answer: a takeover takes less.
const TAKEOVER: Duration = Duration::from_secs(15);
const AGAIN: Duration = Duration::from_millis(300);

/// Whether this program can speak to a URL; what is wrong otherwise.
pub fn check(url: &str) -> Result<(), &'static str> {
    match url.split_once("://") {
        Some(("http", rest)) if !rest.is_empty() => Ok(()),
        Some(("https", _)) => Err("TLS isn't built yet"),
        _ => Err("not a URL of the form http://HOST:PORT"),
    }
}

/// Reads a list of URLs.
fn urls(list: &str) -> Result<Vec<String>, Fail> {
    let all: Vec<String> = list.split(',').map(|u| u.trim().to_owned()).collect();
    for url in &all {
        let usable = check(url).and_then(|()| endpoint(url).map(drop).ok_or("not a URL"));
        usable.map_err(|what| {
            Fail::wrong(format!("--coordinator {url}: {what}"))
                .help("give a URL such as http://127.0.0.1:7650, or several with commas")
        })?;
    }
    Ok(all)
}

fn endpoint(url: &str) -> Option<Endpoint> {
    let endpoint = Endpoint::from_shared(url.to_owned()).ok()?;
    // A stream to a coordinator whose process is stopped must end.
    let endpoint = endpoint.http2_keep_alive_interval(Duration::from_secs(5)).keep_alive_timeout(ANSWER);
    Some(endpoint.connect_timeout(ANSWER).keep_alive_while_idle(true))
}

/// What one of them says.
enum Said {
    Leads(Client),
    /// Another does, where it knows which.
    StandsBy(String),
    /// It is there, and about to change its part, or stuck.
    Silent,
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

async fn ask(url: &str) -> Said {
    let Some(endpoint) = endpoint(url) else { return Said::Nothing };
    let channel = match tokio::time::timeout(ANSWER, endpoint.connect()).await {
        Ok(Ok(channel)) => channel,
        Ok(Err(e)) if hung_up(&e) => return Said::Silent,
        _ => return Said::Nothing,
    };
    let mut client = Client::new(channel).max_decoding_message_size(ablate_proto::MAX_MESSAGE);
    match tokio::time::timeout(ANSWER, client.leader(v1::LeaderRequest {})).await {
        Ok(Ok(reply)) if !reply.get_ref().leading => Said::StandsBy(reply.into_inner().url),
        Ok(Ok(_)) => Said::Leads(client),
        // One of an earlier release knows of no others.
        Ok(Err(e)) if e.code() == tonic::Code::Unimplemented => Said::Leads(client),
        _ => Said::Silent,
    }
}

/// Connects to the one that leads. Where none of those that are there leads, waits for one of them to take over.
pub async fn leader(args: &ClientArgs) -> Result<Client, Fail> {
    let named = urls(&args.coordinator)?;
    let began = Instant::now();
    let mut noted = false;
    loop {
        let mut queue: VecDeque<String> = named.iter().cloned().collect();
        let mut asked: Vec<String> = Vec::new();
        let mut waiting = None;
        while let Some(url) = queue.pop_front() {
            if asked.contains(&url) {
                continue;
            }
            match ask(&url).await {
                Said::Leads(client) => return Ok(client),
                Said::StandsBy(other) => {
                    if check(&other).is_ok() {
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
                Said::Nothing => {}
            }
            asked.push(url);
        }
        let Some(by) = waiting else {
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
