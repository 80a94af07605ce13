//! Lists and texts of messages, read with a bound and without trusting what they say of their own length.
//!
//! Left alone, the serialiser takes memory for a text as long as it claims to be, and serde up to 1 MiB for a list, before it finds
//! that the bytes are not there. Here a text is borrowed from the frame and checked before it is copied, and a list grows only as its
//! items arrive. Every `String` and `Vec` in a message names one of these functions in `deserialize_with`; the bytes on the wire are
//! those of the plain types.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::limits::MAX_PATH_BYTES;
use crate::path::RelPath;

/// A list of at most `MAX` items.
pub(crate) fn list<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(ListVisitor::<T, MAX>(PhantomData))
}

/// A text of at most `MAX` bytes.
pub(crate) fn text<'de, D, const MAX: usize>(deserializer: D) -> Result<String, D::Error>
where
    D: Deserializer<'de>,
{
    Text::<MAX>::deserialize(deserializer).map(|text| text.0)
}

/// At most `MAX` paths.
pub(crate) fn paths<'de, D: Deserializer<'de>, const MAX: usize>(deserializer: D) -> Result<Vec<RelPath>, D::Error> {
    let texts = texts::<D, MAX, MAX_PATH_BYTES>(deserializer)?;
    texts.into_iter().map(|text| RelPath::try_from(text).map_err(Error::custom)).collect()
}

/// Perhaps a text, of at most `MAX` bytes.
pub(crate) fn optional_text<'de, D, const MAX: usize>(deserializer: D) -> Result<Option<String>, D::Error>
where
    D: Deserializer<'de>,
{
    Ok(Option::<Text<MAX>>::deserialize(deserializer)?.map(|text| text.0))
}

/// At most `MAX` texts of at most `MAX_BYTES` bytes each.
pub(crate) fn texts<'de, D, const MAX: usize, const MAX_BYTES: usize>(deserializer: D) -> Result<Vec<String>, D::Error>
where
    D: Deserializer<'de>,
{
    let texts = list::<D, Text<MAX_BYTES>, MAX>(deserializer)?;
    Ok(texts.into_iter().map(|text| text.0).collect())
}

struct ListVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for ListVisitor<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MAX} items")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
        let claimed = items.size_hint().unwrap_or(0);
        if claimed > MAX {
            return Err(A::Error::invalid_length(claimed, &self));
        }
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            if list.len() == MAX {
                return Err(A::Error::invalid_length(MAX + 1, &self));
            }
            list.push(item);
        }
        Ok(list)
    }
}

struct Text<const MAX: usize>(String);

impl<'de, const MAX: usize> Deserialize<'de> for Text<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // `deserialize_string` would let the serialiser allocate what the text claims.
        deserializer.deserialize_str(TextVisitor)
    }
}

struct TextVisitor<const MAX: usize>;

impl<const MAX: usize> Visitor<'_> for TextVisitor<MAX> {
    type Value = Text<MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a text of at most {MAX} bytes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text<MAX>, E> {
        if text.len() > MAX { Err(E::invalid_length(text.len(), &self)) } else { Ok(Text(text.to_owned())) }
    }
}
