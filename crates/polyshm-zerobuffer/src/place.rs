//! Where in the ring a frame goes: arithmetic only.

use polyshm_wire::zerobuffer::FRAME_HEADER_SIZE;

/// A frame's place in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where its header goes; in 0..size.
    pub(crate) at: u64,
    /// Bytes of credit it takes: header, data, and the tail when wrapping.
    pub(crate) cost: u64,
    /// The write position after it; in 0..size.
    pub(crate) end: u64,
    /// Where a wrap marker goes.
    pub(crate) marker: Option<u64>,
    /// Whether both positions go back to 0 first, which takes an empty ring.
    pub(crate) rewind: bool,
}

/// Places a frame of `total` bytes (header included) at `write_pos`.
///
/// A tail too short for a marker is never left behind a frame that does not
/// start at 0 (format, section 8.4). What cannot be placed behind the last
/// frame is placed at 0 of an empty ring (section 8.5), so every `total <= size`
/// has a place.
pub(crate) fn place(size: u64, write_pos: u64, total: u64) -> Place {
    debug_assert!(write_pos < size && FRAME_HEADER_SIZE < total && total <= size);
    let tail = size - write_pos;
    let straight = total <= tail && {
        let left = tail - total;
        left == 0 || left >= FRAME_HEADER_SIZE || write_pos == 0
    };
    if straight {
        let end = write_pos + total;
        let end = if end == size { 0 } else { end };
        return Place {
            at: write_pos,
            cost: total,
            end,
            marker: None,
            rewind: false,
        };
    }
    if tail >= FRAME_HEADER_SIZE && total <= size - tail {
        // A frame at 0 that fits before the old write position leaves a whole
        // header's room there: total <= write_pos = size - tail.
        let end = if total == size { 0 } else { total };
        return Place {
            at: 0,
            cost: tail + total,
            end,
            marker: Some(write_pos),
            rewind: false,
        };
    }
    let end = if total == size { 0 } else { total };
    Place {
        at: 0,
        cost: total,
        end,
        marker: None,
        rewind: true,
    }
}

/// Bytes from `from` forward to `to` around a ring of `size`; both in 0..size.
pub(crate) const fn distance(size: u64, from: u64, to: u64) -> u64 {
    if to >= from {
        to - from
    } else {
        size - from + to
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_frame_lies_inside_and_no_short_tail_is_left(
            blocks in 1u64..64, at in any::<prop::sample::Index>(), len in any::<prop::sample::Index>(),
        ) {
            let size = blocks * 64;
            let write_pos = at.index(size as usize) as u64;
            let total = 17 + len.index((size - 16) as usize) as u64;
            let place = place(size, write_pos, total);
            prop_assert!(place.at + total <= size);
            prop_assert!(place.cost <= size, "every frame that fits the ring fits an empty one");
            prop_assert_eq!(place.end, (place.at + total) % size);
            if place.at != 0 {
                let left = (size - place.end) % size;
                prop_assert!(left == 0 || left >= 16, "tail of {left}");
            }
            if let Some(marker) = place.marker {
                prop_assert!(marker + 16 <= size);
                prop_assert_eq!(place.cost, size - marker + total);
            } else {
                prop_assert_eq!(place.cost, total);
            }
        }
    }

    #[test]
    fn distances_wrap() {
        assert_eq!(distance(64, 10, 20), 10);
        assert_eq!(distance(64, 60, 4), 8);
        assert_eq!(distance(64, 7, 7), 0);
    }

    #[test]
    fn an_exact_fit_ends_at_zero() {
        let fit = place(256, 100, 156);
        assert_eq!((fit.at, fit.end, fit.cost), (100, 0, 156));
    }

    #[test]
    fn a_tail_of_eight_becomes_an_early_wrap() {
        let early = place(4096, 2048, 2040);
        assert_eq!((early.marker, early.at, early.cost), (Some(2048), 0, 4088));
    }

    #[test]
    fn a_frame_over_half_the_ring_waits_for_an_empty_one() {
        let large = place(10240, 6160, 7184);
        assert!(large.rewind && large.cost == 7184);
    }
}
