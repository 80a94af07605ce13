//! Languages by suffix and by `-x`, as gcc and clang map them.

use super::reason::ReasonKind;
use super::request::DriverLanguage;

/// What a source is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Language {
    /// C.
    C,
    /// C++.
    Cxx,
    /// Objective-C.
    ObjC,
    /// Objective-C++.
    ObjCxx,
    /// C, already preprocessed.
    PreprocessedC,
    /// C++, already preprocessed.
    PreprocessedCxx,
    /// Objective-C, already preprocessed.
    PreprocessedObjC,
    /// Objective-C++, already preprocessed.
    PreprocessedObjCxx,
    /// Assembler.
    Assembler,
    /// Assembler that the preprocessor sees first.
    AssemblerWithCpp,
}

/// What a file is written in, and whether it is a header that is to be precompiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Language.
    pub language: Language,
    /// Whether it is such a header.
    pub is_header: bool,
}

/// Name for `-x`, language.
const NAMES: [(&str, Language); 10] = [
    ("c", Language::C),
    ("c++", Language::Cxx),
    ("objective-c", Language::ObjC),
    ("objective-c++", Language::ObjCxx),
    ("cpp-output", Language::PreprocessedC),
    ("c++-cpp-output", Language::PreprocessedCxx),
    ("objective-c-cpp-output", Language::PreprocessedObjC),
    ("objective-c++-cpp-output", Language::PreprocessedObjCxx),
    ("assembler", Language::Assembler),
    ("assembler-with-cpp", Language::AssemblerWithCpp),
];

impl Language {
    /// What `-x` calls it.
    pub fn option_name(self) -> &'static str {
        NAMES.iter().find(|(_, language)| *language == self).map_or("c", |(name, _)| name)
    }

    /// Whether nothing is included any more.
    pub fn is_preprocessed(self) -> bool {
        matches!(
            self,
            Self::PreprocessedC
                | Self::PreprocessedCxx
                | Self::PreprocessedObjC
                | Self::PreprocessedObjCxx
                | Self::Assembler
        )
    }

    /// Whether the assembler reads what its author wrote.
    pub fn is_assembler(self) -> bool {
        matches!(self, Self::Assembler | Self::AssemblerWithCpp)
    }

    /// Whether the compiler adds the C++ library's folders to the search path.
    pub fn is_cxx(self) -> bool {
        matches!(self, Self::Cxx | Self::ObjCxx | Self::PreprocessedCxx | Self::PreprocessedObjCxx)
    }
}

/// What `-x NAME` says.
pub fn from_option(name: &str) -> Result<Written, ReasonKind> {
    let known = |name| NAMES.iter().find(|(known, _)| *known == name).map(|(_, language)| *language);
    if let Some(language) = known(name) {
        return Ok(Written { language, is_header: false });
    }
    let header = name.strip_suffix("-header").and_then(known);
    if let Some(language) = header.filter(|language| !language.is_preprocessed() && !language.is_assembler()) {
        return Ok(Written { language, is_header: true });
    }
    Err(match name {
        _ if name.ends_with("-header") || name.contains("header-unit") || name.ends_with("-system-header") => {
            ReasonKind::PrecompiledHeader
        }
        "c++-module" => ReasonKind::Modules,
        "ada" | "d" | "f77" | "f77-cpp-input" | "f95" | "f95-cpp-input" | "go" | "cuda" | "hip" | "cl" | "ir" => {
            ReasonKind::OtherLanguage
        }
        _ => ReasonKind::UnknownLanguage,
    })
}

/// What a file is by its name.
pub fn from_file_name(name: &str, driver: DriverLanguage) -> Result<Written, ReasonKind> {
    let suffix = name.rsplit_once('.').map_or("", |(_, suffix)| suffix);
    let by_driver = |c, cxx| match driver {
        DriverLanguage::C => c,
        DriverLanguage::Cxx => cxx,
    };
    let is_header = matches!(suffix, "h" | "hh" | "H" | "hp" | "hxx" | "hpp" | "HPP" | "h++" | "tcc");
    let language = match suffix {
        "h" => by_driver(Language::C, Language::Cxx),
        _ if is_header => Language::Cxx,
        "c" => by_driver(Language::C, Language::Cxx),
        // g++ takes .i for C++ that is yet to be preprocessed; a scan of what is finished finds nothing, so that is no harm.
        "i" => by_driver(Language::PreprocessedC, Language::Cxx),
        "cc" | "cp" | "cxx" | "cpp" | "CPP" | "c++" | "C" | "CC" => Language::Cxx,
        "ii" => Language::PreprocessedCxx,
        "m" => Language::ObjC,
        "mi" => Language::PreprocessedObjC,
        "mm" | "M" => Language::ObjCxx,
        "mii" => Language::PreprocessedObjCxx,
        "s" => Language::Assembler,
        "S" => Language::AssemblerWithCpp,
        "sx" => return Err(ReasonKind::AssemblerSource),
        "cppm" | "ixx" | "ccm" | "cxxm" | "c++m" | "pcm" => return Err(ReasonKind::Modules),
        "f" | "for" | "ftn" | "F" | "FOR" | "fpp" | "f90" | "F90" | "f95" | "F95" | "f03" | "F03" | "f08" | "F08"
        | "go" | "d" | "di" | "adb" | "ads" | "cu" | "cl" | "hip" | "ll" | "bc" => {
            return Err(ReasonKind::OtherLanguage);
        }
        _ => return Err(ReasonKind::UnknownLanguage),
    };
    Ok(Written { language, is_header })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for (name, language) in NAMES {
            assert_eq!(from_option(name), Ok(Written { language, is_header: false }));
            assert_eq!(language.option_name(), name);
        }
    }

    #[test]
    fn suffixes() {
        let c = |name| from_file_name(name, DriverLanguage::C).map(|written| written.language);
        assert_eq!(c("a.b/x.c"), Ok(Language::C));
        assert_eq!(from_file_name("x.c", DriverLanguage::Cxx).map(|written| written.language), Ok(Language::Cxx));
        assert_eq!(c("x.C"), Ok(Language::Cxx));
        assert_eq!(c("x.cpp"), Ok(Language::Cxx));
        assert_eq!(c("x.mm"), Ok(Language::ObjCxx));
        assert!(c("x.ii").is_ok_and(Language::is_preprocessed));
        assert_eq!(c("x.S"), Ok(Language::AssemblerWithCpp));
        assert!(c("x.s").is_ok_and(|language| language.is_assembler() && language.is_preprocessed()));
        assert_eq!(c("x.f90"), Err(ReasonKind::OtherLanguage));
        assert_eq!(c("x.o"), Err(ReasonKind::UnknownLanguage));
        assert_eq!(c("x"), Err(ReasonKind::UnknownLanguage));
    }

    #[test]
    fn headers() {
        for (name, driver, language) in [
            ("x.h", DriverLanguage::C, Language::C),
            ("x.h", DriverLanguage::Cxx, Language::Cxx),
            ("x.hpp", DriverLanguage::C, Language::Cxx),
        ] {
            assert_eq!(from_file_name(name, driver), Ok(Written { language, is_header: true }));
        }
        assert_eq!(from_option("objective-c-header"), Ok(Written { language: Language::ObjC, is_header: true }));
        assert_eq!(from_option("assembler-header"), Err(ReasonKind::PrecompiledHeader));
    }

    #[test]
    fn odd_languages_have_their_reason() {
        assert_eq!(from_option("c++-system-header"), Err(ReasonKind::PrecompiledHeader));
        assert_eq!(from_option("f95"), Err(ReasonKind::OtherLanguage));
        assert_eq!(from_option("wat"), Err(ReasonKind::UnknownLanguage));
    }
}
