//! Speaks to the coordinator for the screen: asks what it shows, hands on what a user wishes, and connects anew where the
//! coordinator goes away.

use super::state::{Ask, News};
use super::{PATIENCE, ended};
use crate::cli::args::ClientArgs;
use crate::cli::client::{Wish, refused};
use crate::cli::coordinators::{Client, leader};
use crate::cli::fail::Fail;
use ablate_proto::v1;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::{Interval, MissedTickBehavior};
use tonic::{Code, Status, Streaming};

/// How often the list is asked for.
const LIST: Duration = Duration::from_secs(3);
/// How often workers and effects are.
const LOOK: Duration = Duration::from_secs(1);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(20);
/// Between two tries to connect.
const AGAIN: Duration = Duration::from_secs(1);

/// See the module.
pub struct Feed {
    args: ClientArgs,
    /// The experiment to tell of.
    id: Option<String>,
    to: Sender<News>,
    /// Whether the coordinator tells of effects, and the revision that is known of them.
    effects: Option<u64>,
}

/// Why a connection ended.
enum End {
    /// Nobody looks any more.
    Left,
    /// The coordinator may come back.
    Lost(Fail),
    /// It won't.
    Fail(Fail),
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        let lost = status.code() == Code::Unavailable;
        let fail = refused(status);
        if fail.code == 2 && !lost { Self::Fail(fail) } else { Self::Lost(fail) }
    }
}

/// An answer; none where there were too many calls: it is asked for again later.
async fn answer<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<Option<T>, Status> {
    match tokio::time::timeout(ANSWER, call).await {
        Ok(Ok(reply)) => Ok(Some(reply.into_inner())),
        Ok(Err(e)) if ablate_proto::retry_after(&e).is_some() => Ok(None),
        Ok(Err(e)) => Err(e),
        Err(_) => Err(Status::unavailable("it doesn't answer")),
    }
}

fn every(time: Duration) -> Interval {
    let mut interval = tokio::time::interval(time);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

impl Feed {
    /// Tells `to` of the experiment that `id` stands for, where one is named, and of all others.
    pub fn new(args: ClientArgs, id: Option<String>, to: Sender<News>) -> Self {
        Self { args, id, to, effects: Some(0) }
    }

    /// Runs until nobody looks any more, or the coordinator has been away for too long.
    pub async fn run(mut self, mut asks: Receiver<Ask>) -> Result<(), Fail> {
        let mut lost: Option<Instant> = None;
        let mut before = false;
        loop {
            let why = match leader(&self.args).await {
                Ok(client) => match self.follow(client, &mut asks, &mut before, &mut lost).await {
                    Err(End::Lost(fail)) => fail,
                    Err(End::Fail(fail)) => return Err(fail),
                    Ok(()) | Err(End::Left) => return Ok(()),
                },
                Err(fail) => fail,
            };
            // Only what was there can come back.
            if !before || why.code == 2 {
                return Err(why);
            }
            if lost.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                return Err(why);
            }
            if self.tell(News::Lost(why.parts().0)).await.is_err() {
                return Ok(());
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn tell(&self, news: News) -> Result<(), End> {
        self.to.send(news).await.map_err(|_| End::Left)
    }

    /// Follows on one connection, until it ends.
    async fn follow(
        &mut self,
        mut client: Client,
        asks: &mut Receiver<Ask>,
        before: &mut bool,
        lost: &mut Option<Instant>,
    ) -> Result<(), End> {
        let (mut list, mut look) = (every(LIST), every(LOOK));
        let mut statuses = self.watch(&mut client).await?;
        // Another coordinator counts its revisions anew.
        self.effects = Some(0);
        (*before, *lost) = (true, None);
        self.tell(News::Linked).await?;
        loop {
            tokio::select! {
                ask = asks.recv() => match ask {
                    None => return Err(End::Left),
                    Some(Ask::Follow(id)) => {
                        (self.id, self.effects) = (Some(id), self.effects.map(|_| 0));
                        statuses = self.watch(&mut client).await?;
                        look.reset_immediately();
                    }
                    Some(Ask::Control(id, wish)) => {
                        self.control(&mut client, id, wish).await?;
                        // The stream of an experiment that had ended has ended too.
                        statuses = self.watch(&mut client).await?;
                    }
                },
                status = next(&mut statuses) => match status? {
                    Some(status) => {
                        self.id = Some(status.id.clone());
                        self.tell(News::Status(Box::new(status))).await?;
                    }
                    None => statuses = None,
                },
                _ = list.tick() => {
                    if let Some(reply) = answer(client.list(v1::ListRequest {})).await? {
                        self.tell(News::List(reply.experiments)).await?;
                    }
                }
                _ = look.tick() => {
                    if statuses.is_none() {
                        statuses = self.again(&mut client).await?;
                    }
                    if let Some(reply) = answer(client.workers(v1::WorkersRequest {})).await? {
                        self.tell(News::Workers(reply.workers)).await?;
                    }
                    self.look(&mut client).await?;
                }
            }
        }
    }

    /// Statuses of the experiment that is followed.
    async fn watch(&self, client: &mut Client) -> Result<Option<Streaming<v1::ExperimentStatus>>, End> {
        let Some(id) = self.id.clone() else { return Ok(None) };
        Ok(answer(client.watch(v1::StatusRequest { id })).await?)
    }

    /// Where statuses have ended: goes on with them if the experiment has not, as after a retry by somebody else.
    async fn again(&self, client: &mut Client) -> Result<Option<Streaming<v1::ExperimentStatus>>, End> {
        let Some(id) = self.id.clone() else { return Ok(None) };
        match answer(client.status(v1::StatusRequest { id })).await? {
            Some(status) if ended(&status) => Ok(None),
            Some(_) => self.watch(client).await,
            None => Ok(None),
        }
    }

    async fn control(&self, client: &mut Client, id: String, wish: Wish) -> Result<(), End> {
        let request = v1::ControlRequest { id, action: wish.action().into() };
        let answered = match answer(client.control(request)).await {
            Ok(Some(status)) => Ok(Box::new(status)),
            Ok(None) => Err("too many calls; try again".to_owned()),
            Err(e) if e.code() == Code::Unavailable => return Err(e.into()),
            // A user without the right to it may still look.
            Err(e) => Err(refused(e).parts().0),
        };
        self.tell(News::Answer(wish, answered)).await
    }

    /// Asks for effects that are new.
    async fn look(&mut self, client: &mut Client) -> Result<(), End> {
        let (Some(seen), Some(id)) = (self.effects, self.id.clone()) else { return Ok(()) };
        match answer(client.live(v1::LiveRequest { id: id.clone(), seen })).await {
            Ok(Some(reply)) if reply.revision != seen => {
                self.effects = Some(reply.revision);
                self.tell(News::Effects(id, reply)).await
            }
            Ok(_) => Ok(()),
            // They can't be worked out; the rest can be looked at. Should they be after all, they are told whole.
            Err(e) if e.code() == Code::FailedPrecondition => {
                self.effects = Some(0);
                self.tell(News::EffectsFailed(id, e.message().to_owned())).await
            }
            // An earlier release, which lets those who may only read make no calls that it doesn't know.
            Err(e) if [Code::Unimplemented, Code::PermissionDenied].contains(&e.code()) => {
                self.effects = None;
                self.tell(News::EffectsUntold).await
            }
            Err(e) => Err(e.into()),
        }
    }
}

/// The next status; none at the end of the stream. Without a stream it never comes.
async fn next(
    statuses: &mut Option<Streaming<v1::ExperimentStatus>>,
) -> Result<Option<v1::ExperimentStatus>, Status> {
    match statuses {
        Some(stream) => stream.message().await,
        None => std::future::pending().await,
    }
}
