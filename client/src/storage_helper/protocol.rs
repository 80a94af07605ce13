//! ccache's protocol for storage helpers, version 1: requests read, answers written. Numbers are in the machine's own order.

use std::io;
use std::time::Duration;

use buildbee_proto::limits::MAX_ENTRY_BYTES;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Version, and what can be asked: get, put and remove; info.
const GREETING: [u8; 4] = [1, 2, 0, 1];
/// A request comes whole within this time, and an answer is taken.
const DEADLINE: Duration = Duration::from_secs(60);
/// Longest text of an error or a diagnostic, in bytes.
const MAX_TEXT_BYTES: usize = 255;
/// Memory for a value that has not come yet, in bytes.
const FIRST_ROOM: u64 = 1 << 20;

const OK: u8 = 0;
const NOOP: u8 = 1;
const ERROR: u8 = 2;

/// What ccache wants. A key is never empty and has 255 bytes at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The value.
    Get(Vec<u8>),
    /// To put one.
    Put {
        /// Under which key.
        key: Vec<u8>,
        /// Whether in place of another.
        overwrite: bool,
        /// It.
        value: Vec<u8>,
    },
    /// To take it out.
    Remove(Vec<u8>),
    /// The helper is to end.
    Stop,
    /// What the helper is.
    Info,
    /// What can't be done, and why. The connection goes on.
    Odd(&'static str),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done.
    Done,
    /// The value.
    Value(Vec<u8>),
    /// Nothing there, or something already.
    Noop,
    /// It failed.
    Error(String),
}

/// Says hello.
pub async fn greet<S: AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    send(stream, &GREETING).await
}

/// The next request; `None`: there are no more. Not cancel-safe.
pub async fn receive<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<Request>> {
    let mut kind = [0];
    if stream.read(&mut kind).await? == 0 {
        return Ok(None);
    }
    let rest = async {
        Ok(match kind {
            [0] => of_key(key(stream).await?, Request::Get),
            [1] => put(stream).await?,
            [2] => of_key(key(stream).await?, Request::Remove),
            [3] => Request::Stop,
            [4] => Request::Info,
            // How long it is nobody knows.
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "an unknown request")),
        })
    };
    timeout(DEADLINE, rest).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map(Some)
}

fn of_key(key: Vec<u8>, request: impl FnOnce(Vec<u8>) -> Request) -> Request {
    if key.is_empty() { Request::Odd("the key is empty") } else { request(key) }
}

async fn key<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    let mut key = vec![0; usize::from(stream.read_u8().await?)];
    stream.read_exact(&mut key).await?;
    Ok(key)
}

async fn put<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Request> {
    let key = key(stream).await?;
    let flags = stream.read_u8().await?;
    let mut length = [0; 8];
    stream.read_exact(&mut length).await?;
    let length = u64::from_ne_bytes(length);
    let mut coming = stream.take(length);
    if length > MAX_ENTRY_BYTES {
        // Who sends it does not listen before all of it is gone.
        let skipped = tokio::io::copy(&mut coming, &mut tokio::io::sink()).await?;
        return if skipped == length {
            Ok(Request::Odd("the value is too large"))
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        };
    }
    let mut value = Vec::with_capacity(usize::try_from(length.min(FIRST_ROOM)).unwrap_or(0));
    coming.read_to_end(&mut value).await?;
    if value.len() as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(of_key(key, |key| Request::Put { key, overwrite: flags & 1 == 1, value }))
}

/// Answers all requests but those for information.
pub async fn answer<S: AsyncWrite + Unpin>(stream: &mut S, answer: &Answer) -> io::Result<()> {
    match answer {
        Answer::Done => send(stream, &[OK]).await,
        Answer::Noop => send(stream, &[NOOP]).await,
        Answer::Value(value) => {
            let mut head = [OK; 9];
            head[1..].copy_from_slice(&(value.len() as u64).to_ne_bytes());
            send(stream, &head).await?;
            send(stream, value).await
        }
        Answer::Error(text) => {
            let mut bytes = vec![ERROR];
            push_text(&mut bytes, text);
            send(stream, &bytes).await
        }
    }
}

/// Answers [`Request::Info`].
pub async fn inform<S: AsyncWrite + Unpin>(stream: &mut S, name: &str, diagnostics: &[String]) -> io::Result<()> {
    let mut bytes = Vec::new();
    push_text(&mut bytes, name);
    let n = u8::try_from(diagnostics.len()).unwrap_or(u8::MAX);
    bytes.push(n);
    diagnostics.iter().take(usize::from(n)).for_each(|text| push_text(&mut bytes, text));
    send(stream, &bytes).await
}

/// As much of it as there is room for, whole letters only.
fn push_text(bytes: &mut Vec<u8>, text: &str) {
    let end = (0..=text.len().min(MAX_TEXT_BYTES)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    let text = &text[..end];
    bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    bytes.extend_from_slice(text.as_bytes());
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> io::Result<()> {
    let sending = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    timeout(DEADLINE, sending).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn received(bytes: &[u8]) -> Vec<io::Result<Request>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (mut stream, mut requests) = (bytes, Vec::new());
            while let Some(request) = receive(&mut stream).await.transpose() {
                let is_last = request.is_err();
                requests.push(request);
                if is_last {
                    break;
                }
            }
            requests
        })
    }

    fn understood(bytes: &[u8]) -> Vec<Request> {
        received(bytes).into_iter().map(Result::unwrap).collect()
    }

    fn put_bytes(key: &[u8], flags: u8, value: &[u8]) -> Vec<u8> {
        let n = u8::try_from(key.len()).unwrap();
        [&[1, n][..], key, &[flags], &(value.len() as u64).to_ne_bytes(), value].concat()
    }

    #[test]
    fn requests_are_as_the_specification_has_them() {
        let bytes = [&[0, 2, 7, 8][..], &put_bytes(b"k", 0xfe, b"value"), &[2, 1, 9, 4, 3]].concat();
        let put = Request::Put { key: b"k".to_vec(), overwrite: false, value: b"value".to_vec() };
        let expected = vec![Request::Get(vec![7, 8]), put, Request::Remove(vec![9]), Request::Info, Request::Stop];
        assert_eq!(understood(&bytes), expected);
        let put = understood(&put_bytes(b"k", 1, b""));
        assert_eq!(put, [Request::Put { key: b"k".to_vec(), overwrite: true, value: Vec::new() }]);
        assert_eq!(understood(&[0, 0]), [Request::Odd("the key is empty")]);
    }

    #[test]
    fn what_can_t_be_read_ends_the_connection() {
        assert!(received(&[5]).pop().unwrap().is_err());
        assert!(received(&[0, 3, 1]).pop().unwrap().is_err());
        let whole = put_bytes(b"k", 1, b"value");
        assert!(received(&whole[..whole.len() - 1]).pop().unwrap().is_err());
        let huge = [&[1, 1, 7, 1][..], &u64::MAX.to_ne_bytes(), b"more"].concat();
        assert!(received(&huge).pop().unwrap().is_err());
    }

    #[tokio::test]
    async fn answers_are_as_the_specification_has_them() {
        let mut bytes = Vec::new();
        greet(&mut bytes).await.unwrap();
        for one in [Answer::Done, Answer::Noop, Answer::Error("no".to_owned()), Answer::Value(b"abc".to_vec())] {
            answer(&mut bytes, &one).await.unwrap();
        }
        let expected = [&[1, 2, 0, 1, 0, 1, 2, 2][..], b"no", &[0], &3_u64.to_ne_bytes(), b"abc"].concat();
        assert_eq!(bytes, expected);
        bytes.clear();
        inform(&mut bytes, "me", &["ü".repeat(200)]).await.unwrap();
        assert_eq!(bytes[..5], *b"\x02me\x01\xfe");
        assert_eq!(bytes.len(), 5 + 254, "whole letters only");
    }

    proptest! {
        #[test]
        fn any_bytes_are_borne(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            received(&bytes);
        }
    }
}
