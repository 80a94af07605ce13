//! Settings files with mistakes: the message names file, line and key, and nothing is started or changed.

use std::fs;

use crate::place::{Place, Said, explains, refused, run};

/// Text of a settings file, the line that is wrong, and what must be said of it.
type Case = (&'static str, usize, &'static str);

const CLIENT: &[Case] = &[
    ("mdns = true\ncache_sise = \"1 GiB\"\n", 2, "cache_sise"),
    ("# a comment\n\nlocal_slots = -1\n", 3, "local_slots"),
    ("racing = \"fast\"\n", 1, "racing"),
    ("mdns = true\ncache_size = \"plenty\"\n", 2, "cache_size"),
    ("idle_timeout = 5\n", 1, "idle_timeout"),
    ("mdns = true\nlocal_slots =\n", 2, "local_slots"),
    ("[daemon]\nmdns = true\n", 1, "daemon"),
];

const AGENT: &[Case] = &[
    ("mode = \"dedicated\"\nslotz = 2\n", 2, "slotz"),
    ("slots = 0\n", 1, "slots"),
    ("\nmode = \"sometimes\"\n", 2, "mode"),
    ("slots = 1\ncache_size = \"1 MiB\"\n", 2, "cache_size"),
    ("action_timeout = \"soon\"\n", 1, "action_timeout"),
    ("slots = [1\n", 1, "slots"),
];

const COORDINATOR: &[Case] = &[
    ("mdns = true\nport = 7\n", 2, "port"),
    ("listen = \"everywhere\"\n", 1, "listen"),
    ("\nmdns = 3\n", 2, "mdns"),
    ("listen = \"127.0.0.1:99999\"\n", 1, "listen"),
];

#[test]
fn mistakes_in_the_clients_settings() {
    let place = Place::new();
    for (text, line, key) in CLIENT {
        let file = place.write("config.toml", text);
        let at = format!("config.toml:{line}: ");
        for words in [&["status"][..], &["stop"], &["cache", "clear"], &["join", "ticket"], &["daemon"]] {
            refused(place.buildbee(words).env("BUILDBEE_CONFIG", &file), 2, &[&at, key]);
        }
        let doctor = run(place.buildbee(&["doctor"]).env("BUILDBEE_CONFIG", &file));
        assert_eq!(doctor.code, Some(1));
        explains(&doctor.out, &["FAIL", &at, key]);
        assert_eq!(fs::read_to_string(&file).unwrap(), *text);
    }
    assert!(!place.path("home").exists(), "something was made");
    refused(place.buildbee(&["status"]).env("BUILDBEE_CONFIG", "/nonexistent"), 2, &["/nonexistent"]);
    for (variable, value) in [("BUILDBEE_RACING", "fast"), ("BUILDBEE_LOCAL_SLOTS", "-1"), ("BUILDBEE_CACHE_SIZE", "x")]
    {
        refused(place.buildbee(&["status"]).env(variable, value), 2, &[value]);
    }
}

#[test]
fn a_build_goes_on_with_settings_that_are_wrong_and_says_so_once() {
    let place = Place::new();
    let file = place.write("config.toml", "racing = \"fast\"\n");
    let environment = [("BUILDBEE_CONFIG", file.to_str().unwrap())];
    place.write("x.c", "int x;\n");
    let said = place.compiles_as_gcc_does_with("x.c", &environment);
    explains(&said.err, &["config.toml:1: racing: "]);
    let said = place.compiles_as_gcc_does_with("x.c", &environment);
    assert_eq!(said.err, "", "once is enough");
    assert!(place.daemons().is_empty());
}

#[test]
fn mistakes_in_the_agents_settings() {
    let place = Place::new();
    for (text, line, key) in AGENT {
        let file = place.write("agent.toml", text);
        let at = format!("agent.toml:{line}: ");
        for words in [&["serve"][..], &["serve", "--check-config"], &["join", "ticket"], &["doctor"]] {
            let mut agent = place.program("buildbee-agent");
            agent.args(words).arg("--config").arg(&file).arg("--state-dir").arg(place.path("state"));
            refused(&mut agent, 2, &[&at, key]);
        }
    }
    assert!(!place.path("state").exists(), "something was made");
    let mut agent = place.program("buildbee-agent");
    refused(agent.args(["serve", "--config", "/nonexistent"]), 2, &["/nonexistent"]);
    let mut agent = place.program("buildbee-agent");
    refused(agent.args(["serve", "--config", "/dev/null"]).env("BUILDBEE_LOG", "=,="), 2, &["BUILDBEE_LOG"]);
    let good = place.write("agent.toml", "slots = 3\nmode = \"off\"\ncache_size = \"1GiB\"\n");
    let checked = run(place.program("buildbee-agent").args(["serve", "--check-config", "--config"]).arg(good));
    assert_eq!(checked, Said { code: Some(0), out: String::new(), err: String::new() });
}

#[test]
fn mistakes_in_the_coordinators_settings() {
    let place = Place::new();
    for (text, line, key) in COORDINATOR {
        let file = place.write("coordinator.toml", text);
        let at = format!("coordinator.toml:{line}: ");
        for words in [&["serve"][..], &["serve", "--check-config"], &["invite"], &["members"]] {
            let mut coordinator = place.program("buildbee-coordinator");
            coordinator.args(words).arg("--config").arg(&file).arg("--state-dir").arg(place.path("state"));
            refused(&mut coordinator, 2, &[&at, key]);
        }
    }
    assert!(!place.path("state").exists(), "something was made");
}
