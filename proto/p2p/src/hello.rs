//! The exchange of memberships on a fresh connection.
//!
//! The dialler opens a stream, shows its membership and reads the listener's. Each step is one bounded read or write under a time
//! limit, run outside the event loop. Not here: what makes a membership good ([`crate::admission`]).

use std::future::Future;
use std::time::Duration;

use buildbee_proto::codec::{Bytes, Message};
use buildbee_proto::control::{Hello, HelloReply};
use buildbee_proto::error::{ErrorCode, Retry, WireError};
use buildbee_proto::version::Protocol;
use tokio::sync::oneshot;

use crate::admission::AdmissionError;
use crate::carrier::Carrier;
use crate::frames::{FrameError, read_message, write_message};
use crate::peer_stream::PeerStream;
use crate::streams::{OpenFailure, Opened};

/// For how long one side's part of the exchange may take.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// What the dialler got.
#[derive(Debug)]
pub(crate) enum Greeting {
    /// The listener's membership, not checked yet.
    Welcome(Bytes),
    /// The listener does not want us.
    Refused(WireError),
    /// No answer; worth another try on the same connection.
    Lost(String),
    /// The other side does not speak our protocol at all.
    Unsupported,
}

/// The dialler's part: shows `membership` on the stream that `opening` brings.
pub(crate) async fn greet(opening: oneshot::Receiver<Opened>, membership: Bytes, carrier: Carrier) -> Greeting {
    let exchange = async {
        let stream = match opening.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(OpenFailure::Unsupported)) => return Greeting::Unsupported,
            Ok(Err(OpenFailure::Lost(reason))) => return Greeting::Lost(reason),
            Err(_) => return Greeting::Lost("the connection was closed".to_owned()),
        };
        let mut stream = PeerStream::new(Protocol::Hello, stream, carrier);
        let hello = Hello { membership, features: 0 };
        let asked = async {
            write_message(&mut stream, &hello).await?;
            read_message::<HelloReply, _>(&mut stream).await
        };
        match asked.await {
            Ok(Some(HelloReply::Welcome(theirs))) => Greeting::Welcome(theirs.membership),
            Ok(Some(HelloReply::Refused(error))) => Greeting::Refused(error),
            Ok(None) => Greeting::Lost("the stream ended without an answer".to_owned()),
            Err(error) => Greeting::Lost(error.to_string()),
        }
    };
    tokio::time::timeout(HELLO_TIMEOUT, exchange)
        .await
        .unwrap_or_else(|_| Greeting::Lost("no answer in time".to_owned()))
}

/// The listener's first part: reads what the dialler shows.
pub(crate) async fn listen(stream: &mut PeerStream) -> Option<Bytes> {
    let read = read_message::<Hello, _>(stream);
    match tokio::time::timeout(HELLO_TIMEOUT, read).await {
        Ok(Ok(Some(hello))) => Some(hello.membership),
        _ => None,
    }
}

/// The listener's second part, once the event loop has admitted the dialler (who may open streams the moment it reads this).
pub(crate) async fn welcome(stream: PeerStream, membership: Bytes) {
    answer(stream, &HelloReply::Welcome(Hello { membership, features: 0 })).await;
}

/// The listener's other second part.
pub(crate) async fn refuse(stream: PeerStream, reason: &AdmissionError) {
    answer(stream, &HelloReply::Refused(WireError::new(ErrorCode::Refused, Retry::Never, reason))).await;
}

async fn answer<M: Message>(mut stream: PeerStream, message: &M) {
    // A dialler that has gone away needs no answer, and one that got none asks again.
    let _ = within(async {
        write_message(&mut stream, message).await?;
        tokio::io::AsyncWriteExt::shutdown(&mut stream).await.map_err(FrameError::Io)
    })
    .await;
}

async fn within<T>(step: impl Future<Output = Result<T, FrameError>>) -> Option<T> {
    tokio::time::timeout(HELLO_TIMEOUT, step).await.ok()?.ok()
}
