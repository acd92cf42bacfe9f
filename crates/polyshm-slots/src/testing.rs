//! Helpers for tests: segments on the heap, made of any bytes.

use crate::{
    Dynamic, OpenError, Options, Record, Schema, SlotFifo, SlotStore, TypedRecord,
    segment::{Segment, fill},
};
use polyshm_platform::Region;
use polyshm_wire::slots::{Layout, NativeLayout};
use std::sync::Arc;

/// The name that errors tell.
const NAME: &str = "on the heap";

/// A segment without an operating system: its bytes are on the heap.
///
/// The code that reads and writes is the same as for a named segment. Writers
/// of a segment without a trailer do not exclude each other.
///
/// ```
/// use polyshm_slots::{Options, Values, testing::HeapSegment};
///
/// let schema = "a: float, b: int".parse()?;
/// let segment = HeapSegment::new(&schema, 1, Options::new().trailer(false))?;
/// let mut store = segment.store_dynamic(Some(&schema), Options::new())?;
/// store.write(Values::new().with("b", 7))?;
/// assert_eq!(segment.image()[24..28], [7, 0, 0, 0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct HeapSegment(pub(crate) Region);

impl HeapSegment {
    /// A fresh segment, as `create` makes it.
    ///
    /// # Errors
    ///
    /// [`OpenError::Layout`].
    pub fn new(schema: &Schema, slots: u64, options: Options) -> Result<Self, OpenError> {
        let name: Arc<str> = NAME.into();
        let refused = |source| OpenError::Layout {
            name: Arc::clone(&name),
            source,
        };
        let layout = Layout::new(schema, slots).map_err(refused)?;
        let native = options
            .trailer
            .then(|| NativeLayout::new(&layout, 4096, options.buffered))
            .transpose()
            .map_err(refused)?;
        let len = native
            .as_ref()
            .map_or(layout.segment_size(), NativeLayout::object_len);
        let region = Region::heap(len as usize);
        fill(&name, &region, &layout, native.as_ref())?;
        Ok(Self(region))
    }

    /// A segment of these bytes.
    pub fn from_image(bytes: &[u8]) -> Self {
        let segment = Self(Region::heap(bytes.len()));
        segment.poke(0, bytes);
        segment
    }

    /// A copy of all bytes.
    pub fn image(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.0.len()];
        let all = self.0.bytes(0, bytes.len());
        let read = all.and_then(|all| all.read(0, &mut bytes));
        debug_assert!(read.is_ok(), "all bytes of the region");
        bytes
    }

    /// Overwrites bytes, as a damaged or hostile peer would.
    ///
    /// # Panics
    ///
    /// When they lie outside.
    pub fn poke(&self, offset: usize, bytes: &[u8]) {
        let at = self.0.bytes(offset, bytes.len());
        let written = at.and_then(|at| at.write(0, bytes));
        written.expect("bytes of the segment");
    }

    /// Opens the segment as a store.
    ///
    /// # Errors
    ///
    /// As [`SlotStore::open`]; nothing is waited for.
    pub fn store<R: TypedRecord>(&self, options: Options) -> Result<SlotStore<R>, OpenError> {
        self.open_store(Some(R::schema()), options)
    }

    /// Opens the segment as a store of this schema, or of the trailer's.
    ///
    /// # Errors
    ///
    /// As [`SlotStore::open_dynamic`] and [`SlotStore::discover`].
    pub fn store_dynamic(
        &self,
        schema: Option<&Schema>,
        options: Options,
    ) -> Result<SlotStore<Dynamic>, OpenError> {
        self.open_store(schema, options)
    }

    fn open_store<R: Record>(
        &self,
        schema: Option<&Schema>,
        options: Options,
    ) -> Result<SlotStore<R>, OpenError> {
        let segment = Segment::open_region(&NAME.into(), &self.0, schema, Some(1), &options)?;
        Ok(SlotStore::of(segment, options))
    }

    /// Opens the segment as a FIFO.
    ///
    /// # Errors
    ///
    /// As [`SlotFifo::open`]; nothing is waited for.
    pub fn fifo<R: TypedRecord>(
        &self,
        slots: u64,
        options: Options,
    ) -> Result<SlotFifo<R>, OpenError> {
        self.open_fifo(Some(R::schema()), Some(slots), options)
    }

    /// Opens the segment as a FIFO of this schema and so many slots, or of the
    /// trailer's.
    ///
    /// # Errors
    ///
    /// As [`SlotFifo::open_dynamic`] and [`SlotFifo::discover`].
    pub fn fifo_dynamic(
        &self,
        schema: Option<&Schema>,
        slots: Option<u64>,
        options: Options,
    ) -> Result<SlotFifo<Dynamic>, OpenError> {
        self.open_fifo(schema, slots, options)
    }

    fn open_fifo<R: Record>(
        &self,
        schema: Option<&Schema>,
        slots: Option<u64>,
        options: Options,
    ) -> Result<SlotFifo<R>, OpenError> {
        let segment = Segment::open_region(&NAME.into(), &self.0, schema, slots, &options)?;
        SlotFifo::of(segment, options)
    }
}
