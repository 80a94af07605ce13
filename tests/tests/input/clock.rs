//! Clocks that jump. The machine's clock is not moved here (that takes a machine of its own); what a jump leaves behind is made
//! instead: files of the future and of the past, memberships that begin later, marks of failures to come.

use std::fs;
use std::time::{Duration, SystemTime};

use buildbee_p2p::enrolment::Enrolment;
use buildbee_p2p::identity::Identity;
use buildbee_tests::farm::{Farm, Options};

use crate::place::{Place, explains, wait};

fn set_time(place: &Place, name: &str, at: SystemTime) {
    let file = fs::File::options().write(true).open(place.path(name)).unwrap();
    file.set_modified(at).unwrap();
}

#[test]
fn files_of_the_future_and_of_the_past() {
    let place = Place::new();
    let day = Duration::from_secs(86_400);
    let now = SystemTime::now();
    let moments = [now + day, SystemTime::UNIX_EPOCH, now - 400 * day, now + 20_000 * day, now];
    for (n, moment) in moments.into_iter().enumerate() {
        // Same length each time, so that only content and times differ.
        place.write("x.c", "#include \"x.h\"\nint x = X;\n");
        place.write("x.h", &format!("#define X {n}\n"));
        for file in ["x.c", "x.h"] {
            set_time(&place, file, moment);
        }
        assert_eq!(place.compiles_as_gcc_does("x.c").err, "");
        assert_eq!(place.compiles_as_gcc_does("x.c").err, "", "again, from the cache");
        // Changed without a change of its time.
        place.write("x.h", &format!("#define X {}\n", n + 5));
        set_time(&place, "x.h", moment);
        assert_eq!(place.compiles_as_gcc_does("x.c").err, "");
    }
    let stats = place.json(&["stats"]);
    assert!(stats["cached"].as_u64() >= Some(5), "{stats}");
    // The outputs are of now, not of the inputs' time.
    let made = fs::metadata(place.path("x.o")).unwrap().modified().unwrap();
    assert!(made >= now && made < now + day);
}

#[test]
fn a_failure_of_the_future_keeps_nobody_from_starting() {
    let place = Place::new();
    place.write("x.c", "int x;\n");
    place.write("run/s.failed", "");
    fs::set_permissions(place.path("run"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    set_time(&place, "run/s.failed", SystemTime::now() + Duration::from_secs(86_400));
    assert_eq!(place.compiles_as_gcc_does("x.c").err, "");
    assert_eq!(place.daemons().len(), 1);
}

#[test]
fn memberships_that_begin_later_count_within_a_day() {
    let farm = Farm::up(Options { n_agents: 1, ..Options::default() });
    let key = Identity::load_or_create(&farm.path("coordinator/farm.key")).unwrap();
    let place = Place::new();
    let state = place.path("home/.local/state/buildbee");
    assert_eq!(crate::place::run(&mut place.buildbee(&["join", &farm.invite("client")])).code, Some(0));
    let held = Enrolment::load(&state.join("enrolment")).unwrap().unwrap();
    let again = |from_now: i64| {
        let mut membership = held.membership.value.clone();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        membership.issued_at = now.checked_add_signed(from_now).unwrap();
        membership.expires_at = membership.issued_at + 7 * 86_400;
        let enrolment = Enrolment { membership: key.signed(membership), ..held.clone() };
        enrolment.save(&state.join("enrolment")).unwrap();
        let _ = crate::place::run(&mut place.buildbee(&["stop"]));
        wait("the daemon has left", || place.daemons().is_empty());
    };
    place.write("x.c", "int x;\n");
    // One's own clock, or the coordinator's, may be off by some hours.
    for from_now in [3 * 3600, -3 * 3600] {
        again(from_now);
        wait("connected to the coordinator", || place.json(&["status"])["farm"]["coordinator"]["connected"] == true);
        wait("connected to the agent", || place.json(&["peers"])["peers"].as_array().is_some_and(|all| all.len() >= 2));
    }
    // By days: not a member, which is said, and builds go on.
    for from_now in [3 * 86_400, -30 * 86_400] {
        again(from_now);
        assert_eq!(place.compiles_as_gcc_does("x.c").err, "");
        explains(
            &place.warnings(),
            &["not connected to the farm", "membership", "one of the clocks is wrong"]
                .map(|part| if from_now < 0 && part.contains("clocks") { "has expired" } else { part }),
        );
    }
}
