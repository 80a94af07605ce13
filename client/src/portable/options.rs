//! What the options say of where a folder's name can get to. Every argument that holds the name must be one of which that is known.

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

/// What becomes of the folder's name in a compile with these options.
#[derive(Debug)]
pub(super) struct Spelling {
    /// Files have absolute names in the project.
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

/// Weighs every argument. `root` is an absolute path.
pub(super) fn check(request: &CompileRequest, root: &str) -> Result<Spelling, Obstacle> {
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
        weighed.option(argument, option.map(|option| option.class), root);
        if words().any(|text| text.contains(root)) {
            weighed.holder(argument, option.map(|option| option.class), root)?;
        }
    }
    if let Some((name, _)) = request.env.iter().find(|(_, value)| value.contains(root)) {
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
    if weighed.debug && !weighed.directory_mapped {
        return Err(Obstacle::Debug);
    }
    Ok(Spelling { absolute: weighed.absolute, macros_mapped: weighed.macros_mapped, wrapped: weighed.wrapped })
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
    macros_mapped: bool,
    wrapped: bool,
    debug: bool,
    directory_mapped: bool,
}

impl Weighed {
    /// What an argument says whether or not it holds the folder.
    fn option(&mut self, argument: &str, class: Option<Class>, root: &str) {
        if class == Some(Class::MessageLength) && !argument.ends_with("=0") {
            self.wrapped = true;
        }
        if argument.starts_with("-g") && !argument.starts_with("-gno-") {
            self.debug = argument != "-g0";
        }
        self.directory_mapped |=
            argument.starts_with("-fdebug-compilation-dir") || argument.starts_with("-ffile-compilation-dir");
        if let Some((what, old, _)) = prefix_map(argument)
            && covers(old, root)
        {
            self.macros_mapped |= what != Mapped::Debug;
            self.directory_mapped |= what != Mapped::Macros;
        }
    }

    /// An argument that holds the folder, or whose value does.
    fn holder(&mut self, argument: &str, class: Option<Class>, root: &str) -> Result<(), Obstacle> {
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
                let map = prefix_map(argument).is_some_and(|(_, _, new)| !new.contains(root));
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

/// What is mapped, the old prefix, the new one.
fn prefix_map(argument: &str) -> Option<(Mapped, &str, &str)> {
    let (option, map) = argument.split_once('=')?;
    let what = match option {
        "-ffile-prefix-map" => Mapped::Everything,
        "-fmacro-prefix-map" => Mapped::Macros,
        "-fdebug-prefix-map" => Mapped::Debug,
        _ => return None,
    };
    let (old, new) = map.split_once('=')?;
    Some((what, old, new))
}

/// Whether every path in `root` begins with `old`.
fn covers(old: &str, root: &str) -> bool {
    let old = old.trim_end_matches('/');
    !old.is_empty() && root.strip_prefix(old).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
