//! Counters and the buffer's state.

use crate::shared::Shared;
use polyshm_platform::sync::Ordering;

/// What a reader has received since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ReaderStats {
    /// Frames read; wrap markers do not count.
    pub frames: u64,
    /// Bytes of their data, without headers.
    pub bytes: u64,
}

/// What a writer has sent since it attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct WriterStats {
    /// Frames committed; wrap markers do not count.
    pub frames: u64,
    /// Bytes of their data, without headers.
    pub bytes: u64,
    /// Times the ring was wrapped with a marker.
    pub wraps: u64,
    /// Times an empty ring was rewound to make a large frame fit.
    pub rewinds: u64,
}

/// How full a buffer is, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum BufferHealth {
    /// Less than 80 % in use.
    Healthy,
    /// From 80 % to 95 % in use: the reader falls behind.
    Degraded,
    /// More than 95 % in use: the writer is about to wait.
    Critical,
}

/// A buffer's state at one moment, each value loaded once. Values may be of
/// slightly different moments, and a damaged buffer may hold any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct BufferStatus {
    /// Bytes of the metadata block.
    pub metadata_size: u64,
    /// Bytes of it in use, with the 8-byte length.
    pub metadata_written: u64,
    /// Bytes of the ring.
    pub payload_size: u64,
    /// Bytes of the ring that the writer may use.
    pub payload_free: u64,
    /// Where the next frame goes.
    pub write_pos: u64,
    /// Where the next frame is read.
    pub read_pos: u64,
    /// Frames and wraps, as the writers counted them.
    pub written_count: u64,
    /// Frames and wraps, as the reader counted them.
    pub read_count: u64,
    /// The attached writer; 0 for none.
    pub writer_pid: u64,
    /// The reader; 0 once it has closed.
    pub reader_pid: u64,
    /// Frames waiting for the reader: the tokens of the data-ready semaphore,
    /// where the system can count them.
    pub pending: Option<u32>,
}

impl BufferStatus {
    pub(crate) fn of(shared: &Shared) -> Self {
        // Relaxed: a look from outside; nothing is derived from one about another.
        let order = Ordering::Relaxed;
        Self {
            metadata_size: shared.layout.metadata_size(),
            metadata_written: shared.metadata_written.load(order),
            payload_size: shared.layout.payload_size(),
            payload_free: shared.free.load(order),
            write_pos: shared.write_pos.load(order),
            read_pos: shared.read_pos.load(order),
            written_count: shared.written_count.load(order),
            read_count: shared.read_count.load(order),
            writer_pid: shared.writer_pid.load(order),
            reader_pid: shared.reader_pid.load(order),
            pending: shared.data_ready.value(),
        }
    }

    /// The part of the ring in use, 0.0 to 1.0 (format, section 14).
    #[must_use]
    pub fn utilisation(&self) -> f64 {
        if self.payload_size == 0 {
            return 0.0;
        }
        self.payload_size.saturating_sub(self.payload_free) as f64 / self.payload_size as f64
    }

    /// The same in words.
    #[must_use]
    pub fn health(&self) -> BufferHealth {
        match self.utilisation() {
            part if part < 0.80 => BufferHealth::Healthy,
            part if part <= 0.95 => BufferHealth::Degraded,
            _ => BufferHealth::Critical,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_free(payload_free: u64) -> BufferStatus {
        BufferStatus {
            metadata_size: 0,
            metadata_written: 0,
            payload_size: 1000,
            payload_free,
            write_pos: 0,
            read_pos: 0,
            written_count: 0,
            read_count: 0,
            writer_pid: 0,
            reader_pid: 0,
            pending: Some(0),
        }
    }

    #[test]
    fn health_changes_at_80_and_above_95_percent() {
        assert_eq!(with_free(1000).health(), BufferHealth::Healthy);
        assert_eq!(with_free(201).health(), BufferHealth::Healthy);
        assert_eq!(with_free(200).health(), BufferHealth::Degraded);
        assert_eq!(with_free(50).health(), BufferHealth::Degraded);
        assert_eq!(with_free(49).health(), BufferHealth::Critical);
        // A damaged credit is no panic.
        assert_eq!(with_free(u64::MAX).health(), BufferHealth::Healthy);
    }
}
