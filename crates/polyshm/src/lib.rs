#![cfg_attr(
    all(
        feature = "derive",
        feature = "eshm",
        feature = "slots",
        feature = "zerobuffer",
        feature = "zeroipc"
    ),
    doc = include_str!("../README.md")
)]
#![cfg_attr(
    not(all(
        feature = "derive",
        feature = "eshm",
        feature = "slots",
        feature = "zerobuffer",
        feature = "zeroipc"
    )),
    doc = "The facade of polyshm, built without all of its protocols: see the features \
           `eshm`, `slots` (with `derive`), `zerobuffer` and `zeroipc`."
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

/// A two-way channel of latest messages between a master and a slave, with
/// heartbeats and reconnection; its other speakers are C++ and Python.
#[cfg(feature = "eshm")]
pub use polyshm_eshm as eshm;

/// Records of named, typed fields with a status each, the latest one or a FIFO
/// of them; their other speaker is Python.
#[cfg(feature = "slots")]
pub mod slots {
    /// A struct as a record: see
    /// [`polyshm-slots-derive`](https://docs.rs/polyshm-slots-derive).
    // Its code names this module, and it hides the one that the glob has.
    #[cfg(feature = "derive")]
    pub use polyshm_slots::FacadeRecord as Record;
    pub use polyshm_slots::*;
}

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
#[cfg_attr(
    feature = "eshm",
    doc = "Of ESHM's names those are missing that another protocol has too, or a channel of
threads: [`Event`](eshm::Event), [`Events`](eshm::Events), [`Message`](eshm::Message),
[`Sender`](eshm::Sender), [`Receiver`](eshm::Receiver), [`Stats`](eshm::Stats),
[`Connection`](eshm::Connection), [`Value`](eshm::Value), and above all
[`ReadError`](eshm::ReadError) and [`WriteError`](eshm::WriteError): without a path these are
ZeroBuffer's. `Event` is ZeroIPC's.

```
use polyshm::{eshm, prelude::*};
use std::time::Duration;

fn next(slave: &mut Endpoint) -> Result<Option<Vec<u8>>, eshm::ReadError> {
    match slave.read_timeout(Duration::from_millis(20)) {
        Ok(message) => Ok(Some(message.into_bytes())),
        Err(eshm::ReadError::Timeout { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
```

"
)]
#[cfg_attr(
    all(feature = "slots", feature = "derive"),
    doc = "Of the names of slots it has what a record and its handles need. The rest, such as
[`Options`](slots::Options), [`Value`](slots::Value), [`Status`](slots::Status),
[`Item`](slots::Item), and the errors, is what others are called too.

```
use polyshm::{prelude::*, slots};

#[derive(Record)]
struct Sensor {
    temperature: f64,
    #[record(\"str[32]\")]
    status_msg: String,
}

fn warm(store: &mut SlotStore<Sensor>) -> Result<u64, slots::WriteError> {
    store.write(Sensor::update().temperature(31.5))
}
```
"
)]
#[cfg(any(
    feature = "eshm",
    feature = "slots",
    feature = "zerobuffer",
    feature = "zeroipc"
))]
pub mod prelude {
    #[cfg(feature = "slots")]
    pub use crate::slots::{
        Dynamic, Field, OnFull, Reading, Record, Schema, SlotFifo, SlotStore, TypedRecord, Values,
    };
    #[cfg(feature = "eshm")]
    pub use polyshm_eshm::{
        DisconnectBehavior, Endpoint, EndpointBuilder, FunctionRegistry, HeartbeatError, Item,
        ItemDialect, OpenError, Remote, Role,
    };
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

/// The programs of the guides are compiled, and run where they are whole. The
/// files are links, which a package holds as copies.
#[cfg(all(
    doctest,
    feature = "derive",
    feature = "eshm",
    feature = "ndarray",
    feature = "serde",
    feature = "slots",
    feature = "testing",
    feature = "zerobuffer",
    feature = "zeroipc",
    target_os = "linux"
))]
mod guides {
    #[doc = include_str!("../guides/eshm.txt")]
    mod eshm {}

    #[doc = include_str!("../guides/slots.txt")]
    mod slots {}

    #[doc = include_str!("../guides/zerobuffer.txt")]
    mod zerobuffer {}

    #[doc = include_str!("../guides/zeroipc.txt")]
    mod zeroipc {}
}
