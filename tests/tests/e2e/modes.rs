//! `BUILDBEE=off` and `BUILDBEE=strict`.

use std::fs;

use buildbee_tests::farm::{Farm, Options};
use buildbee_tests::project::outputs;
use buildbee_tests::seen::see;

#[test]
fn off_leaves_the_daemon_alone_and_strict_never_falls_back() {
    let mut farm = Farm::up(Options { n_agents: 1, ..Options::default() });
    let folder = farm.path("project");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.c"), "int main(void) { return 0; }\n").unwrap();
    let run = |farm: &Farm, mode: &str, line: &str| {
        let mut bash = farm.client("bash");
        see(bash.args(["-c", line]).env("BUILDBEE", mode).current_dir(&folder), &folder)
    };
    farm.laptop.zero();
    let seen = run(&farm, "off", "buildbee gcc -c a.c -o off.o");
    assert_eq!((seen.code, seen.stderr.as_str()), (Some(0), ""));
    assert_eq!(farm.counts(), (0, 0, 0));

    let seen = run(&farm, "strict", "buildbee gcc -c a.c -o strict.o");
    assert_eq!((seen.code, seen.stderr.as_str()), (Some(0), ""), "{}", farm.logs());
    assert_eq!(farm.counts(), (0, 1, 0));
    assert_eq!(seen.files["off.o"], seen.files["strict.o"]);

    // Without the agent: what is not in the cache fails, links and what is in the cache do not.
    farm.agents[0].take();
    farm.wait_for_agents(0);
    let seen = run(&farm, "strict", "buildbee gcc -O1 -c a.c -o none.o");
    assert!(seen.code == Some(1) && seen.stderr.contains("strict") && seen.stderr.contains("hint:"), "{seen:?}");
    assert!(!outputs(&folder, &[".o"]).contains_key("none.o"));
    let seen = run(&farm, "strict", "buildbee gcc -c a.c -o strict.o && buildbee gcc strict.o -o prog && ./prog");
    assert_eq!((seen.code, seen.stderr.as_str()), (Some(0), ""), "{}", farm.logs());
    let seen = run(&farm, "", "buildbee gcc -O1 -c a.c -o none.o");
    assert_eq!((seen.code, seen.stderr.as_str()), (Some(0), ""), "{}", farm.logs());

    // Without a daemon that could be started.
    farm.laptop.leave();
    let seen = run(&farm, "off", "BUILDBEE_STATE_DIR=/proc/nowhere buildbee gcc -c a.c -o off.o");
    assert_eq!((seen.code, seen.stderr.as_str()), (Some(0), ""));
    assert!(!farm.laptop.socket().exists(), "a daemon was started");
    let seen = run(&farm, "strict", "BUILDBEE_STATE_DIR=/proc/nowhere buildbee gcc -O2 -c a.c -o none.o");
    assert!(seen.code == Some(1) && seen.stderr.contains("hint:"), "{seen:?}");
}
