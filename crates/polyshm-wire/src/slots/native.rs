//! What native peers add behind a segment, where no other implementation looks
//! (section 8).

use alloc::string::ToString as _;
use core::mem::{offset_of, size_of};

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U32, U64},
};

use super::{ImageError, Layout, LayoutError, MAX_SEGMENT, Schema, layout::ADDRESSABLE};

/// First word of a [`Footer`].
pub const FOOTER_MAGIC: [u8; 8] = *b"polyshmS";

/// The only version of the trailer.
pub const FOOTER_VERSION: u32 = 1;

/// Bytes of a [`Footer`], the last ones of the object.
pub const FOOTER_SIZE: usize = 64;

/// How many [`CursorLine`]s a FIFO has.
pub const CURSORS: usize = 32;

/// Bit of [`Footer::flags`]: there are two buffers.
pub const FLAG_BUFFERED: u32 = 1;

/// Everything in the trailer begins on a multiple of this.
const LINE: u64 = 64;

/// The last bytes of an object that a native peer made: what it is, and where
/// the trailer begins.
///
/// It is written before the object has its name, and never changed.
///
/// ```
/// use polyshm_wire::slots::{Footer, Layout, NativeLayout, Schema};
///
/// let schema: Schema = "a: float, b: int".parse()?;
/// let layout = Layout::new(&schema, 10)?;
/// let native = NativeLayout::new(&layout, 4096, false)?;
/// let footer = native.footer(&layout, 0);
/// assert_eq!(footer.slots.get(), 10);
///
/// let bytes = footer.to_bytes();
/// assert_eq!(Footer::read(&bytes), Some(footer));
/// footer.check(native.object_len())?;
/// assert_eq!(Footer::read(&[0; 64]), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct Footer {
    /// always [`FOOTER_MAGIC`]
    pub magic: [u8; 8],
    /// always [`FOOTER_VERSION`]
    pub version: U32,
    /// number of fields
    pub fields: U32,
    /// [`Schema::hash64`]
    pub schema_hash: U64,
    /// number of slots
    pub slots: U64,
    /// [`Layout::segment_size`]
    pub segment_size: U64,
    /// `segment_size`, rounded up to a multiple of 64
    pub trailer_offset: U64,
    /// process mark of the creator (22 bits of process identifier, 10 bits of
    /// start time)
    pub owner_mark: U32,
    /// bytes of the schema's text in the trailer
    pub schema_len: U32,
    /// [`FLAG_BUFFERED`] or 0
    pub flags: U32,
    /// FNV-1a, 32 bits wide, over the 60 bytes before
    pub check: U32,
}

/// What native writers share, at the start of the trailer.
#[repr(C)]
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
pub struct WriterLine {
    /// the writer at work: its process mark, and above it the number of its
    /// handle; 0 = none
    pub lock: U64,
    /// FIFO: items that native writers committed
    pub written: U64,
    /// FIFO: items that native writers overwrote before a consumer took them
    pub overwritten: U64,
    /// handles that were ever opened to write or to read
    pub handles: U64,
    /// the fields that the latest native write lists: field `i` is bit `i`
    /// modulo 64; stored before the write touches its slot
    pub listed: U64,
    /// not 0: another writer waits for the lock
    pub waiting: U64,
    /// FIFO: one after the item whose slot a native writer touched last; stored
    /// before it does
    pub writing: U64,
    /// 0
    pub padding: [u8; 8],
}

/// What native readers and writers wait on.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct ReaderLine {
    /// raised by a commit that somebody sleeps for; readers sleep on it
    pub wake: U32,
    /// readers that sleep
    pub sleepers: U32,
    /// not 0 when a reader asks for the next record in a buffer too
    pub demand: U32,
    /// FIFO: raised when a reader made room that somebody sleeps for; writers
    /// sleep on it
    pub room_wake: U32,
    /// FIFO: writers that sleep
    pub room_sleepers: U32,
    /// 0
    pub padding: [u8; 44],
}

/// A reader of a FIFO that writers can see.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct CursorLine {
    /// the next item that it reads
    pub position: U64,
    /// its process mark
    pub mark: U32,
    /// 0 = the line is free; 1 = a reader that gets every item; 2 = one that
    /// takes items by the format's own index. Stored last
    pub kind: U32,
    /// 0
    pub padding: [u8; 48],
}

/// Counters of changes, followed by one `u64` for each field. A single slot
/// only.
#[repr(C)]
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
pub struct ChangesHead {
    /// the number of the write up to which the counters count
    pub counted: U64,
    /// writes that listed every field; none of them is in a field's own counter
    pub full: U64,
    /// the number of the last write of another implementation that a native
    /// writer found before its own; such writes are not counted
    pub foreign: U64,
}

const _: () = {
    assert!(size_of::<Footer>() == FOOTER_SIZE);
    assert!(offset_of!(Footer, magic) == 0);
    assert!(offset_of!(Footer, version) == 8);
    assert!(offset_of!(Footer, fields) == 12);
    assert!(offset_of!(Footer, schema_hash) == 16);
    assert!(offset_of!(Footer, slots) == 24);
    assert!(offset_of!(Footer, segment_size) == 32);
    assert!(offset_of!(Footer, trailer_offset) == 40);
    assert!(offset_of!(Footer, owner_mark) == 48);
    assert!(offset_of!(Footer, schema_len) == 52);
    assert!(offset_of!(Footer, flags) == 56);
    assert!(offset_of!(Footer, check) == 60);

    assert!(size_of::<WriterLine>() as u64 == LINE);
    assert!(offset_of!(WriterLine, lock) == 0);
    assert!(offset_of!(WriterLine, written) == 8);
    assert!(offset_of!(WriterLine, overwritten) == 16);
    assert!(offset_of!(WriterLine, handles) == 24);
    assert!(offset_of!(WriterLine, listed) == 32);
    assert!(offset_of!(WriterLine, waiting) == 40);
    assert!(offset_of!(WriterLine, writing) == 48);
    assert!(offset_of!(WriterLine, padding) == 56);

    assert!(size_of::<ReaderLine>() as u64 == LINE);
    assert!(offset_of!(ReaderLine, wake) == 0);
    assert!(offset_of!(ReaderLine, sleepers) == 4);
    assert!(offset_of!(ReaderLine, demand) == 8);
    assert!(offset_of!(ReaderLine, room_wake) == 12);
    assert!(offset_of!(ReaderLine, room_sleepers) == 16);
    assert!(offset_of!(ReaderLine, padding) == 20);

    assert!(size_of::<CursorLine>() as u64 == LINE);
    assert!(offset_of!(CursorLine, position) == 0);
    assert!(offset_of!(CursorLine, mark) == 8);
    assert!(offset_of!(CursorLine, kind) == 12);
    assert!(offset_of!(CursorLine, padding) == 16);

    assert!(size_of::<ChangesHead>() == 24);
    assert!(offset_of!(ChangesHead, counted) == 0);
    assert!(offset_of!(ChangesHead, full) == 8);
    assert!(offset_of!(ChangesHead, foreign) == 16);
};

macro_rules! bytes_of {
    ($($type:ident),*) => {$(
        impl $type {
            /// Copies the structure from the front of some bytes. The only
            /// refusal is [`ImageError::TooShort`].
            pub fn read(bytes: &[u8]) -> Result<Self, ImageError> {
                super::layout::prefix(bytes)
            }

            /// The bytes as they stand in the object.
            pub fn to_bytes(&self) -> [u8; size_of::<Self>()] {
                zerocopy::transmute!(*self)
            }
        }
    )*};
}

bytes_of!(WriterLine, ReaderLine, CursorLine, ChangesHead);

impl Footer {
    /// Copies the footer from the front of the last 64 bytes of an object;
    /// `None` when they are fewer, or begin with anything but the magic.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        Self::read_from_prefix(bytes)
            .ok()
            .map(|(footer, _)| footer)
            .filter(|footer| footer.magic == FOOTER_MAGIC)
    }

    /// The bytes as they stand in the object.
    pub fn to_bytes(&self) -> [u8; FOOTER_SIZE] {
        zerocopy::transmute!(*self)
    }

    /// What [`check`](Self#structfield.check) must be.
    pub fn check_sum(&self) -> u32 {
        self.to_bytes()[..offset_of!(Self, check)]
            .iter()
            .fold(0x811c_9dc5, |sum: u32, byte| {
                (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
            })
    }

    /// Whether there are two buffers.
    pub const fn is_buffered(&self) -> bool {
        self.flags.get() & FLAG_BUFFERED != 0
    }

    /// Whether the footer is whole, of the known version, and speaks of an object
    /// of `object_len` bytes. Afterwards the places that it tells can be trusted
    /// to be inside.
    pub fn check(&self, object_len: u64) -> Result<(), ImageError> {
        let found = self.version.get();
        if found != FOOTER_VERSION {
            return Err(ImageError::FooterVersion { found });
        }
        let (found, expected) = (self.check.get(), self.check_sum());
        if found != expected {
            return Err(ImageError::FooterCheck { found, expected });
        }
        let (slots, fields) = (self.slots.get(), self.fields.get());
        let found = self.flags.get();
        if found & !FLAG_BUFFERED != 0 || (self.is_buffered() && slots > 1) {
            return Err(ImageError::FooterFlags { found });
        }
        let segment_size = self.segment_size.get();
        let meta = if slots > 1 {
            super::META_SIZE as u64
        } else {
            0
        };
        // The smallest slot: both sequence words and the status bytes.
        let least = 16 + u64::from(fields).next_multiple_of(8);
        let sound = fields <= super::MAX_FIELDS as u32
            && slots > 0
            && segment_size <= MAX_SEGMENT
            && segment_size.checked_sub(meta).is_some_and(|slot_bytes| {
                slot_bytes.is_multiple_of(slots)
                    && (slot_bytes / slots).is_multiple_of(8)
                    && slot_bytes / slots >= least
            });
        if !sound {
            return Err(ImageError::FooterSizes {
                slots,
                fields,
                segment_size,
            });
        }
        let plan = self.plan();
        let found = self.trailer_offset.get();
        if found != plan.trailer {
            return Err(ImageError::TrailerOffset {
                found,
                expected: plan.trailer,
            });
        }
        let need = plan.end + FOOTER_SIZE as u64;
        if object_len < need {
            return Err(ImageError::TooShort {
                len: object_len,
                need,
            });
        }
        Ok(())
    }

    /// Where the schema's text begins in the object, and how many bytes it has.
    /// Only after [`check`](Self::check) are they within the object.
    pub fn schema_text(&self) -> (u64, u64) {
        let segment_size = self.segment_size.get().min(MAX_SEGMENT);
        let text = Plan::new(segment_size, self.slots.get(), self.fields.get(), 0, false).text;
        (text, self.schema_len.get().into())
    }

    /// Only for sizes within their limits.
    fn plan(&self) -> Plan {
        Plan::new(
            self.segment_size.get(),
            self.slots.get(),
            self.fields.get(),
            self.schema_len.get(),
            self.is_buffered(),
        )
    }
}

/// Where the parts of a trailer begin, from the object's start.
struct Plan {
    trailer: u64,
    /// the cursors of a FIFO, or the changes of a single slot
    middle: u64,
    text: u64,
    buffers: u64,
    /// from a buffer to its changes
    buffer_slot: u64,
    /// bytes of a buffer
    buffer: u64,
    /// behind everything but the footer
    end: u64,
}

impl Plan {
    /// A segment of at most `MAX_SEGMENT` bytes keeps every sum far from
    /// overflow.
    fn new(segment_size: u64, slots: u64, fields: u32, schema_len: u32, buffered: bool) -> Self {
        let trailer = segment_size.next_multiple_of(LINE);
        let middle = trailer + 2 * LINE;
        let changes = size_of::<ChangesHead>() as u64 + 8 * u64::from(fields);
        let changes = changes.next_multiple_of(LINE);
        let text = middle
            + if slots > 1 {
                CURSORS as u64 * LINE
            } else {
                changes
            };
        let buffers = text + u64::from(schema_len).next_multiple_of(LINE);
        // A single slot is the whole segment.
        let buffer_slot = segment_size.next_multiple_of(LINE);
        let buffer = buffer_slot + changes;
        Self {
            trailer,
            middle,
            text,
            buffers,
            buffer_slot,
            buffer,
            end: buffers + if buffered { 2 * buffer } else { 0 },
        }
    }
}

/// The places of the trailer, as absolute offsets in the object.
///
/// The order is: the segment, [`WriterLine`], [`ReaderLine`], then the
/// [`CursorLine`]s of a FIFO or the [`ChangesHead`] of a single slot with its
/// counters, the schema's text, the buffers, and at the very end the [`Footer`].
/// Each begins on a multiple of 64.
///
/// ```
/// use polyshm_wire::slots::{Layout, NativeLayout, Schema};
///
/// let schema: Schema = "a: float, b: int".parse()?;
/// let layout = Layout::new(&schema, 1)?;
/// let native = NativeLayout::new(&layout, 4096, true)?;
/// assert_eq!(native.object_len(), 4096);
/// assert_eq!((native.writer_line(), native.reader_line()), (64, 128));
/// assert_eq!((native.changes(), native.schema_text()), (192, 256));
/// assert_eq!((native.buffer(0), native.buffer_changes(0)), (Some(320), Some(384)));
/// assert_eq!(native.footer_offset(), 4096 - 64);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NativeLayout {
    fifo: bool,
    buffered: bool,
    trailer: usize,
    middle: usize,
    text: usize,
    text_len: usize,
    buffers: usize,
    buffer_slot: usize,
    buffer: usize,
    object_len: u64,
}

impl NativeLayout {
    /// For a new object, whose length will be a multiple of `page_size`. Only a
    /// single slot can be `buffered`; of a FIFO it is ignored.
    pub fn new(layout: &Layout, page_size: u64, buffered: bool) -> Result<Self, LayoutError> {
        if !page_size.is_power_of_two() || page_size < LINE {
            return Err(LayoutError::PageSize { found: page_size });
        }
        let text_len = layout.schema().text_len();
        let schema_len = u32::try_from(text_len).map_err(|_| LayoutError::SchemaTooLong {
            len: text_len,
            limit: u32::MAX.into(),
        })?;
        let buffered = buffered && !layout.is_fifo();
        let plan = Plan::new(
            layout.segment_size(),
            layout.slots(),
            layout.schema().len() as u32,
            schema_len,
            buffered,
        );
        let object_len = (plan.end + FOOTER_SIZE as u64)
            .checked_next_multiple_of(page_size)
            .filter(|len| *len <= ADDRESSABLE)
            .ok_or(LayoutError::ObjectTooLarge { limit: ADDRESSABLE })?;
        Ok(Self::of(
            &plan,
            layout.is_fifo(),
            buffered,
            schema_len,
            object_len,
        ))
    }

    /// For an object that is there, of `object_len` bytes and with this footer.
    ///
    /// Refused is a footer that does not [`check`](Footer::check), and one of
    /// other fields or another number of slots than the layout's.
    /// [`Footer::check_schema`] tells more about the first.
    pub fn from_footer(
        layout: &Layout,
        footer: &Footer,
        object_len: u64,
    ) -> Result<Self, ImageError> {
        footer.check(object_len)?;
        let (wanted, found) = (layout.slots(), footer.slots.get());
        if wanted != found {
            return Err(ImageError::SlotsMismatch { wanted, found });
        }
        check_hash(layout.schema(), footer)?;
        if layout.segment_size() != footer.segment_size.get() || object_len > ADDRESSABLE {
            return Err(ImageError::FooterSizes {
                slots: found,
                fields: footer.fields.get(),
                segment_size: footer.segment_size.get(),
            });
        }
        let plan = footer.plan();
        let schema_len = footer.schema_len.get();
        let buffered = footer.is_buffered();
        Ok(Self::of(
            &plan,
            layout.is_fifo(),
            buffered,
            schema_len,
            object_len,
        ))
    }

    /// All places are below `object_len`, which is addressable.
    fn of(plan: &Plan, fifo: bool, buffered: bool, schema_len: u32, object_len: u64) -> Self {
        Self {
            fifo,
            buffered,
            trailer: plan.trailer as usize,
            middle: plan.middle as usize,
            text: plan.text as usize,
            text_len: schema_len as usize,
            buffers: plan.buffers as usize,
            buffer_slot: plan.buffer_slot as usize,
            buffer: plan.buffer as usize,
            object_len,
        }
    }

    /// Bytes of the whole object.
    pub const fn object_len(&self) -> u64 {
        self.object_len
    }

    /// Where the trailer begins.
    pub const fn trailer_offset(&self) -> usize {
        self.trailer
    }

    /// Where the [`WriterLine`] stands.
    pub const fn writer_line(&self) -> usize {
        self.trailer
    }

    /// Where the [`ReaderLine`] stands.
    pub const fn reader_line(&self) -> usize {
        self.trailer + LINE as usize
    }

    /// Where a [`CursorLine`] of a FIFO stands.
    ///
    /// # Panics
    ///
    /// From [`CURSORS`] on, and for a single slot, which has none.
    pub const fn cursor(&self, i: usize) -> usize {
        assert!(self.fifo && i < CURSORS, "no such cursor");
        self.middle + i * LINE as usize
    }

    /// Where the [`ChangesHead`] of a single slot stands, with a counter for each
    /// field behind it.
    ///
    /// # Panics
    ///
    /// For a FIFO, which has none.
    pub const fn changes(&self) -> usize {
        assert!(!self.fifo, "a FIFO counts no changes");
        self.middle
    }

    /// Where the schema's text stands.
    pub const fn schema_text(&self) -> usize {
        self.text
    }

    /// Bytes of the schema's text.
    pub const fn schema_len(&self) -> usize {
        self.text_len
    }

    /// Whether there are two buffers.
    pub const fn is_buffered(&self) -> bool {
        self.buffered
    }

    /// Where one of the two buffers stands, a slot of its own; `None` when there
    /// is no such buffer.
    pub const fn buffer(&self, i: usize) -> Option<usize> {
        if self.buffered && i < 2 {
            Some(self.buffers + i * self.buffer)
        } else {
            None
        }
    }

    /// Where the [`ChangesHead`] of a buffer stands, with its counters; `None`
    /// when there is no such buffer.
    pub const fn buffer_changes(&self, i: usize) -> Option<usize> {
        match self.buffer(i) {
            Some(buffer) => Some(buffer + self.buffer_slot),
            None => None,
        }
    }

    /// Where the [`Footer`] stands: in the last 64 bytes.
    pub const fn footer_offset(&self) -> usize {
        self.object_len as usize - FOOTER_SIZE
    }

    /// The footer of a new object; `layout` is the one that this was made of.
    pub fn footer(&self, layout: &Layout, owner_mark: u32) -> Footer {
        let mut footer = Footer {
            magic: FOOTER_MAGIC,
            version: FOOTER_VERSION.into(),
            fields: (layout.schema().len() as u32).into(),
            schema_hash: layout.schema().hash64().into(),
            slots: layout.slots().into(),
            segment_size: layout.segment_size().into(),
            trailer_offset: (self.trailer as u64).into(),
            owner_mark: owner_mark.into(),
            schema_len: (self.text_len as u32).into(),
            flags: if self.buffered { FLAG_BUFFERED } else { 0 }.into(),
            check: 0.into(),
        };
        footer.check.set(footer.check_sum());
        footer
    }
}

/// The schema out of the trailer's text, which begins at `text`; what follows is
/// ignored. It must be the one that the footer tells of.
///
/// ```
/// use polyshm_wire::slots::{Layout, NativeLayout, Schema, read_schema};
///
/// let schema: Schema = "a: float, b: int".parse()?;
/// let layout = Layout::new(&schema, 1)?;
/// let footer = NativeLayout::new(&layout, 4096, false)?.footer(&layout, 0);
/// assert_eq!(read_schema(b"a: float, b: int\0\0\0", &footer)?, schema);
/// assert!(read_schema(b"a: float, c: int\0\0\0", &footer).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_schema(text: &[u8], footer: &Footer) -> Result<Schema, ImageError> {
    let need = footer.schema_len.get();
    let text = text.get(..need as usize).ok_or(ImageError::TooShort {
        len: text.len() as u64,
        need: need.into(),
    })?;
    let text = core::str::from_utf8(text).map_err(|error| ImageError::SchemaText {
        valid: error.valid_up_to(),
    })?;
    let schema: Schema = text
        .parse()
        .map_err(|source| ImageError::Schema { source })?;
    check_hash(&schema, footer)?;
    Ok(schema)
}

impl Footer {
    /// Whether the segment was made for these fields; `text` is as in
    /// [`read_schema`]. The error shows both schemas.
    pub fn check_schema(&self, wanted: &Schema, text: &[u8]) -> Result<(), ImageError> {
        let found = read_schema(text, self)?;
        if found != *wanted {
            return Err(ImageError::SchemaMismatch {
                wanted: wanted.to_string(),
                found: found.to_string(),
            });
        }
        Ok(())
    }
}

fn check_hash(schema: &Schema, footer: &Footer) -> Result<(), ImageError> {
    let (found, expected) = (schema.hash64(), footer.schema_hash.get());
    if found != expected || schema.len() as u64 != u64::from(footer.fields.get()) {
        return Err(ImageError::SchemaHash { found, expected });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, slots: u64, buffered: bool) -> (Layout, NativeLayout) {
        let layout = Layout::new(&text.parse().unwrap(), slots).unwrap();
        let native = NativeLayout::new(&layout, 4096, buffered).unwrap();
        (layout, native)
    }

    /// The sum of another program.
    #[test]
    fn the_check_sum_stays_as_it_is() {
        let (layout, native) = of("a: float, b: int", 10, true);
        let footer = native.footer(&layout, 77);
        assert_eq!(footer.check.get(), 0x8006_2bad);
        assert_eq!(footer.check_sum(), footer.check.get());
    }

    /// Each refusal of a footer whose sum is right.
    #[test]
    fn footers_refused() {
        let (single, single_native) = of("a: float, b: int", 1, true);
        let (fifo, fifo_native) = of("a: float, b: int", 10, true);
        let check = |fifo_wanted: bool, change: &dyn Fn(&mut Footer)| {
            let (layout, native) = if fifo_wanted {
                (&fifo, &fifo_native)
            } else {
                (&single, &single_native)
            };
            let mut footer = native.footer(layout, 77);
            change(&mut footer);
            footer.check.set(footer.check_sum());
            footer.check(native.object_len())
        };
        assert_eq!(check(false, &|_| ()), Ok(()));
        assert_eq!(check(true, &|_| ()), Ok(()));
        for found in [0, 2, u32::MAX] {
            assert_eq!(
                check(false, &|footer| footer.version.set(found)),
                Err(ImageError::FooterVersion { found })
            );
        }
        // A single slot may have buffers or not; a FIFO has none.
        assert_eq!(check(false, &|footer| footer.flags.set(0)), Ok(()));
        for (fifo, found) in [(false, 2), (false, 3), (true, 1), (true, 1 << 31)] {
            assert_eq!(
                check(fifo, &|footer| footer.flags.set(found)),
                Err(ImageError::FooterFlags { found })
            );
        }
        // 40 bytes each: 8 + 2 + 6 + 8 + 4 + 4 + 8.
        for (slots, fields, segment_size) in [
            (0, 2, 40),
            (1, 9, 31),
            (1, 9, 24),
            (1, 1, 23),
            (1, 65_536, 1 << 20),
            (1, 2, (1 << 40) + 8),
            (1, 2, u64::MAX - 7),
            (10, 2, 423),
            (10, 2, 425),
            (10, 2, 24 + 10 * 44),
            (10, 2, 23),
            (10, 2, 24),
            (10, 9, 24 + 10 * 24),
            (11, 2, 424),
            (u64::MAX, 2, 24),
        ] {
            let result = check(slots > 1, &|footer| {
                footer.slots.set(slots);
                footer.fields.set(fields);
                footer.segment_size.set(segment_size);
                footer
                    .trailer_offset
                    .set((segment_size | 63).wrapping_add(1));
            });
            let error = ImageError::FooterSizes {
                slots,
                fields,
                segment_size,
            };
            assert_eq!(result, Err(error));
        }
        for (fifo, expected) in [(false, 64), (true, 448)] {
            for found in [
                0,
                expected - 64,
                expected - 1,
                expected + 1,
                expected + 64,
                u64::MAX,
            ] {
                assert_eq!(
                    check(fifo, &|footer| footer.trailer_offset.set(found)),
                    Err(ImageError::TrailerOffset { found, expected })
                );
            }
        }
        // Texts that end behind the object.
        for schema_len in [4096, 1 << 20, u32::MAX] {
            let result = check(false, &|footer| footer.schema_len.set(schema_len));
            assert!(matches!(
                result,
                Err(ImageError::TooShort { len: 4096, need }) if need > u64::from(schema_len)
            ));
        }
        let mut footer = single_native.footer(&single, 77);
        footer.owner_mark.set(78);
        assert!(matches!(
            footer.check(4096),
            Err(ImageError::FooterCheck { .. })
        ));
    }

    /// The right schema, but a segment of another size.
    #[test]
    fn a_footer_of_another_size_is_refused() {
        let (layout, native) = of("a: float, b: int", 1, false);
        let mut footer = native.footer(&layout, 77);
        footer.segment_size.set(48);
        footer.check.set(footer.check_sum());
        footer.check(4096).unwrap();
        assert_eq!(
            NativeLayout::from_footer(&layout, &footer, 4096),
            Err(ImageError::FooterSizes {
                slots: 1,
                fields: 2,
                segment_size: 48
            })
        );
    }

    #[test]
    fn a_fifo_has_no_buffers() {
        let (layout, native) = of("a: float", 2, true);
        assert!(!native.is_buffered() && native.buffer(0).is_none());
        assert_eq!(native.footer(&layout, 0).flags.get(), 0);
    }

    #[test]
    #[should_panic(expected = "no such cursor")]
    fn a_single_slot_has_no_cursors() {
        of("a: float", 1, true).1.cursor(0);
    }

    #[test]
    #[should_panic(expected = "no such cursor")]
    fn cursors_end() {
        of("a: float", 2, true).1.cursor(CURSORS);
    }

    #[test]
    #[should_panic(expected = "a FIFO counts no changes")]
    fn a_fifo_has_no_changes() {
        of("a: float", 2, true).1.changes();
    }
}
