//! Fixed values of everything that is hashed, signed or sent, every variant of every enum included.
//!
//! The values are the golden ones: changing them changes `proto/golden/`. Add new ones at the end.

pub(crate) mod content;
pub(crate) mod messages;

use buildbee_proto::canonical::Canonical;
use buildbee_proto::codec::{FRAME_HEADER_BYTES, Message, from_body, to_frame};

/// Decodes, and encodes again.
pub(crate) type Reencode = fn(&[u8]) -> Result<Vec<u8>, String>;

/// One value with its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// Type, variant and what is special about it.
    pub name: String,
    /// Its type alone.
    pub kind: &'static str,
    /// The canonical encoding, or the body of the frame.
    pub bytes: Vec<u8>,
    /// Most bytes that its kind may have; the decoder's callers hold content to similar bounds.
    pub max_bytes: usize,
    /// The decoder of its type.
    pub reencode: Reencode,
}

fn kind_of<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    // `Signed<Ticket>` keeps its argument: cut the path before the outermost name only.
    let outer = name.split('<').next().unwrap_or(name);
    &name[outer.rfind("::").map_or(0, |at| at + 2)..]
}

/// A sample of content. `what` tells it from others of its type.
pub(crate) fn content<T: Canonical>(what: &str, value: &T) -> Sample {
    Sample {
        name: what.to_owned(),
        kind: kind_of::<T>(),
        bytes: value.to_canonical(),
        max_bytes: 16 << 20,
        reencode: |bytes| T::from_canonical(bytes).map(|value| value.to_canonical()).map_err(|error| error.to_string()),
    }
}

/// A sample of a message.
pub(crate) fn message<M: Message>(what: &str, value: &M) -> Sample {
    Sample {
        name: what.to_owned(),
        kind: kind_of::<M>(),
        bytes: body(value),
        max_bytes: M::MAX_BYTES,
        reencode: |bytes| from_body::<M>(bytes).map(|value| body(&value)).map_err(|error| error.to_string()),
    }
}

/// The frame of `value` without its header, which is checked.
pub(crate) fn body<M: Message>(value: &M) -> Vec<u8> {
    let mut frame = to_frame(value).expect("samples fit into frames");
    let body = frame.split_off(FRAME_HEADER_BYTES);
    assert_eq!(frame, u32::try_from(body.len()).expect("small").to_le_bytes(), "the header says the body's length");
    body
}

/// Everything.
pub(crate) fn all() -> Vec<Sample> {
    let mut all = content::samples();
    for (_, group) in messages::groups() {
        all.extend(group);
    }
    all
}
