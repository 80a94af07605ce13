//! A compiler with everything it needs, as content.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::canonical::{Canonical, CanonicalError, Reader, Writer};
use crate::digest::Digest;

/// Digest of a [`Toolchain`]'s canonical encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ToolchainId(pub Digest);

impl fmt::Display for ToolchainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A root tree that an action's inputs are laid over: compiler, helpers, libraries, specs, built-in headers, at the paths that they
/// have on the machine they were captured from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// Root of the tree, a [`Directory`](crate::tree::Directory) digest.
    pub root: Digest,
    /// What the programs in it run on, for instance `x86_64-linux`.
    pub host: String,
    /// For people: `gcc 12.2.0`. Part of the identity like everything else.
    pub label: String,
}

impl Toolchain {
    /// The toolchain's name.
    pub fn id(&self) -> ToolchainId {
        ToolchainId(self.digest())
    }
}

impl Canonical for Toolchain {
    const TAG: [u8; 4] = *b"bbT1";

    fn encode(&self, out: &mut Writer) {
        out.digest(&self.root);
        out.text(&self.host);
        out.text(&self.label);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        Ok(Self { root: input.digest()?, host: input.text()?, label: input.text()? })
    }
}
