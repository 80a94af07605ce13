//! Projects to build, made on the spot, and comparison of what two builds left behind.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

/// Files with their content and permission bits, by name.
pub type Files = BTreeMap<String, (Vec<u8>, u32)>;

/// Writes a C project of `n_files` sources with headers of their own and a Makefile that makes one object each. Sources differ, include
/// system and own headers, warn a little, and take some time to compile.
pub fn write_c(folder: &Path, n_files: usize) -> io::Result<()> {
    fs::create_dir_all(folder.join("include/deep"))?;
    fs::write(folder.join("include/shared.h"), "#pragma once\n#include \"deep/inner.h\"\n#define SCALE 3\n")?;
    fs::write(
        folder.join("include/deep/inner.h"),
        "#ifndef INNER\n#define INNER\nstruct inner { int a; double b; };\n#endif\n",
    )?;
    for n in 0..n_files {
        let mut text = format!(
            "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include \"shared.h\"\n#include \"own{n}.h\"\n"
        );
        for function in 0..40 {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "int f{n}_{function}(struct inner *in, const char *s) {{ int sum = OWN{n}; for (unsigned i = 0; i < strlen(s); i++) \
                 sum = sum * SCALE + s[i] % (i + {function} + 1); in->a += sum; in->b *= {function}.5; return abs(sum); }}"
            );
        }
        let _ = writeln!(text, "int unused_{n}(int x) {{ int never; printf(\"%d\\n\", x); return x; }}");
        fs::write(folder.join(format!("file{n}.c")), text)?;
        fs::write(folder.join(format!("own{n}.h")), format!("#define OWN{n} {n}\n"))?;
    }
    fs::write(
        folder.join("Makefile"),
        "CC ?= cc\nCFLAGS ?= -O2 -g -Wall -Iinclude -MD\nall: $(patsubst %.c,%.o,$(wildcard *.c))\n\
         %.o: %.c\n\t$(CC) $(CFLAGS) -c -o $@ $<\nclean:\n\trm -f *.o *.d\n",
    )
}

/// Writes a C++ project of `n_files` sources that use the standard library, with a Makefile that makes one object each.
pub fn write_cpp(folder: &Path, n_files: usize) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(
        folder.join("shared.hpp"),
        "#pragma once\n#include <string>\n#include <vector>\nusing names = std::vector<std::string>;\n",
    )?;
    for n in 0..n_files {
        let text = format!(
            "#include \"shared.hpp\"\n#include <algorithm>\n\
             template <int N> struct scaled {{ static int of(int x) {{ return x * N; }} }};\n\
             int count{n}(const names &all) {{ return scaled<{n}>::of(static_cast<int>(all.size())); }}\n\
             names sorted{n}(names all) {{ std::sort(all.begin(), all.end()); all.push_back(std::to_string({n})); return all; }}\n\
             int compare{n}(unsigned a, int b) {{ return a < b; }}\n"
        );
        fs::write(folder.join(format!("unit{n}.cpp")), text)?;
    }
    fs::write(
        folder.join("Makefile"),
        "CXX ?= c++\nCXXFLAGS ?= -O1 -g -Wall -Wextra -std=c++17 -MMD -MP\nall: $(patsubst %.cpp,%.o,$(wildcard *.cpp))\n\
         %.o: %.cpp\n\t$(CXX) $(CXXFLAGS) -c -o $@ $<\nclean:\n\trm -f *.o *.d\n",
    )
}

/// Runs make in `folder` with `n_jobs` jobs and, for instance, `CC=buildbee gcc`. What each compile prints stays together.
///
/// # Panics
///
/// When make can't be started.
pub fn make(mut make: Command, folder: &Path, n_jobs: usize, words: &[&str]) -> Output {
    make.args(["--silent", "--output-sync=target", &format!("-j{n_jobs}")]).args(words).current_dir(folder);
    make.output().unwrap_or_else(|error| panic!("make: {error}"))
}

/// What a build printed on stderr, in an order that does not depend on which job was done first.
pub fn sorted_lines(text: &[u8]) -> Vec<String> {
    let mut lines: Vec<String> = String::from_utf8_lossy(text).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Name, content (of a symlink: its target) and mode of every file in `folder` whose name ends in one of `endings`.
///
/// # Panics
///
/// When the folder can't be read: there is nothing to compare then.
pub fn outputs(folder: &Path, endings: &[&str]) -> Files {
    let mut found = BTreeMap::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(at) = todo.pop() {
        for entry in fs::read_dir(&at).unwrap_or_else(|error| panic!("{}: {error}", at.display())).flatten() {
            let path = entry.path();
            if path.is_dir() && !path.is_symlink() {
                todo.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
            if endings.iter().any(|ending| name.ends_with(ending)) {
                let content = match fs::read_link(&path) {
                    Ok(target) => format!("-> {}", target.display()).into_bytes(),
                    Err(_) => fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}")),
                };
                let mode = entry.metadata().map_or(0, |meta| meta.permissions().mode() & 0o777);
                found.insert(name, (content, mode));
            }
        }
    }
    found
}

/// Asserts that two builds left the same files.
///
/// # Panics
///
/// Names the first files that differ.
pub fn assert_same(expected: &Files, found: &Files) {
    assert!(!expected.is_empty(), "there is nothing to compare");
    let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(expected), names(found), "other files were left");
    let differing: Vec<_> =
        expected.iter().filter(|(name, file)| found.get(*name) != Some(file)).map(|(name, _)| name).collect();
    assert!(differing.is_empty(), "these differ from a plain local build: {differing:?}");
}
