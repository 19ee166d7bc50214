//! Screens of many sizes as they are expected, word for word, and what keys do.
//!
//! `ABLATE_SCREENS=write` writes the expected screens anew: look at the difference before it is committed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::draw;
use super::look::{Depth, Look};
use super::state::{Ask, Effects, Link, News, Over, State, View};
use crate::cli::client::Wish;
use ablate_proto::v1;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::path::Path;
use std::time::Duration;

const MONO: Look = Look { depth: Depth::Mono, braille: true };

fn sweep(name: &str, done: u64, total: u64, round: u32, rounds: u32) -> v1::SweepStatus {
    v1::SweepStatus {
        name: name.into(),
        subsets_total: total,
        subsets_done: done,
        chunks_total: total / 8,
        chunks_done: done / 8,
        round,
        rounds,
    }
}

fn status(pairs: u64) -> v1::ExperimentStatus {
    v1::ExperimentStatus {
        id: "3f".repeat(32),
        name: "smollm2-ioi".into(),
        state: "running".into(),
        sweeps: vec![
            sweep("reference (mean)", 2, 2, 0, 1),
            sweep("single (mean)", 40, 48, 0, 1),
            sweep("pairs (mean)", pairs, 1128, 0, 1),
            sweep("greedy (mean)", 180, 1100, 4, 38),
        ],
        chunks_planned: 320,
        chunks_computed: 40 + pairs / 8,
        chunks_accepted: 40 + pairs / 8,
        workers: 2,
        ..v1::ExperimentStatus::default()
    }
}

fn worker(id: u64, accepted: u64, failures: u64) -> v1::WorkerStatus {
    let lane = |device: &str| v1::Lane { device: device.into(), device_class: "class".into() };
    v1::WorkerStatus {
        protocol: 4,
        id,
        name: format!("node-{id:02}:41{id}"),
        version: "0.1.0".into(),
        lanes: vec![lane("cuda:0"), lane("cpu"), lane("cpu")],
        leased_chunks: 4,
        accepted_chunks: accepted,
        failures,
        connected_ms: 125_000,
        busy_us: 900,
        idle_us: 100,
    }
}

/// Six layers of eight heads, eight of which aren't known yet.
fn effects() -> v1::LiveReply {
    let unit = |i: u32| {
        let (layer, head) = (i / 8, i % 8);
        let delta = (f64::from(i) * 0.7).sin() * f64::from(layer) / 10.0;
        let known = i < 40;
        v1::LiveUnit {
            name: format!("L{layer}.H{head}"),
            stream: "self".into(),
            layer: Some(layer),
            head: Some(head),
            delta: known.then_some(delta),
            low: known.then_some(delta - 0.1),
            high: known.then_some(delta + 0.1),
            resolved: known && delta.abs() > 0.1,
        }
    };
    let curve = |order: &str, slope: f64, points: u32, selecting| v1::LiveCurve {
        order: order.into(),
        selecting,
        last: 38,
        points: (0..=points)
            .map(|k| v1::LivePoint {
                removed: k,
                value: 3.0 - slope * f64::from(k * k),
                retained: (!selecting).then_some(1.0 - slope * f64::from(k)),
                unit: if k == 0 { String::new() } else { format!("L1.H{}", k % 8) },
            })
            .collect(),
    };
    let pair = |k: u32, sign: f64| v1::LivePair {
        a: k,
        b: 3 * k + 2,
        interaction: sign * (0.5 - 0.025 * f64::from(k)),
        se: (k % 4 != 3).then_some(0.0125),
    };
    let pairs = v1::LivePairs {
        known: 420,
        planned: 1128,
        skipped: 0,
        above: (0..14).map(|k| pair(k, 1.0)).collect(),
        below: (0..14).map(|k| pair(k, -1.0)).collect(),
    };
    let group = v1::LiveGroup {
        task: "ioi".into(),
        metric: "logit_diff".into(),
        method: "mean".into(),
        unit: "head".into(),
        baseline: Some(3.0),
        units: (0..48).map(unit).collect(),
        curves: vec![
            curve("greedy", 0.002, 24, true),
            curve("importance", 0.004, 20, false),
            curve("random-00", 0.006, 12, false),
            curve("random-01", 0.008, 12, false),
        ],
        pairs: Some(pairs),
    };
    let other = v1::LiveGroup { task: "induction".into(), ..group.clone() };
    v1::LiveReply { revision: 7, groups: vec![group, other] }
}

/// What is shown after a minute of an experiment.
fn busy() -> State {
    let mut state = State::new("http://127.0.0.1:7650", true);
    state.hear(News::Linked);
    state.hear(News::List(vec![
        status(0),
        v1::ExperimentStatus {
            id: "ab".repeat(32),
            name: "bert-mnli".into(),
            state: "done".into(),
            chunks_planned: 99,
            chunks_accepted: 97,
            quarantined: 2,
            ..v1::ExperimentStatus::default()
        },
    ]));
    for second in 0..=20u64 {
        state.now = Duration::from_secs(40 + second);
        state.hear(News::Status(Box::new(status(100 + 16 * second))));
        state.hear(News::Workers(vec![worker(1, 30 + second, 0), worker(2, 20 + second / 2, 3)]));
    }
    state.hear(News::Effects("3f".repeat(32), effects()));
    state
}

/// One that has gone wrong.
fn broken() -> State {
    let mut state = busy();
    let chunk = |n: u32, error: &str| v1::QuarantinedChunk {
        sweep: 2,
        round: 0,
        chunk: n,
        sweep_name: "pairs (mean)".into(),
        error: error.into(),
    };
    let mut status = status(420);
    status.quarantined = 3;
    status.error = "a worker can't serve it: the model is missing on node-02".into();
    status.quarantined_chunks = vec![
        chunk(12, "out of memory: 12 GiB asked, 3 GiB free"),
        chunk(13, "the engine failed:\nsecond line"),
    ];
    state.hear(News::Status(Box::new(status)));
    state
}

fn drawn(state: &mut State, width: u16, height: u16, look: Look) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw::draw(frame, state, look)).unwrap();
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width);
    let rows = buffer.content().chunks(width.max(1));
    rows.map(|row| row.iter().map(|c| c.symbol()).collect::<String>().trim_end().to_owned() + "\n").collect()
}

/// Compares a screen with the file of that name.
fn expect(name: &str, state: &mut State, width: u16, height: u16) {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/watch/screens").join(format!("{name}.txt"));
    let shown = text(&drawn(state, width, height, MONO));
    if std::env::var("ABLATE_SCREENS").is_ok_and(|v| v == "write") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &shown).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(shown == expected, "{name} is:\n{shown}\ninstead of:\n{expected}");
}

fn press(state: &mut State, code: KeyCode) -> Option<Ask> {
    state.press(KeyEvent::new(code, KeyModifiers::NONE))
}

fn typed(state: &mut State, key: char) -> Option<Ask> {
    press(state, KeyCode::Char(key))
}

#[test]
fn the_overview_shows_what_there_is_room_for() {
    for (name, width, height) in [
        ("overview-120x40", 120, 40),
        ("overview-80x24", 80, 24),
        ("overview-60x14", 60, 14),
        ("overview-40x8", 40, 8),
    ] {
        expect(name, &mut busy(), width, height);
    }
    expect("small-30x6", &mut broken(), 30, 6);
    expect("small-12x3", &mut busy(), 12, 3);
}

#[test]
fn matched_orders_have_a_line_and_a_mark_of_their_own() {
    let mut state = busy();
    let mut told = effects();
    for group in &mut told.groups {
        let matched = group
            .curves
            .iter()
            .filter(|c| c.order.starts_with("random"))
            .map(|c| v1::LiveCurve { order: c.order.replace("random", "matched"), ..c.clone() });
        let matched: Vec<v1::LiveCurve> = matched.collect();
        group.curves.extend(matched);
    }
    state.hear(News::Effects("3f".repeat(32), told));
    state.view = View::Curve;
    let shown = text(&drawn(&mut state, 100, 24, MONO));
    for line in ["· random  mean of 2", "× matched  mean of 2"] {
        assert!(shown.contains(line), "{line} is not in:\n{shown}");
    }
}

#[test]
fn every_view_shows_its_own() {
    let mut state = broken();
    for (view, name) in [
        (View::Heads, "heads"),
        (View::Pairs, "pairs"),
        (View::Curve, "curve"),
        (View::Workers, "workers"),
        (View::Errors, "errors"),
    ] {
        state.view = view;
        expect(name, &mut state, 100, 24);
    }
    state.view = View::Experiments;
    expect("experiments", &mut state, 100, 12);
    state.over = Some(Over::Help);
    expect("help", &mut state, 80, 24);
    state.over = None;
    assert_eq!(typed(&mut state, 'c'), None);
    expect("cancel", &mut state, 60, 12);
}

#[test]
fn pairs_have_a_place_where_there_is_little_room_and_what_is_not_told_of_them_is_said() {
    let mut state = busy();
    state.view = View::Pairs;
    expect("pairs-60x14", &mut state, 60, 14);
    state.scroll = 500;
    let shown = text(&drawn(&mut state, 60, 14, MONO));
    assert_eq!(state.scroll, 11, "three of fourteen are left");
    assert!(shown.contains("L1.H5 + L5.H1        -0.1750"), "{shown}");
    let mut said = |change: fn(&mut v1::LiveGroup)| {
        let mut told = effects();
        told.groups.iter_mut().for_each(change);
        state.hear(News::Effects("3f".repeat(32), told));
        text(&drawn(&mut state, 100, 24, MONO))
    };
    let shown = said(|g| g.pairs.as_mut().unwrap().skipped = 7);
    assert!(shown.contains("420/1128 pairs, 7 left out as a unit alone has no result"), "{shown}");
    let shown = said(|g| g.pairs.as_mut().unwrap().planned = 0);
    assert!(shown.contains("No pairs of the whole model are planned"), "{shown}");
    let shown = said(|g| g.pairs = None);
    assert!(shown.contains("tells no pairs") && shown.contains("an earlier release"), "{shown}");
    state.hear(News::EffectsUntold);
    let shown = text(&drawn(&mut state, 100, 24, MONO));
    assert!(shown.contains("tells no effects"), "{shown}");
    // Of units that it doesn't know, and names longer than the screen.
    let mut told = effects();
    for unit in &mut told.groups[0].units {
        unit.name = unit.name.repeat(30);
    }
    told.groups[0].pairs.as_mut().unwrap().above[0].a = 1000;
    state.hear(News::Effects("3f".repeat(32), told));
    let shown = text(&drawn(&mut state, 60, 14, MONO));
    assert!(shown.contains("│? + L0.H2L0.H2") && shown.contains("…      +0.5000"), "{shown}");
}

#[test]
fn what_is_not_there_is_said() {
    let mut state = State::new("http://127.0.0.1:7650", false);
    expect("connecting", &mut state, 60, 10);
    state.hear(News::List(Vec::new()));
    expect("no-experiments", &mut state, 80, 8);
    let mut state = busy();
    state.hear(News::EffectsUntold);
    state.hear(News::Lost("no coordinator answers".into()));
    state.now += Duration::from_secs(75);
    expect("earlier-and-gone", &mut state, 100, 30);
    state.hear(News::Linked);
    assert_eq!(state.link, Link::Up);
    let id = "3f".repeat(32);
    state.view = View::Heads;
    state.hear(News::EffectsFailed("ab".repeat(32), "of another".into()));
    state.hear(News::EffectsFailed(id.clone(), "a blob is gone".into()));
    let said = text(&drawn(&mut state, 100, 30, MONO));
    assert!(said.contains("Results can't be followed: a blob is gone"), "{said}");
    state.hear(News::Effects(id, effects()));
    assert!(!text(&drawn(&mut state, 100, 30, MONO)).contains("can't be followed"));
    assert!(!text(&drawn(&mut state, 100, 30, MONO)).contains("gone for"));
}

#[test]
fn no_size_and_no_view_is_too_much() {
    let bright = Look { depth: Depth::True, braille: false };
    let few = Look { depth: Depth::Sixteen, braille: true };
    let mut all = Vec::new();
    for view in View::ALL {
        all.extend([MONO, bright, few].map(|look| (view, None, look)));
        all.push((view, Some(Over::Help), few));
        all.push((view, Some(Over::Cancel("id".into(), "name".into())), MONO));
    }
    let makes: [fn() -> State; 3] = [busy, broken, || State::new("u", false)];
    for make in makes {
        let whole = make();
        for (view, over, look) in &all {
            for width in [1, 5, 17, 39, 40, 63, 84, 131, 250] {
                for height in [1, 2, 3, 7, 8, 12, 20, 45] {
                    let mut state = whole.clone();
                    (state.view, state.over, state.scroll) = (*view, over.clone(), 500);
                    drawn(&mut state, width, height, *look);
                }
            }
        }
    }
}

#[test]
fn units_of_every_kind_and_numbers_of_every_size_have_a_place() {
    let unit = |name: &str, layer: Option<u32>, delta: f64| v1::LiveUnit {
        name: name.into(),
        layer,
        delta: Some(delta),
        ..v1::LiveUnit::default()
    };
    let group = |kind: &str, units: Vec<v1::LiveUnit>| v1::LiveGroup {
        task: "t".into(),
        metric: "loss".into(),
        method: "zero".into(),
        unit: kind.into(),
        units,
        ..v1::LiveGroup::default()
    };
    let mut state = busy();
    state.view = View::Heads;
    let many: Vec<v1::LiveUnit> = (0..200 * 128)
        .map(|i| unit(&format!("L{}.H{}", i / 128, i % 128), Some(i / 128), f64::from(i)))
        .collect();
    let groups = vec![
        group("layer", (0..30).map(|l| unit(&format!("L{l}"), Some(l), f64::from(l) - 3.0)).collect()),
        group(
            "set",
            vec![unit("name movers", None, 0.25), unit("induction", None, f64::NAN), unit("none", None, 0.0)],
        ),
        group("head", many),
        group("head", Vec::new()),
    ];
    state.hear(News::Effects("3f".repeat(32), v1::LiveReply { revision: 8, groups }));
    expect("layers", &mut state, 100, 20);
    assert_eq!(press(&mut state, KeyCode::Right), None);
    expect("sets", &mut state, 100, 12);
    press(&mut state, KeyCode::Right);
    for look in [MONO, Look { depth: Depth::True, braille: true }] {
        let shown = text(&drawn(&mut state, 100, 20, look));
        assert!(shown.contains("columns more"), "{shown}");
    }
    press(&mut state, KeyCode::Right);
    assert!(text(&drawn(&mut state, 100, 20, MONO)).contains("No results yet"));
}

#[test]
fn effects_have_colours_where_there_are_some_and_words_where_not() {
    let mut state = busy();
    state.view = View::Heads;
    let look = Look { depth: Depth::True, braille: true };
    let buffer = drawn(&mut state, 100, 24, look);
    let grounds: std::collections::BTreeSet<String> =
        buffer.content().iter().map(|c| format!("{:?}", c.bg)).filter(|c| c.contains("Rgb")).collect();
    assert!(grounds.len() > 20, "{grounds:?}");
    // Without colours nothing has one, and cells say sign and size.
    let buffer = drawn(&mut state, 100, 24, MONO);
    assert!(buffer.content().iter().all(|c| format!("{:?} {:?}", c.fg, c.bg) == "Reset Reset"));
    let shown = text(&buffer);
    assert!(shown.contains("+9") && shown.contains("−9"), "{shown}");
}

#[test]
fn keys_pause_resume_retry_and_cancel_after_a_question() {
    let id = "3f".repeat(32);
    let mut state = busy();
    assert_eq!(typed(&mut state, 'p'), Some(Ask::Control(id.clone(), Wish::Pause)));
    let mut paused = status(420);
    paused.state = "paused".into();
    state.hear(News::Answer(Wish::Pause, Ok(Box::new(paused))));
    assert_eq!(state.note(), Some("pause smollm2-ioi: it is paused"));
    assert_eq!(typed(&mut state, 'p'), Some(Ask::Control(id.clone(), Wish::Resume)));
    assert_eq!(typed(&mut state, 'r'), Some(Ask::Control(id.clone(), Wish::Retry)));
    for (key, ask) in [('n', None), ('y', Some(Ask::Control(id.clone(), Wish::Cancel)))] {
        assert_eq!(typed(&mut state, 'c'), None);
        assert!(matches!(&state.over, Some(Over::Cancel(..))));
        assert_eq!(typed(&mut state, key), ask);
        assert_eq!(state.over, None);
    }
    state.hear(News::Answer(Wish::Cancel, Err("the token may not".into())));
    assert_eq!(state.note(), Some("cancel refused: the token may not"));
    state.now += Duration::from_secs(60);
    assert_eq!(state.note(), None);
    assert_eq!(typed(&mut state, '?'), None);
    assert_eq!((typed(&mut state, 'q'), state.leave), (None, None), "the first key closes the help");
    typed(&mut state, 'q');
    assert_eq!(state.leave, Some(false));
    state.press(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
    assert_eq!(state.leave, Some(true));
    // With nothing to act on, nothing is asked.
    let mut empty = State::new("u", false);
    assert!("pcr".chars().all(|key| typed(&mut empty, key).is_none()));
    assert_eq!(empty.over, None);
}

#[test]
fn an_experiment_is_chosen_and_what_was_said_of_another_is_not_shown() {
    let mut state = busy();
    press(&mut state, KeyCode::BackTab);
    assert_eq!((state.view, state.cursor), (View::Experiments, 0));
    press(&mut state, KeyCode::Down);
    press(&mut state, KeyCode::Down);
    assert_eq!(state.cursor, 1);
    // It stays on its experiment where others come before it.
    let mut all = state.experiments.clone();
    all.insert(0, v1::ExperimentStatus { id: "00".into(), ..v1::ExperimentStatus::default() });
    state.hear(News::List(all));
    assert_eq!(state.cursor, 2);
    let other = "ab".repeat(32);
    assert_eq!(typed(&mut state, 'r'), Some(Ask::Control(other.clone(), Wish::Retry)));
    assert_eq!(press(&mut state, KeyCode::Enter), Some(Ask::Follow(other.clone())));
    assert_eq!((state.view, state.status.as_ref().unwrap().name.as_str()), (View::Overview, "bert-mnli"));
    state.hear(News::Status(Box::new(status(500))));
    state.hear(News::Effects("3f".repeat(32), effects()));
    assert!(matches!(state.effects, Effects::Unknown));
    assert_eq!(state.status.as_ref().unwrap().id, other);
    // The exit code is that of the one that was named, whichever is open.
    assert_eq!(state.of(&"3f".repeat(32)).map(|s| s.state.as_str()), Some("running"));
    assert_eq!(state.of(&other).map(|s| s.state.as_str()), Some("done"));
    for (n, view) in (1..).zip(View::ALL) {
        typed(&mut state, char::from_digit(n, 10).unwrap());
        assert_eq!(state.view, view);
    }
}
