//! Why a command runs locally, for every front-end: what stands in the way and the argument that it is about. The kinds are the front-ends' own.

use std::fmt;

/// What can stand in the way of a command, without the argument that caused it.
pub trait Kind: Copy {
    /// Two texts: a stable name for scripts, which is never changed, and a clause for people that follows "ran locally because".
    fn texts(self) -> (&'static str, &'static str);
}

/// A [`Kind`] and the argument, path or variable that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason<K> {
    /// What stands in the way.
    pub kind: K,
    /// The argument as the user spelled it, or the variable's name, where there is one.
    pub argument: Option<String>,
}

impl<K: Kind> Reason<K> {
    /// About one argument.
    pub fn about(kind: K, argument: impl Into<String>) -> Self {
        Self { kind, argument: Some(argument.into()) }
    }

    /// Stable name for scripts.
    pub fn code(&self) -> &'static str {
        self.kind.texts().0
    }
}

impl<K: Kind> From<K> for Reason<K> {
    fn from(kind: K) -> Self {
        Self { kind, argument: None }
    }
}

impl<K: Kind> fmt::Display for Reason<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.texts().1)?;
        match &self.argument {
            Some(argument) => write!(f, ": {argument}"),
            None => Ok(()),
        }
    }
}
