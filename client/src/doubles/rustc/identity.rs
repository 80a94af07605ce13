//! What rustc says that it is, in the words that doubles are looked for by. Touches nothing: the compiler has answered already.

use std::path::Path;

use buildbee_proto::digest::Digest;
use buildbee_proto::double::Double;

use crate::doubles::ask::Identity;
use crate::toolchain::rust::RustCompiler;

/// As in [`Double`].
pub const FAMILY: &str = "rustc";
/// [`Double::driver`] of a rustc that is packed with a linker, for its own host: agents build with it what they load themselves.
pub const LINKING: &str = "rustc-with-linker";
/// Fields of `rustc -vV`, besides the first line, that both must answer alike. The host is what they differ in.
const FIELDS: [&str; 3] = ["commit-hash", "release", "LLVM version"];

/// What both of a pair must be for `target`, or why that can't be said.
pub fn identity(compiler: &RustCompiler, target: &str) -> Result<Identity, String> {
    let told = compiler.told();
    let mut libraries = fields(told)?;
    let folder = compiler.sysroot.join("lib/rustlib").join(target).join("lib");
    libraries.push(library(&folder, compiler.parts.files.iter().map(|(path, digest)| (path.as_path(), digest)))?);
    Ok(Identity { family: FAMILY, driver: FAMILY, version: version(told)?, target: target.to_owned(), libraries })
}

/// `1.95.0 (59807616e 2026-04-14)`.
fn version(told: &str) -> Result<String, String> {
    let first = told.lines().next().and_then(|line| line.strip_prefix("rustc "));
    first.map(str::to_owned).ok_or_else(|| "it is no rustc that doubles are proved for".to_owned())
}

fn fields(told: &str) -> Result<Vec<String>, String> {
    let line = |name: &str| {
        let value = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let value = value.filter(|value| !value.is_empty() && *value != "unknown");
        value.map(|value| format!("{name} {value}")).ok_or_else(|| format!("rustc does not say its {name}"))
    };
    FIELDS.into_iter().map(line).collect()
}

/// The target's library among `files`, as one word.
fn library<'a>(folder: &Path, files: impl Iterator<Item = (&'a Path, &'a Digest)>) -> Result<String, String> {
    let mut lines: Vec<String> = files
        .filter(|(path, _)| path.parent() == Some(folder))
        .filter_map(|(path, digest)| Some(format!("{} {digest}\n", path.file_name()?.to_str()?)))
        .collect();
    lines.sort();
    lines.dedup();
    if lines.is_empty() {
        return Err(format!("{} holds no library", folder.display()));
    }
    Ok(format!("library {}", Digest::of(lines.concat().as_bytes())))
}

/// Whether `linking` builds for the host of `double`, and is the same compiler as that and `identity`'s.
pub fn links_for(identity: &Identity, double: &Double, linking: &Double) -> bool {
    let of_compiler = |word: &&String| !word.starts_with("library ");
    let words = |libraries: &[String]| -> Vec<String> { libraries.iter().filter(of_compiler).cloned().collect() };
    linking.family == FAMILY
        && linking.driver == LINKING
        && linking.version == identity.version
        && linking.toolchain.host == double.toolchain.host
        && words(&linking.libraries) == words(&identity.libraries)
        && words(&double.libraries) == words(&identity.libraries)
}

/// In which point `double`, which suits by version and target, is another compiler; `None`: in none.
pub fn difference(identity: &Identity, double: &Double) -> Option<String> {
    if identity.libraries == double.libraries {
        return None;
    }
    let differing = identity.libraries.iter().find(|own| !double.libraries.contains(own));
    let about = differing.map_or("something", |own| own.rsplit_once(' ').map_or(own.as_str(), |(name, _)| name));
    let other = double.libraries.iter().find(|other| other.starts_with(about));
    Some(match (about, differing, other) {
        ("library", ..) => format!("its library for {} is another one than this machine's", identity.target),
        (_, Some(own), Some(other)) => format!("it has {other}, this machine's compiler has {own}"),
        _ => format!("it is another build than this machine's: {about} differs"),
    })
}

#[cfg(test)]
mod tests {
    use buildbee_proto::toolchain::Toolchain;

    use super::*;

    const TOLD: &str = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\ncommit-hash: 59807616e1fa\ncommit-date: 2026-04-14\n\
                        host: aarch64-unknown-linux-gnu\nrelease: 1.95.0\nLLVM version: 22.1.2\n";

    #[test]
    fn all_but_the_host_counts() {
        let other = TOLD.replace("aarch64", "x86_64");
        assert_eq!(fields(TOLD), fields(&other));
        assert_eq!(version(TOLD).unwrap(), "1.95.0 (59807616e 2026-04-14)");
        for (from, to) in [("59807616e1fa", "unknown"), ("LLVM version: 22.1.2\n", ""), ("rustc 1", "clippy 1")] {
            let told = TOLD.replace(from, to);
            assert!(fields(&told).is_err() || version(&told).is_err(), "{told}");
        }
        assert_ne!(fields(TOLD), fields(&TOLD.replace("59807616e1fa", "0000")));
    }

    #[test]
    fn a_library_is_its_files() {
        let folder = Path::new("/s/lib/rustlib/t/lib");
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        let (std, core) = (folder.join("libstd.rlib"), folder.join("libcore.rlib"));
        let elsewhere = Path::new("/s/lib/rustlib/u/lib/libstd.rlib");
        let of = |files: &[(&Path, &Digest)]| library(folder, files.iter().copied());
        let all = of(&[(&std, &one), (&core, &two)]).unwrap();
        assert_eq!(of(&[(&core, &two), (elsewhere, &two), (&std, &one)]).unwrap(), all);
        assert_ne!(of(&[(&std, &two), (&core, &one)]).unwrap(), all);
        assert!(of(&[(elsewhere, &one)]).is_err());
    }

    fn own() -> Identity {
        Identity {
            family: FAMILY,
            driver: FAMILY,
            version: "1.95.0".to_owned(),
            target: "t".to_owned(),
            libraries: vec!["commit-hash a".to_owned(), "LLVM version 22".to_owned(), "library d".to_owned()],
        }
    }

    fn double(libraries: [&str; 3]) -> Double {
        Double {
            toolchain: Toolchain { root: Digest::of(b""), host: "linux-x86_64".to_owned(), label: String::new() },
            program: "/r/bin/rustc".to_owned(),
            search: String::new(),
            family: FAMILY.to_owned(),
            driver: FAMILY.to_owned(),
            version: "1.95.0".to_owned(),
            target: "t".to_owned(),
            libraries: libraries.map(str::to_owned).to_vec(),
        }
    }

    #[test]
    fn macros_are_built_by_the_same_compiler_on_the_same_host() {
        let (identity, pair) = (own(), double(["commit-hash a", "LLVM version 22", "library d"]));
        let linking = Double {
            driver: LINKING.to_owned(),
            target: "x".to_owned(),
            ..double(["commit-hash a", "LLVM version 22", "library x"])
        };
        assert!(links_for(&identity, &pair, &linking) && !identity.suits(&linking));
        let elsewhere = Toolchain { host: "linux-riscv64".to_owned(), ..linking.toolchain.clone() };
        for other in [
            Double { driver: FAMILY.to_owned(), ..linking.clone() },
            Double { version: "1.95.1".to_owned(), ..linking.clone() },
            Double {
                libraries: double(["commit-hash b", "LLVM version 22", "library x"]).libraries,
                ..linking.clone()
            },
            Double {
                libraries: double(["commit-hash a", "LLVM version 21", "library x"]).libraries,
                ..linking.clone()
            },
            Double { toolchain: elsewhere, ..linking.clone() },
        ] {
            assert!(!links_for(&identity, &pair, &other), "{other:?}");
        }
        let unlike = double(["commit-hash b", "LLVM version 22", "library d"]);
        assert!(!links_for(&identity, &unlike, &linking));
    }

    #[test]
    fn another_build_is_told_by_what_differs() {
        let identity = own();
        assert_eq!(difference(&identity, &double(["commit-hash a", "LLVM version 22", "library d"])), None);
        for (libraries, word) in [
            (["commit-hash b", "LLVM version 22", "library d"], "commit-hash b"),
            (["commit-hash a", "LLVM version 21", "library d"], "LLVM version 21"),
            (["commit-hash a", "LLVM version 22", "library e"], "library for t"),
        ] {
            let text = difference(&identity, &double(libraries)).unwrap();
            assert!(text.contains(word), "{text}");
        }
    }
}
