//! What stands behind `-Wa,` and `-Wp,`: arguments for the assembler and the preprocessor. Only what is known to be harmless, or is a
//! dependency file, gets through.

use super::request::{CompilerFamily, DepKind};

/// Assembler arguments that name no file.
const ASSEMBLER: [&str; 16] = [
    "--32",
    "--64",
    "--x32",
    "--compress-debug-sections",
    "--execstack",
    "--fatal-warnings",
    "--keep-locals",
    "--no-warn",
    "--nocompress-debug-sections",
    "--noexecstack",
    "--warn",
    "-L",
    "-W",
    "-mbranches-within-32B-boundaries",
    "-mno-warn-deprecated",
    "-mthumb",
];

/// The same with a value behind.
const ASSEMBLER_WITH_VALUE: [&str; 9] = [
    "--compress-debug-sections=",
    "--generate-missing-build-notes=",
    "-march=",
    "-mcpu=",
    "-mfloat-abi=",
    "-mfpu=",
    "-mimplicit-it=",
    "-mrelax-relocations=",
    "-mx86-used-note=",
];

/// Arguments of clang's compiler proper that name no file and print nothing.
const FRONTEND: [&str; 7] = [
    "-disable-O0-optnone",
    "-disable-llvm-passes",
    "-disable-llvm-verifier",
    "-fno-rtti-data",
    "-mrelax-all",
    "-no-opaque-pointers",
    "-opaque-pointers",
];
/// The same with a value as the next argument.
const FRONTEND_WITH_VALUE: [&str; 3] = ["-target-cpu", "-target-feature", "-tune-cpu"];

/// Reads an argument behind `-Xclang`, `is_value` where it belongs to the one before: whether a value of its own follows. `None` where it is
/// not known to be harmless.
pub(super) fn frontend(argument: &str, is_value: bool) -> Option<bool> {
    if is_value || FRONTEND.contains(&argument) {
        return Some(false);
    }
    FRONTEND_WITH_VALUE.contains(&argument).then_some(true)
}

/// What `-Wa,` says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Assembler {
    /// A listing is printed, or written to a file.
    pub(super) listing: Option<Listing>,
}

/// `-a`: a listing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listing {
    /// Where to, if not to standard output.
    pub(super) file: Option<String>,
    /// Pages have a heading, with the name of the assembler's input: a temporary file's.
    pub(super) has_heading: bool,
}

/// Reads `-Wa,{list}`. `None` where it is not all harmless.
pub(super) fn assembler(list: &str, family: CompilerFamily) -> Option<Assembler> {
    let mut found = Assembler::default();
    for argument in list.split(',') {
        // clang's own assembler has no listings.
        if let Some(asked) = argument.strip_prefix("-a").filter(|_| family == CompilerFamily::Gcc) {
            if found.listing.replace(listing(asked)?).is_some() {
                return None;
            }
        } else if !is_harmless(argument) {
            return None;
        }
    }
    Some(found)
}

fn is_harmless(argument: &str) -> bool {
    let valued = |name: &&str| {
        argument.strip_prefix(*name).is_some_and(|value| !value.is_empty() && !value.starts_with("native"))
    };
    ASSEMBLER.contains(&argument) || ASSEMBLER_WITH_VALUE.iter().any(valued)
}

/// What follows `-a`.
fn listing(asked: &str) -> Option<Listing> {
    let (letters, file) = match asked.split_once('=') {
        Some((_, "")) => return None,
        Some((letters, file)) => (letters, Some(file.to_owned())),
        None => (asked, None),
    };
    let known = letters.bytes().all(|letter| b"cdghilmns".contains(&letter));
    known.then(|| Listing { file, has_heading: !letters.contains('n') })
}

/// What `-Wp,` says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Preprocessor {
    /// `-D…` and `-U…`.
    pub(super) macros: Vec<String>,
    /// A dependency file: its kind and path.
    pub(super) depfile: Option<(DepKind, String)>,
    /// Whether it says what is in that file.
    pub(super) dep_detail: bool,
}

/// Reads `-Wp,{list}`. `None` for anything else than macros and one dependency file.
pub(super) fn preprocessor(list: &str, family: CompilerFamily) -> Option<Preprocessor> {
    let mut found = Preprocessor::default();
    let mut arguments = list.split(',');
    while let Some(argument) = arguments.next() {
        match argument {
            "-MD" | "-MMD" => {
                let kind = if argument == "-MD" { DepKind::All } else { DepKind::User };
                let path = arguments.next().filter(|path| !path.is_empty())?;
                if found.depfile.replace((kind, path.to_owned())).is_some() {
                    return None;
                }
            }
            "-MP" => found.dep_detail = true,
            "-MT" | "-MQ" => {
                arguments.next()?;
                found.dep_detail = true;
            }
            _ if argument.len() > 2 && (argument.starts_with("-D") || argument.starts_with("-U")) => {
                found.macros.push(argument.to_owned());
            }
            _ => return None,
        }
    }
    // clang turns exactly `-Wp,-MD,FILE` into its own options, and loses the file's name in any longer list (seen with 14).
    let unfit = found.depfile.is_some() && family == CompilerFamily::Clang && list.split(',').count() != 2;
    (!unfit).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assembler_lists() {
        let plain = |list: &str| assembler(list, CompilerFamily::Gcc).is_some_and(|found| found.listing.is_none());
        for list in ASSEMBLER {
            assert!(plain(list), "{list}");
        }
        for name in ASSEMBLER_WITH_VALUE {
            assert!(plain(&format!("{name}x,--noexecstack")), "{name}");
            assert!(!plain(name), "{name}");
        }
        for list in ["", "-ahl=", "-az", "-al,-ah", "-I,x", "-march=native", "--MD,x.d"] {
            assert_eq!(assembler(list, CompilerFamily::Gcc), None, "{list}");
        }
    }

    #[test]
    fn frontend_arguments() {
        assert!(FRONTEND.iter().all(|argument| frontend(argument, false) == Some(false)));
        assert!(FRONTEND_WITH_VALUE.iter().all(|argument| frontend(argument, false) == Some(true)));
        assert_eq!(frontend("+avx", true), Some(false));
        for other in ["+avx", "-load", "-ast-dump", ""] {
            assert_eq!(frontend(other, false), None, "{other}");
        }
    }

    #[test]
    fn listings() {
        let said = |list| assembler(list, CompilerFamily::Gcc).unwrap().listing.unwrap();
        let file = Some("x.lst".to_owned());
        assert_eq!(said("-ahl=x.lst"), Listing { file, has_heading: true });
        assert_eq!(said("-aln,-W"), Listing { file: None, has_heading: false });
        assert!(said("-a").has_heading);
        assert_eq!(assembler("-al", CompilerFamily::Clang), None);
    }

    #[test]
    fn preprocessor_lists() {
        let preprocessor = |list| preprocessor(list, CompilerFamily::Gcc);
        let kernel = preprocessor("-MMD,a/.x.o.d").unwrap();
        assert_eq!(kernel.depfile, Some((DepKind::User, "a/.x.o.d".into())));
        let fortify = preprocessor("-U_FORTIFY_SOURCE,-D_FORTIFY_SOURCE=2").unwrap();
        assert_eq!(fortify.macros, ["-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"]);
        assert!(preprocessor("-MD,x.d,-MT,y,-MP").unwrap().dep_detail);
        for list in ["", "-MD", "-MD,", "-MD,a,-MMD,b", "-D", "-I,x", "-include,x", "-MT"] {
            assert_eq!(preprocessor(list), None, "{list}");
        }
        let by_clang = |list| super::preprocessor(list, CompilerFamily::Clang);
        assert!(by_clang("-MD,x.d").is_some() && by_clang("-DA,-DB").is_some());
        assert_eq!(by_clang("-MD,x.d,-DA"), None);
    }
}
