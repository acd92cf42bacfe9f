//! Benchmarks of polyshm against the limits that its formats leave.
//!
//! # Method
//!
//! A machine's speed changes while one measures: clocks, neighbours, page
//! placement. So nothing here is a time. Each result is a **ratio** between
//! contenders that ran in the same short *block*, one after the other, in an
//! order that differs from block to block; the result is the median of the
//! per-block ratios, shown with their quartiles and extremes. Times and rates
//! are printed beside them as information about that machine on that day.
//!
//! ## Latency ([`latency`])
//!
//! Two processes, each on a core of its own when there are two, send one
//! 64-byte frame to and fro; half a round trip is the one-way latency. A block
//! takes for each contender the median over batches of 32 round trips, so that
//! reading the clock and being preempted hardly show. p99 comes from a second
//! pass that times single round trips. Each hop adds one to a number in the
//! frame, so the last frame proves that all of them arrived, once and in order.
//!
//! All contenders run the same loop ([`port::client`], [`port::server`]): wait
//! for a frame, copy its 64 bytes out, add one, send. A frame's room has to be
//! given back at some time, and there are two orders: *reply first* sends, then
//! gives back; *release first* the other way round. Both are measured, for
//! every contender that knows the difference, on both sides of the connection.
//!
//! * `floor`: one word each way, alone on its cache line. Nothing that two
//!   cores do can be faster. Polled with or without a pause instruction,
//!   whichever is faster here.
//! * `replay`: the protocol's own limit: the loads, stores and atomic updates
//!   that a ZeroBuffer frame demands, on the same cache lines, written out
//!   straight ([`replay`]). What polyshm takes longer than this is its own. Also
//!   polled with or without a pause, whichever is faster in each order.
//! * `polyshm spin`, `polyshm adaptive`: the public API, by [`WaitStrategy`].
//! * `iceoryx2` (feature of that name): publish-subscribe with a busy receiver.
//! * `pipe`, `socket`: the kernel's own, blocking.
//!
//! ## Throughput ([`throughput`])
//!
//! One process sends frames to another. The receiver looks at the first eight
//! bytes (the frame's number) only, so what is measured is getting bytes *in*;
//! `--smoke` looks at all of them. Compared with the same work without any
//! protocol: `memcpy` copies from the same source to the same offsets of
//! private memory as large as the ring, `fill` fills there. `polyshm in place`
//! reserves and fills; `polyshm copy` writes from a buffer. A run ends when the
//! receiver has confirmed the last frame.
//!
//! ## Copies ([`copying`])
//!
//! The tear-tolerant copies through which shared bytes pass, against
//! `copy_from_slice`, in one process, between the very same addresses.
//!
//! ## ZeroIPC ([`zeroipc`])
//!
//! Its structures lie in a real segment and are used through the public API.
//!
//! * [`zeroipc::calls`]: on one thread, with nobody else. A push and a pop of the
//!   queue against crossbeam's `ArrayQueue`, a lookup in the map against
//!   `HashMap` with the same keys, both half full, a semaphore against the two
//!   atomic updates and against a `Mutex`. In a block the contenders of a group
//!   take turns 40 times; each counts with its median. The values that come out
//!   are compared with what went in.
//! * [`zeroipc::streams`]: elements of eight bytes from one process to another,
//!   and from two to two, against `rtrb` and `ArrayQueue` between as many threads
//!   on the same cores. All poll in the same loop, which yields only where cores
//!   are shared; a block takes the median of three turns each. One to one, every
//!   element must come in order; with two of each, every element comes once, and
//!   each consumer finds each producer's in order.
//! * [`zeroipc::wake`]: two processes wake each other in turns, by semaphores with
//!   `WaitStrategy::Block` and by a bare futex, on two cores and on one. The loop
//!   is that of the latencies; a number in a word beside what is woken proves
//!   order and visibility. On two cores it happens that both stay awake for a
//!   whole turn, so a block takes the median of three turns each.
//!
//! ## ESHM ([`eshm`])
//!
//! Endpoints with default settings, through the public API, but for a stale
//! threshold of 10 s: a machine that stands still for a while does not end a
//! measurement as a disconnection.
//!
//! * [`eshm::write`]: a master writes on one thread while its slave lives in
//!   another process and does not read, against the C library's copy of the same
//!   bytes to the same offset of another segment between two stores to a word
//!   before it, and against [`eshm::replay`]. The messages are the same, and their
//!   length is not known to the compiler. In the end the slave says how many
//!   messages there were, and looks at the last.
//! * [`eshm::latency`]: a message of 64 bytes to and fro, in the loop of the
//!   latencies above, against [`eshm::replay`], polled without end (with or without
//!   a pause instruction, whichever is faster here) and each 100 µs. The last
//!   message's number proves that none was lost.
//! * [`eshm::idle`]: the processor time of two connected processes that do nothing,
//!   as the system counts it, against bare threads that sleep between heartbeats.
//!   Not pinned. In the end a message goes there and back, so they were connected.
//!
//! ## Slots ([`slots`])
//!
//! Stores and FIFOs with default settings, which have the native trailer, through
//! the public API, against [`slots::bare`]: a seqlock over the same bytes, in the
//! same kind of mapping.
//!
//! * [`slots::calls`]: on one thread, with nobody else: a write of a whole record
//!   of four floats; a read of the same record again; a write and the read of
//!   what it wrote; and a write to a segment without the trailer. Contenders take
//!   turns as in ZeroIPC's calls. What is read is compared with what was written.
//! * [`slots::record`]: a writer at full speed in one process, and a reader in
//!   another that takes each new record it can get. The times are those per record
//!   written and per record read. Every record that is read must be whole and newer
//!   than the one before, and the last one must come. A block takes the median of
//!   three turns each.
//! * [`slots::image`]: writes and reads of new images, against the C library's
//!   copy of the same bytes into and out of the same memory, which is mapped a
//!   second time for it. Each image is compared.
//! * [`slots::latency`]: a record of four floats to and fro through two stores, in
//!   the loop of the latencies above, against two bare slots, polled with or
//!   without a pause instruction, whichever is faster here.
//! * [`slots::fifo`]: a push and a read of the same item on one thread, against
//!   `rtrb`. Every item must come, in order.
//!
//! Some ratios have a target. The output says whether the median meets it; a
//! target that is missed is no error.
//!
//! [`WaitStrategy`]: polyshm_zerobuffer::WaitStrategy

#![cfg(target_os = "linux")]

pub mod cli;
pub mod copying;
pub mod eshm;
#[cfg(feature = "iceoryx2")]
pub mod iceoryx;
pub mod latency;
pub mod machine;
pub mod names;
pub mod peer;
pub mod port;
pub mod raw;
pub mod replay;
pub mod report;
pub mod ring;
pub mod slots;
pub mod stream;
pub mod svg;
pub mod throughput;
pub mod turns;
pub mod zeroipc;
