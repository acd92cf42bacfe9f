//! Values with their status.

use polyshm_wire::slots::Status;
use std::{fmt, ops::Deref};

/// What a slot tells of a field beside its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldMark {
    /// The status byte (format, section 4).
    pub status: Status,
    /// How many writes listed the field since this handle read before; at most
    /// so many when [`Snapshot::is_exact`](crate::Snapshot::is_exact) says no.
    pub changes: u64,
}

/// A field that was read: the value, and what is known of it.
///
/// Dereferences to the value, whatever the status; [`Field::valid`] gives it
/// only when it is the complete value that was written.
///
/// ```
/// use polyshm_slots::{Field, Status};
///
/// let mut celsius = Field::new(0.0);
/// assert!(celsius.is_unwritten() && celsius.valid().is_none());
/// celsius = Field::with_status(23.5, Status::from_bits(Status::MODIFIED));
/// assert_eq!(celsius.valid(), Some(&23.5));
/// assert_eq!(*celsius + 1.0, 24.5);
/// ```
#[derive(Clone, Copy, Default, PartialEq)]
pub struct Field<T> {
    pub(crate) value: T,
    mark: FieldMark,
}

impl<T> Field<T> {
    /// A field that was never written.
    pub const fn new(value: T) -> Self {
        Self::with_status(value, Status::FRESH)
    }

    /// A field with a status.
    pub const fn with_status(value: T, status: Status) -> Self {
        let mark = FieldMark { status, changes: 0 };
        Self { value, mark }
    }

    #[inline]
    pub(crate) fn set_mark(&mut self, mut mark: FieldMark, damaged: bool) {
        if damaged {
            mark.status = Status::from_bits(mark.status.bits() | Status::TRUNCATED);
        }
        self.mark = mark;
    }

    #[inline]
    pub(crate) fn set_changes(&mut self, changes: u64) {
        self.mark.changes = changes;
    }

    /// The value, when it is complete: written, and not truncated.
    #[inline]
    pub fn valid(&self) -> Option<&T> {
        self.is_valid().then_some(&self.value)
    }

    /// The value, whatever its status.
    #[inline]
    pub const fn value(&self) -> &T {
        &self.value
    }

    /// The value itself, whatever its status.
    pub fn into_value(self) -> T {
        self.value
    }

    /// The status byte.
    pub const fn status(&self) -> Status {
        self.mark.status
    }

    /// Whether the value is the complete one that was written.
    #[inline]
    pub const fn is_valid(&self) -> bool {
        self.mark.status.is_valid()
    }

    /// Whether the value was cut to fit.
    pub const fn is_truncated(&self) -> bool {
        self.mark.status.is_truncated()
    }

    /// Whether no value was ever written.
    pub const fn is_unwritten(&self) -> bool {
        self.mark.status.is_unwritten()
    }

    /// Whether the latest write to the slot listed this field. For changes
    /// since this handle's last read see [`Field::is_changed`].
    pub const fn is_modified(&self) -> bool {
        self.mark.status.is_modified()
    }

    /// Whether a write listed this field since this handle read before.
    #[inline]
    pub const fn is_changed(&self) -> bool {
        self.mark.changes > 0
    }

    /// How many writes listed this field since this handle read before; see
    /// [`FieldMark::changes`].
    pub const fn changes(&self) -> u64 {
        self.mark.changes
    }
}

impl<T> Deref for Field<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Field<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Field")
            .field("value", &self.value)
            .field("status", &self.mark.status)
            .field("changes", &self.mark.changes)
            .finish()
    }
}

impl<T: fmt::Display> fmt::Display for Field<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}
