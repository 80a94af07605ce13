//! A build through `buildbee run`, as it is seen from all sides: the last line, the trace, `top`, the coordinator's page and its metrics.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use buildbee_tests::farm::{Farm, Options};
use buildbee_tests::project::write_c;
use serde_json::Value;

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    body.to_owned()
}

/// On each row, things follow each other or are within each other.
fn assert_rows_hold(trace: &Value) {
    let mut rows: BTreeMap<(u64, u64), Vec<(u64, u64)>> = BTreeMap::new();
    for event in trace["traceEvents"].as_array().unwrap().iter().filter(|event| event["ph"] == "X") {
        let number = |key: &str| event[key].as_u64().unwrap();
        rows.entry((number("pid"), number("tid"))).or_default().push((number("ts"), number("ts") + number("dur")));
    }
    for (row, mut spans) in rows {
        spans.sort_by_key(|(start, end)| (*start, std::cmp::Reverse(*end)));
        let mut open: Vec<(u64, u64)> = Vec::new();
        for span in spans {
            open.retain(|outer| outer.1 > span.0);
            assert!(open.last().is_none_or(|outer| span.1 <= outer.1), "{row:?}: {span:?} in {open:?}");
            open.push(span);
        }
    }
}

#[test]
fn a_build_is_seen_from_all_sides() {
    let farm = Farm::up(Options { n_agents: 2, ..Options::default() });
    let project = farm.path("project");
    write_c(&project, 8).unwrap();
    let build = || {
        let mut run = farm.client("buildbee");
        let ended = run.args(["run", "--", "make", "-j4", "CC=buildbee gcc"]).current_dir(&project).output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        String::from_utf8(ended.stderr).unwrap().lines().last().unwrap().to_owned()
    };
    let said = build();
    assert!(said.starts_with("buildbee: 8 actions: 0 cached, 8 remote, 0 local; "), "{said}");
    farm.must_run(farm.client("make").arg("clean").current_dir(&project));
    let said = build();
    assert!(said.starts_with("buildbee: 8 actions: 8 cached, 0 remote, 0 local; "), "{said}");
    assert!(said.ends_with(" of compilers' time saved"), "{said}");

    let trace = |which: &str| -> Value {
        let printed = farm.must_run(farm.client("buildbee").args(["trace", which])).stdout;
        serde_json::from_slice(&printed).unwrap()
    };
    let all = trace("all");
    assert_rows_hold(&all);
    let n_compiles = |trace: &Value| {
        let events = trace["traceEvents"].as_array().unwrap();
        events.iter().filter(|event| event["ph"] == "X" && event["pid"] == 1 && event["cat"] != "part").count()
    };
    assert_eq!((n_compiles(&all), n_compiles(&trace("last"))), (16, 8), "{all}");
    assert!(all["traceEvents"].as_array().unwrap().iter().any(|event| event["args"]["name"] == "agent desk0"), "{all}");

    let top = String::from_utf8(farm.must_run(farm.client("buildbee").args(["top", "--once"])).stdout).unwrap();
    assert!(top.contains("2 of 2 agents") && top.contains("8 cached  8 remote  0 local"), "{top}");

    let ready = std::fs::read(farm.path("coordinator.ready")).unwrap();
    let ready: Value = serde_json::from_slice(&ready).unwrap();
    let page = ready["status"].as_str().unwrap();
    let status: Value = serde_json::from_str(&get(page, "/status.json")).unwrap();
    assert_eq!((&status["agents_total"], &status["clients_total"]), (&2.into(), &1.into()), "{status}");
    assert_eq!(status["agents"][0]["toolchains_total"], 1, "{status}");
    assert!(get(page, "/").contains("<!doctype html>"));
    assert!(get(page, "/metrics").contains("\nbuildbee_agents 2\n"));

    // Its own exit code, whatever became of it.
    for (script, code) in [("exit 7", 7), ("kill -TERM $$", 143)] {
        let ended = farm.client("buildbee").args(["run", "--", "sh", "-c", script]).output().unwrap();
        assert_eq!(ended.status.code(), Some(code), "{script}");
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(said.starts_with("buildbee: no compile came this way"), "{said}");
    }
    let missing = farm.client("buildbee").args(["run", "--", "no-such-program"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(127));
}
