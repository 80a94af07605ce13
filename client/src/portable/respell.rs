//! Writes the names of some folders in the place of others', in paths and in arguments. Not in content: see [`carry`](super::carry).

use buildbee_proto::path::{PathError, RelPath};

/// From folders to others, each to its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respelling {
    /// Absolute paths. Inner folders before those that they are in.
    pairs: Vec<(String, String)>,
}

impl Respelling {
    /// None of the folders is the root of the file system; what has no partner stays.
    pub fn new(from: &[RelPath], to: &[RelPath]) -> Self {
        let mut pairs: Vec<_> = from.iter().zip(to).map(|(from, to)| (format!("/{from}"), format!("/{to}"))).collect();
        pairs.sort_by(|(one, _), (other, _)| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        Self { pairs }
    }

    /// The folders that are left, as absolute paths.
    pub fn left(&self) -> impl Iterator<Item = &str> {
        self.pairs.iter().filter(|(from, to)| from != to).map(|(from, _)| from.as_str())
    }

    /// A path of an action: the same below the other folder, or the same where it is in none of the first.
    pub fn path(&self, path: &RelPath) -> Result<RelPath, PathError> {
        let found = self.pairs.iter().find_map(|(from, to)| Some((below(path.as_str(), &from[1..])?, to)));
        match found {
            Some((rest, to)) => RelPath::try_from(format!("{}{rest}", &to[1..])),
            None => Ok(path.clone()),
        }
    }

    /// An absolute path as text, if it is one of the folders or below it.
    pub fn prefix(&self, text: &str) -> Option<String> {
        self.pairs.iter().find_map(|(from, to)| below(text, from).map(|rest| format!("{to}{rest}")))
    }

    /// What takes the place of the folder that `text` begins with, before something in it, and the rest, slash included.
    pub fn beginning<'a>(&self, text: &'a [u8]) -> Option<(&str, &'a [u8])> {
        self.pairs.iter().find_map(|(from, to)| {
            let rest = text.strip_prefix(from.as_bytes()).filter(|rest| rest.starts_with(b"/"))?;
            Some((to.as_str(), rest))
        })
    }

    /// An argument or a variable's value: each folder wherever it stands as a whole path or its beginning, also behind an option's name
    /// (`-I/home/a/x`) or within quotes (`-DX="/home/a/x"`).
    pub fn text(&self, text: &str) -> String {
        let mut found: Vec<(usize, &str, &str)> = Vec::new();
        for (from, to) in &self.pairs {
            found.extend(text.match_indices(from.as_str()).map(|(at, _)| (at, from.as_str(), to.as_str())));
        }
        // Of two that begin at one place the inner folder comes first, as it is: the sort keeps their order.
        found.sort_by_key(|(at, ..)| *at);
        let mut out = String::with_capacity(text.len());
        let mut done = 0;
        for (at, from, to) in found {
            let end = at + from.len();
            if at >= done && starts_path(&text[..at]) && ends_name(&text[end..]) {
                out.push_str(&text[done..at]);
                out.push_str(to);
                done = end;
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
        let respelling = Respelling::new(&[folder("home/a")], &[folder("srv/bee/b")]);
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

    #[test]
    fn of_folders_in_each_other_the_inner_one_counts() {
        let there = ["home/a", "home/a/target", "home/a/.cargo"].map(folder);
        let here = ["srv/app", "tmp/t", "srv/home"].map(folder);
        let respelling = Respelling::new(&there, &here);
        for (text, expected) in [
            ("/home/a/target/x.o", "/tmp/t/x.o"),
            ("-I/home/a/target", "-I/tmp/t"),
            ("-I/home/a/targets", "-I/srv/app/targets"),
            ("-ffile-prefix-map=/home/a/.cargo=/buildbee/cargo", "-ffile-prefix-map=/srv/home=/buildbee/cargo"),
            ("/home/a/target:/home/a:/home/a/.cargo/x", "/tmp/t:/srv/app:/srv/home/x"),
        ] {
            assert_eq!(respelling.text(text), expected);
            assert_eq!(Respelling::new(&here, &there).text(expected), text);
        }
        assert_eq!(respelling.path(&folder("home/a/target/x")), Ok(folder("tmp/t/x")));
        assert_eq!(respelling.path(&folder("home/a/src/x")), Ok(folder("srv/app/src/x")));
        assert_eq!(respelling.beginning(b"/home/a/target/x:1: odd"), Some(("/tmp/t", &b"/x:1: odd"[..])));
        assert_eq!(respelling.beginning(b"/home/a"), None);
        let same = ["srv/app", "home/a/target", "home/a/.cargo"].map(folder);
        assert_eq!(Respelling::new(&there, &same).left().collect::<Vec<_>>(), ["/home/a"]);
    }

    proptest! {
        #[test]
        fn respelling_there_and_back_changes_nothing(
            parts in prop::collection::vec(prop_oneof![Just("/home/a".to_owned()), "[-I/:=\"ab. ]{0,4}"], 0..8),
        ) {
            let text = parts.concat();
            let (one, two) = (folder("home/a"), folder("srv/bee"));
            prop_assume!(!text.contains("/srv"));
            let (one, two) = ([one], [two]);
            let there = Respelling::new(&one, &two).text(&text);
            prop_assert_eq!(Respelling::new(&two, &one).text(&there), text);
        }
    }
}
