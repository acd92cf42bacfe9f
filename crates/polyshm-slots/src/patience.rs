//! Timeouts of reads whose looks take long.

use polyshm_platform::Deadline;
use polyshm_wire::slots::Layout;
use std::time::Duration;

/// Bytes of a record whose copy takes longer than a look at the clock.
const LONG: usize = 4096;

/// Watches the clock of a read that copies large records in vain: the waiter
/// looks at it only after many looks.
#[derive(Debug)]
pub(crate) struct Patience {
    timeout: Duration,
    deadline: Option<Deadline>,
}

impl Patience {
    #[inline]
    pub(crate) const fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            deadline: None,
        }
    }

    /// Whether nothing is to be waited for.
    pub(crate) const fn is_none(&self) -> bool {
        self.timeout.is_zero()
    }

    /// A record was copied in vain.
    #[inline]
    pub(crate) fn waste(&mut self, layout: &Layout) {
        if layout.slot_size() > LONG {
            let timeout = self.timeout;
            self.deadline
                .get_or_insert_with(|| Deadline::after(timeout));
        }
    }

    /// Whether there was waste, and the time is over.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.deadline.as_ref().is_some_and(Deadline::expired)
    }
}
