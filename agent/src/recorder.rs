//! The recorder as a layer of the sandbox: a folder with its library and an empty log, the same for all actions, which a program's overlay
//! copies when it writes there. What comes of it is read by [`crate::executor::sandboxed`].

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use buildbee_proto::limits::MAX_RECORD_BYTES;
use buildbee_proto::record::{LIBRARY, header};

/// Where the layer has both, below the root: a place that no input has.
const FOLDER: &str = "buildbee.d/recorder";
/// The log's name there.
const LOG: &str = "log";

/// The layer.
#[derive(Clone, Debug)]
pub struct Recorder {
    layer: PathBuf,
}

impl Recorder {
    /// Makes the layer in `layer`, which is empty, of the library beside the program `sandbox`. `None` if there is no library.
    pub fn make(layer: PathBuf, sandbox: &Path) -> io::Result<Option<Self>> {
        let folder = layer.join(FOLDER);
        fs::create_dir_all(&folder)?;
        match fs::copy(sandbox.with_file_name(LIBRARY), folder.join(LIBRARY)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            copied => copied?,
        };
        let mut log = File::create(folder.join(LOG))?;
        log.write_all(&header())?;
        log.set_len(MAX_RECORD_BYTES as u64)?;
        Ok(Some(Self { layer }))
    }

    /// The folder that is to be laid below an action's inputs.
    pub fn layer(&self) -> &Path {
        &self.layer
    }

    /// The library's path in the sandbox.
    pub fn library() -> String {
        format!("/{FOLDER}/{LIBRARY}")
    }

    /// The log's path, without a leading slash.
    pub fn log() -> String {
        format!("{FOLDER}/{LOG}")
    }
}
