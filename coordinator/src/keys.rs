//! `key export`, `key import` and `key delegate`: the farm's key outlives the coordinator's disk.
//!
//! Not here: the text ([`crate::membership::key_file`]), and how the list of members comes back ([`crate::membership::recovery`]).

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use buildbee_proto::limits::MAX_ADDRESSES_PER_PEER;

use crate::cli::{KeyDelegateArgs, KeyExportArgs, KeyImportArgs};
use crate::clock::unix_now;
use crate::commands::{CommandError, date};
use crate::config::Settings;
use crate::membership::farm::{Farm, FarmError};
use crate::membership::key_file::{Keys, MAX_KEY_FILE_BYTES};

/// The name that stands for standard output or input.
const STANDARD: &str = "-";
/// Permission bits of group and others.
const OTHERS: u32 = 0o077;

/// `key export`.
pub fn export(
    settings: &Settings,
    args: &KeyExportArgs,
    out: &mut impl Write,
    notes: &mut impl Write,
) -> Result<(), CommandError> {
    let failed = |source| {
        let hint = "name a file that does not exist yet, in a folder that you may write to";
        CommandError::KeyFile { file: args.file.clone(), source, hint }
    };
    // First of all: root becomes the owner of the state folder, who may write to few places.
    let file = match &args.file {
        file if file == Path::new(STANDARD) => None,
        file => Some(OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(failed)?),
    };
    let farm = Farm::open(&settings.state_dir, unix_now())?;
    let text = farm.keys()?.to_text();
    match file {
        Some(mut file) => file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?,
        None => out.write_all(text.as_bytes()).and_then(|()| out.flush())?,
    }
    writeln!(
        notes,
        "this is the secret key of farm {}: whoever has it can let anybody in. It is not encrypted; keep it where nobody else can \
         read it, and not on this machine's disk alone",
        farm.id().short()
    )?;
    Ok(())
}

/// The keys in a file that `key export` wrote.
fn exported(file: &Path, input: &mut impl Read, notes: &mut impl Write) -> Result<Keys, CommandError> {
    let hint = "name the file that `buildbee-coordinator key export` wrote";
    let failed = |source| CommandError::KeyFile { file: file.to_owned(), source, hint };
    let text = read(file, input, notes).map_err(failed)?;
    Ok(Keys::from_text(&text).ok_or(FarmError::NoKey)?)
}

/// `key delegate`.
pub fn delegate(
    settings: &Settings,
    args: &KeyDelegateArgs,
    input: &mut impl Read,
    notes: &mut impl Write,
) -> Result<(), CommandError> {
    let keys = exported(&args.file, input, notes)?;
    let now = unix_now();
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let expires_at = now.saturating_add(args.signs_for.as_secs());
    let farm = Farm::delegate(&settings.state_dir, &keys, &name, now, expires_at)?;
    writeln!(
        notes,
        "the coordinator of farm {} signs with a key of its own until {}, and the farm's key is no longer in {}; keep {} away from this \
         machine, and give it to this command again before then",
        farm.id().short(),
        date(expires_at),
        settings.state_dir.display(),
        args.file.display(),
    )?;
    Ok(())
}

/// `key import`.
pub fn import(
    settings: &Settings,
    args: &KeyImportArgs,
    input: &mut impl Read,
    notes: &mut impl Write,
) -> Result<(), CommandError> {
    let keys = exported(&args.file, input, notes)?;
    if let Some(address) = args.members.iter().find(|address| !crate::offer::is_address(address)) {
        return Err(CommandError::Address { address: address.clone() });
    }
    if args.members.len() > MAX_ADDRESSES_PER_PEER {
        return Err(CommandError::Addresses { found: args.members.len() });
    }
    let farm = Farm::import(&settings.state_dir, &keys, !args.no_members, &args.members, unix_now())?;
    writeln!(notes, "farm {} is in {} again", farm.id().short(), settings.state_dir.display())?;
    if !args.no_members {
        writeln!(
            notes,
            "its members bring the list of members back as soon as the coordinator runs and one of them calls; tickets that were not used \
             yet count no more"
        )?;
    }
    Ok(())
}

fn read(file: &Path, input: &mut impl Read, notes: &mut impl Write) -> io::Result<String> {
    let mut text = String::new();
    if file == Path::new(STANDARD) {
        input.take(MAX_KEY_FILE_BYTES).read_to_string(&mut text)?;
        return Ok(text);
    }
    let opened = File::open(file)?;
    if opened.metadata()?.mode() & OTHERS != 0 {
        writeln!(notes, "note: others on this machine can read {}", file.display())?;
    }
    opened.take(MAX_KEY_FILE_BYTES).read_to_string(&mut text)?;
    Ok(text)
}
