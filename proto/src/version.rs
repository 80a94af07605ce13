//! Protocol ids, and why each version exists.
//!
//! A change of any message's bytes needs a new id here (golden vectors fail otherwise); peers one version apart are served by
//! offering both ids until the older one is dropped.
//!
//! | id | since | why |
//! |---|---|---|
//! | `/buildbee/…/1`, local 1 | 0.1.0 | first version |
//! | stored manifests 2 | 0.1.0 | a read set has listed folders and variables |
//! | `/buildbee/action/2`, `/buildbee/cache/2`, `bbO2`, `bbS2` | 0.1.0 | results may name what the program was observed to ask for |
//! | local 2 | 0.1.0 | a local run may be told variables and to record, and returns its record |
//! | `/buildbee/cache/3` | 0.1.0 | small blobs come along with the announcement of their result |
//! | `/buildbee/blob/2` | 0.1.0 | large blobs travel in chunks, from whoever has some of them |
//! | `/buildbee/action/3` | 0.1.0 | directories may be sent as what differs from earlier ones |
//! | `/buildbee/action/3`, `/buildbee/blob/3` | 0.1.0 | blocks of packed streams have up to 1 MiB |
//! | `/buildbee/action/4`, local 3 | 0.1.0 | metadata of crates early: what was observed goes with it, and it is printed before the end |
//! | `bbV2` | 0.1.0 | what was observed tells variables that were asked for after a library was read |
//! | `/buildbee/cache/4`, `bbH2` | 0.1.0 | a hint names all folders of a compile that may be elsewhere |
//! | `/buildbee/control/2` | 0.1.0 | a client says how urgent its work is |
//! | local 4 | 0.1.0 | a local run gets a folder for temporary files only where that is needed |
//! | `/buildbee/cache/5` | 0.1.0 | announcements are answered when they are stored; claims of actions that are being run; filters of what is kept |
//! | local 5 | 0.1.0 | the command line may ask what has happened since a moment, and for the counts of one run |
//! | `/buildbee/store-path/1` | 0.1.0 | agents hand each other paths of Nix's store |
//! | `/buildbee/cache/6`, `bbY1`, property `target` | 0.1.0 | agents tell which compilers they can run in place of those of other machines |
//! | `/buildbee/papers/1` | 0.1.0 | members hand each other the roster and the coordinator's address; memberships are renewed |
//! | `bbt2` | 0.1.0 | a ticket says when it was issued and how many machines it lets in |
//! | `/buildbee/control/3` | 0.1.0 | agents and roster are told as what has changed; 12,288 members |
//! | `bbE1`, local 6 | 0.1.0 | entries of other tools' caches, announced as results are; ccache's storage helper reaches the daemon; toolchains may be listed; a wrapper is told what it waits for |
//! | local 6 | 0.1.0 | agents may be had to fetch a rustc |
/// What a stream between peers is for. The order is that of the ids below, not a wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Exchange of memberships: the first stream on every connection.
    Hello,
    /// A stranger with a ticket asks to be enrolled. Served by coordinators only, to anybody.
    Join,
    /// Desired state between coordinator and its agents and clients.
    Control,
    /// One attempt at one action.
    Action,
    /// Batches of blobs.
    Blob,
    /// Action results.
    Cache,
    /// Paths of Nix's store.
    StorePath,
    /// Rosters, memberships anew, and where the coordinator is.
    Papers,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Hello, Self::Join, Self::Control, Self::Action, Self::Blob, Self::Cache, Self::StorePath, Self::Papers];

    /// Whether its streams are packed (`buildbee-p2p`): those that carry content. What others carry is small, and mostly digests.
    pub const fn is_packed(self) -> bool {
        matches!(self, Self::Action | Self::Blob | Self::StorePath)
    }

    /// The id that both ends negotiate.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Hello => "/buildbee/hello/1",
            Self::Join => "/buildbee/join/1",
            Self::Control => "/buildbee/control/3",
            Self::Action => "/buildbee/action/4",
            Self::Blob => "/buildbee/blob/3",
            Self::Cache => "/buildbee/cache/6",
            Self::StorePath => "/buildbee/store-path/1",
            Self::Papers => "/buildbee/papers/1",
        }
    }
}

/// Version of the messages between wrapper, command line and daemon. A daemon of another version is asked to leave and replaced.
pub const LOCAL_VERSION: u32 = 6;
