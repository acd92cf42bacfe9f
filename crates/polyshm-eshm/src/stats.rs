//! Numbers of both sides.

use crate::attachment::Attachment;

/// What the object says of both sides, each value as it is there at the moment.
///
/// The names are those of the reference (format, section 7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[doc(alias = "ESHMStats")]
pub struct Stats {
    /// The master's heartbeats, about one per millisecond.
    pub master_heartbeat: u64,
    /// The slave's heartbeats.
    pub slave_heartbeat: u64,
    /// The process that was the last master.
    pub master_pid: i32,
    /// The process that was the last slave; 0 when there was none.
    pub slave_pid: i32,
    /// Whether a master is attached, or died attached.
    pub master_alive: bool,
    /// Whether a slave is attached, or died attached.
    pub slave_alive: bool,
    /// The creator's stale threshold in milliseconds.
    pub stale_threshold: u32,
    /// The master's heartbeats since this endpoint's statistics before.
    pub master_heartbeat_delta: u64,
    /// The slave's heartbeats since this endpoint's statistics before.
    pub slave_heartbeat_delta: u64,
    /// Messages written by masters.
    pub m2s_write_count: u64,
    /// Messages read by slaves.
    pub m2s_read_count: u64,
    /// Messages written by slaves.
    pub s2m_write_count: u64,
    /// Messages read by masters.
    pub s2m_read_count: u64,
}

impl Stats {
    /// `told` are the heartbeats at the statistics before.
    pub(crate) fn of(attachment: &Attachment, told: (u64, u64)) -> Self {
        let header = attachment.snapshot();
        let [m2s, s2m] = attachment.counts();
        let (master, slave) = (header.master_heartbeat.get(), header.slave_heartbeat.get());
        Self {
            master_heartbeat: master,
            slave_heartbeat: slave,
            master_pid: header.master_pid.get(),
            slave_pid: header.slave_pid.get(),
            master_alive: header.master_alive.get() != 0,
            slave_alive: header.slave_alive.get() != 0,
            stale_threshold: header.stale_threshold.get(),
            master_heartbeat_delta: master.wrapping_sub(told.0),
            slave_heartbeat_delta: slave.wrapping_sub(told.1),
            m2s_write_count: m2s.0,
            m2s_read_count: m2s.1,
            s2m_write_count: s2m.0,
            s2m_read_count: s2m.1,
        }
    }
}
