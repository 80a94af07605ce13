//! What ccache tells the helper: variables that begin with `CRSH_`. The helper's one reader of the environment.

use std::path::PathBuf;
use std::time::Duration;

use buildbee_proto::limits::MAX_ENTRY_NAME_BYTES;
use thiserror::Error;

/// Attributes that are looked at; ccache passes what the user wrote.
const MAX_ATTRIBUTES: usize = 64;
/// Room for a key behind the prefix.
const MAX_PREFIX_BYTES: usize = MAX_ENTRY_NAME_BYTES - 2 * 255 - 2;

/// Why it can't begin.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SettingsError {
    /// Somebody started it by hand.
    #[error(
        "this is buildbee's storage helper for ccache, which starts it by itself\nhint: set CCACHE_REMOTE_STORAGE=buildbee://PROJECT, with any word for PROJECT, and have this program in PATH"
    )]
    ByHand,
    /// The address is none of ours.
    #[error(
        "{0:?} is no address of a buildbee cache\nhint: it looks like buildbee://PROJECT, letters, digits, \".\", \"_\", \"-\" and \"/\" in PROJECT"
    )]
    Url(String),
    /// The idle time is none.
    #[error("CRSH_IDLE_TIMEOUT is {0:?}, which is no number of seconds")]
    IdleTime(String),
}

/// Checked settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelperSettings {
    /// Where to listen.
    pub endpoint: PathBuf,
    /// Before each key, if not empty.
    pub prefix: String,
    /// For how long it stays without a request; `None`: for ever.
    pub idle_time: Option<Duration>,
    /// What ccache is to log.
    pub diagnostics: Vec<String>,
}

impl HelperSettings {
    /// From the process's environment.
    pub fn from_environment() -> Result<Self, SettingsError> {
        #[expect(clippy::disallowed_methods, reason = "the helper's one reader of the environment")]
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let told = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let (Some(endpoint), Some(url)) = (told("CRSH_IPC_ENDPOINT"), told("CRSH_URL")) else {
            return Err(SettingsError::ByHand);
        };
        let idle_time = match told("CRSH_IDLE_TIMEOUT") {
            None => None,
            Some(seconds) => match seconds.parse::<u64>() {
                Ok(0) => None,
                Ok(seconds) => Some(Duration::from_secs(seconds)),
                Err(_) => return Err(SettingsError::IdleTime(seconds)),
            },
        };
        let n_attributes = told("CRSH_NUM_ATTR").and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
        let keys = (0..n_attributes.min(MAX_ATTRIBUTES)).filter_map(|n| told(&format!("CRSH_ATTR_KEY_{n}")));
        let diagnostics = keys.map(|key| format!("attribute {key:?} means nothing to buildbee")).collect();
        Ok(Self { endpoint: endpoint.into(), prefix: prefix(&url)?, idle_time, diagnostics })
    }
}

/// What stands behind the scheme, without slashes around it.
fn prefix(url: &str) -> Result<String, SettingsError> {
    let odd = || SettingsError::Url(url.chars().take(200).collect());
    let prefix = url.strip_prefix("buildbee:").ok_or_else(odd)?.trim_matches('/');
    let is_word = |word: &str| {
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        !word.is_empty() && word != "." && word != ".." && word.len() <= 255 && word.bytes().all(letters)
    };
    let is_good = prefix.is_empty() || prefix.len() <= MAX_PREFIX_BYTES && prefix.split('/').all(is_word);
    if is_good { Ok(prefix.to_owned()) } else { Err(odd()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<HelperSettings, SettingsError> {
        HelperSettings::from_lookup(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn what_ccache_tells_is_understood() {
        let told = settings(&[
            ("CRSH_IPC_ENDPOINT", "/run/x"),
            ("CRSH_URL", "buildbee://project/a"),
            ("CRSH_IDLE_TIMEOUT", "300"),
            ("CRSH_NUM_ATTR", "1"),
            ("CRSH_ATTR_KEY_0", "layout"),
            ("CRSH_ATTR_VALUE_0", "flat"),
        ]);
        assert_eq!(
            told,
            Ok(HelperSettings {
                endpoint: "/run/x".into(),
                prefix: "project/a".to_owned(),
                idle_time: Some(Duration::from_secs(300)),
                diagnostics: vec!["attribute \"layout\" means nothing to buildbee".to_owned()],
            })
        );
        let forever = settings(&[("CRSH_IPC_ENDPOINT", "/x"), ("CRSH_URL", "buildbee:"), ("CRSH_IDLE_TIMEOUT", "0")]);
        assert_eq!(forever.map(|told| (told.prefix, told.idle_time)), Ok((String::new(), None)));
    }

    #[test]
    fn addresses_are_projects() {
        for (url, expected) in [
            ("buildbee:", Some("")),
            ("buildbee://", Some("")),
            ("buildbee:project", Some("project")),
            ("buildbee:///project/", Some("project")),
            ("buildbee://a-b.c_d/E", Some("a-b.c_d/E")),
            ("buildbee://a b", None),
            ("buildbee://a/../b", None),
            ("buildbee://a//b", None),
            ("buildbee://a?b=c", None),
            ("http://a", None),
        ] {
            assert_eq!(prefix(url).ok().as_deref(), expected, "{url}");
        }
        assert!(prefix(&format!("buildbee://{}", "a/".repeat(400))).is_err());
    }

    #[test]
    fn by_hand_it_says_what_it_is() {
        assert_eq!(settings(&[]), Err(SettingsError::ByHand));
        let odd = [("CRSH_IPC_ENDPOINT", "/x"), ("CRSH_URL", "buildbee:"), ("CRSH_IDLE_TIMEOUT", "soon")];
        assert_eq!(settings(&odd), Err(SettingsError::IdleTime("soon".to_owned())));
    }
}
