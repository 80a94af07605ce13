//! What a program's name says about the compiler behind it. A guess: `cc` may be either family, and only running it tells.

use super::request::{CompilerFamily, DriverLanguage};

/// What a name tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramName {
    /// The family that goes by this name; `None` for `cc` and `c++`.
    pub family: Option<CompilerFamily>,
    /// Which driver.
    pub driver: DriverLanguage,
    /// Target prefix without its dash, such as `aarch64-linux-gnu`.
    pub target: Option<String>,
    /// Version suffix without its dash, such as `12` or `14.0`.
    pub version: Option<String>,
}

const NAMES: [(&str, Option<CompilerFamily>, DriverLanguage); 8] = [
    ("clang++", Some(CompilerFamily::Clang), DriverLanguage::Cxx),
    ("clang", Some(CompilerFamily::Clang), DriverLanguage::C),
    ("g++", Some(CompilerFamily::Gcc), DriverLanguage::Cxx),
    ("gcc", Some(CompilerFamily::Gcc), DriverLanguage::C),
    ("c++", None, DriverLanguage::Cxx),
    ("cc", None, DriverLanguage::C),
    ("c89", None, DriverLanguage::C),
    ("c99", None, DriverLanguage::C),
];

/// From a program as typed, with or without folders. `None`: no C or C++ compiler by its name.
pub fn from_program_name(program: &str) -> Option<ProgramName> {
    let name = program.rsplit('/').next()?;
    let (stem, version) = match name.rsplit_once('-') {
        Some((stem, version)) if is_version(version) => (stem, Some(version.to_owned())),
        _ => (name, None),
    };
    let (target, base) = match stem.rsplit_once('-') {
        Some((target, base)) if !target.is_empty() => (Some(target.to_owned()), base),
        Some(_) => return None,
        None => (None, stem),
    };
    let (_, family, driver) = NAMES.iter().find(|(known, ..)| *known == base)?;
    Some(ProgramName { family: *family, driver: *driver, target, version })
}

fn is_version(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let parts = |name: &str| {
            let found = from_program_name(name)?;
            Some((found.family, found.driver, found.target.unwrap_or_default(), found.version.unwrap_or_default()))
        };
        let gcc = Some(CompilerFamily::Gcc);
        let clang = Some(CompilerFamily::Clang);
        let text = str::to_owned;
        assert_eq!(parts("gcc"), Some((gcc, DriverLanguage::C, text(""), text(""))));
        assert_eq!(parts("/usr/bin/g++-12"), Some((gcc, DriverLanguage::Cxx, text(""), text("12"))));
        assert_eq!(
            parts("aarch64-linux-gnu-gcc-12.2"),
            Some((gcc, DriverLanguage::C, text("aarch64-linux-gnu"), text("12.2")))
        );
        assert_eq!(parts("clang++-14"), Some((clang, DriverLanguage::Cxx, text(""), text("14"))));
        assert_eq!(parts("cc"), Some((None, DriverLanguage::C, text(""), text(""))));
        assert_eq!(
            parts("x86_64-pc-linux-gnu-c++"),
            Some((None, DriverLanguage::Cxx, text("x86_64-pc-linux-gnu"), text("")))
        );
        for other in
            ["", "gcc-ar", "clang-tidy", "clang-format-14", "ld", "-gcc", "gcc-", "rustc", "clang-cl", "/", "gcc/"]
        {
            assert_eq!(parts(other), None, "{other}");
        }
    }
}
