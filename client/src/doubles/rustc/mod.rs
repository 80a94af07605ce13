//! Doubles of rustc: the same commit for the agents' architecture, with the very library that this machine compiles against. rustc compiles for
//! any target by itself, so no more than `--target` has to be said; which pairs count is found out as for C.
//!
//! No host is named in what rustc writes, but the order of macro expansions in metadata is that of a hash table, which another kind of processor lays
//! out in another way. So these doubles are equal to this machine's rustc but for that, and used only by who accepts it.
//! [`known`] finds and remembers; [`identity`] is what a pair must have in common before anything is compiled, [`options`] what stays here all the same, [`probes`] and
//! [`prove`] what both compile, [`archive`] whether libraries are for the right machine.
//!
//! Macros run in the compiler, and those of this machine don't run in a double. So agents build the macros' crates for their own host as well, from
//! the same sources ([`twins`], by what [`recipe`] has noted), under the identity that crates here know them by ([`macro_library`]), with a double that has a
//! linker ([`macros`] finds and proves it).

pub mod archive;
pub mod identity;
pub mod known;
pub mod macro_library;
pub mod macros;
pub mod options;
pub mod probes;
pub mod prove;
pub mod recipe;
pub mod twins;

use std::path::Path;
use std::sync::Arc;

use buildbee_proto::digest::Digest;
use buildbee_proto::double::Double;
use buildbee_proto::outcome::ActionResult;

use super::machine::Machine;
use crate::journal::Why;
use crate::rust::request::RustRequest;
use crate::toolchain::parts::Parts;

/// A double of rustc as this client uses it.
#[derive(Clone, Debug)]
pub struct RustDouble {
    /// What agents are told. Its files are the agents' own: this client has none of them.
    pub parts: Arc<Parts>,
    /// What it is.
    pub double: Double,
    /// For which machine its objects are, once it has proved itself.
    pub machine: Option<Machine>,
}

impl RustDouble {
    /// Of what an agent tells.
    pub fn new(double: Double) -> Self {
        let (toolchain, id) = (double.toolchain.clone(), double.toolchain.id());
        let parts = Parts { toolchain, id, files: Vec::new(), directories: Vec::new() };
        Self { parts: Arc::new(parts), double, machine: None }
    }

    /// Whether it builds for the agents' own host, and links.
    pub fn links(&self) -> bool {
        self.double.driver == identity::LINKING
    }

    /// Where the program is.
    pub fn program(&self) -> &Path {
        Path::new(&self.double.program)
    }

    /// Arguments before all others: where its sysroot is, if it would not find that, and what it compiles for, where `request` does not say so.
    pub fn front(&self, request: &RustRequest) -> Vec<String> {
        let own = Some(self.double.search.clone()).filter(|argument| !argument.is_empty());
        let target = request.target.is_none().then(|| ["--target".to_owned(), self.double.target.clone()]);
        own.into_iter().chain(target.into_iter().flatten()).collect()
    }

    /// Why a successful result is not what this machine's compiler would have left; `content` reads what it names.
    pub fn objection_to_result<'a>(&self, result: &ActionResult, content: &dyn Fn(&Digest) -> &'a [u8]) -> Option<Why> {
        let own = self.machine?;
        let is_for_other = |bytes: &[u8]| archive::machines(bytes).any(|machine| machine != own);
        let other = result.outputs.iter().find(|file| is_for_other(content(&file.digest)))?;
        Some(("double-result".to_owned(), format!("/{} is for another machine", other.path)))
    }
}
