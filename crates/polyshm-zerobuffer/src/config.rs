//! What a buffer and its two sides are made with.

use polyshm_platform::{Mode, WaitStrategy};
use polyshm_wire::zerobuffer::{DEFAULT_METADATA_SIZE, DEFAULT_PAYLOAD_SIZE};
use std::time::Duration;

/// How a reader creates its buffer.
///
/// Sizes are in bytes and are rounded up to multiples of 64. The defaults are
/// those of every ZeroBuffer implementation: 1024 bytes of metadata, a ring of
/// 1 MiB (format, section 2).
///
/// ```
/// use polyshm_zerobuffer::{BufferConfig, WaitStrategy};
///
/// let config = BufferConfig::new(4096, 64 << 20).wait_strategy(WaitStrategy::Spin);
/// assert_eq!(config.payload_size, 64 << 20);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct BufferConfig {
    /// Bytes of the metadata block; 0 for none. Metadata may be 8 bytes shorter.
    pub metadata_size: u64,
    /// Bytes of the ring. The longest frame is 16 bytes shorter.
    pub payload_size: u64,
    /// Permission bits of the objects, under the umask. The other
    /// implementations ask for 0666, so that is the default.
    #[cfg_attr(feature = "serde", serde(with = "mode"))]
    pub mode: Mode,
    /// How [`Reader::read`](crate::Reader::read) waits.
    #[cfg_attr(feature = "serde", serde(with = "strategy"))]
    pub wait_strategy: WaitStrategy,
    /// Whether creation also removes what dead readers of other names left.
    pub remove_stale: bool,
}

impl Default for BufferConfig {
    fn default() -> Self {
        Self {
            metadata_size: DEFAULT_METADATA_SIZE,
            payload_size: DEFAULT_PAYLOAD_SIZE,
            mode: Mode::ALL,
            wait_strategy: WaitStrategy::default(),
            remove_stale: true,
        }
    }
}

impl BufferConfig {
    /// The given sizes in bytes, and defaults.
    #[must_use]
    pub fn new(metadata_size: u64, payload_size: u64) -> Self {
        Self {
            metadata_size,
            payload_size,
            ..Self::default()
        }
    }

    /// Sets the permission bits.
    #[must_use]
    pub const fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets how the reader waits.
    #[must_use]
    pub const fn wait_strategy(mut self, strategy: WaitStrategy) -> Self {
        self.wait_strategy = strategy;
        self
    }

    /// Sets whether creation removes what dead readers of other names left.
    #[must_use]
    pub const fn remove_stale(mut self, remove: bool) -> Self {
        self.remove_stale = remove;
        self
    }
}

/// How a writer attaches.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct WriterConfig {
    /// How long [`Writer::write`](crate::Writer::write) waits for room; 5 s by
    /// default, as in every implementation.
    pub write_timeout: Duration,
    /// How it waits.
    #[cfg_attr(feature = "serde", serde(with = "strategy"))]
    pub wait_strategy: WaitStrategy,
}

impl Default for WriterConfig {
    fn default() -> Self {
        Self {
            write_timeout: Duration::from_secs(5),
            wait_strategy: WaitStrategy::default(),
        }
    }
}

impl WriterConfig {
    /// Sets how long a write waits for room.
    #[must_use]
    pub const fn write_timeout(mut self, timeout: Duration) -> Self {
        self.write_timeout = timeout;
        self
    }

    /// Sets how the writer waits.
    #[must_use]
    pub const fn wait_strategy(mut self, strategy: WaitStrategy) -> Self {
        self.wait_strategy = strategy;
        self
    }
}

#[cfg(feature = "serde")]
mod mode {
    use polyshm_platform::Mode;
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(mode: &Mode, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u32(mode.bits())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Mode, D::Error> {
        u32::deserialize(from).map(Mode::new)
    }
}

#[cfg(feature = "serde")]
mod strategy {
    use polyshm_platform::WaitStrategy;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// The strategy's name on paper; the platform crate knows no serde.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Name {
        Spin,
        Adaptive,
        Block,
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(of: &WaitStrategy, to: S) -> Result<S::Ok, S::Error> {
        let name = match of {
            WaitStrategy::Spin => Name::Spin,
            WaitStrategy::Adaptive => Name::Adaptive,
            WaitStrategy::Block => Name::Block,
        };
        name.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<WaitStrategy, D::Error> {
        Ok(match Name::deserialize(from)? {
            Name::Spin => WaitStrategy::Spin,
            Name::Adaptive => WaitStrategy::Adaptive,
            Name::Block => WaitStrategy::Block,
        })
    }
}
