//! Carries a result from the folders where it was made to others: what files would be there, if the compile had run there.
//!
//! An object must not hold a folder's name; dependency files and messages are made of names, and get the other one.

use std::collections::BTreeMap;

use buildbee_proto::digest::Digest;
use buildbee_proto::outcome::ActionResult;
use buildbee_proto::path::RelPath;

use super::respell::Respelling;
use super::{Obstacle, depfile, leak};
use crate::compiler::request::CompilerFamily;

/// A result's files and messages.
#[derive(Debug, PartialEq, Eq)]
pub struct Carried {
    /// Place, content, mode; sorted by place.
    pub outputs: Vec<(RelPath, Vec<u8>, u32)>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

/// How a compile's results are read.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Who wrote the dependency file.
    pub family: CompilerFamily,
    /// Where, in the folder where the result was made.
    pub depfile: Option<RelPath>,
    /// Whether messages are wrapped at a width.
    pub wrapped: bool,
}

impl Kind {
    /// The same, for results made in the folders `there` instead of `here`.
    pub fn elsewhere(&self, there: &[RelPath], here: &[RelPath]) -> Result<Self, Obstacle> {
        let respelling = Respelling::new(here, there);
        let depfile = self.depfile.as_ref().map(|path| respelling.path(path)).transpose()?;
        Ok(Self { depfile, ..self.clone() })
    }
}

/// What `result` comes to in the other folder. `kind` is that of the folder where it was made, `blobs` its content.
pub fn carry(
    result: &ActionResult,
    blobs: &BTreeMap<Digest, Vec<u8>>,
    kind: &Kind,
    respelling: &Respelling,
) -> Result<Carried, Obstacle> {
    let content = |digest: &Digest| blobs.get(digest).map_or(&[][..], Vec::as_slice);
    let mut outputs = Vec::with_capacity(result.outputs.len());
    for file in &result.outputs {
        let made = content(&file.digest);
        let made = if kind.depfile.as_ref() == Some(&file.path) {
            let leak = Obstacle::Leak("the dependency file");
            let respelled = depfile::respell(made, kind.family, respelling).ok_or(leak.clone())?;
            clean(respelled, respelling).ok_or(leak)?
        } else if leak::could_hide(made) {
            return Err(Obstacle::Hidden("a compressed section".to_owned()));
        } else {
            clean(made.to_vec(), respelling).ok_or(Obstacle::Leak("the object"))?
        };
        outputs.push((respelling.path(&file.path)?, made, file.mode));
    }
    outputs.sort();
    let text = |digest: &Digest| {
        let said = content(digest);
        let said = if kind.wrapped { said.to_vec() } else { messages(said, respelling) };
        clean(said, respelling).ok_or(Obstacle::Leak("a message"))
    };
    Ok(Carried { outputs, stdout: text(&result.stdout)?, stderr: text(&result.stderr)? })
}

/// `content`, unless one of the folders that are left is in it.
fn clean(content: Vec<u8>, respelling: &Respelling) -> Option<Vec<u8>> {
    (!respelling.left().any(|folder| leak::holds(&content, folder))).then_some(content)
}

/// What stands before a file's name in the messages of gcc and clang.
const BEFORE_NAMES: [&[u8]; 3] = [b"In file included from ", b"                 from ", b""];

/// Messages with names of files below a folder replaced where a line begins with one, or says that it was included from one. What a
/// source line shows is text, and stays.
fn messages(text: &[u8], respelling: &Respelling) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let before = BEFORE_NAMES.iter().find(|before| line.starts_with(before)).map_or(0, |before| before.len());
        let (before, rest) = line.split_at(before);
        out.extend_from_slice(before);
        match respelling.beginning(rest) {
            Some((folder, inside)) => {
                out.extend_from_slice(folder.as_bytes());
                out.extend_from_slice(inside);
            }
            None => out.extend_from_slice(rest),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_files_of_the_other_folder() {
        let folder = |text: &str| RelPath::try_from(text).unwrap();
        let respelling = Respelling::new(&[folder("home/a")], &[folder("srv/bee")]);
        let said = "In file included from /home/a/x.h:1,\n                 from /home/a/x.c:2:\n/home/a/y.h:3:1: warning: \
                    odd\n    3 | \"/home/a/z\"\n/home/ab/x.c:1:1: note: other\n";
        let expected = "In file included from /srv/bee/x.h:1,\n                 from /srv/bee/x.c:2:\n/srv/bee/y.h:3:1: warning: \
                        odd\n    3 | \"/home/a/z\"\n/home/ab/x.c:1:1: note: other\n";
        assert_eq!(String::from_utf8(messages(said.as_bytes(), &respelling)).unwrap(), expected);
        assert_eq!(clean(expected.as_bytes().to_vec(), &respelling), None);
        let stays = Respelling::new(&[folder("home/a")], &[folder("home/a")]);
        assert!(clean(expected.as_bytes().to_vec(), &stays).is_some(), "the name is the right one");
    }
}
