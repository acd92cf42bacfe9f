//! The bytes of the shared-memory protocols that polyshm speaks: layouts,
//! offsets, checks, names and codecs. It opens nothing, maps nothing and waits
//! for nothing.
//!
//! # Promises
//!
//! * `no_std` with `alloc`, and no unsafe code.
//! * Every layout is fixed when the crate is compiled: a constant assertion
//!   stops the build when a field leaves its place.
//! * Nothing that came out of shared memory is trusted. Arithmetic on it is
//!   checked, walks are bounded by the length of the image, and any image at
//!   all yields a value or an error that names the field, what was found and
//!   what the limit is: never a panic, never an endless loop, never an
//!   allocation that grows faster than the image.
//!
//! # Refusals
//!
//! * No I/O, no system calls, no clock, no process identifiers judged alive.
//! * No atomics. A live region must be copied first (tear-tolerantly, see
//!   `polyshm-platform`); this crate reads `&[u8]` that nobody is changing.
//! * No repair. A damaged image is reported, not improved.
//! * Four protocols: [`zerobuffer`], [`zeroipc`], [`eshm`] and [`slots`]. There
//!   is no big-endian form of any, and no alignment of the bytes given is
//!   assumed.
//!
//! # Example
//!
//! Build a fresh ZeroBuffer image as a reader does and look at it:
//!
//! ```
//! use polyshm_wire::zerobuffer::{self, FrameHeader, Layout, Oieb};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let layout = Layout::for_request(100, 1000)?; // rounded up to 128 and 1024
//! let mut image = vec![0; usize::try_from(layout.object_len())?];
//! let mut oieb = Oieb::new(&layout, 4242);
//! image[..128].copy_from_slice(&oieb.to_bytes());
//! assert!(zerobuffer::describe(&image)?.pending.is_empty());
//!
//! // One frame of five bytes at the start of the ring.
//! let at = usize::try_from(layout.payload_offset())?;
//! image[at..at + 16].copy_from_slice(&FrameHeader::new(5, 1).to_bytes());
//! image[at + 16..at + 21].copy_from_slice(b"hello");
//! oieb.payload_write_pos.set(21);
//! oieb.payload_free_bytes.set(1024 - 21);
//! oieb.payload_written_count.set(1);
//! image[..128].copy_from_slice(&oieb.to_bytes());
//!
//! let seen = zerobuffer::describe(&image)?;
//! assert_eq!(seen.pending.len(), 1);
//! assert_eq!((seen.pending[0].length, seen.pending[0].sequence), (5, 1));
//!
//! // A damaged field is an error that names it.
//! oieb.payload_write_pos.set(1 << 40);
//! image[..128].copy_from_slice(&oieb.to_bytes());
//! let error = zerobuffer::describe(&image).unwrap_err();
//! assert!(error.to_string().contains("payload_write_pos is 1099511627776"));
//! # Ok(())
//! # }
//! ```
//!
//! Judge a ZeroIPC queue before its elements are touched:
//!
//! ```
//! use polyshm_wire::zeroipc::{QueueHeader, QueueLayout};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let layout = QueueLayout::new(5, 4)?; // 5 slots of 4 bytes, rounded up to 8
//! let mut header = layout.header();
//! let read = |header: QueueHeader| {
//!     QueueLayout::read(&header.to_bytes(), layout.size(), Some(4))
//! };
//! assert_eq!(read(header)?, layout);
//!
//! header.capacity.set(0);
//! let error = read(header).unwrap_err();
//! assert_eq!(error.to_string(), "the queue's capacity is 0, at least 1 is needed");
//! # Ok(())
//! # }
//! ```
//!
//! Write an ESHM message of typed items, and read it back:
//!
//! ```
//! use polyshm_wire::eshm::{Item, ItemDialect, decode, encode};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let items = [Item::new("counter", 42), Item::new("celsius", 23.5)];
//! let message = encode(&items, ItemDialect::Native)?; // as C++ writes it
//! assert_eq!(decode(&message)?, items);
//!
//! let error = decode(&message[..30]).unwrap_err();
//! assert!(error.to_string().starts_with("the message (SEQUENCE) ends early"));
//! # Ok(())
//! # }
//! ```
//!
//! Lay out a slot of named, typed fields, and put a value into one:
//!
//! ```
//! use polyshm_wire::slots::{Layout, Schema, Status, Value, describe, encode_value};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let schema: Schema = "temperature: float, status_msg: str[32]".parse()?;
//! let layout = Layout::new(&schema, 1)?;
//! let mut image = layout.blank_slot();
//!
//! let place = layout.fields()[1];
//! let field = &mut image[place.offset..][..place.size];
//! let written = encode_value(&schema.fields()[1].ty, &"warm".into(), field)?;
//! image[layout.status_offset() + 1] = Status::FRESH.written(written.truncated).bits();
//!
//! let seen = describe(&image, &layout)?;
//! let fields = seen.slots[0].fields.as_ref().unwrap();
//! assert_eq!(fields[1].value, Value::from("warm"));
//! assert!(fields[1].status.is_valid() && fields[0].status.is_unwritten());
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! * `serde`: `Serialize` and `Deserialize` for the inspection types
//!   ([`zerobuffer::Description`], [`zeroipc::Description`],
//!   [`eshm::Description`], [`slots::Description`] and their parts,
//!   [`zerobuffer::SemaphoreImage`], [`zeroipc::Value`]), and `eshm::to_items` and `eshm::from_items`, which
//!   turn flat structs into ESHM items and back.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod eshm;
pub mod slots;
pub mod zerobuffer;
pub mod zeroipc;

/// Runs the examples of the README with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
