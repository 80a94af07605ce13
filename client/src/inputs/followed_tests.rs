//! A look that remembers sees what one that knows nothing sees.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::super::filehash::TICK;
use super::super::lookup::{Found, Lookups};
use super::super::scan::{Scan, scan};
use super::super::search_path::SearchPath;
use super::*;

const FOLDERS: [&str; 6] = ["src", "one", "two", "two/sub", "three", "link"];
const NAMES: [&str; 5] = ["a.h", "b.h", "sub", "a.h.gch", "b.h.gch"];

/// What may happen between two compiles.
#[derive(Clone, Debug)]
enum Event {
    File(usize, usize),
    Folder(usize, usize),
    Symlink(usize, usize, usize),
    Removed(usize, usize),
    NoFolder(usize),
    Settled,
}

fn event() -> impl Strategy<Value = Event> {
    let (folder, name) = (0..FOLDERS.len(), 0..NAMES.len());
    prop_oneof![
        4 => (folder.clone(), name.clone()).prop_map(|(folder, name)| Event::File(folder, name)),
        1 => (folder.clone(), name.clone()).prop_map(|(folder, name)| Event::Folder(folder, name)),
        2 => (folder.clone(), name.clone(), folder.clone()).prop_map(|(folder, name, to)| Event::Symlink(folder, name, to)),
        2 => (folder.clone(), name).prop_map(|(folder, name)| Event::Removed(folder, name)),
        1 => folder.prop_map(Event::NoFolder),
        3 => Just(Event::Settled),
    ]
}

/// Makes it happen; what can't be is left out.
fn happen(root: &Path, event: &Event) {
    let place = |folder: usize, name: usize| root.join(FOLDERS[folder]).join(NAMES[name]);
    let _ = match *event {
        Event::File(folder, name) => fs::write(place(folder, name), ""),
        Event::Folder(folder, name) => fs::create_dir(place(folder, name)),
        Event::Symlink(folder, name, to) => symlink(root.join(FOLDERS[to]).join("a.h"), place(folder, name)),
        Event::Removed(folder, name) => {
            fs::remove_file(place(folder, name)).or_else(|_| fs::remove_dir(place(folder, name)))
        }
        Event::NoFolder(folder) if FOLDERS[folder] == "link" => fs::remove_file(root.join("link")),
        Event::NoFolder(folder) => fs::remove_dir_all(root.join(FOLDERS[folder])),
        Event::Settled => {
            std::thread::sleep(TICK + Duration::from_millis(10));
            Ok(())
        }
    };
}

/// All that a look can tell.
#[derive(Debug, PartialEq)]
enum Seen {
    All {
        absent: BTreeSet<RelPath>,
        found: BTreeSet<PathBuf>,
        precompiled: BTreeSet<PathBuf>,
        symlinks: Vec<(RelPath, String)>,
        directories: BTreeSet<RelPath>,
    },
    /// Which of several things that stand in the way is met first is nobody's promise.
    Failed,
}

fn look(root: &Path, search: &SearchPath, source: &Arc<Scan>, followed: Arc<Followed>) -> Seen {
    let mut lookups = Lookups::new(root, search, followed).unwrap();
    let mut found = BTreeSet::new();
    let mut todo = vec![root.join("src/x.c")];
    loop {
        let more = match todo.pop() {
            Some(file) => lookups.follow(&file, source).map(|()| true),
            None => lookups.follow_rest(),
        };
        match more {
            Ok(true) => {}
            Ok(false) => break,
            Err(_) => return Seen::Failed,
        }
        for Found { path, place } in lookups.take_fresh() {
            assert!(place.is_none_or(|place| place.to_absolute() == path));
            if found.insert(path.clone()) {
                todo.push(path);
            }
        }
    }
    let symlinks = lookups.resolver.symlinks().iter().map(|(place, target)| (place.clone(), target.clone())).collect();
    let directories = lookups.resolver.directories().clone();
    Seen::All { absent: lookups.absent, found, precompiled: lookups.precompiled, symlinks, directories }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn what_is_remembered_is_what_is_seen(events in prop::collection::vec(event(), 1..14)) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for name in &FOLDERS[..4] {
            fs::create_dir(root.join(name)).unwrap();
        }
        symlink("two/sub", root.join("link")).unwrap();
        fs::write(root.join("two/a.h"), "").unwrap();
        fs::write(root.join("two/sub/b.h"), "").unwrap();
        let search = SearchPath { quoted: vec!["one".into()], angled: ["link", "two", "three"].map(PathBuf::from).into(), missing: vec![] };
        let text = b"#include \"a.h\"\n#include <b.h>\n#include \"sub/b.h\"\n#include <sub/../a.h>\n#include_next <a.h>\n\
            #if __has_include(<c.h>)\n#endif\n";
        let source = Arc::new(scan(text));
        let followed = Arc::new(Followed::default());
        for event in &events {
            happen(&root, event);
            let remembering = look(&root, &search, &source, Arc::clone(&followed));
            prop_assert_eq!(remembering, look(&root, &search, &source, Arc::default()), "after {:?} of {:?}", event, &events);
        }
    }
}

#[test]
fn folders_that_keep_still_are_not_looked_into_again() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    for name in ["src", "one"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    fs::write(root.join("one/a.h"), "").unwrap();
    std::thread::sleep(TICK * 2);
    let search = SearchPath { angled: vec!["one".into()], ..SearchPath::default() };
    let source = Arc::new(scan(b"#include \"a.h\"\n"));
    let followed = Arc::new(Followed::default());
    let first = look(&root, &search, &source, Arc::clone(&followed));
    let led = |followed: &Followed| match &followed.memory().includes[0].1 {
        Known::Led(led) => Arc::clone(led),
        other => panic!("{other:?}"),
    };
    let known = led(&followed);
    assert_eq!(known.steps.iter().map(|step| step.is_there).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(known.versions, [Some(1), Some(1), Some(1)]);
    assert_eq!(look(&root, &search, &source, Arc::clone(&followed)), first);
    assert!(Arc::ptr_eq(&led(&followed), &known), "nothing was learnt");
    // Something else was written there: the name is looked at again, and the folder is believed from then on.
    fs::write(root.join("src/x.o"), "").unwrap();
    std::thread::sleep(TICK * 2);
    assert_eq!(look(&root, &search, &source, Arc::clone(&followed)), first);
    assert_eq!(led(&followed).versions, [Some(2), Some(1), Some(1)]);
}

#[test]
fn what_is_remembered_is_counted() {
    let places = Places::default();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    fs::create_dir(root.join("src")).unwrap();
    let followed = Arc::new(Followed::new(places.clone()));
    let source = Arc::new(scan(b"#include \"a.h\"\n#include \"b.h\"\n"));
    look(&root, &SearchPath::default(), &source, Arc::clone(&followed));
    assert_eq!((places.0.load(Ordering::Relaxed), followed.memory().n_places), (2, 2));
    assert!(!followed.is_full() && !places.are_too_many());
    drop(followed);
    assert_eq!(places.0.load(Ordering::Relaxed), 0);
}

#[test]
fn looks_that_begin_together_see_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    for name in ["src", "one", "two"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    let lines: Vec<String> = (0..200).map(|n| format!("#include <h{n}.h>\n#include \"own{n}.h\"\n")).collect();
    let text = lines.concat();
    for n in (0..200).step_by(3) {
        fs::write(root.join(format!("two/h{n}.h")), "").unwrap();
    }
    std::thread::sleep(TICK * 2);
    let search = SearchPath { angled: ["one", "two"].map(PathBuf::from).into(), ..SearchPath::default() };
    let source = Arc::new(scan(text.as_bytes()));
    let expected = look(&root, &search, &source, Arc::default());
    let followed = Arc::new(Followed::default());
    std::thread::scope(|scope| {
        let looks = [(); 4].map(|()| scope.spawn(|| look(&root, &search, &source, Arc::clone(&followed))));
        for seen in looks {
            assert_eq!(seen.join().unwrap(), expected);
        }
    });
    // Who was at an include and never said what came of it keeps nobody from following it.
    let begun = Arc::new(Followed::default());
    assert_eq!(begun.asked_by(&root.join("src/x.c"), &source, &mut Vec::new()).len(), 400);
    assert_eq!(look(&root, &search, &source, begun), expected);
}
