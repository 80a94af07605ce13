//! Every value comes back from its bytes as it was.

use std::fmt::Debug;

use buildbee_proto::canonical::Canonical;
use buildbee_proto::codec::{FRAME_HEADER_BYTES, Message, body_length, from_body, to_frame};
use buildbee_proto::digest::Digest;
use buildbee_proto::peer::PeerId;
use proptest::prelude::*;

use crate::samples;
use crate::strategies::{content, messages};

fn check_content<T: Canonical + PartialEq + Debug>(value: &T) -> Result<(), TestCaseError> {
    let bytes = value.to_canonical();
    let read = T::from_canonical(&bytes);
    prop_assert_eq!(read.as_ref(), Ok(value));
    prop_assert_eq!(value.digest(), Digest::of(&bytes));
    Ok(())
}

fn check_message<M: Message + PartialEq + Debug>(message: &M) -> Result<(), TestCaseError> {
    let frame = to_frame(message).expect("small enough");
    let (header, body) = frame.split_first_chunk::<FRAME_HEADER_BYTES>().expect("a header");
    prop_assert_eq!(body_length::<M>(*header), Ok(body.len()));
    let read = from_body::<M>(body);
    prop_assert_eq!(read.as_ref(), Ok(message));
    Ok(())
}

#[test]
fn samples_come_back_as_they_were() {
    for sample in samples::all() {
        assert_eq!((sample.reencode)(&sample.bytes), Ok(sample.bytes.clone()), "{}", sample.name);
        assert!(sample.bytes.len() <= sample.max_bytes, "{}", sample.name);
    }
}

proptest! {
    #[test]
    fn directory(value in content::directory()) { check_content(&value)?; }
    #[test]
    fn toolchain(value in content::toolchain()) {
        check_content(&value)?;
        prop_assert_eq!(value.id().0, value.digest());
    }
    #[test]
    fn double(value in content::double()) { check_content(&value)?; }
    #[test]
    fn command(value in content::command()) { check_content(&value)?; }
    #[test]
    fn action(value in content::action()) { check_content(&value)?; }
    #[test]
    fn read_set(value in content::read_set()) { check_content(&value)?; }
    #[test]
    fn observed(value in content::observed()) { check_content(&value)?; }
    #[test]
    fn action_result(value in content::action_result()) { check_content(&value)?; }
    #[test]
    fn signed_result(value in content::signed_result()) { check_content(&value)?; }
    #[test]
    fn manifest(value in content::manifest()) { check_content(&value)?; }
    #[test]
    fn hints(value in content::hints()) { check_content(&value)?; }
    #[test]
    fn membership(value in content::membership()) { check_content(&value)?; }
    #[test]
    fn signed_membership(value in content::signed(content::membership())) { check_content(&value)?; }
    #[test]
    fn ticket(value in content::ticket()) { check_content(&value)?; }
    #[test]
    fn signed_ticket(value in content::signed(content::ticket())) { check_content(&value)?; }
    #[test]
    fn roster(value in content::roster()) { check_content(&value)?; }
    #[test]
    fn signed_roster(value in content::signed(content::roster())) { check_content(&value)?; }

    #[test]
    fn control_request(message in messages::control_request()) { check_message(&message)?; }
    #[test]
    fn control_reply(message in messages::control_reply()) { check_message(&message)?; }
    #[test]
    fn hello(message in messages::hello()) { check_message(&message)?; }
    #[test]
    fn hello_reply(message in messages::hello_reply()) { check_message(&message)?; }
    #[test]
    fn join_request(message in messages::join_request()) { check_message(&message)?; }
    #[test]
    fn papers_request(message in messages::papers_request()) { check_message(&message)?; }
    #[test]
    fn papers_reply(message in messages::papers_reply()) { check_message(&message)?; }
    #[test]
    fn join_reply(message in messages::join_reply()) { check_message(&message)?; }
    #[test]
    fn action_request(message in messages::action_request()) { check_message(&message)?; }
    #[test]
    fn action_update(message in messages::action_update()) { check_message(&message)?; }
    #[test]
    fn supply(message in messages::supply()) { check_message(&message)?; }
    #[test]
    fn blob_request(message in messages::blob_request()) { check_message(&message)?; }
    #[test]
    fn blob_have(message in messages::blob_have()) { check_message(&message)?; }
    #[test]
    fn blob_header(message in messages::blob_header()) { check_message(&message)?; }
    #[test]
    fn blob_map(message in messages::blob_map()) { check_message(&message)?; }
    #[test]
    fn cache_request(message in messages::cache_request()) { check_message(&message)?; }
    #[test]
    fn cache_reply(message in messages::cache_reply()) { check_message(&message)?; }
    #[test]
    fn local_request(message in messages::local_request()) { check_message(&message)?; }
    #[test]
    fn local_reply(message in messages::local_reply()) { check_message(&message)?; }

    #[test]
    fn digest_text(digest in content::digest()) {
        prop_assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
    }
    #[test]
    fn peer_text(peer in content::peer()) {
        prop_assert_eq!(peer.to_string().parse::<PeerId>(), Ok(peer));
    }
    #[test]
    fn other_text_is_no_digest_and_no_peer(text in ".{0,100}") {
        prop_assert!(text.parse::<Digest>().is_err());
        prop_assert!(text.parse::<PeerId>().is_err());
    }
    #[test]
    fn path_text(path in content::path()) {
        prop_assert_eq!(buildbee_proto::path::RelPath::from_absolute(&path.to_absolute()), Ok(path));
    }
}
