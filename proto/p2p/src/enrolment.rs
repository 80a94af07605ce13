//! What a machine keeps after it has joined a farm, and joining itself.
//!
//! The file is text, one value a line, readable by its owner only. It holds no secret: without the key of
//! [`crate::identity`] it is worth nothing to others. Not here: the ticket's text form (`buildbee_proto::membership`).

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use buildbee_proto::canonical::Canonical as _;
use buildbee_proto::limits::MAX_ADDRESSES_PER_PEER;
use buildbee_proto::membership::{Membership, Signed};
use buildbee_proto::peer::PeerId;
use thiserror::Error;

pub use crate::join::{JoinError, join};
use crate::private_file;

/// First line of the file.
const HEADER: &str = "buildbee-enrolment-1";

/// Why an enrolment can't be read or kept.
#[derive(Debug, Error)]
pub enum EnrolmentError {
    /// The file can't be read or written.
    #[error("enrolment file {}: {source}\nhint: the folder must exist and belong to the user that this program runs as", file.display())]
    Io {
        /// Which file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The content is not an enrolment.
    #[error("enrolment file {} is damaged in line {line}\nhint: remove it and join the farm again", file.display())]
    Damaged {
        /// Which file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
    },
}

/// A membership, and where the farm's coordinator is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolment {
    /// Signed by the farm's key.
    pub membership: Signed<Membership>,
    /// The coordinator that was joined at.
    pub coordinator: PeerId,
    /// Where it was, as `host:port`.
    pub addresses: Vec<String>,
}

impl Enrolment {
    /// The enrolment kept in `file`; `None` if there is no such file. The farm's signature is not checked here: a node that is
    /// started with it does.
    pub fn load(file: &Path) -> Result<Option<Self>, EnrolmentError> {
        let read = private_file::read(file).map_err(|source| EnrolmentError::Io { file: file.to_owned(), source })?;
        let Some(found) = read else { return Ok(None) };
        parse(&found.text).map(Some).map_err(|line| EnrolmentError::Damaged { file: file.to_owned(), line })
    }

    /// Keeps the enrolment in `file`, replacing an older one in one step.
    pub fn save(&self, file: &Path) -> Result<(), EnrolmentError> {
        private_file::replace(file, self.to_text().as_bytes())
            .map_err(|source| EnrolmentError::Io { file: file.to_owned(), source })
    }

    fn to_text(&self) -> String {
        let membership = hex(&self.membership.to_canonical());
        let mut text = format!("{HEADER}\nmembership {membership}\ncoordinator {}\n", self.coordinator);
        for address in &self.addresses {
            // A line break in an address would forge a line: such an address can't be dialled anyway.
            if !address.chars().any(char::is_control) {
                text.push_str("address ");
                text.push_str(address);
                text.push('\n');
            }
        }
        text
    }
}

/// The enrolment in `text`, or the number of the line that is wrong.
fn parse(text: &str) -> Result<Enrolment, usize> {
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    let mut next = |prefix: &str| match lines.next() {
        Some((number, line)) => Ok((number, line.strip_prefix(prefix).ok_or(number)?)),
        None => Err(text.lines().count() + 1),
    };
    next(HEADER)?;
    let (line, membership) = next("membership ")?;
    let membership = unhex(membership).and_then(|bytes| Signed::from_canonical(&bytes).ok()).ok_or(line)?;
    let (line, coordinator) = next("coordinator ")?;
    let coordinator = coordinator.parse().map_err(|_| line)?;
    let mut addresses = Vec::new();
    for (line, address) in lines {
        let address = address.strip_prefix("address ").ok_or(line)?;
        if addresses.len() == MAX_ADDRESSES_PER_PEER {
            return Err(line);
        }
        addresses.push(address.to_owned());
    }
    Ok(Enrolment { membership, coordinator, addresses })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let digits = digits.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits.chunks_exact(2).map(|pair| Some(digit(pair[0])? * 16 + digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use buildbee_proto::peer::Role;
    use proptest::prelude::*;

    use super::*;
    use crate::identity::Identity;

    fn sample() -> Enrolment {
        let farm = Identity::generate();
        let membership = Membership {
            farm: farm.peer(),
            peer: Identity::generate().peer(),
            role: Role::Agent,
            name: "desk-7".to_owned(),
            issued_at: 1,
            expires_at: 2,
        };
        Enrolment {
            membership: farm.signed(membership),
            coordinator: Identity::generate().peer(),
            addresses: vec!["farm.example:7471".to_owned(), "[::1]:7471".to_owned()],
        }
    }

    #[test]
    fn kept_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("enrolment");
        assert_eq!(Enrolment::load(&file).unwrap(), None);
        let first = sample();
        first.save(&file).unwrap();
        assert_eq!(Enrolment::load(&file).unwrap().as_ref(), Some(&first));
        let second = Enrolment { addresses: vec![], ..sample() };
        second.save(&file).unwrap();
        assert_eq!(Enrolment::load(&file).unwrap(), Some(second));
    }

    #[test]
    fn damage_is_named_by_line() {
        let text = sample().to_text();
        assert_eq!(parse(""), Err(1));
        assert_eq!(parse("buildbee-enrolment-1\n"), Err(2));
        assert_eq!(parse(&text.replace("membership ", "membership 0")), Err(2));
        assert_eq!(parse(&text.replace("coordinator ", "coordinator 0")), Err(3));
        assert_eq!(parse(&format!("{text}\u{0}")), Err(6));
        assert_eq!(parse(&format!("{text}{}", "address a:1\n".repeat(MAX_ADDRESSES_PER_PEER))), Err(20));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            let _ = parse(&text);
            let _ = parse(&format!("buildbee-enrolment-1\nmembership {text}\ncoordinator {text}"));
        }
    }
}
