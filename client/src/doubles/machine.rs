//! For which machine an object is: what its first bytes say.

use std::fmt::Write as _;

/// Bytes that say it: magic, class, byte order, version, ABI, type, machine. The ABI is left out: assemblers write GNU's where a symbol is a
/// unique one (`inline` variables of C++), and none elsewhere.
const HEAD_BYTES: usize = 20;
const ELF: &[u8; 4] = b"\x7fELF";

/// Class, byte order, version and machine of an ELF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    kind: [u8; 3],
    code: [u8; 2],
}

impl Machine {
    /// Of an ELF file; `None`: it is none.
    pub fn of(content: &[u8]) -> Option<Self> {
        let head: &[u8; HEAD_BYTES] = content.first_chunk()?;
        if !head.starts_with(ELF) {
            return None;
        }
        Some(Self { kind: [head[4], head[5], head[6]], code: [head[18], head[19]] })
    }

    /// As text, for files.
    pub fn text(self) -> String {
        let bytes = self.kind.iter().chain(&self.code);
        bytes.fold(String::new(), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// From that text.
    pub fn from_text(text: &str) -> Option<Self> {
        let byte = |at: usize| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok();
        let machine = Self { kind: [byte(0)?, byte(1)?, byte(2)?], code: [byte(3)?, byte(4)?] };
        (machine.text() == text).then_some(machine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_of_two_machines_are_told_apart() {
        let object = |code: u8| {
            let mut bytes = vec![0; 64];
            bytes[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\x00");
            bytes[18] = code;
            bytes
        };
        let (arm, x86) = (Machine::of(&object(183)).unwrap(), Machine::of(&object(62)).unwrap());
        assert_ne!(arm, x86);
        assert_eq!(Machine::from_text(&arm.text()), Some(arm));
        let mut unique = object(183);
        unique[7] = 3;
        assert_eq!(Machine::of(&unique), Some(arm));
        for other in [&b"\x7fELF"[..], b"BC\xc0\xde and much more than twenty bytes", b""] {
            assert_eq!(Machine::of(other), None);
        }
        for text in ["", "02010100", "zz010100b7", "0201 100b7"] {
            assert_eq!(Machine::from_text(text), None, "{text}");
        }
    }
}
