//! `-march=native`, `-mtune=native` and ARM's `-mcpu=native`: what they stand for on this machine, so that the farm makes what this processor would and the results
//! of two processors never mix.
//!
//! Seen with gcc 12 and clang 14: the options that the driver hands on leave the same object when they are given instead, at the front where the
//! driver puts them. Where the object tells how the compiler was called, the order of gcc's options shows; such a compile runs here, and is
//! kept for this processor.

use super::reason::{Reason, ReasonKind};
use super::request::CompilerFamily;
use super::response_file::split;

/// What options of the kinds in `is_processor` come to on this machine, in the driver's words. `None`: nobody knows.
pub type ReadNative<'a> = dyn Fn(&[String]) -> Option<Vec<String>> + 'a;

/// Options that change what the compiler makes of `native`, or for what.
const OTHER_MACHINES: [&str; 6] = ["-m16", "-m32", "-mx32", "--target", "-target", "-arch"];
/// Names a processor for ARM. On x86 it is an old word for another option, and gcc complains of it.
const CPU: &str = "-mcpu=";
/// Options that make gcc write down how it was called.
const GCC_WRITES_DOWN: [&str; 5] = ["-g", "-flto", "-frecord-gcc-switches", "-fverbose-asm", "-fdump"];
/// The same for clang.
const CLANG_WRITES_DOWN: [&str; 3] = ["-frecord", "-grecord", "-m"];

/// Arguments that ask no machine any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expanded {
    pub(super) argv: Vec<String>,
    /// Why a run with these would leave other bytes than one with the user's.
    pub(super) here_only: Option<Reason>,
}

/// Replaces options that ask the machine.
pub(super) fn expand(argv: &[String], family: CompilerFamily, read: &ReadNative<'_>) -> Result<Expanded, Reason> {
    let (options, rest): (Vec<String>, Vec<String>) = argv.iter().cloned().partition(|argument| is_processor(argument));
    // Another option, or with extensions: `-mcpu=native+crc`.
    let native = options.iter().find(|option| option.ends_with("=native")).ok_or(ReasonKind::MarchNative)?;
    let about = || Reason::about(ReasonKind::MarchNative, native.clone());
    let twice = |kind| options.iter().filter(|option| option.starts_with(kind)).count() > 1;
    let elsewhere = |argument: &String| OTHER_MACHINES.iter().any(|option| argument.starts_with(option));
    if twice("-march=") || twice("-mtune=") || twice(CPU) || rest.iter().any(elsewhere) {
        return Err(about());
    }
    let names = |words: &[String]| words.iter().any(|word| word.starts_with(CPU));
    let told = read(&options).filter(|told| !told.is_empty() && (!names(&options) || names(told))).ok_or_else(about)?;
    let writes_down = match family {
        CompilerFamily::Gcc => &GCC_WRITES_DOWN[..],
        CompilerFamily::Clang => &CLANG_WRITES_DOWN[..],
    };
    let written = |argument: &&String| {
        argument.as_str() != "-g0" && writes_down.iter().any(|option| argument.starts_with(option))
    };
    let here_only = rest.iter().find(written).map(|_| about());
    let kept = here_only.as_ref().map_or(Vec::new(), |_| options);
    Ok(Expanded { argv: told.into_iter().chain(kept).chain(rest).collect(), here_only })
}

fn is_processor(argument: &str) -> bool {
    ["-march=", "-mtune=", CPU].iter().any(|option| argument.starts_with(option))
}

/// What a driver says (`-###`) that it would do with `options`, less what it would do without them.
///
/// Names of processors stay together: clang that does not know this one falls back to its default's name, but then tunes for none, and
/// only an option that names the processor brings that about.
pub fn meaning(with: &str, without: &str, family: CompilerFamily, options: &[String]) -> Option<Vec<String>> {
    let processor = if options.iter().any(|option| option.starts_with(CPU)) { CPU } else { "-march=" };
    let (with, without) = (machine_options(with, family, processor)?, machine_options(without, family, processor)?);
    let names = |options: &[Vec<String>]| options.iter().filter(|option| names_processor(option)).cloned().collect();
    let (named, usual): (Vec<_>, Vec<_>) = (names(&with), names(&without));
    let says_more = |option: &Vec<String>| {
        !without.contains(option) || family == CompilerFamily::Clang && names_processor(option) && named != usual
    };
    Some(with.into_iter().filter(says_more).flatten().collect())
}

fn names_processor(option: &[String]) -> bool {
    option.first().is_some_and(|word| is_processor(word))
}

/// The options about the processor that the driver would hand on, in words that it takes itself.
fn machine_options(text: &str, family: CompilerFamily, processor: &str) -> Option<Vec<Vec<String>>> {
    let is_compiler = |line: &&str| line.split_whitespace().take(2).any(|word| word.contains("cc1"));
    let words = split(text.lines().find(is_compiler)?.trim())?;
    let mut found = Vec::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        match (family, word.as_str()) {
            (CompilerFamily::Gcc, "--param") => found.push(vec![format!("--param={}", rest.next()?)]),
            (CompilerFamily::Gcc, _) if word.starts_with("-m") => found.push(vec![word.clone()]),
            (CompilerFamily::Clang, "-target-cpu") => found.push(vec![format!("{processor}{}", rest.next()?)]),
            (CompilerFamily::Clang, "-tune-cpu") => found.push(vec![format!("-mtune={}", rest.next()?)]),
            (CompilerFamily::Clang, "-target-feature") => {
                found.push(["-Xclang", word, "-Xclang", rest.next()?].map(str::to_owned).to_vec());
            }
            _ => {}
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn expanded(line: &str, family: CompilerFamily) -> Result<Expanded, &'static str> {
        let read = |options: &[String]| {
            assert!(options.iter().all(|option| is_processor(option)));
            Some(words("-march=z -mavx"))
        };
        expand(&words(line), family, &read).map_err(|reason| reason.code())
    }

    #[test]
    fn options_are_replaced_at_the_front() {
        let found = expanded("-c -O2 -march=native -mno-sse x.c", CompilerFamily::Gcc).unwrap();
        assert_eq!((found.argv, found.here_only), (words("-march=z -mavx -c -O2 -mno-sse x.c"), None));
    }

    #[test]
    fn what_is_written_down_stays_here_and_keeps_its_spelling() {
        for (line, family) in [
            ("-c -g -march=native x.c", CompilerFamily::Gcc),
            ("-c -flto -mtune=native x.c", CompilerFamily::Gcc),
            ("-c -mno-sse -march=native x.c", CompilerFamily::Clang),
        ] {
            let found = expanded(line, family).unwrap();
            assert!(found.here_only.is_some(), "{line}");
            assert!(found.argv.iter().any(|argument| argument.ends_with("=native")), "{line}");
        }
        let plain = expanded("-c -g -march=native x.c", CompilerFamily::Clang).unwrap();
        assert_eq!(plain.here_only, None);
    }

    #[test]
    fn other_machines_and_contradictions_are_refused() {
        for line in ["-march=native -m32", "-march=native -march=x86-64", "-mtune=native --target=arm", "-mcpu=native"]
        {
            assert_eq!(expanded(line, CompilerFamily::Clang), Err("march-native"), "{line}");
        }
        assert!(expand(&words("-march=native"), CompilerFamily::Gcc, &|_| None).is_err());
    }

    #[test]
    fn processors_of_boards_are_named_as_their_compilers_do() {
        let read = |_: &[String]| Some(words("-mcpu=cortex-a72+crc"));
        let found = expand(&words("-c -O2 -mcpu=native x.c"), CompilerFamily::Gcc, &read).unwrap();
        assert_eq!((found.argv, found.here_only), (words("-mcpu=cortex-a72+crc -c -O2 x.c"), None));
        let clang = |cpu: &str| format!(" \"/usr/bin/clang\" \"-cc1\" \"-target-cpu\" \"{cpu}\" \"-x\" \"c\"\n");
        let asked = ["-mcpu=native".to_owned()];
        let told = meaning(&clang("cortex-a72"), &clang("generic"), CompilerFamily::Clang, &asked);
        assert_eq!(told, Some(words("-mcpu=cortex-a72")));
    }

    #[test]
    fn drivers_are_understood() {
        let gcc = |options: &str| {
            format!("Target: x\n /usr/lib/gcc/x/12/cc1 -quiet /dev/null {options} -quiet -dumpbase null\n as -x\n")
        };
        let told = meaning(
            &gcc("\"-march=z\" -mavx --param \"l1-cache-size=32\""),
            &gcc("-mtune=generic"),
            CompilerFamily::Gcc,
            &[],
        );
        assert_eq!(told, Some(words("-march=z -mavx --param=l1-cache-size=32")));
        let clang = |options: &str| format!(" \"/usr/bin/clang\" \"-cc1\" {options} \"-x\" \"c\"\n");
        let told = meaning(
            &clang("\"-target-cpu\" \"z\" \"-target-feature\" \"+avx\""),
            &clang("\"-target-cpu\" \"x86-64\" \"-tune-cpu\" \"generic\""),
            CompilerFamily::Clang,
            &[],
        );
        assert_eq!(told, Some(words("-march=z -Xclang -target-feature -Xclang +avx")));
        let told = meaning(
            &clang("\"-target-cpu\" \"x86-64\" \"-target-feature\" \"+avx\""),
            &clang("\"-target-cpu\" \"x86-64\" \"-tune-cpu\" \"generic\""),
            CompilerFamily::Clang,
            &[],
        );
        assert_eq!(told, Some(words("-march=x86-64 -Xclang -target-feature -Xclang +avx")), "an unknown processor");
        assert_eq!(meaning("error", "error", CompilerFamily::Gcc, &[]), None);
    }
}
