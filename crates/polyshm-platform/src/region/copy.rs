//! Copies that tolerate a peer's concurrent stores.
//!
//! A racing access through ordinary Rust loads and stores would be undefined
//! behaviour. These go through machine code that the compiler cannot see into:
//! one instruction each for 1, 2, 4 and 8 bytes, a few for up to 64 into shared
//! memory, and the C library's `memmove`, reached by a pointer the compiler must
//! assume unknown, for what is longer. A torn value is possible (not of an aligned
//! 1, 2, 4 or 8 bytes); what the bytes mean is for the caller to check.

use std::ffi::c_void;

type Memmove = unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> *mut c_void;

unsafe extern "C" {
    fn memmove(dst: *mut c_void, src: *const c_void, len: usize) -> *mut c_void;
}

static MEMMOVE: Memmove = memmove;

/// Copies `len` bytes by the C library.
///
/// # Safety
///
/// `src` is readable and `dst` writable for `len` bytes for the whole call.
/// One of the two may be shared with other processes; the other is not.
#[inline]
unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) {
    // SAFETY: MEMMOVE is a static that is always initialised. The volatile
    // read hides which function it is, so that the call stays opaque.
    let memmove = unsafe { std::ptr::read_volatile(&raw const MEMMOVE) };
    // SAFETY: the caller vouches for both ranges.
    unsafe { memmove(dst.cast(), src.cast(), len) };
}

/// Copies private bytes to shared ones. Where the length is a constant of the
/// caller, the short ones are one or two instructions; those of 1, 2, 4 and 8
/// bytes are one store, so aligned values of that size are never torn.
///
/// # Safety
///
/// `dst` is writable for as many bytes for the whole call, and not private.
#[inline]
pub(super) unsafe fn copy_in(dst: *mut u8, from: &[u8]) {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    // SAFETY: each arm stores the bytes that the caller vouches for, in pieces
    // that lie within them.
    unsafe {
        if let 17..=64 = from.len() {
            let (src, len) = (from.as_ptr(), from.len());
            // From both ends; in the middle they may overlap.
            piece::store16(dst, piece::private16(src));
            if len > 32 {
                piece::store16(dst.add(16), piece::private16(src.add(16)));
                piece::store16(dst.add(len - 32), piece::private16(src.add(len - 32)));
            }
            piece::store16(dst.add(len - 16), piece::private16(src.add(len - 16)));
            return;
        }
        match *from {
            [a] => return piece::store1(dst, a),
            [a, b] => return piece::store2(dst, u16::from_ne_bytes([a, b])),
            [a, b, c, d] => return piece::store4(dst, u32::from_ne_bytes([a, b, c, d])),
            _ => {}
        }
        if let Some((first, rest)) = from.split_first_chunk::<8>() {
            match *rest {
                [] => return piece::store8(dst, u64::from_ne_bytes(*first)),
                [a, b, c, d] => {
                    piece::store8(dst, u64::from_ne_bytes(*first));
                    return piece::store4(dst.add(8), u32::from_ne_bytes([a, b, c, d]));
                }
                _ => {}
            }
            if let Ok(second) = <&[u8; 8]>::try_from(rest) {
                piece::store8(dst, u64::from_ne_bytes(*first));
                return piece::store8(dst.add(8), u64::from_ne_bytes(*second));
            }
        }
    }
    // SAFETY: the caller vouches for `dst`; `from` is private.
    unsafe { copy(dst, from.as_ptr(), from.len()) };
}

/// Copies shared bytes to private ones; see [`copy_in`]. Those of 17 to 64 bytes
/// go through the C library here: whoever loads them next in other widths would
/// wait for pieces of 16.
///
/// # Safety
///
/// `src` is readable for as many bytes for the whole call, and not private.
#[inline]
pub(super) unsafe fn copy_out(into: &mut [u8], src: *const u8) {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    // SAFETY: each arm loads the bytes that the caller vouches for, in pieces
    // that lie within them.
    unsafe {
        match into.len() {
            1 => return into.copy_from_slice(&piece::load1(src).to_ne_bytes()),
            2 => return into.copy_from_slice(&piece::load2(src).to_ne_bytes()),
            4 => return into.copy_from_slice(&piece::load4(src).to_ne_bytes()),
            8 => return into.copy_from_slice(&piece::load8(src).to_ne_bytes()),
            12 => {
                into[..8].copy_from_slice(&piece::load8(src).to_ne_bytes());
                return into[8..].copy_from_slice(&piece::load4(src.add(8)).to_ne_bytes());
            }
            16 => {
                into[..8].copy_from_slice(&piece::load8(src).to_ne_bytes());
                return into[8..].copy_from_slice(&piece::load8(src.add(8)).to_ne_bytes());
            }
            _ => {}
        }
    }
    // SAFETY: the caller vouches for `src`; `into` is private.
    unsafe { copy(into.as_mut_ptr(), src, into.len()) };
}

/// Loads and stores of one piece, one instruction each, at any alignment.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod piece {
    macro_rules! piece {
        ($load:ident, $store:ident, $int:ty, $class:ident, $x86:literal, $ldr:literal, $str:literal) => {
            /// # Safety
            ///
            /// `src` is readable for the size of the piece.
            #[inline]
            pub(super) unsafe fn $load(src: *const u8) -> $int {
                let value: $int;
                #[cfg(target_arch = "x86_64")]
                // SAFETY: one load of bytes that the caller vouches for; any
                // alignment is allowed. Not `pure`: they may change.
                unsafe {
                    std::arch::asm!(concat!("mov {value", $x86, "}, [{src}]"),
                        src = in(reg) src, value = out($class) value,
                        options(nostack, preserves_flags, readonly));
                }
                #[cfg(target_arch = "aarch64")]
                // SAFETY: as above; normal memory allows any alignment.
                unsafe {
                    std::arch::asm!($ldr, src = in(reg) src, value = out(reg) value,
                        options(nostack, preserves_flags, readonly));
                }
                value
            }

            /// # Safety
            ///
            /// `dst` is writable for the size of the piece.
            #[inline]
            pub(super) unsafe fn $store(dst: *mut u8, value: $int) {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: one store of bytes that the caller vouches for; any
                // alignment is allowed.
                unsafe {
                    std::arch::asm!(concat!("mov [{dst}], {value", $x86, "}"),
                        dst = in(reg) dst, value = in($class) value,
                        options(nostack, preserves_flags));
                }
                #[cfg(target_arch = "aarch64")]
                // SAFETY: as above; normal memory allows any alignment.
                unsafe {
                    std::arch::asm!($str, dst = in(reg) dst, value = in(reg) value,
                        options(nostack, preserves_flags));
                }
            }
        };
    }

    piece!(
        load1,
        store1,
        u8,
        reg_byte,
        "",
        "ldrb {value:w}, [{src}]",
        "strb {value:w}, [{dst}]"
    );
    piece!(
        load2,
        store2,
        u16,
        reg,
        ":x",
        "ldrh {value:w}, [{src}]",
        "strh {value:w}, [{dst}]"
    );
    piece!(
        load4,
        store4,
        u32,
        reg,
        ":e",
        "ldr {value:w}, [{src}]",
        "str {value:w}, [{dst}]"
    );
    piece!(
        load8,
        store8,
        u64,
        reg,
        ":r",
        "ldr {value:x}, [{src}]",
        "str {value:x}, [{dst}]"
    );

    #[cfg(target_arch = "aarch64")]
    use std::arch::aarch64::uint8x16_t as Sixteen;
    #[cfg(target_arch = "x86_64")]
    use std::arch::x86_64::__m128i as Sixteen;

    /// # Safety
    ///
    /// `dst` is writable for 16 bytes.
    #[inline]
    pub(super) unsafe fn store16(dst: *mut u8, value: Sixteen) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a store of bytes that the caller vouches for; any alignment is
        // allowed.
        unsafe {
            std::arch::asm!("movups [{dst}], {value}",
                dst = in(reg) dst, value = in(xmm_reg) value,
                options(nostack, preserves_flags));
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above; normal memory allows any alignment.
        unsafe {
            std::arch::asm!("str {value:q}, [{dst}]",
                dst = in(reg) dst, value = in(vreg) value,
                options(nostack, preserves_flags));
        }
    }

    /// # Safety
    ///
    /// `src` is readable for 16 bytes, which are private.
    #[inline]
    pub(super) unsafe fn private16(src: *const u8) -> Sixteen {
        // SAFETY: the caller vouches for the bytes; any bits are a value.
        unsafe { src.cast::<Sixteen>().read_unaligned() }
    }
}

/// Loads eight bytes, at any alignment, little-endian.
///
/// # Safety
///
/// `src` is readable for eight bytes.
#[inline]
pub(super) unsafe fn load_u64(src: *const u8) -> u64 {
    let mut bytes = [0; 8];
    // SAFETY: the caller vouches for `src`.
    unsafe { copy_out(&mut bytes, src) };
    u64::from_le_bytes(bytes)
}

/// Stores eight bytes, at any alignment, little-endian.
///
/// # Safety
///
/// `dst` is writable for eight bytes.
#[inline]
pub(super) unsafe fn store_u64(dst: *mut u8, value: u64) {
    // SAFETY: the caller vouches for `dst`.
    unsafe { copy_in(dst, &value.to_le_bytes()) };
}

/// Asks the cache for the line at `at`, to read it.
#[inline]
pub(super) fn prefetch_read(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint; it never faults, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Asks the cache for the line at `at`, to write it.
#[inline]
pub(super) fn prefetch_write(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as for `prefetch_read`. `prefetchw` is a no-op where the
    // processor lacks it; all x86-64 processors decode it.
    unsafe {
        std::arch::asm!("prefetchw [{at}]", at = in(reg) at,
            options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
