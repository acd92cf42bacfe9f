//! The recorded sessions of the C++ implementation, done again by polyshm: the
//! same steps in as many processes, the same results, and the same object to
//! the byte, but for what is listed as a deviation, each with its reason.
#![cfg(all(not(loom), target_os = "linux"))]

use polyshm_eshm::{Endpoint, OpenError, ReadError, Role, WriteError, testing::HeapObject};
use polyshm_testkit::{Guarded, Name, Outcome, child, role, tell};
use polyshm_wire::eshm::{Direction, Layout, describe, offset};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs::{self, File},
    io::BufRead,
    os::unix::fs::FileExt,
    path::PathBuf,
    time::{Duration, Instant},
};

const SESSIONS: usize = 11;
const DUMPS: usize = 35;
/// For what comes at once unless something hangs.
const PATIENCE: Duration = Duration::from_secs(30);

// Where the default layout has the counters.
const M2S_SEQUENCE: usize = 128;
const M2S_READ_COUNT: usize = 4240;
const S2M_READ_COUNT: usize = 8464;

/// A step that gives something else here.
struct OtherResult {
    session: &'static str,
    /// The first is 1.
    step: usize,
    recorded: &'static str,
    here: &'static str,
    why: &'static str,
}

const FIRST_MESSAGE: &str = "the first message of a channel is not lost for a reader that polls \
    (format, section 10, no. 4): it was attached before the message came";

const OTHER_RESULTS: [OtherResult; 5] = [
    OtherResult {
        session: "A",
        step: 16,
        recorded: r#"{"rc":-9,"n":"untouched"}"#,
        here: r#"{"rc":0,"n":6,"hex":"41434b203000"}"#,
        why: FIRST_MESSAGE,
    },
    OtherResult {
        session: "B",
        step: 6,
        recorded: r#"{"rc":-9,"n":"untouched"}"#,
        here: r#"{"rc":0,"n":4,"hex":"67656e31"}"#,
        why: FIRST_MESSAGE,
    },
    OtherResult {
        session: "B",
        step: 19,
        recorded: r#"{"ok":1,"role":1}"#,
        here: r#"{"taken":"slave"}"#,
        why: "a second slave would take the living one's place (section 10, no. 15); with a \
            shared role, which the replay then asks for, it is as recorded",
    },
    OtherResult {
        session: "C",
        step: 17,
        recorded: r#"{"object_exists":true}"#,
        here: r#"{"object_exists":false}"#,
        why: "nobody depends on an object whose slave is dead: a master that took it over \
            removes it (section 10, no. 13)",
    },
    OtherResult {
        session: "D",
        step: 5,
        recorded: r#"{"rc":-9,"n":"untouched"}"#,
        here: r#"{"rc":0,"n":1,"hex":"41"}"#,
        why: FIRST_MESSAGE,
    },
];

/// A byte of a dump that has another value here.
struct OtherByte {
    dump: &'static str,
    at: usize,
    recorded: u8,
    here: u8,
    why: &'static str,
}

const fn other(dump: &'static str, at: usize, recorded: u8, here: u8) -> OtherByte {
    OtherByte {
        dump,
        at,
        recorded,
        here,
        why: FIRST_MESSAGE,
    }
}

const OTHER_BYTES: [OtherByte; 18] = [
    other("shm/A_06_s_write_first_lost.bin", S2M_READ_COUNT, 0, 1),
    other("shm/A_07_s_write2_read.bin", S2M_READ_COUNT, 1, 2),
    other("shm/A_08_m_write_zero.bin", S2M_READ_COUNT, 1, 2),
    other("shm/A_09_m_write_max_small_buf.bin", S2M_READ_COUNT, 1, 2),
    other("shm/A_10_m_write_too_big.bin", S2M_READ_COUNT, 1, 2),
    other("shm/A_11_overwrite3.bin", S2M_READ_COUNT, 1, 2),
    other("shm/A_12_slave_closed.bin", S2M_READ_COUNT, 1, 2),
    other(
        "shm/A_13_master_closed_no_cleanup.bin",
        S2M_READ_COUNT,
        1,
        2,
    ),
    other("shm/B_00_before_kill.bin", M2S_READ_COUNT, 0, 1),
    other("shm/B_01_master_killed.bin", M2S_READ_COUNT, 0, 1),
    other("shm/B_02_takeover_gen2.bin", M2S_READ_COUNT, 0, 1),
    other("shm/B_03_takeover_write.bin", M2S_READ_COUNT, 1, 2),
    other("shm/B_04_takeover_master_closed.bin", M2S_READ_COUNT, 1, 2),
    other("shm/B_05_auto_becomes_slave.bin", M2S_READ_COUNT, 1, 2),
    other("shm/B_06_all_closed.bin", M2S_READ_COUNT, 1, 2),
    other("shm/D_00_odd.bin", M2S_READ_COUNT, 0, 1),
    other("shm/D_01_odd_after_write.bin", M2S_READ_COUNT, 0, 1),
    OtherByte {
        dump: "shm/D_01_odd_after_write.bin",
        at: M2S_SEQUENCE,
        recorded: 5,
        here: 4,
        why: "a writer that finds an odd sequence leaves an even one (section 10, no. 2): the \
            message can be read",
    },
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../polyshm-wire/tests/vectors/eshm")
}

fn manifest() -> Value {
    let text = fs::read(folder().join("manifest.json")).expect("the manifest is there");
    serde_json::from_slice(&text).expect("the manifest is JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn hex(bytes: &[u8]) -> String {
    let mut hex = String::new();
    for byte in bytes {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

fn unhex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "{hex}");
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits"))
        .collect()
}

/// Bytes as the manifest writes them: in full, or `000102...(N bytes`, which are
/// 0, 1, 2 and so on.
fn payload(written: &str) -> Vec<u8> {
    let Some((start, rest)) = written.split_once("...(") else {
        return unhex(written);
    };
    let (len, _) = rest.split_once(" bytes").expect("how many");
    let len = len.parse().expect("a number");
    let bytes: Vec<u8> = (0..len).map(|at: usize| at as u8).collect();
    assert!(bytes.starts_with(&unhex(start)));
    bytes
}

/// A dump and what the manifest says of it.
struct Dump {
    bytes: Vec<u8>,
    entry: Value,
}

impl Dump {
    fn capacity(&self) -> u64 {
        number(&self.entry["max_data_size"])
    }

    /// Bytes that are of one run only: process identifiers and heartbeats.
    fn volatile(&self) -> Vec<std::ops::Range<usize>> {
        list(&self.entry["volatile"])
            .iter()
            .map(|range| {
                let start = number(&range["offset"]) as usize;
                start..start + number(&range["length"]) as usize
            })
            .collect()
    }

    fn field(&self, name: &str) -> u64 {
        number(&self.entry["fields"][name])
    }

    fn channel(&self, direction: Direction, name: &str) -> u64 {
        let channel = match direction {
            Direction::MasterToSlave => "m2s",
            Direction::SlaveToMaster => "s2m",
        };
        number(&self.entry["fields"][channel][name])
    }
}

fn dumps() -> BTreeMap<String, Dump> {
    let manifest = manifest();
    let entries = list(&manifest["vectors"]).iter();
    let dumps: BTreeMap<_, _> = entries
        .filter(|entry| entry["kind"] == "shm_dump")
        .map(|entry| {
            let file = text(&entry["file"]);
            let dump = Dump {
                bytes: fs::read(folder().join(file)).expect(file),
                entry: entry.clone(),
            };
            assert_eq!(dump.bytes.len() as u64, number(&entry["bytes"]), "{file}");
            (file.to_owned(), dump)
        })
        .collect();
    assert_eq!(dumps.len(), DUMPS);
    dumps
}

// One process of a session.

/// Runs in the child processes only: does what it is told, one line each, and
/// says what came of it, in the manifest's words.
#[test]
fn child_process() {
    if role().is_none() {
        return;
    }
    let mut endpoint: Option<Endpoint> = None;
    for line in std::io::stdin().lock().lines() {
        let step: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let result = match text(&step["op"]) {
            "open" => match open(&step) {
                Ok(opened) => {
                    let role = match opened.role() {
                        Role::Master => 0,
                        _ => 1,
                    };
                    endpoint = Some(opened);
                    json!({ "ok": 1, "role": role })
                }
                Err(OpenError::RoleTaken { role, .. }) => json!({ "taken": role.to_string() }),
                Err(error) => panic!("{step}: {error:?}"),
            },
            "close" => {
                let closed = endpoint.take().expect("it was opened");
                drop(closed);
                json!({ "rc": 0 })
            }
            _ => use_endpoint(endpoint.as_mut().expect("it was opened"), &step),
        };
        tell(&result.to_string());
    }
}

fn open(step: &Value) -> Result<Endpoint, OpenError> {
    let args = &step["args"];
    let role = match args["role"].as_u64() {
        Some(0) => Role::Master,
        Some(1) => Role::Slave,
        _ => Role::Auto,
    };
    let threshold = args["stale_threshold_ms"].as_u64().unwrap_or(100);
    Endpoint::builder()
        .role(role)
        .threads(args["use_threads"].as_bool().expect("it says"))
        .auto_cleanup(args["auto_cleanup"].as_bool().unwrap_or(true))
        .stale_threshold(Duration::from_millis(threshold))
        .share_role(step["share"] == true)
        .capacity(number(&step["capacity"]))
        .native_marks(false)
        .open(text(&step["name"]))
}

fn use_endpoint(endpoint: &mut Endpoint, step: &Value) -> Value {
    let args = &step["args"];
    match text(&step["op"]) {
        "write" => {
            let written = args.get("hex").or(args.get("payload"));
            match endpoint.write(&payload(text(written.expect("what to write")))) {
                Ok(()) => json!({ "rc": 0 }),
                Err(WriteError::TooLarge { .. }) => json!({ "rc": -13 }),
                Err(error) => panic!("{step}: {error:?}"),
            }
        }
        "read" => {
            let size = args["size"].as_u64().unwrap_or(4096) as usize;
            let timeout = Duration::from_millis(number(&args["timeout"]));
            let mut buffer = vec![0; size];
            match endpoint.read_into(&mut buffer, timeout) {
                Ok(received) => {
                    let len = received.len;
                    json!({ "rc": 0, "n": len, "hex": hex(&buffer[..len]) })
                }
                Err(ReadError::Timeout { .. }) => json!({ "rc": -9, "n": "untouched" }),
                Err(ReadError::BufferTooSmall { .. }) => json!({ "rc": -13, "n": "untouched" }),
                Err(error) => panic!("{step}: {error:?}"),
            }
        }
        // With the usual timeout, the result being the length.
        "readsimple" => {
            let message = endpoint.read().unwrap();
            json!({ "rc": message.len(), "hex": hex(&message) })
        }
        other => panic!("no step {other}"),
    }
}

// The sessions.

/// A session while it is replayed.
struct Replay<'a> {
    id: &'a str,
    capacity: u64,
    name: Name,
    processes: BTreeMap<String, Guarded>,
    /// The pids that the object should have, master and slave.
    pids: [i32; 2],
    /// The deviations that occurred.
    occurred: &'a mut BTreeSet<String>,
}

impl Replay<'_> {
    fn path(&self) -> String {
        format!("/dev/shm/eshm_{}", self.name.0)
    }

    /// Has a process do a step; gives the result.
    fn ask(&mut self, process: &str, step: &Value, share: bool) -> Value {
        let child = self
            .processes
            .entry(process.to_owned())
            .or_insert_with(|| child("child_process", process));
        let mut order = step.clone();
        order["name"] = json!(self.name.0);
        order["capacity"] = json!(self.capacity);
        order["share"] = json!(share);
        child.say(&order.to_string());
        let answer = child.hear().expect("it answers");
        serde_json::from_str(&answer).expect("in JSON")
    }

    fn step(&mut self, at: usize, step: &Value, dumps: &BTreeMap<String, Dump>) {
        let what = format!("session {}, step {at}", self.id);
        if let Some(file) = step.get("dump") {
            let file = text(file);
            self.compare(file, &dumps[file]);
            return;
        }
        if let Some(exists) = step.get("object_exists") {
            let found = json!({ "object_exists": PathBuf::from(self.path()).exists() });
            self.judge(at, &json!({ "object_exists": exists }), &found, &what);
            return;
        }
        if step.get("note").is_some() {
            return;
        }
        match text(&step["op"]) {
            "SIGKILL" => {
                let process = text(&step["process"]);
                let mut child = self.processes.remove(process).expect("it runs");
                child.0.kill().expect("it can be killed");
                assert!(Outcome::of(child).killed(), "{what}");
            }
            "poke" => {
                let file = File::options().write(true).open(self.path()).unwrap();
                let bytes = unhex(text(&step["bytes"]));
                file.write_all_at(&bytes, number(&step["offset"])).unwrap();
            }
            op => self.ordered(at, op, step, &what),
        }
    }

    /// A step of one process, with its result.
    fn ordered(&mut self, at: usize, op: &str, step: &Value, what: &str) {
        let process = text(&step["process"]);
        let mut found = self.ask(process, step, self.shares(process));
        self.judge(at, &step["result"], &found, what);
        if found.get("taken").is_some() {
            // Nothing was changed; as recorded it is with a shared role.
            found = self.ask(process, step, true);
            assert_eq!(found, step["result"], "{what}");
        }
        if op == "open" {
            let side = number(&found["role"]) as usize;
            if side == 0 && !self.is_taken_over() {
                self.pids = [0; 2];
            }
            let child = &self.processes[process];
            self.pids[side] = child.0.id().cast_signed();
        }
    }

    /// Only session B has two slaves, and both must want it.
    fn shares(&self, process: &str) -> bool {
        self.id == "B" && process == "S"
    }

    /// Whether the object has a master's predecessor.
    fn is_taken_over(&self) -> bool {
        let layout = Layout::new(self.capacity).expect("a capacity within limits");
        let image = fs::read(self.path()).expect("it was opened");
        let seen = describe(&image, &layout).expect("it is sound");
        seen.master_generation > 1
    }

    /// Compares a result with the recorded one, or with the deviation.
    fn judge(&mut self, at: usize, recorded: &Value, found: &Value, what: &str) {
        let listed = OTHER_RESULTS
            .iter()
            .find(|other| other.session == self.id && other.step == at);
        let parse = |text: &str| serde_json::from_str::<Value>(text).expect("it is JSON");
        let expected = match listed {
            Some(other) => {
                assert_eq!(parse(other.recorded), *recorded, "{what}");
                println!(
                    "{what}: {found} where {recorded} is recorded: {}",
                    other.why
                );
                self.occurred.insert(what.to_owned());
                parse(other.here)
            }
            None => recorded.clone(),
        };
        let (mut expected, mut found) = (expected, found.clone());
        // Long messages are written short in the manifest.
        for result in [&mut expected, &mut found] {
            if let Some(written) = result.get("hex") {
                result["hex"] = json!(payload(text(written)));
            }
        }
        assert_eq!(found, expected, "{what}");
    }

    /// Compares the object with a dump, byte by byte.
    fn compare(&mut self, file: &str, dump: &Dump) {
        let mut image = fs::read(self.path()).unwrap();
        if self.id == "F" {
            // Its heartbeats move; they must have begun.
            let start = Instant::now();
            while image[8..16] == [0; 8] || image[16..24] == [0; 8] {
                assert!(start.elapsed() < PATIENCE, "nobody beats");
                std::thread::sleep(Duration::from_millis(1));
                image = fs::read(self.path()).unwrap();
            }
        }
        // Whose run it is, is known here.
        for (pid, field, at) in [
            (self.pids[0], "master_pid", offset::MASTER_PID),
            (self.pids[1], "slave_pid", offset::SLAVE_PID),
        ] {
            assert_eq!(image[at..at + 4], pid.to_le_bytes(), "{file}: {field}");
            assert_eq!(pid == 0, dump.field(field) == 0, "{file}: {field}");
        }
        let volatile = dump.volatile();
        assert!(volatile.iter().map(ExactSizeIterator::len).sum::<usize>() <= 24);
        assert_eq!(image.len(), dump.bytes.len(), "{file}");
        let mut expected = dump.bytes.clone();
        for other in OTHER_BYTES.iter().filter(|other| other.dump == file) {
            let what = format!("{file}, byte {}", other.at);
            assert_eq!(expected[other.at], other.recorded, "{what}");
            assert!(!volatile.iter().any(|range| range.contains(&other.at)));
            expected[other.at] = other.here;
            println!(
                "{what}: {} where {} is recorded: {}",
                other.here, other.recorded, other.why
            );
            self.occurred.insert(what);
        }
        let differing: Vec<_> = (0..image.len())
            .filter(|at| !volatile.iter().any(|range| range.contains(at)))
            .filter(|at| image[*at] != expected[*at])
            .map(|at| format!("{at}: {:#04x}, not {:#04x}", image[at], expected[at]))
            .collect();
        assert!(differing.is_empty(), "{file}: {differing:#?}");
        self.occurred.insert(file.to_owned());
    }
}

#[test]
fn the_recorded_sessions_are_done_again() {
    let (manifest, dumps) = (manifest(), dumps());
    let sessions = list(&manifest["sessions"]);
    assert_eq!(sessions.len(), SESSIONS);
    let mut occurred = BTreeSet::new();
    let mut steps = 0;
    for session in sessions {
        let id = text(&session["id"]);
        let mut replay = Replay {
            id,
            capacity: number(&session["max_data_size"]),
            name: Name::new(&format!("session-{id}")),
            processes: BTreeMap::new(),
            pids: [0; 2],
            occurred: &mut occurred,
        };
        for (at, step) in list(&session["steps"]).iter().enumerate() {
            replay.step(at + 1, step, &dumps);
            steps += 1;
        }
        for (process, child) in std::mem::take(&mut replay.processes) {
            assert!(!Outcome::of(child).killed(), "{id}: {process}");
        }
        // What the session leaves, the name's guard removes.
    }
    // Every dump was compared, and every deviation is one.
    let expected: BTreeSet<_> = dumps
        .keys()
        .cloned()
        .chain(
            OTHER_RESULTS
                .iter()
                .map(|other| format!("session {}, step {}", other.session, other.step)),
        )
        .chain(
            OTHER_BYTES
                .iter()
                .map(|other| format!("{}, byte {}", other.dump, other.at)),
        )
        .collect();
    assert_eq!(occurred, expected);
    println!("{steps} steps of {SESSIONS} sessions, {DUMPS} dumps");
}

// The dumps as objects.

/// The last message of each direction at each dump, as the steps tell; `None`
/// for a fresh object.
fn last_messages() -> BTreeMap<String, [Option<Vec<u8>>; 2]> {
    let (manifest, dumps) = (manifest(), dumps());
    let mut last = BTreeMap::new();
    for session in list(&manifest["sessions"]) {
        let mut roles = BTreeMap::new();
        let mut written: [Option<Vec<u8>>; 2] = [None, None];
        for step in list(&session["steps"]) {
            if let Some(file) = step.get("dump") {
                let file = text(file);
                for (direction, message) in Direction::ALL.into_iter().zip(&mut written) {
                    if dumps[file].channel(direction, "write_count") == 0 {
                        *message = None;
                    }
                }
                last.insert(file.to_owned(), written.clone());
            } else if step["op"] == "open" {
                let process = text(&step["process"]).to_owned();
                roles.insert(process, number(&step["result"]["role"]) as usize);
            } else if step["op"] == "write" && step["result"]["rc"] == 0 {
                let args = &step["args"];
                let bytes = args.get("hex").or(args.get("payload")).expect("what");
                written[roles[text(&step["process"])]] = Some(payload(text(bytes)));
            }
        }
    }
    assert_eq!(last.len(), DUMPS);
    last
}

fn is_odd(dump: &Dump, direction: Direction) -> bool {
    dump.channel(direction, "sequence") % 2 == 1
}

/// Compares all statistics with the fields, but for the side that just entered.
fn statistics_match(file: &str, dump: &Dump, endpoint: &Endpoint, entered: Role) {
    let stats = endpoint.stats();
    let own = std::process::id().cast_signed();
    let pid = |field: &str| i32::try_from(dump.field(field)).expect("a pid");
    let (mut master, mut slave) = (
        (
            pid("master_pid"),
            dump.field("master_heartbeat"),
            dump.field("master_alive") == 1,
        ),
        (
            pid("slave_pid"),
            dump.field("slave_heartbeat"),
            dump.field("slave_alive") == 1,
        ),
    );
    match entered {
        Role::Slave => slave = (own, 0, true),
        _ => master = (own, 0, true),
    }
    let found = (stats.master_pid, stats.master_heartbeat, stats.master_alive);
    assert_eq!(found, master, "{file}");
    let found = (stats.slave_pid, stats.slave_heartbeat, stats.slave_alive);
    assert_eq!(found, slave, "{file}");
    assert_eq!(stats.master_heartbeat_delta, stats.master_heartbeat);
    assert_eq!(stats.slave_heartbeat_delta, stats.slave_heartbeat);
    let threshold = u64::from(stats.stale_threshold);
    assert_eq!(threshold, dump.field("stale_threshold"), "{file}");
    let [m2s, s2m] = Direction::ALL;
    for (found, direction, field) in [
        (stats.m2s_write_count, m2s, "write_count"),
        (stats.m2s_read_count, m2s, "read_count"),
        (stats.s2m_write_count, s2m, "write_count"),
        (stats.s2m_read_count, s2m, "read_count"),
    ] {
        assert_eq!(found, dump.channel(direction, field), "{file}: {field}");
    }
}

/// Bytes that differ, but for one side's own.
fn differences(image: &[u8], dump: &Dump, entered: Role) -> Vec<usize> {
    let own: &[std::ops::Range<usize>] = match entered {
        Role::Slave => &[16..24, 28..32, 36..40],
        _ => &[8..16, 24..28, 32..36, 44..48],
    };
    (0..image.len())
        .filter(|at| !own.iter().any(|range| range.contains(at)))
        .filter(|at| image[*at] != dump.bytes[*at])
        .collect()
}

#[track_caller]
fn unchanged(file: &str, dump: &Dump, object: &HeapObject, entered: Role) {
    let differences = differences(&object.image(), dump, entered);
    assert!(differences.is_empty(), "{file}: {differences:?}");
}

#[test]
fn a_slave_reads_every_dump() {
    let last = last_messages();
    for (file, dump) in &dumps() {
        let object = HeapObject::from_image(&dump.bytes, dump.capacity());
        let config = Endpoint::builder().native_marks(false);
        let mut slave = object.attach(config).unwrap();
        assert_eq!(slave.capacity() as u64, dump.capacity());
        statistics_match(file, dump, &slave, Role::Slave);
        unchanged(file, dump, &object, Role::Slave);

        // Nothing is new, and nothing can be had of a dead writer.
        let direction = Direction::MasterToSlave;
        assert!(slave.try_read().unwrap().is_none(), "{file}");
        let latest = slave.read_latest().unwrap();
        if is_odd(dump, direction) {
            assert!(latest.is_none(), "{file}");
        } else {
            let found = latest.as_ref().map(|message| message.to_vec());
            assert_eq!(found, last[file][0], "{file}");
            let count = dump.channel(direction, "write_count");
            assert_eq!(
                latest.map_or(0, |message| message.number()),
                count,
                "{file}"
            );
        }
        unchanged(file, dump, &object, Role::Slave);

        // And it works on.
        let written = dump.channel(Direction::SlaveToMaster, "write_count");
        let mut master = object.take_over(Endpoint::builder()).unwrap();
        slave.write(b"s").unwrap();
        assert_eq!(master.try_read().unwrap().unwrap().number(), written + 1);
    }
}

#[test]
fn a_master_takes_over_every_dump() {
    let last = last_messages();
    for (file, dump) in &dumps() {
        let object = HeapObject::from_image(&dump.bytes, dump.capacity());
        let config = Endpoint::builder().native_marks(false);
        let mut master = object.take_over(config).unwrap();
        statistics_match(file, dump, &master, Role::Master);
        let generation = object.header().unwrap().master_generation.get();
        assert_eq!(u64::from(generation), dump.field("master_generation") + 1);

        let (own, direction) = (Direction::MasterToSlave, Direction::SlaveToMaster);
        let differences = differences(&object.image(), dump, Role::Master);
        let layout = Layout::new(dump.capacity()).unwrap();
        let place = layout.channel(own);
        if is_odd(dump, own) {
            // The message that its predecessor died in is none: the number, its
            // length, and what says so, in bytes that others ignore.
            let allowed = [
                place.sequence,
                place.data_size,
                place.native_void,
                place.native_voids,
            ];
            for at in differences {
                let at = at as u64;
                let known = allowed.iter().any(|word| (*word..word + 4).contains(&at));
                assert!(known, "{file}: byte {at}");
            }
            let seen = describe(&object.image(), &layout).unwrap().master_to_slave;
            let found = (u64::from(seen.sequence), seen.data_size, seen.message);
            assert_eq!(
                found,
                (dump.channel(own, "sequence") + 1, 0, None),
                "{file}"
            );
        } else {
            unchanged(file, dump, &object, Role::Master);
        }
        assert!(master.try_read().unwrap().is_none(), "{file}");
        let latest = master.read_latest().unwrap();
        let found = latest.as_ref().map(|message| message.to_vec());
        assert_eq!(found, last[file][1], "{file}");
        let count = dump.channel(direction, "write_count");
        assert_eq!(
            latest.map_or(0, |message| message.number()),
            count,
            "{file}"
        );

        // And it works on: whatever the number was, none is lost.
        let mut slave = object.attach(Endpoint::builder()).unwrap();
        let written = dump.channel(own, "write_count");
        for next in 1..3 {
            master.write(b"m").unwrap();
            let message = slave.try_read().unwrap().unwrap();
            assert_eq!(message.number(), written + next, "{file}");
            assert_eq!(message.lost(), 0, "{file}");
        }
        let seen = describe(&object.image(), &layout).unwrap().master_to_slave;
        assert_eq!(seen.write_count, written + 2, "{file}");
        assert_eq!(seen.sequence % 2, 0, "{file}");
    }
}

#[test]
fn a_dump_of_another_capacity_is_refused_where_it_shows() {
    for (file, dump) in &dumps() {
        let layout = Layout::new(dump.capacity()).unwrap();
        assert_eq!(dump.bytes.len() as u64, layout.object_len(), "{file}");
        for capacity in [1, 100, 1000, 4096, 4097, 8192] {
            let object = HeapObject::from_image(&dump.bytes, capacity);
            let opened = object.attach(Endpoint::builder());
            let needed = Layout::new(capacity).unwrap().object_len();
            // Nothing tells in the object of another implementation but its length.
            if needed > layout.object_len() {
                let refused = matches!(opened, Err(OpenError::Invalid { .. }));
                assert!(refused, "{file} at {capacity}: {opened:?}");
            } else {
                assert!(opened.is_ok(), "{file} at {capacity}: {opened:?}");
            }
        }
    }
}
