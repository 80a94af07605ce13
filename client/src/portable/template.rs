//! A compile with its folders left open: the action that it is in these, and would be in any others.

use std::path::Path;

use buildbee_proto::action::{Action, Command};
use buildbee_proto::canonical::Canonical;
use buildbee_proto::digest::Digest;
use buildbee_proto::hint::Hint;
use buildbee_proto::limits::MAX_HINT_ROOTS;
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

/// Where the project's folders are when its key is made: where nobody has any.
const NOWHERE: [&str; MAX_HINT_ROOTS] =
    ["buildbee-nowhere/project", "buildbee-nowhere/second", "buildbee-nowhere/third", "buildbee-nowhere/fourth"];

/// A compile whose folders do not matter, as far as can be told beforehand.
#[derive(Debug)]
pub struct Template<'a> {
    roots: Vec<RelPath>,
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
        if let Some(root) = project.roots.iter().find(|root| !root.as_str().bytes().all(is_plain)) {
            return Err(Obstacle::Unusual(format!("/{root}")));
        }
        let spelling = options::check(request, &project.folders(cwd)?)?;
        project.check(read_set)?;
        names::check(&read_set.files, &project, spelling.absolute && !spelling.macros_mapped, hashes)?;
        let no_project = || Obstacle::Root(cwd.display().to_string());
        let tree = Detached::from(&job.inputs.tree, &project.roots).ok_or_else(no_project)?;
        // Their own encodings, just made.
        let command = Command::from_canonical(&job.command_bytes).map_err(|_| no_project())?;
        let action = Action::from_canonical(&job.action_bytes).map_err(|_| no_project())?;
        let kind = Kind { wrapped: kind.wrapped || spelling.wrapped, ..kind };
        let template = Self { roots: project.roots, kind, command, action, tree, job };
        // What does not even lead to itself leads nowhere.
        if template.at(&template.roots).is_some_and(|here| here.action == job.action) {
            Ok(template)
        } else {
            Err(no_project())
        }
    }

    /// The project's folders.
    pub fn roots(&self) -> &[RelPath] {
        &self.roots
    }

    /// How results made in these folders are read.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Names this compile wherever it is.
    pub fn key(&self) -> Option<Digest> {
        self.at(&self.nowhere()?).map(|there| there.action)
    }

    /// This compile, were its project in `roots`. `None` where it could not be.
    pub fn at(&self, roots: &[RelPath]) -> Option<There> {
        let respelling = Respelling::new(&self.roots, roots);
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
        let action = Action { command: command.digest(), input_root: self.tree.at(roots)?, ..self.action.clone() };
        Some(There { action: action.digest(), outputs })
    }

    /// What a hint leads to, if it is true and of use here.
    pub fn follow(&self, hint: &Hint) -> Option<There> {
        // What is looked for in vain here, must not have been looked for in another of its folders there, where it was perhaps found.
        let respelling = Respelling::new(&self.roots, &hint.roots);
        let foreign = |path: &RelPath| {
            respelling.path(path).is_ok_and(|there| innermost(&there, &hint.roots) != innermost(path, &self.roots))
        };
        let usable = hint.roots != self.roots
            && hint.roots.len() == self.roots.len()
            && hint.roots.iter().all(|root| is_project(root) && root.as_str().bytes().all(is_plain))
            && !self.job.inputs.read_set.absent.iter().any(foreign);
        let there = usable.then(|| self.at(&hint.roots)).flatten()?;
        (there.action == hint.action).then_some(there)
    }

    /// What another is told of this compile.
    pub fn hint(&self) -> Hint {
        Hint { roots: self.roots.clone(), action: self.job.action }
    }

    /// From folders to these.
    pub fn respelling_from(&self, roots: &[RelPath]) -> Respelling {
        Respelling::new(roots, &self.roots)
    }

    /// From these folders to some that nobody has: whether a result of this compile is of use anywhere.
    pub fn respelling_away(&self) -> Option<Respelling> {
        Some(Respelling::new(&self.roots, &self.nowhere()?))
    }

    fn nowhere(&self) -> Option<Vec<RelPath>> {
        NOWHERE.iter().take(self.roots.len()).map(|folder| RelPath::try_from(*folder).ok()).collect()
    }
}

/// Which of the folders a path is in.
fn innermost(path: &RelPath, roots: &[RelPath]) -> Option<usize> {
    let around = (0..).zip(roots).filter(|(_, root)| is_below(path, root));
    around.max_by_key(|(_, root)| root.as_str().len()).map(|(at, _)| at)
}

/// Characters that stand for themselves wherever names are written. (A space does not in dependency files, which are left alone then.)
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/._-+@ ".contains(&byte)
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
