//! Dependency files in another folder's words, as the compiler itself would have written them there.
//!
//! gcc and clang break lines by the length of names. What is written anew counts only if the same hand, given the old names, writes what
//! the compiler wrote, byte for byte. Names with blanks, `$`, `#` or backslashes are left alone.

use super::respell::Respelling;
use crate::compiler::request::CompilerFamily;

/// Column after which gcc breaks a line (libcpp's `deps_write`).
const GCC_COLUMNS: usize = 72;
/// The same of clang (`DependencyFileGenerator::outputDependencyFile`).
const CLANG_COLUMNS: usize = 75;

/// The file with one folder's name for the other's; `None` where it can't be told what the compiler would write.
pub(super) fn respell(content: &[u8], family: CompilerFamily, respelling: &Respelling) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(content).ok()?;
    let rules = Rules::read(text)?;
    (rules.write(family) == text).then(|| rules.respelled(respelling).write(family).into_bytes())
}

/// One rule with its files, and the targets of empty rules after it (`-MP`).
struct Rules {
    targets: Vec<String>,
    files: Vec<String>,
    phony: Vec<String>,
    /// Whether an empty line stands before each of those: older releases of both compilers put it there.
    spaced: bool,
}

impl Rules {
    fn read(text: &str) -> Option<Self> {
        let joined = text.replace("\\\n", " ");
        if joined.contains(['\\', '$', '#', '\t', '\r']) {
            return None;
        }
        let mut lines = joined.lines();
        let (targets, files) = lines.next()?.split_once(": ")?;
        let words = |text: &str| text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        let mut spaced = false;
        let mut phony = Vec::new();
        for line in lines {
            match line {
                "" => spaced = true,
                _ => phony.push(line.strip_suffix(':')?.to_owned()),
            }
        }
        Some(Self { targets: words(targets), files: words(files), phony, spaced })
    }

    fn respelled(&self, respelling: &Respelling) -> Self {
        let each = |words: &[String]| {
            words.iter().map(|word| respelling.prefix(word).unwrap_or_else(|| word.clone())).collect()
        };
        Self { targets: each(&self.targets), files: each(&self.files), phony: each(&self.phony), spaced: self.spaced }
    }

    fn write(&self, family: CompilerFamily) -> String {
        let mut out = String::new();
        match family {
            CompilerFamily::Gcc => self.write_as_gcc(&mut out),
            CompilerFamily::Clang => self.write_as_clang(&mut out),
        }
        out.push('\n');
        for target in &self.phony {
            if self.spaced {
                out.push('\n');
            }
            out.push_str(target);
            out.push_str(":\n");
        }
        out
    }

    fn write_as_gcc(&self, out: &mut String) {
        let mut column = 0;
        let word = |out: &mut String, word: &str, column: &mut usize| {
            if *column > 0 {
                if *column + word.len() > GCC_COLUMNS {
                    out.push_str(" \\\n");
                    *column = 0;
                }
                out.push(' ');
                *column += 1;
            }
            out.push_str(word);
            *column += word.len();
        };
        for target in &self.targets {
            word(out, target, &mut column);
        }
        out.push(':');
        column += 1;
        for file in &self.files {
            word(out, file, &mut column);
        }
    }

    fn write_as_clang(&self, out: &mut String) {
        let mut column = 0;
        for target in &self.targets {
            if column == 0 {
                column = target.len();
            } else if column + target.len() + 2 > CLANG_COLUMNS {
                out.push_str(" \\\n  ");
                column = target.len() + 2;
            } else {
                out.push(' ');
                column += target.len() + 1;
            }
            out.push_str(target);
        }
        out.push(':');
        column += 1;
        for file in &self.files {
            // Room for a break behind it.
            if column + file.len() + 1 + 2 > CLANG_COLUMNS {
                out.push_str(" \\\n ");
                column = 2;
            }
            out.push(' ');
            out.push_str(file);
            column += file.len() + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use buildbee_proto::path::RelPath;

    use super::*;

    /// What the compiler writes for a source with some headers in `folder`.
    fn written(compiler: &str, folder: &Path, more: &[&str]) -> String {
        fs::create_dir_all(folder.join("include/deeper")).unwrap();
        let names: Vec<String> = (0..9).map(|n| format!("deeper/{}.h", "n".repeat(n * 3 + 1))).collect();
        for name in &names {
            fs::write(folder.join("include").join(name), "").unwrap();
        }
        let includes = format!("#include <{}>\n#include <stdio.h>\n", names.join(">\n#include <"));
        fs::write(folder.join("x.c"), includes).unwrap();
        let at = |name: &str| folder.join(name).display().to_string();
        let mut command = Command::new(compiler);
        command.args(["-c", &at("x.c"), "-I", &at("include"), "-o", &at("x.o"), "-MD", "-MF", &at("x.d")]);
        for word in more {
            command.arg(word.replace("HERE", &folder.display().to_string()));
        }
        assert!(command.status().unwrap().success(), "{command:?}");
        fs::read_to_string(folder.join("x.d")).unwrap()
    }

    #[test]
    fn a_dependency_file_is_written_anew_as_the_compiler_would_have() {
        let above = tempfile::tempdir().unwrap();
        let above = above.path().canonicalize().unwrap();
        let folders = ["a", "somewhat-longer", "and/another/that/is/a/good/deal/longer/than/all/of/the/others"];
        let options = [&[][..], &["-MT", "CMakeFiles/x.dir/x.c.o"], &["-MP", "-MT", "HERE/one.o", "-MT", "HERE/two.o"]];
        for (compiler, family) in
            [("gcc", CompilerFamily::Gcc), ("g++", CompilerFamily::Gcc), ("clang", CompilerFamily::Clang)]
        {
            for more in options {
                let files = folders.map(|folder| written(compiler, &above.join(folder), more));
                for (from, there) in folders.iter().zip(&files) {
                    for (to, here) in folders.iter().zip(&files) {
                        let place = |name: &str| RelPath::from_absolute(&above.join(name)).unwrap();
                        let respelling = Respelling::new(&[place(from)], &[place(to)]);
                        let anew = respell(there.as_bytes(), family, &respelling).map(String::from_utf8);
                        assert_eq!(anew, Some(Ok(here.clone())), "{compiler} {more:?}: {from} as {to}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_no_compiler_writes_is_left_alone() {
        let folder = |name: &str| RelPath::try_from(name).unwrap();
        let respelling = Respelling::new(&[folder("home/a")], &[folder("srv/b")]);
        for text in ["", "x.o:\n", "x.o:  x.c\n", "x.o: a\\ b.c\n", "x.o: x.c", "x.o: x.c\ny.o: y.c\n", "x.o: $$x.c\n"]
        {
            assert_eq!(respell(text.as_bytes(), CompilerFamily::Gcc, &respelling), None, "{text:?}");
        }
        let anew = respell(b"x.o: /home/a/x.c\n", CompilerFamily::Gcc, &respelling);
        assert_eq!(anew.as_deref(), Some(&b"x.o: /srv/b/x.c\n"[..]));
    }
}
