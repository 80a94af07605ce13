//! What compilers do differently when stderr is a terminal, and what a run elsewhere needs to print the same bytes.
//!
//! clang 14: colour by `TERM`, wrapping by `COLUMNS` only, and arguments for both that leave no trace: they are added. gcc 12: colour by
//! `TERM` and `GCC_COLORS`; links by `TERM`, `COLORTERM`, `GCC_URLS`; source lines trimmed to `COLUMNS` or to the width of the terminal on
//! standard input. `-fdiagnostics-urls=` ends up in debug information (seen with `-g`), and no argument asks for the trimming. So gcc gets no
//! argument: a run without a terminal counts if nothing was printed, and else a run with a terminal and these variables.

use super::arg_table::When;
use super::environment::get;
use super::request::{CompilerFamily, Invocation, StderrRule};

/// What the user's arguments say about diagnostics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Diagnostics {
    /// Last word on colour.
    pub(super) color: Option<When>,
    /// Last word on links.
    pub(super) urls: Option<When>,
    /// `-fmessage-length=` as given.
    pub(super) message_length: Option<u32>,
    /// The object holds the command line.
    pub(super) records_command: bool,
}

/// Arguments to add, and what then holds for stderr.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Explicit {
    pub(super) added: Vec<String>,
    pub(super) rule: StderrRule,
    /// Whether diagnostics are coloured.
    pub(super) colored: bool,
    /// Whether diagnostics carry links.
    pub(super) linked: bool,
    /// Variables for a run on a terminal, where the rule asks for one.
    pub(super) terminal: Option<Vec<(String, String)>>,
}

/// Whether the terminal takes colour.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Capable {
    Yes,
    No,
    /// Only the terminal's database knows.
    Unclear,
}

/// Makes the terminal's part in the result explicit.
pub(super) fn explicit(invocation: &Invocation<'_>, diagnostics: Diagnostics) -> Explicit {
    let asked = |when: Option<When>| when == Some(When::Always);
    let mut result = Explicit {
        added: Vec::new(),
        rule: StderrRule::Exact,
        colored: asked(diagnostics.color),
        linked: asked(diagnostics.urls),
        terminal: None,
    };
    if !invocation.stderr_is_terminal {
        return result;
    }
    match invocation.family {
        CompilerFamily::Gcc => gcc(invocation, diagnostics, &mut result),
        CompilerFamily::Clang => clang(invocation, diagnostics, &mut result),
    }
    if diagnostics.records_command && !result.added.is_empty() {
        result.added.clear();
        result.rule = StderrRule::OnlyIfEmpty;
    }
    result
}

fn is_auto(when: Option<When>) -> bool {
    matches!(when, None | Some(When::Auto))
}

/// Variables that gcc looks at where stderr is a terminal, besides `COLUMNS`.
const GCC_ON_TERMINALS: [&str; 5] = ["COLORTERM", "GCC_COLORS", "GCC_URLS", "TERM", "TERM_URLS"];

fn gcc(invocation: &Invocation<'_>, diagnostics: Diagnostics, result: &mut Explicit) {
    let trims = diagnostics.message_length.unwrap_or(0) == 0;
    if !trims && !is_auto(diagnostics.color) && !is_auto(diagnostics.urls) {
        return;
    }
    let env = invocation.env;
    let set = |name: &&str| get(env, name).map(|value| ((*name).to_owned(), value.to_owned()));
    let mut variables: Vec<_> = GCC_ON_TERMINALS.iter().filter_map(set).collect();
    let width = columns_variable(env).or(invocation.columns.filter(|columns| *columns > 0));
    variables.extend(width.filter(|_| trims).map(|columns| ("COLUMNS".to_owned(), columns.to_string())));
    result.rule = StderrRule::OnlyIfEmpty;
    result.terminal = Some(variables);
}

fn clang(invocation: &Invocation<'_>, diagnostics: Diagnostics, result: &mut Explicit) {
    let env = invocation.env;
    if is_auto(diagnostics.color) {
        match clang_colors(get(env, "TERM").unwrap_or_default()) {
            Capable::Yes => {
                result.added.push("-fcolor-diagnostics".to_owned());
                result.colored = true;
            }
            Capable::No => {}
            Capable::Unclear => result.rule = StderrRule::OnlyIfEmpty,
        }
    }
    if diagnostics.message_length.is_none()
        && let Some(columns) = columns_variable(env)
    {
        result.added.push(format!("-fmessage-length={columns}"));
    }
}

fn clang_colors(term: &str) -> Capable {
    let known = ["xterm", "screen", "tmux", "rxvt"].iter().any(|prefix| term.starts_with(prefix));
    match term {
        "" | "dumb" => Capable::No,
        "linux" => Capable::Yes,
        "xterm-mono" => Capable::Unclear,
        _ if known || term.ends_with("color") => Capable::Yes,
        _ => Capable::Unclear,
    }
}

/// `COLUMNS` as `atoi` reads it, if it is a width.
fn columns_variable(env: &[(String, String)]) -> Option<u32> {
    let text = get(env, "COLUMNS")?.trim_start();
    let text = text.strip_prefix('+').unwrap_or(text);
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    text[..digits].parse().ok().filter(|columns| *columns > 0)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::request::DriverLanguage;
    use super::*;

    fn run(family: CompilerFamily, env: &[(&str, &str)], columns: Option<u32>, diagnostics: Diagnostics) -> Explicit {
        let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let invocation = Invocation {
            family,
            driver: DriverLanguage::C,
            argv: &[],
            env: &env,
            cwd: Path::new("/"),
            stderr_is_terminal: true,
            columns,
            locale: None,
            variables: &[],
        };
        explicit(&invocation, diagnostics)
    }

    #[test]
    fn gcc_on_terminals() {
        let plain = Diagnostics::default();
        let variables = |env, columns| {
            let found = run(CompilerFamily::Gcc, env, columns, plain);
            assert_eq!((found.added.len(), found.rule), (0, StderrRule::OnlyIfEmpty));
            let named = found.terminal.unwrap().into_iter().map(|(name, value)| format!("{name}={value}"));
            named.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(variables(&[("TERM", "xterm"), ("HOME", "/")], Some(80)), "TERM=xterm COLUMNS=80");
        assert_eq!(variables(&[("TERM", "xterm"), ("COLUMNS", "120x")], Some(80)), "TERM=xterm COLUMNS=120");
        assert_eq!(
            variables(&[("COLORTERM", "truecolor"), ("GCC_URLS", "no")], Some(0)),
            "COLORTERM=truecolor GCC_URLS=no"
        );
        assert_eq!(variables(&[], None), "");
        let fixed =
            Diagnostics { color: Some(When::Never), urls: Some(When::Never), message_length: Some(70), ..plain };
        let found = run(CompilerFamily::Gcc, &[("TERM", "xterm-256color")], Some(80), fixed);
        assert_eq!((found.rule, found.terminal), (StderrRule::Exact, None));
    }

    #[test]
    fn clang_on_terminals() {
        let plain = Diagnostics::default();
        let simple = run(CompilerFamily::Clang, &[("TERM", "xterm-256color"), ("COLUMNS", "60")], Some(100), plain);
        assert_eq!(simple.added, ["-fcolor-diagnostics", "-fmessage-length=60"]);
        assert_eq!(simple.rule, StderrRule::Exact);
        assert_eq!(run(CompilerFamily::Clang, &[], Some(100), plain).added.len(), 0);
        assert_eq!(run(CompilerFamily::Clang, &[("TERM", "wy60")], None, plain).rule, StderrRule::OnlyIfEmpty);
        let fixed = Diagnostics { color: Some(When::Always), message_length: Some(0), ..plain };
        let fixed = run(CompilerFamily::Clang, &[("TERM", "wy60"), ("COLUMNS", "60")], None, fixed);
        assert_eq!((fixed.added.len(), fixed.rule, fixed.colored), (0, StderrRule::Exact, true));
    }
}
