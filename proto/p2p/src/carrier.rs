//! What a stream has to know of the connection that carries it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::link_speed::Ends;
use crate::worth::Worth;

/// One connection, for its streams. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Carrier {
    /// Ends when the connection is given up.
    pub(crate) gone: CancellationToken,
    /// Whether packing pays on it.
    pub(crate) worth: Arc<Worth>,
}

impl Carrier {
    /// A connection between `ends`; without them, all that can be packed is.
    pub(crate) fn new(ends: Option<Ends>) -> Self {
        Self { gone: CancellationToken::new(), worth: Arc::new(Worth::new(ends)) }
    }
}
