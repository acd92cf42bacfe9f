//! Copies that tolerate a peer's concurrent stores.
//!
//! A racing access through ordinary Rust loads and stores would be undefined
//! behaviour. These go through machine code that the compiler cannot see into:
//! one instruction each for 1, 2, 4 and 8 bytes, and the C library's `memmove`,
//! reached by a pointer the compiler must assume unknown, for what is longer. A
//! torn value is possible (not of an aligned 1, 2, 4 or 8 bytes); what the bytes
//! mean is for the caller to check.

use std::ffi::c_void;

type Memmove = unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> *mut c_void;

unsafe extern "C" {
    fn memmove(dst: *mut c_void, src: *const c_void, len: usize) -> *mut c_void;
}

static MEMMOVE: Memmove = memmove;

/// Copies `len` bytes. Where `len` is a constant of the caller, the short
/// lengths are one or two instructions; those of 1, 2, 4 and 8 bytes are one
/// load and one store, so aligned values of that size are never torn.
///
/// # Safety
///
/// `src` is readable and `dst` writable for `len` bytes for the whole call.
/// One of the two may be shared with other processes; the other is not.
#[inline]
pub(super) unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    // SAFETY: each arm copies the `len` bytes that the caller vouches for, in
    // pieces that lie within them.
    unsafe {
        match len {
            1 => return piece::copy1(dst, src),
            2 => return piece::copy2(dst, src),
            4 => return piece::copy4(dst, src),
            8 => return piece::copy8(dst, src),
            12 => {
                piece::copy8(dst, src);
                return piece::copy4(dst.add(8), src.add(8));
            }
            16 => {
                piece::copy8(dst, src);
                return piece::copy8(dst.add(8), src.add(8));
            }
            _ => {}
        }
    }
    // SAFETY: MEMMOVE is a static that is always initialised. The volatile
    // read hides which function it is, so that the call stays opaque.
    let memmove = unsafe { std::ptr::read_volatile(&raw const MEMMOVE) };
    // SAFETY: the caller vouches for both ranges.
    unsafe { memmove(dst.cast(), src.cast(), len) };
}

/// Copies of one piece: one load and one store.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod piece {
    macro_rules! piece {
        ($name:ident, $int:ty, $class:ident, $x86:literal, $load:literal, $store:literal) => {
            /// # Safety
            ///
            /// Both are valid for the size of the piece; any alignment.
            #[inline]
            pub(super) unsafe fn $name(dst: *mut u8, src: *const u8) {
                let value: $int;
                #[cfg(target_arch = "x86_64")]
                // SAFETY: one load of bytes that the caller vouches for; any
                // alignment is allowed. Not `pure`: they may change.
                unsafe {
                    std::arch::asm!(concat!("mov {value", $x86, "}, [{src}]"),
                        src = in(reg) src, value = out($class) value,
                        options(nostack, preserves_flags, readonly));
                }
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above, one store.
                unsafe {
                    std::arch::asm!(concat!("mov [{dst}], {value", $x86, "}"),
                        dst = in(reg) dst, value = in($class) value,
                        options(nostack, preserves_flags));
                }
                #[cfg(target_arch = "aarch64")]
                // SAFETY: as above; normal memory allows any alignment.
                unsafe {
                    std::arch::asm!($load, src = in(reg) src, value = out(reg) value,
                        options(nostack, preserves_flags, readonly));
                    std::arch::asm!($store, dst = in(reg) dst, value = in(reg) value,
                        options(nostack, preserves_flags));
                }
            }
        };
    }

    piece!(
        copy1,
        u8,
        reg_byte,
        "",
        "ldrb {value:w}, [{src}]",
        "strb {value:w}, [{dst}]"
    );
    piece!(
        copy2,
        u16,
        reg,
        ":x",
        "ldrh {value:w}, [{src}]",
        "strh {value:w}, [{dst}]"
    );
    piece!(
        copy4,
        u32,
        reg,
        ":e",
        "ldr {value:w}, [{src}]",
        "str {value:w}, [{dst}]"
    );
    piece!(
        copy8,
        u64,
        reg,
        ":r",
        "ldr {value:x}, [{src}]",
        "str {value:x}, [{dst}]"
    );
}

/// Loads eight bytes, at any alignment, little-endian.
///
/// # Safety
///
/// `src` is readable for eight bytes.
#[inline]
pub(super) unsafe fn load_u64(src: *const u8) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        let value: u64;
        // SAFETY: one load of eight bytes that the caller vouches for; x86-64
        // allows any alignment. Not `pure`: the bytes may change between calls.
        unsafe {
            std::arch::asm!("mov {value}, [{src}]", src = in(reg) src, value = out(reg) value,
                options(nostack, preserves_flags, readonly));
        }
        value
    }
    #[cfg(target_arch = "aarch64")]
    {
        let value: u64;
        // SAFETY: as above; normal memory on AArch64 allows any alignment.
        unsafe {
            std::arch::asm!("ldr {value}, [{src}]", src = in(reg) src, value = out(reg) value,
                options(nostack, preserves_flags, readonly));
        }
        value
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let mut bytes = [0; 8];
        // SAFETY: the caller vouches for `src`; `bytes` is local.
        unsafe { copy(bytes.as_mut_ptr(), src, 8) };
        u64::from_le_bytes(bytes)
    }
}

/// Stores eight bytes, at any alignment, little-endian.
///
/// # Safety
///
/// `dst` is writable for eight bytes.
#[inline]
pub(super) unsafe fn store_u64(dst: *mut u8, value: u64) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: one store of eight bytes that the caller vouches for; x86-64
    // allows any alignment.
    unsafe {
        std::arch::asm!("mov [{dst}], {value}", dst = in(reg) dst, value = in(reg) value,
            options(nostack, preserves_flags));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above; normal memory on AArch64 allows any alignment.
    unsafe {
        std::arch::asm!("str {value}, [{dst}]", dst = in(reg) dst, value = in(reg) value,
            options(nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let bytes = value.to_le_bytes();
        // SAFETY: the caller vouches for `dst`; `bytes` is local.
        unsafe { copy(dst, bytes.as_ptr(), 8) };
    }
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
