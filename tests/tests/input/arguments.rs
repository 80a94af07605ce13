//! Mistyped command lines of all programs.

use crate::place::{Place, refused, run};

#[test]
fn an_unknown_option_of_any_subcommand_is_named() {
    let place = Place::new();
    let cases: [(&str, &[&str]); 18] = [
        ("buildbee", &["status"]),
        ("buildbee", &["stats"]),
        ("buildbee", &["explain"]),
        ("buildbee", &["doctor"]),
        ("buildbee", &["stop"]),
        ("buildbee", &["join"]),
        ("buildbee", &["peers"]),
        ("buildbee", &["cache", "usage"]),
        ("buildbee", &["cache", "verify"]),
        ("buildbee", &["cache", "clear"]),
        ("buildbee", &["farm", "up"]),
        ("buildbee", &["daemon"]),
        ("buildbee-agent", &["serve"]),
        ("buildbee-agent", &["join"]),
        ("buildbee-agent", &["doctor"]),
        ("buildbee-coordinator", &["serve"]),
        ("buildbee-coordinator", &["invite"]),
        ("buildbee-coordinator", &["revoke"]),
    ];
    for (program, words) in cases {
        let said = refused(place.program(program).args(words).arg("--frobnicate"), 2, &["--frobnicate"]);
        assert!(said.err.starts_with("error: "), "{said:?}");
    }
    assert!(place.snapshot("").len() <= 1, "something was made: {:?}", place.snapshot("").keys());
}

#[test]
fn values_and_words_that_make_no_sense_are_named() {
    let place = Place::new();
    let state = place.path("state").display().to_string();
    let cases: [(&str, &[&str], &str); 10] = [
        ("buildbee", &["stats", "--jsom"], "--jsom"),
        ("buildbee", &["cache", "burn"], "burn"),
        ("buildbee", &["explain", "--last", "many"], "many"),
        ("buildbee", &["join"], "TICKET"),
        ("buildbee", &["farm", "up", "--agents", "0", "--", "true"], "--agents"),
        ("buildbee-agent", &["dance"], "dance"),
        ("buildbee-agent", &["serve", "--slots", "-1"], "-1"),
        ("buildbee-coordinator", &["invite", "--expires", "0s"], "--expires"),
        ("buildbee-coordinator", &["invite", "--role", "king"], "king"),
        ("buildbee-coordinator", &["--state-dir", &state, "serve", "--listen", "everywhere"], "everywhere"),
    ];
    for (program, words, part) in cases {
        refused(place.program(program).args(words), 2, &[part]);
    }
    assert!(!place.path("state").exists());
}

#[test]
fn what_is_neither_command_nor_compiler_is_said() {
    let place = Place::new();
    for word in ["frobnicate", "--frobnicate"] {
        refused(&mut place.buildbee(&[word]), 127, &[word, "not found"]);
    }
    let file = place.write("text", "no program\n");
    refused(&mut place.buildbee(&[file.to_str().unwrap()]), 126, &["not an executable file"]);
    for program in ["buildbee", "buildbee-agent", "buildbee-coordinator"] {
        let help = run(place.program(program).arg("--help"));
        assert_eq!((help.code, help.err.as_str()), (Some(0), ""));
        assert!(help.out.contains("Usage: "), "{help:?}");
        assert_eq!(run(place.program(program).arg("--version")).code, Some(0));
    }
}
