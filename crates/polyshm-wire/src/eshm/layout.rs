//! The fixed structures and the places of both channels (section 1).

use core::mem::{offset_of, size_of};

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{I32, U32, U64},
};

use super::{ImageError, LayoutError};

/// First word of an object, the bytes `4D 48 53 45` (section 1.5).
pub const MAGIC: u32 = 0x4553_484d;

/// The only version of the format. The reference writes it and never looks.
pub const VERSION: u32 = 2;

/// Bytes of the header at offset 0.
pub const HEADER_SIZE: u64 = 128;

/// Bytes of a channel's buffer when the reference is built without options
/// (section 1.4).
pub const DEFAULT_CAPACITY: u64 = 4096;

/// The largest capacity that is laid out here, in bytes. The reference has no
/// limit of its own; this one keeps every offset far from overflow.
pub const MAX_CAPACITY: u64 = 1 << 30;

/// How long a heartbeat may stand still by default, in milliseconds.
pub const DEFAULT_STALE_THRESHOLD_MS: u32 = 100;

/// Bytes of a channel before its data.
const CHANNEL_HEAD_SIZE: u64 = 8;

/// Bytes of a channel from its write count on, without the tail's alignment.
const CHANNEL_TAIL_SIZE: u64 = 64;

/// Channels begin and end on a multiple of this.
const CHANNEL_ALIGN: u64 = 64;

/// Byte offsets of the [`Header`] fields in the object, taken from the
/// structure itself (section 1.5).
pub mod offset {
    use super::{Header, offset_of};

    /// `u32`, stored last by a native creator
    pub const MAGIC: usize = offset_of!(Header, magic);
    /// `u32`, fixed at creation
    pub const VERSION: usize = offset_of!(Header, version);
    /// `u64`, the master's
    pub const MASTER_HEARTBEAT: usize = offset_of!(Header, master_heartbeat);
    /// `u64`, the slave's
    pub const SLAVE_HEARTBEAT: usize = offset_of!(Header, slave_heartbeat);
    /// `i32`, the master's
    pub const MASTER_PID: usize = offset_of!(Header, master_pid);
    /// `i32`, the slave's
    pub const SLAVE_PID: usize = offset_of!(Header, slave_pid);
    /// `u32`, 0 or 1, the master's
    pub const MASTER_ALIVE: usize = offset_of!(Header, master_alive);
    /// `u32`, 0 or 1, the slave's; it decides what the next master does
    pub const SLAVE_ALIVE: usize = offset_of!(Header, slave_alive);
    /// `u32`, milliseconds, fixed at creation
    pub const STALE_THRESHOLD: usize = offset_of!(Header, stale_threshold);
    /// `u32`, the master's
    pub const MASTER_GENERATION: usize = offset_of!(Header, master_generation);
    /// `u32`, native only, fixed at creation
    pub const NATIVE_CAPACITY: usize = offset_of!(Header, native_capacity);
    /// `u32`, native only, the master's
    pub const NATIVE_MASTER_MARK: usize = offset_of!(Header, native_master_mark);
    /// `u32`, native only, the slave's
    pub const NATIVE_SLAVE_MARK: usize = offset_of!(Header, native_slave_mark);
    /// bytes that nobody uses
    pub const PADDING: usize = offset_of!(Header, padding);
}

/// The header of an object (section 1.5).
///
/// A copy of the bytes, not a view of shared memory, so reading a field twice
/// gives the same value.
///
/// The fields named `native_*` stand in bytes that every reference zeroes at
/// creation and then leaves alone. They are 0 in an object that a reference
/// made, and a reference that meets other values does not see them.
///
/// ```
/// use polyshm_wire::eshm::{Header, VERSION};
///
/// let header = Header::new(100, 4096);
/// let bytes = header.to_bytes();
/// assert_eq!(bytes[..8], [0x4d, 0x48, 0x53, 0x45, 2, 0, 0, 0]);
/// assert_eq!(Header::read(&bytes)?, header);
/// header.check()?;
/// # Ok::<(), polyshm_wire::eshm::ImageError>(())
/// ```
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct Header {
    /// always [`MAGIC`]; 0 while a reference is still creating the object
    pub magic: U32,
    /// always [`VERSION`]
    pub version: U32,
    /// beats of the master, about one per millisecond; 0 at its start
    pub master_heartbeat: U64,
    /// beats of the slave, about one per millisecond; 0 at its start
    pub slave_heartbeat: U64,
    /// the last master's process, kept after it closed
    pub master_pid: I32,
    /// the last slave's process, kept after it closed; 0 before the first
    pub slave_pid: I32,
    /// 1 from the master's start to its orderly end; a crash leaves 1
    pub master_alive: U32,
    /// 1 while a slave is attached; a crash leaves 1
    pub slave_alive: U32,
    /// how long a heartbeat may stand still, in milliseconds; the creator's,
    /// and both sides judge by it
    pub stale_threshold: U32,
    /// masters that this object has had; 0 only before the first is ready
    pub master_generation: U32,
    /// capacity that a native creator laid the channels out for; 0 = unknown.
    /// The object's length does not tell (section 1.6)
    pub native_capacity: U32,
    /// process mark of a native master (22 bits of process identifier, 10 bits
    /// of start time); 0 = not native
    pub native_master_mark: U32,
    /// the same of a native slave
    pub native_slave_mark: U32,
    /// 0, and nobody looks
    pub padding: [u8; 68],
}

/// What stands at the start of a channel (section 1.6).
///
/// ```
/// use polyshm_wire::eshm::ChannelHead;
///
/// let head = ChannelHead::read(&[4, 0, 0, 0, 2, 0, 0, 0]).unwrap();
/// assert_eq!((head.sequence.get(), head.data_size.get()), (4, 2));
/// assert!(!head.is_busy());
/// ```
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
pub struct ChannelHead {
    /// odd while a message is written; two more per message, modulo 2^32
    pub sequence: U32,
    /// bytes of the message; in `0..=capacity` when the sequence is even
    pub data_size: U32,
}

/// What stands behind a channel's data (section 1.6).
///
/// The fields named `native_*` stand in the reference's padding, see
/// [`Header`].
///
/// ```
/// use polyshm_wire::eshm::ChannelTail;
///
/// let mut bytes = [0; 64];
/// bytes[0] = 3;
/// let tail = ChannelTail::read(&bytes).unwrap();
/// assert_eq!((tail.write_count.get(), tail.read_count.get()), (3, 0));
/// assert_eq!(tail.to_bytes(), bytes);
/// ```
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct ChannelTail {
    /// messages ever written; raised after the sequence became even
    pub write_count: U64,
    /// deliveries of all readers together
    pub read_count: U64,
    /// threads of native readers that sleep on the sequence
    pub native_waiters: U32,
    /// a sequence number whose message is void, because its writer died and
    /// someone repaired the sequence; its bit 0 is set, so that 0 = none
    pub native_void: U32,
    /// how many sequence numbers were voided so far, modulo 2^31
    pub native_voids: U32,
    /// 0, and nobody looks
    pub padding: [u8; 36],
}

// The offsets of sections 1.5 and 1.6, stated apart from the structures.
const _: () = {
    assert!(size_of::<Header>() as u64 == HEADER_SIZE);
    assert!(offset::MAGIC == 0);
    assert!(offset::VERSION == 4);
    assert!(offset::MASTER_HEARTBEAT == 8);
    assert!(offset::SLAVE_HEARTBEAT == 16);
    assert!(offset::MASTER_PID == 24);
    assert!(offset::SLAVE_PID == 28);
    assert!(offset::MASTER_ALIVE == 32);
    assert!(offset::SLAVE_ALIVE == 36);
    assert!(offset::STALE_THRESHOLD == 40);
    assert!(offset::MASTER_GENERATION == 44);
    assert!(offset::NATIVE_CAPACITY == 48);
    assert!(offset::NATIVE_MASTER_MARK == 52);
    assert!(offset::NATIVE_SLAVE_MARK == 56);
    assert!(offset::PADDING == 60);

    assert!(size_of::<ChannelHead>() as u64 == CHANNEL_HEAD_SIZE);
    assert!(offset_of!(ChannelHead, sequence) == 0);
    assert!(offset_of!(ChannelHead, data_size) == 4);

    assert!(size_of::<ChannelTail>() as u64 == CHANNEL_TAIL_SIZE);
    assert!(offset_of!(ChannelTail, write_count) == 0);
    assert!(offset_of!(ChannelTail, read_count) == 8);
    assert!(offset_of!(ChannelTail, native_waiters) == 16);
    assert!(offset_of!(ChannelTail, native_void) == 20);
    assert!(offset_of!(ChannelTail, native_voids) == 24);
    assert!(offset_of!(ChannelTail, padding) == 28);
};

impl Header {
    /// The header of a fresh object before a master entered itself: magic,
    /// version, threshold in milliseconds and the native capacity in bytes, all
    /// else 0 (section 2).
    pub const fn new(stale_threshold_ms: u32, capacity: u32) -> Self {
        Self {
            magic: U32::new(MAGIC),
            version: U32::new(VERSION),
            master_heartbeat: U64::new(0),
            slave_heartbeat: U64::new(0),
            master_pid: I32::new(0),
            slave_pid: I32::new(0),
            master_alive: U32::new(0),
            slave_alive: U32::new(0),
            stale_threshold: U32::new(stale_threshold_ms),
            master_generation: U32::new(0),
            native_capacity: U32::new(capacity),
            native_master_mark: U32::new(0),
            native_slave_mark: U32::new(0),
            padding: [0; 68],
        }
    }

    /// Copies the header from the front of an image. The only refusal is
    /// [`ImageError::TooShort`]; the fields are judged by
    /// [`check`](Self::check).
    pub fn read(image: &[u8]) -> Result<Self, ImageError> {
        prefix(image)
    }

    /// The bytes as they stand in the object.
    pub fn to_bytes(&self) -> [u8; HEADER_SIZE as usize] {
        zerocopy::transmute!(*self)
    }

    /// Whether this is an object of this format: magic, then version. The alive
    /// flags are not judged, a reference may leave anything there.
    pub const fn check(&self) -> Result<(), ImageError> {
        let found = self.magic.get();
        if found != MAGIC {
            return Err(ImageError::Magic { found });
        }
        let found = self.version.get();
        if found != VERSION {
            return Err(ImageError::Version { found });
        }
        Ok(())
    }
}

impl ChannelHead {
    /// Copies the head from the front of a channel. The only refusal is
    /// [`ImageError::TooShort`].
    pub fn read(channel: &[u8]) -> Result<Self, ImageError> {
        prefix(channel)
    }

    /// The bytes as they stand in the object.
    pub fn to_bytes(&self) -> [u8; CHANNEL_HEAD_SIZE as usize] {
        zerocopy::transmute!(*self)
    }

    /// Whether a message is being written, or its writer died while writing.
    pub const fn is_busy(&self) -> bool {
        self.sequence.get() % 2 == 1
    }
}

impl ChannelTail {
    /// Copies the tail from the front of the bytes at a channel's write count.
    /// The only refusal is [`ImageError::TooShort`].
    pub fn read(tail: &[u8]) -> Result<Self, ImageError> {
        prefix(tail)
    }

    /// The bytes as they stand in the object.
    pub fn to_bytes(&self) -> [u8; CHANNEL_TAIL_SIZE as usize] {
        zerocopy::transmute!(*self)
    }
}

fn prefix<T: FromBytes + KnownLayout + Immutable>(bytes: &[u8]) -> Result<T, ImageError> {
    T::read_from_prefix(bytes)
        .map(|(value, _)| value)
        .map_err(|_| ImageError::TooShort {
            len: bytes.len() as u64,
            need: size_of::<T>() as u64,
        })
}

/// Which of the two channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Direction {
    /// the first channel, written by the master
    MasterToSlave,
    /// the second channel, written by the slave
    SlaveToMaster,
}

impl Direction {
    /// Both, in the order in which they stand in the object.
    pub const ALL: [Self; 2] = [Self::MasterToSlave, Self::SlaveToMaster];

    /// The other one.
    #[must_use]
    pub const fn reverse(self) -> Self {
        match self {
            Self::MasterToSlave => Self::SlaveToMaster,
            Self::SlaveToMaster => Self::MasterToSlave,
        }
    }
}

impl core::fmt::Display for Direction {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::MasterToSlave => "master-to-slave",
            Self::SlaveToMaster => "slave-to-master",
        })
    }
}

/// The places of an object whose channels carry up to a capacity in bytes
/// (section 1.6).
///
/// The object does not say its capacity, so both sides must agree on it, and
/// the length alone cannot tell whether they do. Once a layout exists, no
/// offset that it gives can overflow, and all lie within
/// [`object_len`](Self::object_len).
///
/// ```
/// use polyshm_wire::eshm::{Direction, Layout};
///
/// let layout = Layout::default();
/// assert_eq!((layout.capacity(), layout.object_len()), (4096, 8576));
/// assert_eq!(layout.channel(Direction::MasterToSlave).data, 136);
/// assert_eq!(layout.channel(Direction::SlaveToMaster).sequence, 4352);
///
/// // The same length, but the counters stand elsewhere.
/// let larger = Layout::new(4097)?;
/// assert_eq!(larger.object_len(), 8576);
/// assert_ne!(
///     larger.channel(Direction::MasterToSlave).write_count,
///     layout.channel(Direction::MasterToSlave).write_count,
/// );
/// # Ok::<(), polyshm_wire::eshm::LayoutError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// in `1..=MAX_CAPACITY`
    capacity: u32,
}

/// The absolute byte offsets of one channel, out of [`Layout::channel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChannelPlace {
    /// `u32`, see [`ChannelHead::sequence`]
    pub sequence: u64,
    /// `u32`, see [`ChannelHead::data_size`]
    pub data_size: u64,
    /// as many bytes as the capacity
    pub data: u64,
    /// `u64`, see [`ChannelTail::write_count`]
    pub write_count: u64,
    /// `u64`, see [`ChannelTail::read_count`]
    pub read_count: u64,
    /// `u32`, see [`ChannelTail::native_waiters`]
    pub native_waiters: u64,
    /// `u32`, see [`ChannelTail::native_void`]
    pub native_void: u64,
    /// `u32`, see [`ChannelTail::native_voids`]
    pub native_voids: u64,
}

impl Layout {
    /// For channels of `capacity` bytes, in `1..=`[`MAX_CAPACITY`].
    pub const fn new(capacity: u64) -> Result<Self, LayoutError> {
        if capacity == 0 {
            return Err(LayoutError::ZeroCapacity);
        }
        if capacity > MAX_CAPACITY {
            return Err(LayoutError::TooLarge {
                capacity,
                limit: MAX_CAPACITY,
            });
        }
        Ok(Self {
            capacity: capacity as u32,
        })
    }

    /// The longest message in bytes.
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// From a channel's start to its write count.
    const fn tail(self) -> u64 {
        (CHANNEL_HEAD_SIZE + self.capacity as u64).next_multiple_of(8)
    }

    /// Bytes of one channel.
    pub const fn channel_len(&self) -> u64 {
        (self.tail() + CHANNEL_TAIL_SIZE).next_multiple_of(CHANNEL_ALIGN)
    }

    /// Bytes of the whole object.
    pub const fn object_len(&self) -> u64 {
        HEADER_SIZE + 2 * self.channel_len()
    }

    /// Where the parts of a channel stand, from the object's start.
    pub const fn channel(&self, direction: Direction) -> ChannelPlace {
        let start = match direction {
            Direction::MasterToSlave => HEADER_SIZE,
            Direction::SlaveToMaster => HEADER_SIZE + self.channel_len(),
        };
        let tail = start + self.tail();
        ChannelPlace {
            sequence: start + offset_of!(ChannelHead, sequence) as u64,
            data_size: start + offset_of!(ChannelHead, data_size) as u64,
            data: start + CHANNEL_HEAD_SIZE,
            write_count: tail + offset_of!(ChannelTail, write_count) as u64,
            read_count: tail + offset_of!(ChannelTail, read_count) as u64,
            native_waiters: tail + offset_of!(ChannelTail, native_waiters) as u64,
            native_void: tail + offset_of!(ChannelTail, native_void) as u64,
            native_voids: tail + offset_of!(ChannelTail, native_voids) as u64,
        }
    }

    /// Whether an object of `object_len` bytes has room for this layout. A
    /// longer object is fine: some systems round it up.
    pub const fn check_len(&self, object_len: u64) -> Result<(), ImageError> {
        let need = self.object_len();
        if object_len < need {
            return Err(ImageError::TooShort {
                len: object_len,
                need,
            });
        }
        Ok(())
    }
}

/// [`DEFAULT_CAPACITY`].
impl Default for Layout {
    fn default() -> Self {
        Self {
            capacity: DEFAULT_CAPACITY as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of section 1.6.
    #[test]
    fn sizes_of_the_table() {
        for (max, wc, ch, s2m, total) in [
            (1, 16, 128, 256, 384),
            (100, 112, 192, 320, 512),
            (1000, 1008, 1088, 1216, 2304),
            (2048, 2056, 2176, 2304, 4480),
            (4095, 4104, 4224, 4352, 8576),
            (4096, 4104, 4224, 4352, 8576),
            (4097, 4112, 4224, 4352, 8576),
            (8192, 8200, 8320, 8448, 16768),
            (65536, 65544, 65664, 65792, 131_456),
            (33_554_432, 33_554_440, 33_554_560, 33_554_688, 67_109_248),
            (67_108_864, 67_108_872, 67_108_992, 67_109_120, 134_218_112),
        ] {
            let layout = Layout::new(max).unwrap();
            assert_eq!(layout.channel_len(), ch);
            assert_eq!(layout.object_len(), total);
            let place = layout.channel(Direction::MasterToSlave);
            assert_eq!(
                (place.sequence, place.data_size, place.data),
                (128, 132, 136)
            );
            assert_eq!(place.write_count, 128 + wc);
            assert_eq!(place.read_count, 128 + wc + 8);
            let place = layout.channel(Direction::SlaveToMaster);
            assert_eq!(place.sequence, s2m);
            assert_eq!(place.native_voids + 40, s2m + wc + 64);
        }
    }

    #[test]
    fn capacities_refused() {
        assert_eq!(Layout::new(0), Err(LayoutError::ZeroCapacity));
        for capacity in [MAX_CAPACITY + 1, u64::from(u32::MAX), 1 << 32, u64::MAX] {
            let limit = MAX_CAPACITY;
            assert_eq!(
                Layout::new(capacity),
                Err(LayoutError::TooLarge { capacity, limit })
            );
        }
        Layout::new(MAX_CAPACITY).unwrap();
        assert_eq!(Layout::new(DEFAULT_CAPACITY), Ok(Layout::default()));
    }

    #[test]
    fn lengths() {
        let layout = Layout::default();
        layout.check_len(8576).unwrap();
        layout.check_len(u64::MAX).unwrap();
        let error = layout.check_len(8575).unwrap_err();
        assert_eq!(
            error,
            ImageError::TooShort {
                len: 8575,
                need: 8576
            }
        );
        assert!(matches!(
            Header::read(&[0; 127]),
            Err(ImageError::TooShort {
                len: 127,
                need: 128
            })
        ));
        assert!(ChannelHead::read(&[0; 7]).is_err());
        assert!(ChannelTail::read(&[0; 63]).is_err());
    }

    #[test]
    fn identity_of_the_object() {
        let mut header = Header::new(250, 64);
        header.check().unwrap();
        assert_eq!(header.stale_threshold.get(), 250);
        assert_eq!(header.native_capacity.get(), 64);
        header.slave_alive.set(77);
        header.check().unwrap();
        header.version.set(3);
        assert_eq!(header.check(), Err(ImageError::Version { found: 3 }));
        header.magic.set(0);
        assert_eq!(header.check(), Err(ImageError::Magic { found: 0 }));
    }

    #[test]
    fn directions() {
        for direction in Direction::ALL {
            assert_eq!(direction.reverse().reverse(), direction);
            assert_ne!(direction.reverse(), direction);
        }
    }
}
