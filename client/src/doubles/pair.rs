//! A compiler of this machine and its double, once they have proved alike in a language, and what the double is asked instead.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use buildbee_proto::double::Double;
use buildbee_proto::outcome::ActionResult;

use super::machine::Machine;
use super::options;
use crate::compiler::language::Language;
use crate::compiler::request::{CompileRequest, CompilerFamily};
use crate::journal::Why;
use crate::toolchain::parts::Parts;

/// Languages that are proved together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// C, preprocessed or not.
    C,
    /// C++, preprocessed or not.
    Cxx,
    /// Assembler, preprocessed or not.
    Assembler,
}

impl Group {
    /// Of a language; `None`: no pair is proved for it.
    pub fn of(language: Language) -> Option<Self> {
        match language {
            Language::C | Language::PreprocessedC => Some(Self::C),
            Language::Cxx | Language::PreprocessedCxx => Some(Self::Cxx),
            Language::Assembler | Language::AssemblerWithCpp => Some(Self::Assembler),
            Language::ObjC | Language::ObjCxx | Language::PreprocessedObjC | Language::PreprocessedObjCxx => None,
        }
    }

    /// The word in files and texts.
    pub fn word(self) -> &'static str {
        match self {
            Self::C => "C",
            Self::Cxx => "C++",
            Self::Assembler => "assembler",
        }
    }

    /// What `-x` calls the language that its search path is asked for.
    pub fn option_name(self) -> &'static str {
        match self {
            Self::C => "c",
            Self::Cxx => "c++",
            Self::Assembler => "assembler-with-cpp",
        }
    }
}

/// A double as this client uses it.
#[derive(Clone, Debug)]
pub struct Dressed {
    /// What agents are told. Its files are the agents' own: this client has none of them.
    pub parts: Arc<Parts>,
    /// Of the compiler.
    pub family: CompilerFamily,
    /// What it is.
    pub double: Double,
    /// What both compile for, in the compiler's own words.
    pub target: String,
    /// Arguments before the user's.
    pub front: Vec<String>,
    /// Arguments behind the user's, where headers are looked for: the folders in which this machine's compiler looks by itself.
    pub folders: Vec<String>,
}

impl Dressed {
    /// The double's arguments for `request`.
    pub fn arguments(&self, request: &CompileRequest) -> Vec<String> {
        let mut arguments = self.front.clone();
        arguments.extend(request.argv.iter().cloned());
        // Assembler that is not preprocessed includes nothing, and clang complains of what it does not use. gcc is told by a variable.
        if self.family == CompilerFamily::Clang
            && request.language != Language::Assembler
            && !request.argv.iter().any(|argument| argument == "-nostdinc")
        {
            arguments.extend(self.folders.iter().cloned());
        }
        arguments
    }

    /// Whether gcc may look in its own folders for what `request` includes.
    pub fn looks_by_itself(request: &CompileRequest) -> bool {
        !request.language.is_preprocessed() && !request.argv.iter().any(|argument| argument == "-nostdinc")
    }

    /// The variable that tells gcc's double where this machine's gcc looks by itself. gcc takes the real names of headers behind symlinks there,
    /// where they are shorter, as in its own folders, and as it does not in those of `-isystem`.
    pub fn variable(&self, request: &CompileRequest) -> Option<(String, String)> {
        if self.family != CompilerFamily::Gcc || !Self::looks_by_itself(request) {
            return None;
        }
        let name = if request.language.is_cxx() { "CPLUS_INCLUDE_PATH" } else { "C_INCLUDE_PATH" };
        let folders: Vec<&str> =
            self.folders.iter().filter(|folder| folder.starts_with('/')).map(String::as_str).collect();
        Some((name.to_owned(), folders.join(":")))
    }

    /// Where the program is.
    pub fn program(&self) -> PathBuf {
        PathBuf::from(&self.double.program)
    }
}

/// One that has proved itself.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The double.
    pub dressed: Dressed,
    /// For which machine its objects are.
    pub machine: Machine,
    /// Name of this machine's compiler, as its driver calls itself in messages.
    pub name: String,
}

impl Pair {
    /// Of a compiler that is at `program`.
    pub fn new(dressed: Dressed, machine: Machine, program: &Path) -> Self {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { dressed, machine, name }
    }

    /// Why `request` is none for the double, though the pair is alike.
    pub fn objection_to(&self, request: &CompileRequest, same_libraries: bool) -> Option<Why> {
        options::objection(request, self.dressed.family, same_libraries)
            .map(|argument| ("double-option".to_owned(), format!("the compilers' likeness says nothing of {argument}")))
    }

    /// Why a successful result is not what this machine's compiler would have left; `content` reads what it names.
    pub fn objection_to_result<'a>(
        &self,
        result: &ActionResult,
        content: &dyn Fn(&buildbee_proto::digest::Digest) -> &'a [u8],
    ) -> Option<Why> {
        let why = |text: String| Some(("double-result".to_owned(), text));
        for file in &result.outputs {
            let content = content(&file.digest);
            let is_object = Path::new(file.path.as_str()).extension().is_some_and(|ending| ending == "o");
            match Machine::of(content) {
                Some(machine) if machine != self.machine => {
                    return why(format!("/{} is an object for another machine", file.path));
                }
                // LLVM's bit-code: its target was compared with the rest of the pair.
                None if is_object && self.dressed.family == CompilerFamily::Gcc => {
                    return why(format!("/{} is no object", file.path));
                }
                _ => {}
            }
        }
        // A driver calls itself by its own name.
        let name = self.dressed.double.program.rsplit('/').next().unwrap_or_default();
        let stderr = String::from_utf8_lossy(content(&result.stderr));
        let speaks = name != self.name && !name.is_empty() && stderr.contains(name);
        speaks.then(|| ("double-result".to_owned(), format!("it prints its own name, {name}")))
    }
}
