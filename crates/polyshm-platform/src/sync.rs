//! The atomics under everything shared: the standard ones, or loom's in a model.

#[cfg(loom)]
pub use loom::{
    sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence},
    thread::yield_now,
};
#[cfg(not(loom))]
pub use std::{
    sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence},
    thread::yield_now,
};

/// One step of a spin: lets a sibling hardware thread run.
///
/// In a model this gives the turn to another thread, so that a spin ends.
#[inline]
pub fn spin_loop() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(not(loom))]
    std::hint::spin_loop();
}

/// A sequentially consistent fence right after an atomic update of shared memory.
///
/// On x86-64 the update itself is a full barrier (a locked instruction), and a
/// second one would only wait for stores that nobody waits for.
#[inline]
pub fn fence_after_update() {
    #[cfg(all(target_arch = "x86_64", not(loom)))]
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
    #[cfg(not(all(target_arch = "x86_64", not(loom))))]
    fence(Ordering::SeqCst);
}
