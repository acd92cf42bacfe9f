//! Creating, attaching to and removing the shared object (format, sections 1,
//! 2 and 6).

use crate::{
    EndpointBuilder, OpenError, Role,
    channel::{Channel, Cursor},
};
use polyshm_platform::{
    self as platform, Bytes, Deadline, Identity, InvalidWord, OutOfRange, Region, SegmentLock,
    SharedMemory, Word32, Word64, process,
    sync::Ordering::{Acquire, Relaxed, Release},
};
use polyshm_wire::eshm::{Direction, HEADER_SIZE, Header, ImageError, Layout, MAGIC, offset};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How long others are waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For the lock of an object.
    lock: Duration,
    /// From the name to the magic number, which another implementation's
    /// creator stores one after the other; then a master replaces what it left.
    creation: Duration,
    /// For a heartbeat to move, at most.
    heartbeat: Duration,
}

impl Patience {
    pub(crate) const USUAL: Self = Self {
        lock: Duration::from_secs(1),
        creation: Duration::from_millis(250),
        heartbeat: Duration::from_secs(1),
    };
    /// On the heartbeat thread, for which the whole process waits.
    pub(crate) const SHORT: Self = Self {
        lock: Duration::from_millis(5),
        creation: Duration::ZERO,
        heartbeat: Duration::from_millis(5),
    };
}

/// The words of the header.
#[derive(Debug)]
pub(crate) struct HeaderWords {
    magic: Word32,
    master: SideWords,
    slave: SideWords,
    stale_threshold: Word32,
    generation: Word32,
    bytes: Bytes,
}

/// One role's words.
#[derive(Debug)]
pub(crate) struct SideWords {
    pub(crate) heartbeat: Word64,
    pub(crate) pid: Word32,
    pub(crate) alive: Word32,
    /// The native mark of the process with that pid, see [`process::mark`].
    mark: Word32,
}

impl SideWords {
    /// Enters a process; the order of the stores is the reference's.
    fn enter(&self, own: Own) {
        if own.mark != 0 {
            self.mark.store(own.mark, Relaxed);
        }
        self.pid.store(own.pid.cast_unsigned(), Relaxed);
        // Release: who sees the flag sees the pid. Readers load with acquire.
        self.alive.store(1, Release);
    }

    pub(crate) fn pid(&self) -> i32 {
        // Acquire: pairs with nothing that others promise; the mark is read after.
        self.pid.load(Acquire).cast_signed()
    }

    /// Whether the flag says that somebody is attached.
    pub(crate) fn is_attached(&self) -> bool {
        // Acquire: pairs with the release in `enter`.
        self.alive.load(Acquire) != 0
    }

    /// Whether a polyshm process is entered, which wakes who waits for it.
    pub(crate) fn is_native(&self) -> bool {
        mark_is_of(self.mark.load(Relaxed), self.pid())
    }

    /// Whether the entered process exists. Says nothing about its heartbeat.
    pub(crate) fn exists(&self) -> bool {
        let pid = self.pid();
        exists(pid, self.mark.load(Relaxed))
    }

    /// Whether somebody is attached whose process exists.
    pub(crate) fn lives(&self) -> bool {
        self.is_attached() && self.exists()
    }
}

/// Whether a mark belongs to the process of that pid.
fn mark_is_of(mark: u32, pid: i32) -> bool {
    const PID: u32 = (1 << 22) - 1;
    mark != 0 && mark & PID == pid.cast_unsigned() & PID
}

fn exists(pid: i32, mark: u32) -> bool {
    let Ok(pid_number) = u64::try_from(pid) else {
        return false;
    };
    if mark_is_of(mark, pid) {
        process::is_alive_marked(mark)
    } else {
        process::is_alive(pid_number)
    }
}

/// This process, as it enters itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own {
    pub(crate) pid: i32,
    /// 0 without native marks.
    mark: u32,
}

impl Own {
    /// Whether this is not a forked child of that process.
    pub(crate) fn is_this_process(self) -> bool {
        u64::try_from(self.pid).is_ok_and(|pid| pid == process::current())
    }

    pub(crate) fn new(native_marks: bool) -> Self {
        let pid = process::current();
        Self {
            pid: i32::try_from(pid).unwrap_or(0),
            mark: if native_marks { process::mark(pid) } else { 0 },
        }
    }
}

/// Others did not let go of the object's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy;

/// A mapped object, and what this endpoint is in it.
#[derive(Debug)]
pub(crate) struct Attachment {
    /// `None` on the heap.
    segment: Option<SharedMemory>,
    pub(crate) header: HeaderWords,
    /// What this side writes.
    pub(crate) outgoing: Channel,
    /// What it reads.
    pub(crate) incoming: Channel,
    /// Master or slave.
    pub(crate) role: Role,
    /// This endpoint created the object.
    created: bool,
    /// Where the incoming channel was when this side entered: what comes after
    /// is delivered, and who sees this side attached may count on it.
    pub(crate) start: Cursor,
}

impl Attachment {
    fn new(
        region: &Region,
        layout: Layout,
        role: Role,
        segment: Option<SharedMemory>,
    ) -> Result<Self, InvalidWord> {
        let word32 = |at: usize| region.word32(at);
        let word64 = |at: usize| region.word64(at);
        let header = HeaderWords {
            magic: word32(offset::MAGIC)?,
            master: SideWords {
                heartbeat: word64(offset::MASTER_HEARTBEAT)?,
                pid: word32(offset::MASTER_PID)?,
                alive: word32(offset::MASTER_ALIVE)?,
                mark: word32(offset::NATIVE_MASTER_MARK)?,
            },
            slave: SideWords {
                heartbeat: word64(offset::SLAVE_HEARTBEAT)?,
                pid: word32(offset::SLAVE_PID)?,
                alive: word32(offset::SLAVE_ALIVE)?,
                mark: word32(offset::NATIVE_SLAVE_MARK)?,
            },
            stale_threshold: word32(offset::STALE_THRESHOLD)?,
            generation: word32(offset::MASTER_GENERATION)?,
            bytes: region
                .bytes(0, HEADER_SIZE as usize)
                .map_err(InvalidWord::OutOfRange)?,
        };
        let mut incoming = Channel::new(region, layout, Direction::SlaveToMaster)?;
        let mut outgoing = Channel::new(region, layout, Direction::MasterToSlave)?;
        if role == Role::Slave {
            std::mem::swap(&mut incoming, &mut outgoing);
        }
        Ok(Self {
            segment,
            header,
            outgoing,
            incoming,
            role,
            created: false,
            start: Cursor::default(),
        })
    }

    pub(crate) fn own(&self) -> &SideWords {
        match self.role {
            Role::Slave => &self.header.slave,
            Role::Master | Role::Auto => &self.header.master,
        }
    }

    pub(crate) fn remote(&self) -> &SideWords {
        match self.role {
            Role::Slave => &self.header.master,
            Role::Master | Role::Auto => &self.header.slave,
        }
    }

    pub(crate) fn stale_threshold(&self) -> Duration {
        Duration::from_millis(self.header.stale_threshold.load(Relaxed).into())
    }

    /// A copy of the header; each field is whole, the whole may be torn.
    pub(crate) fn snapshot(&self) -> Header {
        let mut image = [0; HEADER_SIZE as usize];
        // Of the header's own length.
        let _ = self.header.bytes.read(0, &mut image);
        Header::read(&image).unwrap_or_else(|_| Header::new(0, 0))
    }

    /// Write and read counts of both directions, master to slave first.
    pub(crate) fn counts(&self) -> [(u64, u64); 2] {
        let mut counts = [self.outgoing.counts(), self.incoming.counts()];
        if self.role == Role::Slave {
            counts.swap(0, 1);
        }
        counts
    }

    /// Whether another process has taken this one's role; its pid.
    pub(crate) fn displaced(&self, own: Own) -> Option<i32> {
        let side = self.own();
        let pid = side.pid();
        let mark = side.mark.load(Relaxed);
        // In another pid namespace it may have the same pid.
        let other = pid != own.pid || (mark != own.mark && mark_is_of(mark, pid) && own.mark != 0);
        other.then_some(pid)
    }

    /// Writes where others of the same role may do so too. One that was killed
    /// at it holds the others up for no longer than it takes to see that.
    pub(crate) fn write_in_turn(&self, data: &[u8]) -> Result<Result<(), Busy>, OutOfRange> {
        let Some(segment) = &self.segment else {
            return self.outgoing.write_first(data).map(Ok);
        };
        let lock = segment.lock(Deadline::after(Patience::USUAL.lock));
        let Ok(Some(_lock)) = lock else {
            return Ok(Err(Busy));
        };
        if data.len() <= self.outgoing.capacity() {
            self.outgoing.repair();
        }
        self.outgoing.write_first(data).map(Ok)
    }

    pub(crate) fn identity(&self) -> Option<Identity> {
        self.segment.as_ref().map(SharedMemory::identity)
    }

    /// Enters this process, as a fresh endpoint does.
    fn enter(&self, own: Own) {
        if self.role == Role::Master {
            let generation = &self.header.generation;
            generation.store(generation.load(Relaxed).wrapping_add(1), Relaxed);
        }
        self.own().enter(own);
        self.own().heartbeat.store(0, Relaxed);
    }

    /// Enters this process again: its flag was cleared, or its master is new.
    pub(crate) fn enter_again(&self, own: Own) {
        self.own().enter(own);
    }

    /// Puts right what a predecessor left in what this endpoint writes, and
    /// forgets its sleepers.
    fn repair(&self) {
        self.outgoing.repair();
        self.incoming.forget_waiters();
    }

    /// Makes whole what a dead peer was writing: a successor of another
    /// implementation would go on from the odd number, and have it even while
    /// it writes.
    pub(crate) fn mend(&self, patience: Patience) {
        let Some(segment) = &self.segment else {
            return;
        };
        let lock = segment.lock(Deadline::after(patience.lock));
        if matches!(lock, Ok(Some(_))) && !self.remote().exists() {
            self.incoming.repair();
        }
    }

    /// Leaves the object: the flag is cleared, and a master removes the object
    /// unless somebody else needs it.
    pub(crate) fn leave(&self, own: Own, auto_cleanup: bool, patience: Patience) {
        // With the lock nobody enters or replaces the object meanwhile. Without
        // it, the object stays.
        let lock = match &self.segment {
            Some(segment) => segment.lock(Deadline::after(patience.lock)).ok().flatten(),
            None => None,
        };
        if self.displaced(own).is_some() {
            return;
        }
        let side = self.own();
        if side.mark.load(Relaxed) == own.mark {
            side.mark.store(0, Relaxed);
        }
        // Release: whatever was stored before is seen by who sees this.
        side.alive.store(0, Release);
        let (Role::Master, true, Some(segment), Some(_)) =
            (self.role, auto_cleanup, &self.segment, &lock)
        else {
            return;
        };
        let slave = &self.header.slave;
        if !self.created && slave.lives() {
            return;
        }
        if let Err(error) = segment.unlink() {
            tracing::warn!(target: "polyshm_eshm", %error, "the object could not be removed");
        }
    }
}

/// Opens and creates the object of one name.
#[derive(Debug)]
pub(crate) struct Object {
    /// The user's.
    pub(crate) name: Arc<str>,
    /// The system's.
    pub(crate) path: String,
    pub(crate) layout: Layout,
    pub(crate) own: Own,
}

/// What is to be done with an object that is there.
enum Verdict {
    /// A slave enters; `alone` when no other is there.
    Attach { alone: bool },
    /// A master takes over what the master before left.
    TakeOver,
    /// A master replaces what nobody uses.
    Replace,
    /// No header yet.
    Unfinished,
}

impl Object {
    /// Between two looks at something that has no event.
    pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(1);

    pub(crate) fn new(
        name: &str,
        path: String,
        config: &EndpointBuilder,
    ) -> Result<Self, OpenError> {
        let name: Arc<str> = Arc::from(name);
        match Layout::new(config.capacity) {
            Ok(layout) => Ok(Self {
                name,
                path,
                layout,
                own: Own::new(config.native_marks),
            }),
            Err(source) => Err(OpenError::Capacity { name, source }),
        }
    }

    fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    fn system(&self, source: platform::Error) -> OpenError {
        OpenError::System {
            name: self.name(),
            source,
        }
    }

    pub(crate) fn no_thread(&self, source: std::io::Error) -> OpenError {
        self.system(platform::Error::System {
            attempt: "start",
            what: "heartbeat thread",
            name: self.name.to_string(),
            source,
        })
    }

    fn invalid(&self, source: ImageError) -> OpenError {
        OpenError::Invalid {
            name: self.name(),
            source,
        }
    }

    /// Opens or creates the object in the role that `config` asks for.
    pub(crate) fn open(
        &self,
        config: &EndpointBuilder,
        patience: Patience,
    ) -> Result<Attachment, OpenError> {
        let creation = Deadline::after(patience.creation);
        loop {
            let segment = match SharedMemory::open(&self.path) {
                Ok(segment) => segment,
                Err(error) if error.is_not_found() => {
                    if config.role == Role::Slave {
                        return Err(OpenError::NotFound { name: self.name() });
                    }
                    if let Some(created) = self.create(config)? {
                        return Ok(created);
                    }
                    // Another was faster.
                    continue;
                }
                Err(error) => return Err(self.system(error)),
            };
            let lock = self.lock(&segment, patience)?;
            if !segment.is_linked().map_err(|error| self.system(error))? {
                continue;
            }
            if segment.is_empty() && !creation.expired() {
                // Its creator is between the name and the length.
                drop(lock);
                std::thread::sleep(Self::LOOK_INTERVAL);
                continue;
            }
            let entered = match self.judge(&segment, config, patience)? {
                Verdict::Unfinished if !creation.expired() => {
                    drop(lock);
                    std::thread::sleep(Self::LOOK_INTERVAL);
                    continue;
                }
                Verdict::Unfinished if config.role == Role::Slave => {
                    return Err(OpenError::NotReady { name: self.name() });
                }
                Verdict::Unfinished | Verdict::Replace => {
                    segment.unlink().map_err(|error| self.system(error))?;
                    continue;
                }
                Verdict::TakeOver => self.enter(&segment, Role::Master, true)?,
                Verdict::Attach { alone } => self.enter(&segment, Role::Slave, alone)?,
            };
            drop(lock);
            return Ok(entered.of(segment));
        }
    }

    /// Removes an object that no living process is entered in; gives whether
    /// there was one.
    pub(crate) fn remove(&self) -> Result<bool, OpenError> {
        let patience = Patience::USUAL;
        let segment = match SharedMemory::open(&self.path) {
            Ok(segment) => segment,
            Err(error) if error.is_not_found() => return Ok(false),
            Err(error) => return Err(self.system(error)),
        };
        let _lock = self.lock(&segment, patience)?;
        if self.header(&segment)?.is_none() {
            // Another implementation's creator may be at work.
            std::thread::sleep(patience.creation);
        }
        if let Some(header) = self.header(&segment)? {
            let sides = [Side::of_master(&header), Side::of_slave(&header)];
            for (side, role) in sides.into_iter().zip([Role::Master, Role::Slave]) {
                if self.lives(&segment, side, patience) {
                    return Err(OpenError::RoleTaken {
                        name: self.name(),
                        role,
                        pid: side.pid,
                    });
                }
            }
        }
        segment.unlink().map_err(|error| self.system(error))
    }

    /// A slave whose master is gone looks for another object of the name, with
    /// a living master. `current` is the one that it has.
    pub(crate) fn find_master(
        &self,
        config: &EndpointBuilder,
        current: &Attachment,
    ) -> Result<Attachment, OpenError> {
        let patience = Patience::SHORT;
        let segment = match SharedMemory::open(&self.path) {
            Ok(segment) => segment,
            Err(error) if error.is_not_found() => {
                return Err(OpenError::NotFound { name: self.name() });
            }
            Err(error) => return Err(self.system(error)),
        };
        // Its heartbeat would have told.
        if current.identity() == Some(segment.identity()) {
            return Err(OpenError::NoMaster { name: self.name() });
        }
        let lock = self.lock(&segment, patience)?;
        let linked = segment.is_linked().map_err(|error| self.system(error))?;
        let header = if linked { self.header(&segment)? } else { None };
        let Some(header) = header else {
            return Err(OpenError::NotReady { name: self.name() });
        };
        let master = Side::of_master(&header);
        if !(master.attached && master.exists() || self.lives(&segment, master, patience)) {
            return Err(OpenError::NoMaster { name: self.name() });
        }
        let Verdict::Attach { alone } = self.judge_slave(&segment, &header, config, patience)?
        else {
            return Err(OpenError::NotReady { name: self.name() });
        };
        let entered = self.enter(&segment, Role::Slave, alone)?;
        drop(lock);
        Ok(entered.of(segment))
    }

    fn lock<'a>(
        &self,
        segment: &'a SharedMemory,
        patience: Patience,
    ) -> Result<SegmentLock<'a>, OpenError> {
        match segment.lock(Deadline::after(patience.lock)) {
            Ok(Some(lock)) => Ok(lock),
            Ok(None) => Err(OpenError::Busy { name: self.name() }),
            Err(error) => Err(self.system(error)),
        }
    }

    /// The master of another object that took the name of `current`, when there
    /// is one.
    pub(crate) fn replaced_by(&self, current: &Attachment) -> Option<i32> {
        let segment = SharedMemory::open_read_only(&self.path).ok()?;
        if current.identity() == Some(segment.identity()) {
            return None;
        }
        let header = self.header(&segment).ok()??;
        let master = Side::of_master(&header);
        (master.attached && master.exists()).then_some(master.pid)
    }

    /// Whether an automatic endpoint may become master: there is no object, or
    /// none with a living master.
    pub(crate) fn is_orphaned(&self) -> bool {
        let segment = match SharedMemory::open(&self.path) {
            Ok(segment) => segment,
            Err(error) => return error.is_not_found(),
        };
        match self.header(&segment) {
            Ok(Some(header)) => !self.lives(&segment, Side::of_master(&header), Patience::SHORT),
            // Being made, or another's.
            Ok(None) | Err(_) => false,
        }
    }

    /// The checked header; `None` while there is none yet.
    fn header(&self, segment: &SharedMemory) -> Result<Option<Header>, OpenError> {
        let mut image = [0; HEADER_SIZE as usize];
        let len = segment
            .peek(&mut image)
            .map_err(|error| self.system(error))?;
        self.check_image(&image[..len])
    }

    /// As [`header`](Self::header), of the object's first bytes.
    pub(crate) fn check_image(&self, image: &[u8]) -> Result<Option<Header>, OpenError> {
        if image.get(..4).is_none_or(|magic| magic == [0; 4]) {
            return Ok(None);
        }
        let header = Header::read(image).map_err(|source| self.invalid(source))?;
        header.check().map_err(|source| self.invalid(source))?;
        Ok(Some(header))
    }

    fn judge(
        &self,
        segment: &SharedMemory,
        config: &EndpointBuilder,
        patience: Patience,
    ) -> Result<Verdict, OpenError> {
        let Some(header) = self.header(segment)? else {
            return Ok(Verdict::Unfinished);
        };
        let as_master = match config.role {
            Role::Slave => false,
            Role::Master => true,
            Role::Auto => {
                config.promote && !self.lives(segment, Side::of_master(&header), patience)
            }
        };
        if as_master {
            self.judge_master(segment, &header, patience)
        } else {
            self.judge_slave(segment, &header, config, patience)
        }
    }

    fn judge_master(
        &self,
        segment: &SharedMemory,
        header: &Header,
        patience: Patience,
    ) -> Result<Verdict, OpenError> {
        let master = Side::of_master(header);
        if self.lives(segment, master, patience) {
            return Err(OpenError::RoleTaken {
                name: self.name(),
                role: Role::Master,
                pid: master.pid,
            });
        }
        let slave = Side::of_slave(header);
        if !slave.attached {
            return Ok(Verdict::Replace);
        }
        match self.check_size(segment.len(), header) {
            Ok(()) => Ok(Verdict::TakeOver),
            // Its slave is dead too: nobody depends on it.
            Err(_) if !slave.exists() => Ok(Verdict::Replace),
            Err(error) => Err(error),
        }
    }

    fn judge_slave(
        &self,
        segment: &SharedMemory,
        header: &Header,
        config: &EndpointBuilder,
        patience: Patience,
    ) -> Result<Verdict, OpenError> {
        self.check_size(segment.len(), header)?;
        let slave = Side::of_slave(header);
        let lives = self.lives(segment, slave, patience);
        if lives && !config.share_role {
            return Err(OpenError::RoleTaken {
                name: self.name(),
                role: Role::Slave,
                pid: slave.pid,
            });
        }
        Ok(Verdict::Attach { alone: !lives })
    }

    pub(crate) fn check_size(&self, len: u64, header: &Header) -> Result<(), OpenError> {
        self.layout
            .check_len(len)
            .map_err(|source| self.invalid(source))?;
        match header.native_capacity.get() {
            0 => Ok(()),
            found if found == self.layout.capacity() => Ok(()),
            found => Err(OpenError::CapacityMismatch {
                name: self.name(),
                wanted: self.layout.capacity(),
                found,
            }),
        }
    }

    /// Whether a side is attached and lives.
    ///
    /// A pid may belong to another process by now, and in another pid namespace
    /// nobody has it: where the pid does not decide, the heartbeat does.
    fn lives(&self, segment: &SharedMemory, side: Side, patience: Patience) -> bool {
        /// The longest time between two heartbeats of a living peer, and some.
        const HEARTBEAT: Duration = Duration::from_millis(25);
        if !side.attached {
            return false;
        }
        let exists = side.exists();
        if side.heartbeat == 0 || (exists && mark_is_of(side.mark, side.pid)) {
            return exists;
        }
        let threshold = Duration::from_millis(side.threshold.into());
        let within = if exists {
            threshold.clamp(HEARTBEAT, patience.heartbeat.max(HEARTBEAT))
        } else {
            HEARTBEAT
        };
        self.beats(segment, side, within)
    }

    /// Whether a side's heartbeat moves in that time.
    fn beats(&self, segment: &SharedMemory, side: Side, within: Duration) -> bool {
        let end = Instant::now() + within;
        loop {
            match self.header(segment) {
                Ok(Some(header)) if side.now(&header).heartbeat != side.heartbeat => return true,
                Ok(Some(_)) if Instant::now() < end => std::thread::sleep(Self::LOOK_INTERVAL),
                _ => return false,
            }
        }
    }

    /// Maps the object and enters this process; the caller holds the lock.
    fn enter(
        &self,
        segment: &SharedMemory,
        role: Role,
        alone: bool,
    ) -> Result<Attachment, OpenError> {
        let region = Region::map(segment).map_err(|error| self.system(error))?;
        self.enter_region(&region, role, alone)
    }

    pub(crate) fn enter_region(
        &self,
        region: &Region,
        role: Role,
        alone: bool,
    ) -> Result<Attachment, OpenError> {
        let mut attachment = Attachment::new(region, self.layout, role, None)
            .map_err(|_| self.invalid(self.too_short(region.len() as u64)))?;
        if alone {
            attachment.repair();
        }
        attachment.start = attachment.incoming.cursor();
        attachment.enter(self.own);
        Ok(attachment)
    }

    /// Every place was checked against the length before.
    fn too_short(&self, len: u64) -> ImageError {
        ImageError::TooShort {
            len,
            need: self.layout.object_len(),
        }
    }

    /// Creates the object; `None` when another did meanwhile.
    fn create(&self, config: &EndpointBuilder) -> Result<Option<Attachment>, OpenError> {
        let len = self.layout.object_len();
        let segment = match SharedMemory::create_hidden(&self.path, len, config.mode) {
            Ok(segment) => segment,
            Err(error) if error.is_already_exists() => return Ok(None),
            Err(error) => return Err(self.system(error)),
        };
        let made = Region::map(&segment)
            .map_err(|error| self.system(error))
            .and_then(|region| self.fill(&region, config));
        let mut attachment = match made {
            Ok(made) => made,
            Err(error) => {
                // The first failure is the one to report.
                let _ = segment.unlink();
                return Err(error);
            }
        };
        match segment.publish() {
            Ok(()) => {}
            Err(error) if error.is_already_exists() => return Ok(None),
            Err(error) => return Err(self.system(error)),
        }
        attachment.created = true;
        Ok(Some(attachment.of(segment)))
    }

    /// Makes zeros an object with this process as its master.
    pub(crate) fn fill(
        &self,
        region: &Region,
        config: &EndpointBuilder,
    ) -> Result<Attachment, OpenError> {
        let attachment = Attachment::new(region, self.layout, Role::Master, None)
            .map_err(|_| self.invalid(self.too_short(region.len() as u64)))?;
        let capacity = if config.native_marks {
            self.layout.capacity()
        } else {
            0
        };
        let image = Header::new(config.threshold_ms(), capacity).to_bytes();
        let words = &attachment.header;
        words
            .bytes
            .write(offset::VERSION, &image[offset::VERSION..])
            .map_err(|_| self.invalid(self.too_short(region.len() as u64)))?;
        attachment.enter(self.own);
        // Release: last, for where the object is under its name already.
        words.magic.store(MAGIC, Release);
        Ok(attachment)
    }
}

impl Attachment {
    fn of(mut self, segment: SharedMemory) -> Self {
        self.segment = Some(segment);
        self
    }
}

/// One role in a copy of the header.
#[derive(Clone, Copy, Debug)]
struct Side {
    is_master: bool,
    attached: bool,
    pid: i32,
    mark: u32,
    heartbeat: u64,
    threshold: u32,
}

impl Side {
    fn of_master(header: &Header) -> Self {
        Self {
            is_master: true,
            attached: header.master_alive.get() != 0,
            pid: header.master_pid.get(),
            mark: header.native_master_mark.get(),
            heartbeat: header.master_heartbeat.get(),
            threshold: header.stale_threshold.get(),
        }
    }

    fn of_slave(header: &Header) -> Self {
        Self {
            is_master: false,
            attached: header.slave_alive.get() != 0,
            pid: header.slave_pid.get(),
            mark: header.native_slave_mark.get(),
            heartbeat: header.slave_heartbeat.get(),
            threshold: header.stale_threshold.get(),
        }
    }

    /// The same side in a later copy.
    fn now(&self, header: &Header) -> Self {
        if self.is_master {
            Self::of_master(header)
        } else {
            Self::of_slave(header)
        }
    }

    fn exists(&self) -> bool {
        exists(self.pid, self.mark)
    }
}
