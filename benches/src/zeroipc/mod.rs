//! ZeroIPC's structures against the same thing between threads, and against the
//! bare instructions or system calls that each of them stands on.

pub mod calls;
pub mod streams;
pub mod wake;
