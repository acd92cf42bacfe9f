//! The Rust types that stand for fields.

use crate::{Draft, FieldInput, FieldValue, Filler, FixedField, Source, ValueError};
use polyshm_wire::slots::{
    Dtype, Element, FieldType, MAX_DIMENSIONS, MAX_SEGMENT, push_text_lossy,
};
use std::{fmt::Debug, mem};
use zerocopy::FromZeros;

/// What a Rust type can stand for, in a form that is known when a program is
/// compiled: `#[derive(Record)]` compares annotations with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Form {
    /// `float`
    Float,
    /// `int`
    Int,
    /// `bool`
    Bool,
    /// `str[N]` for every N
    Text,
    /// arrays of this element type, of every shape
    Elements(Dtype),
    /// arrays of this element type with so many dimensions
    Dimensions(Dtype, usize),
    /// arrays of this element type and of just this shape
    Shape(Dtype, &'static [usize]),
}

impl Form {
    /// Whether the type can stand for `str[N]`.
    pub const fn allows_text(self) -> bool {
        matches!(self, Self::Text)
    }

    /// Whether the type can stand for `float`.
    pub const fn allows_float(self) -> bool {
        matches!(self, Self::Float)
    }

    /// Whether the type can stand for `int`.
    pub const fn allows_int(self) -> bool {
        matches!(self, Self::Int)
    }

    /// Whether the type can stand for `bool`.
    pub const fn allows_bool(self) -> bool {
        matches!(self, Self::Bool)
    }

    /// Whether the type can stand for arrays of this element type and shape.
    pub const fn allows_array(self, dtype: Dtype, shape: &[usize]) -> bool {
        let (of, fits) = match self {
            Self::Elements(of) => (of, true),
            Self::Dimensions(of, count) => (of, count == shape.len()),
            Self::Shape(of, just) => (of, same(just, shape)),
            _ => return false,
        };
        of as u8 == dtype as u8 && fits
    }
}

/// Slices are not compared in constants otherwise.
const fn same(a: &[usize], b: &[usize]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

/// A field's type that an annotation may declare.
///
/// The counterpart of [`FixedField`] for types that stand for several types of
/// fields: a `String` needs its length, a `Vec` its shape.
#[diagnostic::on_unimplemented(
    message = "no annotation can declare `{Self}` as a field",
    label = "its form is unknown",
    note = "a field's type of your own that has annotations implements DeclaredField"
)]
pub trait DeclaredField: FieldValue {
    /// Which annotations it can have.
    const FORM: Form;
}

/// A scalar, whose bytes are those of the Rust type.
macro_rules! scalars {
    ($($type:ty: $form:ident, $zero:expr, |$value:ident| $bytes:expr, |$from:ident| $read:expr;)*) => {$(
        impl FieldValue for $type {
            type Input<'a> = Self;

            #[inline]
            fn input(&self) -> Self {
                *self
            }

            fn empty(_: &FieldType) -> Self {
                $zero
            }

            #[inline]
            fn load(&mut self, field: usize, from: &Source<'_>) -> bool {
                let $from = from.scalar(field);
                *self = $read;
                false
            }
        }

        impl FixedField for $type {
            fn field_type() -> FieldType {
                FieldType::$form
            }
        }

        impl DeclaredField for $type {
            const FORM: Form = Form::$form;
        }

        impl FieldInput<'_> for $type {
            #[inline]
            fn prepare(&self, field: usize, draft: &mut Draft<'_>) -> Result<(), ValueError> {
                let $value = *self;
                draft.put_scalar(field, $bytes);
                Ok(())
            }

            const WHOLE: bool = true;

            #[inline]
            fn fill(&self, into: &mut Filler<'_>) {
                let $value = *self;
                into.put($bytes);
            }
        }
    )*};
}

scalars! {
    f64: Float, 0.0, |value| value.to_le_bytes(), |bytes| Self::from_le_bytes(bytes);
    i32: Int, 0, |value| value.to_le_bytes(), |bytes| Self::from_le_bytes(bytes);
    bool: Bool, false, |value| [u8::from(value)], |bytes| bytes != [0];
}

/// Bytes of a text's length.
const LENGTH: usize = 4;

/// Malformed parts are dropped, as the original does.
impl FieldValue for String {
    type Input<'a> = &'a str;

    fn input(&self) -> &str {
        self
    }

    fn empty(_: &FieldType) -> Self {
        Self::new()
    }

    fn load(&mut self, field: usize, from: &Source<'_>) -> bool {
        let room = from.size(field) - LENGTH;
        let mut len = [0; LENGTH];
        from.read(field, 0, &mut len);
        let len = u32::from_le_bytes(len) as usize;
        // The allocation is kept: what was read before makes room for what is
        // read now.
        let mut bytes = mem::take(self).into_bytes();
        bytes.resize(len.min(room), 0);
        from.read(field, LENGTH, &mut bytes);
        match Self::from_utf8(bytes) {
            Ok(text) => *self = text,
            Err(error) => push_text_lossy(self, error.as_bytes()),
        }
        len > room
    }
}

impl DeclaredField for String {
    const FORM: Form = Form::Text;
}

impl FieldInput<'_> for &str {
    fn prepare(&self, field: usize, draft: &mut Draft<'_>) -> Result<(), ValueError> {
        draft.put_text(field, self);
        Ok(())
    }
}

/// An element of an array, or an array of them, to any depth: what
/// `[T; N]` may hold.
pub trait ArrayElements: Copy + Debug + FromZeros + Send + Sync + 'static {
    /// The innermost element.
    type Element: Element + Debug + Send + Sync;

    /// The dimensions, from the first on, and how many there are.
    #[doc(hidden)]
    const DIMENSIONS: ([usize; MAX_DIMENSIONS], usize);

    /// The shape; empty for an element.
    const SHAPE: &'static [usize] = {
        let dimensions: &'static ([usize; MAX_DIMENSIONS], usize) = &Self::DIMENSIONS;
        dimensions.0.split_at(dimensions.1).0
    };

    /// All elements in C order.
    fn flat(rows: &[Self]) -> &[Self::Element];

    /// All elements in C order.
    fn flat_mut(rows: &mut [Self]) -> &mut [Self::Element];
}

macro_rules! elements {
    ($($type:ty)*) => {$(
        impl ArrayElements for $type {
            type Element = Self;

            const DIMENSIONS: ([usize; MAX_DIMENSIONS], usize) = ([0; MAX_DIMENSIONS], 0);

            #[inline]
            fn flat(rows: &[Self]) -> &[Self] {
                rows
            }

            #[inline]
            fn flat_mut(rows: &mut [Self]) -> &mut [Self] {
                rows
            }
        }
    )*};
}
elements!(f32 f64 i8 i16 i32 i64 u8 u16 u32 u64 bool);

impl<A: ArrayElements, const N: usize> ArrayElements for [A; N] {
    type Element = A::Element;

    const DIMENSIONS: ([usize; MAX_DIMENSIONS], usize) = {
        let (inner, count) = A::DIMENSIONS;
        assert!(count < MAX_DIMENSIONS, "an array has too many dimensions");
        let mut dimensions = [N; MAX_DIMENSIONS];
        let mut at = 0;
        while at < count {
            dimensions[at + 1] = inner[at];
            at += 1;
        }
        (dimensions, count + 1)
    };

    #[inline]
    fn flat(rows: &[Self]) -> &[Self::Element] {
        A::flat(rows.as_flattened())
    }

    #[inline]
    fn flat_mut(rows: &mut [Self]) -> &mut [Self::Element] {
        A::flat_mut(rows.as_flattened_mut())
    }
}

/// The type of a nested array, whose size is checked when the program is
/// compiled.
fn array_type<A: ArrayElements>() -> FieldType {
    const {
        assert!(
            size_of::<A>() as u64 <= MAX_SEGMENT,
            "an array is larger than a segment can be"
        );
    }
    FieldType::Array {
        dtype: A::Element::DTYPE,
        shape: A::SHAPE.to_vec(),
    }
}

/// The declared shape of an array field.
///
/// # Panics
///
/// The field is no array of that element type: the record's implementation
/// contradicts its schema.
fn shape_of(ty: &FieldType, dtype: Dtype) -> &[usize] {
    match ty {
        FieldType::Array { dtype: of, shape } if *of == dtype => shape,
        _ => panic!("a field of type {ty} was declared with elements of type {dtype}"),
    }
}

fn load_elements<T: Element>(elements: &mut [T], field: usize, from: &Source<'_>) {
    T::copy_from_bytes(elements, &mut |at, into| from.read(field, at, into));
}

/// In C order. A large array needs a place of its own on the heap: see the
/// implementation for `Box`.
impl<A: ArrayElements, const N: usize> FieldValue for [A; N] {
    type Input<'a> = &'a Self;

    #[inline]
    fn input(&self) -> &Self {
        self
    }

    fn empty(_: &FieldType) -> Self {
        Self::new_zeroed()
    }

    #[inline]
    fn load(&mut self, field: usize, from: &Source<'_>) -> bool {
        load_elements(A::flat_mut(self), field, from);
        false
    }
}

impl<A: ArrayElements, const N: usize> FixedField for [A; N] {
    fn field_type() -> FieldType {
        array_type::<Self>()
    }
}

impl<A: ArrayElements, const N: usize> DeclaredField for [A; N] {
    const FORM: Form = Form::Shape(A::Element::DTYPE, <Self as ArrayElements>::SHAPE);
}

impl<'a, A: ArrayElements, const N: usize> FieldInput<'a> for &'a [A; N] {
    #[inline]
    fn prepare(&self, field: usize, draft: &mut Draft<'_>) -> Result<(), ValueError> {
        let shape = shape_of(draft.field_type(field), A::Element::DTYPE);
        let same_shape = shape == <[A; N]>::SHAPE;
        draft.put_bytes(field, self.large(), same_shape);
        Ok(())
    }

    #[inline]
    fn large(&self) -> &'a [u8] {
        A::Element::as_bytes(A::flat(*self))
    }
}

/// Never on the stack, whatever its size.
impl<A: ArrayElements, const N: usize> FieldValue for Box<[A; N]> {
    type Input<'a> = &'a [A; N];

    fn input(&self) -> &[A; N] {
        self
    }

    fn empty(_: &FieldType) -> Self {
        <[A; N]>::new_box_zeroed()
            .unwrap_or_else(|_| std::alloc::handle_alloc_error(std::alloc::Layout::new::<[A; N]>()))
    }

    fn load(&mut self, field: usize, from: &Source<'_>) -> bool {
        (**self).load(field, from)
    }
}

impl<A: ArrayElements, const N: usize> FixedField for Box<[A; N]> {
    fn field_type() -> FieldType {
        array_type::<[A; N]>()
    }
}

impl<A: ArrayElements, const N: usize> DeclaredField for Box<[A; N]> {
    const FORM: Form = <[A; N]>::FORM;
}

/// Elements in C order. Any number of them is taken and given, and only one
/// that the declared shape does not have makes the field truncated.
impl<T: Element + Debug + Send + Sync> FieldValue for Vec<T> {
    type Input<'a> = &'a [T];

    #[inline]
    fn input(&self) -> &[T] {
        self
    }

    fn empty(ty: &FieldType) -> Self {
        vec![T::default(); shape_of(ty, T::DTYPE).iter().product()]
    }

    #[inline]
    fn load(&mut self, field: usize, from: &Source<'_>) -> bool {
        self.resize(from.size(field) / size_of::<T>(), T::default());
        load_elements(self, field, from);
        false
    }
}

impl<T: Element + Debug + Send + Sync> DeclaredField for Vec<T> {
    const FORM: Form = Form::Elements(T::DTYPE);
}

impl<'a, T: Element> FieldInput<'a> for &'a [T] {
    #[inline]
    fn prepare(&self, field: usize, draft: &mut Draft<'_>) -> Result<(), ValueError> {
        let shape = shape_of(draft.field_type(field), T::DTYPE);
        let same_shape = shape.iter().product::<usize>() == self.len();
        draft.put_bytes(field, T::as_bytes(self), same_shape);
        Ok(())
    }

    #[inline]
    fn large(&self) -> &'a [u8] {
        T::as_bytes(self)
    }
}

#[cfg(feature = "ndarray")]
mod arrays {
    use super::{DeclaredField, Form, load_elements, shape_of};
    use crate::{Draft, FieldInput, FieldValue, Source, ValueError};
    use ndarray::{Array, ArrayRef, Dimension, IxDyn};
    use polyshm_wire::slots::{Element, FieldType};
    use std::fmt::Debug;

    /// Arrays of any layout are taken: what is not in C order is written
    /// element by element. What is read is in C order, and has the declared
    /// shape.
    impl<T: Element + Debug + Send + Sync, D: Dimension> FieldValue for Array<T, D> {
        type Input<'a>
            = &'a ArrayRef<T, D>
        where
            Self: 'a;

        fn input(&self) -> &ArrayRef<T, D> {
            self
        }

        /// # Panics
        ///
        /// The field has another number of dimensions; the derive refuses that
        /// when it is compiled.
        fn empty(ty: &FieldType) -> Self {
            let shape = IxDyn(shape_of(ty, T::DTYPE));
            let Some(shape) = D::from_dimension(&shape) else {
                panic!(
                    "a field of type {ty} was declared with {:?} dimensions",
                    D::NDIM
                );
            };
            Self::from_elem(shape, T::default())
        }

        fn load(&mut self, field: usize, from: &Source<'_>) -> bool {
            let ty = &from.schema().fields()[field].ty;
            // A caller may have put another array in this place.
            if self.shape() != shape_of(ty, T::DTYPE) || !self.is_standard_layout() {
                *self = Self::empty(ty);
            }
            if let Some(elements) = self.as_slice_mut() {
                load_elements(elements, field, from);
            }
            false
        }
    }

    impl<T: Element + Debug + Send + Sync, D: Dimension> DeclaredField for Array<T, D> {
        const FORM: Form = match D::NDIM {
            Some(count) => Form::Dimensions(T::DTYPE, count),
            None => Form::Elements(T::DTYPE),
        };
    }

    impl<'a, T: Element, D: Dimension> FieldInput<'a> for &'a ArrayRef<T, D> {
        fn prepare(&self, field: usize, draft: &mut Draft<'_>) -> Result<(), ValueError> {
            let same_shape = shape_of(draft.field_type(field), T::DTYPE) == self.shape();
            if let Some(elements) = self.as_slice() {
                draft.put_bytes(field, T::as_bytes(elements), same_shape);
                return Ok(());
            }
            draft.put_filled(field, same_shape, |bytes| {
                let mut places = bytes.chunks_exact_mut(size_of::<T>());
                for (place, element) in places.by_ref().zip(self.iter()) {
                    place.copy_from_slice(T::as_bytes(std::slice::from_ref(element)));
                }
                places.for_each(|place| place.fill(0));
            });
            Ok(())
        }

        fn large(&self) -> &'a [u8] {
            self.as_slice().map_or(&[], T::as_bytes)
        }
    }
}

#[cfg(all(test, not(loom)))]
pub(crate) mod tests {
    use super::*;
    use crate::{
        Field,
        draft::{Source, Stage, Tally},
    };
    use polyshm_platform::{Bytes, Region, Rows};
    use polyshm_wire::slots::{Layout, Schema};

    /// A slot that nobody else uses: what a write and a read do, without the
    /// sequence words.
    pub(crate) struct Slot {
        layout: Layout,
        stage: Stage,
        bytes: Bytes,
        rows: Rows,
        statuses: Vec<u64>,
    }

    impl Slot {
        pub(crate) fn new(schema: &str) -> Self {
            let schema: Schema = schema.parse().unwrap();
            let layout = Layout::new(&schema, 1).unwrap();
            let region = Region::heap(layout.slot_size());
            Self {
                stage: Stage::new(&layout),
                bytes: region.bytes(0, layout.slot_size()).unwrap(),
                rows: region.rows(0, layout.slot_size(), 1).unwrap(),
                statuses: vec![u64::from_le_bytes([2; 8]); schema.len().div_ceil(8)],
                layout,
            }
        }

        /// Nothing is stored when `prepare` fails, as in a real write.
        pub(crate) fn write<'l>(
            &mut self,
            prepare: impl FnOnce(&mut Draft<'_>) -> Result<(), ValueError>,
            large: impl Fn(&Schema, usize) -> &'l [u8],
        ) -> Result<(), ValueError> {
            self.stage.clear();
            prepare(&mut self.stage.draft(&self.layout))?;
            let (layout, bytes) = (&self.layout, &self.bytes);
            self.stage.runs(
                layout,
                |field| large(layout.schema(), field),
                |at, run| bytes.write(at, run).unwrap(),
            );
            for (statuses, masks) in self.statuses.iter_mut().zip(self.stage.masks()) {
                *statuses = masks.after(*statuses);
            }
            Ok(())
        }

        pub(crate) fn source(&self) -> Source<'_> {
            Source {
                layout: &self.layout,
                slot: self.rows.at(0, self.layout.slot_size()),
                statuses: &self.statuses,
                tally: Tally::Every(0),
            }
        }

        /// What a peer may do to a field's bytes.
        pub(crate) fn poke(&self, field: usize, at: usize, bytes: &[u8]) {
            let place = self.layout.fields()[field];
            assert!(at + bytes.len() <= place.size);
            self.bytes.write(place.offset + at, bytes).unwrap();
        }

        pub(crate) fn field_bytes(&self, field: usize) -> Vec<u8> {
            let source = self.source();
            let mut bytes = vec![0; source.size(field)];
            source.read(field, 0, &mut bytes);
            bytes
        }

        pub(crate) fn put<'a>(&mut self, field: usize, value: &impl FieldInput<'a>) {
            let large = value.large();
            self.write(|draft| value.prepare(field, draft), |_, _| large)
                .unwrap();
        }

        pub(crate) fn get<T: FieldValue>(&self, field: usize) -> Field<T> {
            let mut value = Field::<T>::empty(&self.layout.schema().fields()[field].ty);
            value.load(field, &self.source());
            value
        }
    }

    /// Writes a value and reads it back.
    fn round_trip<T: FieldValue>(schema: &str, value: &T) -> Field<T> {
        let mut slot = Slot::new(schema);
        slot.put(0, &value.input());
        slot.get(0)
    }

    #[test]
    fn scalars_keep_every_bit() {
        for value in [
            0.0,
            -0.0,
            1.5,
            f64::MIN_POSITIVE / 2.0,
            f64::MAX,
            f64::NEG_INFINITY,
            f64::from_bits(0x7FF8_0000_0000_1234),
        ] {
            let read = round_trip("a: float", &value);
            assert_eq!(read.to_bits(), value.to_bits());
            assert!(read.is_valid() && read.is_modified());
        }
        for value in [0, 1, -1, i32::MIN, i32::MAX] {
            assert_eq!(*round_trip("a: int", &value), value);
        }
        for value in [false, true] {
            assert_eq!(*round_trip("a: bool", &value), value);
        }
    }

    #[test]
    fn scalars_have_the_bytes_of_the_format() {
        let mut slot = Slot::new("a: float, b: int, c: bool");
        slot.put(0, &1.0);
        slot.put(1, &-2);
        slot.put(2, &true);
        assert_eq!(slot.field_bytes(0), [0, 0, 0, 0, 0, 0, 0xF0, 0x3F]);
        assert_eq!(slot.field_bytes(1), [0xFE, 0xFF, 0xFF, 0xFF]);
        assert_eq!(slot.field_bytes(2), [1]);
        // Another implementation's truth.
        for byte in [2, 0x80, 0xFF] {
            slot.poke(2, 0, &[byte]);
            assert!(*slot.get::<bool>(2));
        }
        slot.poke(2, 0, &[0]);
        assert!(!*slot.get::<bool>(2));
    }

    #[test]
    fn nothing_read_yet_is_zero_and_unwritten() {
        let slot = Slot::new("a: float, b: str[3], c: int16[2,2], d: bool[1]");
        assert_eq!(slot.get::<f64>(0).to_bits(), 0);
        assert_eq!(*slot.get::<String>(1), "");
        assert_eq!(*slot.get::<Vec<i16>>(2), [0; 4]);
        assert_eq!(*slot.get::<[[i16; 2]; 2]>(2), [[0; 2]; 2]);
        let last = slot.get::<[bool; 1]>(3);
        assert_eq!(*last, [false]);
        assert!(last.is_unwritten() && last.valid().is_none());
    }

    #[test]
    fn text_is_cut_after_its_characters() {
        let mut slot = Slot::new("a: str[4], b: int");
        for (text, kept, truncated) in [
            ("", "", false),
            ("abcd", "abcd", false),
            ("abcde", "abcd", true),
            ("a\0b", "a\0b", false),
            ("äöüß", "äöüß", false),
            ("𝄞𝄞𝄞𝄞", "𝄞𝄞𝄞𝄞", false),
            ("𝄞𝄞𝄞𝄞𝄞", "𝄞𝄞𝄞𝄞", true),
        ] {
            slot.put(0, &text);
            let read = slot.get::<String>(0);
            assert_eq!(
                (&**read, read.is_truncated()),
                (kept, truncated),
                "{text:?}"
            );
        }
        // A shorter text leaves what was behind it.
        slot.put(0, &"ab");
        let bytes = slot.field_bytes(0);
        assert_eq!(bytes[..6], *b"\x02\0\0\0ab");
        assert_eq!(bytes[6..8], "𝄞".as_bytes()[2..]);
    }

    #[test]
    fn text_that_claims_more_than_its_field_is_clamped_and_flagged() {
        let mut slot = Slot::new("a: str[2], b: int8[4]");
        slot.put(1, &&[b'x'.cast_signed(); 4]);
        slot.put(0, &"ab");
        slot.poke(0, 4, b"abcdefgh");
        for len in [9_u32, 12, 1 << 31, u32::MAX] {
            slot.poke(0, 0, &len.to_le_bytes());
            let read = slot.get::<String>(0);
            assert_eq!(**read, *"abcdefgh", "{len}");
            assert!(read.is_truncated() && !read.is_valid(), "{len}");
        }
        slot.poke(0, 0, &8_u32.to_le_bytes());
        let read = slot.get::<String>(0);
        assert_eq!(**read, *"abcdefgh");
        assert!(read.is_valid());
    }

    #[test]
    fn malformed_text_is_dropped() {
        let mut slot = Slot::new("a: str[4]");
        slot.put(0, &"abcd");
        slot.poke(0, 0, &5_u32.to_le_bytes());
        slot.poke(0, 4, b"a\xFFb\xC3z");
        let read = slot.get::<String>(0);
        assert_eq!(**read, *"abz");
        assert!(read.is_valid());
        // It is the field's alone: what was read before is gone.
        let mut text = Field::new(String::from("longer than the field"));
        text.load(0, &slot.source());
        assert_eq!(**text, *"abz");
    }

    #[test]
    fn reading_again_uses_the_same_memory() {
        let mut slot = Slot::new("a: str[8], b: uint16[3]");
        let mut text = slot.get::<String>(0);
        let mut array = slot.get::<Vec<u16>>(1);
        slot.put(0, &"eight by");
        text.load(0, &slot.source());
        array.load(1, &slot.source());
        let places = (text.as_ptr(), array.as_ptr());
        for word in ["", "short", "€€", "eight by"] {
            slot.put(0, &word);
            slot.put(1, &&[7_u16, 8, 9][..]);
            text.load(0, &slot.source());
            array.load(1, &slot.source());
            assert_eq!((&**text, &**array), (word, &[7, 8, 9][..]));
            assert_eq!((text.as_ptr(), array.as_ptr()), places);
        }
    }

    #[test]
    fn every_element_type_as_every_array() {
        fn check<T: ArrayElements<Element = T> + Element + PartialEq>(values: [T; 6]) {
            let schema = format!("a: {}[2,3]", T::DTYPE);
            let nested = [
                [values[0], values[1], values[2]],
                [values[3], values[4], values[5]],
            ];
            let mut slot = Slot::new(&schema);
            slot.put(0, &&nested);
            assert_eq!(slot.field_bytes(0), T::as_bytes(&values), "{schema}");
            assert_eq!(
                slot.get::<[[T; 3]; 2]>(0).valid(),
                Some(&nested),
                "{schema}"
            );
            assert_eq!(
                slot.get::<Box<[[T; 3]; 2]>>(0).valid(),
                Some(&Box::new(nested))
            );
            assert_eq!(
                slot.get::<Vec<T>>(0).valid(),
                Some(&values.to_vec()),
                "{schema}"
            );
            let mut other = Slot::new(&schema);
            other.put(0, &&values[..]);
            assert_eq!(other.field_bytes(0), slot.field_bytes(0), "{schema}");
            assert!(other.get::<Vec<T>>(0).is_valid());
            assert_eq!(<[[T; 3]; 2]>::field_type().to_string(), schema[3..]);
        }
        check([0.5_f32, -0.0, f32::MAX, 1e-40, f32::INFINITY, 3.0]);
        check([0.5_f64, -0.0, f64::MAX, 1e-310, f64::INFINITY, 3.0]);
        check([0_i8, 1, -1, i8::MIN, i8::MAX, 5]);
        check([0_i16, 1, -1, i16::MIN, i16::MAX, 5]);
        check([0_i32, 1, -1, i32::MIN, i32::MAX, 5]);
        check([0_i64, 1, -1, i64::MIN, i64::MAX, 5]);
        check([0_u8, 1, 2, 3, u8::MAX, 5]);
        check([0_u16, 1, 2, 3, u16::MAX, 5]);
        check([0_u32, 1, 2, 3, u32::MAX, 5]);
        check([0_u64, 1, 2, 3, u64::MAX, 5]);
        check([true, false, false, true, true, false]);
    }

    #[test]
    fn foreign_truth_in_arrays() {
        let slot = Slot::new("a: bool[2,2]");
        slot.poke(0, 0, &[0, 2, 0xFF, 1]);
        assert_eq!(
            *slot.get::<[[bool; 2]; 2]>(0),
            [[false, true], [true, true]]
        );
        assert_eq!(*slot.get::<Vec<bool>>(0), [false, true, true, true]);
    }

    #[test]
    fn nested_arrays_tell_their_shape() {
        assert_eq!(<f32 as ArrayElements>::SHAPE, [0; 0]);
        assert_eq!(<[u8; 7]>::SHAPE, [7]);
        assert_eq!(<[[[u8; 3]; 640]; 480]>::SHAPE, [480, 640, 3]);
        assert_eq!(
            <[[[i64; 5]; 0]; 2]>::field_type().to_string(),
            "int64[2,0,5]"
        );
        assert_eq!(
            Box::<[[[u8; 3]; 640]; 480]>::field_type().to_string(),
            "uint8[480,640,3]"
        );
    }

    /// 3 MB in a thread that has less for its stack.
    #[test]
    fn boxed_arrays_are_never_on_the_stack() {
        type Image = Box<[[[u8; 3]; 1_000_000]; 1]>;
        let thread = std::thread::Builder::new().stack_size(256 << 10).spawn(|| {
            let mut slot = Slot::new("a: uint8[1,1000000,3]");
            let mut image: Image = FieldValue::empty(&Image::field_type());
            image[0][999_999] = [1, 2, 3];
            slot.put(0, &image.input());
            let read = slot.get::<Image>(0);
            assert!(read.is_valid());
            assert_eq!(read[0][999_998..], [[0; 3], [1, 2, 3]]);
        });
        thread.unwrap().join().unwrap();
    }

    /// Small arrays pass through the draft, large ones do not.
    #[test]
    fn vectors_of_another_length_are_cut_or_padded() {
        for (count, schema) in [
            (6_u16, "a: uint16[2,3], b: int"),
            (1200, "a: uint16[30,40], b: int"),
        ] {
            let mut slot = Slot::new(schema);
            slot.put(1, &-1);
            let full: Vec<u16> = (1..=count).collect();
            slot.put(0, &full.input());
            assert_eq!(slot.get::<Vec<u16>>(0).valid(), Some(&full));

            slot.put(0, &&full[..4]);
            let read = slot.get::<Vec<u16>>(0);
            assert!(read.is_truncated());
            assert_eq!(read[..4], full[..4]);
            assert_eq!(read.len(), full.len());
            assert!(read[4..].iter().all(|element| *element == 0));

            let more: Vec<u16> = (1..=count + 3).collect();
            slot.put(0, &more.input());
            let read = slot.get::<Vec<u16>>(0);
            assert!(read.is_truncated());
            assert_eq!(*read, full);

            slot.put(0, &&full[..0]);
            let read = slot.get::<Vec<u16>>(0);
            assert!(read.is_truncated());
            assert_eq!(*read, vec![0; full.len()]);

            slot.put(0, &full.input());
            assert!(slot.get::<Vec<u16>>(0).is_valid());
            assert_eq!(*slot.get::<i32>(1), -1, "the next field is untouched");
        }
    }

    #[test]
    fn a_vector_of_any_length_is_read_into() {
        let mut slot = Slot::new("a: int8[2,2]");
        slot.put(0, &&[1_i8, 2, 3, 4][..]);
        for before in [vec![], vec![9_i8; 3], vec![9; 100]] {
            let mut field = Field::new(before);
            field.load(0, &slot.source());
            assert_eq!(*field, [1, 2, 3, 4]);
        }
    }

    #[test]
    fn arrays_without_elements() {
        let mut slot = Slot::new("a: float32[0], b: int16[2,0,3], c: bool");
        slot.put(2, &true);
        slot.put(0, &&[0.0_f32; 0]);
        slot.put(1, &&[[[0_i16; 3]; 0]; 2]);
        assert!(slot.get::<[f32; 0]>(0).is_valid());
        assert!(slot.get::<Vec<i16>>(1).is_valid() && slot.get::<Vec<i16>>(1).is_empty());
        slot.put(1, &&[1_i16][..]);
        assert!(slot.get::<Vec<i16>>(1).is_truncated());
        assert!(*slot.get::<bool>(2));
    }

    #[test]
    #[should_panic(expected = "a field of type uint8[2] was declared with elements of type int8")]
    fn elements_of_another_type_contradict_the_record() {
        Slot::new("a: uint8[2]").put(0, &&[1_i8, 2]);
    }

    #[test]
    #[should_panic(expected = "a field of type int was declared with elements of type uint8")]
    fn an_array_for_a_scalar_contradicts_the_record() {
        Slot::new("a: int").put(0, &&[1_u8, 2][..]);
    }

    #[test]
    fn forms_allow_what_the_type_can_hold() {
        type Image = [[[u8; 3]; 640]; 480];
        let shape = &[480, 640, 3];
        assert!(f64::FORM.allows_float() && !f64::FORM.allows_int() && !f64::FORM.allows_bool());
        assert!(i32::FORM.allows_int() && !i32::FORM.allows_float());
        assert!(bool::FORM.allows_bool() && !bool::FORM.allows_array(Dtype::Bool, &[1]));
        assert!(String::FORM.allows_text() && !String::FORM.allows_float());
        assert!(Vec::<u8>::FORM.allows_array(Dtype::Uint8, shape));
        assert!(!Vec::<u8>::FORM.allows_array(Dtype::Int8, shape));
        assert!(!Vec::<u8>::FORM.allows_text());
        for form in [<Image as DeclaredField>::FORM, Box::<Image>::FORM] {
            assert!(form.allows_array(Dtype::Uint8, shape));
            assert!(!form.allows_array(Dtype::Bool, shape));
            for other in [&[480, 640][..], &[480, 640, 4], &[480, 640, 3, 1], &[]] {
                assert!(!form.allows_array(Dtype::Uint8, other), "{other:?}");
            }
        }
    }

    #[cfg(feature = "ndarray")]
    mod arrays {
        use super::*;
        use ndarray::{Array1, Array2, Array3, ArrayD, Ix2, IxDyn, ShapeBuilder};

        fn numbered(shape: (usize, usize)) -> Array2<u32> {
            Array2::from_shape_fn(shape, |(row, column)| (100 * row + column) as u32)
        }

        /// One shape below and one above the size from which bytes are lent.
        const SHAPES: [(usize, usize); 2] = [(3, 4), (30, 40)];

        fn slot((rows, columns): (usize, usize)) -> Slot {
            Slot::new(&format!("a: uint32[{rows},{columns}], b: int"))
        }

        #[test]
        fn the_order_in_memory_makes_no_difference() {
            for shape in SHAPES {
                let standard = numbered(shape);
                let mut fortran = Array2::zeros(shape.f());
                fortran.assign(&standard);
                assert!(!fortran.is_standard_layout());
                let wide = Array2::from_shape_fn((2 * shape.0, 3 * shape.1), |(row, column)| {
                    (100 * (row / 2) + column / 3) as u32
                });
                let strided = wide.slice_each_axis(|axis| {
                    ndarray::Slice::new(0, None, [2, 3][axis.axis.index()])
                });
                let mut back = standard.clone();
                back.invert_axis(ndarray::Axis(0));
                let mut reversed = back.as_standard_layout().into_owned();
                reversed.invert_axis(ndarray::Axis(0));

                let elements: Vec<u32> = standard.iter().copied().collect();
                let inputs: [&ndarray::ArrayRef<u32, Ix2>; 4] =
                    [&standard, &fortran, &strided, &reversed];
                for input in inputs {
                    let mut slot = slot(shape);
                    slot.put(0, &input);
                    assert_eq!(slot.field_bytes(0), Element::as_bytes(&elements));
                    let read = slot.get::<Array2<u32>>(0);
                    assert!(read.is_standard_layout());
                    assert_eq!(read.valid(), Some(&standard));
                    assert_eq!(
                        slot.get::<ArrayD<u32>>(0).valid(),
                        Some(&standard.clone().into_dyn())
                    );
                }
            }
        }

        #[test]
        fn another_shape_is_truncated_even_with_as_many_elements() {
            for shape in SHAPES {
                let turned = numbered((shape.1, shape.0));
                let elements: Vec<u32> = turned.iter().copied().collect();
                let mut slot = slot(shape);
                slot.put(0, &turned.input());
                let read = slot.get::<Array2<u32>>(0);
                assert!(read.is_truncated());
                assert_eq!(read.dim(), shape);
                assert_eq!(read.as_slice(), Some(&*elements));
            }
        }

        #[test]
        fn too_few_and_too_many_elements_in_every_order() {
            for shape in SHAPES {
                let count = shape.0 * shape.1;
                for other in [(1, 2), (shape.0 + 1, shape.1 + 2)] {
                    let standard = numbered(other);
                    let mut fortran = Array2::zeros(other.f());
                    fortran.assign(&standard);
                    let mut expected: Vec<u32> = standard.iter().copied().collect();
                    expected.resize(count, 0);
                    for input in [&standard, &fortran] {
                        let mut slot = slot(shape);
                        slot.put(1, &-1);
                        slot.put(0, &numbered(shape).input());
                        slot.put(0, &input.input());
                        let read = slot.get::<Vec<u32>>(0);
                        assert!(read.is_truncated());
                        assert_eq!(*read, expected);
                        assert_eq!(*slot.get::<i32>(1), -1);
                    }
                }
            }
        }

        #[test]
        fn what_stood_in_the_place_before_does_not_matter() {
            let shape = SHAPES[0];
            let mut slot = slot(shape);
            slot.put(0, &numbered(shape).input());
            for before in [
                Array2::<u32>::zeros(shape.f()),
                Array2::zeros((7, 1)),
                Array2::zeros((0, 0)),
            ] {
                let mut field = Field::new(before);
                field.load(0, &slot.source());
                assert_eq!(*field, numbered(shape));
                assert!(field.is_standard_layout());
            }
            let mut field = slot.get::<Array2<u32>>(0);
            let place = field.as_ptr();
            field.load(0, &slot.source());
            assert_eq!(field.as_ptr(), place);
        }

        #[test]
        fn other_numbers_of_dimensions() {
            let mut slot = Slot::new("a: bool[5], b: float64[2,0,3], c: int8[2,1,2]");
            let mask = Array1::from(vec![true, false, true, true, false]);
            slot.put(0, &mask.input());
            assert_eq!(slot.get::<Array1<bool>>(0).valid(), Some(&mask));
            let none = Array3::<f64>::zeros((2, 0, 3));
            slot.put(1, &none.input());
            assert_eq!(slot.get::<Array3<f64>>(1).valid(), Some(&none));
            let any = ArrayD::from_shape_vec(IxDyn(&[2, 1, 2]), vec![1_i8, 2, 3, 4]).unwrap();
            slot.put(2, &any.input());
            assert_eq!(slot.get::<ArrayD<i8>>(2).valid(), Some(&any));
            assert_eq!(
                slot.get::<[[[i8; 2]; 1]; 2]>(2).valid(),
                Some(&[[[1, 2]], [[3, 4]]])
            );
        }

        #[test]
        #[should_panic(expected = "was declared with Some(1) dimensions")]
        fn another_number_of_dimensions_contradicts_the_record() {
            Slot::new("a: bool[5,1]").get::<Array1<bool>>(0);
        }

        #[test]
        fn forms() {
            assert!(Array2::<u8>::FORM.allows_array(Dtype::Uint8, &[3, 4]));
            assert!(!Array2::<u8>::FORM.allows_array(Dtype::Uint8, &[3]));
            assert!(!Array2::<u8>::FORM.allows_array(Dtype::Uint16, &[3, 4]));
            assert!(ArrayD::<u8>::FORM.allows_array(Dtype::Uint8, &[3]));
            assert!(!ArrayD::<u8>::FORM.allows_text());
        }
    }
}
