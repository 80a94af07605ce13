//! Names and paths in which traversal cannot be written down.
//!
//! Paths in content are UTF-8. A front-end that meets another path runs the command locally and says so.

use std::borrow::Borrow;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits::{MAX_COMPONENT_BYTES, MAX_PATH_BYTES, MAX_PATH_DEPTH};

/// Why a text is no path or name.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PathError {
    /// A component is empty, `.` or `..`, or holds `/` or NUL.
    #[error("{0:?} is not a valid file name")]
    Component(String),
    /// Longer or deeper than [`MAX_PATH_BYTES`], [`MAX_COMPONENT_BYTES`] or [`MAX_PATH_DEPTH`].
    #[error("path is too long or too deep ({0} bytes)")]
    TooLong(usize),
    /// The path is not UTF-8.
    #[error("path {0:?} is not UTF-8")]
    NotUtf8(PathBuf),
    /// The path does not start at the root.
    #[error("path {0:?} is not absolute")]
    NotAbsolute(PathBuf),
}

/// One file name: not empty, not `.` or `..`, no `/`, no NUL, at most [`MAX_COMPONENT_BYTES`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathComponent(String);

impl PathComponent {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PathComponent {
    type Error = PathError;

    fn try_from(name: String) -> Result<Self, PathError> {
        check_component(&name)?;
        Ok(Self(name))
    }
}

impl TryFrom<&str> for PathComponent {
    type Error = PathError;

    fn try_from(name: &str) -> Result<Self, PathError> {
        Self::try_from(name.to_owned())
    }
}

/// Compared and hashed as its text is.
impl Borrow<str> for PathComponent {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<PathComponent> for String {
    fn from(name: PathComponent) -> Self {
        name.0
    }
}

impl fmt::Display for PathComponent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check_component(name: &str) -> Result<(), PathError> {
    if name.len() > MAX_COMPONENT_BYTES {
        return Err(PathError::TooLong(name.len()));
    }
    if name.is_empty() || name == "." || name == ".." || name.bytes().any(|byte| byte == b'/' || byte == 0) {
        return Err(PathError::Component(name.to_owned()));
    }
    Ok(())
}

/// A path below a root: components joined by `/`, none of them `.` or `..`. Empty means the root itself.
///
/// An input root mirrors the client's file system, so the absolute path `/home/a/x.c` is written `home/a/x.c`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelPath(String);

impl RelPath {
    /// The root itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// From an absolute path that is already free of `.` and `..` (repeated slashes are dropped).
    pub fn from_absolute(path: &Path) -> Result<Self, PathError> {
        let text = path.to_str().ok_or_else(|| PathError::NotUtf8(path.to_owned()))?;
        let Some(rest) = text.strip_prefix('/') else {
            return Err(PathError::NotAbsolute(path.to_owned()));
        };
        let joined = rest.split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        Self::try_from(joined)
    }

    /// The absolute path this stands for.
    pub fn to_absolute(&self) -> PathBuf {
        // Asked for each file of each compile, where `format!` shows.
        PathBuf::from(["/", &self.0].concat())
    }

    /// This path below `root`.
    pub fn below(&self, root: &Path) -> PathBuf {
        if self.0.is_empty() { root.to_owned() } else { root.join(&self.0) }
    }

    /// The path as text, without a leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The components in order.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/').filter(|part| !part.is_empty())
    }

    /// The folder that holds this path and its last name; `None` for the root.
    pub fn split_last(&self) -> Option<(Self, PathComponent)> {
        if self.0.is_empty() {
            return None;
        }
        let (parent, name) = self.0.rsplit_once('/').unwrap_or(("", &self.0));
        Some((Self(parent.to_owned()), PathComponent(name.to_owned())))
    }

    /// This path with `name` below it.
    pub fn join(&self, name: &PathComponent) -> Result<Self, PathError> {
        let joined = if self.0.is_empty() { name.0.clone() } else { [&self.0, "/", &name.0].concat() };
        // Both parts were checked when they were made.
        if joined.len() > MAX_PATH_BYTES || self.components().count() >= MAX_PATH_DEPTH {
            return Err(PathError::TooLong(joined.len()));
        }
        Ok(Self(joined))
    }
}

impl TryFrom<String> for RelPath {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, PathError> {
        if text.len() > MAX_PATH_BYTES {
            return Err(PathError::TooLong(text.len()));
        }
        if !text.is_empty() {
            let mut depth = 0;
            for part in text.split('/') {
                check_component(part)?;
                depth += 1;
            }
            if depth > MAX_PATH_DEPTH {
                return Err(PathError::TooLong(text.len()));
            }
        }
        Ok(Self(text))
    }
}

impl TryFrom<&str> for RelPath {
    type Error = PathError;

    fn try_from(text: &str) -> Result<Self, PathError> {
        Self::try_from(text.to_owned())
    }
}

impl From<RelPath> for String {
    fn from(path: RelPath) -> Self {
        path.0
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traversal_cannot_be_written() {
        for text in ["..", "a/..", "../a", "a//b", "/a", "a/", "a/./b", "a\0b"] {
            assert!(RelPath::try_from(text).is_err(), "{text:?}");
        }
        for name in ["", ".", "..", "a/b", "a\0"] {
            assert!(PathComponent::try_from(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn absolute_paths_round_trip() {
        let path = RelPath::from_absolute(Path::new("/home//a/x.c")).unwrap();
        assert_eq!(path.as_str(), "home/a/x.c");
        assert_eq!(path.to_absolute(), Path::new("/home/a/x.c"));
        assert!(RelPath::from_absolute(Path::new("/")).unwrap().is_root());
        assert!(RelPath::from_absolute(Path::new("/a/../b")).is_err());
    }

    #[test]
    fn what_is_joined_is_a_path_that_could_be_read() {
        let name = PathComponent::try_from("a").unwrap();
        let mut path = RelPath::root();
        while let Ok(longer) = path.join(&name) {
            assert_eq!(RelPath::try_from(longer.as_str()), Ok(longer.clone()));
            path = longer;
        }
        assert_eq!(path.components().count(), MAX_PATH_DEPTH);
        let long = PathComponent::try_from("b".repeat(MAX_COMPONENT_BYTES)).unwrap();
        let mut path = RelPath::root();
        while let Ok(longer) = path.join(&long) {
            path = longer;
        }
        assert!(
            path.as_str().len() <= MAX_PATH_BYTES && path.as_str().len() + 1 + MAX_COMPONENT_BYTES > MAX_PATH_BYTES
        );
    }

    #[test]
    fn too_deep_is_refused() {
        assert!(RelPath::try_from(vec!["a"; MAX_PATH_DEPTH].join("/")).is_ok());
        assert!(RelPath::try_from(vec!["a"; MAX_PATH_DEPTH + 1].join("/")).is_err());
    }
}
