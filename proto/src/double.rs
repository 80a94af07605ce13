//! A compiler's double: another program, of another architecture, that is said to make the same bytes.
//!
//! An agent says so because its owner added it; whoever wants to use it looks at it first (the client's `doubles`). Not here: what makes
//! two compilers alike.

use crate::canonical::{Canonical, CanonicalError, Reader, Writer};
use crate::limits::{MAX_DOUBLE_LIBRARIES, MAX_DOUBLE_TEXT_BYTES};
use crate::toolchain::Toolchain;

/// A compiler that agents can run in place of one that they can't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Double {
    /// As content, without any header.
    pub toolchain: Toolchain,
    /// Its absolute place in the toolchain.
    pub program: String,
    /// Value of `PATH` under which it finds its assembler. Of rustc: the argument that says where its sysroot is, where it would not find it.
    pub search: String,
    /// `gcc`, `clang` or `rustc`.
    pub family: String,
    /// What it takes a `.c` file for: `c` or `c++`; `rustc`.
    pub driver: String,
    /// As `-dumpfullversion` says it: `14.2.0`. Of rustc: with commit and date, `1.95.0 (59807616e 2026-04-14)`.
    pub version: String,
    /// What it compiles for, `aarch64-linux-gnu`; empty where it is told (clang).
    pub target: String,
    /// Names of the libraries that compress parts of objects, with their versions, sorted. Of rustc: what else both of a pair must have in
    /// common, the target's library among it, by digest.
    pub libraries: Vec<String>,
}

impl Double {
    /// For people: `gcc 14.2.0 for aarch64-linux-gnu`.
    pub fn label(&self) -> String {
        let name = if self.driver == "c++" { format!("{} (C++)", self.family) } else { self.family.clone() };
        match self.target.as_str() {
            "" => format!("{name} {}", self.version),
            target => format!("{name} {} for {target}", self.version),
        }
    }
}

impl Canonical for Double {
    const TAG: [u8; 4] = *b"bbY1";

    fn encode(&self, out: &mut Writer) {
        self.toolchain.encode(out);
        for text in [&self.program, &self.search, &self.family, &self.driver, &self.version, &self.target] {
            out.text(text);
        }
        out.list(&self.libraries, |out, library| out.text(library));
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        let toolchain = Toolchain::decode(input)?;
        let mut text = || -> Result<String, CanonicalError> {
            let text = input.text()?;
            let is_plain = text.len() <= MAX_DOUBLE_TEXT_BYTES && !text.chars().any(char::is_control);
            if is_plain { Ok(text) } else { Err(CanonicalError::Range("text of a double")) }
        };
        let (program, search, family, driver) = (text()?, text()?, text()?, text()?);
        let (version, target) = (text()?, text()?);
        if !program.starts_with('/') {
            return Err(CanonicalError::Range("program of a double"));
        }
        let libraries = input.list(MAX_DOUBLE_LIBRARIES, Reader::text)?;
        Ok(Self { toolchain, program, search, family, driver, version, target, libraries })
    }
}
