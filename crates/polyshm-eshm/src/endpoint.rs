//! The endpoint and its two halves.

use crate::{
    Connection, EndpointBuilder, Events, HeartbeatError, OpenError, ReadError, Remote, Role, Stats,
    WriteError,
    attachment::{Attachment, Busy, Object, Patience},
    channel::{Cursor, Look, Received, Target},
    core::{Core, View},
};
use polyshm_platform::{Deadline, WaitSource, Waiter};
use polyshm_wire::eshm::{Decoder, Direction, ImageError, Item, encode, object_name};
use std::{fmt, ops::Deref, sync::Arc};

/// Looks at a message that is being written, without a wait.
const LOOKS: u32 = 64;

/// Copies of a message that is overwritten meanwhile, without a wait.
const COPIES: u32 = 3;

/// A message in memory of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    data: Vec<u8>,
    received: Received,
}

impl Message {
    /// Its number among all messages of the channel's life; the first is 1.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.received.number
    }

    /// How many messages were overwritten unread before this one, see
    /// [`Received::lost`].
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.received.lost
    }

    /// The bytes alone.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.data
    }
}

impl Deref for Message {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.data
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl From<Message> for Vec<u8> {
    fn from(message: Message) -> Self {
        message.data
    }
}

/// Closes the endpoint when its last half is gone.
#[derive(Debug)]
struct Owner(Arc<Core>);

impl Deref for Owner {
    type Target = Arc<Core>;

    fn deref(&self) -> &Arc<Core> {
        &self.0
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What both halves can do.
macro_rules! common {
    ($($access:ident).+) => {
        /// The channel's name.
        #[must_use]
        pub fn name(&self) -> &str {
            &self.$($access).+.object.name
        }

        /// Master or slave; what an automatic endpoint became.
        #[doc(alias = "eshm_get_role")]
        #[must_use]
        pub fn role(&self) -> Role {
            self.$($access).+.role()
        }

        /// The longest message in bytes.
        #[must_use]
        pub fn capacity(&self) -> usize {
            self.$($access).+.object.layout.capacity() as usize
        }

        /// How the connection stands.
        #[must_use]
        pub fn connection(&self) -> Connection {
            self.$($access).+.connection()
        }

        /// How the other side is. An endpoint without threads looks now: it
        /// must be asked more often than the stale threshold to be exact.
        #[doc(alias = "eshm_check_remote_alive")]
        #[must_use]
        pub fn remote(&self) -> Remote {
            self.$($access).+.remote()
        }

        /// The numbers of both sides; all 0 once closed.
        #[doc(alias = "eshm_get_stats")]
        #[must_use]
        pub fn stats(&self) -> Stats {
            self.$($access).+.stats()
        }

        /// The events from now on. The first ones may be over by then: a callback
        /// ([`EndpointBuilder::on_event`]) hears all of them.
        #[must_use]
        pub fn events(&self) -> Events {
            self.$($access).+.listeners.subscribe()
        }

        /// Beats once, and looks at the other side: for endpoints without
        /// threads, at least twice in a stale threshold. With threads it only
        /// tells whether there is somebody to beat for.
        ///
        /// # Errors
        ///
        /// See [`HeartbeatError`].
        #[doc(alias = "eshm_update_heartbeat")]
        pub fn update_heartbeat(&self) -> Result<(), HeartbeatError> {
            self.$($access).+.update_heartbeat()
        }

        /// A slave looks for a living master now, once; one that has given up
        /// goes on looking afterwards. Returns at once when there is a living
        /// one already, and for a master.
        ///
        /// # Errors
        ///
        /// None was found, see [`OpenError`].
        pub fn reconnect(&self) -> Result<(), OpenError> {
            self.$($access).+.reconnect()
        }

        /// Closes the endpoint, with both halves; a master removes the object
        /// as [`EndpointBuilder::auto_cleanup`] says. Whatever is asked of it
        /// later fails. Dropping the last half does the same.
        #[doc(alias = "eshm_destroy")]
        pub fn close(&self) {
            self.$($access).+.close();
        }
    };
}

/// One end of a channel between a master and a slave: each has a mailbox that
/// holds the latest message of the other.
///
/// A message replaces the one before, read or not; [`Received::lost`] counts
/// what was replaced unread. Writing never waits. Reading wakes as soon as a
/// polyshm peer writes, and within about 100 µs of any other's writing.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use polyshm_eshm::Endpoint;
///
/// let name = format!("polyshm-doc-endpoint-{}", std::process::id());
/// let mut master = Endpoint::master(&name)?;
/// let mut slave = Endpoint::slave(&name)?;
///
/// master.write(b"set speed 3")?;
/// assert_eq!(&*slave.read()?, b"set speed 3");
/// slave.write(b"done")?;
/// assert_eq!(&*master.read()?, b"done");
/// assert!(slave.try_read()?.is_none());
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[doc(alias = "ESHM")]
#[doc(alias = "ESHMHandle")]
pub struct Endpoint {
    sender: Sender,
    receiver: Receiver,
}

impl Endpoint {
    common!(sender.owner);

    /// Settings for opening one, all at their defaults.
    #[doc(alias = "eshm_default_config")]
    pub fn builder() -> EndpointBuilder {
        EndpointBuilder::default()
    }

    /// A master with default settings.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn master(name: &str) -> Result<Self, OpenError> {
        Self::builder().role(Role::Master).open(name)
    }

    /// A slave with default settings; its master must be there.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn slave(name: &str) -> Result<Self, OpenError> {
        Self::builder().role(Role::Slave).open(name)
    }

    /// A master when there is no object of that name, a slave otherwise.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn auto(name: &str) -> Result<Self, OpenError> {
        Self::builder().role(Role::Auto).open(name)
    }

    /// Removes what dead processes left under a name; gives whether there was
    /// anything. A master that opens the name does so by itself.
    ///
    /// # Errors
    ///
    /// [`OpenError::RoleTaken`] while a living process is attached,
    /// [`OpenError::Invalid`] for what is no channel; see [`OpenError`].
    pub fn remove(name: &str) -> Result<bool, OpenError> {
        let config = Self::builder();
        Object::new(name, object_name(name)?, &config)?.remove()
    }

    pub(crate) fn open_with(name: &str, config: EndpointBuilder) -> Result<Self, OpenError> {
        let path = object_name(name)?;
        let object = Object::new(name, path, &config)?;
        let deadline = Deadline::after(config.connect_timeout);
        loop {
            match object.open(&config, Patience::USUAL) {
                Ok(attachment) => return Self::of(object, config, attachment),
                Err(error) if !error.is_transient() || deadline.expired() => return Err(error),
                Err(_) => std::thread::sleep(Object::LOOK_INTERVAL),
            }
        }
    }

    pub(crate) fn of(
        object: Object,
        config: EndpointBuilder,
        attachment: Attachment,
    ) -> Result<Self, OpenError> {
        let cursor = attachment.start;
        let waiter = Waiter::new(config.wait_strategy);
        let owner = Arc::new(Owner(Core::new(object, config, attachment)?));
        Ok(Self {
            sender: Sender::new(Arc::clone(&owner)),
            receiver: Receiver::new(owner, cursor, waiter),
        })
    }

    /// The two halves, for two threads. The endpoint is closed when both are
    /// gone. A half that is not used keeps the object of its last use mapped.
    #[must_use]
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }

    /// Puts halves together again.
    ///
    /// # Errors
    ///
    /// They are of two endpoints, and come back.
    pub fn unsplit(sender: Sender, receiver: Receiver) -> Result<Self, (Sender, Receiver)> {
        if Arc::ptr_eq(&sender.owner, &receiver.owner) {
            Ok(Self { sender, receiver })
        } else {
            Err((sender, receiver))
        }
    }

    /// Writes a message; see [`Sender::write`].
    ///
    /// # Errors
    ///
    /// See [`WriteError`].
    #[doc(alias = "eshm_write")]
    #[inline]
    pub fn write(&mut self, data: &[u8]) -> Result<(), WriteError> {
        self.sender.write(data)
    }

    /// Writes typed items; see [`Sender::write_items`].
    ///
    /// # Errors
    ///
    /// See [`WriteError`].
    pub fn write_items(&mut self, items: &[Item]) -> Result<(), WriteError> {
        self.sender.write_items(items)
    }

    /// Reads the next message, waiting for the time set with
    /// [`EndpointBuilder::read_timeout`], 1 s unless set.
    ///
    /// # Errors
    ///
    /// See [`ReadError`].
    #[doc(alias = "eshm_read")]
    pub fn read(&mut self) -> Result<Message, ReadError> {
        self.receiver.read()
    }

    /// Reads the next message; see [`Receiver::read_timeout`].
    ///
    /// # Errors
    ///
    /// See [`ReadError`].
    #[doc(alias = "eshm_read_ex")]
    pub fn read_timeout(&mut self, timeout: impl Into<Deadline>) -> Result<Message, ReadError> {
        self.receiver.read_timeout(timeout)
    }

    /// Reads the next message if it is there.
    ///
    /// # Errors
    ///
    /// See [`ReadError`].
    #[inline]
    pub fn try_read(&mut self) -> Result<Option<Message>, ReadError> {
        self.receiver.try_read()
    }

    /// Reads into a buffer; see [`Receiver::read_into`].
    ///
    /// # Errors
    ///
    /// See [`ReadError`].
    #[inline]
    pub fn read_into(
        &mut self,
        buffer: &mut [u8],
        timeout: impl Into<Deadline>,
    ) -> Result<Received, ReadError> {
        self.receiver.read_into(buffer, timeout)
    }

    /// Reads into a buffer if a message is there.
    ///
    /// # Errors
    ///
    /// See [`ReadError`].
    #[inline]
    pub fn try_read_into(&mut self, buffer: &mut [u8]) -> Result<Option<Received>, ReadError> {
        self.receiver.try_read_into(buffer)
    }

    /// The latest message, read before or not; see [`Receiver::read_latest`].
    ///
    /// # Errors
    ///
    /// See [`ReadError`].
    pub fn read_latest(&mut self) -> Result<Option<Message>, ReadError> {
        self.receiver.read_latest()
    }

    /// Reads a message of typed items; see [`Receiver::read_items`].
    ///
    /// # Errors
    ///
    /// See [`ReadError`].
    #[doc(alias = "eshm_read_data")]
    pub fn read_items(&mut self, timeout: impl Into<Deadline>) -> Result<Vec<Item>, ReadError> {
        self.receiver.read_items(timeout)
    }

    /// How many messages were overwritten unread since this endpoint attached.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.receiver.lost()
    }
}

/// The half that writes; made by [`Endpoint::split`].
#[derive(Debug)]
pub struct Sender {
    owner: Arc<Owner>,
    /// The owner's: one step less for each write.
    core: Arc<Core>,
    attachment: Option<Arc<Attachment>>,
    /// The attachment, when the next write may go the short way: it is not the
    /// first, nobody may share the role, and a thread watches for others that take
    /// it.
    usual: Option<Arc<Attachment>>,
    /// The core's at the last look; another when writing is not possible, so
    /// that the next write looks again.
    epoch: u32,
}

impl Sender {
    common!(owner);

    fn new(owner: Arc<Owner>) -> Self {
        let (attachment, _, epoch) = owner.view();
        Self {
            attachment,
            usual: None,
            epoch,
            core: Arc::clone(&owner),
            owner,
        }
    }

    /// Writes a message of up to [`capacity`](Self::capacity) bytes, none being
    /// possible; it replaces the one before. Never waits for a reader, and
    /// needs none.
    ///
    /// The message is there, whole, for every reader that looks after this
    /// returned. Where another process took this role, which only other
    /// implementations do, that is noticed at the next heartbeat, within a tenth of
    /// the stale threshold, and at once without threads.
    ///
    /// # Errors
    ///
    /// See [`WriteError`].
    #[doc(alias = "eshm_write")]
    #[inline]
    pub fn write(&mut self, data: &[u8]) -> Result<(), WriteError> {
        if self.core.epoch() == self.epoch
            && let Some(attachment) = &self.usual
            && attachment.outgoing.write(data).is_ok()
        {
            return Ok(());
        }
        self.write_carefully(data)
    }

    /// The first write, one where other writers may be, or one that fails: apart,
    /// so that the usual one is short.
    #[cold]
    #[inline(never)]
    fn write_carefully(&mut self, data: &[u8]) -> Result<(), WriteError> {
        if self.owner.epoch() != self.epoch {
            self.look()?;
        }
        let name = || self.owner.name();
        let Some(attachment) = &self.attachment else {
            return Err(WriteError::Closed { name: name() });
        };
        let shared = self.owner.shares_role(attachment);
        let written = if shared {
            match attachment.write_in_turn(data) {
                Ok(Err(Busy)) => return Err(WriteError::Busy { name: name() }),
                Ok(Ok(())) => Ok(()),
                Err(error) => Err(error),
            }
        } else if let Some(pid) = attachment.displaced(self.owner.object.own) {
            return Err(WriteError::Displaced { name: name(), pid });
        } else {
            attachment.outgoing.write_first(data)
        };
        let careful = shared || !self.owner.config.threads || written.is_err();
        self.usual = (!careful).then(|| Arc::clone(attachment));
        written.map_err(|_| WriteError::TooLarge {
            name: self.owner.name(),
            len: data.len(),
            capacity: self.capacity(),
        })
    }

    /// Writes typed items as one message, in the form set with
    /// [`EndpointBuilder::item_dialect`].
    ///
    /// # Errors
    ///
    /// See [`WriteError`].
    pub fn write_items(&mut self, items: &[Item]) -> Result<(), WriteError> {
        let message =
            encode(items, self.owner.config.item_dialect).map_err(|source| WriteError::Encode {
                name: self.owner.name(),
                source,
            })?;
        self.write(&message)
    }

    fn look(&mut self) -> Result<(), WriteError> {
        let (attachment, view, epoch) = self.owner.view();
        self.attachment = attachment;
        self.usual = None;
        let name = self.owner.name();
        let error = match view {
            // A stale reader may come back and find it.
            View::Open | View::Stale => {
                self.epoch = epoch;
                return Ok(());
            }
            View::Reconnecting => WriteError::Reconnecting { name },
            View::GaveUp => WriteError::GaveUp { name },
            View::Displaced(pid) => WriteError::Displaced { name, pid },
            View::Closed => WriteError::Closed { name },
        };
        // So that the next write asks again.
        self.epoch = epoch.wrapping_sub(1);
        Err(error)
    }
}

/// The half that reads; made by [`Endpoint::split`].
///
/// It delivers each message at most once, in order, and only messages that are
/// written after the endpoint attached. After a reconnection to an object that
/// the master created anew, the first is that object's latest.
#[derive(Debug)]
pub struct Receiver {
    owner: Arc<Owner>,
    attachment: Option<Arc<Attachment>>,
    /// The core's at the last look.
    epoch: u32,
    view: View,
    cursor: Cursor,
    waiter: Waiter,
    lost: u64,
}

impl Receiver {
    common!(owner);

    fn new(owner: Arc<Owner>, cursor: Cursor, waiter: Waiter) -> Self {
        let (attachment, view, epoch) = owner.view();
        Self {
            owner,
            attachment,
            epoch,
            view,
            cursor,
            waiter,
            lost: 0,
        }
    }

    /// Reads the next message, waiting for the time set with
    /// [`EndpointBuilder::read_timeout`].
    ///
    /// # Errors
    ///
    /// See [`ReadError`].
    pub fn read(&mut self) -> Result<Message, ReadError> {
        self.read_timeout(self.owner.config.read_timeout)
    }

    /// Reads the next message; waits for it until the deadline, also through a
    /// reconnection.
    ///
    /// # Errors
    ///
    /// See [`ReadError`].
    #[doc(alias = "eshm_read_ex")]
    pub fn read_timeout(&mut self, timeout: impl Into<Deadline>) -> Result<Message, ReadError> {
        let mut data = Vec::new();
        let received = self.wait(&mut data, timeout)?;
        Ok(Message { data, received })
    }

    /// Reads the next message if it is there. One that is being written at the
    /// moment is not.
    ///
    /// # Errors
    ///
    /// See [`ReadError`].
    #[inline]
    pub fn try_read(&mut self) -> Result<Option<Message>, ReadError> {
        let mut data = Vec::new();
        let received = self.poll_patiently(&mut data)?;
        Ok(received.map(|received| Message { data, received }))
    }

    /// Reads the next message into the front of a buffer; waits as
    /// [`read_timeout`](Self::read_timeout).
    ///
    /// On an error the buffer's bytes are unspecified.
    ///
    /// # Errors
    ///
    /// See [`ReadError`]. A message that is too long stays.
    #[inline]
    pub fn read_into(
        &mut self,
        mut buffer: &mut [u8],
        timeout: impl Into<Deadline>,
    ) -> Result<Received, ReadError> {
        self.wait(&mut buffer, timeout)
    }

    /// Reads the next message into the front of a buffer if it is there.
    ///
    /// # Errors
    ///
    /// See [`ReadError`]. A message that is too long stays.
    #[inline]
    pub fn try_read_into(&mut self, mut buffer: &mut [u8]) -> Result<Option<Received>, ReadError> {
        self.poll_patiently(&mut buffer)
    }

    /// The latest message of the channel, read before or not, written before
    /// this endpoint attached or not; `None` when there never was one.
    ///
    /// A message that is new counts as read, here and for the peer's statistics.
    ///
    /// # Errors
    ///
    /// See [`ReadError`].
    pub fn read_latest(&mut self) -> Result<Option<Message>, ReadError> {
        if let Some(message) = self.try_read()? {
            return Ok(Some(message));
        }
        let Some(attachment) = &self.attachment else {
            return Err(ReadError::Closed {
                name: self.owner.name(),
            });
        };
        let mut data = Vec::new();
        for _ in 0..LOOKS {
            match attachment.incoming.look_again(&mut data) {
                Look::New(received) => return Ok(Some(Message { data, received })),
                Look::Nothing => return Ok(None),
                Look::Corrupt { found } => return Err(self.corrupt(found)),
                Look::Busy | Look::Torn | Look::TooSmall { .. } => std::thread::yield_now(),
            }
        }
        Ok(None)
    }

    /// Reads a message and decodes it as typed items.
    ///
    /// # Errors
    ///
    /// See [`ReadError`]; a message without items is taken all the same.
    #[doc(alias = "eshm_read_data")]
    pub fn read_items(&mut self, timeout: impl Into<Deadline>) -> Result<Vec<Item>, ReadError> {
        let message = self.read_timeout(timeout)?;
        Decoder::new()
            .lenient(self.owner.config.lenient_items)
            .decode(&message)
            .map_err(|source| ReadError::Decode {
                name: self.owner.name(),
                source,
            })
    }

    /// How many messages were overwritten unread since this endpoint attached.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    #[inline]
    fn wait(
        &mut self,
        into: &mut impl Target,
        timeout: impl Into<Deadline>,
    ) -> Result<Received, ReadError> {
        // What is there already costs no look at the clock.
        if let Polled::New(received) = self.poll(into)? {
            return Ok(received);
        }
        let deadline = timeout.into();
        let waiter = self.waiter;
        let mut reading = Reading {
            receiver: self,
            into,
            asleep: None,
            deadline,
        };
        let received = waiter.wait(&mut reading, deadline)?;
        drop(reading);
        received.ok_or_else(|| self.timeout())
    }

    #[cold]
    fn timeout(&self) -> ReadError {
        ReadError::Timeout {
            name: self.owner.name(),
        }
    }

    /// Looks a few times where a message is just being written.
    #[inline]
    fn poll_patiently(&mut self, into: &mut impl Target) -> Result<Option<Received>, ReadError> {
        let mut copies = 0;
        for _ in 0..LOOKS {
            match self.poll(into)? {
                Polled::New(received) => return Ok(Some(received)),
                Polled::Nothing => return Ok(None),
                Polled::Busy => std::hint::spin_loop(),
                Polled::Torn => {
                    copies += 1;
                    if copies == COPIES {
                        break;
                    }
                }
            }
        }
        Ok(None)
    }

    /// Looks once.
    #[inline]
    fn poll(&mut self, into: &mut impl Target) -> Result<Polled, ReadError> {
        if self.owner.epoch() != self.epoch {
            if self.owner.connection() != Connection::Closed {
                // What the object before still holds comes first.
                match self.take(into) {
                    Ok(Polled::New(received)) => return Ok(Polled::New(received)),
                    Err(error @ ReadError::BufferTooSmall { .. }) => return Err(error),
                    _ => {}
                }
            }
            self.look();
        }
        let name = || self.owner.name();
        match self.view {
            View::Open | View::Reconnecting | View::Displaced(_) => self.take(into),
            View::Stale => Err(ReadError::Stale { name: name() }),
            View::GaveUp => Err(ReadError::GaveUp { name: name() }),
            View::Closed => Err(ReadError::Closed { name: name() }),
        }
    }

    #[inline]
    fn take(&mut self, into: &mut impl Target) -> Result<Polled, ReadError> {
        let Some(attachment) = &self.attachment else {
            return Ok(Polled::Nothing);
        };
        match attachment.incoming.look(&mut self.cursor, into) {
            Look::Nothing => Ok(Polled::Nothing),
            Look::New(received) => {
                self.lost = self.lost.saturating_add(received.lost);
                Ok(Polled::New(received))
            }
            Look::Busy => Ok(Polled::Busy),
            Look::Torn => Ok(Polled::Torn),
            Look::TooSmall { needed } => Err(ReadError::BufferTooSmall {
                name: self.owner.name(),
                needed,
                len: into.limit(),
            }),
            Look::Corrupt { found } => Err(self.corrupt(found)),
        }
    }

    #[cold]
    fn corrupt(&self, found: u32) -> ReadError {
        let direction = match self.attachment.as_ref().map(|at| at.role) {
            Some(Role::Slave) => Direction::MasterToSlave,
            _ => Direction::SlaveToMaster,
        };
        ReadError::Corrupt {
            name: self.owner.name(),
            source: ImageError::DataSize {
                direction,
                found,
                capacity: self.owner.object.layout.capacity(),
            },
        }
    }

    /// Takes over what has changed.
    #[cold]
    fn look(&mut self) {
        let (attachment, view, epoch) = self.owner.view();
        self.view = view;
        self.epoch = epoch;
        if let (Some(new), Some(old)) = (&attachment, &self.attachment)
            && !Arc::ptr_eq(new, old)
        {
            self.cursor = if new.role == old.role {
                // All of a new object's messages are new.
                Cursor::default()
            } else {
                new.start
            };
        }
        self.attachment = attachment;
    }
}

/// What one look of a receiver gave.
enum Polled {
    Nothing,
    Busy,
    Torn,
    New(Received),
}

/// A read that waits.
struct Reading<'a, T> {
    receiver: &'a mut Receiver,
    into: &'a mut T,
    /// Where this thread is counted as a sleeper.
    asleep: Option<Arc<Attachment>>,
    /// Looked at after copies that came to nothing: a large message takes long,
    /// and the waiter looks at the clock only now and then.
    deadline: Deadline,
}

impl<T: Target> WaitSource for Reading<'_, T> {
    type Output = Received;
    type Error = ReadError;

    #[inline]
    fn poll(&mut self) -> Result<Option<Received>, ReadError> {
        match self.receiver.poll(self.into)? {
            Polled::New(received) => Ok(Some(received)),
            Polled::Torn if self.deadline.expired() => Err(self.receiver.timeout()),
            Polled::Nothing | Polled::Busy | Polled::Torn => Ok(None),
        }
    }

    fn park(&mut self, until: Deadline) -> Result<Option<Received>, ReadError> {
        let native = self.receiver.owner.config.native_marks;
        if let Some(attachment) = &self.receiver.attachment {
            let counted = self
                .asleep
                .as_ref()
                .is_some_and(|asleep| Arc::ptr_eq(asleep, attachment));
            if !counted {
                let attachment = Arc::clone(attachment);
                self.wake_up();
                if native {
                    attachment.incoming.count_sleeper();
                }
                self.asleep = Some(attachment);
            }
            if self.receiver.owner.epoch() == self.receiver.epoch {
                let wakes = native && counted && attachment_wakes(self.asleep.as_deref());
                if let Some(attachment) = &self.asleep {
                    attachment
                        .incoming
                        .sleep(&self.receiver.cursor, until, wakes);
                }
            }
        }
        self.poll()
    }

    fn glance(&mut self) -> Result<Option<Received>, ReadError> {
        Ok(None)
    }

    fn check(&mut self) -> Result<Option<Received>, ReadError> {
        // The heartbeat thread watches the other side.
        Ok(None)
    }
}

fn attachment_wakes(attachment: Option<&Attachment>) -> bool {
    attachment.is_some_and(|attachment| attachment.remote().is_native())
}

impl<T> Reading<'_, T> {
    /// Is counted as a sleeper no more.
    fn wake_up(&mut self) {
        if let Some(attachment) = self.asleep.take()
            && self.receiver.owner.config.native_marks
        {
            attachment.incoming.uncount_sleeper();
        }
    }
}

impl<T> Drop for Reading<'_, T> {
    fn drop(&mut self) {
        self.wake_up();
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message {} of {} bytes", self.number(), self.len())
    }
}
