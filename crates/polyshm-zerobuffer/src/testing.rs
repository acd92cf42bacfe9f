//! Helpers for tests: buffers on the heap, unique names, deterministic data.

use crate::{
    AttachError, BufferConfig, CreateError, Reader, Writer, WriterConfig, chain, settle::Patience,
    shared::Shared,
};
use polyshm_platform::{Region, Semaphore, Waiter};
use polyshm_wire::zerobuffer::{ImageError, Layout, Oieb};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// What errors call it.
const NAME: &str = "heap";

/// A buffer without an operating system: the bytes are on the heap, the
/// semaphores in this process, and both sides are this process.
///
/// The code that reads and writes is the same as for a named buffer.
///
/// ```
/// use polyshm_zerobuffer::{BufferConfig, testing::HeapBuffer};
///
/// let buffer = HeapBuffer::new(&BufferConfig::new(0, 256))?;
/// let reader = buffer.reader()?;
/// let mut writer = buffer.writer()?;
/// writer.write(b"frame")?;
/// assert_eq!(&*reader.try_read()?.unwrap(), b"frame");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct HeapBuffer {
    region: Region,
    config: BufferConfig,
    data_ready: Semaphore,
    space_ready: Semaphore,
    patience: Patience,
    sides: Arc<Sides>,
}

/// Which sides are taken: the slices that a side lends are only its own while
/// it is the only one.
#[derive(Debug, Default)]
struct Sides {
    reader: AtomicBool,
    writer: AtomicBool,
}

/// One side, taken until it is dropped.
#[derive(Debug)]
pub(crate) struct Side {
    sides: Arc<Sides>,
    of: fn(&Sides) -> &AtomicBool,
}

impl Drop for Side {
    fn drop(&mut self) {
        // Release: pairs with the acquire of who takes it next.
        (self.of)(&self.sides).store(false, Ordering::Release);
    }
}

impl HeapBuffer {
    /// A fresh buffer, as [`Reader::create`] makes one.
    ///
    /// # Errors
    ///
    /// [`CreateError::Layout`].
    pub fn new(config: &BufferConfig) -> Result<Self, CreateError> {
        let layout =
            Layout::for_request(config.metadata_size, config.payload_size).map_err(|source| {
                CreateError::Layout {
                    name: NAME.to_owned(),
                    source,
                }
            })?;
        let buffer = Self::over(layout.object_len(), config, 0);
        match buffer.shared(layout) {
            Ok(shared) => shared.publish(),
            Err(source) => {
                return Err(CreateError::NameTaken {
                    name: NAME.to_owned(),
                    source,
                });
            }
        }
        Ok(buffer)
    }

    /// A buffer with the given bytes, and as many tokens in its data-ready
    /// semaphore. Any bytes: they are checked when a side attaches.
    #[must_use]
    pub fn from_image(image: &[u8], tokens: u32) -> Self {
        let mut buffer = Self::over(image.len() as u64, &BufferConfig::default(), tokens);
        // An image has no process that could get on with what it shows.
        buffer.patience = Patience::NONE;
        buffer.poke(0, image);
        buffer
    }

    fn over(len: u64, config: &BufferConfig, tokens: u32) -> Self {
        Self {
            region: Region::heap(crate::shared::index(len)),
            config: config.clone(),
            data_ready: Semaphore::local(tokens),
            space_ready: Semaphore::local(0),
            patience: Patience::USUAL,
            sides: Arc::default(),
        }
    }

    fn shared(&self, layout: Layout) -> Result<Shared, ImageError> {
        let (data, space) = (self.data_ready.clone(), self.space_ready.clone());
        let mut shared = Shared::new(&self.region, Arc::from(NAME), layout, data, space)?;
        shared.patience = self.patience;
        Ok(shared)
    }

    fn checked(&self) -> Result<Shared, ImageError> {
        let unpublished = ImageError::OiebSize { found: 0 };
        let header = Shared::snapshot(&self.region)?.ok_or(unpublished)?;
        let layout = Layout::from_header(&header, self.region.len() as u64)?;
        header.check(&layout)?;
        self.shared(layout)
    }

    /// Takes a side, unless somebody has it.
    fn take(&self, of: fn(&Sides) -> &AtomicBool) -> Option<Side> {
        // Acquire: pairs with the release of the one before.
        let taken = of(&self.sides).swap(true, Ordering::Acquire);
        (!taken).then(|| Side {
            sides: Arc::clone(&self.sides),
            of,
        })
    }

    /// The reader's side. It goes on where the image's reader was.
    ///
    /// # Errors
    ///
    /// [`CreateError::NameTaken`] for an image that is no buffer, and
    /// [`CreateError::ReaderAlreadyConnected`] while there is a reader.
    pub fn reader(&self) -> Result<Reader, CreateError> {
        let name = || NAME.to_owned();
        let invalid = |source| CreateError::NameTaken {
            name: name(),
            source,
        };
        let mut shared = self.checked().map_err(invalid)?;
        let read = shared.load_read_pos().map_err(invalid)?;
        let Some(side) = self.take(|sides| &sides.reader) else {
            return Err(CreateError::ReaderAlreadyConnected {
                name: name(),
                pid: None,
            });
        };
        shared.side = Some(side);
        // Behind a marker the first header is at 0.
        let expected = [read, 0]
            .into_iter()
            .find_map(|at| {
                let header = chain::header(&shared, at, shared.size()).ok()?;
                (header.length > 0).then_some(header.sequence)
            })
            .unwrap_or(1);
        let expected = if self.data_ready.value().unwrap_or(0) == 0 {
            1
        } else {
            expected
        };
        Ok(Reader::over(
            shared,
            Waiter::new(self.config.wait_strategy),
            None,
            expected,
        ))
    }

    /// The writer's side.
    ///
    /// # Errors
    ///
    /// As [`Writer::open`].
    pub fn writer(&self) -> Result<Writer, AttachError> {
        self.writer_with(&WriterConfig::default())
    }

    /// The writer's side, with other settings.
    ///
    /// # Errors
    ///
    /// As [`Writer::open_with`].
    pub fn writer_with(&self, config: &WriterConfig) -> Result<Writer, AttachError> {
        let name = || NAME.to_owned();
        let mut shared = self.checked().map_err(|source| AttachError::Invalid {
            name: name(),
            source,
        })?;
        let Some(side) = self.take(|sides| &sides.writer) else {
            let pid = polyshm_platform::process::current();
            return Err(AttachError::WriterAlreadyConnected { name: name(), pid });
        };
        shared.side = Some(side);
        Writer::attach(shared, config)
    }

    /// Ends a writer without a word, as if its process had died; its claim
    /// stays behind.
    pub fn abandon(&self, writer: Writer) {
        std::mem::forget(writer);
        self.sides.writer.store(false, Ordering::Release);
    }

    /// A copy of all bytes.
    #[must_use]
    pub fn image(&self) -> Vec<u8> {
        let mut image = vec![0; self.region.len()];
        if let Ok(bytes) = self.region.bytes(0, image.len()) {
            let _ = bytes.read(0, &mut image);
        }
        image
    }

    /// The header at this moment.
    ///
    /// # Errors
    ///
    /// The image is shorter than a header.
    pub fn header(&self) -> Result<Oieb, ImageError> {
        Oieb::read(&self.image())
    }

    /// Overwrites bytes, as a hostile or broken peer could. What lies outside
    /// is left out.
    ///
    /// Like such a peer it does not ask whether somebody has them lent; keep to
    /// headers and positions while frames are held.
    pub fn poke(&self, offset: usize, bytes: &[u8]) {
        let room = self.region.len().saturating_sub(offset).min(bytes.len());
        if let Ok(target) = self.region.bytes(offset.min(self.region.len()), room) {
            let _ = target.write(0, &bytes[..room]);
        }
    }

    /// The semaphore that has one token per pending frame.
    #[must_use]
    pub fn data_ready(&self) -> &Semaphore {
        &self.data_ready
    }

    /// The semaphore that tells the writer of room.
    #[must_use]
    pub fn space_ready(&self) -> &Semaphore {
        &self.space_ready
    }
}

/// Names that do not collide between test runs (format, section 16).
///
/// With `HARMONY_HOST_PID` and `HARMONY_FEATURE_ID` in the environment the name
/// is `base_HOSTPID_FEATUREID`, so that several processes of one scenario get
/// the same; otherwise `base_PID_NANOSECONDS`. One service gives one name per
/// base.
///
/// ```
/// use polyshm_zerobuffer::testing::BufferNaming;
///
/// let mut naming = BufferNaming::new();
/// let name = naming.name("camera");
/// assert!(name.starts_with("camera_"));
/// assert_eq!(naming.name("camera"), name);
/// ```
#[derive(Clone, Debug, Default)]
#[doc(alias = "BufferNamingService")]
pub struct BufferNaming {
    given: std::collections::HashMap<String, String>,
}

impl BufferNaming {
    /// A service that has given no names yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The actual name for `base`.
    #[doc(alias = "get_buffer_name")]
    pub fn name(&mut self, base: &str) -> String {
        self.given
            .entry(base.to_owned())
            .or_insert_with(|| actual_name(base))
            .clone()
    }

    /// Forgets the names given, so that the next are new.
    pub fn clear(&mut self) {
        self.given.clear();
    }
}

fn actual_name(base: &str) -> String {
    let set = |key| std::env::var(key).ok().filter(|value| !value.is_empty());
    if let (Some(host), Some(feature)) = (set("HARMONY_HOST_PID"), set("HARMONY_FEATURE_ID")) {
        return format!("{base}_{host}_{feature}");
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos());
    format!("{base}_{}_{now}", std::process::id())
}

/// The deterministic data of the reference's tests (format, section 16).
///
/// ```
/// use polyshm_zerobuffer::testing::TestData;
///
/// assert_eq!(TestData::frame(4, 254), [254, 255, 0, 1]);
/// assert!(TestData::is_frame(&[254, 255, 0, 1], 254));
/// assert_eq!(TestData::simple(3), [0, 1, 2]);
/// ```
#[derive(Clone, Copy, Debug)]
#[doc(alias = "TestDataPatterns")]
pub struct TestData;

impl TestData {
    /// Frame data: byte `i` is `(i + sequence) mod 256`.
    #[doc(alias = "generate_frame_data")]
    #[must_use]
    pub fn frame(len: usize, sequence: u64) -> Vec<u8> {
        let mut data = vec![0; len];
        Self::fill(&mut data, sequence);
        data
    }

    /// Fills a frame in place, as [`TestData::frame`].
    pub fn fill(data: &mut [u8], sequence: u64) {
        let mut byte = sequence as u8;
        for into in data {
            *into = byte;
            byte = byte.wrapping_add(1);
        }
    }

    /// Whether `data` is what [`TestData::frame`] makes for `sequence`.
    #[must_use]
    pub fn is_frame(data: &[u8], sequence: u64) -> bool {
        let mut byte = sequence as u8;
        data.iter().all(|&found| {
            let due = byte;
            byte = byte.wrapping_add(1);
            found == due
        })
    }

    /// Simple data, also of metadata: byte `i` is `i mod 256`.
    #[doc(alias = "generate_simple_frame_data")]
    #[doc(alias = "generate_metadata")]
    #[must_use]
    pub fn simple(len: usize) -> Vec<u8> {
        Self::frame(len, 0)
    }

    /// Whether `data` is what [`TestData::simple`] makes.
    #[doc(alias = "verify_simple_frame_data")]
    #[must_use]
    pub fn is_simple(data: &[u8]) -> bool {
        Self::is_frame(data, 0)
    }
}
