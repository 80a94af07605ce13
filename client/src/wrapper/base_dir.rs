//! `BUILDBEE_BASE_DIR`: compiles below that folder name their files relative to it, so that checkouts in different places have the same
//! debug information and `__FILE__`, and share results.
//!
//! The wrapper adds the argument itself, before anything else looks at the command: what an agent, the daemon or nobody but this process
//! makes of it is then the same. It stands first, so that what the user says of prefixes has the last word.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::program::Compiler;

/// Last words of compilers' names, what is left of them without a target before and a version behind.
const COMPILERS: [&[u8]; 8] = [b"c++", b"c89", b"c99", b"cc", b"clang", b"clang++", b"g++", b"gcc"];

/// Adds the argument where the command compiles, and runs below `base`.
pub fn add_prefix_map(compiler: &mut Compiler, base: &Path, cwd: &Path) {
    let compiles = compiler.argv.iter().any(|argument| argument == "-c" || argument == "-S");
    if compiles
        && is_compiler(compiler.program.file_name().unwrap_or_default())
        && let Some(argument) = prefix_map(base, cwd)
    {
        compiler.argv.insert(1, argument);
    }
}

/// The argument, for a command in `cwd`; none for a base that it is not below, or that no prefix map can hold.
pub fn prefix_map(base: &Path, cwd: &Path) -> Option<OsString> {
    // As spelled, but for a slash at the end: compilers compare letters.
    let spelled = base.as_os_str().as_bytes();
    let spelled = spelled.strip_suffix(b"/").unwrap_or(spelled);
    if !base.is_absolute() || spelled.is_empty() || spelled.contains(&b'=') || !cwd.starts_with(base) {
        return None;
    }
    let mut argument = OsString::from("-ffile-prefix-map=");
    argument.push(OsStr::from_bytes(spelled));
    argument.push("=.");
    Some(argument)
}

/// Whether a program is a compiler of C or C++ by its name.
pub fn is_compiler(name: &OsStr) -> bool {
    let is_version = |part: &&[u8]| part.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
    name.as_bytes()
        .rsplit(|byte| *byte == b'-')
        .find(|part| !is_version(part))
        .is_some_and(|part| COMPILERS.contains(&part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_base(program: &str, arguments: &[&str], base: &str) -> Vec<String> {
        let argv = [program].iter().chain(arguments).map(OsString::from).collect();
        let mut compiler = Compiler { program: program.into(), argv };
        add_prefix_map(&mut compiler, Path::new(base), Path::new("/home/a/p/build"));
        compiler.argv.iter().map(|argument| argument.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn compiles_below_the_base_get_the_argument_first() {
        for program in ["gcc", "/usr/bin/g++-12", "aarch64-linux-gnu-gcc", "clang++-14.0", "cc"] {
            for base in ["/home/a/p", "/home/a/p/", "/home/a/p/build"] {
                let expected = format!("-ffile-prefix-map={}=.", base.trim_end_matches('/'));
                assert_eq!(with_base(program, &["-g", "-c", "x.c"], base), [program, &expected, "-g", "-c", "x.c"]);
            }
        }
    }

    #[test]
    fn other_commands_stay_as_they_are() {
        for (program, arguments, base) in [
            ("gcc", &["x.o", "-o", "x"][..], "/home/a"),
            ("gcc", &["-E", "x.c"], "/home/a"),
            ("nvcc", &["-c", "x.cu"], "/home/a"),
            ("rustc", &["-c"], "/home/a"),
            ("gcc", &["-c", "x.c"], "/home/b"),
            ("gcc", &["-c", "x.c"], "home/a"),
            ("gcc", &["-c", "x.c"], "/"),
        ] {
            let added = with_base(program, arguments, base);
            assert_eq!(added.len(), arguments.len() + 1, "{program} {arguments:?} {base}");
        }
        assert_eq!(prefix_map(Path::new("/a=b"), Path::new("/a=b/c")), None);
    }
}
