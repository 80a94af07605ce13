//! The text that a farm's keys are kept outside of the coordinator as: what is needed to make the coordinator again.
//!
//! Plain text on purpose, so that it can be printed, and encrypted by whatever its keeper trusts (`key export - | age -p`): a passphrase
//! of our own would be asked for once in years, and a farm whose passphrase is forgotten is lost after all. Pure. Not here: files.

use buildbee_p2p::identity::Identity;

/// What it starts with, after comments.
const HEADER: &str = "buildbee-farm-1";
/// Largest such text in bytes.
pub const MAX_KEY_FILE_BYTES: u64 = 4096;

/// A farm's secrets.
#[derive(Debug)]
pub struct Keys {
    /// Signs memberships and rosters.
    pub farm: Identity,
    /// The coordinator's own, by which members know it.
    pub coordinator: Identity,
}

impl Keys {
    /// The text.
    pub fn to_text(&self) -> String {
        let body = format!(
            "{HEADER}\nfarm {}\ncoordinator {}\n",
            self.farm.to_secret_text(),
            self.coordinator.to_secret_text()
        );
        format!(
            "# The secret key of buildbee farm {}. Whoever has it can let anybody into the farm.\n\
             # To make the coordinator again: buildbee-coordinator key import FILE\n\
             {body}check {}\n",
            self.farm.peer().short(),
            check(&body)
        )
    }

    /// The keys in `text`; `None` if anything is missing or altered.
    pub fn from_text(text: &str) -> Option<Self> {
        // Printers, mail programs and people add white space and empty lines.
        let lines: Vec<&str> =
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        let [HEADER, farm, coordinator, sum] = lines[..] else { return None };
        if sum.strip_prefix("check ")? != check(&format!("{HEADER}\n{farm}\n{coordinator}\n")) {
            return None;
        }
        Some(Self {
            farm: Identity::from_secret_text(farm.strip_prefix("farm ")?)?,
            coordinator: Identity::from_secret_text(coordinator.strip_prefix("coordinator ")?)?,
        })
    }
}

/// Tells a text that was cut or copied by hand from a good one.
fn check(body: &str) -> String {
    buildbee_proto::digest::Digest::of(body.as_bytes()).hex()[..8].to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> Keys {
        Keys { farm: Identity::generate(), coordinator: Identity::generate() }
    }

    #[test]
    fn the_text_gives_the_keys_back() {
        let keys = keys();
        let text = keys.to_text();
        assert!(text.len() as u64 <= MAX_KEY_FILE_BYTES);
        for copy in [text.clone(), text.replace('\n', " \r\n\n"), format!("\n\n{text}# signed by the boss\n")] {
            let again = Keys::from_text(&copy).unwrap();
            assert_eq!(
                (again.farm.peer(), again.coordinator.peer()),
                (keys.farm.peer(), keys.coordinator.peer()),
                "{copy}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_text_that_was_cut_or_altered_is_none(at in 0_usize..400, to in "[0-9a-f ]") {
            let text = keys().to_text();
            let from = text.find(HEADER).unwrap();
            let at = from + at % (text.len() - from - 1);
            prop_assert!(Keys::from_text(&text[..at]).is_none());
            let altered = format!("{}{to}{}", &text[..at], &text[at + 1..]);
            // White space at an end of a line is no change.
            prop_assume!(altered != text && altered.lines().map(str::trim).ne(text.lines().map(str::trim)));
            prop_assert!(Keys::from_text(&altered).is_none());
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,300}") {
            prop_assert!(Keys::from_text(&text).is_none());
        }
    }
}
