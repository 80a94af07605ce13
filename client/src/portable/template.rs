//! A compile with its folder left open: the action that it is in this folder, and would be in any other.

use std::path::Path;

use buildbee_proto::action::{Action, Command};
use buildbee_proto::canonical::Canonical;
use buildbee_proto::digest::Digest;
use buildbee_proto::hint::Hint;
use buildbee_proto::path::RelPath;

use super::carry::Kind;
use super::respell::{Respelling, is_below};
use super::root::{Project, is_project};
use super::tree::Detached;
use super::{Obstacle, names, options};
use crate::compiler::request::CompileRequest;
use crate::dispatch::job::Job;
use crate::inputs::discover::OutputPlace;
use crate::inputs::filehash::FileHashes;

/// Where the project is when its key is made: a folder that nobody has.
const NOWHERE: &str = "buildbee-nowhere/project";

/// A compile whose folder does not matter, as far as can be told beforehand.
#[derive(Debug)]
pub struct Template<'a> {
    root: RelPath,
    kind: Kind,
    command: Command,
    action: Action,
    tree: Detached<'a>,
    job: &'a Job,
}

/// The same compile in another folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct There {
    /// Its digest.
    pub action: Digest,
    /// Its outputs, sorted by place.
    pub outputs: Vec<OutputPlace>,
}

impl<'a> Template<'a> {
    /// Of `job`, which `request` has led to, in `cwd`.
    pub fn of(job: &'a Job, request: &CompileRequest, cwd: &Path, hashes: &FileHashes) -> Result<Self, Obstacle> {
        if job.through_symlink {
            return Err(Obstacle::Root(job.inputs.logical_directory.display().to_string()));
        }
        if let Some(reason) = &request.here_only {
            return Err(Obstacle::Machine(reason.to_string()));
        }
        let kind = kind(job, request)?;
        let read_set = &job.inputs.read_set;
        let project = Project::of(cwd, request, &options::mapped(request), read_set)?;
        let root = &project.root;
        if !root.as_str().bytes().all(is_plain) {
            return Err(Obstacle::Unusual(format!("/{root}")));
        }
        let spelling = options::check(request, &format!("/{root}"))?;
        project.check(read_set)?;
        names::check(&read_set.files, root, spelling.absolute && !spelling.macros_mapped, hashes)?;
        let no_project = || Obstacle::Root(format!("/{root}"));
        let tree = Detached::from(&job.inputs.tree, root).ok_or_else(no_project)?;
        // Their own encodings, just made.
        let command = Command::from_canonical(&job.command_bytes).map_err(|_| no_project())?;
        let action = Action::from_canonical(&job.action_bytes).map_err(|_| no_project())?;
        let kind = Kind { wrapped: kind.wrapped || spelling.wrapped, ..kind };
        let template = Self { root: project.root, kind, command, action, tree, job };
        // What does not even lead to itself leads nowhere.
        if template.at(&template.root).is_some_and(|here| here.action == job.action) {
            Ok(template)
        } else {
            Err(Obstacle::Root(format!("/{}", template.root)))
        }
    }

    /// The project's folder.
    pub fn root(&self) -> &RelPath {
        &self.root
    }

    /// How results made in this folder are read.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Names this compile wherever it is.
    pub fn key(&self) -> Option<Digest> {
        self.at(&nowhere()?).map(|there| there.action)
    }

    /// This compile, were its project in `root`. `None` where it could not be.
    pub fn at(&self, root: &RelPath) -> Option<There> {
        let respelling = Respelling::new(&self.root, root);
        let place = |path: &RelPath| respelling.path(path).ok();
        let output = |output: &OutputPlace| Some(OutputPlace { place: place(&output.place)?, ..output.clone() });
        let mut outputs: Vec<OutputPlace> = self.job.outputs.iter().map(output).collect::<Option<_>>()?;
        outputs.sort_by(|one, other| one.place.cmp(&other.place));
        let command = Command {
            argv: self.command.argv.iter().map(|argument| respelling.text(argument)).collect(),
            env: self.command.env.iter().map(|(name, value)| (name.clone(), respelling.text(value))).collect(),
            working_directory: place(&self.command.working_directory)?,
            output_files: outputs.iter().map(|output| output.place.clone()).collect(),
            output_directories: Vec::new(),
        };
        let action = Action { command: command.digest(), input_root: self.tree.at(root)?, ..self.action.clone() };
        Some(There { action: action.digest(), outputs })
    }

    /// What a hint leads to, if it is true and of use here.
    pub fn follow(&self, hint: &Hint) -> Option<There> {
        // Its folder must be nothing to this compile: what is looked for in vain there, was perhaps found by the other.
        let foreign = |path: &RelPath| is_below(path, &hint.root) && !is_below(path, &self.root);
        let usable = hint.root != self.root
            && is_project(&hint.root)
            && hint.root.as_str().bytes().all(is_plain)
            && !self.job.inputs.read_set.absent.iter().any(foreign);
        let there = usable.then(|| self.at(&hint.root)).flatten()?;
        (there.action == hint.action).then_some(there)
    }

    /// What another is told of this compile.
    pub fn hint(&self) -> Hint {
        Hint { root: self.root.clone(), action: self.job.action }
    }

    /// From a folder to this one.
    pub fn respelling_from(&self, root: &RelPath) -> Respelling {
        Respelling::new(root, &self.root)
    }

    /// From this folder to one that nobody has: whether a result of this compile is of use anywhere.
    pub fn respelling_away(&self) -> Option<Respelling> {
        Some(Respelling::new(&self.root, &nowhere()?))
    }
}

fn nowhere() -> Option<RelPath> {
    RelPath::try_from(NOWHERE).ok()
}

/// Characters that stand for themselves wherever names are written.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/._-+@".contains(&byte)
}

/// Fails where a compile writes more than an object and a dependency file.
fn kind(job: &Job, request: &CompileRequest) -> Result<Kind, Obstacle> {
    let place = |spelled: &Path| {
        let at = request.outputs.iter().position(|output| output.path == spelled)?;
        job.inputs.outputs.get(at).map(|output| output.place.clone())
    };
    let depfile = match &request.depfile {
        Some(depfile) => Some(place(&depfile.path).ok_or(Obstacle::Outputs)?),
        None => None,
    };
    let n_expected = 1 + usize::from(depfile.is_some());
    if place(&request.object).is_none() || request.outputs.len() != n_expected {
        return Err(Obstacle::Outputs);
    }
    Ok(Kind { family: request.family, depfile, wrapped: request.stderr_is_terminal })
}
