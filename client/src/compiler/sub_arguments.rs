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

/// Whether all of `-Wa,{list}` is harmless.
pub(super) fn assembler_is_harmless(list: &str) -> bool {
    list.split(',').all(|argument| {
        ASSEMBLER.contains(&argument)
            || ASSEMBLER_WITH_VALUE.iter().any(|name| {
                argument.strip_prefix(name).is_some_and(|value| !value.is_empty() && !value.starts_with("native"))
            })
    })
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
    fn assembler() {
        for list in ASSEMBLER {
            assert!(assembler_is_harmless(list), "{list}");
        }
        for name in ASSEMBLER_WITH_VALUE {
            assert!(assembler_is_harmless(&format!("{name}x,--noexecstack")), "{name}");
            assert!(!assembler_is_harmless(name), "{name}");
        }
        for list in ["", "-ahl=x.lst", "--noexecstack,-adhln", "-I,x", "-march=native", "--MD,x.d"] {
            assert!(!assembler_is_harmless(list), "{list}");
        }
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
