//! What a slot holds: the traits between record types and the code that moves
//! their bytes.

use crate::{Draft, Field, Filler, Source, ValueError};
use polyshm_wire::slots::{FieldType, Schema};
use std::fmt::Debug;

/// A record: named, typed fields.
///
/// Implemented by `#[derive(Record)]`, and by [`Dynamic`](crate::Dynamic) for
/// schemas that are known only at run time.
pub trait Record: Sized + 'static {
    /// What a read gives: one [`Field`] per field.
    type Fields: Debug + Send;

    /// Fields that nothing was read into yet.
    fn empty(schema: &Schema) -> Self::Fields;

    /// Copies every field out of a slot. What is copied may be torn, and is
    /// then thrown away by the caller.
    fn load(fields: &mut Self::Fields, from: &Source<'_>);

    /// Notes how often every field changed, which is known only when the values
    /// are known to be whole.
    fn count(fields: &mut Self::Fields, from: &Source<'_>);
}

/// A record whose schema its type tells.
pub trait TypedRecord: Record {
    /// The schema.
    fn schema() -> &'static Schema;
}

/// Values for some fields of a record `R`.
///
/// The derived record itself (all fields), its generated update type (any
/// subset), and [`Values`](crate::Values) for run-time schemas.
pub trait Update<R> {
    /// Converts and checks every listed value; nothing shared has changed yet.
    ///
    /// # Errors
    ///
    /// A value that the field cannot hold; nothing is written then.
    fn prepare(&self, draft: &mut Draft<'_>) -> Result<(), ValueError>;

    /// The bytes of a field that was [listed as large](Draft::put_bytes).
    fn large(&self, schema: &Schema, field: usize) -> &[u8];

    /// Whether every field is always listed, and has as many bytes as its place
    /// whatever its value: nothing can be refused or cut. Such a record is
    /// written by [`fill`](Self::fill), and needs no
    /// [`prepare`](Self::prepare).
    #[inline]
    fn is_whole(&self) -> bool {
        false
    }

    /// Puts the bytes of all fields, if it [is whole](Self::is_whole).
    #[inline]
    fn fill(&self, into: &mut Filler<'_>) {
        let _ = into;
    }
}

impl<R, U: Update<R> + ?Sized> Update<R> for &U {
    fn prepare(&self, draft: &mut Draft<'_>) -> Result<(), ValueError> {
        (**self).prepare(draft)
    }

    fn large(&self, schema: &Schema, field: usize) -> &[u8] {
        (**self).large(schema, field)
    }

    #[inline]
    fn is_whole(&self) -> bool {
        (**self).is_whole()
    }

    #[inline]
    fn fill(&self, into: &mut Filler<'_>) {
        (**self).fill(into);
    }
}

/// A Rust type that stands for a field.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no type of a record's field",
    label = "no type of a field",
    note = "fields are f64, i32, bool, String, and arrays of numbers and bool: [T; N], Box<[T; N]>, Vec<T>"
)]
pub trait FieldValue: Sized + Debug + Send {
    /// What a partial write takes for it: a number by value, text and arrays
    /// by reference.
    type Input<'a>: FieldInput<'a>
    where
        Self: 'a;

    /// The value as a write takes it.
    fn input(&self) -> Self::Input<'_>;

    /// A value that nothing was read into yet: zeros, false, no text.
    fn empty(ty: &FieldType) -> Self;

    /// Copies the value of field `field` out of a slot. Gives whether it had
    /// to be cut, because the slot's bytes are damaged.
    fn load(&mut self, field: usize, from: &Source<'_>) -> bool;
}

/// A field whose type tells all of its layout: scalars and nested arrays.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not tell the type of a record's field",
    label = "its layout is unknown",
    note = "f64, i32, bool and arrays of numbers and bool tell it; String, Vec and ndarray's arrays need an \
            annotation: #[record(\"str[32]\")], #[record(\"uint8[480,640,3]\")]"
)]
pub trait FixedField: FieldValue {
    /// The field's type.
    fn field_type() -> FieldType;
}

/// A value for one field, on its way into a slot.
pub trait FieldInput<'a> {
    /// Converts, checks, and lists the value.
    ///
    /// # Errors
    ///
    /// The field cannot hold it.
    fn prepare(&self, field: usize, draft: &mut Draft<'_>) -> Result<(), ValueError>;

    /// The bytes, when [`Draft::put_bytes`] listed them as large.
    fn large(&self) -> &'a [u8] {
        &[]
    }

    /// Whether the value always fills the field's place.
    const WHOLE: bool = false;

    /// Puts the value behind the fields before it, when [`WHOLE`](Self::WHOLE).
    #[inline]
    fn fill(&self, into: &mut Filler<'_>) {
        let _ = into;
    }
}

impl<T: FieldValue> Field<T> {
    /// A field that nothing was read into yet.
    pub fn empty(ty: &FieldType) -> Self {
        Self::new(T::empty(ty))
    }

    /// Copies field `field` out of a slot.
    #[inline]
    pub fn load(&mut self, field: usize, from: &Source<'_>) {
        let damaged = self.value.load(field, from);
        self.set_mark(from.mark(field), damaged);
    }

    /// Notes how often field `field` changed.
    #[inline]
    pub fn count(&mut self, field: usize, from: &Source<'_>) {
        self.set_changes(from.mark(field).changes);
    }
}
