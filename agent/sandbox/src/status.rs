//! Reads what a command's process wrote to its status pipe: our own report of a failed step, or bubblewrap's status documents.

use buildbee_proto::codec::{FRAME_HEADER_BYTES, from_body, to_frame};
use serde::Deserialize;

use crate::wire::StepFailure;

/// Bytes read from one status pipe; bubblewrap writes some 200.
pub(crate) const MAX_STATUS_BYTES: usize = 4096;
/// First byte of our own report; a document begins with a brace.
const OWN_REPORT: u8 = 0;

/// What is known of a command that has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) failure: Option<StepFailure>,
    /// First process inside, by its id outside.
    pub(crate) init: Option<i32>,
    pub(crate) code: Option<i32>,
}

/// One of bubblewrap's documents.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Document {
    child_pid: Option<i32>,
    exit_code: Option<i32>,
}

/// Our own report of `failure`.
pub(crate) fn report(failure: StepFailure) -> Vec<u8> {
    let mut bytes = vec![OWN_REPORT];
    bytes.extend(to_frame(&failure).unwrap_or_default());
    bytes
}

/// What `bytes` tell; what can't be read tells nothing.
pub(crate) fn parse(bytes: &[u8]) -> Status {
    let mut status = Status::default();
    if let Some((&OWN_REPORT, frame)) = bytes.split_first() {
        status.failure = frame.get(FRAME_HEADER_BYTES..).and_then(|body| from_body(body).ok());
        return status;
    }
    for document in serde_json::Deserializer::from_slice(bytes).into_iter::<Document>() {
        let Ok(document) = document else { break };
        status.init = document.child_pid.filter(|pid| *pid > 1).or(status.init);
        status.code = document.exit_code.or(status.code);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Step;

    #[test]
    fn documents_of_bubblewrap() {
        let whole = b"{ \"child-pid\": 71, \"mnt-namespace\": 4026531840 }\n{ \"exit-code\": 3 }\n";
        assert_eq!(parse(whole), Status { failure: None, init: Some(71), code: Some(3) });
        let begun = &whole[..whole.len() - 4];
        assert_eq!(parse(begun), Status { failure: None, init: Some(71), code: None });
    }

    #[test]
    fn own_report() {
        let failure = StepFailure { step: Step::Overlay, errno: 1 };
        assert_eq!(parse(&report(failure)).failure, Some(failure));
    }

    #[test]
    fn nonsense_tells_nothing() {
        for bytes in
            [&b""[..], b"\0", b"\0\0\0\0\0\xff", b"x", b"[1]", b"{ \"child-pid\": 0 }", b"{ \"child-pid\": -1 }"]
        {
            assert_eq!(parse(bytes), Status::default(), "{bytes:?}");
        }
    }
}
