//! `buildbee explain`: which actions are meant, and how much of them is shown.

use std::path::Path;

use buildbee_proto::local::AdminCall;
use serde_json::Value;

use super::arguments::Listing;
use super::ask::{AskError, Start, ask};
use super::documents;
use super::run::print;
use crate::compiler::places::absolute;
use crate::config::Settings;
use crate::exit::Failure;
use crate::ui;

/// Actions shown in short.
const BRIEF: u32 = 20;

/// Asks and prints. What is not running remembers nothing, so no daemon is started for it.
pub(super) fn run(settings: &Settings, listing: Listing, file: Option<&str>, last: Option<u32>) -> Result<u8, Failure> {
    let asked = |filter: Option<String>, limit| -> Result<Value, AskError> {
        let json = ask(&settings.socket, AdminCall::Explain { filter, limit }, Start::Never)?;
        documents::parse(&json).ok_or(AskError::Nonsense)
    };
    let Some(file) = file else {
        let render = if last.is_some() { ui::explain::full } else { ui::explain::brief };
        return print(asked(None, last.unwrap_or(BRIEF))?, listing, render);
    };
    let mut document = Value::Null;
    for filter in meanings(file) {
        document = asked(Some(filter), last.unwrap_or(1))?;
        if document["actions"].as_array().is_some_and(|actions| !actions.is_empty()) {
            break;
        }
    }
    print(document, listing, ui::explain::full)
}

/// What a user may mean by `file`, likeliest first: the file itself, by its real path or as spelled, or a part of a name.
fn meanings(file: &str) -> Vec<String> {
    let spelled = std::env::current_dir().ok().map(|cwd| absolute(&cwd, Path::new(file)));
    let folder = |path: &Path| Some((path.parent()?.canonicalize().ok()?, path.file_name()?.to_owned()));
    let real = spelled.as_deref().and_then(folder).map(|(folder, name)| folder.join(name));
    let mut found: Vec<String> =
        [real, spelled].into_iter().flatten().filter_map(|path| path.to_str().map(str::to_owned)).collect();
    found.push(file.to_owned());
    found.dedup();
    found
}
