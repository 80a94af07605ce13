//! What a person can do about a compile that ran locally, by the reason's stable code.

/// What to do, as a clause; `None` where the reason says it or nothing can be done.
pub fn for_reason(code: &str) -> Option<&'static str> {
    Some(match code.strip_prefix("strict:").unwrap_or(code) {
        "link" | "not-a-compile" | "preprocess-only" => {
            "nothing: such commands always run here, and only compiles (`-c`) are cached"
        }
        "no-farm" => "nothing for the cache; `buildbee join TICKET` lets others compile",
        "unknown-option" | "missing-value" => "leave the option out if it is not needed",
        "march-native" => {
            "name the processor (`-march=x86-64-v3`, say) where every machine of the farm may run the program"
        }
        "lto" => "add -frandom-seed= with a text of its own for each file (its path, say)",
        "multiple-inputs" => "compile one file at a time, as every build tool can",
        "stdin-input" | "output-to-stdout" => "give the source, or the output, a file name",
        "save-temps" | "dump" | "report" | "extra-output" => {
            "leave out the option that writes the further files, if nobody reads them"
        }
        "time-macros" => "leave out __DATE__ and __TIME__, which make every build another one",
        "computed-has-include" | "computed-include" => "name the file itself, if that can be",
        "environment" => "unset the variable, if nothing needs it",
        "special-path" => "keep sources and outputs out of /dev, /proc and /sys",
        "not-utf8" => "give the file a name in UTF-8",
        "unknown-compiler" => {
            "buildbee knows gcc and clang under their usual names (gcc, g++-12, aarch64-linux-gnu-gcc, clang …)"
        }
        "relative-compiler" => {
            "name the compiler by its whole path, or by its name alone with its folder (by its whole path) in PATH"
        }
        "toolchain-late" | "inputs-late" => "nothing: it is known by now, the next compile will use it",
        "other-namespace" => "run the daemon inside the container or sandbox too, with a BUILDBEE_SOCKET of its own",
        "no-agents" | "agent-unreachable" => {
            "`buildbee status` shows which agents are known, `buildbee doctor` why none answers"
        }
        "farm-busy" => "nothing: this machine was free sooner",
        "race-won" => "nothing: both were at it and this machine was faster",
        "messages" => "build with LC_ALL=C or with warnings piped to a file, if every warning costs a local run",
        "compile-failed" => "mend the source: the compiler's own message is the true one",
        "output-unwritable" | "unusual-output" => "check that the output's folder exists and may be written to",
        "logical-directory" => "change to the folder by its physical path (`cd -P`)",
        "input-unreadable" => "check that the files exist and may be read",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_reasons_have_the_hint_of_the_reason() {
        assert_eq!(for_reason("strict:no-farm"), for_reason("no-farm"));
        assert!(for_reason("link").is_some_and(|hint| hint.starts_with("nothing")));
        assert_eq!(for_reason("a reason of a later version"), None);
    }
}
