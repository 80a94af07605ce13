//! Says bytes by what the other side knows already: one zstd frame whose prefix is what both have.
//!
//! Not here: what that is (`buildbee_proto::execute::Alike`), and whether what comes out is what was meant: its digest tells.

use std::io;

use zstd::zstd_safe::{CCtx, CParameter, DCtx, SafeResult, get_error_name};

/// Digests don't compress and names hardly do; what is found in the prefix is found at this level.
const LEVEL: i32 = 3;

/// `content`, for somebody who has `prefix`. `None` where that is no shorter.
pub fn shortened(content: &[u8], prefix: &[u8]) -> Option<Vec<u8>> {
    let mut frame = vec![0; content.len().checked_sub(1)?];
    let mut compressor = CCtx::try_create()?;
    compressor.set_parameter(CParameter::CompressionLevel(LEVEL)).ok()?;
    compressor.ref_prefix(prefix).ok()?;
    // Its only other failure is that the frame does not fit, which is what the room is for.
    let n_bytes = compressor.compress2(&mut frame[..], content).ok()?;
    frame.truncate(n_bytes);
    Some(frame)
}

/// What `frame` says to somebody who has `prefix`: exactly `n_bytes`, which the caller bounds.
pub fn restored(frame: &[u8], prefix: &[u8], n_bytes: usize) -> io::Result<Vec<u8>> {
    let mut content = vec![0; n_bytes];
    let mut decompressor = DCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
    checked(decompressor.ref_prefix(prefix))?;
    match checked(decompressor.decompress(&mut content[..], frame))? {
        n if n == n_bytes => Ok(content),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the content is shorter than it should be")),
    }
}

fn checked(result: SafeResult) -> io::Result<usize> {
    result.map_err(|code| io::Error::new(io::ErrorKind::InvalidData, get_error_name(code)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Entries that no compressor makes shorter, each 32 bytes.
    fn noise(seed: u64, n_entries: usize) -> Vec<u8> {
        (0..n_entries as u64)
            .flat_map(|n| {
                *buildbee_proto::digest::Digest::of(&(seed ^ n << 8).to_le_bytes())
                    .hash
                    .as_slice()
                    .first_chunk::<32>()
                    .unwrap()
            })
            .collect()
    }

    #[test]
    fn what_is_known_takes_few_bytes() {
        let known = noise(1, 5_000);
        let mut content = known[32_000..96_000].to_vec();
        content.extend(noise(2, 10));
        content.extend(&known[128_000..]);
        let frame = shortened(&content, &known).unwrap();
        assert!(frame.len() < 10 * 32 + 200, "{}", frame.len());
        assert_eq!(restored(&frame, &known, content.len()).unwrap(), content);
        assert!(restored(&frame, &known, content.len() - 1).is_err());
        assert!(restored(&frame, &known, content.len() + 1).is_err());
        assert!(restored(&frame, &[], content.len()).is_err());
        assert_eq!(shortened(&noise(3, 100), &known), None);
        assert_eq!(shortened(&[], &known), None);
    }

    proptest! {
        #[test]
        fn what_is_shortened_is_restored(
            prefix in prop::collection::vec(0u8..4, 0..3_000),
            content in prop::collection::vec(0u8..4, 0..3_000),
        ) {
            if let Some(frame) = shortened(&content, &prefix) {
                prop_assert!(frame.len() < content.len());
                prop_assert_eq!(restored(&frame, &prefix, content.len()).unwrap(), content);
            }
        }

        #[test]
        fn no_frame_makes_a_reader_panic(
            frame in prop::collection::vec(any::<u8>(), 0..200),
            prefix in prop::collection::vec(any::<u8>(), 0..200),
            n_bytes in 0usize..5_000,
        ) {
            let _ = restored(&frame, &prefix, n_bytes);
            let known = [&0xfd2f_b528_u32.to_le_bytes()[..], &frame].concat();
            let _ = restored(&known, &prefix, n_bytes);
        }
    }
}
