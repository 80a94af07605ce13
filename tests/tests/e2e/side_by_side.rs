//! One command run plainly and with buildbee in the same folder, made anew for each: everything that can be seen must be the same.

use std::fs;
use std::path::Path;

use buildbee_tests::client::plain;
use buildbee_tests::farm::Farm;
use buildbee_tests::project::outputs;
use buildbee_tests::seen::{Seen, see};

/// Where an action was settled: (cached, remote, local).
pub(crate) const CACHED: (u64, u64, u64) = (1, 0, 0);
pub(crate) const REMOTE: (u64, u64, u64) = (0, 1, 0);

/// The variables that stand for compilers in a shell line.
const COMPILERS: [(&str, &str); 4] = [("CC", "gcc"), ("CXX", "g++"), ("CLANG", "clang"), ("CLANGXX", "clang++")];

/// What compiles leave; everything else in a folder was there before.
const OUTPUTS: [&str; 6] = [".o", ".d", ".dep", ".dwo", ".lst", ".gcno"];

/// Runs the shell line `line` in `folder` twice, `$CC` and the other [`COMPILERS`] being the plain ones first and the wrapped ones then. `set_up` fills the empty
/// folder for each. Returns what was seen the second time, which is what was seen the first time.
pub(crate) fn same(farm: &Farm, folder: &Path, line: &str, set_up: impl Fn(&Path)) -> Seen {
    let anew = || {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder).unwrap();
        set_up(folder);
    };
    both(farm, folder, line, anew)
}

/// As [`same`], in the folder as it is: before each run only [`OUTPUTS`] are removed.
pub(crate) fn same_again(farm: &Farm, folder: &Path, line: &str) -> Seen {
    let without_outputs = || {
        for name in outputs(folder, &OUTPUTS).keys() {
            fs::remove_file(folder.join(name)).unwrap();
        }
    };
    both(farm, folder, line, without_outputs)
}

/// As [`same_again`], and the wrapped run was (cached, remote, local) as often as `expected`.
pub(crate) fn same_and_counted(farm: &Farm, folder: &Path, line: &str, expected: (u64, u64, u64)) -> Seen {
    farm.laptop.zero();
    let seen = same_again(farm, folder, line);
    assert_eq!(farm.counts(), expected, "{line}\n{}\n{}", farm.json(&["explain"]), farm.logs());
    seen
}

fn both(farm: &Farm, folder: &Path, line: &str, before: impl Fn()) -> Seen {
    before();
    let mut plain = plain("bash");
    let expected = see(plain.args(["-c", line]).envs(COMPILERS).current_dir(folder), folder);
    before();
    let mut wrapped = farm.client("bash");
    let compilers = COMPILERS.map(|(variable, compiler)| (variable, format!("buildbee {compiler}")));
    wrapped.args(["-c", line]).envs(compilers).current_dir(folder);
    let seen = see(&mut wrapped, folder);
    let explained = || farm.json(&["explain"]);
    assert_eq!(brief(&seen), brief(&expected), "{line}\n{}\n{}", explained(), farm.logs());
    let differing: Vec<_> =
        seen.files.iter().filter(|(name, file)| expected.files[*name] != **file).map(|(name, _)| name).collect();
    assert!(differing.is_empty(), "{line}: other bytes in {differing:?}\n{}", explained());
    seen
}

/// For messages: files without their content.
fn brief(seen: &Seen) -> String {
    let files: Vec<_> =
        seen.files.iter().map(|(name, (bytes, mode))| format!("{name} {} {mode:o}", bytes.len())).collect();
    format!("{:?} {:?}\nstdout: {}\nstderr: {}\n{files:#?}", seen.code, seen.signal, seen.stdout, seen.stderr)
}
