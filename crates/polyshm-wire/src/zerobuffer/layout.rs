//! The fixed structures and the sizes of a buffer (sections 2 and 4).

use core::mem::{offset_of, size_of};

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U32, U64},
};

use super::{ImageError, LayoutError};

/// Bytes of the header block at offset 0.
pub const OIEB_SIZE: u64 = 128;

/// Bytes before a frame's data.
pub const FRAME_HEADER_SIZE: u64 = 16;

/// Bytes of the length before the metadata.
pub const METADATA_PREFIX_SIZE: u64 = 8;

/// Requested sizes are rounded up to a multiple of this.
pub const BLOCK_ALIGN: u64 = 64;

/// The only major version of the format.
pub const VERSION_MAJOR: u8 = 1;

/// Metadata bytes that every implementation asks for by default.
pub const DEFAULT_METADATA_SIZE: u64 = 1024;

/// Payload bytes that every implementation asks for by default.
pub const DEFAULT_PAYLOAD_SIZE: u64 = 1_048_576;

/// First eight bytes of a finished buffer, `80 00 00 00 01 00 00 00`, as one
/// little-endian word.
///
/// Made for publishing `oieb_size` and `version` in a single store. To judge a
/// buffer use [`Layout::from_header`], which ignores the minor and patch
/// numbers as every implementation does.
pub const SIGNATURE: u64 = u64::from_le_bytes([128, 0, 0, 0, VERSION_MAJOR, 0, 0, 0]);

/// Byte offsets of the [`Oieb`] fields in the object, taken from the structure
/// itself (section 2.1).
pub mod offset {
    use super::{Oieb, offset_of};

    /// `u32`, always 128
    pub const OIEB_SIZE: usize = offset_of!(Oieb, oieb_size);
    /// four `u8`: major, minor, patch, reserved
    pub const VERSION: usize = offset_of!(Oieb, version);
    /// `u64`, fixed at creation
    pub const METADATA_SIZE: usize = offset_of!(Oieb, metadata_size);
    /// `u64`, stored once by the writer
    pub const METADATA_FREE_BYTES: usize = offset_of!(Oieb, metadata_free_bytes);
    /// `u64`, stored once by the writer
    pub const METADATA_WRITTEN_BYTES: usize = offset_of!(Oieb, metadata_written_bytes);
    /// `u64`, fixed at creation
    pub const PAYLOAD_SIZE: usize = offset_of!(Oieb, payload_size);
    /// `u64`, changed by both sides, atomically
    pub const PAYLOAD_FREE_BYTES: usize = offset_of!(Oieb, payload_free_bytes);
    /// `u64`, the writer's
    pub const PAYLOAD_WRITE_POS: usize = offset_of!(Oieb, payload_write_pos);
    /// `u64`, the reader's
    pub const PAYLOAD_READ_POS: usize = offset_of!(Oieb, payload_read_pos);
    /// `u64`, the writer's
    pub const PAYLOAD_WRITTEN_COUNT: usize = offset_of!(Oieb, payload_written_count);
    /// `u64`, the reader's
    pub const PAYLOAD_READ_COUNT: usize = offset_of!(Oieb, payload_read_count);
    /// `u64`, 0 while no writer is attached
    pub const WRITER_PID: usize = offset_of!(Oieb, writer_pid);
    /// `u64`, 0 after the reader closed
    pub const READER_PID: usize = offset_of!(Oieb, reader_pid);
    /// four `u64` that every implementation leaves 0
    pub const RESERVED: usize = offset_of!(Oieb, reserved);
}

/// The header block of a buffer (section 2.1).
///
/// A copy of the bytes, not a view of shared memory, so reading a field twice
/// gives the same value.
///
/// ```
/// use polyshm_wire::zerobuffer::{Layout, Oieb};
///
/// let layout = Layout::for_request(1024, 4096)?;
/// let bytes = Oieb::new(&layout, 7).to_bytes();
/// assert_eq!(bytes[..8], [0x80, 0, 0, 0, 1, 0, 0, 0]);
/// assert_eq!(Oieb::read(&bytes).unwrap().payload_free_bytes.get(), 4096);
/// # Ok::<(), polyshm_wire::zerobuffer::LayoutError>(())
/// ```
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct Oieb {
    /// always [`OIEB_SIZE`]; tells a buffer from anything else
    pub oieb_size: U32,
    /// major, minor, patch, reserved; only the major number is judged
    pub version: [u8; 4],
    /// a multiple of 64 where the creator followed the format
    pub metadata_size: U64,
    /// `metadata_size` less what was written; stored after
    /// `metadata_written_bytes`, so it may lag behind
    pub metadata_free_bytes: U64,
    /// 0 until the writer stored its metadata, then 8 + length, for good
    pub metadata_written_bytes: U64,
    /// a multiple of 64 where the creator followed the format
    pub payload_size: U64,
    /// bytes neither pending, nor held by the reader, nor given up at a wrap;
    /// in `0..=payload_size`
    pub payload_free_bytes: U64,
    /// where the next frame goes; `payload_size` means 0 after an exact fit
    /// (section 5)
    pub payload_write_pos: U64,
    /// where the next frame is read; moves at the read, before the release
    pub payload_read_pos: U64,
    /// frames and wraps as this writer counts them; not comparable between
    /// writers
    pub payload_written_count: U64,
    /// frames and markers read
    pub payload_read_count: U64,
    /// 0 while no writer is attached
    pub writer_pid: U64,
    /// 0 after the reader closed
    pub reader_pid: U64,
    /// 0, and nobody looks
    pub reserved: [U64; 4],
}

// The offsets of section 2.1, stated apart from the structure.
const _: () = {
    assert!(size_of::<Oieb>() as u64 == OIEB_SIZE);
    assert!(offset::OIEB_SIZE == 0x00);
    assert!(offset::VERSION == 0x04);
    assert!(offset::METADATA_SIZE == 0x08);
    assert!(offset::METADATA_FREE_BYTES == 0x10);
    assert!(offset::METADATA_WRITTEN_BYTES == 0x18);
    assert!(offset::PAYLOAD_SIZE == 0x20);
    assert!(offset::PAYLOAD_FREE_BYTES == 0x28);
    assert!(offset::PAYLOAD_WRITE_POS == 0x30);
    assert!(offset::PAYLOAD_READ_POS == 0x38);
    assert!(offset::PAYLOAD_WRITTEN_COUNT == 0x40);
    assert!(offset::PAYLOAD_READ_COUNT == 0x48);
    assert!(offset::WRITER_PID == 0x50);
    assert!(offset::READER_PID == 0x58);
    assert!(offset::RESERVED == 0x60);
    assert!(size_of::<FrameHeader>() as u64 == FRAME_HEADER_SIZE);
    assert!(offset_of!(FrameHeader, payload_size) == 0);
    assert!(offset_of!(FrameHeader, sequence) == 8);
};

impl Oieb {
    /// The header block of a fresh buffer: no writer, no metadata, an empty
    /// ring.
    pub const fn new(layout: &Layout, reader_pid: u64) -> Self {
        const ZERO: U64 = U64::new(0);
        Self {
            oieb_size: U32::new(OIEB_SIZE as u32),
            version: [VERSION_MAJOR, 0, 0, 0],
            metadata_size: U64::new(layout.metadata_size()),
            metadata_free_bytes: U64::new(layout.metadata_size()),
            metadata_written_bytes: ZERO,
            payload_size: U64::new(layout.payload_size()),
            payload_free_bytes: U64::new(layout.payload_size()),
            payload_write_pos: ZERO,
            payload_read_pos: ZERO,
            payload_written_count: ZERO,
            payload_read_count: ZERO,
            writer_pid: ZERO,
            reader_pid: U64::new(reader_pid),
            reserved: [ZERO; 4],
        }
    }

    /// Copies the header block from the front of an image. The only refusal is
    /// [`ImageError::TooShort`]; the fields are judged by
    /// [`Layout::from_header`] and [`check`](Self::check).
    pub fn read(image: &[u8]) -> Result<Self, ImageError> {
        Self::read_from_prefix(image)
            .map(|(oieb, _)| oieb)
            .map_err(|_| ImageError::TooShort {
                len: image.len() as u64,
                need: OIEB_SIZE,
            })
    }

    /// The bytes as they stand in the object.
    pub fn to_bytes(&self) -> [u8; OIEB_SIZE as usize] {
        zerocopy::transmute!(*self)
    }

    /// Checks what changes in a buffer's life against its sizes: both positions
    /// and both credit fields. A position equal to the size is valid.
    pub fn check(&self, layout: &Layout) -> Result<(), ImageError> {
        let payload_size = layout.payload_size();
        let metadata_size = layout.metadata_size();
        let found = self.payload_write_pos.get();
        if found > payload_size {
            return Err(ImageError::WritePosition {
                found,
                payload_size,
            });
        }
        let found = self.payload_read_pos.get();
        if found > payload_size {
            return Err(ImageError::ReadPosition {
                found,
                payload_size,
            });
        }
        let found = self.payload_free_bytes.get();
        if found > payload_size {
            return Err(ImageError::FreeBytes {
                found,
                payload_size,
            });
        }
        let found = self.metadata_free_bytes.get();
        if found > metadata_size {
            return Err(ImageError::MetadataFree {
                found,
                metadata_size,
            });
        }
        Ok(())
    }
}

/// What stands before a frame's data (section 4).
///
/// It may begin at any byte offset of the ring.
///
/// ```
/// use polyshm_wire::zerobuffer::FrameHeader;
///
/// let header = FrameHeader::new(3, 9);
/// assert_eq!(header.to_bytes(), [3, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
/// assert!(!header.is_marker());
/// assert!(FrameHeader::MARKER.is_marker());
/// ```
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct FrameHeader {
    /// bytes of data after the header; 0 makes it a wrap marker
    pub payload_size: U64,
    /// 1 for a writer's first frame, then one more per frame; 0 in a marker
    pub sequence: U64,
}

impl FrameHeader {
    /// Says that the rest of the ring is unused and the next frame is at
    /// offset 0.
    pub const MARKER: Self = Self::new(0, 0);

    /// [`MARKER`](Self::MARKER) as it stands in the ring.
    pub const MARKER_BYTES: [u8; FRAME_HEADER_SIZE as usize] = [0; FRAME_HEADER_SIZE as usize];

    /// A header for `length` bytes of data.
    pub const fn new(length: u64, sequence: u64) -> Self {
        Self {
            payload_size: U64::new(length),
            sequence: U64::new(sequence),
        }
    }

    /// From the bytes as they stand in the ring.
    pub fn from_bytes(bytes: [u8; FRAME_HEADER_SIZE as usize]) -> Self {
        zerocopy::transmute!(bytes)
    }

    /// The bytes as they stand in the ring.
    pub fn to_bytes(&self) -> [u8; FRAME_HEADER_SIZE as usize] {
        zerocopy::transmute!(*self)
    }

    /// Whether this is a wrap marker. Readers look at the length alone, so a
    /// frame of length 0 cannot exist whatever its sequence number.
    pub const fn is_marker(&self) -> bool {
        self.payload_size.get() == 0
    }
}

/// The checked sizes of a buffer (section 2).
///
/// Once it exists, every offset it gives is computed without overflow and lies
/// within [`object_len`](Self::object_len), which fits an `isize`. Keep it in
/// the handle and never load the sizes again.
///
/// ```
/// use polyshm_wire::zerobuffer::Layout;
///
/// let layout = Layout::for_request(100, 1000)?;
/// assert_eq!(layout.metadata_size(), 128);
/// assert_eq!(layout.payload_offset(), 256);
/// assert_eq!(layout.object_len(), 1280);
/// assert_eq!(layout.max_metadata(), Some(120));
/// assert_eq!(layout.max_frame(), 1008);
/// # Ok::<(), polyshm_wire::zerobuffer::LayoutError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// `OIEB_SIZE + metadata_size + payload_size` never exceeds `MAX_OBJECT`
    metadata_size: u64,
    /// never 0
    payload_size: u64,
}

/// No Rust object, and so no mapping, may be longer.
const MAX_OBJECT: u64 = isize::MAX.unsigned_abs() as u64;

impl Layout {
    /// Sizes for a new buffer, rounded up to multiples of 64. No metadata at
    /// all is allowed; no payload is not.
    pub fn for_request(metadata_size: u64, payload_size: u64) -> Result<Self, LayoutError> {
        if payload_size == 0 {
            return Err(LayoutError::ZeroPayload);
        }
        let too_large = LayoutError::TooLarge {
            metadata_size,
            payload_size,
            limit: MAX_OBJECT,
        };
        let metadata_size = round_up(metadata_size).ok_or(too_large)?;
        let payload_size = round_up(payload_size).ok_or(too_large)?;
        match total(metadata_size, payload_size) {
            Some(total) if total <= MAX_OBJECT => Ok(Self {
                metadata_size,
                payload_size,
            }),
            _ => Err(too_large),
        }
    }

    /// Sizes of an existing buffer, believed only when they fit the object.
    ///
    /// `object_len` may be larger than the sizes need: Windows rounds a mapping
    /// up to a page. The sizes need not be multiples of 64.
    pub fn from_header(oieb: &Oieb, object_len: u64) -> Result<Self, ImageError> {
        let found = oieb.oieb_size.get();
        if u64::from(found) != OIEB_SIZE {
            return Err(ImageError::OiebSize { found });
        }
        let [major, minor, patch, _] = oieb.version;
        if major != VERSION_MAJOR {
            return Err(ImageError::Version {
                major,
                minor,
                patch,
            });
        }
        let metadata_size = oieb.metadata_size.get();
        let payload_size = oieb.payload_size.get();
        if payload_size == 0 {
            return Err(ImageError::EmptyRing);
        }
        let object_len = object_len.min(MAX_OBJECT);
        match total(metadata_size, payload_size) {
            Some(total) if total <= object_len => Ok(Self {
                metadata_size,
                payload_size,
            }),
            _ => Err(ImageError::SizesExceedObject {
                metadata_size,
                payload_size,
                object_len,
            }),
        }
    }

    /// Bytes of the metadata block, its length prefix included; may be 0.
    pub const fn metadata_size(&self) -> u64 {
        self.metadata_size
    }

    /// Bytes of the payload ring; never 0.
    pub const fn payload_size(&self) -> u64 {
        self.payload_size
    }

    /// Where the metadata block begins: always 128.
    pub const fn metadata_offset(&self) -> u64 {
        OIEB_SIZE
    }

    /// Where the payload ring begins.
    pub const fn payload_offset(&self) -> u64 {
        OIEB_SIZE + self.metadata_size
    }

    /// Bytes from the start of the object to the end of the ring. The object
    /// itself is exactly that long on Linux and may be longer elsewhere.
    pub const fn object_len(&self) -> u64 {
        self.payload_offset() + self.payload_size
    }

    /// The longest metadata, or `None` where not even the length prefix fits.
    pub const fn max_metadata(&self) -> Option<u64> {
        self.metadata_size.checked_sub(METADATA_PREFIX_SIZE)
    }

    /// The longest frame data: one frame at offset 0 that fills the ring. It is
    /// 0 where a foreign creator made the ring too small for any frame.
    ///
    /// A frame of more than half the ring may have to wait until the ring is
    /// empty (section 8.5).
    pub const fn max_frame(&self) -> u64 {
        self.payload_size.saturating_sub(FRAME_HEADER_SIZE)
    }
}

fn round_up(size: u64) -> Option<u64> {
    size.checked_next_multiple_of(BLOCK_ALIGN)
}

fn total(metadata_size: u64, payload_size: u64) -> Option<u64> {
    OIEB_SIZE
        .checked_add(metadata_size)?
        .checked_add(payload_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(metadata_size: u64, payload_size: u64) -> Oieb {
        let mut oieb = Oieb::new(&Layout::for_request(0, 64).unwrap(), 1);
        oieb.metadata_size.set(metadata_size);
        oieb.payload_size.set(payload_size);
        oieb
    }

    #[test]
    fn signature_is_the_first_word() {
        let bytes = Oieb::new(&Layout::for_request(0, 1).unwrap(), 1).to_bytes();
        assert_eq!(bytes[..8], SIGNATURE.to_le_bytes());
        assert_eq!(SIGNATURE.to_le_bytes(), [0x80, 0, 0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn requests_are_rounded_up() {
        for (asked, got) in [(0, 0), (1, 64), (63, 64), (64, 64), (65, 128)] {
            let layout = Layout::for_request(asked, 64).unwrap();
            assert_eq!(layout.metadata_size(), got);
        }
        let smallest = Layout::for_request(1, 1).unwrap();
        assert_eq!(smallest.object_len(), 256);
        assert_eq!(smallest.max_metadata(), Some(56));
        assert_eq!(smallest.max_frame(), 48);
        assert_eq!(Layout::for_request(0, 64).unwrap().max_metadata(), None);
    }

    #[test]
    fn refused_requests() {
        assert_eq!(Layout::for_request(64, 0), Err(LayoutError::ZeroPayload));
        for (metadata, payload) in [
            (0, u64::MAX),
            (u64::MAX, 64),
            (u64::MAX, u64::MAX),
            (u64::MAX - 63, 64),
            (0, MAX_OBJECT),
            (MAX_OBJECT / 2, MAX_OBJECT / 2 + 1),
        ] {
            assert_eq!(
                Layout::for_request(metadata, payload),
                Err(LayoutError::TooLarge {
                    metadata_size: metadata,
                    payload_size: payload,
                    limit: MAX_OBJECT
                })
            );
        }
        // The largest request that fits: MAX_OBJECT is 63 above a multiple of 64.
        let largest = Layout::for_request(0, MAX_OBJECT - 63 - 128).unwrap();
        assert_eq!(largest.object_len(), MAX_OBJECT - 63);
        assert!(Layout::for_request(1, MAX_OBJECT - 63 - 128).is_err());
    }

    #[test]
    fn header_sizes_must_fit_the_object() {
        let layout = Layout::from_header(&header(64, 128), 320).unwrap();
        assert_eq!((layout.metadata_size(), layout.payload_size()), (64, 128));
        // longer objects and odd sizes are fine
        Layout::from_header(&header(64, 128), 4096).unwrap();
        Layout::from_header(&header(3, 5), 136).unwrap();
        for (metadata, payload, len) in [
            (64, 128, 319),
            (0, u64::MAX, u64::MAX),
            (u64::MAX, 1, u64::MAX),
            (u64::MAX - 128, 1, u64::MAX),
            (0, MAX_OBJECT, u64::MAX),
            (64, 64, 0),
        ] {
            assert!(matches!(
                Layout::from_header(&header(metadata, payload), len),
                Err(ImageError::SizesExceedObject { .. })
            ));
        }
    }

    #[test]
    fn header_identity() {
        let mut oieb = header(64, 0);
        assert_eq!(Layout::from_header(&oieb, 4096), Err(ImageError::EmptyRing));
        oieb.version = [2, 3, 4, 5];
        assert_eq!(
            Layout::from_header(&oieb, 4096),
            Err(ImageError::Version {
                major: 2,
                minor: 3,
                patch: 4
            })
        );
        oieb.oieb_size.set(127);
        assert_eq!(
            Layout::from_header(&oieb, 4096),
            Err(ImageError::OiebSize { found: 127 })
        );
        // minor, patch and the fourth number do not matter
        let mut oieb = header(0, 64);
        oieb.version = [1, 9, 9, 9];
        Layout::from_header(&oieb, 192).unwrap();
    }

    #[test]
    fn a_ring_below_a_header_carries_no_frame() {
        let layout = Layout::from_header(&header(0, 15), 143).unwrap();
        assert_eq!(layout.max_frame(), 0);
    }

    #[test]
    fn positions_up_to_the_size() {
        let layout = Layout::for_request(64, 64).unwrap();
        let fresh = Oieb::new(&layout, 1);
        fresh.check(&layout).unwrap();
        let set = |change: fn(&mut Oieb)| {
            let mut oieb = fresh;
            change(&mut oieb);
            oieb.check(&layout)
        };
        assert_eq!(set(|o| o.payload_write_pos.set(64)), Ok(()));
        assert_eq!(set(|o| o.payload_read_pos.set(64)), Ok(()));
        let payload_size = 64;
        let found = 65;
        assert_eq!(
            set(|o| o.payload_write_pos.set(65)),
            Err(ImageError::WritePosition {
                found,
                payload_size
            })
        );
        assert_eq!(
            set(|o| o.payload_read_pos.set(65)),
            Err(ImageError::ReadPosition {
                found,
                payload_size
            })
        );
        assert_eq!(
            set(|o| o.payload_free_bytes.set(65)),
            Err(ImageError::FreeBytes {
                found,
                payload_size
            })
        );
        assert_eq!(
            set(|o| o.metadata_free_bytes.set(65)),
            Err(ImageError::MetadataFree {
                found,
                metadata_size: 64
            })
        );
    }

    #[test]
    fn short_images() {
        assert_eq!(
            Oieb::read(&[0; 127]),
            Err(ImageError::TooShort {
                len: 127,
                need: 128
            })
        );
        Oieb::read(&[0; 128]).unwrap();
    }

    #[test]
    fn marker_bytes() {
        assert_eq!(FrameHeader::MARKER.to_bytes(), FrameHeader::MARKER_BYTES);
        assert!(FrameHeader::new(0, 7).is_marker());
        assert_eq!(
            FrameHeader::from_bytes(FrameHeader::new(1 << 40, 3).to_bytes()),
            FrameHeader::new(1 << 40, 3)
        );
    }
}
