//! In what two compiles of one source differ. Pure.

use std::collections::BTreeMap;

use buildbee_proto::digest::Digest;
use buildbee_proto::outcome::ReadSet;
use buildbee_proto::path::RelPath;
use serde::Serialize;

use super::question::Question;

/// Differences that are told; the rest is counted.
pub const MAX_DIFFERENCES: usize = 20;

/// What kind of thing differs. Names are a contract with scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The compiler's path.
    Compiler,
    /// A file of the compiler.
    Toolchain,
    /// The working directory.
    Directory,
    /// What `PWD` calls it.
    LogicalDirectory,
    /// Whether it prints on a terminal, as gcc shows what it prints elsewhere otherwise.
    Terminal,
    /// A file that is written.
    Output,
    /// A variable of the environment.
    Variable,
    /// An argument.
    Argument,
    /// Only the order of arguments.
    ArgumentOrder,
    /// The source's content.
    Source,
    /// A file that is read, by its content or by being there.
    Input,
    /// A name that was looked for in vain and is there now, or the other way round.
    Absence,
    /// Where a symlink leads.
    Symlink,
    /// Which of the files of equal content a file is, or how old: `#pragma once` tells by that.
    Twin,
    /// The names in a folder that is listed.
    Listing,
}

/// One thing that differs. `was` is of the earlier compile, `now` of the later one; a thing that only one of them has lacks the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What kind of thing.
    pub kind: Kind,
    /// Which one: a path or a variable's name. Empty where there is only one, and for arguments.
    pub name: String,
    /// Earlier.
    pub was: Option<String>,
    /// Later.
    pub now: Option<String>,
}

impl Difference {
    fn new(kind: Kind, name: &str, was: Option<String>, now: Option<String>) -> Self {
        Self { kind, name: name.to_owned(), was, now }
    }
}

/// In what two questions differ.
pub fn of_questions(was: &Question, now: &Question) -> Vec<Difference> {
    let mut found = Vec::new();
    let singles = [
        (Kind::Compiler, "", &was.compiler, &now.compiler),
        (Kind::Directory, "", &was.directory, &now.directory),
        (Kind::LogicalDirectory, "PWD", &was.logical_directory, &now.logical_directory),
    ];
    for (kind, name, was, now) in singles {
        if was != now {
            found.push(Difference::new(kind, name, some(was), some(now)));
        }
    }
    if was.toolchain != now.toolchain {
        found.push(Difference::new(Kind::Toolchain, "", some(&was.toolchain), some(&now.toolchain)));
    }
    if was.content != now.content {
        found.push(Difference::new(Kind::Source, &now.source, Some(short(&was.content)), Some(short(&now.content))));
    }
    if was.on_terminal != now.on_terminal {
        let shown = |on_terminal| Some(if on_terminal { "yes" } else { "no" }.to_owned());
        found.push(Difference::new(Kind::Terminal, "", shown(was.on_terminal), shown(now.on_terminal)));
    }
    found.extend(one_sided(Kind::Output, &was.outputs, &now.outputs));
    found.extend(maps(Kind::Variable, pairs(&was.env), pairs(&now.env)));
    let arguments = one_sided(Kind::Argument, &was.arguments, &now.arguments);
    if arguments.is_empty() && was.arguments != now.arguments {
        found.push(Difference::new(
            Kind::ArgumentOrder,
            "",
            Some(was.arguments.join(" ")),
            Some(now.arguments.join(" ")),
        ));
    }
    found.extend(arguments);
    found
}

/// In what two read sets differ.
pub fn of_read_sets(was: &ReadSet, now: &ReadSet) -> Vec<Difference> {
    let files = |set: &ReadSet| set.files.iter().map(|(path, digest)| (shown(path), short(digest))).collect();
    let links = |set: &ReadSet| set.symlinks.iter().map(|(path, target)| (shown(path), target.clone())).collect();
    let mut found = maps(Kind::Input, files(was), files(now));
    found.extend(maps(Kind::Symlink, links(was), links(now)));
    let twins = |set: &ReadSet| -> BTreeMap<String, String> {
        let path = |at: u32| set.files.get(usize::try_from(at).ok()?).map(|(path, _)| shown(path));
        set.twins.iter().filter_map(|(at, twin)| Some((path(*at)?, format!("{twin:?}")))).collect()
    };
    found.extend(maps(Kind::Twin, twins(was), twins(now)));
    let listed = |set: &ReadSet| set.listed.iter().map(|(path, names)| (shown(path), short(names))).collect();
    found.extend(maps(Kind::Listing, listed(was), listed(now)));
    let env = |set: &ReadSet| set.env.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect();
    found.extend(maps(Kind::Variable, env(was), env(now)));
    let told: Vec<String> = found.iter().map(|difference| difference.name.clone()).collect();
    // A file that came is an absence that went: once is enough.
    let absences =
        |set: &ReadSet| -> Vec<String> { set.absent.iter().map(shown).filter(|path| !told.contains(path)).collect() };
    found.extend(one_sided(Kind::Absence, &absences(was), &absences(now)).into_iter().map(|difference| {
        let name = difference.was.clone().or_else(|| difference.now.clone()).unwrap_or_default();
        Difference { name, ..difference }
    }));
    found
}

fn shown(path: &RelPath) -> String {
    format!("/{path}")
}

/// Enough of a digest to tell two apart.
fn short(digest: &Digest) -> String {
    digest.short()
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn pairs(list: &[(String, String)]) -> BTreeMap<String, String> {
    list.iter().cloned().collect()
}

fn maps(kind: Kind, was: BTreeMap<String, String>, mut now: BTreeMap<String, String>) -> Vec<Difference> {
    let mut found = Vec::new();
    for (name, was) in was {
        match now.remove(&name) {
            Some(now) if now == was => {}
            now => found.push(Difference { kind, name, was: Some(was), now }),
        }
    }
    found.extend(now.into_iter().map(|(name, now)| Difference { kind, name, was: None, now: Some(now) }));
    found
}

/// What only one of two lists has, each as often as it has it more.
fn one_sided(kind: Kind, was: &[String], now: &[String]) -> Vec<Difference> {
    let mut balance: BTreeMap<&str, i64> = BTreeMap::new();
    for word in was {
        *balance.entry(word).or_default() -= 1;
    }
    for word in now {
        *balance.entry(word).or_default() += 1;
    }
    let mut found = Vec::new();
    for (list, sign) in [(was, -1), (now, 1)] {
        for word in list {
            let left = balance.entry(word).or_default();
            if *left * sign > 0 {
                *left -= sign;
                let (was, now) = if sign < 0 { (Some(word.clone()), None) } else { (None, Some(word.clone())) };
                found.push(Difference { kind, name: String::new(), was, now });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|word| (*word).to_owned()).collect()
    }

    fn question() -> Question {
        Question {
            toolchain: "t1".into(),
            compiler: "/usr/bin/gcc".into(),
            directory: "/p".into(),
            logical_directory: String::new(),
            source: "a.c".into(),
            content: Digest::of(b"a"),
            outputs: words(&["a.o"]),
            env: vec![("LANG".into(), "C".into())],
            on_terminal: false,
            arguments: words(&["-O1", "-c", "-I", "x", "-I", "y"]),
        }
    }

    fn told(was: &Question, now: &Question) -> Vec<(Kind, String, String, String)> {
        let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let differences = of_questions(was, now).into_iter();
        differences.map(|found| (found.kind, found.name, text(found.was), text(found.now))).collect()
    }

    #[test]
    fn equal_questions_have_none() {
        assert_eq!(of_questions(&question(), &question()), []);
    }

    #[test]
    fn arguments_and_variables_are_named() {
        let was = question();
        let mut now = Question { env: vec![("LC_ALL".into(), "C".into())], ..question() };
        now.arguments = words(&["-O2", "-c", "-I", "x", "-I", "y", "-I", "z"]);
        let text = str::to_owned;
        assert_eq!(
            told(&was, &now),
            [
                (Kind::Variable, text("LANG"), text("C"), text("-")),
                (Kind::Variable, text("LC_ALL"), text("-"), text("C")),
                (Kind::Argument, text(""), text("-O1"), text("-")),
                (Kind::Argument, text(""), text("-"), text("-O2")),
                (Kind::Argument, text(""), text("-"), text("-I")),
                (Kind::Argument, text(""), text("-"), text("z")),
            ]
        );
    }

    #[test]
    fn order_counts_where_nothing_else_does() {
        let now = Question { arguments: words(&["-O1", "-c", "-I", "y", "-I", "x"]), ..question() };
        let found = of_questions(&question(), &now);
        assert_eq!(found.iter().map(|difference| difference.kind).collect::<Vec<_>>(), [Kind::ArgumentOrder]);
    }

    #[test]
    fn files_absences_and_links() {
        let path = |text: &str| RelPath::try_from(text).unwrap();
        let was = ReadSet {
            files: vec![(path("p/a.h"), Digest::of(b"1")), (path("p/gone.h"), Digest::of(b"2"))],
            absent: vec![path("p/new.h"), path("q/b.h")],
            symlinks: vec![(path("p/link"), "x".into())],
            ..ReadSet::default()
        };
        let now = ReadSet {
            files: vec![(path("p/a.h"), Digest::of(b"3")), (path("p/new.h"), Digest::of(b"4"))],
            absent: vec![],
            symlinks: vec![(path("p/link"), "y".into())],
            ..ReadSet::default()
        };
        let found: Vec<(Kind, String, bool, bool)> = of_read_sets(&was, &now)
            .into_iter()
            .map(|found| (found.kind, found.name, found.was.is_some(), found.now.is_some()))
            .collect();
        let text = str::to_owned;
        assert_eq!(
            found,
            [
                (Kind::Input, text("/p/a.h"), true, true),
                (Kind::Input, text("/p/gone.h"), true, false),
                (Kind::Input, text("/p/new.h"), false, true),
                (Kind::Symlink, text("/p/link"), true, true),
                (Kind::Absence, text("/q/b.h"), true, false),
            ]
        );
    }
}
