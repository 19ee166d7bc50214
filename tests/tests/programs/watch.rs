//! `ablate watch` on a real pseudo-terminal, before a real coordinator that a real worker computes for.
#![allow(clippy::unwrap_used, reason = "tests")]

use ablate_tests::program::{Cluster, finish, refused, said, signal, small_spec, wait_until};
use ablate_tests::root;
use pty_process::Size;
use pty_process::blocking::{Command, Pts, Pty, open};
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A terminal with a program in it.
struct Terminal {
    pty: Arc<Pty>,
    /// Held, so that it can be looked at when the program has ended.
    _end: Pts,
    child: Child,
    screen: Arc<Mutex<vt100::Parser>>,
    sent: Arc<Mutex<Vec<u8>>>,
    /// The terminal's settings before the program began.
    before: String,
}

fn some(n: u16) -> NonZeroU16 {
    NonZeroU16::new(n).unwrap()
}

fn settings(pty: &Pty) -> String {
    format!("{:?}", rustix::termios::tcgetattr(pty).unwrap())
}

impl Terminal {
    fn start(cluster: &Cluster, args: &[&str], env: &[(&str, &str)]) -> Self {
        let (cols, rows) = (110, 34);
        let (pty, end) = open().unwrap();
        pty.resize(Size::new(rows, cols)).unwrap();
        let mut command = Command::new(root().join("target/release/ablate"));
        command = command.args(args).args(["--coordinator", &cluster.url()]);
        for name in ["NO_COLOR", "COLORTERM"] {
            command = command.env_remove(name);
        }
        command = command.env("TERM", "xterm-256color").envs(env.iter().copied());
        let before = settings(&pty);
        let child = command.spawn_borrowed(&end).unwrap();
        let pty = Arc::new(pty);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(some(rows), some(cols), 0)));
        let sent = Arc::new(Mutex::new(Vec::new()));
        let (from, shown, kept) = (Arc::clone(&pty), Arc::clone(&screen), Arc::clone(&sent));
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(n @ 1..) = (&*from).read(&mut part) {
                kept.lock().unwrap().extend(&part[..n]);
                shown.lock().unwrap().process(&part[..n]);
            }
        });
        Self { pty, _end: end, child, screen, sent, before }
    }

    fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    fn full(&self) -> bool {
        self.screen.lock().unwrap().screen().alternate_screen()
    }

    fn sent(&self) -> String {
        String::from_utf8_lossy(&self.sent.lock().unwrap()).into_owned()
    }

    /// Waits until the screen holds all `words`.
    fn wait_for(&self, words: &[&str]) {
        wait_until(&format!("{words:?} on the screen"), || {
            let text = self.text();
            words.iter().all(|w| text.contains(w))
        });
    }

    fn press(&self, keys: &str) {
        (&*self.pty).write_all(keys.as_bytes()).unwrap();
    }

    fn resize(&self, cols: u16, rows: u16) {
        self.screen.lock().unwrap().set_size(some(rows), some(cols));
        self.pty.resize(Size::new(rows, cols)).unwrap();
    }

    /// Waits for the program's end: its exit code, and the screen that it leaves. The terminal is as it was.
    fn end(&mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        let mut read = 0;
        wait_until("all that it said is read", || {
            std::thread::sleep(Duration::from_millis(200));
            let before = std::mem::replace(&mut read, self.sent().len());
            read > 0 && before == read
        });
        assert!(!self.full(), "the screen is not given back");
        assert_eq!(settings(&self.pty), self.before, "settings of the terminal");
        assert!(!self.screen.lock().unwrap().screen().hide_cursor(), "the cursor is hidden");
        (code, self.text())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended, but where the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn state(cluster: &Cluster, id: &str) -> String {
    cluster.status(id)["state"].as_str().unwrap().to_owned()
}

#[test]
fn a_live_sweep_is_followed_paused_and_left_and_outlives_its_coordinator_on_the_screen() {
    let folder = tempfile::tempdir().unwrap();
    let spec = small_spec(folder.path());
    // Long enough for all that follows.
    let text = std::fs::read_to_string(&spec).unwrap();
    std::fs::write(&spec, text.replace("fraction = 0.2", "fraction = 0.79")).unwrap();
    let mut cluster = Cluster::start(folder.path());
    let id = said(cluster.client(&["submit", spec.to_str().unwrap()])).trim().to_owned();
    let mut terminal = Terminal::start(&cluster, &["watch", "small"], &[]);
    terminal.wait_for(&[
        "small",
        "running",
        "Progress",
        "pairs (mean)",
        "0 workers",
        "No results yet",
        "q quit",
    ]);
    assert!(terminal.full());

    // Progress, rates, the worker, and effects as they come.
    cluster.add_worker();
    terminal.wait_for(&["1 worker", "ETA", "/s", "72/72 heads", "Largest effects", "cpu"]);
    assert!(terminal.text().contains("lee"), "{}", terminal.text());
    terminal.press("p");
    wait_until("a key pauses it", || state(&cluster, &id) == "paused");
    terminal.wait_for(&["paused", "p resume"]);

    // The views, and other sizes.
    terminal.press("2");
    wait_until("the progress is gone", || !terminal.text().contains("Progress"));
    terminal.wait_for(&["Effects: lee", "hurts"]);
    terminal.press("3");
    terminal.wait_for(&["Pairs: lee", "/2556 pairs", "not tested here"]);
    terminal.press("5");
    terminal.wait_for(&["devices", "accepted", "failures"]);
    terminal.press("6");
    terminal.wait_for(&["No chunk is quarantined"]);
    terminal.press("?");
    terminal.wait_for(&["leave; the experiment goes on"]);
    terminal.press(" 1");
    terminal.resize(70, 18);
    terminal.wait_for(&["Progress", "pairs (mean)", "paused"]);
    terminal.resize(24, 4);
    terminal.wait_for(&["paused small"]);
    terminal.resize(110, 34);
    terminal.wait_for(&["Largest effects"]);

    // The coordinator dies, and comes back: the screen waits for it.
    cluster.kill_coordinator();
    terminal.wait_for(&["the coordinator is gone"]);
    cluster.serve();
    wait_until("it is found again", || !terminal.text().contains("the coordinator is gone"));
    terminal.wait_for(&["72/72 heads"]);
    terminal.press("p");
    wait_until("a key resumes it", || state(&cluster, &id) != "paused");

    terminal.press("q");
    let (code, screen) = terminal.end();
    assert_eq!(code, Some(130), "left before its end");
    assert!(screen.contains("small") && screen.contains("chunks"), "{screen}");
    drop(said(cluster.client(&["cancel", &id])));
}

#[test]
fn it_ends_with_the_experiment_as_lines_do_and_is_quiet_about_colours_where_none_are_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let spec = small_spec(folder.path());
    let mut cluster = Cluster::start(folder.path());
    let id = said(cluster.client(&["submit", spec.to_str().unwrap()])).trim().to_owned();
    let mut plain = Terminal::start(&cluster, &["watch", "small"], &[("NO_COLOR", "1")]);
    let mut staying = Terminal::start(&cluster, &["watch"], &[("COLORTERM", "truecolor")]);
    staying.wait_for(&["Experiments", "small", &id[..16], "Enter open"]);
    staying.press("\r");
    staying.wait_for(&["Progress"]);
    cluster.add_worker();
    // Greedy goes on while its curve is looked at.
    staying.press("4");
    staying.wait_for(&["Pruning curve: lee", "greedy", "gone:"]);

    let (code, screen) = plain.end();
    assert_eq!(code, Some(0));
    let lines: Vec<&str> = screen.lines().filter(|l| !l.trim().is_empty()).collect();
    let [.., before, last] = lines[..] else { panic!("{screen}") };
    assert!(before.contains("small") && before.contains("done"), "{screen}");
    assert!(last.contains("ablate export small"), "{screen}");
    let bytes = plain.sent();
    let colour = |style: &str| {
        style
            .split(';')
            .filter_map(|n| n.parse::<u32>().ok())
            .any(|n| matches!(n, 30..=38 | 40..=48 | 90..=107))
    };
    let mut styles = bytes.split("\x1b[").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| c.is_ascii_alphabetic())?;
        rest[end..].starts_with('m').then(|| &rest[..end])
    });
    assert!(!styles.any(colour), "a colour is sent");

    // Chosen from the list, it stays.
    staying.wait_for(&["done"]);
    staying.press("2");
    staying.wait_for(&["72/72 heads"]);
    staying.press("3");
    staying.wait_for(&["2556/2556 pairs", "largest above 0", "largest below 0"]);
    assert!(staying.sent().contains("48;2;"), "effects have colours");
    staying.press("q");
    assert_eq!(staying.end().0, Some(0));
}

#[test]
fn a_signal_and_a_refusal_give_the_terminal_back() {
    let folder = tempfile::tempdir().unwrap();
    let spec = small_spec(folder.path());
    let cluster = Cluster::start(folder.path());
    drop(said(cluster.client(&["submit", spec.to_str().unwrap()])));
    for (ctrl_c, name) in [(true, "INT"), (false, "TERM")] {
        let mut terminal = Terminal::start(&cluster, &["watch", "small"], &[]);
        terminal.wait_for(&["Progress"]);
        if ctrl_c {
            terminal.press("\x03");
        } else {
            signal(terminal.child.id(), name);
        }
        assert_eq!(terminal.end().0, Some(130), "{name}");
    }
    // Asked before it is done, and no is no.
    let mut terminal = Terminal::start(&cluster, &["watch", "small"], &[]);
    terminal.wait_for(&["Progress"]);
    terminal.press("c");
    terminal.wait_for(&["Cancel small?"]);
    terminal.press("n");
    wait_until("the question is gone", || !terminal.text().contains("Cancel small?"));
    assert_eq!(state(&cluster, "small"), "running");
    terminal.press("c");
    terminal.wait_for(&["Cancel small?"]);
    terminal.press("y");
    let (code, screen) = terminal.end();
    assert!(code == Some(1) && screen.contains("cancelled"), "{code:?} {screen}");
    let (code, screen) = Terminal::start(&cluster, &["watch", "nothing"], &[]).end();
    assert!(code == Some(2) && screen.contains("nothing"), "{code:?} {screen}");
}

#[test]
fn without_a_terminal_or_without_wanting_one_there_are_lines() {
    let folder = tempfile::tempdir().unwrap();
    let spec = small_spec(folder.path());
    let mut cluster = Cluster::start(folder.path());
    drop(said(cluster.client(&["submit", spec.to_str().unwrap()])));
    let dumb = Terminal::start(&cluster, &["watch", "small"], &[("TERM", "dumb")]);
    let plain = Terminal::start(&cluster, &["watch", "small", "--plain"], &[]);
    let json = Terminal::start(&cluster, &["watch", "small", "--json"], &[]);
    cluster.add_worker();
    let piped = said(cluster.client(&["watch", "small"]));
    assert!(piped.lines().all(|l| l.contains("small") && l.contains("chunks")), "{piped}");
    assert!(piped.lines().last().unwrap().contains("done") && !piped.contains('\x1b'), "{piped}");
    for mut terminal in [dumb, plain, json] {
        assert_eq!(terminal.end().0, Some(0));
        let sent = terminal.sent();
        assert!(sent.contains("done") && !sent.contains('\x1b'), "{sent}");
    }
    refused(&finish(&mut cluster.client(&["watch"])), &["no experiment is named", "ablate list"]);
}
