//! What an entry is and is named by, and what is known of it. Values only; which entries there are says the index.

use buildbee_proto::digest::Digest;

use crate::packs::Place;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Blob,
    Result,
    Manifest,
    Hints,
}

impl Kind {
    /// As it is written down.
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Self::Blob => 0,
            Self::Result => 1,
            Self::Manifest => 2,
            Self::Hints => 3,
        }
    }

    /// What was written down so.
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Blob),
            1 => Some(Self::Result),
            2 => Some(Self::Manifest),
            3 => Some(Self::Hints),
            _ => None,
        }
    }
}

/// What it costs when an entry is not here any more, as far as its use has shown. It only rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Worth {
    /// Its client has it: what nobody has said anything of.
    Input,
    /// It was made by a compile.
    Output,
    /// It is part of a compiler.
    Toolchain,
}

impl Worth {
    pub(crate) fn of(kind: Kind) -> Self {
        match kind {
            Kind::Blob => Self::Input,
            Kind::Result | Kind::Manifest | Kind::Hints => Self::Output,
        }
    }

    /// As it is written down.
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Self::Input => 0,
            Self::Output => 1,
            Self::Toolchain => 2,
        }
    }

    /// What was written down so.
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Input),
            1 => Some(Self::Output),
            2 => Some(Self::Toolchain),
            _ => None,
        }
    }
}

/// Names an entry: a blob by its digest, a record by the digest of what it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    pub(crate) digest: Digest,
}

impl Key {
    pub(crate) fn blob(digest: Digest) -> Self {
        Self { kind: Kind::Blob, digest }
    }
}

/// Whether a blob has an executable inode beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Twin {
    Absent,
    Present { verified: bool },
}

/// Whether somebody was told that an entry survives a loss of power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    None,
    /// By an earlier process, perhaps.
    Perhaps,
    Given,
}

/// What is known of one entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) verified: bool,
    pub(crate) twin: Twin,
    /// Where it is, if it shares a file with others.
    pub(crate) place: Option<Place>,
    pub(crate) promise: Promise,
}

/// A place in the order of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) key: Key,
    /// Zero: none any more.
    pub(crate) tick: u64,
    pub(crate) worth: Worth,
}
