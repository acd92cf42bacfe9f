//! Records whose schema is known only at run time.

use crate::{Draft, FieldMark, Record, Source, Update, ValueError};
use polyshm_wire::slots::{
    Dtype, Element, FieldSpec, FieldType, Schema, Status, Value, decode_value, push_text_lossy,
};
use std::{borrow::Cow, fmt, iter::FusedIterator, sync::Arc};

/// A record of any schema, which is chosen when the segment is opened.
///
/// It has no values: it stands for the record's type, as a derived struct does.
/// What is read is [`DynamicFields`]; [`Values`] are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dynamic {}

impl Record for Dynamic {
    type Fields = DynamicFields;

    fn empty(schema: &Schema) -> DynamicFields {
        DynamicFields::empty(schema)
    }

    fn load(fields: &mut DynamicFields, from: &Source<'_>) {
        fields.load(from);
    }

    fn count(fields: &mut DynamicFields, from: &Source<'_>) {
        for (field, mark) in fields.marks.iter_mut().enumerate() {
            mark.changes = from.mark(field).changes;
        }
    }
}

/// The fields of a [`Dynamic`] record that was read.
///
/// A clone shares the schema.
#[derive(Clone, PartialEq)]
pub struct DynamicFields {
    schema: Arc<Schema>,
    /// all fields, one behind the other
    bytes: Vec<u8>,
    /// where in `bytes` each field ends
    ends: Vec<usize>,
    /// as many as fields
    marks: Vec<FieldMark>,
}

impl DynamicFields {
    fn empty(schema: &Schema) -> Self {
        let mut end = 0;
        let ends: Vec<_> = schema
            .fields()
            .iter()
            .map(|field| {
                end += field
                    .ty
                    .size()
                    .expect("a schema has only types with a size") as usize;
                end
            })
            .collect();
        let mark = FieldMark {
            status: Status::FRESH,
            changes: 0,
        };
        Self {
            schema: Arc::new(schema.clone()),
            bytes: vec![0; end],
            marks: vec![mark; ends.len()],
            ends,
        }
    }

    fn load(&mut self, from: &Source<'_>) {
        // These may be of another store.
        if *self.schema != *from.schema() {
            *self = Self::empty(from.schema());
        }
        let mut start = 0;
        for (field, spec) in self.schema.fields().iter().enumerate() {
            let bytes = &mut self.bytes[start..self.ends[field]];
            start = self.ends[field];
            from.read(field, 0, bytes);
            let mut mark = from.mark(field);
            if matches!(spec.ty, FieldType::Text { .. }) && text_part(bytes).1 {
                mark.status = Status::from_bits(mark.status.bits() | Status::TRUNCATED);
            }
            self.marks[field] = mark;
        }
    }

    /// The record's schema.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether the record has no field.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The field of that name.
    pub fn get(&self, name: &str) -> Option<FieldRef<'_>> {
        Some(self.at(self.schema.index_of(name)?))
    }

    /// The field of that number, in the order of the schema.
    ///
    /// # Panics
    ///
    /// When there are not so many.
    pub fn at(&self, index: usize) -> FieldRef<'_> {
        let start = match index {
            0 => 0,
            _ => self.ends[index - 1],
        };
        FieldRef {
            spec: &self.schema.fields()[index],
            bytes: &self.bytes[start..self.ends[index]],
            mark: self.marks[index],
        }
    }

    /// All fields in the order of the schema.
    pub fn iter(&self) -> DynamicIter<'_> {
        DynamicIter {
            fields: self,
            next: 0,
        }
    }
}

impl<'a> IntoIterator for &'a DynamicFields {
    type Item = FieldRef<'a>;
    type IntoIter = DynamicIter<'a>;

    fn into_iter(self) -> DynamicIter<'a> {
        self.iter()
    }
}

impl fmt::Debug for DynamicFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

/// `name: value, ...`, with a note at what is not the complete value that was
/// written.
impl fmt::Display for DynamicFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, field) in self.iter().enumerate() {
            let separator = if at == 0 { "" } else { ", " };
            write!(f, "{separator}{}: {field}", field.name())?;
        }
        Ok(())
    }
}

/// The iterator of [`DynamicFields::iter`].
#[derive(Clone, Debug)]
pub struct DynamicIter<'a> {
    fields: &'a DynamicFields,
    next: usize,
}

impl<'a> Iterator for DynamicIter<'a> {
    type Item = FieldRef<'a>;

    fn next(&mut self) -> Option<FieldRef<'a>> {
        if self.next == self.fields.len() {
            return None;
        }
        self.next += 1;
        Some(self.fields.at(self.next - 1))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.fields.len() - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for DynamicIter<'_> {}
impl FusedIterator for DynamicIter<'_> {}

/// The bytes of a text that lie in its field, and whether it claims more.
fn text_part(field: &[u8]) -> (&[u8], bool) {
    let Some((len, text)) = field.split_first_chunk() else {
        return (&[], true);
    };
    let len = u32::from_le_bytes(*len) as usize;
    (&text[..len.min(text.len())], len > text.len())
}

/// A field of [`DynamicFields`].
#[derive(Clone, Copy)]
pub struct FieldRef<'a> {
    spec: &'a FieldSpec,
    /// as many as the type takes
    bytes: &'a [u8],
    mark: FieldMark,
}

impl<'a> FieldRef<'a> {
    /// The name.
    pub fn name(&self) -> &'a str {
        &self.spec.name
    }

    /// The type.
    pub fn field_type(&self) -> &'a FieldType {
        &self.spec.ty
    }

    /// The dimensions of an array; none for other types.
    pub fn shape(&self) -> &'a [usize] {
        match &self.spec.ty {
            FieldType::Array { shape, .. } => shape,
            _ => &[],
        }
    }

    /// The value, whatever its status.
    pub fn value(&self) -> Value {
        decode_value(&self.spec.ty, self.bytes).value
    }

    /// The value, when it is complete: written, and not truncated.
    pub fn valid(&self) -> Option<Value> {
        self.is_valid().then(|| self.value())
    }

    /// The field's bytes as they stand in a slot (format, section 3).
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The value of a `float`.
    pub fn as_f64(&self) -> Option<f64> {
        match self.spec.ty {
            FieldType::Float => self.bytes.try_into().ok().map(f64::from_le_bytes),
            _ => None,
        }
    }

    /// The value of an `int`.
    pub fn as_i32(&self) -> Option<i32> {
        match self.spec.ty {
            FieldType::Int => self.bytes.try_into().ok().map(i32::from_le_bytes),
            _ => None,
        }
    }

    /// The value of a `bool`.
    pub fn as_bool(&self) -> Option<bool> {
        match self.spec.ty {
            FieldType::Bool => Some(self.bytes != [0]),
            _ => None,
        }
    }

    /// The text of a `str[N]`. Malformed parts are left out, as the original
    /// does.
    pub fn text(&self) -> Option<Cow<'a, str>> {
        let FieldType::Text { .. } = self.spec.ty else {
            return None;
        };
        let (bytes, _) = text_part(self.bytes);
        if let Ok(text) = std::str::from_utf8(bytes) {
            return Some(Cow::Borrowed(text));
        }
        let mut text = String::with_capacity(bytes.len());
        push_text_lossy(&mut text, bytes);
        Some(Cow::Owned(text))
    }

    /// The elements of an array in C order, when they have this type.
    pub fn to_vec<T: Element>(&self) -> Option<Vec<T>> {
        let FieldType::Array { dtype, .. } = self.spec.ty else {
            return None;
        };
        if dtype != T::DTYPE {
            return None;
        }
        let mut elements = vec![T::default(); self.bytes.len() / dtype.size()];
        T::copy_from_bytes(&mut elements, &mut |at, into| {
            into.copy_from_slice(&self.bytes[at..][..into.len()]);
        });
        Some(elements)
    }

    /// The status byte.
    pub const fn status(&self) -> Status {
        self.mark.status
    }

    /// Whether the value is the complete one that was written.
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
    /// since this handle's last read see [`FieldRef::is_changed`].
    pub const fn is_modified(&self) -> bool {
        self.mark.status.is_modified()
    }

    /// Whether a write listed this field since this handle read before.
    pub const fn is_changed(&self) -> bool {
        self.mark.changes > 0
    }

    /// How many writes listed this field since this handle read before; see
    /// [`FieldMark::changes`].
    pub const fn changes(&self) -> u64 {
        self.mark.changes
    }
}

impl fmt::Debug for FieldRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FieldRef")
            .field("name", &self.spec.name)
            .field("value", &Shown(*self))
            .field("status", &self.mark.status)
            .field("changes", &self.mark.changes)
            .finish()
    }
}

/// The value, with a note when it is not the complete one that was written. Of
/// a long array the first elements.
impl fmt::Display for FieldRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_unwritten() {
            return f.write_str("unwritten");
        }
        fmt::Display::fmt(&Shown(*self), f)?;
        if self.is_truncated() {
            f.write_str(" (truncated)")?;
        }
        Ok(())
    }
}

/// The most elements of an array that are printed.
const SHOWN: usize = 8;

/// A field's value as it is printed, whatever its status.
struct Shown<'a>(FieldRef<'a>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = &self.0;
        let FieldType::Array { dtype, .. } = field.spec.ty else {
            return match field.value() {
                Value::Float(value) => write!(f, "{value:?}"),
                Value::Int(value) => write!(f, "{value}"),
                Value::Bool(value) => write!(f, "{value}"),
                Value::Text(value) => write!(f, "{value:?}"),
                Value::Array(_) => Ok(()),
            };
        };
        match dtype {
            Dtype::Float32 => write_elements::<f32>(field.bytes, f),
            Dtype::Float64 => write_elements::<f64>(field.bytes, f),
            Dtype::Int8 => write_elements::<i8>(field.bytes, f),
            Dtype::Int16 => write_elements::<i16>(field.bytes, f),
            Dtype::Int32 => write_elements::<i32>(field.bytes, f),
            Dtype::Int64 => write_elements::<i64>(field.bytes, f),
            Dtype::Uint8 => write_elements::<u8>(field.bytes, f),
            Dtype::Uint16 => write_elements::<u16>(field.bytes, f),
            Dtype::Uint32 => write_elements::<u32>(field.bytes, f),
            Dtype::Uint64 => write_elements::<u64>(field.bytes, f),
            Dtype::Bool => write_elements::<bool>(field.bytes, f),
        }
    }
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn write_elements<T: Element + fmt::Debug>(
    bytes: &[u8],
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let count = bytes.len() / size_of::<T>();
    let mut elements = [T::default(); SHOWN];
    let elements = &mut elements[..count.min(SHOWN)];
    T::copy_from_bytes(elements, &mut |at, into| {
        into.copy_from_slice(&bytes[at..][..into.len()]);
    });
    f.write_str("[")?;
    for (at, element) in elements.iter().enumerate() {
        let separator = if at == 0 { "" } else { ", " };
        write!(f, "{separator}{element:?}")?;
    }
    if count > SHOWN {
        write!(f, ", and {} more", count - SHOWN)?;
    }
    f.write_str("]")
}

/// Values by name, to be written into fields.
///
/// They go into a record of any schema that has those names; what a field
/// cannot hold exactly is refused when it is written. A name has one value, the
/// later one.
///
/// ```
/// use polyshm_slots::{Value, Values};
///
/// let mut values = Values::new().with("temperature", 23.5).with("status_msg", "OK");
/// values.set("temperature", 24.0);
/// assert_eq!(values.len(), 2);
/// assert_eq!(values.get("temperature"), Some(&Value::Float(24.0)));
/// assert_eq!(values, Values::from([("temperature", 24.0.into()), ("status_msg", Value::from("OK"))]));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values {
    /// names occur once
    entries: Vec<(String, Value)>,
}

impl Values {
    /// No value yet.
    pub const fn new() -> Self {
        Self {
            entries: Vec::new(),
        }
    }

    /// With this value too.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.set(name, value);
        self
    }

    /// Gives the name this value.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        let (name, value) = (name.into(), value.into());
        match self.entries.iter_mut().find(|entry| entry.0 == name) {
            Some(entry) => entry.1 = value,
            None => self.entries.push((name, value)),
        }
    }

    /// The value of that name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let entry = self.entries.iter().find(|entry| entry.0 == name)?;
        Some(&entry.1)
    }

    /// Takes the value of that name out.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let at = self.entries.iter().position(|entry| entry.0 == name)?;
        Some(self.entries.remove(at).1)
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes all values out.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// Names and values, in the order in which the names came.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries
            .iter()
            .map(|(name, value)| (name.as_str(), value))
    }
}

impl<N: Into<String>, V: Into<Value>> Extend<(N, V)> for Values {
    fn extend<I: IntoIterator<Item = (N, V)>>(&mut self, values: I) {
        for (name, value) in values {
            self.set(name, value);
        }
    }
}

impl<N: Into<String>, V: Into<Value>> FromIterator<(N, V)> for Values {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(values: I) -> Self {
        let mut all = Self::new();
        all.extend(values);
        all
    }
}

impl<N: Into<String>, V: Into<Value>, const LEN: usize> From<[(N, V); LEN]> for Values {
    fn from(values: [(N, V); LEN]) -> Self {
        values.into_iter().collect()
    }
}

impl IntoIterator for Values {
    type Item = (String, Value);
    type IntoIter = std::vec::IntoIter<(String, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

/// Into records of every schema, derived ones too.
impl<R: Record> Update<R> for Values {
    fn prepare(&self, draft: &mut Draft<'_>) -> Result<(), ValueError> {
        for (name, value) in &self.entries {
            let Some(field) = draft.index_of(name) else {
                return Err(ValueError::UnknownField {
                    field: name.clone(),
                    schema: draft.schema().to_string(),
                });
            };
            draft.put_value(field, value)?;
        }
        Ok(())
    }

    fn large(&self, schema: &Schema, field: usize) -> &[u8] {
        match self.get(&schema.fields()[field].name) {
            Some(Value::Array(array)) => array.bytes(),
            _ => &[],
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::values::tests::Slot;
    use polyshm_wire::slots::ArrayValue;

    const ALL: &str = "temperature: float, count: int, ok: bool, note: str[4], grid: int16[2,3]";

    impl Slot {
        fn set(&mut self, values: &Values) -> Result<(), ValueError> {
            self.write(
                |draft| Update::<Dynamic>::prepare(values, draft),
                |schema, field| Update::<Dynamic>::large(values, schema, field),
            )
        }

        fn fields(&self) -> DynamicFields {
            let mut fields = Dynamic::empty(self.source().schema());
            Dynamic::load(&mut fields, &self.source());
            fields
        }
    }

    fn grid() -> ArrayValue {
        ArrayValue::from_elements(vec![2, 3], &[1_i16, -2, 3, -4, 5, -6]).unwrap()
    }

    fn all() -> Values {
        Values::new()
            .with("temperature", 23.5)
            .with("count", 7)
            .with("ok", true)
            .with("note", "fine")
            .with("grid", grid())
    }

    #[test]
    fn what_was_written_is_read() {
        let mut slot = Slot::new(ALL);
        slot.set(&all()).unwrap();
        let fields = slot.fields();
        assert_eq!(fields.schema().to_string(), ALL);
        assert_eq!(fields.len(), 5);
        for (name, value) in all().iter() {
            let field = fields.get(name).unwrap();
            assert_eq!(field.valid().as_ref(), Some(value), "{name}");
            assert!(field.is_modified() && !field.is_changed());
        }
        let names: Vec<_> = fields.iter().map(|field| field.name()).collect();
        assert_eq!(names, ["temperature", "count", "ok", "note", "grid"]);
        assert_eq!(fields.iter().len(), 5);
        assert!(fields.get("pressure").is_none());
    }

    #[test]
    fn each_type_has_its_own_form() {
        let mut slot = Slot::new(ALL);
        slot.set(&all()).unwrap();
        let fields = slot.fields();
        let forms: Vec<_> = fields
            .iter()
            .map(|field| {
                (
                    field.as_f64(),
                    field.as_i32(),
                    field.as_bool(),
                    field.text().map(Cow::into_owned),
                    field.to_vec::<i16>(),
                )
            })
            .collect();
        let elements = vec![1, -2, 3, -4, 5, -6];
        assert_eq!(
            forms,
            [
                (Some(23.5), None, None, None, None),
                (None, Some(7), None, None, None),
                (None, None, Some(true), None, None),
                (None, None, None, Some("fine".into()), None),
                (None, None, None, None, Some(elements)),
            ]
        );
        let grid = fields.get("grid").unwrap();
        assert_eq!(grid.to_vec::<u16>(), None);
        assert_eq!(grid.shape(), [2, 3]);
        assert_eq!(grid.field_type().to_string(), "int16[2,3]");
        assert_eq!(fields.at(1).bytes(), [7, 0, 0, 0]);
        assert_eq!(fields.at(1).shape(), [0; 0]);
        let note = fields.get("note").unwrap();
        assert!(matches!(note.text(), Some(Cow::Borrowed("fine"))));
    }

    #[test]
    fn a_field_that_no_record_has_is_refused_with_all_there_are() {
        let mut slot = Slot::new("a: float, b: int");
        slot.set(&Values::new().with("a", 1.0)).unwrap();
        let error = slot
            .set(&Values::new().with("a", 2.0).with("c", 3))
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "the record has no field \"c\": its fields are a: float, b: int"
        );
        assert_eq!(slot.fields().at(0).as_f64(), Some(1.0));
    }

    #[test]
    fn a_value_that_its_field_cannot_hold_is_refused() {
        let mut slot = Slot::new(ALL);
        let many = ArrayValue::from_elements(vec![2, 3], &[0_i32, 0, 0, 40_000, 0, 0]).unwrap();
        for (name, value) in [
            ("temperature", Value::from("hot")),
            ("count", Value::from(1_i64 << 31)),
            ("count", Value::from(1.5)),
            ("ok", Value::from(2)),
            ("note", Value::from(1)),
            ("grid", Value::from(1)),
            ("grid", Value::from(many)),
        ] {
            let error = slot
                .set(&Values::new().with("ok", true).with(name, value))
                .unwrap_err();
            let ValueError::Refused { field, .. } = &error else {
                panic!("{error}");
            };
            assert_eq!(field, name);
            assert!(slot.fields().iter().all(|field| field.is_unwritten()));
        }
    }

    #[test]
    fn what_does_not_fit_is_truncated() {
        let mut slot = Slot::new(ALL);
        let flat = ArrayValue::from_elements(vec![6], &[1_i16, 2, 3, 4, 5, 6]).unwrap();
        slot.set(&Values::new().with("note", "finer").with("grid", flat))
            .unwrap();
        let fields = slot.fields();
        let note = fields.get("note").unwrap();
        assert!(note.is_truncated() && note.valid().is_none());
        assert_eq!(note.value(), Value::from("fine"));
        let grid = fields.get("grid").unwrap();
        assert!(grid.is_truncated());
        assert_eq!(grid.to_vec::<i16>(), Some(vec![1, 2, 3, 4, 5, 6]));
    }

    /// Large arrays are lent, and each schema numbers its fields itself.
    #[test]
    fn one_set_of_values_for_several_schemas() {
        let image: Vec<u8> = (0..=250).cycle().take(3000).collect();
        let mask = vec![true; 2000];
        let values = Values::new()
            .with(
                "mask",
                ArrayValue::from_elements(vec![2000], &mask).unwrap(),
            )
            .with(
                "image",
                ArrayValue::from_elements(vec![30, 100], &image).unwrap(),
            );
        for schema in [
            "mask: bool[2000], image: uint8[30,100]",
            "image: uint8[30,100], count: int, mask: bool[2000]",
            // Converted, and thus copied.
            "count: int, mask: uint8[2000], image: float32[30,100]",
        ] {
            let mut slot = Slot::new(schema);
            slot.set(&values).unwrap();
            let fields = slot.fields();
            let (read, flags) = (fields.get("image").unwrap(), fields.get("mask").unwrap());
            assert!(read.is_valid() && flags.is_valid(), "{schema}");
            if let Some(found) = read.to_vec::<u8>() {
                assert_eq!(found, image, "{schema}");
            } else {
                let floats: Vec<_> = image.iter().map(|pixel| f32::from(*pixel)).collect();
                assert_eq!(read.to_vec(), Some(floats), "{schema}");
            }
            assert!(flags.bytes().iter().all(|byte| *byte == 1), "{schema}");
        }
    }

    #[test]
    fn text_that_claims_more_than_its_field_is_clamped_and_flagged() {
        let mut slot = Slot::new("note: str[2], rest: int8[4]");
        let rest = ArrayValue::from_elements(vec![4], &[b'x'.cast_signed(); 4]).unwrap();
        slot.set(&Values::new().with("note", "ab").with("rest", rest))
            .unwrap();
        slot.poke(0, 0, &u32::MAX.to_le_bytes());
        slot.poke(0, 4, b"ab\xFFdefgh");
        let fields = slot.fields();
        let note = fields.at(0);
        assert!(note.is_truncated() && !note.is_valid());
        assert_eq!(note.text().unwrap(), "abdefgh");
        assert_eq!(note.value(), Value::from("abdefgh"));
        slot.poke(0, 0, &8_u32.to_le_bytes());
        assert!(slot.fields().at(0).is_valid());
    }

    #[test]
    fn fields_of_another_record_are_replaced() {
        let mut slot = Slot::new("a: int, b: bool");
        slot.set(&Values::new().with("a", 3)).unwrap();
        // Of the same sizes, of others, and of another number.
        for schema in ["c: int, d: bool", "a: str[9], b: float", "x: float", ""] {
            let mut fields = Slot::new(schema).fields();
            Dynamic::load(&mut fields, &slot.source());
            assert_eq!(fields, slot.fields(), "{schema}");
        }
    }

    #[test]
    fn a_record_without_fields() {
        let fields = Slot::new("").fields();
        assert!(fields.is_empty() && fields.iter().next().is_none());
        assert_eq!(fields.to_string(), "");
    }

    #[test]
    fn fields_are_printed_with_their_values() {
        let mut slot = Slot::new(
            "t: float, n: int, s: str[3], g: bool[2], long: uint8[4,5], none: int8[0], never: int",
        );
        let long = ArrayValue::from_elements(vec![20], &[7_u8; 20]).unwrap();
        let values = Values::new()
            .with("t", 1.0)
            .with("n", -3)
            .with("s", "a\"bc")
            .with(
                "g",
                ArrayValue::from_elements(vec![2], &[true, false]).unwrap(),
            )
            .with("long", long)
            .with(
                "none",
                ArrayValue::from_elements::<i8>(vec![0], &[]).unwrap(),
            );
        slot.set(&values).unwrap();
        let fields = slot.fields();
        assert_eq!(
            fields.to_string(),
            "t: 1.0, n: -3, s: \"a\\\"b\" (truncated), g: [true, false], \
             long: [7, 7, 7, 7, 7, 7, 7, 7, and 12 more] (truncated), none: [], never: unwritten"
        );
        let debug = format!("{:?}", fields.at(1));
        assert!(debug.contains("\"n\"") && debug.contains("-3"), "{debug}");
        let debug = format!("{fields:?}");
        assert!(debug.contains("\"never\""), "{debug}");
    }

    #[test]
    fn values_have_each_name_once() {
        let mut values = Values::from([("a", 1), ("b", 2)]);
        values.set("a", 3.5);
        values.extend([("c", "x"), ("b", "y")]);
        let found: Vec<_> = values.iter().collect();
        assert_eq!(
            found,
            [
                ("a", &Value::Float(3.5)),
                ("b", &Value::from("y")),
                ("c", &Value::from("x"))
            ]
        );
        assert_eq!(values.remove("b"), Some(Value::from("y")));
        assert_eq!(values.remove("b"), None);
        assert_eq!(values.len(), 2);
        let again: Values = values.clone().into_iter().collect();
        assert_eq!(again, values);
        values.clear();
        assert!(values.is_empty() && values.get("a").is_none());
    }
}
