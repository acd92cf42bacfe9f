//! What the halves of an endpoint and the heartbeat thread share: the
//! attachment, and the state of the connection (format, section 5).

use crate::{
    DisconnectBehavior, EndpointBuilder, Event, HeartbeatError, OpenError, Role,
    attachment::{Attachment, Object, Patience},
    event::Listeners,
    monitor::{Change, Monitor, Remote},
    pulse,
    stats::Stats,
};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{
            AtomicU32,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::{Duration, Instant},
};

/// One endpoint.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) object: Object,
    pub(crate) config: EndpointBuilder,
    /// Moves whenever a half must look at the state again.
    epoch: AtomicU32,
    state: Mutex<State>,
    pub(crate) listeners: Listeners,
}

#[derive(Debug)]
struct State {
    /// `None` once closed.
    attachment: Option<Arc<Attachment>>,
    /// The attachment's, also when it is gone.
    role: Role,
    phase: Phase,
    monitor: Monitor,
    /// Heartbeats at the last statistics.
    told: (u64, u64),
    /// Up to when there are heartbeats.
    beaten: Instant,
    /// When something that costs system calls was looked at.
    looked: Instant,
    /// The own heartbeat while another process beats it.
    usurper: u64,
    /// The incoming number at the last step, if it was odd.
    odd: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Connected,
    Reconnecting {
        since: Instant,
        next: Instant,
        attempts: u32,
    },
    /// Disconnected at once, and for good.
    Lost,
    GaveUp,
    Displaced(i32),
    Closed,
}

/// How a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Connection {
    /// Attached. Says nothing about the other side, see
    /// [`Endpoint::remote`](crate::Endpoint::remote).
    Attached,
    /// A slave looks for a master.
    Reconnecting,
    /// A slave has stopped looking, or did not begin to.
    GaveUp,
    /// Another process has this endpoint's role.
    Displaced,
    /// The endpoint was closed.
    Closed,
}

/// What a half may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    Open,
    /// Reads fail, writes do not.
    Stale,
    Reconnecting,
    GaveUp,
    Displaced(i32),
    Closed,
}

impl Core {
    pub(crate) fn new(
        object: Object,
        config: EndpointBuilder,
        attachment: Attachment,
    ) -> Result<Arc<Self>, OpenError> {
        let listeners = Listeners::new(config.callback.clone());
        let monitor = Monitor::new(attachment.remote());
        let core = Arc::new(Self {
            object,
            epoch: AtomicU32::new(0),
            state: Mutex::new(State {
                role: attachment.role,
                attachment: Some(Arc::new(attachment)),
                phase: Phase::Connected,
                monitor,
                told: (0, 0),
                beaten: Instant::now(),
                looked: Instant::now(),
                usurper: 0,
                odd: None,
            }),
            listeners,
            config,
        });
        if core.config.threads {
            // Before anybody can take it for an endpoint without heartbeats.
            core.beat();
            if let Err(source) = pulse::enroll(&core) {
                core.close();
                return Err(core.object.no_thread(source));
            }
        }
        Ok(core)
    }

    fn beat(&self) {
        if let Some(attachment) = &self.state.lock().attachment {
            attachment.own().heartbeat.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn name(&self) -> Arc<str> {
        Arc::clone(&self.object.name)
    }

    #[inline]
    pub(crate) fn epoch(&self) -> u32 {
        // Acquire: pairs with the release in `change`.
        self.epoch.load(Acquire)
    }

    /// Has the halves look again.
    fn change(&self) {
        // Release: pairs with the acquire in `epoch`; the state itself is
        // behind its lock.
        self.epoch.fetch_add(1, Release);
    }

    /// The attachment (`None` once closed), what may be done, and the epoch at
    /// which that was so.
    pub(crate) fn view(&self) -> (Option<Arc<Attachment>>, View, u32) {
        let state = self.state.lock();
        let view = match state.phase {
            Phase::Connected => match state.monitor.remote() {
                Remote::Stale | Remote::Closed if self.disconnects_at_once() => View::Stale,
                _ => View::Open,
            },
            Phase::Reconnecting { .. } => View::Reconnecting,
            Phase::Lost => View::Stale,
            Phase::GaveUp => View::GaveUp,
            Phase::Displaced(pid) => View::Displaced(pid),
            Phase::Closed => View::Closed,
        };
        // Relaxed: it moves under the lock only.
        (state.attachment.clone(), view, self.epoch.load(Relaxed))
    }

    /// Without threads nobody watches while a read waits.
    fn disconnects_at_once(&self) -> bool {
        self.config.threads && self.config.disconnect_behavior == DisconnectBehavior::Immediately
    }

    pub(crate) fn connection(&self) -> Connection {
        match self.state.lock().phase {
            Phase::Connected => Connection::Attached,
            Phase::Reconnecting { .. } => Connection::Reconnecting,
            Phase::Lost | Phase::GaveUp => Connection::GaveUp,
            Phase::Displaced(_) => Connection::Displaced,
            Phase::Closed => Connection::Closed,
        }
    }

    pub(crate) fn role(&self) -> Role {
        self.state.lock().role
    }

    /// How the other side is. Without threads it is looked at now.
    pub(crate) fn remote(&self) -> Remote {
        if !self.config.threads {
            self.look(false);
        }
        self.state.lock().monitor.remote()
    }

    /// A heartbeat and a look, for endpoints without threads.
    pub(crate) fn update_heartbeat(&self) -> Result<(), HeartbeatError> {
        let name = || self.name();
        if !self.config.threads {
            self.look(true);
        }
        match self.state.lock().phase {
            Phase::Connected | Phase::Lost => Ok(()),
            Phase::Reconnecting { .. } | Phase::GaveUp => {
                Err(HeartbeatError::Disconnected { name: name() })
            }
            Phase::Displaced(pid) => Err(HeartbeatError::Displaced { name: name(), pid }),
            Phase::Closed => Err(HeartbeatError::Closed { name: name() }),
        }
    }

    /// One step of the heartbeat thread; gives the time until the next.
    pub(crate) fn tick(&self) -> Duration {
        self.step(true, true)
    }

    /// A step of an endpoint without threads: it never leaves its object.
    fn look(&self, beat: bool) {
        self.step(beat, false);
    }

    fn step(&self, beat: bool, threads: bool) -> Duration {
        let mut events = Vec::new();
        let interval = self.state.lock().step(self, beat, threads, &mut events);
        for event in &events {
            self.listeners.tell(&self.object.name, event);
        }
        interval
    }

    /// Looks for a master now; see
    /// [`Endpoint::reconnect`](crate::Endpoint::reconnect).
    pub(crate) fn reconnect(&self) -> Result<(), OpenError> {
        let mut events = Vec::new();
        let result = self.state.lock().reconnect(self, &mut events);
        for event in &events {
            self.listeners.tell(&self.object.name, event);
        }
        result
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut state = self.state.lock();
        let Some(attachment) = &state.attachment else {
            return Stats::default();
        };
        let numbers = Stats::of(attachment, state.told);
        state.told = (numbers.master_heartbeat, numbers.slave_heartbeat);
        numbers
    }

    /// Leaves the object. A second call does nothing.
    pub(crate) fn close(self: &Arc<Self>) {
        if !self.object.own.is_this_process() {
            // A forked child's copy: the parent is the one that is entered, and
            // threads that the child does not have may hold the locks for ever.
            return;
        }
        let attachment = {
            let mut state = self.state.lock();
            state.phase = Phase::Closed;
            let attachment = state.attachment.take();
            self.change();
            attachment
        };
        let Some(attachment) = attachment else {
            return;
        };
        if self.config.threads {
            pulse::resign(self);
        }
        attachment.leave(self.object.own, self.config.auto_cleanup, Patience::USUAL);
        attachment.incoming.nudge();
        self.listeners.close();
    }
}

impl State {
    fn step(
        &mut self,
        core: &Core,
        beat: bool,
        threads: bool,
        events: &mut Vec<Event>,
    ) -> Duration {
        /// The longest sleep between two steps.
        const LONGEST: Duration = Duration::from_millis(10);
        let own = core.object.own;
        let Some(attachment) = self.attachment.clone() else {
            return LONGEST;
        };
        let now = Instant::now();
        if matches!(self.phase, Phase::Displaced(_)) {
            self.after_displacement(core, &attachment, now);
            return LONGEST;
        }
        if matches!(self.phase, Phase::Connected | Phase::Reconnecting { .. })
            && !core.shares_role(&attachment)
            && let Some(pid) = attachment.displaced(own)
        {
            self.displace(core, pid, events);
            return LONGEST;
        }
        // Who gave up has left, and who is lost for good is not waited for.
        if beat && !matches!(self.phase, Phase::GaveUp | Phase::Lost) {
            let side = attachment.own();
            // Update: endpoints that share the role beat too. Relaxed: only
            // that it moves matters.
            side.heartbeat.fetch_add(self.beats(now), Relaxed);
            if !side.is_attached() {
                // Another of the same role left, and cleared the flag.
                attachment.enter_again(own);
            }
        }
        let threshold = core.threshold(&attachment);
        let interval = (threshold.min(attachment.stale_threshold()) / 10)
            .min(core.config.reconnect_interval)
            .clamp(pulse::LEAST_INTERVAL, LONGEST);
        let change = self.monitor.observe(
            attachment.remote(),
            attachment.role,
            threshold,
            threads,
            now,
        );
        if !threads {
            if let Some(change) = change {
                events.push(change.event());
            }
            return interval;
        }
        self.mend(&attachment);
        match self.phase {
            Phase::Connected => {
                if let Some(change) = change {
                    self.connected(core, &attachment, change, now, events);
                }
                if attachment.role == Role::Master && self.monitor.remote() != Remote::Alive {
                    self.alone(core, &attachment, now, events);
                }
            }
            Phase::Reconnecting { attempts, .. } => {
                if matches!(change, Some(Change::Joined | Change::Heard)) {
                    self.back(core, &attachment, attempts, events);
                } else {
                    self.search(core, &attachment, now, events);
                }
            }
            Phase::Lost | Phase::GaveUp | Phase::Displaced(_) | Phase::Closed => {}
        }
        interval
    }

    /// One heartbeat for each millisecond since the last: the rate of the
    /// reference. At least one, and not many after a long stop.
    fn beats(&mut self, now: Instant) -> u64 {
        const MOST: u64 = 100;
        let passed = now.saturating_duration_since(self.beaten);
        let beats = u64::try_from(passed.as_millis()).unwrap_or(MOST);
        if (1..=MOST).contains(&beats) {
            self.beaten += Duration::from_millis(beats);
        } else {
            self.beaten = now;
        }
        beats.clamp(1, MOST)
    }

    /// Whether it is time again for a look that costs system calls.
    fn is_due(&mut self, now: Instant, interval: Duration) -> bool {
        let due = now.saturating_duration_since(self.looked) >= interval;
        if due {
            self.looked = now;
        }
        due
    }

    fn displace(&mut self, core: &Core, pid: i32, events: &mut Vec<Event>) {
        self.phase = Phase::Displaced(pid);
        core.change();
        events.push(Event::Displaced { pid });
    }

    /// A slave takes its place again when the one that took it has left, and
    /// then looks for the master, which it has not watched meanwhile.
    fn after_displacement(&mut self, core: &Core, attachment: &Attachment, now: Instant) {
        const INTERVAL: Duration = Duration::from_millis(100);
        if attachment.role != Role::Slave || !self.is_due(now, INTERVAL) {
            return;
        }
        let side = attachment.own();
        let heartbeat = side.heartbeat.load(Relaxed);
        // This endpoint does not beat now, so another does where it moves.
        let moves = std::mem::replace(&mut self.usurper, heartbeat) != heartbeat;
        if !moves && !side.lives() {
            attachment.enter_again(core.object.own);
            self.phase = Phase::Reconnecting {
                since: now,
                next: now,
                attempts: 0,
            };
            self.monitor = Monitor::new(attachment.remote());
            core.change();
        }
    }

    /// A writer that dies in a message leaves its number odd. The sooner it is
    /// even the better: a successor of another implementation goes on from it.
    fn mend(&mut self, attachment: &Attachment) {
        let odd = attachment.incoming.odd();
        // A writer of another pid namespace does not exist here, and beats.
        if odd.is_some()
            && odd == self.odd
            && self.monitor.is_silent()
            && !attachment.remote().exists()
        {
            attachment.mend(Patience::SHORT);
        }
        self.odd = odd;
    }

    /// A master without a slave may have been replaced, as masters of other
    /// implementations do.
    fn alone(
        &mut self,
        core: &Core,
        attachment: &Attachment,
        now: Instant,
        events: &mut Vec<Event>,
    ) {
        const INTERVAL: Duration = Duration::from_secs(1);
        if self.is_due(now, INTERVAL)
            && let Some(pid) = core.object.replaced_by(attachment)
        {
            self.displace(core, pid, events);
        }
    }

    /// What a change means while connected.
    fn connected(
        &mut self,
        core: &Core,
        attachment: &Attachment,
        change: Change,
        now: Instant,
        events: &mut Vec<Event>,
    ) {
        let is_stale = matches!(change, Change::Silent { .. } | Change::Left { .. });
        events.push(change.event());
        if attachment.role == Role::Slave && is_stale {
            self.phase = if core.disconnects_at_once() {
                Phase::Lost
            } else {
                Phase::Reconnecting {
                    since: now,
                    next: now,
                    attempts: 0,
                }
            };
            core.change();
            attachment.incoming.nudge();
        } else if core.disconnects_at_once() {
            core.change();
            attachment.incoming.nudge();
        }
    }

    /// The own object has a living master again.
    fn back(
        &mut self,
        core: &Core,
        attachment: &Attachment,
        attempts: u32,
        events: &mut Vec<Event>,
    ) {
        attachment.enter_again(core.object.own);
        self.phase = Phase::Connected;
        core.change();
        attachment.incoming.nudge();
        events.push(Event::Reconnected {
            attempts,
            recreated: false,
        });
    }

    /// One step of looking for a master.
    fn search(
        &mut self,
        core: &Core,
        attachment: &Attachment,
        now: Instant,
        events: &mut Vec<Event>,
    ) {
        let Phase::Reconnecting {
            since,
            next,
            mut attempts,
        } = self.phase
        else {
            return;
        };
        let config = &core.config;
        let unlimited = config.disconnect_behavior == DisconnectBehavior::Never;
        let limit =
            (!unlimited && config.reconnect_attempts > 0).then_some(config.reconnect_attempts);
        if now >= next && limit.is_none_or(|limit| attempts < limit) {
            attempts = attempts.saturating_add(1);
            self.phase = Phase::Reconnecting {
                since,
                next: after(now, config.reconnect_interval),
                attempts,
            };
            events.push(Event::Reconnecting {
                attempt: attempts,
                limit,
            });
            match self.attempt(core, attachment, attempts, events) {
                Ok(()) => return,
                Err(error) => {
                    tracing::debug!(target: "polyshm_eshm", %error, attempts, "no master found");
                }
            }
        }
        let waited = now - since;
        let wait = config.reconnect_wait;
        if limit.is_some_and(|limit| attempts >= limit)
            || (!unlimited && !wait.is_zero() && waited >= wait)
        {
            self.phase = Phase::GaveUp;
            // A slave that comes after, or a master that closes, need not spare it.
            attachment.leave(core.object.own, false, Patience::SHORT);
            core.change();
            attachment.incoming.nudge();
            events.push(Event::GaveUp { attempts, waited });
        }
    }

    /// One attempt to find another object with a living master, or to become
    /// the master.
    fn attempt(
        &mut self,
        core: &Core,
        attachment: &Attachment,
        attempts: u32,
        events: &mut Vec<Event>,
    ) -> Result<(), OpenError> {
        let config = &core.config;
        match core.object.find_master(config, attachment) {
            Ok(found) => {
                self.switch(core, attachment, found);
                events.push(Event::Reconnected {
                    attempts,
                    recreated: true,
                });
                Ok(())
            }
            Err(_) if config.promote && config.role == Role::Auto && core.object.is_orphaned() => {
                // As a slave nobody needs to be spared any more.
                attachment.leave(core.object.own, false, Patience::SHORT);
                let master = config.clone().role(Role::Master);
                match core.object.open(&master, Patience::SHORT) {
                    Ok(found) => {
                        self.switch(core, attachment, found);
                        events.push(Event::Promoted);
                        Ok(())
                    }
                    Err(error) => {
                        attachment.enter_again(core.object.own);
                        Err(error)
                    }
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Goes over to another object. Halves that use the old one keep it mapped
    /// until they look again.
    fn switch(&mut self, core: &Core, old: &Attachment, new: Attachment) {
        if new.role == old.role {
            old.leave(core.object.own, false, Patience::SHORT);
        }
        self.monitor = Monitor::after_reconnection(new.remote(), new.role);
        self.role = new.role;
        self.attachment = Some(Arc::new(new));
        self.phase = Phase::Connected;
        core.change();
        old.incoming.nudge();
    }

    fn reconnect(&mut self, core: &Core, events: &mut Vec<Event>) -> Result<(), OpenError> {
        let name = || core.name();
        let Some(attachment) = self.attachment.clone() else {
            return Err(OpenError::Closed { name: name() });
        };
        if let Phase::Displaced(pid) = self.phase {
            if attachment.role == Role::Slave && !attachment.own().lives() {
                self.back(core, &attachment, 0, events);
                return Ok(());
            }
            return Err(OpenError::RoleTaken {
                name: name(),
                role: attachment.role,
                pid,
            });
        }
        // It left when it gave up; another may have entered since.
        if matches!(self.phase, Phase::GaveUp)
            && !core.shares_role(&attachment)
            && let Some(pid) = attachment.displaced(core.object.own)
            && attachment.own().lives()
        {
            return Err(OpenError::RoleTaken {
                name: name(),
                role: attachment.role,
                pid,
            });
        }
        let now = Instant::now();
        let threshold = core.threshold(&attachment);
        let threads = core.config.threads;
        let change = self.monitor.observe(
            attachment.remote(),
            attachment.role,
            threshold,
            threads,
            now,
        );
        if let (Some(change), Phase::Connected) = (change, self.phase) {
            if threads {
                self.connected(core, &attachment, change, now, events);
            } else {
                events.push(change.event());
            }
        }
        let connected = matches!(self.phase, Phase::Connected);
        match self.monitor.remote() {
            Remote::Alive if !connected && attachment.remote().is_attached() => {
                self.back(core, &attachment, 0, events);
                return Ok(());
            }
            // Without threads the last look may be long ago.
            Remote::Alive if connected && (threads || attachment.remote().lives()) => {
                return Ok(());
            }
            Remote::NeverSeen if connected && attachment.remote().lives() => return Ok(()),
            // A master has nothing to look for.
            _ if attachment.role != Role::Slave => return Ok(()),
            _ => {}
        }
        let result = self.attempt(core, &attachment, 1, events);
        if result.is_err() && threads && !connected {
            self.phase = Phase::Reconnecting {
                since: now,
                next: after(now, core.config.reconnect_interval),
                attempts: 1,
            };
            core.change();
        }
        result
    }
}

/// A moment that far off; a far one when the clock does not reach it.
fn after(now: Instant, interval: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(1 << 30);
    now.checked_add(interval).unwrap_or(now + FAR)
}

impl Core {
    /// Whether others may have this endpoint's role too.
    pub(crate) fn shares_role(&self, attachment: &Attachment) -> bool {
        self.config.share_role && attachment.role == Role::Slave
    }

    /// The own one, when it was set, or the creator's.
    fn threshold(&self, attachment: &Attachment) -> Duration {
        /// The other side does not know of it, and beats each 10 ms at least.
        const LEAST: Duration = Duration::from_millis(30);
        match self.config.own_threshold {
            Some(own) => own.max(LEAST),
            None => attachment.stale_threshold(),
        }
    }
}
