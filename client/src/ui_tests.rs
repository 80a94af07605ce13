//! How answers look to people.

use serde_json::json;

use super::*;

fn of<D: serde::de::DeserializeOwned>(document: Value) -> D {
    serde_json::from_value(document).unwrap()
}

#[test]
fn status_without_a_farm() {
    let document = json!({
        "version": "0.1.0", "pid": 7, "uptime_s": 185, "socket": "/run/s", "farm": null, "cache": null,
        "local_slots": {"total": 4, "busy": 0}, "racing": "tail", "running": [], "warnings": ["no local cache: full\nhint: make room"],
    });
    insta::assert_snapshot!(status(&of(document)), @r"
    daemon      version 0.1.0, process 7, up 3m 5s
    socket      /run/s
    farm        none; `buildbee join TICKET` joins one
    cache       none
    local       0 of 4 slots busy, racing tail
    running     0 actions
    warning     no local cache: full
                hint: make room
    ");
}

#[test]
fn status_with_a_farm() {
    let document = json!({
        "version": "0.1.0", "pid": 7, "uptime_s": 5, "socket": "/run/s",
        "farm": {
            "id": "00112233445566778899", "name": "ann@board", "role": "client",
            "coordinator": {"peer": "aa", "address": "10.0.0.1:7470", "connected": true},
            "agents": [
                {"name": "desk", "peer": "bb", "address": "10.0.0.2:7471", "connected": true, "slots": 8, "leased": 2, "toolchains": 1, "running": 1},
                {"name": "evil\u{1b}[2J", "peer": "cc", "address": null, "connected": false, "slots": 4, "leased": 0, "toolchains": 0},
            ],
        },
        "cache": {"dir": "/c", "bytes": 3_221_225_472_u64, "max_bytes": 21_474_836_480_u64, "blobs": 1, "results": 2, "manifests": 3},
        "local_slots": {"total": 4, "busy": 1}, "racing": "off",
        "running": [{"source": "src/a.c", "where": "desk", "for_ms": 1234}],
    });
    insta::assert_snapshot!(status(&of(document)), @r#"
    daemon      version 0.1.0, process 7, up 5s
    socket      /run/s
    farm        001122334455, as client "ann@board"
    coordinator 10.0.0.1:7470, connected
    agents      1 of 2 connected
        AGENT     STATE          SLOTS  LEASED  TOOLCHAINS  ADDRESS
        desk      connected      8      2       1           10.0.0.2:7471
        evil�[2J  not connected  4      0       0
    cache       3.0 GiB of 20.0 GiB in /c: 1 file, 2 results
    local       1 of 4 slots busy, racing off
    running     1 action
        SOURCE   WHERE  FOR
        src/a.c  desk   1.234 s
    "#);
}

#[test]
fn stats_with_reasons() {
    let document = json!({
        "cached": 3, "remote": 5, "local": 2, "reasons": {"link": 1, "farm-busy": 4, "asm": 1}, "agents": {"desk": 5},
        "bytes_sent": 2048, "bytes_received": 10, "since_unix": 1,
    });
    insta::assert_snapshot!(stats(&of(document)), @r"
    actions     10
    cached      3 (30 %)
    remote      5 (50 %)
    local       2 (20 %)
    sent        2.0 KiB
    received    10 B
        AGENT  ACTIONS
        desk   5
        REASON     COUNT
        farm-busy  4
        asm        1
        link       1
    ");
    insta::assert_snapshot!(stats(&Stats::default()), @r"
    actions     0
    cached      0
    remote      0
    local       0
    sent        0 B
    received    0 B
    ");
}

#[test]
fn peers_and_cache() {
    let document = json!({ "peers": [
        {"peer": "00112233445566778899", "name": "desk", "role": "agent", "address": "10.0.0.2:7471", "connected": true},
    ]});
    insta::assert_snapshot!(peers(&of(document)), @r"
    NAME  ROLE   STATE      ADDRESS        PEER
    desk  agent  connected  10.0.0.2:7471  001122334455
    ");
    let verified =
        json!({"blobs": 2, "bytes": 100, "n_bad": 1, "bad": ["ab/cd: digest"], "results": 1, "manifests": 0});
    insta::assert_snapshot!(cache_verified(&of(verified)), @r"
    read 2 files (100 B) and 1 result
    1 damaged, dropped:
        ab/cd: digest
    ");
    insta::assert_snapshot!(cache_verified(&CacheVerified::default()), @r"
    read 0 files (0 B) and 0 results
    all good
    ");
    insta::assert_snapshot!(cache_cleared(&CacheCleared { cleared: 1, in_use: 2 }), @r"
    removed 1 entry; kept 2 that running actions need
    ");
}

#[test]
fn json_is_the_document_itself() {
    assert_eq!(json(&json!({"a": [1]})), "{\n  \"a\": [\n    1\n  ]\n}\n");
}
