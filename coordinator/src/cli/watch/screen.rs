//! Holds the terminal: keys and news in, screens out. Whatever ends it, the terminal is as it was before.

use super::feed::Feed;
use super::look::Look;
use super::state::State;
use super::{code, draw, ended, say_where};
use crate::cli::args::WatchArgs;
use crate::cli::client::print;
use crate::cli::fail::Fail;
use crate::cli::say;
use ablate_proto::v1;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// How often rates and times are drawn anew where nothing else changes.
const TICK: Duration = Duration::from_millis(500);
/// How long the keyboard is waited for before it is seen that nobody wants it any more.
const POLL: Duration = Duration::from_millis(200);
/// News taken between two screens.
const BURST: usize = 64;
/// Exit code of one who left before the end.
const INTERRUPTED: u8 = 130;

/// The terminal in full; given back when this goes.
struct Screen(Option<DefaultTerminal>);

/// A panic gives the terminal back before it says why.
fn begin() -> Result<DefaultTerminal, Fail> {
    ratatui::try_init().map_err(|e| {
        // It may have come half of the way.
        let _ = ratatui::try_restore();
        Fail::failed(format!("the terminal can't be used: {e}")).help("use --plain for lines")
    })
}

impl Screen {
    fn take() -> Result<Self, Fail> {
        let terminal = begin()?;
        say::keep();
        Ok(Self(Some(terminal)))
    }

    fn draw(&mut self, state: &mut State, look: Look) -> std::io::Result<()> {
        let Some(terminal) = &mut self.0 else { return Ok(()) };
        terminal.draw(|frame| draw::draw(frame, state, look)).map(drop)
    }

    /// Ctrl-Z: the shell has the terminal until it hands it back.
    fn suspend(&mut self) -> Result<(), Fail> {
        drop(self.0.take());
        ratatui::restore();
        let stopped = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TSTP);
        self.0 = Some(begin()?);
        stopped.map_err(|e| Fail::failed(format!("can't stop: {e}")))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The hook of a panic has done so, and said more since.
        if let Some(terminal) = self.0.take() {
            drop(terminal);
            if !std::thread::panicking() {
                ratatui::restore();
            }
        }
        say::go_on();
    }
}

/// What the keyboard says, and that the size has changed; ends once nobody wants it.
fn events() -> mpsc::Receiver<std::io::Result<Event>> {
    let (to, from) = mpsc::channel(64);
    std::thread::spawn(move || {
        while !to.is_closed() {
            let read = match event::poll(POLL) {
                Ok(false) => continue,
                Ok(true) => event::read(),
                Err(e) => Err(e),
            };
            let failed = read.is_err();
            if to.blocking_send(read).is_err() || failed {
                return;
            }
        }
    });
    from
}

fn lost(e: std::io::Error) -> Fail {
    Fail::failed(format!("the terminal is gone: {e}")).help("`ablate watch --plain` needs none")
}

/// Follows on a full screen.
pub async fn watch(args: WatchArgs) -> Result<u8, Fail> {
    let named = args.id.is_some();
    let mut state = State::new(&args.client.coordinator, named);
    let mut screen = Screen::take()?;
    let mut first = None;
    let shown = show(args, &mut screen, &mut state, &mut first).await;
    drop(screen);
    shown?;
    let Some(s) = &state.status else { return Ok(if named { INTERRUPTED } else { 0 }) };
    print(s, false, false);
    if !s.error.is_empty() {
        say::err(format_args!("{}: {}", if ended(s) { "error" } else { "note" }, s.error));
    }
    say_where(s);
    // Another may have been opened since.
    let first = first.and_then(|id: String| state.of(&id));
    Ok(match state.leave {
        Some(true) => INTERRUPTED,
        _ if !named => 0,
        _ => first.filter(|f| ended(f)).map_or(INTERRUPTED, code),
    })
}

/// Until a user leaves, or the experiment that was named has ended: its identity is put into `first` once it is known.
async fn show(
    args: WatchArgs,
    screen: &mut Screen,
    state: &mut State,
    first: &mut Option<String>,
) -> Result<(), Fail> {
    let look = Look::of(|name| std::env::var(name).ok());
    let leaves = args.id.is_some() && !args.stay;
    let named = args.id.clone();
    let fits = |s: &v1::ExperimentStatus| named.as_ref().is_some_and(|n| s.name == *n || s.id.starts_with(n));
    let (to, mut news) = mpsc::channel(256);
    let (asks, asked) = mpsc::channel(16);
    let mut feed = std::pin::pin!(Feed::new(args.client, args.id, to).run(asked));
    let mut events = events();
    let mut ends = signal(SignalKind::terminate())?;
    let mut interrupts = signal(SignalKind::interrupt())?;
    let began = Instant::now();
    let mut tick = tokio::time::interval(TICK);
    while state.leave.is_none() {
        state.now = began.elapsed();
        screen.draw(state, look).map_err(lost)?;
        tokio::select! {
            fed = &mut feed => return fed,
            heard = news.recv() => {
                let mut heard = heard;
                for _ in 0..BURST {
                    let Some(one) = heard else { break };
                    state.hear(one);
                    heard = news.try_recv().ok();
                }
            }
            event = events.recv() => match event {
                Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                    if is_suspend(key) {
                        screen.suspend()?;
                    } else if let Some(ask) = state.press(key) {
                        // Where so many wait, one more wouldn't be heard sooner.
                        let _ = asks.try_send(ask);
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(e)) => return Err(lost(e)),
                None => return Ok(()),
            },
            _ = tick.tick() => {}
            _ = ends.recv() => state.leave = Some(true),
            _ = interrupts.recv() => state.leave = Some(true),
        }
        say::take_kept().into_iter().for_each(|line| state.say(line));
        if let Some(s) = &state.status {
            if first.is_none() && fits(s) {
                *first = Some(s.id.clone());
            }
            if leaves && first.as_ref() == Some(&s.id) && ended(s) {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn is_suspend(key: KeyEvent) -> bool {
    key.code == KeyCode::Char('z') && key.modifiers.contains(KeyModifiers::CONTROL)
}
