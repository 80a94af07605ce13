//! What the options say of where folders' names can get to. Every argument that holds such a name must be one of which that is known.

use std::path::Path;

use super::Obstacle;
use crate::compiler::arg_table::{Attached, Class, lookup};
use crate::compiler::request::{CompileRequest, CompilerFamily, SearchDirectory, SearchKind};

/// Options that pack text (compression, bit code, a command line with escapes), make a number of it (hashes of types, modules and seeds),
/// or decide by it what code is made. By their beginnings.
const HIDING: [&str; 17] = [
    "-S",
    "-emit-llvm",
    "-fembed-bitcode",
    "-fdebug-types-section",
    "-ffat-lto-objects",
    "-finstrument-functions-exclude-file-list",
    "-flto",
    "-fprofile",
    "-frecord-command-line",
    "-frecord-gcc-switches",
    "-fsplit-lto-unit",
    "-funique-internal-linkage-names",
    "-fverbose-asm",
    "-grecord-command-line",
    "-grecord-gcc-switches",
    "-gsplit-dwarf",
    "-gz",
];

/// The folders that may be elsewhere, as absolute paths.
#[derive(Debug)]
pub(super) struct Folders {
    /// All of them.
    pub(super) all: Vec<String>,
    /// How many of the first may hold files that are read.
    pub(super) n_read: usize,
    /// The one that the working directory is in.
    pub(super) around: String,
}

impl Folders {
    fn are_in(&self, text: &str) -> bool {
        self.all.iter().any(|folder| text.contains(folder.as_str()))
    }

    fn read(&self) -> impl Iterator<Item = &str> {
        self.all.iter().take(self.n_read).map(String::as_str)
    }
}

/// What becomes of the folders' names in a compile with these options.
#[derive(Debug)]
pub(super) struct Spelling {
    /// Files have absolute names in the folders.
    pub(super) absolute: bool,
    /// `__FILE__` does not show them.
    pub(super) macros_mapped: bool,
    /// Messages are wrapped at a width, which depends on the length of names.
    pub(super) wrapped: bool,
}

/// The old prefixes of all prefix maps.
pub(super) fn mapped(request: &CompileRequest) -> Vec<&Path> {
    let maps = request.argv.iter().filter_map(|argument| prefix_map(argument));
    maps.map(|(_, old, _)| Path::new(old)).collect()
}

/// Weighs every argument.
pub(super) fn check(request: &CompileRequest, folders: &Folders) -> Result<Spelling, Obstacle> {
    let mut weighed = Weighed::default();
    let mut arguments = request.argv.iter();
    while let Some(argument) = arguments.next() {
        let option = lookup(argument, request.family).filter(|_| argument.starts_with('-'));
        let takes_next = option.is_some_and(|option| match option.attached {
            Attached::Separate => true,
            Attached::JoinedOrSeparate => argument.len() == option.name_bytes,
            Attached::None | Attached::Joined => false,
        });
        let value = if takes_next { arguments.next() } else { None };
        let words = || [Some(argument), value].into_iter().flatten();
        // Values too: `-Xclang -emit-llvm`.
        if let Some(hiding) = words().find(|word| hides(word)) {
            return Err(Obstacle::Hidden(hiding.clone()));
        }
        weighed.option(argument, option.map(|option| option.class));
        if words().any(|text| folders.are_in(text)) {
            weighed.holder(argument, option.map(|option| option.class), folders)?;
        }
    }
    if let Some((name, _)) = request.env.iter().find(|(_, value)| folders.are_in(value)) {
        if !name.ends_with("PATH") {
            return Err(Obstacle::Argument(name.clone()));
        }
        weighed.absolute = true;
    }
    if request.family == CompilerFamily::Gcc
        && let Some(folder) = request.search_directories.iter().find(|folder| is_shortened(folder))
    {
        return Err(Obstacle::Shortened(folder.path.display().to_string()));
    }
    let mut macros_mapped = true;
    let mut debug_mapped = weighed.directory_named || is_mapped(request, &folders.around, folders, Mapped::Debug)?;
    for folder in folders.read() {
        macros_mapped &= is_mapped(request, folder, folders, Mapped::Macros)?;
        // clang cuts absolute names where they part from the working directory's name, and the pieces are not found.
        debug_mapped &= !weighed.absolute || is_mapped(request, folder, folders, Mapped::Debug)?;
    }
    if weighed.debug && !debug_mapped {
        return Err(Obstacle::Debug);
    }
    Ok(Spelling { absolute: weighed.absolute, macros_mapped, wrapped: weighed.wrapped })
}

/// Whether `folder` gets another name in macros' values, or in debug information: by a map of its own, which is as good wherever it is, and
/// the last one that could (as gcc has it; clang takes that or the longest). A map of a folder above it says something else elsewhere.
fn is_mapped(request: &CompileRequest, folder: &str, folders: &Folders, what: Mapped) -> Result<bool, Obstacle> {
    let mut mapped = false;
    for argument in &request.argv {
        let Some((kind, old, _)) = prefix_map(argument).filter(|(_, old, _)| folder.starts_with(*old)) else {
            continue;
        };
        let is_known = folders.all.iter().any(|known| known == old);
        if !is_known {
            return Err(Obstacle::Argument(argument.clone()));
        }
        if kind == what || kind == Mapped::Everything {
            mapped = old == folder;
        }
    }
    Ok(mapped)
}

fn hides(word: &str) -> bool {
    HIDING.iter().any(|name| word.starts_with(name)) || word.contains("compress-debug")
}

/// Whether gcc opens headers of a folder by their real path where that is shorter: it is, or is not, by the length of the project's
/// folder.
fn is_shortened(folder: &SearchDirectory) -> bool {
    let system = !matches!(folder.kind, SearchKind::Quote | SearchKind::Include | SearchKind::EnvAll);
    system && folder.path.is_relative()
}

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is an observation of its own; none excludes another")]
struct Weighed {
    absolute: bool,
    wrapped: bool,
    debug: bool,
    /// By an option that says what the working directory is to be called.
    directory_named: bool,
}

impl Weighed {
    /// What an argument says whether or not it holds a folder.
    fn option(&mut self, argument: &str, class: Option<Class>) {
        if class == Some(Class::MessageLength) && !argument.ends_with("=0") {
            self.wrapped = true;
        }
        if argument.starts_with("-g") && !argument.starts_with("-gno-") {
            self.debug = argument != "-g0";
        }
        self.directory_named |=
            argument.starts_with("-fdebug-compilation-dir") || argument.starts_with("-ffile-compilation-dir");
    }

    /// An argument that holds a folder, or whose value does.
    fn holder(&mut self, argument: &str, class: Option<Class>, folders: &Folders) -> Result<(), Obstacle> {
        let known = match class {
            // The source.
            None => !argument.starts_with('-'),
            Some(Class::Search(_) | Class::IncludeFile) => true,
            Some(Class::Output | Class::DepFile | Class::DepDetail) => return Ok(()),
            Some(Class::Preprocessor) => {
                let depfile = argument.starts_with("-Wp,-MD,") || argument.starts_with("-Wp,-MMD,");
                if depfile && argument.matches(',').count() == 2 {
                    return Ok(());
                }
                false
            }
            Some(_) => {
                let linker = argument.starts_with("-L") || argument.starts_with("-Wl,");
                let place =
                    argument.starts_with("-fdebug-compilation-dir") || argument.starts_with("-ffile-compilation-dir");
                let map = prefix_map(argument).is_some_and(|(_, _, new)| !folders.are_in(new));
                if linker || place || map {
                    return Ok(());
                }
                false
            }
        };
        if !known {
            return Err(Obstacle::Argument(argument.to_owned()));
        }
        self.absolute = true;
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mapped {
    Everything,
    Macros,
    Debug,
}

/// What is mapped, the old prefix without a slash at its end, the new one.
fn prefix_map(argument: &str) -> Option<(Mapped, &str, &str)> {
    let (option, map) = argument.split_once('=')?;
    let what = match option {
        "-ffile-prefix-map" => Mapped::Everything,
        "-fmacro-prefix-map" => Mapped::Macros,
        "-fdebug-prefix-map" => Mapped::Debug,
        _ => return None,
    };
    let (old, new) = map.split_once('=')?;
    Some((what, old.trim_end_matches('/'), new))
}
