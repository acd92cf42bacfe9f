//! ESHM: two channels of one message each between a master and a slave, with
//! heartbeats, and typed key/value items as messages.
//!
//! The section numbers on this page and on its items are those of
//! `docs/protocols/eshm.md`.
//!
//! | bytes | what | section |
//! |---|---|---|
//! | 0..128 | [`Header`] | 1.5 |
//! | 128..128+c | the channel from the master to the slave | 1.6 |
//! | 128+c..128+2c | the channel from the slave to the master | 1.6 |
//!
//! A channel is a [`ChannelHead`], a buffer of as many bytes as the capacity,
//! and a [`ChannelTail`]; `c` is [`Layout::channel_len`]. Nothing in the object
//! tells the capacity, so [`Layout`] is made from what both sides agreed upon,
//! and everything that needs an offset asks it. All integers are little-endian.
//!
//! # Who changes what
//!
//! A master creates the object, or takes over one whose slave is alive. Each
//! side owns its heartbeat, its process identifier and its alive flag, and
//! writes one channel; the reader of a channel only raises its `read_count`.
//! The sequence is odd while a message is written.
//!
//! # Messages
//!
//! To a channel a message is just bytes. [`encode`] and [`decode`] turn
//! [`Item`]s, each a key and a typed value, into such bytes and back
//! (section 9), in either of the two forms that exist.
//!
//! # Looking at an image
//!
//! [`describe`] checks a whole image and copies everything out of it, and
//! [`Header::read`] gives the raw fields of an image that is too damaged for
//! that.

mod error;
mod image;
mod items;
mod layout;
mod names;

pub use error::{ImageError, LayoutError, NameError};
pub use image::{ChannelDescription, Description, describe};
#[cfg(feature = "serde")]
pub use items::{BridgeError, from_items, to_items};
pub use items::{
    DecodeError, Decoder, EncodeError, Event, FunctionCall, ImageFrame, Item, ItemDialect,
    ItemKind, ItemRef, Scalar, ScalarRef, UnknownKind, Value, ValueRef, decode, encode,
    encode_refs, encode_refs_into, item_value,
};
pub use layout::{
    ChannelHead, ChannelPlace, ChannelTail, DEFAULT_CAPACITY, DEFAULT_STALE_THRESHOLD_MS,
    Direction, HEADER_SIZE, Header, Layout, MAGIC, MAX_CAPACITY, VERSION, offset,
};
pub use names::{MAX_NAME_LEN, object_name};
