//! Messages between the agent and its helper, both of this crate and of one build.
//!
//! The helper passes each [`Launch`] on to a process that waits for one, with the write end of its status pipe in the channel's place.
//!
//! On the control socket (sequenced packets) the helper says [`Hello`] once, and the agent sends [`Request`]s: one [`Launch`] for each command,
//! with descriptors in this order: the command's channel, the plan, bubblewrap's options, standard output, standard error,
//! system-call filters. On the channel, a socket of that command alone, the helper answers with [`Event`]s; the agent says
//! nothing there: closing or shutting its end kills the command. So a kill can neither be lost nor wait in a queue.

use std::time::Duration;

use buildbee_proto::codec::Message;
use buildbee_proto::limits::MAX_COMMAND_BYTES;
use serde::{Deserialize, Serialize};

/// Largest packet on either socket; everything larger travels in memory files.
pub(crate) const MAX_PACKET_BYTES: usize = 4096;
/// Largest plan, as JSON in its memory file: escapes make a text up to six times longer.
pub(crate) const MAX_PLAN_BYTES: usize = 8 * MAX_COMMAND_BYTES;
/// Descriptors that come with every [`Launch`], before the filters.
pub(crate) const N_FIXED_DESCRIPTORS: usize = 5;
/// System-call filters of one command.
pub(crate) const MAX_FILTERS: usize = 1;
/// Descriptors of one [`Launch`].
pub(crate) const MAX_DESCRIPTORS: usize = N_FIXED_DESCRIPTORS + MAX_FILTERS;
/// Commands that the helper runs at once; more are refused.
pub(crate) const MAX_LAUNCHES: usize = 1024;

/// First packet of the helper: it is what it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// Version of the crate; both sides must have the same.
    pub(crate) version: String,
    /// Why it has all of the host's mounts, if it was to have few.
    pub(crate) kept_mounts: Option<String>,
}

/// Start one command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Launch {
    /// Filters among the descriptors.
    pub(crate) n_filters: u8,
}

/// What the agent wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Start one command.
    Launch(Launch),
    /// Stop all processes of all commands where they are, those of commands still to come too.
    Hold,
    /// Let them go on.
    Release,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Event {
    /// Nothing was started, for this reason.
    Refused(Refusal),
    /// The process exists.
    Started,
    /// Every process of the command is gone.
    Ended(Ended),
}

/// Why the helper did not even fork.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refusal {
    /// [`MAX_LAUNCHES`] run already.
    Full,
    /// The kernel refused, with this error number.
    Kernel(i32),
}

/// The end of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// Why bubblewrap was not even started.
    pub(crate) failure: Option<StepFailure>,
    /// The command's exit status as bubblewrap tells it (128 + n for signal n); absent if the command did not run to its end.
    pub(crate) code: Option<i32>,
    /// The signal that ended bubblewrap itself.
    pub(crate) wrapper_signal: Option<i32>,
    /// Processor time of all processes that were waited for.
    pub(crate) cpu: Duration,
    /// Largest resident set of one process.
    pub(crate) peak_memory_bytes: u64,
}

/// A step of the set-up that failed, with its error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StepFailure {
    pub(crate) step: Step,
    pub(crate) errno: i32,
}

/// The steps from the fork to bubblewrap, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Own process group, signals and standard streams.
    Process,
    /// Reading the plan.
    Plan,
    /// Namespaces of its own.
    Namespaces,
    /// The namespace's user and group.
    IdMaps,
    /// No mount gets out.
    PrivateMounts,
    /// The folder of devices that all commands share.
    Devices,
    /// The host name, a network namespace and its loopback interface.
    Network,
    /// The overlay.
    Overlay,
    /// Resource limits and priority.
    Limits,
    /// Starting bubblewrap.
    Bubblewrap,
}

impl Message for Hello {
    const MAX_BYTES: usize = MAX_PACKET_BYTES;
}
impl Message for Launch {
    const MAX_BYTES: usize = MAX_PACKET_BYTES;
}
impl Message for Request {
    const MAX_BYTES: usize = MAX_PACKET_BYTES;
}
impl Message for Event {
    const MAX_BYTES: usize = MAX_PACKET_BYTES;
}
impl Message for StepFailure {
    const MAX_BYTES: usize = MAX_PACKET_BYTES;
}
