//! What the screen shows, and what keys do to it. No terminal, no network and no clock is in here.

use super::rates::Rates;
use crate::cli::client::Wish;
use ablate_proto::v1;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::time::Duration;

/// What fills the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    Overview,
    Heads,
    Pairs,
    Curve,
    Workers,
    Errors,
    Experiments,
}

impl View {
    /// In the order of the tabs.
    pub const ALL: [Self; 7] = [
        Self::Overview,
        Self::Heads,
        Self::Pairs,
        Self::Curve,
        Self::Workers,
        Self::Errors,
        Self::Experiments,
    ];

    /// What its tab says.
    pub fn title(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Heads => "Heads",
            Self::Pairs => "Pairs",
            Self::Curve => "Curve",
            Self::Workers => "Workers",
            Self::Errors => "Errors",
            Self::Experiments => "Experiments",
        }
    }

    fn next(self, by: usize) -> Self {
        let at = Self::ALL.iter().position(|&v| v == self).unwrap_or(0);
        Self::ALL[(at + by) % Self::ALL.len()]
    }
}

/// What lies over the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Over {
    Help,
    /// Asks whether the experiment of an id and a name is to be cancelled.
    Cancel(String, String),
}

/// Whether the coordinator is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    Connecting,
    Up,
    /// It went away at a time.
    Lost(Duration, String),
}

/// What is known of effects.
#[derive(Clone, Debug)]
pub enum Effects {
    /// Nothing yet.
    Unknown,
    /// The coordinator is of a release that tells none.
    Untold,
    /// Results can't be followed, with why.
    Failed(String),
    Known(v1::LiveReply),
}

/// What comes from the coordinator.
#[derive(Clone, Debug)]
pub enum News {
    Linked,
    Lost(String),
    List(Vec<v1::ExperimentStatus>),
    Status(Box<v1::ExperimentStatus>),
    Workers(Vec<v1::WorkerStatus>),
    /// Of the experiment with an id.
    Effects(String, v1::LiveReply),
    EffectsUntold,
    /// Those of the experiment with an id can't be followed, with why.
    EffectsFailed(String, String),
    /// Of a wish: the state after it, or why it was refused.
    Answer(Wish, Result<Box<v1::ExperimentStatus>, String>),
}

/// What is asked of the coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// To tell of this experiment.
    Follow(String),
    Control(String, Wish),
}

/// How long a note is shown.
const NOTE: Duration = Duration::from_secs(6);
/// Rows of a page.
const PAGE: u16 = 10;

/// All that is shown.
#[derive(Clone, Debug)]
pub struct State {
    /// The coordinator, as it was named.
    pub coordinator: String,
    /// Since the start.
    pub now: Duration,
    pub link: Link,
    pub experiments: Vec<v1::ExperimentStatus>,
    /// Whether the list has come.
    pub listed: bool,
    /// The one in the list that keys are about.
    pub cursor: usize,
    /// Of the experiment that is followed.
    pub status: Option<v1::ExperimentStatus>,
    /// Chunks by experiment ("all"), subsets by sweep ("sweep N"), chunks by worker ("worker N").
    pub rates: Rates,
    pub workers: Vec<v1::WorkerStatus>,
    pub effects: Effects,
    /// Which task under which ablation is shown.
    pub group: usize,
    pub view: View,
    /// Rows that have gone out at the top.
    pub scroll: u16,
    pub over: Option<Over>,
    note: Option<(Duration, String)>,
    /// A user wants to leave; true: by Ctrl-C.
    pub leave: Option<bool>,
}

impl State {
    /// Before anything is known; `follows`: one experiment was named.
    pub fn new(coordinator: &str, follows: bool) -> Self {
        Self {
            coordinator: coordinator.to_owned(),
            now: Duration::ZERO,
            link: Link::Connecting,
            experiments: Vec::new(),
            listed: false,
            cursor: 0,
            status: None,
            rates: Rates::default(),
            workers: Vec::new(),
            effects: Effects::Unknown,
            group: 0,
            view: if follows { View::Overview } else { View::Experiments },
            scroll: 0,
            over: None,
            note: None,
            leave: None,
        }
    }

    /// What was said last, while it is new.
    pub fn note(&self) -> Option<&str> {
        self.note.as_ref().filter(|n| self.now < n.0 + NOTE).map(|n| n.1.as_str())
    }

    fn follows(&self, id: &str) -> bool {
        self.status.as_ref().is_some_and(|s| s.id == id)
    }

    /// What is known of an experiment, be it followed or not.
    pub fn of(&self, id: &str) -> Option<&v1::ExperimentStatus> {
        self.status.iter().chain(&self.experiments).find(|e| e.id == id)
    }

    /// Shows a note.
    pub fn say(&mut self, text: impl Into<String>) {
        self.note = Some((self.now, text.into()));
    }

    /// The task under an ablation that is shown.
    pub fn shown(&self) -> Option<&v1::LiveGroup> {
        match &self.effects {
            Effects::Known(reply) => reply.groups.get(self.group % reply.groups.len().max(1)),
            _ => None,
        }
    }

    /// Number of them.
    pub fn groups(&self) -> usize {
        if let Effects::Known(reply) = &self.effects { reply.groups.len() } else { 0 }
    }

    /// Takes what the coordinator says.
    pub fn hear(&mut self, news: News) {
        match news {
            News::Linked => self.link = Link::Up,
            News::Lost(why) => {
                if !matches!(self.link, Link::Lost(..)) {
                    self.link = Link::Lost(self.now, why);
                }
            }
            News::List(all) => {
                // The cursor stays on its experiment.
                let id = self.experiments.get(self.cursor).map(|e| e.id.clone());
                self.cursor = all
                    .iter()
                    .position(|e| Some(&e.id) == id.as_ref())
                    .or_else(|| all.iter().position(|e| e.state == "running"))
                    .unwrap_or(0);
                (self.experiments, self.listed) = (all, true);
            }
            // What was under way when another was chosen comes too late.
            News::Status(status) if self.status.is_none() || self.follows(&status.id) => self.status(*status),
            News::Status(_) => {}
            News::Workers(workers) => {
                for w in &workers {
                    self.rates.see(&format!("worker {}", w.id), self.now, w.accepted_chunks);
                }
                let here: Vec<String> = workers.iter().map(|w| format!("worker {}", w.id)).collect();
                self.rates.keep(|what| !what.starts_with("worker ") || here.iter().any(|h| h == what));
                self.workers = workers;
            }
            News::Effects(id, reply) if self.follows(&id) => self.effects = Effects::Known(reply),
            News::EffectsFailed(id, why) if self.follows(&id) => self.effects = Effects::Failed(why),
            News::Effects(..) | News::EffectsFailed(..) => {}
            News::EffectsUntold => self.effects = Effects::Untold,
            News::Answer(wish, Ok(status)) => {
                self.say(format!("{} {}: it is {}", wish.name(), status.name, status.state));
                if self.follows(&status.id) {
                    self.status(*status);
                }
            }
            News::Answer(wish, Err(why)) => self.say(format!("{} refused: {why}", wish.name())),
        }
    }

    fn status(&mut self, status: v1::ExperimentStatus) {
        self.rates.see("all", self.now, status.chunks_accepted);
        for (i, sweep) in status.sweeps.iter().enumerate() {
            self.rates.see(&format!("sweep {i}"), self.now, sweep.subsets_done);
        }
        if let Some(listed) = self.experiments.iter_mut().find(|e| e.id == status.id) {
            listed.clone_from(&status);
        }
        self.status = Some(status);
    }

    /// The experiment that keys are about.
    fn target(&self) -> Option<&v1::ExperimentStatus> {
        if self.view == View::Experiments { self.experiments.get(self.cursor) } else { self.status.as_ref() }
    }

    /// A key was pressed.
    pub fn press(&mut self, key: KeyEvent) -> Option<Ask> {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            self.leave = Some(true);
            return None;
        }
        if key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) {
            return None;
        }
        match self.over.take() {
            None => self.press_plain(key.code),
            Some(Over::Cancel(id, _)) if matches!(key.code, KeyCode::Char('y' | 'Y')) => {
                Some(Ask::Control(id, Wish::Cancel))
            }
            Some(_) => None,
        }
    }

    fn press_plain(&mut self, code: KeyCode) -> Option<Ask> {
        match code {
            KeyCode::Char('q') => self.leave = Some(false),
            KeyCode::Esc => self.go(View::Overview),
            KeyCode::Tab => self.go(self.view.next(1)),
            KeyCode::BackTab => self.go(self.view.next(View::ALL.len() - 1)),
            KeyCode::Char(digit @ '1'..='7') => {
                self.go(View::ALL[usize::from(digit as u8 - b'1')]);
            }
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.over = Some(Over::Help),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::PageUp => self.step(-(PAGE as i32)),
            KeyCode::PageDown => self.step(PAGE.into()),
            KeyCode::Home => self.step(i32::MIN),
            KeyCode::Right | KeyCode::Char('t') => self.group = (self.group + 1) % self.groups().max(1),
            KeyCode::Left | KeyCode::Char('T') => {
                self.group = (self.group + self.groups().max(1) - 1) % self.groups().max(1);
            }
            KeyCode::Enter if self.view == View::Experiments => return self.open(),
            KeyCode::Char('p') => {
                let (id, state) = self.target().map(|t| (t.id.clone(), t.state.clone()))?;
                let wish = if state == "paused" { Wish::Resume } else { Wish::Pause };
                return Some(Ask::Control(id, wish));
            }
            KeyCode::Char('r') => return Some(Ask::Control(self.target()?.id.clone(), Wish::Retry)),
            KeyCode::Char('c') => {
                let (id, name) = self.target().map(|t| (t.id.clone(), t.name.clone()))?;
                self.over = Some(Over::Cancel(id, name));
            }
            _ => {}
        }
        None
    }

    fn go(&mut self, view: View) {
        if self.view != view {
            (self.view, self.scroll) = (view, 0);
        }
    }

    fn step(&mut self, by: i32) {
        if self.view == View::Experiments {
            let last = self.experiments.len().saturating_sub(1) as i32;
            self.cursor = (self.cursor as i32).saturating_add(by).clamp(0, last) as usize;
        } else {
            self.scroll = i32::from(self.scroll).saturating_add(by).clamp(0, u16::MAX.into()) as u16;
        }
    }

    /// Follows the experiment under the cursor.
    fn open(&mut self) -> Option<Ask> {
        let chosen = self.experiments.get(self.cursor)?.clone();
        let id = chosen.id.clone();
        self.go(View::Overview);
        if self.follows(&id) {
            return None;
        }
        self.rates = Rates::default();
        (self.effects, self.group) = (Effects::Unknown, 0);
        self.status(chosen);
        Some(Ask::Follow(id))
    }
}
