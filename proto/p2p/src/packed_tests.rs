//! What goes in comes out, and what a hostile end sends comes to nothing.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

/// Of a connection on which packing is always tried.
fn always() -> Arc<Worth> {
    Arc::new(Worth::new(None))
}

/// Bytes that no compressor makes shorter.
fn noise(n_bytes: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..n_bytes).map(|_| next()).collect()
}

/// `content` as a block on its way out.
fn block(effort: Effort, content: &[u8]) -> Vec<u8> {
    let (block, begin) = pack(effort, &always(), [&[0; HEAD_BYTES][..], content].concat());
    block[begin..].to_vec()
}

/// Sends `parts`, each flushed, and says what arrived and what it took.
async fn sent(parts: &[Vec<u8>], pipe_bytes: usize) -> (Vec<u8>, usize) {
    let (near, far) = duplex(pipe_bytes);
    let parts = parts.to_vec();
    let sending = tokio::spawn(async move {
        let mut near = Packed::new(Effort::Usual, always(), near);
        for part in parts {
            near.write_all(&part).await.unwrap();
            near.flush().await.unwrap();
        }
        near.shutdown().await.unwrap();
    });
    let mut taken = Counted { inner: far, n_bytes: 0 };
    let mut content = Vec::new();
    let mut packed = Packed::new(Effort::Quick, always(), &mut taken);
    packed.read_to_end(&mut content).await.unwrap();
    sending.await.unwrap();
    (content, taken.n_bytes)
}

struct Counted {
    inner: DuplexStream,
    n_bytes: usize,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        self.n_bytes += buf.filled().len() - before;
        Poll::Ready(Ok(()))
    }
}

/// What a reader makes of `bytes`, followed by the inner stream's end.
async fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    Packed::new(Effort::Quick, always(), bytes).read_to_end(&mut content).await.map(|_| content)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        parts in prop::collection::vec((0usize..5_000, any::<bool>()), 0..12),
        pipe_bytes in 1usize..2_000,
    ) {
        let part = |&(n, dull): &(usize, bool)| if dull { vec![7; n * 20] } else { noise(n) };
        let parts: Vec<Vec<u8>> = parts.iter().map(part).collect();
        let (content, _) = runtime().block_on(sent(&parts, pipe_bytes));
        prop_assert_eq!(content, parts.concat());
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = runtime().block_on(read(&bytes));
    }
}

#[tokio::test]
async fn text_gets_shorter_and_noise_hardly_longer() {
    let text = "#include <vector>\n// Licensed under the terms of the licence\n".repeat(20_000).into_bytes();
    let (content, n_bytes) = sent(std::slice::from_ref(&text), 64 << 10).await;
    assert!(content == text && n_bytes < text.len() / 20, "{n_bytes}");
    let noise = noise(3 * BLOCK_BYTES);
    let (content, n_bytes) = sent(std::slice::from_ref(&noise), 64 << 10).await;
    assert!(content == noise && n_bytes <= noise.len() + 4 * WORD_BYTES, "{n_bytes}");
}

#[test]
fn what_did_not_fit_spoils_nothing() {
    let text = b"#include <vector>\n".repeat(1_000);
    for effort in [Effort::Quick, Effort::Usual] {
        assert_eq!(compressed(effort, &noise(10_000)), None);
        assert!(compressed(effort, &text).is_some_and(|block| block.len() < text.len() / 10));
    }
}

#[tokio::test]
async fn a_stream_that_is_cut_off_is_not_one_that_ended() {
    let mut bytes = block(Effort::Quick, &b"content ".repeat(100));
    bytes.extend(block(Effort::Usual, b"little"));
    bytes.extend([0; WORD_BYTES]);
    assert!(read(&bytes).await.is_ok());
    for end in 0..bytes.len() {
        let error = read(&bytes[..end]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{end}");
    }
}

#[tokio::test]
async fn a_block_is_what_it_says() {
    let content = vec![7; 10_000];
    let good = block(Effort::Usual, &content);
    assert!(good.len() < 100);
    for claimed in [0, 20, 9_999, 10_001, 1_048_576, u32::MAX] {
        let mut bad = good.clone();
        bad[WORD_BYTES..2 * WORD_BYTES].copy_from_slice(&claimed.to_le_bytes());
        assert_ne!(read(&bad).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "{claimed}");
    }
    let large = 1_048_577;
    for head in [large, COMPRESSED | large, u32::MAX] {
        let bytes = [head.to_le_bytes(), [0; 4]].concat();
        assert_eq!(read(&bytes).await.unwrap_err().kind(), io::ErrorKind::InvalidData, "{head}");
    }
}

/// Takes what is written, and counts the writes.
#[derive(Default)]
struct Writes(Vec<Vec<u8>>);

impl AsyncWrite for Writes {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.push(bytes.to_vec());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn the_last_block_and_the_end_are_one_write() {
    for (parts, n_writes) in [(&[][..], 1), (&[&b"one"[..], b"two"], 1)] {
        let mut stream = Packed::new(Effort::Usual, always(), Writes::default());
        for part in parts {
            stream.write_all(part).await.unwrap();
        }
        stream.shutdown().await.unwrap();
        assert!(stream.write_all(b"more").await.is_err());
        let writes = stream.inner.0;
        assert_eq!(writes.len(), n_writes);
        assert_eq!(read(&writes.concat()).await.unwrap(), parts.concat());
    }
}
