//! The unit of caching and of remote work: a command, what it sees, and what it may leave behind.

use crate::canonical::{Canonical, CanonicalError, Reader, Writer, check_ascending};
use crate::digest::Digest;
use crate::limits::{MAX_ARGUMENTS, MAX_ENVIRONMENT, MAX_OUTPUTS};
use crate::path::RelPath;
use crate::toolchain::ToolchainId;

/// What to run. Paths are below the action's root, which mirrors the client's file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Program and arguments, exactly as the client would start them. `argv[0]` is an absolute path inside the toolchain.
    pub argv: Vec<String>,
    /// The whole environment, sorted by name, no name twice.
    pub env: Vec<(String, String)>,
    /// Where to run.
    pub working_directory: RelPath,
    /// Files to bring back where they exist afterwards, sorted.
    pub output_files: Vec<RelPath>,
    /// Folders to bring back whole, sorted.
    pub output_directories: Vec<RelPath>,
}

impl Canonical for Command {
    const TAG: [u8; 4] = *b"bbC1";

    fn encode(&self, out: &mut Writer) {
        out.list(&self.argv, |out, argument| out.text(argument));
        out.list(&self.env, |out, (name, value)| {
            out.text(name);
            out.text(value);
        });
        out.path(&self.working_directory);
        out.list(&self.output_files, Writer::path);
        out.list(&self.output_directories, Writer::path);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        let command = Self {
            argv: input.list(MAX_ARGUMENTS, Reader::text)?,
            env: input.list(MAX_ENVIRONMENT, |input| Ok((input.text()?, input.text()?)))?,
            working_directory: input.path()?,
            output_files: input.list(MAX_OUTPUTS, Reader::path)?,
            output_directories: input.list(MAX_OUTPUTS, Reader::path)?,
        };
        check_ascending(&command.env, "environment variables", |(name, _)| name)?;
        check_ascending(&command.output_files, "output files", |path| path)?;
        check_ascending(&command.output_directories, "output directories", |path| path)?;
        let nul = |text: &String| text.contains('\0');
        let bad_name = |name: &String| name.is_empty() || name.contains('=') || nul(name);
        if command.argv.is_empty() || command.argv.iter().any(nul) {
            return Err(CanonicalError::Range("argv"));
        }
        if command.env.iter().any(|(name, value)| bad_name(name) || nul(value)) {
            return Err(CanonicalError::Range("environment"));
        }
        Ok(command)
    }
}

/// The property of an action whose standard error is a terminal: programs print other text on one.
pub const STDERR_TERMINAL: (&str, &str) = ("stderr", "terminal");

/// The property of an action whose questions to the system are to be recorded.
pub const RECORDED: (&str, &str) = ("record", "questions");

/// Name of the property that says what an action compiles for, where its program runs on something else than that.
pub const TARGET_PROPERTY: &str = "target";

/// A command with everything that decides its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// Digest of the [`Command`].
    pub command: Digest,
    /// Digest of the root [`Directory`](crate::tree::Directory) of the inputs.
    pub input_root: Digest,
    /// What the inputs are laid over.
    pub toolchain: ToolchainId,
    /// Properties that the agent must have: sorted by name, no name twice. Empty for what every agent of the toolchain's host can run.
    pub platform: Vec<(String, String)>,
    /// Wall-clock limit in milliseconds.
    pub timeout_ms: u64,
    /// Whether the result must not be kept.
    pub do_not_cache: bool,
}

impl Action {
    /// Whether standard error is to be a terminal.
    pub fn wants_terminal(&self) -> bool {
        self.has(STDERR_TERMINAL)
    }

    /// Whether what the program asks for is to be recorded.
    pub fn is_recorded(&self) -> bool {
        self.has(RECORDED)
    }

    fn has(&self, property: (&str, &str)) -> bool {
        self.platform.iter().any(|(name, value)| (name.as_str(), value.as_str()) == property)
    }
}

impl Canonical for Action {
    const TAG: [u8; 4] = *b"bbA1";

    fn encode(&self, out: &mut Writer) {
        out.digest(&self.command);
        out.digest(&self.input_root);
        out.digest(&self.toolchain.0);
        out.list(&self.platform, |out, (name, value)| {
            out.text(name);
            out.text(value);
        });
        out.u64(self.timeout_ms);
        out.bool(self.do_not_cache);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        let action = Self {
            command: input.digest()?,
            input_root: input.digest()?,
            toolchain: ToolchainId(input.digest()?),
            platform: input.list(MAX_ENVIRONMENT, |input| Ok((input.text()?, input.text()?)))?,
            timeout_ms: input.u64()?,
            do_not_cache: input.bool()?,
        };
        check_ascending(&action.platform, "platform properties", |(name, _)| name)?;
        Ok(action)
    }
}
