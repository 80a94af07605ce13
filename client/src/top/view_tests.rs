//! How it looks, at several sizes.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Color;
use serde_json::json;

use super::model::Model;
use super::view::{render, rows_of, text};
use crate::journal::Stats;
use crate::journal::activity::tests::action;
use crate::journal::activity::{Activity, Ongoing};

const SECOND: u64 = 1_000_000;

/// Two agents, one of them away, a minute of a build.
fn model() -> Model {
    let mut actions = Vec::new();
    for n in 0..20 {
        let parts = [("wait", 10_000), ("transfer", 300_000), ("run", 2_200_000), ("place", 5_000)];
        actions.push(action(n, "remote", Some("desk-a"), n * 2 * SECOND, &parts));
        actions.push(action(100 + n, "cached", None, n * n * SECOND / 8, &[("manifest", 300)]));
    }
    actions.push(action(200, "local", None, 30 * SECOND, &[("wait", 10), ("run", 4 * SECOND)]));
    actions.sort_by_key(|action| action.ended_us);
    let ongoing = |id, place: &str, source: &str, since: u64| Ongoing {
        id,
        source: source.to_owned(),
        r#where: place.to_owned(),
        since_us: since * SECOND,
        moved_us: since * SECOND,
    };
    let running = vec![
        ongoing(2, "desk-a", "/home/ann/work/project/src/a/very/deep/folder/with/a/long/name/parser.cc", 42),
        ongoing(1, "local", "src/evil\u{1b}[2J.c", 40),
        ongoing(3, "waiting for a slot", "src/late.c", 44),
    ];
    let agent =
        |name: &str, connected, slots| json!({"name": name, "connected": connected, "slots": slots, "leased": 1});
    let status = json!({
        "version": "0.1.0", "uptime_s": 45, "local_slots": {"total": 2, "busy": 1}, "racing": "tail",
        "farm": {"id": "0011", "name": "ann@board", "coordinator": {"connected": true},
                 "agents": [agent("desk-b\u{7}", false, 8), agent("desk-a", true, 4)]},
    });
    let stats =
        Stats { cached: 20, remote: 20, local: 1, bytes_sent: 3 << 20, bytes_received: 1 << 20, ..Stats::default() };
    let mut model = Model::default();
    model.take_in(Activity { now_us: 45 * SECOND, last: 41, actions, running, stats, status });
    model
}

fn drawn(model: &Model, width: u16, height: u16) -> Buffer {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    render(model, area, &mut buffer);
    buffer
}

fn screen(model: &Model, width: u16, height: u16) -> String {
    rows_of(&drawn(model, width, height)).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_usual_terminal() {
    insta::assert_snapshot!(screen(&model(), 80, 24));
}

#[test]
fn a_narrow_one() {
    insta::assert_snapshot!(screen(&model(), 40, 20));
}

#[test]
fn a_low_one_shows_machines_instead_of_slots() {
    insta::assert_snapshot!(screen(&model(), 80, 13));
}

#[test]
fn nothing_yet() {
    insta::assert_snapshot!(screen(&Model::default(), 80, 12));
}

#[test]
fn text_for_pipes() {
    insta::assert_snapshot!(text(&model(), 80));
}

#[test]
fn any_size_will_do() {
    let model = model();
    for width in 0..100 {
        for height in 0..30 {
            let buffer = drawn(&model, width, height);
            assert!(rows_of(&buffer).all(|row| !row.chars().any(char::is_control)), "{width}x{height}");
        }
    }
}

#[test]
fn what_happened_has_its_colour() {
    let buffer = drawn(&model(), 80, 24);
    let colors: Vec<Color> = buffer.content().iter().filter(|cell| cell.symbol() != " ").map(|cell| cell.fg).collect();
    for color in [Color::Green, Color::Yellow, Color::Cyan] {
        assert!(colors.contains(&color), "{color:?}");
    }
}
