//! Looks for a folder's name in content, and for content in which it could not be found.

use memchr::memmem;
use object::{CompressionFormat, File, Object, ObjectSection};

/// Whether the folder (an absolute path) stands in `content`: as it is, or as a symbol's name would have it.
pub(super) fn holds(content: &[u8], folder: &str) -> bool {
    let mangled: String =
        folder.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect();
    let dotted: String = folder
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() || letter == '.' { letter } else { '_' })
        .collect();
    [folder, &mangled, &dotted].iter().any(|text| memmem::find(content, text.as_bytes()).is_some())
}

/// How names of sections with bit code, and with the command line that made it, begin.
const BIT_CODE: [&str; 4] = [".gnu.lto_", ".llvmbc", ".llvmcmd", ".llvm.lto"];

/// Whether a folder's name could hide in an object: it is of a format that is not known here, or has sections that are compressed or
/// hold bit code.
pub fn could_hide(object: &[u8]) -> bool {
    let Ok(file) = File::parse(object) else { return true };
    file.sections().any(|section| {
        let plain = section.compressed_file_range().is_ok_and(|range| range.format == CompressionFormat::None);
        let code = section.name().map_or(true, |name| BIT_CODE.iter().any(|start| name.starts_with(start)));
        code || !plain
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn compiled(compiler: &str, arguments: &[&str]) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("x.c"),
            "int long_enough_to_be_compressed(int argument) { return argument; }\n",
        )
        .unwrap();
        let mut command = Command::new(compiler);
        let ran = command.args(["-c", "x.c", "-o", "x.o"]).args(arguments).current_dir(folder.path()).status().unwrap();
        assert!(ran.success(), "{compiler} {arguments:?}");
        std::fs::read(folder.path().join("x.o")).unwrap()
    }

    #[test]
    fn text_could_hide_in_compressed_sections_and_in_bit_code_only() {
        for compiler in ["gcc", "clang"] {
            for (arguments, hidden) in [
                (&["-O2"][..], false),
                (&["-g"], false),
                (&["-g", "-gz=zlib"], true),
                (&["-flto"], true),
                (&["-flto", "-g", "-O2"], true),
            ] {
                assert_eq!(could_hide(&compiled(compiler, arguments)), hidden, "{compiler} {arguments:?}");
            }
        }
        assert!(could_hide(&compiled("clang", &["-emit-llvm"])));
        assert!(could_hide(b"") && could_hide(b"\x7fELF"));
    }

    #[test]
    fn a_folder_is_found_as_it_is_and_in_symbols() {
        let folder = "/home/a.b/p-q";
        for content in ["/home/a.b/p-q/x.c", "D_0__home_a_b_p_q_x", "_home_a.b_p_q"] {
            assert!(holds(content.as_bytes(), folder), "{content}");
        }
        assert!(!holds(b"/home/a.b/p", folder));
    }
}
