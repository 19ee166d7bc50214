//! A line for each change of an experiment, until it ends.

use super::{PATIENCE, code, ended, say_where};
use crate::cli::args::ClientArgs;
use crate::cli::client::{asked, line, print, refused};
use crate::cli::coordinators::leader as connect;
use crate::cli::fail::Fail;
use crate::cli::say;
use ablate_proto::v1;

/// Follows the experiment that `id` stands for.
pub async fn watch(id: &str, client: &ClientArgs) -> Result<u8, Fail> {
    let mut last: Option<v1::ExperimentStatus> = None;
    let mut lost: Option<std::time::Instant> = None;
    loop {
        match follow(id, client, &mut last).await {
            Ok(()) => break,
            // Only what was there can come back.
            Err(e) if last.is_none() || e.code == 2 => return Err(e),
            Err(e) => {
                let since = *lost.get_or_insert_with(|| {
                    say::err(format_args!("note: the coordinator is gone; waiting for it"));
                    std::time::Instant::now()
                });
                if since.elapsed() > PATIENCE {
                    return Err(e);
                }
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                if connect(client).await.is_ok() {
                    lost = None;
                }
            }
        }
    }
    if let Some(s) = last.as_ref().filter(|s| !s.error.is_empty() && !client.json) {
        say::err(format_args!("error: {}", s.error));
    }
    if let Some(s) = last.as_ref().filter(|_| !client.json) {
        say_where(s);
    }
    Ok(last.as_ref().map_or(0, code))
}

/// Prints each change of an experiment until it ends; an error where the coordinator goes away before.
async fn follow(id: &str, client: &ClientArgs, last: &mut Option<v1::ExperimentStatus>) -> Result<(), Fail> {
    let request = v1::StatusRequest { id: id.to_owned() };
    let mut stream = asked(client, async |c| c.watch(request.clone()).await).await?;
    while let Some(s) = stream.message().await.map_err(refused)? {
        let seen = last.as_ref();
        if client.json || seen.is_none_or(|l| line(l) != line(&s)) {
            print(&s, client.json, false);
        }
        if !client.json
            && !s.error.is_empty()
            && seen.is_none_or(|l| l.error != s.error)
            && s.state == "running"
        {
            say::err(format_args!("note: {}", s.error));
        }
        *last = Some(s);
    }
    if last.as_ref().is_some_and(ended) {
        return Ok(());
    }
    Err(Fail::failed("the coordinator ended").help("start it again, and follow with `ablate watch`"))
}
