//! Takes an argument list apart, as rustc's own parser does. Says what each option means and which parts of each word are paths; weighs nothing.

use super::link_arguments;
use super::option_table::{self, CODEGEN, Class};
use super::reason::{RustReason, RustReasonKind as Why};
use super::request::{CrateType, Emit, EmitKind, Extern, SearchPath, SearchPathKind, Target};
use super::unstable_table::UNSTABLE;

/// A piece of a word of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// As it is.
    Text(String),
    /// A path, as spelled.
    Path(String),
    /// `native`: whatever processor this machine has.
    Machine,
    /// The incremental session's folder, which belongs to no result.
    Session,
}

/// One word of the command line.
pub(super) type Word = Vec<Part>;

/// `-l`, as spelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LibraryOption {
    pub(super) kind: Option<String>,
    pub(super) modifiers: Vec<String>,
    pub(super) name: String,
}

/// What the words say.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about a command, not states")]
pub(super) struct Parsed {
    pub(super) words: Vec<Word>,
    pub(super) inputs: Vec<String>,
    pub(super) crate_name: Option<String>,
    pub(super) crate_types: Vec<CrateType>,
    pub(super) emits: Vec<Emit>,
    pub(super) output: Option<String>,
    pub(super) out_dir: Option<String>,
    pub(super) is_test: bool,
    pub(super) externs: Vec<Extern>,
    pub(super) search: Vec<SearchPath>,
    pub(super) libraries: Vec<LibraryOption>,
    pub(super) target: Option<Target>,
    pub(super) json_messages: bool,
    pub(super) artifact_messages: bool,
    pub(super) color_given: bool,
    pub(super) link_arguments: Vec<String>,
    pub(super) linker: Option<String>,
    pub(super) incremental: Option<String>,
    pub(super) extra_filename: String,
    pub(super) split_debuginfo: Option<String>,
    pub(super) has_debuginfo: bool,
    pub(super) codegen_units: Option<String>,
    pub(super) asks_machine: bool,
    pub(super) read_files: Vec<String>,
    pub(super) sysroot: Option<String>,
    /// What the user's prefix maps replace.
    pub(super) remapped: Vec<String>,
    /// The command is something else than a compile.
    pub(super) mode: Option<RustReason>,
    /// A compile that can't be followed: the first reason.
    pub(super) obstacle: Option<RustReason>,
    /// The same, if it links.
    pub(super) link_obstacle: Option<RustReason>,
    seen: Vec<&'static str>,
}

/// Takes `argv` apart: no program name, no leading rustc path of clippy's, no response files.
pub(super) fn parse(argv: &[String]) -> Parsed {
    let mut parsed = Parsed::default();
    let mut arguments = argv.iter();
    while let Some(argument) = arguments.next() {
        let mut next = || arguments.next().map(String::as_str);
        if argument == "--" {
            parsed.words.push(vec![Part::Text(argument.clone())]);
            for input in arguments.by_ref() {
                parsed.input(input);
            }
        } else if let Some(name) = argument.strip_prefix("--") {
            parsed.long(argument, name, &mut next);
        } else if let Some(cluster) = argument.strip_prefix('-').filter(|cluster| !cluster.is_empty()) {
            parsed.cluster(argument, cluster, &mut next);
        } else {
            parsed.input(argument);
        }
    }
    parsed
}

/// Whether a switch's value means no. rustc knows these words.
fn is_off(value: &str) -> bool {
    matches!(value, "n" | "no" | "off" | "false")
}

fn is_on(value: &str) -> bool {
    matches!(value, "y" | "yes" | "on" | "true")
}

impl Parsed {
    fn input(&mut self, input: &str) {
        self.inputs.push(input.to_owned());
        self.words.push(vec![Part::Path(input.to_owned())]);
    }

    fn hinder(&mut self, reason: RustReason) {
        let slot = match reason.kind {
            Why::NotACompile | Why::Print => &mut self.mode,
            _ => &mut self.obstacle,
        };
        slot.get_or_insert(reason);
    }

    fn long<'a>(&mut self, argument: &str, name: &str, next: &mut dyn FnMut() -> Option<&'a str>) {
        let (name, joined) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (name, None),
        };
        let Some(option) = option_table::long(name) else {
            return self.hinder(RustReason::about(Why::UnknownOption, argument));
        };
        if !option.repeats {
            self.once(option.long.unwrap_or_default());
        }
        match (option.takes_value, joined) {
            (false, Some(_)) => self.hinder(RustReason::about(Why::UnknownValue, argument)),
            (false, None) => self.flag(option.class, argument),
            (true, Some(value)) => self.value(option.class, &format!("--{name}="), value),
            (true, None) => self.separate(option.class, argument, next()),
        }
    }

    /// Short options that stand together; the first that takes a value takes the rest.
    fn cluster<'a>(&mut self, argument: &str, cluster: &str, next: &mut dyn FnMut() -> Option<&'a str>) {
        for (at, letter) in cluster.char_indices() {
            let Some(option) = option_table::short(letter) else {
                return self.hinder(RustReason::about(Why::UnknownOption, argument));
            };
            let rest = cluster.get(at + letter.len_utf8()..).unwrap_or_default();
            if option.takes_value {
                if !option.repeats {
                    self.once("o");
                }
                let before = argument.strip_suffix(rest).unwrap_or(argument);
                if rest.is_empty() {
                    self.separate(option.class, argument, next());
                } else {
                    self.value(option.class, before, rest);
                }
                return;
            }
            self.note_flag(option.class, argument);
        }
        self.words.push(vec![Part::Text(argument.to_owned())]);
    }

    fn once(&mut self, name: &'static str) {
        if self.seen.contains(&name) {
            self.hinder(RustReason::about(Why::RepeatedOption, name));
        }
        self.seen.push(name);
    }

    fn flag(&mut self, class: Class, argument: &str) {
        self.note_flag(class, argument);
        self.words.push(vec![Part::Text(argument.to_owned())]);
    }

    fn note_flag(&mut self, class: Class, argument: &str) {
        match class {
            Class::Test => self.is_test = true,
            Class::DebugInfo => self.has_debuginfo = true,
            Class::Local(why) => self.hinder(RustReason::about(why, argument)),
            _ => {}
        }
    }

    fn separate(&mut self, class: Class, argument: &str, value: Option<&str>) {
        let Some(value) = value else {
            return self.hinder(RustReason::about(Why::MissingValue, argument));
        };
        self.words.push(vec![Part::Text(argument.to_owned())]);
        self.value(class, "", value);
    }

    /// One word: `before`, which is text, and a value.
    fn value(&mut self, class: Class, before: &str, value: &str) {
        match self.parts(class, value) {
            Ok(mut parts) => {
                if !before.is_empty() {
                    parts.insert(0, Part::Text(before.to_owned()));
                }
                self.words.push(parts);
            }
            Err(reason) => self.hinder(reason),
        }
    }

    fn parts(&mut self, class: Class, value: &str) -> Result<Word, RustReason> {
        let text = || vec![Part::Text(value.to_owned())];
        let path = || vec![Part::Path(value.to_owned())];
        let unknown = || RustReason::about(Why::UnknownValue, value);
        match class {
            Class::Local(why) => Err(RustReason::about(why, value)),
            Class::Lint if value == "help" => Err(RustReason::about(Why::NotACompile, value)),
            Class::PlainPath => Ok(path()),
            Class::CrateName => {
                self.crate_name = Some(value.to_owned());
                Ok(text())
            }
            Class::CrateType => {
                for word in value.split(',') {
                    self.crate_types.push(crate_type(word).ok_or_else(unknown)?);
                }
                Ok(text())
            }
            Class::Emit => self.emit(value),
            Class::Output => {
                self.output = Some(value.to_owned());
                Ok(path())
            }
            Class::OutDir => {
                self.out_dir = Some(value.to_owned());
                Ok(path())
            }
            Class::Extern => Ok(self.external(value)),
            Class::SearchPath => self.search_path(value),
            Class::NativeLibrary => self.library(value),
            Class::Target if has_suffix(value, ".json") => {
                self.target = Some(Target::Specification(value.into()));
                self.read_files.push(value.to_owned());
                Ok(path())
            }
            Class::Target => {
                self.target = Some(Target::Triple(value.to_owned()));
                Ok(text())
            }
            Class::ErrorFormat => {
                self.json_messages = value == "json";
                if matches!(value, "human" | "json" | "short") { Ok(text()) } else { Err(unknown()) }
            }
            Class::Json => {
                self.artifact_messages |= value.split(',').any(|word| word == "artifacts");
                if value.split(',').all(is_known_json) { Ok(text()) } else { Err(unknown()) }
            }
            Class::Color => {
                self.color_given = value != "auto";
                if matches!(value, "auto" | "always" | "never") { Ok(text()) } else { Err(unknown()) }
            }
            Class::RemapPrefix => {
                let (from, to) = value.rsplit_once('=').ok_or_else(unknown)?;
                self.remapped.push(from.to_owned());
                Ok(vec![Part::Path(from.to_owned()), Part::Text(format!("={to}"))])
            }
            Class::Sysroot => {
                self.sysroot = Some(value.to_owned());
                Ok(path())
            }
            Class::Codegen => self.sub_option(CODEGEN.as_slice(), value),
            Class::Unstable => self.sub_option(UNSTABLE.as_slice(), value),
            _ => Ok(text()),
        }
    }

    fn emit(&mut self, value: &str) -> Result<Word, RustReason> {
        let mut parts = Vec::new();
        for (index, word) in value.split(',').enumerate() {
            let (kind, path) = match word.split_once('=') {
                Some((kind, path)) => (kind, Some(path)),
                None => (word, None),
            };
            let comma = if index == 0 { "" } else { "," };
            let known = emit_kind(kind).ok_or_else(|| RustReason::about(Why::UnknownValue, word))?;
            match path {
                Some(path) => {
                    parts.extend([Part::Text(format!("{comma}{kind}=")), Part::Path(path.to_owned())]);
                }
                None => parts.push(Part::Text(format!("{comma}{kind}"))),
            }
            // The last one counts, as in rustc.
            self.emits.retain(|emit| emit.kind != known);
            self.emits.push(Emit { kind: known, path: path.map(Into::into) });
        }
        Ok(parts)
    }

    fn external(&mut self, value: &str) -> Word {
        let (name, path) = match value.split_once('=') {
            Some((name, path)) => (name, Some(path)),
            None => (value, None),
        };
        let (options, plain) = match name.split_once(':') {
            Some((options, plain)) => (options.split(',').map(str::to_owned).collect(), plain),
            None => (Vec::new(), name),
        };
        self.externs.push(Extern { name: plain.to_owned(), options, path: path.map(Into::into) });
        match path {
            Some(path) => vec![Part::Text(format!("{name}=")), Part::Path(path.to_owned())],
            None => vec![Part::Text(name.to_owned())],
        }
    }

    fn search_path(&mut self, value: &str) -> Result<Word, RustReason> {
        let kinds = [
            ("dependency=", SearchPathKind::Dependency),
            ("crate=", SearchPathKind::Crate),
            ("native=", SearchPathKind::Native),
            ("framework=", SearchPathKind::Framework),
            ("all=", SearchPathKind::All),
        ];
        let named = kinds.iter().find_map(|(word, kind)| Some((*word, *kind, value.strip_prefix(word)?)));
        let (word, kind, path) = named.unwrap_or(("", SearchPathKind::All, value));
        if path.is_empty() || path.starts_with('@') {
            return Err(RustReason::about(Why::UnknownValue, value));
        }
        self.search.push(SearchPath { kind, path: path.into() });
        Ok(vec![Part::Text(word.to_owned()), Part::Path(path.to_owned())])
    }

    fn library(&mut self, value: &str) -> Result<Word, RustReason> {
        let (kind, name) = match value.split_once('=') {
            Some((kind, name)) => (Some(kind), name),
            None => (None, value),
        };
        let (kind, modifiers) = match kind.and_then(|kind| kind.split_once(':')) {
            Some((kind, modifiers)) => (Some(kind), modifiers.split(',').map(str::to_owned).collect()),
            None => (kind, Vec::new()),
        };
        // With a new name behind it, as in `-l foo:bar`, the file is another one's.
        let name = name.split_once(':').map_or(name, |(_, renamed)| renamed);
        let known = matches!(kind, None | Some("static" | "dylib" | "framework" | "link-arg"));
        if !known || kind == Some("link-arg") || name.is_empty() || name.contains('/') {
            return Err(RustReason::about(Why::UnknownValue, value));
        }
        self.libraries.push(LibraryOption { kind: kind.map(str::to_owned), modifiers, name: name.to_owned() });
        Ok(vec![Part::Text(value.to_owned())])
    }

    /// `-C name=value`, `-Z name`.
    fn sub_option(&mut self, table: &[option_table::SubOption], word: &str) -> Result<Word, RustReason> {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let class = option_table::sub_class(table, name).ok_or_else(|| RustReason::about(Why::UnknownOption, word))?;
        let mut parts = self.sub_parts(class, word, value)?;
        if let Some(value) = value {
            let name = word.strip_suffix(value).unwrap_or(word);
            parts.insert(0, Part::Text(name.to_owned()));
        } else {
            parts = vec![Part::Text(word.to_owned())];
        }
        Ok(parts)
    }

    /// The parts of a value, which stand behind `name=`.
    fn sub_parts(&mut self, class: Class, word: &str, value: Option<&str>) -> Result<Word, RustReason> {
        let given = value.unwrap_or_default();
        let text = || vec![Part::Text(given.to_owned())];
        let about = |why| Err(RustReason::about(why, word));
        match class {
            Class::Local(why) => return about(why),
            Class::LocalUnlessOff(why) if !value.is_some_and(is_off) => return about(why),
            Class::LocalUnlessSwitch(why) if !value.is_none_or(|value| is_off(value) || is_on(value)) => {
                return about(why);
            }
            Class::DebugInfo => self.has_debuginfo = !matches!(given, "0" | "none"),
            Class::SplitDebugInfo => self.split_debuginfo = Some(given.to_owned()),
            Class::CodegenUnits => self.codegen_units = Some(given.to_owned()),
            Class::ExtraFilename => given.clone_into(&mut self.extra_filename),
            Class::Incremental => {
                self.incremental = Some(given.to_owned());
                return Ok(vec![Part::Session]);
            }
            Class::Linker => {
                self.linker = Some(given.to_owned());
                return Ok(if given.contains('/') { vec![Part::Path(given.to_owned())] } else { text() });
            }
            Class::ReadFile => {
                self.read_files.push(given.to_owned());
                return Ok(vec![Part::Path(given.to_owned())]);
            }
            Class::PlainPath => return Ok(vec![Part::Path(given.to_owned())]),
            Class::LinkArgument => return Ok(self.link_argument(given)),
            Class::LinkArguments => {
                let mut parts = Vec::new();
                for (index, argument) in given.split_whitespace().enumerate() {
                    if index > 0 {
                        parts.push(Part::Text(" ".to_owned()));
                    }
                    parts.extend(self.link_argument(argument));
                }
                return Ok(parts);
            }
            Class::LlvmArguments if !link_arguments::llvm_is_harmless(given) => return about(Why::Dump),
            Class::Processor if given == "native" => {
                self.asks_machine = true;
                return Ok(vec![Part::Machine]);
            }
            _ => {}
        }
        Ok(text())
    }

    fn link_argument(&mut self, argument: &str) -> Word {
        let before = self.link_arguments.last().cloned();
        self.link_arguments.push(argument.to_owned());
        match link_arguments::weigh(argument, before.as_deref()) {
            link_arguments::Weight::Text => vec![Part::Text(argument.to_owned())],
            link_arguments::Weight::Reads { before, path, after } => {
                self.read_files.push(path.clone());
                vec![Part::Text(before), Part::Path(path), Part::Text(after)]
            }
            link_arguments::Weight::Unknown(why) => {
                self.link_obstacle.get_or_insert(RustReason::about(why, argument));
                vec![Part::Text(argument.to_owned())]
            }
        }
    }
}

fn has_suffix(text: &str, suffix: &str) -> bool {
    text.ends_with(suffix)
}

fn is_known_json(word: &str) -> bool {
    matches!(
        word,
        "diagnostic-short"
            | "diagnostic-rendered-ansi"
            | "diagnostic-unicode"
            | "artifacts"
            | "unused-externs"
            | "unused-externs-silent"
            | "future-incompat"
    )
}

fn crate_type(word: &str) -> Option<CrateType> {
    Some(match word {
        "bin" => CrateType::Bin,
        "lib" => CrateType::Lib,
        "rlib" => CrateType::Rlib,
        "dylib" => CrateType::Dylib,
        "cdylib" => CrateType::Cdylib,
        "staticlib" => CrateType::Staticlib,
        "proc-macro" => CrateType::ProcMacro,
        _ => return None,
    })
}

fn emit_kind(word: &str) -> Option<EmitKind> {
    Some(match word {
        "asm" => EmitKind::Assembly,
        "llvm-bc" => EmitKind::Bitcode,
        "dep-info" => EmitKind::DepInfo,
        "link" => EmitKind::Link,
        "llvm-ir" => EmitKind::LlvmIr,
        "metadata" => EmitKind::Metadata,
        "mir" => EmitKind::Mir,
        "obj" => EmitKind::Object,
        "thin-link-bitcode" => EmitKind::ThinLinkBitcode,
        _ => return None,
    })
}
