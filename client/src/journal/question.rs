//! What a command line asks of a compiler, before anything is known of the files behind it (save the source): the key of direct mode.

use buildbee_proto::canonical::{Canonical, CanonicalError, Reader, Writer};
use buildbee_proto::digest::Digest;
use buildbee_proto::limits::{MAX_ARGUMENTS, MAX_ENVIRONMENT, MAX_OUTPUTS};

/// One compile as asked for. Its digest names the manifest of the results that were had for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The toolchain's name.
    pub toolchain: String,
    /// The compiler's path: its name decides how it behaves.
    pub compiler: String,
    /// Working directory, physical.
    pub directory: String,
    /// What `PWD` calls it, where that is another name.
    pub logical_directory: String,
    /// The source as spelled.
    pub source: String,
    /// What is in it.
    pub content: Digest,
    /// Outputs as spelled.
    pub outputs: Vec<String>,
    /// What goes along of the environment, sorted by name.
    pub env: Vec<(String, String)>,
    /// Whether it prints on a terminal.
    pub on_terminal: bool,
    /// Arguments in one spelling.
    pub arguments: Vec<String>,
}

impl Canonical for Question {
    const TAG: [u8; 4] = *b"bbQ1";

    fn encode(&self, out: &mut Writer) {
        out.text(&self.toolchain);
        out.text(&self.compiler);
        out.text(&self.directory);
        out.text(&self.logical_directory);
        out.text(&self.source);
        out.digest(&self.content);
        out.list(&self.outputs, |out, output| out.text(output));
        out.list(&self.env, |out, (name, value)| {
            out.text(name);
            out.text(value);
        });
        out.bool(self.on_terminal);
        out.list(&self.arguments, |out, argument| out.text(argument));
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        Ok(Self {
            toolchain: input.text()?,
            compiler: input.text()?,
            directory: input.text()?,
            logical_directory: input.text()?,
            source: input.text()?,
            content: input.digest()?,
            outputs: input.list(MAX_OUTPUTS, Reader::text)?,
            env: input.list(MAX_ENVIRONMENT, |input| Ok((input.text()?, input.text()?)))?,
            on_terminal: input.bool()?,
            arguments: input.list(MAX_ARGUMENTS, Reader::text)?,
        })
    }
}

#[cfg(test)]
impl Question {
    /// One about `/p/a.c`, for tests of what is made of differences.
    pub(super) fn with(arguments: &[&str]) -> Self {
        Self {
            toolchain: "t".into(),
            compiler: "/usr/bin/gcc".into(),
            directory: "/p".into(),
            logical_directory: String::new(),
            source: "a.c".into(),
            content: Digest::of(b"a"),
            outputs: vec!["a.o".into()],
            env: vec![],
            on_terminal: false,
            arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
        }
    }
}
