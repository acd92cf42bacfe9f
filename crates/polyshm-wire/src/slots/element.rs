//! Numbers in arrays as Rust types.

use zerocopy::IntoBytes as _;

use super::Dtype;

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that an array's elements can have.
///
/// Arrays hold numbers in the host's order of bytes, and only little-endian
/// hosts can exchange them (section 2.1), so this trait is there on those only.
///
/// ```
/// use polyshm_wire::slots::Element;
///
/// let field = i16::as_bytes(&[1, -1]).to_vec();
/// assert_eq!(field, [1, 0, 255, 255]);
/// let mut elements = [0_i16; 2];
/// i16::copy_from_bytes(&mut elements, &mut |at, into| {
///     into.copy_from_slice(&field[at..][..into.len()]);
/// });
/// assert_eq!(elements, [1, -1]);
/// ```
pub trait Element: sealed::Sealed + Copy + Default + 'static {
    /// The element type in the segment.
    const DTYPE: Dtype;

    /// The elements' bytes as they stand in a field.
    fn as_bytes(slice: &[Self]) -> &[u8];

    /// Fills `to` with what `from` copies out of a field: it is given an offset
    /// in the field's bytes, and the bytes to fill from there.
    ///
    /// Numbers are filled in one call; truth values in parts, since any byte but
    /// 0 is true.
    fn copy_from_bytes(to: &mut [Self], from: &mut dyn FnMut(usize, &mut [u8]));
}

macro_rules! numbers {
    ($($type:ty: $dtype:ident),* $(,)?) => {$(
        impl sealed::Sealed for $type {}

        impl Element for $type {
            const DTYPE: Dtype = Dtype::$dtype;

            fn as_bytes(slice: &[Self]) -> &[u8] {
                zerocopy::IntoBytes::as_bytes(slice)
            }

            fn copy_from_bytes(to: &mut [Self], from: &mut dyn FnMut(usize, &mut [u8])) {
                from(0, to.as_mut_bytes());
            }
        }
    )*};
}

numbers! {
    f32: Float32,
    f64: Float64,
    i8: Int8,
    i16: Int16,
    i32: Int32,
    i64: Int64,
    u8: Uint8,
    u16: Uint16,
    u32: Uint32,
    u64: Uint64,
}

impl sealed::Sealed for bool {}

impl Element for bool {
    const DTYPE: Dtype = Dtype::Bool;

    fn as_bytes(slice: &[Self]) -> &[u8] {
        zerocopy::IntoBytes::as_bytes(slice)
    }

    fn copy_from_bytes(to: &mut [Self], from: &mut dyn FnMut(usize, &mut [u8])) {
        const PART: usize = 256;
        let mut buffer = [0; PART];
        for (part, to) in to.chunks_mut(PART).enumerate() {
            let bytes = &mut buffer[..to.len()];
            from(part * PART, bytes);
            for (to, byte) in to.iter_mut().zip(bytes) {
                *to = *byte != 0;
            }
        }
    }
}
