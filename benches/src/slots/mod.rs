//! Slots: records of four floats and of an image, against bare loads and stores
//! of the same bytes.

pub mod bare;
pub mod calls;
pub mod fifo;
pub mod image;
pub mod latency;
pub mod record;

use polyshm_slots::Record;
use std::time::Duration;

/// The smallest record of interest: four floats, in one cache line with all that
/// the format keeps beside them.
#[derive(Clone, Copy, Debug, Record)]
pub struct Floats {
    a: f64,
    b: f64,
    c: f64,
    d: f64,
}

/// The bits of four floats.
type Bits = [u64; 4];

impl Floats {
    #[inline]
    fn of(bits: Bits) -> Self {
        let [a, b, c, d] = bits.map(f64::from_bits);
        Self { a, b, c, d }
    }
}

impl FloatsFields {
    #[inline]
    fn bits(&self) -> Bits {
        [*self.a, *self.b, *self.c, *self.d].map(f64::to_bits)
    }
}

/// What record `number` holds: four different values, the first one telling the
/// number.
#[inline]
const fn bits_of(number: u64) -> Bits {
    [number, !number, number ^ 0x5A5A, number.rotate_left(32)]
}

/// Whether these are record `number`'s. Value by value: what was just loaded in
/// such pieces is not at hand in larger ones.
#[inline]
const fn are_of(bits: Bits, number: u64) -> bool {
    let due = bits_of(number);
    (bits[0] ^ due[0]) | (bits[1] ^ due[1]) | (bits[2] ^ due[2]) | (bits[3] ^ due[3]) == 0
}

/// A wait for a record that ends so has failed.
const PATIENCE: Duration = Duration::from_mins(1);
