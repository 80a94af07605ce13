//! Writes one folder's name in the place of another's, in paths and in arguments. Not in content: see [`carry`](super::carry).

use buildbee_proto::path::{PathError, RelPath};

/// From one folder to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respelling {
    from: String,
    to: String,
}

impl Respelling {
    /// Neither folder is the root of the file system.
    pub fn new(from: &RelPath, to: &RelPath) -> Self {
        Self { from: format!("/{from}"), to: format!("/{to}") }
    }

    /// The folder that is left, as an absolute path.
    pub fn from(&self) -> &str {
        &self.from
    }

    /// The folder that takes its place.
    pub fn to(&self) -> &str {
        &self.to
    }

    /// A path of an action: the same below the other folder, or the same where it is not in the first.
    pub fn path(&self, path: &RelPath) -> Result<RelPath, PathError> {
        match below(path.as_str(), &self.from[1..]) {
            Some(rest) => RelPath::try_from(format!("{}{rest}", &self.to[1..])),
            None => Ok(path.clone()),
        }
    }

    /// An absolute path as text, if it is the folder or below it.
    pub fn prefix(&self, text: &str) -> Option<String> {
        below(text, &self.from).map(|rest| format!("{}{rest}", self.to))
    }

    /// An argument or a variable's value: the folder wherever it stands as a whole path or its beginning, also behind an option's name
    /// (`-I/home/a/x`) or within quotes (`-DX="/home/a/x"`).
    pub fn text(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut done = 0;
        for (at, _) in text.match_indices(&self.from) {
            let after = &text[at + self.from.len()..];
            if at >= done && starts_path(&text[..at]) && ends_name(after) {
                out.push_str(&text[done..at]);
                out.push_str(&self.to);
                done = at + self.from.len();
            }
        }
        out.push_str(&text[done..]);
        out
    }
}

/// What of `path` follows `folder`: nothing, or something that starts with a slash.
fn below<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    path.strip_prefix(folder).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether `path` is `folder` or below it.
pub fn is_below(path: &RelPath, folder: &RelPath) -> bool {
    below(path.as_str(), folder.as_str()).is_some()
}

fn in_name(character: char) -> bool {
    character.is_alphanumeric() || !character.is_ascii() || matches!(character, '.' | '_' | '-' | '+' | '@' | '~' | '%')
}

/// Options that a path may follow at once.
const JOINED: [&str; 15] = [
    "-I",
    "-L",
    "-MF",
    "-MQ",
    "-MT",
    "-cxx-isystem",
    "-fdebug-compilation-dir",
    "-idirafter",
    "-imacros",
    "-include",
    "-iquote",
    "-isysroot",
    "-isystem",
    "-o",
    "-stdlib++-isystem",
];

/// Whether an absolute path can begin behind `before`.
fn starts_path(before: &str) -> bool {
    match before.chars().next_back() {
        None => true,
        Some(last) => (last != '/' && !in_name(last)) || JOINED.contains(&before),
    }
}

fn ends_name(after: &str) -> bool {
    !after.chars().next().is_some_and(in_name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn folder(text: &str) -> RelPath {
        RelPath::try_from(text).unwrap()
    }

    #[test]
    fn only_whole_names_are_replaced() {
        let respelling = Respelling::new(&folder("home/a"), &folder("srv/bee/b"));
        for (text, expected) in [
            ("-I/home/a/x", "-I/srv/bee/b/x"),
            ("/home/a", "/srv/bee/b"),
            ("-DX=\"/home/a/x\"", "-DX=\"/srv/bee/b/x\""),
            ("-ffile-prefix-map=/home/a=.", "-ffile-prefix-map=/srv/bee/b=."),
            ("/home/a/i:/home/a:/usr", "/srv/bee/b/i:/srv/bee/b:/usr"),
            ("/home/ab", "/home/ab"),
            ("/home/a.old/x", "/home/a.old/x"),
            ("x/home/a", "x/home/a"),
            ("-Ix/home/a", "-Ix/home/a"),
            ("/mnt/home/a", "/mnt/home/a"),
            ("/home/a/home/a", "/srv/bee/b/home/a"),
        ] {
            assert_eq!(respelling.text(text), expected);
        }
        assert_eq!(respelling.path(&folder("home/a/x/y")), Ok(folder("srv/bee/b/x/y")));
        assert_eq!(respelling.path(&folder("home/ab")), Ok(folder("home/ab")));
        assert_eq!(respelling.prefix("/home/a/x").as_deref(), Some("/srv/bee/b/x"));
        assert_eq!(respelling.prefix(" /home/a/x"), None);
    }

    proptest! {
        #[test]
        fn respelling_there_and_back_changes_nothing(
            parts in prop::collection::vec(prop_oneof![Just("/home/a".to_owned()), "[-I/:=\"ab. ]{0,4}"], 0..8),
        ) {
            let text = parts.concat();
            let (one, two) = (folder("home/a"), folder("srv/bee"));
            prop_assume!(!text.contains("/srv"));
            let there = Respelling::new(&one, &two).text(&text);
            prop_assert_eq!(Respelling::new(&two, &one).text(&there), text);
        }
    }
}
