//! Can this machine lend? Tries what can be tried without a farm, and says what to do where it can't. Changes nothing but the state
//! folder, which it makes if it is not there.

use std::path::Path;

use buildbee_p2p::enrolment::Enrolment;
use buildbee_proto::membership::UnixSeconds;
use buildbee_proto::peer::Role;
use buildbee_sandbox::probe::probe;
use serde::Serialize;

use crate::config::Settings;
use crate::state::StateDir;

/// How one check went.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What was checked.
    pub check: &'static str,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was found; ends with a hint where it is not.
    pub message: String,
}

impl Finding {
    fn good(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, ok: true, message: message.into() }
    }

    fn bad(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, ok: false, message: message.into() }
    }
}

/// All checks, in the order in which they matter. `now` is the time by the machine's clock.
pub async fn examine(settings: &Settings, now: UnixSeconds) -> Vec<Finding> {
    let state = match StateDir::open(&settings.state_dir) {
        Ok(state) => state,
        Err(error) => {
            let dir = settings.state_dir.display();
            let message =
                format!("{dir}: {error}\nhint: run this as the user that the agent runs as, or give --state-dir");
            return vec![Finding::bad("state folder", message)];
        }
    };
    let mut findings = vec![Finding::good("state folder", state.path().display().to_string())];
    findings.push(sandbox(settings, state.path()).await);
    findings.extend(membership(&state, now));
    findings
}

async fn sandbox(settings: &Settings, folder: &Path) -> Finding {
    match probe(&settings.sandbox, &settings.bwrap, folder).await {
        Ok(capabilities) => {
            let note = |has: bool, what: &str| if has { String::new() } else { format!(", no {what}") };
            let limit = note(capabilities.process_limit, "limit on processes");
            Finding::good(
                "sandbox",
                format!("works{limit}{}", note(capabilities.call_filter, "filter of system calls")),
            )
        }
        Err(error) => Finding::bad("sandbox", error.to_string()),
    }
}

fn membership(state: &StateDir, now: UnixSeconds) -> Vec<Finding> {
    let enrolment = match Enrolment::load(&state.enrolment()) {
        Ok(Some(enrolment)) => enrolment,
        Ok(None) => {
            let message = "none\nhint: run `buildbee-coordinator invite --role agent` at the coordinator, then `buildbee-agent join TICKET` here";
            return vec![Finding::bad("membership", message)];
        }
        Err(error) => return vec![Finding::bad("membership", error.to_string())],
    };
    let member = &enrolment.membership.value;
    let membership = if member.role != Role::Agent {
        let message = format!("for a {}\nhint: join again with a ticket for an agent", member.role);
        Finding::bad("membership", message)
    } else if member.expires_at <= now {
        Finding::bad("membership", "expired\nhint: join again with a new ticket")
    } else {
        let days = (member.expires_at - now) / 86_400;
        Finding::good("membership", format!("{:?} of farm {}, good for {days} days", member.name, member.farm.short()))
    };
    let clock = if member.issued_at > now {
        Finding::bad("clock", "earlier than the day this machine joined\nhint: set the clock, for instance by NTP")
    } else {
        Finding::good("clock", "not earlier than the day this machine joined")
    };
    vec![membership, clock]
}
