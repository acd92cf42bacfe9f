//! One endpoint, used by the threads of a C program.

use crate::{
    code::{self, SUCCESS},
    settings::{InitError, Settings, number_of},
    types::{
        ESHMError::{self, ESHM_ERROR_NO_DATA, ESHM_ERROR_NOT_INITIALIZED, ESHM_ERROR_TIMEOUT},
        ESHMRole, ESHMStats,
    },
};
use parking_lot::{Mutex, MutexGuard};
use polyshm_eshm::{Connection, Deadline, DisconnectBehavior, ReadError, Receiver, Sender, Stats};
use std::{mem, sync::Arc, time::Duration};

/// What a handle stands for.
///
/// Writers wait for each other, and readers for each other, but not one for the
/// other: a read may take its whole timeout.
#[derive(Debug)]
pub(crate) struct Handle {
    /// Also serves what neither reads nor writes.
    sender: Mutex<Sender>,
    receiver: Mutex<Receiver>,
    capacity: usize,
    /// A slave that loses its master stays attached.
    stays: bool,
    /// The process that opened it.
    process: u32,
}

impl Handle {
    pub(crate) fn open(settings: &Settings, capacity: u64) -> Result<Self, InitError> {
        let endpoint = settings.builder(capacity)?.open(settings.name()?)?;
        let (sender, receiver) = endpoint.split();
        Ok(Self {
            capacity: sender.capacity(),
            sender: Mutex::new(sender),
            receiver: Mutex::new(receiver),
            stays: settings.disconnect_behavior()? == DisconnectBehavior::Immediately,
            process: std::process::id(),
        })
    }

    /// The longest message.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn write(&self, data: &[u8]) -> code::Answer {
        match self.sender.lock().write(data) {
            Ok(()) => SUCCESS,
            Err(error) => Err(code::of_write(&error)),
        }
    }

    /// Reads into a buffer; gives the message's length.
    pub(crate) fn read(&self, buffer: &mut [u8], timeout: Duration) -> Result<usize, ESHMError> {
        self.receive(timeout, |receiver, deadline| match deadline {
            None => Ok(receiver.try_read_into(buffer)?.map(|received| received.len)),
            Some(deadline) => receiver
                .read_into(buffer, deadline)
                .map(|received| Some(received.len)),
        })
    }

    /// Reads into fresh memory.
    pub(crate) fn read_message(&self, timeout: Duration) -> Result<Vec<u8>, ESHMError> {
        self.receive(timeout, |receiver, deadline| match deadline {
            None => Ok(receiver.try_read()?.map(Into::into)),
            Some(deadline) => receiver
                .read_timeout(deadline)
                .map(|message| Some(message.into())),
        })
    }

    /// Has `read` called with the deadline, or without one when it is not to
    /// wait, as soon as no other thread reads.
    fn receive<T>(
        &self,
        timeout: Duration,
        read: impl FnOnce(&mut Receiver, Option<Deadline>) -> Result<Option<T>, ReadError>,
    ) -> Result<T, ESHMError> {
        // While another thread reads: the next message is for that one.
        let (deadline, receiver) = if timeout.is_zero() {
            (None, self.receiver.try_lock())
        } else {
            (
                Some(Deadline::after(timeout)),
                self.receiver.try_lock_for(timeout),
            )
        };
        let read = match receiver {
            Some(mut receiver) => read(&mut receiver, deadline),
            None => Ok(None),
        };
        match read {
            Ok(Some(message)) => Ok(message),
            Ok(None) if deadline.is_some() => Err(ESHM_ERROR_TIMEOUT),
            Ok(None) if self.is_detached(self.sender.lock().connection()) => {
                Err(ESHM_ERROR_TIMEOUT)
            }
            Ok(None) => Err(ESHM_ERROR_NO_DATA),
            Err(error) => Err(code::of_read(&error)),
        }
    }

    /// Whether the reference would have unmapped the object.
    fn is_detached(&self, connection: Connection) -> bool {
        match connection {
            Connection::Reconnecting | Connection::Closed => true,
            Connection::GaveUp => !self.stays,
            _ => false,
        }
    }

    /// A lock for a moment, but for a write that waits for other processes.
    fn attached(&self) -> Result<MutexGuard<'_, Sender>, ESHMError> {
        let sender = self.sender.lock();
        if self.is_detached(sender.connection()) {
            Err(ESHM_ERROR_NOT_INITIALIZED)
        } else {
            Ok(sender)
        }
    }

    pub(crate) fn update_heartbeat(&self) -> code::Answer {
        match self.sender.lock().update_heartbeat() {
            Ok(()) => SUCCESS,
            Err(_) => Err(ESHM_ERROR_NOT_INITIALIZED),
        }
    }

    pub(crate) fn is_remote_alive(&self) -> bool {
        self.attached()
            .is_ok_and(|sender| sender.remote().is_alive())
    }

    pub(crate) fn stats(&self) -> Result<ESHMStats, ESHMError> {
        Ok(self.attached()?.stats().into())
    }

    pub(crate) fn role(&self) -> ESHMRole {
        number_of(self.sender.lock().role())
    }

    /// Leaves the object. A read that waits ends soon.
    ///
    /// A forked child has nothing to leave, since its parent is the one that is
    /// attached; and threads that it does not have may hold locks in it for
    /// ever. It keeps its copy.
    pub(crate) fn close(this: Arc<Self>) {
        if this.process == std::process::id() {
            this.sender.lock().close();
        } else {
            mem::forget(this);
        }
    }
}

impl From<Stats> for ESHMStats {
    fn from(stats: Stats) -> Self {
        Self {
            master_heartbeat: stats.master_heartbeat,
            slave_heartbeat: stats.slave_heartbeat,
            master_pid: stats.master_pid,
            slave_pid: stats.slave_pid,
            master_alive: stats.master_alive,
            slave_alive: stats.slave_alive,
            stale_threshold: stats.stale_threshold,
            master_heartbeat_delta: stats.master_heartbeat_delta,
            slave_heartbeat_delta: stats.slave_heartbeat_delta,
            m2s_write_count: stats.m2s_write_count,
            m2s_read_count: stats.m2s_read_count,
            s2m_write_count: stats.s2m_write_count,
            s2m_read_count: stats.s2m_read_count,
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::{
        settings,
        table::Table,
        types::{
            ESHMDisconnectBehavior,
            ESHMError::{ESHM_ERROR_BUFFER_TOO_SMALL, ESHM_ERROR_MASTER_STALE, ESHM_SUCCESS},
            ESHMRole::{ESHM_ROLE_AUTO, ESHM_ROLE_MASTER, ESHM_ROLE_SLAVE},
        },
    };
    use polyshm_eshm::OpenError;
    use polyshm_testkit::Name;
    use std::{
        ffi::c_int,
        sync::atomic::{AtomicBool, Ordering::Relaxed},
        thread,
        time::Instant,
    };

    const LONG: Duration = Duration::from_mins(1);
    const DONE: code::Answer = Ok(ESHM_SUCCESS as c_int);

    fn open(name: &Name, role: ESHMRole) -> Handle {
        Handle::open(&settings::for_tests(name, role), 64).unwrap()
    }

    fn read(handle: &Handle, timeout: Duration) -> Result<Vec<u8>, ESHMError> {
        let mut buffer = [0; 64];
        let len = handle.read(&mut buffer, timeout)?;
        Ok(buffer[..len].to_vec())
    }

    #[track_caller]
    fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + LONG;
        while !holds() {
            assert!(Instant::now() < end, "never: {what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn several_slaves_share_a_channel() {
        let name = Name::new("c-slaves");
        let master = open(&name, ESHM_ROLE_MASTER);
        let slaves = [open(&name, ESHM_ROLE_SLAVE), open(&name, ESHM_ROLE_AUTO)];
        assert_eq!(master.write(b"all"), DONE);
        for slave in &slaves {
            assert_eq!(slave.role(), ESHM_ROLE_SLAVE);
            assert_eq!(read(slave, Duration::ZERO).unwrap(), b"all");
            assert_eq!(slave.write(b"one"), DONE);
            assert_eq!(read(&master, Duration::ZERO).unwrap(), b"one");
        }
        assert_eq!(master.stats().unwrap().m2s_read_count, 2);
        let second = Handle::open(&settings::for_tests(&name, ESHM_ROLE_MASTER), 64);
        assert!(matches!(
            second,
            Err(InitError::Open(OpenError::RoleTaken { .. }))
        ));
        drop((slaves, master));
        name.assert_nothing_left();
    }

    #[test]
    fn nothing_too_long_is_written_or_taken() {
        let name = Name::new("c-long");
        let master = open(&name, ESHM_ROLE_MASTER);
        let slave = open(&name, ESHM_ROLE_SLAVE);
        assert_eq!(master.write(&[1; 64]), DONE);
        assert_eq!(master.write(&[2; 65]), Err(ESHM_ERROR_BUFFER_TOO_SMALL));
        for timeout in [Duration::ZERO, LONG] {
            let refused = slave.read(&mut [0; 63], timeout);
            assert_eq!(refused, Err(ESHM_ERROR_BUFFER_TOO_SMALL));
        }
        assert_eq!(slave.read_message(LONG).unwrap(), [1; 64]);
        let empty = slave.read_message(Duration::ZERO);
        assert_eq!(empty, Err(ESHM_ERROR_NO_DATA));
    }

    #[test]
    fn a_read_that_waits_is_in_nobodys_way_and_ends_with_the_endpoint() {
        let name = Name::new("c-wait");
        let master = Arc::new(open(&name, ESHM_ROLE_MASTER));
        thread::scope(|scope| {
            let reads = scope.spawn(|| read(&master, LONG));
            wait_until("the thread reads", || master.receiver.is_locked());
            assert_eq!(master.write(b"meanwhile"), DONE);
            assert!(master.stats().is_ok());
            assert_eq!(master.role(), ESHM_ROLE_MASTER);
            // The next message is the other thread's.
            assert_eq!(read(&master, Duration::ZERO), Err(ESHM_ERROR_NO_DATA));
            let short = Duration::from_millis(10);
            let started = Instant::now();
            assert_eq!(read(&master, short), Err(ESHM_ERROR_TIMEOUT));
            assert!(started.elapsed() >= short);
            let waits_for_the_other = scope.spawn(|| read(&master, LONG));
            thread::sleep(Duration::from_millis(5));
            assert!(!reads.is_finished() && !waits_for_the_other.is_finished());
            Handle::close(Arc::clone(&master));
            for ended in [reads, waits_for_the_other] {
                assert_eq!(ended.join().unwrap(), Err(ESHM_ERROR_NOT_INITIALIZED));
            }
        });
        name.assert_nothing_left();
        assert_eq!(master.write(b"late"), Err(ESHM_ERROR_NOT_INITIALIZED));
        assert_eq!(master.stats(), Err(ESHM_ERROR_NOT_INITIALIZED));
        assert_eq!(master.update_heartbeat(), Err(ESHM_ERROR_NOT_INITIALIZED));
        assert!(!master.is_remote_alive());
        assert_eq!(master.role(), ESHM_ROLE_MASTER);
        Handle::close(master);
    }

    #[test]
    fn a_slave_without_a_master_answers_as_one_that_is_detached() {
        let name = Name::new("c-detached");
        let master = open(&name, ESHM_ROLE_MASTER);
        let settings = Settings {
            reconnect_wait_ms: 0,
            max_reconnect_attempts: 0,
            ..settings::for_tests(&name, ESHM_ROLE_SLAVE)
        };
        let slave = Handle::open(&settings, 64).unwrap();
        wait_until("the master is heard", || slave.is_remote_alive());
        drop(master);
        wait_until("the slave reconnects", || slave.stats().is_err());
        assert_eq!(slave.stats(), Err(ESHM_ERROR_NOT_INITIALIZED));
        assert_eq!(slave.update_heartbeat(), Err(ESHM_ERROR_NOT_INITIALIZED));
        assert!(!slave.is_remote_alive());
        assert_eq!(slave.write(b"lost"), Err(ESHM_ERROR_TIMEOUT));
        let short = Duration::from_millis(1);
        for timeout in [Duration::ZERO, short] {
            assert_eq!(read(&slave, timeout), Err(ESHM_ERROR_TIMEOUT));
        }

        let master = open(&name, ESHM_ROLE_MASTER);
        assert_eq!(master.write(b"back"), DONE);
        assert_eq!(read(&slave, LONG).unwrap(), b"back");
        wait_until("the slave is attached", || slave.write(b"here") == DONE);
        assert!(slave.is_remote_alive());
        assert_eq!(read(&master, LONG).unwrap(), b"here");
    }

    #[test]
    fn a_slave_that_gave_up_stays_detached() {
        let name = Name::new("c-gave-up");
        let master = open(&name, ESHM_ROLE_MASTER);
        let settings = Settings {
            reconnect_retry_interval_ms: 1,
            max_reconnect_attempts: 2,
            ..settings::for_tests(&name, ESHM_ROLE_SLAVE)
        };
        let slave = Handle::open(&settings, 64).unwrap();
        wait_until("the master is heard", || slave.is_remote_alive());
        drop(master);
        let gave_up = || slave.sender.lock().connection() == Connection::GaveUp;
        wait_until("the slave gives up", gave_up);
        for timeout in [Duration::ZERO, LONG] {
            let started = Instant::now();
            assert_eq!(read(&slave, timeout), Err(ESHM_ERROR_TIMEOUT));
            assert!(started.elapsed() < LONG / 2, "there is nothing to wait for");
        }
        assert_eq!(slave.write(b"lost"), Err(ESHM_ERROR_TIMEOUT));
        assert_eq!(slave.stats(), Err(ESHM_ERROR_NOT_INITIALIZED));
        assert_eq!(slave.update_heartbeat(), Err(ESHM_ERROR_NOT_INITIALIZED));
        assert!(!slave.is_remote_alive());
    }

    #[test]
    fn who_disconnects_immediately_reads_no_more_and_stays_attached() {
        let name = Name::new("c-immediately");
        let master = open(&name, ESHM_ROLE_MASTER);
        let settings = Settings {
            disconnect_behavior: ESHMDisconnectBehavior::ESHM_DISCONNECT_IMMEDIATELY as c_int,
            ..settings::for_tests(&name, ESHM_ROLE_SLAVE)
        };
        let slave = Handle::open(&settings, 64).unwrap();
        wait_until("the master is heard", || slave.is_remote_alive());
        drop(master);
        wait_until("the master is missed", || !slave.is_remote_alive());
        for timeout in [Duration::ZERO, LONG] {
            assert_eq!(read(&slave, timeout), Err(ESHM_ERROR_MASTER_STALE));
        }
        assert_eq!(slave.write(b"into the void"), DONE);
        assert_eq!(slave.stats().unwrap().s2m_write_count, 1);
        assert_eq!(slave.update_heartbeat(), DONE);
    }

    #[test]
    fn without_threads_the_heart_beats_by_hand() {
        let name = Name::new("c-by-hand");
        let settings = Settings {
            use_threads: false,
            ..settings::for_tests(&name, ESHM_ROLE_MASTER)
        };
        let master = Handle::open(&settings, 64).unwrap();
        for beats in 0..3 {
            let stats = master.stats().unwrap();
            assert_eq!(stats.master_heartbeat, beats);
            assert_eq!(stats.master_heartbeat_delta, beats.min(1));
            assert_eq!(master.update_heartbeat(), DONE);
        }
        assert!(!master.is_remote_alive());
        let slave = open(&name, ESHM_ROLE_SLAVE);
        wait_until("the slave is heard", || master.is_remote_alive());
        drop(slave);
        wait_until("the slave is missed", || !master.is_remote_alive());
    }

    /// Everything at once, while the endpoint is closed and opened again.
    #[test]
    fn threads_may_do_what_they_like() {
        let name = Name::new("c-threads");
        let table = Table::new();
        let number = table.insert(open(&name, ESHM_ROLE_MASTER));
        let slave = open(&name, ESHM_ROLE_SLAVE);
        let over = AtomicBool::new(false);
        let known = |answer: Result<Vec<u8>, ESHMError>| {
            use crate::types::ESHMError::ESHM_ERROR_TIMEOUT;
            match answer {
                Ok(message) => assert!(message.iter().all(|&byte| byte == message[0])),
                Err(error) => assert!(
                    [
                        ESHM_ERROR_NO_DATA,
                        ESHM_ERROR_TIMEOUT,
                        ESHM_ERROR_NOT_INITIALIZED
                    ]
                    .contains(&error)
                ),
            }
        };
        thread::scope(|scope| {
            for byte in 1..=2 {
                scope.spawn({
                    let (table, over, slave) = (&table, &over, &slave);
                    move || {
                        while let Some(master) = table.get(number) {
                            let _ = master.write(&[byte; 64]);
                            known(read(&master, Duration::from_millis(1)));
                            known(read(&master, Duration::ZERO));
                            let _ = (master.stats(), master.is_remote_alive());
                            let _ = master.update_heartbeat();
                            let _ = slave.write(&[byte; 32]);
                        }
                        over.store(true, Relaxed);
                    }
                });
            }
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    known(read(&slave, Duration::from_millis(1)));
                }
            });
            wait_until("much was written", || {
                slave
                    .stats()
                    .is_ok_and(|stats| stats.m2s_write_count > 1000)
            });
            Handle::close(table.remove(number).unwrap());
        });
        name.assert_nothing_left();
    }
}
