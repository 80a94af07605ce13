//! Joins a farm with a ticket: what `buildbee-agent join` does.
//!
//! A machine that is a member already gets a new membership of the same farm; it is not moved to another farm by accident. Not here:
//! the conversation with the coordinator (`buildbee_p2p::enrolment`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use buildbee_p2p::enrolment::{self, Enrolment, EnrolmentError, JoinError};
use buildbee_p2p::identity::{Identity, IdentityError};
use buildbee_proto::membership::{ParseTicketError, Signed, Ticket, UnixSeconds};
use buildbee_proto::peer::{PeerId, Role};
use thiserror::Error;

use crate::state::{StateDir, StateError};

/// How long joining may take.
const JOIN_DEADLINE: Duration = Duration::from_secs(20);

/// Why a machine did not join. What it had before is untouched.
#[derive(Debug, Error)]
pub enum JoinFailure {
    /// The text is no ticket.
    #[error("{0}\nhint: paste the whole line that `buildbee-coordinator invite` printed")]
    NoTicket(#[from] ParseTicketError),
    /// The ticket is for somebody else.
    #[error("the ticket is for a {0}\nhint: ask for one by `buildbee-coordinator invite --role agent`")]
    Role(Role),
    /// The machine belongs to another farm.
    #[error(
        "this machine belongs to farm {}, the ticket is of farm {}\nhint: to leave the one for the other, remove {} and join again",
        own.short(), found.short(), file.display()
    )]
    OtherFarm {
        /// This machine's farm.
        own: PeerId,
        /// The ticket's.
        found: PeerId,
        /// Where the membership is kept.
        file: PathBuf,
    },
    /// Somebody means this machine's agent, and would have joined with one of their own.
    #[error(
        "this machine's agent is a service, for which root joins\nhint: run `sudo buildbee-agent join TICKET`; for an agent of your own, \
         name its folder with --state-dir"
    )]
    Service,
    /// The state folder is of no use.
    #[error(transparent)]
    State(#[from] StateError),
    /// The key is of no use.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The coordinator did not let the machine in.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The membership can't be kept.
    #[error(transparent)]
    Enrolment(#[from] EnrolmentError),
}

impl JoinFailure {
    /// Whether the user can mend it by asking for something else.
    pub fn is_users(&self) -> bool {
        matches!(self, Self::NoTicket(_) | Self::Role(_) | Self::OtherFarm { .. } | Self::Service)
    }
}

/// Joins as `name`, with the key in `state_dir`, and keeps the membership there.
pub async fn join(
    state_dir: &Path,
    ticket: &str,
    name: &str,
    now: UnixSeconds,
) -> Result<(Enrolment, PeerId), JoinFailure> {
    let ticket = Signed::<Ticket>::from_text(ticket)?;
    if ticket.value.role != Role::Agent {
        return Err(JoinFailure::Role(ticket.value.role));
    }
    let state = StateDir::open(state_dir)?;
    let file = state.enrolment();
    // A damaged one is worth nothing, and joining again is what mends it.
    if let Ok(Some(held)) = Enrolment::load(&file)
        && held.membership.value.farm != ticket.value.farm
    {
        return Err(JoinFailure::OtherFarm { own: held.membership.value.farm, found: ticket.value.farm, file });
    }
    let identity = Identity::load_or_create(&state.identity())?;
    let enrolment = enrolment::join(&identity, &ticket, name, JOIN_DEADLINE, now).await?;
    enrolment.save(&file)?;
    Ok((enrolment, identity.peer()))
}
