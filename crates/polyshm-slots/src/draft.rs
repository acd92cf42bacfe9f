//! A write before it happens, and a slot while it is read.

use crate::{FieldMark, ValueError};
use polyshm_platform::Row;
use polyshm_wire::slots::{
    FieldPlace, FieldType, Layout, Schema, Status, Value, encode_value, text_prefix,
};

/// Arrays from this size on go from the caller's memory to the slot at once,
/// without a copy between.
pub(crate) const LARGE: usize = 1024;

/// Bytes of a status word.
pub(crate) const STATUSES: usize = 8;

/// The private form of a write: converted bytes, and which fields are listed.
///
/// Everything that can fail happens here. What is left for the shared bytes is
/// copying.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    /// As large as a slot, once something was listed; only listed, small fields
    /// are filled.
    image: Vec<u8>,
    listed: Vec<Listed>,
    masks: Vec<Masks>,
    /// What a write of all fields does.
    all: Vec<Masks>,
    /// Field `i` is bit `i % 64`.
    bits: u64,
    /// How many fields are listed, and whether all of them fill their place
    /// from the image.
    count: usize,
    whole: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listed {
    No,
    /// So many bytes of the image.
    Small(usize),
    /// The update's own bytes.
    Large,
}

/// What a write does to eight status bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Masks {
    keep: u64,
    set: u64,
}

impl Masks {
    #[inline]
    fn list(&mut self, field: usize, truncated: bool) {
        let shift = 8 * (field % STATUSES) as u32;
        let status = Status::from_bits(0).written(truncated).bits();
        self.keep = (self.keep & !(0xFF << shift)) | (0xF8 << shift);
        self.set = (self.set & !(0xFF << shift)) | (u64::from(status) << shift);
    }

    /// The statuses when the write is done.
    #[inline]
    pub(crate) const fn after(self, now: u64) -> u64 {
        (now & self.keep) | self.set
    }
}

/// The masks of a write that lists nothing.
fn pass_over(fields: usize, word: usize) -> Masks {
    let mut keep = u64::MAX;
    for byte in 0..fields.saturating_sub(word * STATUSES).min(STATUSES) {
        keep &= !(u64::from(Status::MODIFIED) << (8 * byte));
    }
    Masks { keep, set: 0 }
}

impl Stage {
    pub(crate) fn new(layout: &Layout) -> Self {
        let fields = layout.fields().len();
        let mut stage = Self {
            image: Vec::new(),
            listed: vec![Listed::No; fields],
            masks: Vec::new(),
            all: Vec::new(),
            bits: 0,
            count: 0,
            whole: true,
        };
        stage.masks = (0..fields.div_ceil(STATUSES))
            .map(|word| pass_over(fields, word))
            .collect();
        stage.all = stage.masks.clone();
        for field in 0..fields {
            stage.all[field / STATUSES].list(field, false);
        }
        stage
    }

    /// What a write of all fields does.
    #[inline]
    pub(crate) fn all(&self) -> &[Masks] {
        &self.all
    }

    /// Only for handles that write.
    #[cold]
    fn make_image(&mut self, layout: &Layout) {
        self.image = vec![0; layout.fields_end()];
    }

    #[inline]
    pub(crate) fn masks(&self) -> &[Masks] {
        &self.masks
    }

    /// Whether every field is listed.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.count == self.listed.len()
    }

    pub(crate) fn is_listed(&self, field: usize) -> bool {
        self.listed[field] != Listed::No
    }

    /// Forgets all that was listed.
    #[inline]
    pub(crate) fn clear(&mut self) {
        if self.count == 0 {
            return;
        }
        let fields = self.listed.len();
        self.listed.fill(Listed::No);
        for (word, masks) in self.masks.iter_mut().enumerate() {
            *masks = pass_over(fields, word);
        }
        self.bits = 0;
        self.count = 0;
        self.whole = true;
    }

    /// The listed fields, modulo 64.
    #[inline]
    pub(crate) fn bits(&self) -> u64 {
        self.bits
    }

    #[inline]
    pub(crate) fn draft<'a>(&'a mut self, layout: &'a Layout) -> Draft<'a> {
        if self.image.is_empty() {
            self.make_image(layout);
        }
        Draft {
            stage: self,
            layout,
            own_large: false,
            checking: false,
        }
    }

    /// Gives what is listed as runs of bytes: the offset in the slot, and the
    /// bytes. `large` gives those of a large field.
    #[inline]
    pub(crate) fn runs<'l>(
        &self,
        layout: &Layout,
        large: impl Fn(usize) -> &'l [u8],
        mut put: impl FnMut(usize, &[u8]),
    ) {
        let places = layout.fields();
        if self.whole && self.count == self.listed.len() {
            let first = layout.first_field();
            put(first, &self.image[first..]);
            return;
        }
        let mut run = 0..0;
        for (field, (place, listed)) in places.iter().zip(&self.listed).enumerate() {
            match *listed {
                Listed::No => {}
                Listed::Small(used) => {
                    if run.end != place.offset {
                        put(run.start, &self.image[run.clone()]);
                        run = place.offset..place.offset;
                    }
                    run.end += used;
                }
                Listed::Large => {
                    put(run.start, &self.image[run.clone()]);
                    run = 0..0;
                    put_large(*place, large(field), &mut put);
                }
            }
        }
        put(run.start, &self.image[run]);
    }
}

/// A large array: what there is of it, and zeros.
fn put_large(place: FieldPlace, bytes: &[u8], put: &mut impl FnMut(usize, &[u8])) {
    const ZEROS: [u8; 1024] = [0; 1024];
    let bytes = &bytes[..bytes.len().min(place.size)];
    put(place.offset, bytes);
    let mut at = bytes.len();
    while at < place.size {
        let len = ZEROS.len().min(place.size - at);
        put(place.offset + at, &ZEROS[..len]);
        at += len;
    }
}

/// Takes the values of a write, one field after the other.
///
/// [`Update::prepare`](crate::Update::prepare) fills it. A field that is put
/// twice has the later value.
#[derive(Debug)]
pub struct Draft<'a> {
    stage: &'a mut Stage,
    layout: &'a Layout,
    /// Large values are copied, since the update will be gone when they are
    /// written.
    own_large: bool,
    /// Nothing is listed, only looked at.
    checking: bool,
}

impl Draft<'_> {
    /// Copies also large values.
    pub(crate) fn owning(mut self) -> Self {
        self.own_large = true;
        self
    }

    /// Lists nothing: for a look whether all of it can be listed.
    pub(crate) fn checking(mut self) -> Self {
        self.checking = true;
        self
    }

    /// The type of a field.
    pub fn field_type(&self, field: usize) -> &FieldType {
        &self.layout.schema().fields()[field].ty
    }

    /// The record's schema.
    pub fn schema(&self) -> &Schema {
        self.layout.schema()
    }

    /// The number of the field of that name.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.layout.schema().index_of(name)
    }

    #[inline]
    fn list(&mut self, field: usize, how: Listed, truncated: bool) {
        let stage = &mut *self.stage;
        if stage.listed[field] == Listed::No {
            stage.count += 1;
        }
        stage.listed[field] = how;
        stage.bits |= 1 << (field % 64);
        stage.whole &=
            matches!(how, Listed::Small(used) if used == self.layout.fields()[field].size);
        stage.masks[field / STATUSES].list(field, truncated);
    }

    #[inline]
    fn image(&mut self, field: usize) -> &mut [u8] {
        let place = self.layout.fields()[field];
        &mut self.stage.image[place.offset..place.offset + place.size]
    }

    /// A scalar's bytes, exactly as many as the field has.
    ///
    /// # Panics
    ///
    /// When the field has another size.
    #[inline]
    pub fn put_scalar<const N: usize>(&mut self, field: usize, bytes: [u8; N]) {
        let size = self.layout.fields()[field].size;
        assert_eq!(size, N, "the field's type has another size");
        if self.checking {
            return;
        }
        let image = self.image(field);
        image.copy_from_slice(&bytes);
        self.list(field, Listed::Small(N), false);
    }

    /// Text: as many characters as the field takes; it is truncated when there
    /// are more (format, section 3.3).
    ///
    /// # Panics
    ///
    /// When the field is no text.
    pub fn put_text(&mut self, field: usize, text: &str) {
        let &FieldType::Text { max_chars } = self.field_type(field) else {
            panic!("the field is no text");
        };
        if self.checking {
            return;
        }
        let (text, truncated) = text_prefix(text, max_chars);
        let len = text.len() as u32;
        let image = self.image(field);
        image[..4].copy_from_slice(&len.to_le_bytes());
        image[4..4 + text.len()].copy_from_slice(text.as_bytes());
        self.list(field, Listed::Small(4 + text.len()), truncated);
    }

    /// An array's bytes in C order: cut or padded with zeros to the field's
    /// size. `same_shape` tells whether they have the declared shape; the field
    /// is truncated otherwise (format, section 3.4).
    ///
    /// Large arrays are not copied here: [`Update::large`](crate::Update::large)
    /// or [`FieldInput::large`](crate::FieldInput::large) gives them again.
    #[inline]
    pub fn put_bytes(&mut self, field: usize, bytes: &[u8], same_shape: bool) {
        if self.checking {
            return;
        }
        let size = self.layout.fields()[field].size;
        let truncated = !same_shape || bytes.len() != size;
        if size >= LARGE && !self.own_large {
            self.list(field, Listed::Large, truncated);
            return;
        }
        let image = self.image(field);
        let len = bytes.len().min(size);
        image[..len].copy_from_slice(&bytes[..len]);
        image[len..].fill(0);
        self.list(field, Listed::Small(size), truncated);
    }

    /// An array's bytes, made in place: `fill` sets all bytes of the field. It
    /// is copied here, whatever its size.
    pub fn put_filled(&mut self, field: usize, same_shape: bool, fill: impl FnOnce(&mut [u8])) {
        if self.checking {
            return;
        }
        let image = self.image(field);
        let size = image.len();
        fill(image);
        self.list(field, Listed::Small(size), !same_shape);
    }

    /// Any value, converted as [`encode_value`] does.
    ///
    /// # Errors
    ///
    /// The field cannot hold it; it is not listed then.
    pub fn put_value(&mut self, field: usize, value: &Value) -> Result<(), ValueError> {
        if let (Value::Array(array), FieldType::Array { dtype, shape }) =
            (value, self.field_type(field))
            && array.dtype() == *dtype
        {
            let same = array.shape() == shape;
            self.put_bytes(field, array.bytes(), same);
            return Ok(());
        }
        let place = self.layout.fields()[field];
        let ty = &self.layout.schema().fields()[field].ty;
        let mut converted = vec![0; place.size];
        let encoded = encode_value(ty, value, &mut converted)
            .map_err(|source| self.refused(field, source))?;
        if self.checking {
            return Ok(());
        }
        self.image(field)[..encoded.len].copy_from_slice(&converted[..encoded.len]);
        self.list(field, Listed::Small(encoded.len), encoded.truncated);
        Ok(())
    }

    /// The error of a field.
    pub fn refused(&self, field: usize, source: polyshm_wire::slots::ValueError) -> ValueError {
        ValueError::Refused {
            field: self.layout.schema().fields()[field].name.clone(),
            source,
        }
    }
}

/// Takes the fields of a whole record, one behind the other, each as many bytes
/// as its place has.
#[derive(Debug)]
pub struct Filler<'a> {
    pub(crate) slot: Row<'a>,
    pub(crate) at: usize,
    /// Where the last field ends.
    pub(crate) end: usize,
}

impl Filler<'_> {
    /// Puts the bytes of the next field. Those of fields that the record has
    /// not are dropped.
    #[inline]
    pub fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        let end = self.at + N;
        if end <= self.end {
            self.slot.write_at(self.at, &bytes);
            self.at = end;
        } else {
            debug_assert!(false, "a field of another record");
        }
    }
}

/// A slot while it is read: every value may be torn until the whole was
/// checked, which the caller of [`Record::load`](crate::Record::load) does.
#[derive(Debug)]
pub struct Source<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) slot: Row<'a>,
    pub(crate) statuses: &'a [u64],
    pub(crate) tally: Tally<'a>,
}

/// Finds out how often the fields of a record changed.
pub(crate) trait Tallier {
    /// By the record's number and statuses alone.
    fn quick(&mut self, number: u64, statuses: &[u64]) -> Option<Tally<'static>>;

    /// By what is published with it; asked when there is no other way.
    fn count(&mut self, number: u64, statuses: &[u64]) -> Tally<'_>;
}

/// By the MODIFIED flags: what the latest write to the slot listed.
pub(crate) struct ByFlags;

impl Tallier for ByFlags {
    #[inline]
    fn quick(&mut self, _: u64, _: &[u64]) -> Option<Tally<'static>> {
        Some(Tally::Flags)
    }

    fn count(&mut self, _: u64, _: &[u64]) -> Tally<'_> {
        Tally::Flags
    }
}

/// How often the fields of a record changed since the one before.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tally<'a> {
    /// So often, every one.
    Every(u64),
    /// Once, if the MODIFIED flag says so.
    Flags,
    /// By their counts now and then, less so often.
    Counts {
        now: &'a [u64],
        then: &'a [u64],
        less: u64,
    },
}

impl Source<'_> {
    /// The record's schema.
    pub fn schema(&self) -> &polyshm_wire::slots::Schema {
        self.layout.schema()
    }

    /// The size of a field in bytes.
    #[inline]
    pub fn size(&self, field: usize) -> usize {
        self.layout.fields()[field].size
    }

    /// The status of a field, and how often it changed.
    #[inline]
    pub fn mark(&self, field: usize) -> FieldMark {
        let bits = self.statuses[field / STATUSES] >> (8 * (field % STATUSES));
        let status = Status::from_bits(bits as u8);
        let changes = match self.tally {
            Tally::Every(changes) => changes,
            Tally::Flags => u64::from(status.is_modified()),
            Tally::Counts { now, then, less } => {
                now[field].wrapping_sub(then[field]).wrapping_sub(less)
            }
        };
        FieldMark { status, changes }
    }

    /// Copies bytes of a field, from byte `at` of it on.
    ///
    /// # Panics
    ///
    /// When they are not all the field's.
    #[inline]
    pub fn read(&self, field: usize, at: usize, into: &mut [u8]) {
        let place = self.layout.fields()[field];
        assert!(
            at <= place.size && into.len() <= place.size - at,
            "bytes of another field"
        );
        self.slot.read_at(place.offset + at, into);
    }

    /// A scalar's bytes.
    #[inline]
    pub fn scalar<const N: usize>(&self, field: usize) -> [u8; N] {
        let mut bytes = [0; N];
        self.read(field, 0, &mut bytes);
        bytes
    }
}
