#![cfg_attr(
    all(feature = "zerobuffer", feature = "zeroipc"),
    doc = include_str!("../README.md")
)]
#![cfg_attr(
    not(all(feature = "zerobuffer", feature = "zeroipc")),
    doc = "The facade of polyshm, built without all of its protocols: see the features \
           `zerobuffer` and `zeroipc`."
)]
#![forbid(unsafe_code)]

/// What the protocols stand on: names, mappings, semaphores, processes, waiting.
///
/// A program needs it only to build a protocol of its own, or for
/// [`Mode`](platform::Mode) and [`Deadline`](platform::Deadline).
pub use polyshm_platform as platform;

/// The bytes of the formats: layouts, checks, names, and the inspection of
/// images. No I/O.
pub use polyshm_wire as wire;

/// A one-writer one-reader ring of frames, read in place; its other speakers
/// are C++, C# and Python.
#[cfg(feature = "zerobuffer")]
pub use polyshm_zerobuffer as zerobuffer;

/// Named arrays, queues, maps, locks, channels and more in one segment; their
/// other speakers are C++, C, Go and Python.
#[cfg(feature = "zeroipc")]
pub use polyshm_zeroipc as zeroipc;

/// What most programs import, of all protocols that are enabled.
///
#[cfg_attr(
    feature = "zerobuffer",
    doc = "```
use polyshm::prelude::*;
use std::time::Duration;

let config = BufferConfig::new(1024, 64 << 20).wait_strategy(WaitStrategy::Block);
assert_eq!(config.payload_size, 64 << 20);
assert!(!Deadline::after(Duration::from_secs(60)).expired());
```

"
)]
#[cfg_attr(
    feature = "zeroipc",
    doc = "ZeroIPC's names that mean something else in nearly every program are not here, since a
glob would silently shadow it (`Future` is in the prelude of the language) or be
ambiguous. Import or qualify them:
[`Mutex`](zeroipc::Mutex), [`RwLock`](zeroipc::RwLock), [`Once`](zeroipc::Once),
[`Barrier`](zeroipc::Barrier), [`Future`](zeroipc::Future), [`Error`](zeroipc::Error),
[`Value`](zeroipc::Value) and [`OpenOptions`](zeroipc::OpenOptions).

```
use polyshm::{prelude::*, zeroipc};
use std::sync::Mutex;

# #[cfg(target_os = \"linux\")]
fn lock_between_processes(memory: &Memory) -> Result<zeroipc::Mutex, zeroipc::Error> {
    zeroipc::Mutex::open_or_create(memory, \"lock\")
}

let lock_between_threads = Mutex::new(MemoryOptions::new(10 << 20));
# assert_eq!(lock_between_threads.lock().unwrap().max_entries, 64);
```
"
)]
#[cfg(any(feature = "zerobuffer", feature = "zeroipc"))]
pub mod prelude {
    pub use polyshm_platform::{Deadline, WaitStrategy};
    #[cfg(feature = "zerobuffer")]
    pub use polyshm_zerobuffer::{
        AttachError, BufferConfig, CreateError, Frame, FrameMut, MetadataError, ReadError, Reader,
        SyncReader, WriteError, Writer, WriterConfig,
    };
    #[cfg(feature = "zeroipc")]
    pub use polyshm_zeroipc::{
        Array, Channel, DType, DynArray, DynError, DynMap, DynQueue, DynRing, DynStack, Element,
        Event, EventMode, Full, Key, Latch, Lazy, LazyBool, Map, Memory, MemoryOptions, Monitor,
        OpError, Pool, Queue, Refused, Ring, Semaphore, Set, Signal, Stack, Stream, VoidStream,
    };
}
