//! Options that the likeness of two compilers says nothing of: they look at more than was compared, or write down how the compiler was
//! called. Compiles with them run here. Pure.

use crate::compiler::request::{CompileRequest, CompilerFamily, SearchKind};

/// Beginnings of options of both families.
const BOTH: [&str; 24] = [
    // Other folders than those that were compared.
    "--sysroot",
    "-isysroot",
    "-nostdinc++",
    "-nostdlibinc",
    "-nobuiltininc",
    "-stdlib",
    "-mabi",
    "-m32",
    "-m64",
    "-mx32",
    "-milp32",
    // Written down with all arguments.
    "-frecord",
    "-grecord",
    "-fverbose-asm",
    // Depends on what both were configured to offload to.
    "-fopenmp",
    "-fopenacc",
    // Listings name temporary files and arguments.
    "-Wa,-a",
    // gcc draws the number that joins both halves from addresses in its memory: no two runs of one gcc make the same.
    "-gsplit-dwarf",
    // No probe counts what runs.
    "--coverage",
    "-coverage",
    "-ftest-coverage",
    "-fprofile",
    "-fauto-profile",
    "-fbranch-probabilities",
];
/// Of clang's.
const CLANG: [&str; 7] = [
    "--target",
    "-target",
    // Reads lists of the compiler's own.
    "-fsanitize",
    "-fxray",
    "-fcs-profile",
    // Ask what is installed.
    "-rtlib",
    "--rtlib",
];
/// Compress parts of an object with libraries of the system's.
const COMPRESSING: [&str; 4] = ["-flto", "-gz", "-Wa,--compress", "--compress-debug-sections"];

/// The argument or variable of `request` that stands in the way, if one does. `same_libraries` says whether both compilers compress with the
/// same versions of the same libraries.
pub fn objection(request: &CompileRequest, family: CompilerFamily, same_libraries: bool) -> Option<String> {
    let by_environment = |kind| matches!(kind, SearchKind::EnvAll | SearchKind::EnvLanguage);
    if let Some(folder) = request.search_directories.iter().find(|folder| by_environment(folder.kind)) {
        return Some(format!("{} (by a variable)", folder.path.display()));
    }
    let begins = |argument: &str, with: &[&str]| with.iter().any(|option| argument.starts_with(option));
    // clang's own bit-code is not compressed.
    let compresses = |argument: &str| begins(argument, &COMPRESSING[usize::from(family == CompilerFamily::Clang)..]);
    let stands_in_the_way = |argument: &&String| {
        begins(argument, &BOTH)
            || (family == CompilerFamily::Clang && begins(argument, &CLANG))
            || (!same_libraries && compresses(argument))
    };
    let varies =
        || (!request.reproducible).then(|| "options that make another object at each run (-frandom-seed=)".to_owned());
    request.argv.iter().find(stands_in_the_way).cloned().or_else(varies)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::compiler::decide::decide;
    use crate::compiler::request::{Decision, DriverLanguage, Invocation};

    fn objection_to(line: &str, family: CompilerFamily, env: &[(&str, &str)], same: bool) -> Option<String> {
        let argv: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let env: Vec<(String, String)> = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let invocation = Invocation {
            family,
            driver: DriverLanguage::C,
            argv: &argv,
            env: &env,
            cwd: Path::new("/w"),
            stderr_is_terminal: false,
            columns: None,
            locale: None,
            variables: &[],
        };
        match decide(&invocation, &|_| Err(std::io::ErrorKind::NotFound.into())) {
            Decision::Distribute(request) => objection(&request, family, same),
            Decision::Local(reason) => panic!("{line}: {reason}"),
        }
    }

    #[test]
    fn what_was_not_compared_stays_here() {
        use CompilerFamily::{Clang, Gcc};
        for (line, family) in [
            ("-c -O2 -g -Iinc -isystem sys -std=gnu11 -fPIC -fstack-protector-strong -mcpu=cortex-a72 x.c", Gcc),
            ("-c -nostdinc -isystem own x.c", Gcc),
            ("-c -O2 -g -flto x.c", Clang),
            ("-c x.s", Gcc),
        ] {
            assert_eq!(objection_to(line, family, &[], false), None, "{line}");
        }
        for (line, family) in [
            ("-c --sysroot=/other x.c", Gcc),
            ("-c -fopenmp x.c", Gcc),
            ("-c -frecord-gcc-switches x.c", Gcc),
            ("-c --target=arm-linux-gnueabihf x.c", Clang),
            ("-c -fsanitize=address x.c", Clang),
            ("-c -flto x.c", Gcc),
            ("-c -gz x.c", Clang),
            ("-c -g -gsplit-dwarf x.c", Gcc),
            ("-c --coverage -frandom-seed=1 x.c", Gcc),
            ("-c -fprofile-generate x.c", Clang),
        ] {
            assert!(objection_to(line, family, &[], false).is_some(), "{line}");
        }
        assert_eq!(objection_to("-c -flto -frandom-seed=1 -gz x.c", Gcc, &[], true), None);
        assert!(objection_to("-c -flto x.c", Gcc, &[], true).is_some());
        assert!(objection_to("-c x.c", Gcc, &[("CPATH", "/inc")], true).is_some());
    }
}
