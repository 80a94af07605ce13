//! Where a daemon's log goes: to standard error, as people read it on a terminal, or as systemd's journal takes it.
//!
//! The journal has its own times, and a level before each line makes `journalctl -p warning` and the colours work. Fields stay in the line, where
//! `journalctl` shows them. Not here: reading the environment.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::format::{Compact, Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, format};
use tracing_subscriber::registry::LookupSpan;

/// Starts the log of this process, of which `filter` says how much is told. `journal_stream`: the variable `JOURNAL_STREAM`.
pub fn start(filter: &str, journal_stream: Option<&str>) -> Result<(), ParseError> {
    let filter = EnvFilter::try_new(filter)?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    if journal_stream.is_some_and(is_standard_error) {
        log.with_ansi(false).event_format(ForJournal::new()).init();
    } else {
        log.with_ansi(io::stderr().is_terminal()).init();
    }
    Ok(())
}

/// Whether `stream` (device and inode, as systemd names them) is what standard error leads to: a pipe may stand between.
fn is_standard_error(stream: &str) -> bool {
    let metadata = io::stderr().as_fd().try_clone_to_owned().and_then(|own| File::from(own).metadata());
    metadata.is_ok_and(|metadata| names(stream, metadata.dev(), metadata.ino()))
}

fn names(stream: &str, device: u64, inode: u64) -> bool {
    stream.split_once(':').is_some_and(|(dev, ino)| dev.parse() == Ok(device) && ino.parse() == Ok(inode))
}

/// Lines as the journal takes them.
#[derive(Debug)]
struct ForJournal(Format<Compact, ()>);

impl ForJournal {
    fn new() -> Self {
        Self(format().compact().without_time().with_level(false).with_target(false).with_ansi(false))
    }
}

impl<S, N> FormatEvent<S, N> for ForJournal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

/// As syslog has them.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn a_stream_is_told_by_device_and_inode() {
        assert!(names("9:1234", 9, 1234));
        for other in ["9:1235", "8:1234", "9", "", "9:1234:1", "a:b"] {
            assert!(!names(other, 9, 1234), "{other}");
        }
    }

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_for_the_journal_have_a_level_and_no_time() {
        let kept = Kept::default();
        let writer = kept.clone();
        let log = tracing_subscriber::fmt()
            .with_ansi(false)
            .event_format(ForJournal::new())
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(log.finish(), || {
            tracing::warn!(peer = "ab12", "was not let in");
            tracing::info!("stopping");
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text, "<4>was not let in peer=\"ab12\"\n<6>stopping\n");
    }
}
