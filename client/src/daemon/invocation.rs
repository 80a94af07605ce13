//! What the wrapper sent, checked: texts instead of bytes, and the few variables that are the daemon's own business.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

use buildbee_proto::local::{Invocation, MAX_RUN_BYTES, RUN_VARIABLE};

use crate::compiler::detect;
use crate::compiler::request::DriverLanguage;
use crate::journal::{Record, Why};
use crate::rust::roots::PathSetting;
use crate::rust::script::behind;
use crate::toolchain::capture::CaptureError;
use crate::wrapper::links;
use crate::wrapper::rust_paths::PATHS_VARIABLE;

/// A compiler command that can be thought about.
#[derive(Debug)]
pub struct Checked {
    /// The compiler, as found in `PATH`.
    pub program: PathBuf,
    /// Arguments without the program's name.
    pub argv: Vec<String>,
    /// The environment; variables that are not UTF-8 and can't matter to a compiler are left out.
    pub env: Vec<(String, String)>,
    /// Names of variables that are not UTF-8.
    pub odd: Vec<String>,
    /// Absolute and physical.
    pub cwd: PathBuf,
    /// File mode creation mask.
    pub umask: u32,
    /// Whether standard error is a terminal.
    pub stderr_is_terminal: bool,
    /// Width of the terminal on standard input, where there is one.
    pub columns: Option<u32>,
    /// `BUILDBEE=strict`.
    pub strict: bool,
    /// Which `buildbee run` it belongs to.
    pub run: Option<Arc<str>>,
    search: OsString,
}

impl Checked {
    /// Checks `invocation`; what can't be checked runs locally, and why.
    pub fn new(invocation: &Invocation) -> Result<Self, (Box<Record>, Why)> {
        Self::check(invocation).map_err(|text| (Box::new(Record::of("", "", "")), ("not-utf8".to_owned(), text)))
    }

    fn check(invocation: &Invocation) -> Result<Self, String> {
        let text = |bytes: &[u8], what: &str| match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(format!("{what} {:?} is not UTF-8", String::from_utf8_lossy(bytes))),
        };
        let arguments = invocation.argv.iter().skip(1);
        let argv = arguments.map(|argument| text(&argument.0, "argument")).collect::<Result<Vec<_>, _>>()?;
        let mut env = Vec::with_capacity(invocation.env.len());
        let mut odd = Vec::new();
        for variable in &invocation.env {
            match text(&variable.0, "variable") {
                Ok(variable) => env.extend(variable.split_once('=').map(|(name, value)| (name.into(), value.into()))),
                Err(error) if may_matter(&variable.0) => return Err(error),
                Err(_) => odd.push(name_of(&variable.0).into_owned()),
            }
        }
        let value = |wanted: &str| {
            env.iter().find(|(name, _)| name == wanted).map(|(_, value): &(String, String)| value.clone())
        };
        let search = value("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".to_owned()).into();
        let strict = value("BUILDBEE").as_deref() == Some("strict");
        Ok(Self {
            program: PathBuf::from(OsString::from_vec(invocation.program.0.clone())),
            argv,
            cwd: PathBuf::from(text(&invocation.cwd.0, "working directory")?),
            umask: invocation.umask & 0o777,
            stderr_is_terminal: invocation.stderr_is_terminal,
            columns: invocation.columns.map(u32::from),
            strict,
            run: value(RUN_VARIABLE).filter(|run| run.len() <= MAX_RUN_BYTES).map(Arc::from),
            search,
            env,
            odd,
        })
    }

    /// `PATH`.
    pub fn search(&self) -> &OsStr {
        &self.search
    }

    /// Whether its outputs are to hold names for folders; `setting` is what else would count.
    pub fn paths(&self, setting: PathSetting) -> PathSetting {
        let word = self.env.iter().find(|(name, _)| name == PATHS_VARIABLE);
        word.and_then(|(_, word)| PathSetting::from_word(word)).unwrap_or(setting)
    }

    /// Which driver the program is by its name; `None` for what is no compiler's name, and for a compiler at a relative path: gcc and
    /// clang write that path into what they make, where they name files beside themselves.
    pub fn named(&self) -> Option<DriverLanguage> {
        if self.program.is_relative() {
            return None;
        }
        let name = self.program.file_name()?.to_str()?;
        detect::from_program_name(name).map(|named| named.driver)
    }

    /// Whether the program is rustc or clippy by its name.
    pub fn compiles_crates(&self) -> bool {
        let name = self.program.file_name().and_then(OsStr::to_str);
        self.program.is_absolute() && name.is_some_and(|name| matches!(name, "rustc" | "clippy-driver"))
    }

    /// Whether the program is that of a build script, which the wrapper stands in for.
    pub fn runs_script(&self) -> bool {
        self.program.is_absolute() && behind(&self.program).is_some()
    }

    /// Why a program that is [`named`](Self::named) like no compiler runs locally.
    pub fn no_compiler(&self) -> Why {
        if self.program.file_name().and_then(links::named).is_some() {
            let error = CaptureError::Wrapper(self.program.clone());
            return ("another-wrapper".to_owned(), error.to_string());
        }
        let shown = self.program.display();
        if self.program.is_relative() {
            let text = format!("{shown} is a relative path, which the compiler writes into what it makes");
            return ("relative-compiler".to_owned(), text);
        }
        ("unknown-compiler".to_owned(), format!("{shown} is not the name of a compiler that is known here"))
    }

    /// For the journal, before anything else is known.
    pub fn record(&self) -> Record {
        let source = self.argv.iter().rev().find(|argument| !argument.starts_with('-'));
        let cwd = self.cwd.to_string_lossy().into_owned();
        let run = self.run.clone();
        Record { cwd, run, ..Record::of(source.map_or("", String::as_str), "", &self.program.to_string_lossy()) }
    }
}

fn name_of(variable: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(variable.split(|&byte| byte == b'=').next().unwrap_or_default())
}

/// Whether a variable's name is like those that compilers look at.
fn may_matter(variable: &[u8]) -> bool {
    let name = name_of(variable);
    name.contains("PATH") || ["GCC", "CLANG", "CCC", "LC_", "LANG", "PWD"].iter().any(|prefix| name.starts_with(prefix))
}
