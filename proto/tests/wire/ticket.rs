//! The text of a ticket: what people do to it between a terminal, a chat and another terminal.

use buildbee_proto::canonical::Canonical;
use buildbee_proto::digest::Digest;
use buildbee_proto::limits::{MAX_ADDRESSES_PER_PEER, MAX_HELLO_FRAME};
use buildbee_proto::membership::{ParseTicketError, Signed, TICKET_PREFIX, Ticket};
use proptest::prelude::*;

use crate::golden::hex;
use crate::samples::content::{signed, ticket};
use crate::strategies;

fn parse(text: &str) -> Result<Signed<Ticket>, ParseTicketError> {
    Signed::<Ticket>::from_text(text)
}

/// The text is printed by one release and pasted into another: it is as golden as the bytes in it.
#[test]
fn the_text_is_still() {
    let text = signed(ticket()).to_text();
    let digits = text.strip_prefix(TICKET_PREFIX).unwrap();
    assert_eq!(&text[..24], "buildbee-ticket-62627473");
    assert_eq!(digits.len(), 2 * (signed(ticket()).to_canonical().len() + 4));
    assert_eq!(&digits[digits.len() - 8..], "f9083df3", "first four bytes of the BLAKE3 hash of the rest");
}

#[test]
fn text_round_trips() {
    let ticket = signed(ticket());
    assert_eq!(parse(&ticket.to_text()), Ok(ticket));
}

#[test]
fn white_space_around_it_is_ignored() {
    let ticket = signed(ticket());
    let text = ticket.to_text();
    for pasted in [format!(" {text}"), format!("{text}\n"), format!("\t{text}\r\n"), format!("\u{a0}{text} ")] {
        assert_eq!(parse(&pasted), Ok(ticket.clone()), "{pasted:?}");
    }
}

#[test]
fn white_space_inside_it_is_damage() {
    let text = signed(ticket()).to_text();
    for at in TICKET_PREFIX.len() + 1..text.len() {
        let broken = format!("{}\n{}", &text[..at], &text[at..]);
        assert_eq!(parse(&broken), Err(ParseTicketError::Damaged), "at {at}");
    }
}

#[test]
fn upper_case_digits_are_the_same_ticket() {
    let ticket = signed(ticket());
    let text = ticket.to_text();
    let digits = text.strip_prefix(TICKET_PREFIX).unwrap().to_uppercase();
    assert_eq!(parse(&format!("{TICKET_PREFIX}{digits}")), Ok(ticket));
    assert_eq!(parse(&text.to_uppercase()), Err(ParseTicketError::Prefix));
}

#[test]
fn cut_anywhere_is_refused() {
    let text = signed(ticket()).to_text();
    for end in 0..text.len() {
        let expected = if end < TICKET_PREFIX.len() { ParseTicketError::Prefix } else { ParseTicketError::Damaged };
        assert_eq!(parse(&text[..end]), Err(expected), "cut to {end}");
    }
    for start in 1..text.len() {
        assert_eq!(parse(&text[start..]), Err(ParseTicketError::Prefix), "cut from {start}");
    }
}

#[test]
fn an_altered_character_is_refused() {
    let text = signed(ticket()).to_text();
    for at in 0..text.len() {
        for other in ["0", "f", "g", "-", " ", "\0", "é", "\u{1f41d}"] {
            if text[at..].to_lowercase().starts_with(other) {
                continue;
            }
            let altered = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            assert!(parse(&altered).is_err(), "{other:?} at {at} was read");
        }
    }
}

#[test]
fn what_follows_it_is_damage() {
    let text = signed(ticket()).to_text();
    for extra in ["0", "00", "zz", &text[..], &"00".repeat(MAX_HELLO_FRAME)] {
        assert_eq!(parse(&format!("{text}{extra}")), Err(ParseTicketError::Damaged));
    }
}

#[test]
fn true_checksums_do_not_make_other_content_a_ticket() {
    let with_checksum = |bytes: &[u8]| format!("{TICKET_PREFIX}{}{}", hex(bytes), hex(&Digest::of(bytes).hash[..4]));
    let good = signed(ticket());
    assert_eq!(parse(&with_checksum(&good.to_canonical())), Ok(good), "the checksum of this test is right");
    let mut crowded = ticket();
    crowded.addresses = vec!["192.0.2.1:1".to_owned(); MAX_ADDRESSES_PER_PEER + 1];
    for bytes in [ticket().to_canonical(), signed(crowded).to_canonical(), Vec::new(), vec![0; 300]] {
        assert_eq!(parse(&with_checksum(&bytes)), Err(ParseTicketError::Damaged));
    }
}

proptest! {
    #[test]
    fn any_ticket_round_trips(ticket in strategies::content::signed(strategies::content::ticket())) {
        let text = ticket.to_text();
        prop_assert!(text.chars().all(|character| character.is_ascii_graphic()), "one word");
        prop_assert_eq!(parse(&text), Ok(ticket));
    }

    #[test]
    fn any_text_is_refused_quietly(text in ".{0,200}", digits in "[0-9a-fA-F]{0,300}") {
        for text in [format!("{TICKET_PREFIX}{text}"), format!("{TICKET_PREFIX}{digits}"), text] {
            let read = parse(&text);
            prop_assert!(read.is_err());
        }
    }
}
