//! Reads arguments one by one into what they say together. Does not weigh it: that is [`decide`](super::decide)'s job.

use std::path::PathBuf;

use super::arg_table::{Attached, Class, KnownOption, When, lookup};
use super::language::{self, Written};
use super::outputs::{Existing, Output, SideFile, Stage};
use super::profile::Profile;
use super::reason::{Reason, ReasonKind};
use super::request::{CompilerFamily, DepFile, DepKind, NamedInput, SearchDirectory, SearchKind};
use super::sub_arguments;
use super::terminal::Diagnostics;
use super::time_words::TimeWords;

/// An argument that is a file.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) spelled: String,
    /// What the last `-x` before it said; `None` for "by its suffix".
    pub(super) language: Option<Result<Written, ReasonKind>>,
}

/// What the arguments say.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "one for each thing that a command line says or does not say")]
pub(super) struct Parsed {
    /// A mode that is no compile.
    pub(super) mode: Option<Reason>,
    /// The first thing that keeps a compile here.
    pub(super) obstacle: Option<Reason>,
    /// How far the command goes; `None`: it links.
    pub(super) stage: Option<Stage>,
    pub(super) emits_llvm: bool,
    pub(super) inputs: Vec<Input>,
    pub(super) object: Option<String>,
    pub(super) dep_kind: Option<DepKind>,
    pub(super) dep_path: Option<String>,
    /// `-MT`, `-MQ` or `-MP` without `-Wp,`.
    pub(super) dep_detail: bool,
    /// A dependency file asked for through `-Wp,`.
    pub(super) preprocessor_depfile: Option<DepFile>,
    pub(super) side_files: Vec<SideFile>,
    /// Outputs that other options than `-o` and `-MF` name.
    pub(super) named_outputs: Vec<Output>,
    pub(super) named_inputs: Vec<NamedInput>,
    pub(super) profile: Profile,
    /// The next argument for clang's compiler proper is the value of the last.
    frontend_value: bool,
    /// The assembler makes a listing.
    lists: bool,
    /// The listing has headings with the name of a temporary file.
    pub(super) has_headings: bool,
    pub(super) explicit_inputs: Vec<PathBuf>,
    pub(super) search_directories: Vec<SearchDirectory>,
    pub(super) diagnostics: Diagnostics,
    /// Words that are common macros here, or none.
    pub(super) redefined: TimeWords,
    /// An option's meaning depends on this machine's processor.
    pub(super) asks_machine: bool,
    /// gcc puts a random number into the object.
    pub(super) randomised: bool,
    pub(super) random_seed: bool,
    pub(super) include_arguments: Vec<String>,
    pub(super) key_arguments: Vec<String>,
    explicit_language: Option<Result<Written, ReasonKind>>,
    family: CompilerFamily,
}

/// One option with its value, as the user spelled it.
struct Spelled<'a> {
    argument: &'a str,
    /// The value where it is the next argument.
    separate: Option<&'a str>,
    value: &'a str,
}

/// Reads all arguments. Goes on after the first obstacle: a mode that comes later is the better reason.
pub(super) fn parse(argv: &[String], family: CompilerFamily) -> Parsed {
    let mut parsed = Parsed::new(family);
    let mut arguments = argv.iter().map(String::as_str);
    while let Some(argument) = arguments.next() {
        if argument == "-" || !argument.starts_with('-') {
            let language = parsed.explicit_language;
            parsed.key_arguments.push(argument.to_owned());
            parsed.inputs.push(Input { spelled: argument.to_owned(), language });
            continue;
        }
        let Some(option) = lookup(argument, family) else {
            parsed.obstacle(ReasonKind::UnknownOption, argument);
            continue;
        };
        let joined = &argument[option.name_bytes..];
        let separate = match option.attached {
            Attached::None | Attached::Joined => None,
            Attached::JoinedOrSeparate if !joined.is_empty() => None,
            Attached::Separate | Attached::JoinedOrSeparate => {
                let Some(next) = arguments.next() else {
                    parsed.obstacle(ReasonKind::MissingValue, argument);
                    break;
                };
                Some(next)
            }
        };
        let spelled = Spelled { argument, separate, value: separate.unwrap_or(joined) };
        parsed.option(option, &spelled);
    }
    parsed
}

impl Parsed {
    fn new(family: CompilerFamily) -> Self {
        Self {
            mode: None,
            obstacle: None,
            stage: None,
            emits_llvm: false,
            inputs: Vec::new(),
            object: None,
            dep_kind: None,
            dep_path: None,
            dep_detail: false,
            preprocessor_depfile: None,
            side_files: Vec::new(),
            named_outputs: Vec::new(),
            named_inputs: Vec::new(),
            profile: Profile::default(),
            frontend_value: false,
            lists: false,
            has_headings: false,
            explicit_inputs: Vec::new(),
            search_directories: Vec::new(),
            diagnostics: Diagnostics::default(),
            redefined: TimeWords::default(),
            asks_machine: false,
            randomised: false,
            random_seed: false,
            include_arguments: Vec::new(),
            key_arguments: Vec::new(),
            explicit_language: None,
            family,
        }
    }

    fn obstacle(&mut self, kind: ReasonKind, argument: &str) {
        self.obstacle.get_or_insert_with(|| Reason::about(kind, argument));
    }

    fn option(&mut self, option: KnownOption, spelled: &Spelled<'_>) {
        match option.class {
            Class::Stage(stage) => {
                self.stage = self.stage.max(Some(stage));
                self.keep_for_key(spelled);
            }
            Class::EmitLlvm => {
                self.emits_llvm = true;
                self.keep_for_key(spelled);
            }
            Class::Mode(kind) => {
                self.mode.get_or_insert_with(|| Reason::about(kind, spelled.argument));
            }
            Class::Local(kind) => self.obstacle(kind, spelled.argument),
            Class::Output | Class::DepMode(_) | Class::DepFile | Class::DepDetail => {
                self.output(option.class, &spelled.argument[..option.name_bytes], spelled);
            }
            Class::Side(_) | Class::NamedOutput(_) | Class::ReadFile | Class::ProfileUse | Class::ProfileFolder => {
                self.file(option.class, spelled);
            }
            Class::Frontend => self.frontend(spelled),
            Class::Preprocessor => self.preprocessor(spelled),
            Class::Language => {
                self.explicit_language = (spelled.value != "none").then(|| language::from_option(spelled.value));
                self.keep_for_key(spelled);
            }
            Class::Macro => {
                self.redefined |= TimeWords::redefined_by(spelled.value);
                self.keep_for_both(spelled);
            }
            Class::Search(kind) => self.search(kind, spelled),
            Class::IncludeFile => {
                self.explicit_inputs.push(PathBuf::from(spelled.value));
                self.keep_for_both(spelled);
            }
            Class::Processor if spelled.value.starts_with("native") => {
                self.asks_machine = true;
                self.keep_for_both(spelled);
            }
            Class::Target
                if ["windows", "win32", "msvc", "darwin", "apple"].iter().any(|os| spelled.value.contains(os)) =>
            {
                self.obstacle(ReasonKind::Traditional, spelled.argument);
            }
            Class::Assembler => self.assembler(spelled),
            Class::Color(_)
            | Class::Urls(_)
            | Class::Plain
            | Class::MessageLength
            | Class::DiagnosticsFormat
            | Class::RecordsCommand => self.diagnostics(option.class, spelled),
            Class::Randomised => {
                self.randomised = true;
                self.keep_for_both(spelled);
            }
            Class::RandomSeed => {
                self.random_seed = true;
                self.keep_for_both(spelled);
            }
            Class::PassThrough | Class::Processor | Class::Target => {
                self.keep_for_both(spelled);
            }
        }
    }

    /// What messages look like.
    fn diagnostics(&mut self, class: Class, spelled: &Spelled<'_>) {
        match class {
            Class::Color(when) => self.diagnostics.color = self.when(when, spelled),
            Class::Urls(when) => self.diagnostics.urls = self.when(when, spelled),
            Class::Plain => {
                self.diagnostics.color = Some(When::Never);
                self.diagnostics.urls = Some(When::Never);
                self.keep_for_both(spelled);
            }
            Class::MessageLength => {
                match spelled.value.parse() {
                    Ok(length) => self.diagnostics.message_length = Some(length),
                    Err(_) => self.obstacle(ReasonKind::UnknownOption, spelled.argument),
                }
                self.keep_for_both(spelled);
            }
            Class::RecordsCommand => {
                self.diagnostics.records_command = true;
                self.keep_for_both(spelled);
            }
            Class::DiagnosticsFormat => {
                if spelled.value.ends_with("-file") {
                    self.obstacle(ReasonKind::ExtraOutput, spelled.argument);
                }
                self.keep_for_both(spelled);
            }
            _ => {}
        }
    }

    fn keep_for_key(&mut self, spelled: &Spelled<'_>) {
        self.key_arguments.push(spelled.argument.to_owned());
        self.key_arguments.extend(spelled.separate.map(str::to_owned));
    }

    fn keep_for_both(&mut self, spelled: &Spelled<'_>) {
        self.keep_for_key(spelled);
        self.include_arguments.push(spelled.argument.to_owned());
        self.include_arguments.extend(spelled.separate.map(str::to_owned));
    }

    fn output(&mut self, class: Class, name: &str, spelled: &Spelled<'_>) {
        match class {
            Class::DepMode(kind) => {
                // Both together list everything.
                if self.dep_kind != Some(DepKind::All) {
                    self.dep_kind = Some(kind);
                }
                self.key_arguments.push(name.to_owned());
                return;
            }
            Class::DepDetail => {
                self.dep_detail = true;
                self.key_arguments.push(name.to_owned());
                // -MP has no value.
                self.key_arguments.extend((!spelled.value.is_empty()).then(|| spelled.value.to_owned()));
                return;
            }
            _ => {}
        }
        let slot = if class == Class::Output { &mut self.object } else { &mut self.dep_path };
        if slot.replace(spelled.value.to_owned()).is_some() {
            self.obstacle(ReasonKind::RepeatedOutput, spelled.argument);
        }
        self.key_arguments.extend([name.to_owned(), spelled.value.to_owned()]);
    }

    /// Files beside sources, objects and dependency files. Questions to the compiler do without these options: none of them changes what
    /// is included.
    fn file(&mut self, class: Class, spelled: &Spelled<'_>) {
        self.keep_for_key(spelled);
        let value = (!spelled.value.is_empty()).then(|| spelled.value.to_owned());
        match class {
            Class::Side(file) => {
                self.side_files.push(file);
                self.profile.notes |= file == SideFile::CoverageNotes;
                self.randomised |= file == SideFile::CoverageNotes;
            }
            Class::NamedOutput(existing) => match &value {
                Some(path) => self.named_outputs.push(Output::named(path, existing)),
                None => self.obstacle(ReasonKind::MissingValue, spelled.argument),
            },
            Class::ReadFile => match value {
                Some(path) => self.named_inputs.push(NamedInput::read(path)),
                None => self.obstacle(ReasonKind::MissingValue, spelled.argument),
            },
            Class::ProfileUse => {
                self.profile.used = true;
                self.profile.folder = value.clone().or(self.profile.folder.take());
                self.profile.place = value;
            }
            Class::ProfileFolder => {
                self.randomised = true;
                self.profile.folder = value;
            }
            _ => {}
        }
    }

    fn frontend(&mut self, spelled: &Spelled<'_>) {
        self.keep_for_both(spelled);
        match sub_arguments::frontend(spelled.value, self.frontend_value) {
            Some(value_follows) => self.frontend_value = value_follows,
            None => self.obstacle(ReasonKind::PassedThrough, spelled.value),
        }
    }

    fn assembler(&mut self, spelled: &Spelled<'_>) {
        self.keep_for_both(spelled);
        let Some(found) = sub_arguments::assembler(spelled.value, self.family) else {
            self.obstacle(ReasonKind::PassedThrough, spelled.argument);
            return;
        };
        let Some(listing) = found.listing else { return };
        if std::mem::replace(&mut self.lists, true) {
            self.obstacle(ReasonKind::RepeatedOutput, spelled.argument);
        }
        self.has_headings |= listing.has_heading;
        self.named_outputs.extend(listing.file.map(|file| Output::named(&file, Existing::Kept)));
    }

    fn preprocessor(&mut self, spelled: &Spelled<'_>) {
        let Some(found) = sub_arguments::preprocessor(spelled.value, self.family) else {
            self.obstacle(ReasonKind::PassedThrough, spelled.argument);
            return;
        };
        self.keep_for_key(spelled);
        if !found.macros.is_empty() {
            self.include_arguments.push(format!("-Wp,{}", found.macros.join(",")));
        }
        match found.depfile {
            Some((kind, path)) => {
                let depfile = DepFile { path: PathBuf::from(path), kind };
                if self.preprocessor_depfile.replace(depfile).is_some() {
                    self.obstacle(ReasonKind::RepeatedOutput, spelled.argument);
                }
            }
            None if found.dep_detail => self.obstacle(ReasonKind::DependencyOptions, spelled.argument),
            None => {}
        }
    }

    fn search(&mut self, kind: SearchKind, spelled: &Spelled<'_>) {
        if spelled.value.is_empty() {
            self.obstacle(ReasonKind::MissingValue, spelled.argument);
        }
        if spelled.value.starts_with('=') || spelled.value.starts_with("$SYSROOT") {
            self.obstacle(ReasonKind::IncludePrefix, spelled.argument);
        }
        self.search_directories.push(SearchDirectory { kind, path: PathBuf::from(spelled.value) });
        self.keep_for_both(spelled);
    }

    fn when(&mut self, when: When, spelled: &Spelled<'_>) -> Option<When> {
        self.keep_for_both(spelled);
        if when != When::Value {
            return Some(when);
        }
        match spelled.value {
            "always" => Some(When::Always),
            "never" => Some(When::Never),
            "auto" => Some(When::Auto),
            _ => {
                self.obstacle(ReasonKind::UnknownOption, spelled.argument);
                None
            }
        }
    }
}
