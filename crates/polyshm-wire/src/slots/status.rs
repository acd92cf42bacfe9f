//! The status byte of a field (section 4).

use core::fmt;

/// The status byte of a field (section 4).
///
/// Bits 3 to 7 have no meaning and are kept by everybody.
///
/// ```
/// use polyshm_wire::slots::Status;
///
/// let status = Status::FRESH;
/// assert!(status.is_unwritten() && !status.is_valid());
/// let status = status.written(true);
/// assert_eq!(status.bits(), 0x05);
/// assert_eq!(format!("{status:?}"), "Status(TRUNCATED | MODIFIED)");
/// assert_eq!(status.passed_over().bits(), 0x01);
/// assert!(status.written(false).is_valid());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct Status(u8);

impl Status {
    /// The latest write of the field did not keep the whole value.
    pub const TRUNCATED: u8 = 1;
    /// The field was never written in this slot.
    pub const UNWRITTEN: u8 = 2;
    /// The latest write to this slot listed the field.
    pub const MODIFIED: u8 = 4;

    /// Of every field when the segment was created.
    pub const FRESH: Self = Self(Self::UNWRITTEN);

    /// The byte as it stands in the slot.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// The byte as it stands in the slot.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether the latest write of the field did not keep the whole value.
    pub const fn is_truncated(self) -> bool {
        self.0 & Self::TRUNCATED != 0
    }

    /// Whether the field was never written in this slot.
    pub const fn is_unwritten(self) -> bool {
        self.0 & Self::UNWRITTEN != 0
    }

    /// Whether the latest write to this slot listed the field. The value may be
    /// the same as before.
    pub const fn is_modified(self) -> bool {
        self.0 & Self::MODIFIED != 0
    }

    /// Whether the field holds what its writer meant: neither truncated nor
    /// unwritten.
    pub const fn is_valid(self) -> bool {
        self.0 & (Self::TRUNCATED | Self::UNWRITTEN) == 0
    }

    /// After a write that lists the field.
    #[must_use]
    pub const fn written(self, truncated: bool) -> Self {
        let kept = self.0 & !(Self::TRUNCATED | Self::UNWRITTEN);
        Self(kept | Self::MODIFIED | truncated as u8)
    }

    /// After a write that does not list the field, and after a reader reset
    /// what is modified.
    #[must_use]
    pub const fn passed_over(self) -> Self {
        Self(self.0 & !Self::MODIFIED)
    }

    /// After a writer died while it was writing the field: there is no value any
    /// more.
    #[must_use]
    pub const fn lost(self) -> Self {
        let kept = self.0 & !(Self::TRUNCATED | Self::MODIFIED);
        Self(kept | Self::UNWRITTEN)
    }
}

/// As a reader would say it: `valid`, `truncated, modified`.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = [
            (self.is_valid(), "valid"),
            (self.is_truncated(), "truncated"),
            (self.is_unwritten(), "unwritten"),
            (self.is_modified(), "modified"),
        ]
        .into_iter()
        .filter(|(is, _)| *is)
        .map(|(_, name)| name);
        if let Some(first) = parts.next() {
            f.write_str(first)?;
        }
        parts.try_for_each(|name| write!(f, ", {name}"))
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Status(")?;
        let mut separator = "";
        for (set, name) in [
            (self.is_valid(), "VALID"),
            (self.is_truncated(), "TRUNCATED"),
            (self.is_unwritten(), "UNWRITTEN"),
            (self.is_modified(), "MODIFIED"),
        ] {
            if set {
                write!(f, "{separator}{name}")?;
                separator = " | ";
            }
        }
        let rest = self.0 & !(Self::TRUNCATED | Self::UNWRITTEN | Self::MODIFIED);
        if rest != 0 {
            write!(f, "{separator}{rest:#04x}")?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn every_byte_and_event() {
        for bits in 0..=u8::MAX {
            let status = Status::from_bits(bits);
            assert_eq!(status.bits(), bits);
            assert_eq!(status.is_valid(), bits % 4 == 0);
            assert_eq!(status.written(false).bits(), bits & 0xf8 | 4);
            assert_eq!(status.written(true).bits(), bits & 0xf8 | 5);
            assert_eq!(status.passed_over().bits(), bits & 0xfb);
            assert_eq!(status.lost().bits(), bits & 0xf8 | 2);
        }
    }

    #[test]
    fn printed() {
        for (bits, text) in [
            (0x00, "Status(VALID)"),
            (0x02, "Status(UNWRITTEN)"),
            (0x04, "Status(VALID | MODIFIED)"),
            (0x05, "Status(TRUNCATED | MODIFIED)"),
            (0x88, "Status(VALID | 0x88)"),
            (0x0f, "Status(TRUNCATED | UNWRITTEN | MODIFIED | 0x08)"),
        ] {
            assert_eq!(format!("{:?}", Status::from_bits(bits)), text);
        }
    }
}
