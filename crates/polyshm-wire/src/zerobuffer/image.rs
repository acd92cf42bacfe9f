//! Checks and walks over whole images (sections 3, 4, 6 and 14).

use alloc::vec::Vec;
use core::iter::FusedIterator;

use zerocopy::FromBytes;

use super::{FRAME_HEADER_SIZE, FrameHeader, ImageError, Layout, METADATA_PREFIX_SIZE, Oieb};

/// Judges a snapshot of `metadata_written_bytes` and of the length prefix
/// (section 3).
///
/// `Ok(None)`: nothing was written, and the prefix means nothing. `Ok(Some(n))`:
/// `n` bytes follow the prefix. Metadata of 0 bytes is valid here although C++
/// and Python readers raise an error on it.
///
/// ```
/// use polyshm_wire::zerobuffer::{Layout, check_metadata};
///
/// let layout = Layout::for_request(64, 64)?;
/// assert_eq!(check_metadata(&layout, 0, 99), Ok(None));
/// assert_eq!(check_metadata(&layout, 18, 10), Ok(Some(10)));
/// assert!(check_metadata(&layout, 18, 11).is_err());
/// # Ok::<(), polyshm_wire::zerobuffer::LayoutError>(())
/// ```
pub fn check_metadata(
    layout: &Layout,
    written: u64,
    length: u64,
) -> Result<Option<u64>, ImageError> {
    if written == 0 {
        return Ok(None);
    }
    let metadata_size = layout.metadata_size();
    let room = match written.checked_sub(METADATA_PREFIX_SIZE) {
        Some(room) if written <= metadata_size => room,
        _ => {
            return Err(ImageError::MetadataWritten {
                found: written,
                metadata_size,
            });
        }
    };
    if length > room {
        return Err(ImageError::MetadataLength {
            found: length,
            written,
        });
    }
    Ok(Some(length))
}

/// Judges a snapshot of a frame's length and gives the offset after its data.
///
/// `limit` is where the frame must have ended: the size of the ring, or the
/// write position when it lies ahead. Offsets count from the start of the ring.
/// A length of 0 is an [`ImageError::UnexpectedMarker`]; whoever may meet a
/// marker looks for it first.
///
/// ```
/// use polyshm_wire::zerobuffer::check_frame;
///
/// assert_eq!(check_frame(4096, 4000, 80), Ok(4096));
/// assert!(check_frame(4096, 4000, 81).is_err());
/// assert!(check_frame(4096, 4000, u64::MAX - 15).is_err());
/// ```
pub fn check_frame(limit: u64, offset: u64, length: u64) -> Result<u64, ImageError> {
    let left = limit.saturating_sub(offset);
    let Some(room) = left.checked_sub(FRAME_HEADER_SIZE) else {
        return Err(ImageError::FrameHeader { offset, room: left });
    };
    if length == 0 {
        return Err(ImageError::UnexpectedMarker { offset });
    }
    if length > room {
        return Err(ImageError::FrameLength {
            offset,
            length,
            room,
        });
    }
    // Cannot overflow: offset + 16 + room == limit, and length <= room.
    Ok(offset + FRAME_HEADER_SIZE + length)
}

/// One frame in the ring. Offsets count from the start of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FrameSpan {
    /// where the header begins
    pub offset: u64,
    /// bytes of data after the header; never 0
    pub length: u64,
    /// as found; gaps and repeats are for the caller to judge
    pub sequence: u64,
}

impl FrameSpan {
    /// Where the data begins.
    pub const fn data_offset(&self) -> u64 {
        self.offset + FRAME_HEADER_SIZE
    }

    /// Bytes of header and data together: the credit that the release of this
    /// frame gives back.
    pub const fn total(&self) -> u64 {
        FRAME_HEADER_SIZE + self.length
    }

    /// Where the next frame begins, if one follows in this lap.
    pub const fn end(&self) -> u64 {
        self.offset + self.total()
    }
}

/// The frames of a ring, one after another, out of bytes that nobody changes.
///
/// Each step moves forward by at least 17 bytes and the walk goes around at
/// most once, so it ends on any bytes. After an error it yields nothing more.
/// Sequence numbers are passed on as found: a second writer may restart them
/// (section 8.8).
///
/// ```
/// use polyshm_wire::zerobuffer::{FrameHeader, FrameWalk};
///
/// let mut ring = [0; 64];
/// ring[..16].copy_from_slice(&FrameHeader::new(4, 1).to_bytes());
/// ring[20..36].copy_from_slice(&FrameHeader::new(8, 2).to_bytes());
/// let lengths: Result<Vec<u64>, _> =
///     FrameWalk::lap(&ring, 44)?.map(|frame| frame.map(|f| f.length)).collect();
/// assert_eq!(lengths?, [4, 8]);
/// # Ok::<(), polyshm_wire::zerobuffer::ImageError>(())
/// ```
#[derive(Clone, Debug)]
pub struct FrameWalk<'a> {
    ring: &'a [u8],
    /// in `0..=limit`
    pos: u64,
    /// where the current stretch ends; in `0..=ring.len()`
    limit: u64,
    /// the end of the stretch from offset 0 that is still to come; taken at the
    /// only wrap
    after_wrap: Option<u64>,
}

impl<'a> FrameWalk<'a> {
    /// The current lap: the chain from offset 0 to `write_pos`, read or not
    /// (section 8.8). A marker or a gap in it is an error.
    pub fn lap(ring: &'a [u8], write_pos: u64) -> Result<Self, ImageError> {
        let payload_size = ring.len() as u64;
        if write_pos > payload_size {
            return Err(ImageError::WritePosition {
                found: write_pos,
                payload_size,
            });
        }
        Ok(Self {
            ring,
            pos: 0,
            limit: write_pos,
            after_wrap: None,
        })
    }

    /// The frames that a reader has still to read, from the read position to
    /// the write position, across at most one wrap: at a marker, at a tail of
    /// fewer than 16 bytes (an implied marker, section 8.4), or at the exact end
    /// of the ring.
    ///
    /// `ring` must be the payload ring that `oieb` belongs to; its length stands
    /// for the payload size. See [`Description::pending`] for how equal
    /// positions are decided.
    pub fn pending(ring: &'a [u8], oieb: &Oieb) -> Result<Self, ImageError> {
        let payload_size = ring.len() as u64;
        let (write, read, free) = (
            oieb.payload_write_pos.get(),
            oieb.payload_read_pos.get(),
            oieb.payload_free_bytes.get(),
        );
        if payload_size == 0 {
            return Err(ImageError::EmptyRing);
        }
        if write > payload_size {
            return Err(ImageError::WritePosition {
                found: write,
                payload_size,
            });
        }
        if read > payload_size {
            return Err(ImageError::ReadPosition {
                found: read,
                payload_size,
            });
        }
        if free > payload_size {
            return Err(ImageError::FreeBytes {
                found: free,
                payload_size,
            });
        }
        // An exact fit may leave either position equal to the size.
        let (write, read) = (write % payload_size, read % payload_size);
        let (limit, after_wrap) = if is_empty(oieb, read == write, payload_size) {
            (read, None)
        } else if read < write {
            (write, None)
        } else {
            (payload_size, Some(write))
        };
        Ok(Self {
            ring,
            pos: read,
            limit,
            after_wrap,
        })
    }

    /// Ring bytes that the walk still covers, markers and tails included.
    const fn distance(&self) -> u64 {
        let ahead = self.limit - self.pos;
        match self.after_wrap {
            Some(after) => ahead + after,
            None => ahead,
        }
    }

    /// Moves to offset 0 when a wrap is still due.
    fn wrap(&mut self) -> bool {
        match self.after_wrap.take() {
            Some(limit) => {
                self.pos = 0;
                self.limit = limit;
                true
            }
            None => false,
        }
    }

    /// Ends the walk for good.
    fn fail(&mut self, error: ImageError) -> Result<FrameSpan, ImageError> {
        self.pos = self.limit;
        self.after_wrap = None;
        Err(error)
    }
}

/// Whether nothing is pending; see [`Description::pending`] for the reasons.
fn is_empty(oieb: &Oieb, positions_equal: bool, payload_size: u64) -> bool {
    let free = oieb.payload_free_bytes.get();
    if free == payload_size {
        return true;
    }
    if !positions_equal {
        return false;
    }
    free != 0 || oieb.payload_written_count.get() <= oieb.payload_read_count.get()
}

impl Iterator for FrameWalk<'_> {
    type Item = Result<FrameSpan, ImageError>;

    fn next(&mut self) -> Option<Self::Item> {
        // Every turn returns or takes the only wrap: two turns at most.
        loop {
            if self.pos == self.limit {
                if self.wrap() {
                    continue;
                }
                return None;
            }
            let offset = self.pos;
            let left = self.limit - offset;
            // A header that does not fit before the wrap was never written.
            if left < FRAME_HEADER_SIZE {
                if self.wrap() {
                    continue;
                }
                return Some(self.fail(ImageError::FrameHeader { offset, room: left }));
            }
            let header = usize::try_from(offset)
                .ok()
                .and_then(|at| self.ring.get(at..))
                .and_then(|rest| FrameHeader::read_from_prefix(rest).ok());
            let Some((header, _)) = header else {
                // Not reachable while limit <= ring.len(); an error beats a panic.
                return Some(self.fail(ImageError::FrameHeader { offset, room: left }));
            };
            if header.is_marker() && self.wrap() {
                continue;
            }
            let length = header.payload_size.get();
            return match check_frame(self.limit, offset, length) {
                Ok(end) => {
                    self.pos = end;
                    Some(Ok(FrameSpan {
                        offset,
                        length,
                        sequence: header.sequence.get(),
                    }))
                }
                Err(error) => Some(self.fail(error)),
            };
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // A frame has a header and at least one byte.
        let most = self.distance() / (FRAME_HEADER_SIZE + 1);
        (0, usize::try_from(most).ok())
    }
}

impl FusedIterator for FrameWalk<'_> {}

/// Where the metadata is. The offset counts from the start of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MetadataSpan {
    /// of the first byte after the length prefix
    pub offset: u64,
    /// may be 0
    pub length: u64,
}

/// A whole object, checked and taken apart by [`describe`].
///
/// The fields down to `reserved` are those of [`Oieb`], as found.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Description {
    /// major (always 1), minor, patch, reserved
    pub version: [u8; 4],
    /// bytes of the metadata block
    pub metadata_size: u64,
    /// never above `metadata_size`
    pub metadata_free_bytes: u64,
    /// 0, or within `8..=metadata_size`
    pub metadata_written_bytes: u64,
    /// bytes of the ring; never 0
    pub payload_size: u64,
    /// never above `payload_size`
    pub payload_free_bytes: u64,
    /// never above `payload_size`; equal to it after an exact fit by C++ or
    /// Python
    pub payload_write_pos: u64,
    /// never above `payload_size`
    pub payload_read_pos: u64,
    /// frames and wraps as the writer counts them
    pub payload_written_count: u64,
    /// frames and markers as the reader counts them
    pub payload_read_count: u64,
    /// 0 while no writer is attached; not judged
    pub writer_pid: u64,
    /// 0 after the reader closed; not judged
    pub reader_pid: u64,
    /// not judged
    pub reserved: [u64; 4],
    /// `None` until metadata was written
    pub metadata: Option<MetadataSpan>,
    /// the chain from offset 0 to the write position: every frame of this lap,
    /// read or not
    pub lap: Vec<FrameSpan>,
    /// the frames that the reader has still to read, in order
    ///
    /// The positions say which, with three rules where they are not enough:
    ///
    /// * All bytes free: nothing is pending, whatever the positions say. They
    ///   differ then only between the stores of a commit or of a rewind.
    /// * Positions equal (modulo the size) and some bytes free: nothing is
    ///   pending, since a full ring of pending frames has no free byte. The
    ///   bytes that are not free belong to frames that the reader still holds.
    /// * Positions equal and no byte free: either every byte is pending or every
    ///   byte is held; positions and credit look the same. The frames count as
    ///   pending if `payload_written_count` exceeds `payload_read_count`. That
    ///   is right unless the counts have drifted (Python raises the written
    ///   count at wraps that no reader counts, section 5); then only the value
    ///   of the data-ready semaphore tells.
    pub pending: Vec<FrameSpan>,
    /// bytes that are neither free nor between read and write position: frames
    /// read and not yet released
    pub held_bytes: u64,
    /// the part of the ring that is not free, in `0.0..=1.0` (section 14)
    pub utilisation: f64,
}

/// Checks a whole image and lists what is in it.
///
/// The image must not change meanwhile: copy a live region first. A copy made
/// while the peers work may show positions from different moments, which can
/// give an error that a second copy does not.
///
/// Sequence numbers and process identifiers are reported, not judged. Time and
/// memory are proportional to the length of the image, whatever it contains.
///
/// ```
/// use polyshm_wire::zerobuffer::{ImageError, Layout, Oieb, describe};
///
/// let layout = Layout::for_request(64, 256)?;
/// let mut image = Oieb::new(&layout, 1).to_bytes().to_vec();
/// assert!(matches!(describe(&image), Err(ImageError::SizesExceedObject { .. })));
/// image.resize(448, 0);
/// assert_eq!(describe(&image)?.utilisation, 0.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn describe(image: &[u8]) -> Result<Description, ImageError> {
    let oieb = Oieb::read(image)?;
    let layout = Layout::from_header(&oieb, image.len() as u64)?;
    oieb.check(&layout)?;

    let too_short = ImageError::TooShort {
        len: image.len() as u64,
        need: layout.object_len(),
    };
    // from_header has proved that all three blocks lie within the image.
    let block = |offset: u64, length: u64| {
        let start = usize::try_from(offset).ok()?;
        let length = usize::try_from(length).ok()?;
        image.get(start..)?.get(..length)
    };
    let metadata_block =
        block(layout.metadata_offset(), layout.metadata_size()).ok_or(too_short)?;
    let ring = block(layout.payload_offset(), layout.payload_size()).ok_or(too_short)?;

    // A block too small for the prefix fails the check on `written` instead.
    let prefix = metadata_block
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let metadata =
        check_metadata(&layout, oieb.metadata_written_bytes.get(), prefix)?.map(|length| {
            MetadataSpan {
                offset: layout.metadata_offset() + METADATA_PREFIX_SIZE,
                length,
            }
        });

    let lap = FrameWalk::lap(ring, oieb.payload_write_pos.get())?.collect::<Result<_, _>>()?;
    let walk = FrameWalk::pending(ring, &oieb)?;
    let used = layout.payload_size() - oieb.payload_free_bytes.get();
    // A writer moves its position before it takes the credit, so the distance
    // may exceed the used bytes for a moment.
    let held_bytes = used.saturating_sub(walk.distance());
    let pending = walk.collect::<Result<_, _>>()?;

    Ok(Description {
        version: oieb.version,
        metadata_size: layout.metadata_size(),
        metadata_free_bytes: oieb.metadata_free_bytes.get(),
        metadata_written_bytes: oieb.metadata_written_bytes.get(),
        payload_size: layout.payload_size(),
        payload_free_bytes: oieb.payload_free_bytes.get(),
        payload_write_pos: oieb.payload_write_pos.get(),
        payload_read_pos: oieb.payload_read_pos.get(),
        payload_written_count: oieb.payload_written_count.get(),
        payload_read_count: oieb.payload_read_count.get(),
        writer_pid: oieb.writer_pid.get(),
        reader_pid: oieb.reader_pid.get(),
        reserved: oieb.reserved.map(u64::from),
        metadata,
        lap,
        pending,
        held_bytes,
        utilisation: used as f64 / layout.payload_size() as f64,
    })
}

/// Bytes of a glibc semaphore file.
pub const SEMAPHORE_IMAGE_SIZE: u64 = 32;

/// The file behind a named semaphore, as 64-bit glibc lays it out
/// (section 1.1).
///
/// For inspection. The bytes belong to the C library, so this says what one
/// such file held, and nothing may be written by it.
///
/// ```
/// use polyshm_wire::zerobuffer::SemaphoreImage;
///
/// let mut file = [0; 32];
/// file[0] = 3;
/// file[8] = 0x80;
/// let semaphore = SemaphoreImage::parse(&file)?;
/// assert_eq!((semaphore.value, semaphore.waiters, semaphore.shared), (3, 0, true));
/// # Ok::<(), polyshm_wire::zerobuffer::ImageError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SemaphoreImage {
    /// posts not yet taken
    pub value: u32,
    /// threads that sleep in a wait
    pub waiters: u32,
    /// set in every semaphore that has a name
    pub shared: bool,
}

impl SemaphoreImage {
    /// Reads an image of at least [`SEMAPHORE_IMAGE_SIZE`] bytes; the bytes
    /// after the flag are not judged.
    pub fn parse(image: &[u8]) -> Result<Self, ImageError> {
        const MAX: u32 = i32::MAX.unsigned_abs();
        const SHARED: u32 = 0x80;
        let words: [[u8; 4]; 8] = match FromBytes::read_from_prefix(image) {
            Ok((words, _)) => words,
            Err(_) => {
                return Err(ImageError::TooShort {
                    len: image.len() as u64,
                    need: SEMAPHORE_IMAGE_SIZE,
                });
            }
        };
        let [value, waiters, flag, ..] = words.map(u32::from_le_bytes);
        if value > MAX {
            return Err(ImageError::SemaphoreValue {
                found: value,
                max: MAX,
            });
        }
        if flag != 0 && flag != SHARED {
            return Err(ImageError::SemaphoreFlag { found: flag });
        }
        Ok(Self {
            value,
            waiters,
            shared: flag == SHARED,
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::{vec, vec::Vec};

    use super::*;

    /// A ring of `size` bytes with `frames` at the offsets given.
    fn ring(size: usize, frames: &[(usize, u64, u64)]) -> Vec<u8> {
        // A marker must be written to be there: no stray zero lengths.
        let mut ring = vec![0xee; size];
        for &(offset, length, sequence) in frames {
            ring[offset..offset + 16]
                .copy_from_slice(&FrameHeader::new(length, sequence).to_bytes());
        }
        ring
    }

    fn oieb(size: u64, read: u64, write: u64, free: u64) -> Oieb {
        let mut oieb = Oieb::new(&Layout::for_request(0, size).unwrap(), 1);
        oieb.payload_read_pos.set(read);
        oieb.payload_write_pos.set(write);
        oieb.payload_free_bytes.set(free);
        oieb
    }

    fn pending(ring: &[u8], oieb: &Oieb) -> Result<Vec<u64>, ImageError> {
        FrameWalk::pending(ring, oieb)?
            .map(|frame| frame.map(|f| f.sequence))
            .collect()
    }

    #[test]
    fn metadata_limits() {
        let layout = Layout::for_request(64, 64).unwrap();
        assert_eq!(check_metadata(&layout, 0, u64::MAX), Ok(None));
        assert_eq!(check_metadata(&layout, 8, 0), Ok(Some(0)));
        assert_eq!(check_metadata(&layout, 64, 56), Ok(Some(56)));
        for found in [1, 7, 65, u64::MAX] {
            assert_eq!(
                check_metadata(&layout, found, 0),
                Err(ImageError::MetadataWritten {
                    found,
                    metadata_size: 64
                })
            );
        }
        for (written, found) in [(8, 1), (64, 57), (64, u64::MAX)] {
            assert_eq!(
                check_metadata(&layout, written, found),
                Err(ImageError::MetadataLength { found, written })
            );
        }
        let none = Layout::for_request(0, 64).unwrap();
        assert_eq!(check_metadata(&none, 0, 0), Ok(None));
        assert!(check_metadata(&none, 8, 0).is_err());
    }

    #[test]
    fn frame_limits() {
        assert_eq!(check_frame(64, 0, 48), Ok(64));
        assert_eq!(
            check_frame(64, 0, 49),
            Err(ImageError::FrameLength {
                offset: 0,
                length: 49,
                room: 48
            })
        );
        assert_eq!(
            check_frame(64, 49, 1),
            Err(ImageError::FrameHeader {
                offset: 49,
                room: 15
            })
        );
        assert_eq!(
            check_frame(64, 65, 1),
            Err(ImageError::FrameHeader {
                offset: 65,
                room: 0
            })
        );
        assert_eq!(
            check_frame(64, 48, 0),
            Err(ImageError::UnexpectedMarker { offset: 48 })
        );
        assert!(check_frame(u64::MAX, u64::MAX - 16, 1).is_err());
        assert!(check_frame(u64::MAX, 0, u64::MAX).is_err());
    }

    #[test]
    fn pending_across_a_marker() {
        let ring = ring(128, &[(60, 4, 7), (80, 0, 0), (0, 24, 8)]);
        assert_eq!(pending(&ring, &oieb(128, 60, 40, 20)), Ok(vec![7, 8]));
        // reserved ahead of a commit: the wrap is done, no frame is there yet
        assert_eq!(pending(&ring, &oieb(128, 80, 0, 80)), Ok(vec![]));
    }

    #[test]
    fn pending_across_a_short_tail_and_an_exact_end() {
        let frames = ring(128, &[(100, 13, 1), (0, 4, 2)]);
        // one byte across the end of the ring
        assert!(pending(&frames, &oieb(128, 100, 20, 80)).is_err());
        let frames = ring(128, &[(100, 2, 1), (0, 4, 2)]);
        assert_eq!(pending(&frames, &oieb(128, 100, 20, 80)), Ok(vec![1, 2]));
        let frames = ring(128, &[(100, 12, 1), (0, 4, 2)]);
        assert_eq!(pending(&frames, &oieb(128, 100, 20, 80)), Ok(vec![1, 2]));
        // position equal to the size, on either side
        assert_eq!(pending(&frames, &oieb(128, 128, 20, 108)), Ok(vec![2]));
        assert_eq!(pending(&frames, &oieb(128, 100, 128, 100)), Ok(vec![1]));
    }

    #[test]
    fn equal_positions() {
        let ring = ring(64, &[(20, 28, 1), (0, 4, 2)]);
        let mut full = oieb(64, 20, 20, 0);
        full.payload_written_count.set(2);
        assert_eq!(pending(&ring, &full), Ok(vec![1, 2]));
        // every frame read, every byte held
        full.payload_read_count.set(2);
        assert_eq!(pending(&ring, &full), Ok(vec![]));
        // some credit given back: the rest can only be held
        let mut held = oieb(64, 20, 20, 44);
        held.payload_written_count.set(9);
        assert_eq!(pending(&ring, &held), Ok(vec![]));
        // the same after an exact fit that left the write position at the size
        let mut held = oieb(64, 0, 64, 20);
        held.payload_written_count.set(2);
        assert_eq!(pending(&[0xee; 64], &held), Ok(vec![]));
        // all credit given back
        assert_eq!(pending(&ring, &oieb(64, 0, 20, 64)), Ok(vec![]));
    }

    #[test]
    fn markers_only_before_the_wrap() {
        let ring = ring(128, &[(0, 4, 1), (20, 0, 0)]);
        let marker = Err(ImageError::UnexpectedMarker { offset: 20 });
        assert_eq!(pending(&ring, &oieb(128, 0, 60, 68)), marker);
        assert_eq!(
            FrameWalk::lap(&ring, 60).unwrap().last(),
            Some(Err(ImageError::UnexpectedMarker { offset: 20 }))
        );
        // a marker at offset 0 must not send the walk around for ever
        let ring = [0; 64];
        let mut full = oieb(64, 0, 0, 0);
        full.payload_written_count.set(1);
        assert_eq!(pending(&ring, &full), Ok(vec![]));
        full.payload_write_pos.set(20);
        full.payload_read_pos.set(20);
        assert_eq!(
            pending(&ring, &full),
            Err(ImageError::UnexpectedMarker { offset: 0 })
        );
    }

    #[test]
    fn frames_must_end_at_the_write_position() {
        let ring = ring(128, &[(0, 4, 1), (20, 30, 2)]);
        let errors: Vec<_> = FrameWalk::lap(&ring, 60).unwrap().collect();
        assert_eq!(errors.len(), 2);
        assert_eq!(
            errors[1],
            Err(ImageError::FrameLength {
                offset: 20,
                length: 30,
                room: 24
            })
        );
        assert_eq!(
            FrameWalk::lap(&ring, 30).unwrap().last(),
            Some(Err(ImageError::FrameHeader {
                offset: 20,
                room: 10
            }))
        );
        assert!(FrameWalk::lap(&ring, 129).is_err());
    }

    #[test]
    fn walk_over_no_ring() {
        assert!(FrameWalk::pending(&[], &oieb(64, 0, 0, 64)).is_err());
        assert_eq!(FrameWalk::lap(&[], 0).unwrap().count(), 0);
    }

    #[test]
    fn semaphore_limits() {
        let mut file = [0; 32];
        assert!(!SemaphoreImage::parse(&file).unwrap().shared);
        assert_eq!(
            SemaphoreImage::parse(&file[..31]),
            Err(ImageError::TooShort { len: 31, need: 32 })
        );
        file[3] = 0x80;
        assert_eq!(
            SemaphoreImage::parse(&file),
            Err(ImageError::SemaphoreValue {
                found: 1 << 31,
                max: (1 << 31) - 1
            })
        );
        file[3] = 0;
        file[8] = 1;
        assert_eq!(
            SemaphoreImage::parse(&file),
            Err(ImageError::SemaphoreFlag { found: 1 })
        );
    }
}
