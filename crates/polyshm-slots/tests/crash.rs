//! Kills a process just before each numbered step of what a handle does, and
//! checks what the survivors get, and that others can go on unaided.
//!
//! Runs under `--cfg crash_points` (`cargo xtask crash`).
#![cfg(all(crash_points, target_os = "linux"))]

use polyshm_platform::crash;
use polyshm_slots::{
    NameState, OnFull, Options, ReadError, Reading, Record, Replace, SlotFifo, SlotStore, Snapshot,
    TypedRecord, Values,
};
use polyshm_testkit::{Guarded, Name, Outcome, child, role, tell};
use polyshm_wire::slots::{CURSORS, Layout, NativeLayout, ReaderLine};
use std::{
    fs::{self, File},
    mem::offset_of,
    os::unix::fs::FileExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// A survivor's timeout when it looks for what the dead one left.
const TIMEOUT: Duration = Duration::from_millis(20);
/// How much later a loaded machine may let a read return.
const SLACK: Duration = Duration::from_secs(5);
/// What nothing should take.
const WATCHDOG: Duration = Duration::from_secs(20);

/// With arrays below and above the size from which they are not copied twice.
#[derive(Record)]
struct Rec {
    number: f64,
    #[record("str[8]")]
    text: String,
    #[record("uint8[30]")]
    small: Vec<u8>,
    #[record("uint8[30,50]")]
    large: Vec<u8>,
    count: i32,
}

/// Which write each field holds the value of; `None` when it is unwritten.
type State = [Option<u8>; 5];

fn record(id: u8) -> Rec {
    Rec {
        number: f64::from(id),
        text: text(id),
        small: vec![id; 30],
        large: vec![id; 1500],
        count: -i32::from(id),
    }
}

fn text(id: u8) -> String {
    format!("{:width$}", id, width = 3 + usize::from(id) % 5)
}

/// Checks that each field holds the value of one write, whole.
#[track_caller]
fn state(fields: &RecFields) -> State {
    let byte = |bytes: &[u8]| {
        let id = bytes[0];
        assert!(bytes.iter().all(|&byte| byte == id), "torn: {bytes:?}");
        id
    };
    let count = fields.count.is_valid().then(|| {
        let id = fields.count.checked_neg().and_then(|id| id.try_into().ok());
        id.unwrap_or_else(|| panic!("{} is no write", *fields.count))
    });
    #[expect(clippy::cast_sign_loss, reason = "checked by the comparison")]
    let number = fields.number.is_valid().then(|| {
        let id = *fields.number as u8;
        assert!((f64::from(id) - *fields.number).abs() < 1e-9, "torn");
        id
    });
    let words = fields.text.is_valid().then(|| {
        let id = fields.text.trim().parse().expect("a number");
        assert_eq!(*fields.text, text(id), "torn");
        id
    });
    let all = [
        number,
        words,
        fields.small.is_valid().then(|| byte(&fields.small)),
        fields.large.is_valid().then(|| byte(&fields.large)),
        count,
    ];
    let unwritten = [
        fields.number.is_unwritten(),
        fields.text.is_unwritten(),
        fields.small.is_unwritten(),
        fields.large.is_unwritten(),
        fields.count.is_unwritten(),
    ];
    assert_eq!(all.map(|id| id.is_none()), unwritten, "nothing is cut");
    all
}

/// A write: which fields it lists, and the values that they get.
#[derive(Clone, Copy, Debug)]
struct Op {
    id: u8,
    lists: [bool; 5],
}

const fn full(id: u8) -> Op {
    Op {
        id,
        lists: [true; 5],
    }
}

const fn part(id: u8, lists: [bool; 5]) -> Op {
    Op { id, lists }
}

impl Op {
    fn values(self) -> Values {
        let whole = record(self.id);
        let mut values = Values::new();
        let [number, text, small, large, count] = self.lists;
        if number {
            values = values.with("number", whole.number);
        }
        if text {
            values = values.with("text", whole.text);
        }
        if small {
            let array = polyshm_slots::ArrayValue::from_elements(vec![30], &whole.small);
            values = values.with("small", array.expect("the shape fits"));
        }
        if large {
            let array = polyshm_slots::ArrayValue::from_elements(vec![30, 50], &whole.large);
            values = values.with("large", array.expect("the shape fits"));
        }
        if count {
            values = values.with("count", whole.count);
        }
        values
    }

    fn after(self, before: State) -> State {
        let mut after = before;
        for (field, listed) in after.iter_mut().zip(self.lists) {
            if listed {
                *field = Some(self.id);
            }
        }
        after
    }

    /// What is left when it died in the middle and nothing has a copy.
    fn lost(self, before: State) -> State {
        let mut left = before;
        for (field, listed) in left.iter_mut().zip(self.lists) {
            if listed {
                *field = None;
            }
        }
        left
    }
}

fn file_of(name: &str) -> PathBuf {
    Path::new("/dev/shm").join(name)
}

fn kept_of(name: &str) -> PathBuf {
    file_of(&format!("polyshm-kept.{name}"))
}

fn layout(slots: u64) -> Layout {
    Layout::new(Rec::schema(), slots).expect("it is small")
}

fn word(name: &str, at: usize) -> u64 {
    let mut bytes = [0; 8];
    let file = File::open(file_of(name)).expect("it is there");
    file.read_exact_at(&mut bytes, at as u64)
        .expect("it is inside");
    u64::from_le_bytes(bytes)
}

/// Whether a write is under way in the single slot, or was when its writer died.
fn is_busy(name: &str) -> bool {
    word(name, 0) != word(name, layout(1).seq_end_offset())
}

/// Asks the writer for a copy of what it writes next, as a reader without luck
/// does.
fn demand(name: &str) {
    let native = NativeLayout::new(&layout(1), 4096, true).expect("it is small");
    let at = native.reader_line() + offset_of!(ReaderLine, demand);
    let file = File::options().write(true).open(file_of(name));
    let file = file.expect("it is there");
    file.write_all_at(&[1], at as u64).expect("it is inside");
}

/// What the victim has.
enum Subject {
    Nothing,
    Store(SlotStore<Rec>),
    Fifo(SlotFifo<Rec>),
}

impl Subject {
    fn store(&mut self) -> &mut SlotStore<Rec> {
        match self {
            Self::Store(store) => store,
            _ => panic!("it was prepared"),
        }
    }

    fn fifo(&mut self) -> &mut SlotFifo<Rec> {
        match self {
            Self::Fifo(fifo) => fifo,
            _ => panic!("it was prepared"),
        }
    }
}

/// Something that the victim does to a segment of this name.
type Act = Box<dyn Fn(&str, &mut Subject)>;

/// What the victim does.
struct Scenario {
    name: String,
    /// Before its steps are counted.
    prepare: Box<dyn Fn(&str) -> Subject>,
    /// Its steps. What it leaves in its subject is dropped uncounted.
    act: Act,
    /// The other side: kills the victim before step `number`, and checks what
    /// the others get; gives whether it was killed.
    kill: Box<dyn Fn(&Killing<'_>) -> bool>,
}

/// One death.
struct Killing<'a> {
    which: usize,
    number: u64,
    first: First,
    name: &'a Name,
}

/// Who is first after the death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    /// Those who live look at what the dead one left.
    Survivors,
    /// Somebody else comes.
    Newcomers,
}

impl Killing<'_> {
    /// The victim, prepared.
    fn victim(&self) -> Guarded {
        let role = format!("{} {} {}", self.which, &**self.name, self.number);
        let mut victim = child("victim", &role);
        assert!(victim.wait_for_line("ready"), "it is not killed so early");
        victim
    }

    /// Lets the victim act to its end.
    fn run(&self) -> Outcome {
        let mut victim = self.victim();
        victim.say("go");
        Outcome::of(victim)
    }
}

/// The next line of the parent.
fn hear_parent() {
    std::io::stdin()
        .read_line(&mut String::new())
        .expect("the parent lives");
}

/// The process that may die. Only this runs in it.
#[test]
fn victim() {
    let Some(role) = role() else { return };
    // No unwinding: what it closes has steps too, and a death there would look
    // like the one that was wanted.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    let mut words = role.split(' ');
    let mut word = || words.next().expect("a role has three words");
    let (which, name, number) = (word(), word(), word());
    let number = number.parse().expect("a number");
    if which == "writer" {
        return die_writing(name, number);
    }
    let scenarios = scenarios();
    let scenario = &scenarios[which.parse::<usize>().expect("an index")];
    let mut subject = (scenario.prepare)(name);
    tell("ready");
    hear_parent();
    crash::arm(number);
    (scenario.act)(name, &mut subject);
    tell(&format!("points {}", crash::disarm()));
    drop(subject);
}

// One slot.

/// The segments on which each scenario is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Readers have asked for copies.
    Asked,
    Unasked,
    Unbuffered,
    Plain,
}

impl Form {
    const ALL: [Self; 4] = [Self::Asked, Self::Unasked, Self::Unbuffered, Self::Plain];

    fn options(self) -> Options {
        Options::new()
            .trailer(self != Self::Plain)
            .buffered(self != Self::Unbuffered)
    }

    fn ask(self, name: &str) {
        if self == Self::Asked {
            demand(name);
        }
    }

    fn create(self, name: &str) -> SlotStore<Rec> {
        SlotStore::create_with(name, self.options()).expect("the name is free")
    }
}

fn open(name: &str) -> SlotStore<Rec> {
    SlotStore::open(name).expect("it is there")
}

/// Writes, and dies before step `number` of it.
fn die_writing(name: &str, number: u64) {
    let mut store = open(name);
    crash::arm(number);
    store.write(record(7)).expect("nobody else writes");
    panic!("it does not die so late");
}

/// Has a writer die in the middle of its values.
fn leave_half(name: &str) {
    // Behind the lock, both words and the statuses.
    let outcome = Outcome::of(child("victim", &format!("writer {name} 7")));
    assert!(outcome.killed() && is_busy(name));
}

/// Reads within the timeout, or tells why not.
#[track_caller]
fn look(store: &mut SlotStore<Rec>) -> Result<Snapshot<Rec>, ReadError> {
    let start = Instant::now();
    let result = store.read(TIMEOUT);
    let took = start.elapsed();
    assert!(took < TIMEOUT + SLACK, "a read took {took:?}");
    result
}

/// A reader that checks that nothing changes unsaid.
struct Reader {
    store: SlotStore<Rec>,
    last: Option<(State, u64)>,
}

impl Reader {
    fn new(store: SlotStore<Rec>) -> Self {
        Self { store, last: None }
    }

    #[track_caller]
    fn look(&mut self) -> Result<State, ReadError> {
        let seen = look(&mut self.store)?;
        let now = state(&seen);
        let changes = [
            seen.number.changes(),
            seen.text.changes(),
            seen.small.changes(),
            seen.large.changes(),
            seen.count.changes(),
        ];
        if let Some((before, number)) = self.last {
            for ((before, now), changes) in before.iter().zip(now).zip(changes) {
                assert!(*before == now || changes > 0, "{before:?} became {now:?}");
            }
            assert!(seen.number() >= number, "{} after {number}", seen.number());
            let ahead = seen.number() - number;
            assert_eq!(seen.missed(), ahead.saturating_sub(1));
            assert!(
                !seen.is_exact() || changes.iter().all(|&changes| changes <= ahead),
                "{changes:?} in {ahead}"
            );
        }
        self.last = Some((now, seen.number()));
        Ok(now)
    }

    #[track_caller]
    fn expect(&mut self, what: State) {
        assert_eq!(self.look().expect("nobody writes"), what);
    }
}

/// What may be there after the victim died in, or after, the writes that it
/// said it had done.
struct Expected {
    /// A buffer has the record before the one in which it died.
    kept: bool,
    /// Before the write in which it died, and after it.
    whole: Vec<State>,
    /// With what that write destroyed.
    lost: Option<State>,
}

impl Expected {
    fn of(form: Form, before: State, ops: &[Op], outcome: &Outcome) -> Self {
        let done = outcome.number("done").unwrap_or(0) as usize;
        let now = ops[..done].iter().fold(before, |now, op| op.after(now));
        let next = ops.get(done);
        Self {
            kept: form == Form::Asked,
            whole: [Some(now), next.map(|op| op.after(now))]
                .into_iter()
                .flatten()
                .collect(),
            lost: next.map(|op| match form {
                // Nobody knows what it was writing.
                Form::Plain => [None; 5],
                _ => op.lost(now),
            }),
        }
    }
}

/// The reader's look at what the dead writer left, before anybody has put it
/// right.
#[track_caller]
fn look_at_left(reader: &mut Reader, name: &str, form: Form, expected: &Expected) {
    match reader.look() {
        Ok(seen) => assert!(expected.whole.contains(&seen), "{seen:?}"),
        Err(error) => {
            assert!(is_busy(name) && !expected.kept, "{error}");
            match error {
                ReadError::WriterDied { .. } => assert_ne!(form, Form::Plain),
                ReadError::Busy { .. } => assert_eq!(form, Form::Plain),
                error => panic!("{error}"),
            }
        }
    }
}

/// What a writer of these kills: checks what readers and the next writers get.
fn kill_writer(killing: &Killing<'_>, form: Form, ops: &[Op], setup: impl Fn(&str)) -> bool {
    let name = killing.name;
    let mut store = form.create(name);
    setup(name);
    store.write(record(1)).expect("nobody else writes");
    form.ask(name);
    store.write(record(2)).expect("nobody else writes");
    form.ask(name);
    let mut reader = Reader::new(open(name));
    reader.expect([Some(2); 5]);
    let outcome = killing.run();
    let expected = Expected::of(form, [Some(2); 5], ops, &outcome);
    assert!(outcome.killed() || !is_busy(name), "who lived has finished");
    go_on(killing, form, &mut store, &mut reader, &expected);
    drop(reader);
    store.unlink().expect("it can be removed");
    name.assert_nothing_left();
    outcome.killed()
}

/// The survivors, and others, go on with a store.
fn go_on(
    killing: &Killing<'_>,
    form: Form,
    store: &mut SlotStore<Rec>,
    reader: &mut Reader,
    expected: &Expected,
) {
    let name = killing.name;
    let was_busy = is_busy(name);
    let mut now;
    if killing.first == First::Survivors {
        look_at_left(reader, name, form, expected);
        store.repair().expect("the dead one's lock is free");
        assert!(!is_busy(name));
        assert!(!store.repair().expect("it is free"), "once is enough");
        now = reader.look().expect("it was put right");
        let lost = was_busy && !expected.kept && expected.lost == Some(now);
        assert!(expected.whole.contains(&now) || lost, "{now:?}");
    } else {
        // The next writer puts it right by itself.
        let op = part(40, [false, true, false, false, false]);
        let mut newcomer = open(name);
        newcomer.write(op.values()).expect("its lock is free");
        now = reader.look().expect("nobody writes");
        let lost = was_busy && !expected.kept && expected.lost.map(|s| op.after(s)) == Some(now);
        let whole = expected.whole.iter().any(|&state| op.after(state) == now);
        assert!(whole || lost, "{now:?}");
        look_at(&mut Reader::new(open(name)), now);
    }
    // As if nothing had happened.
    for op in [
        part(50, [true, false, false, true, false]),
        full(51),
        part(52, [false; 5]),
        part(53, [false, false, true, false, true]),
    ] {
        let start = Instant::now();
        store.write(op.values()).expect("nobody writes");
        assert!(start.elapsed() < SLACK);
        now = op.after(now);
        look_at(reader, now);
    }
    let mut writer = open(name);
    writer.write(record(60)).expect("nobody writes");
    look_at(reader, [Some(60); 5]);
    let seen = look(&mut store.clone()).expect("nobody writes");
    assert_eq!(seen.number(), reader.last.expect("it has read").1);
}

#[track_caller]
fn look_at(reader: &mut Reader, state: State) {
    reader.expect(state);
}

fn writer(name: &str, form: Form, ops: Vec<Op>) -> Scenario {
    let of_victim = ops.clone();
    Scenario {
        name: format!("{form:?}: {name}"),
        prepare: Box::new(|name| Subject::Store(open(name))),
        act: Box::new(move |_, subject| {
            for (done, op) in (1..).zip(&of_victim) {
                let written = subject.store().write(op.values());
                written.expect("nobody else writes");
                tell(&format!("done {done}"));
            }
        }),
        kill: Box::new(move |killing| kill_writer(killing, form, &ops, |_| ())),
    }
}

/// After a writer died: another mends, and dies at that.
fn mender(name: &str, form: Form, ops: Vec<Op>, act: fn(&mut SlotStore<Rec>)) -> Scenario {
    Scenario {
        name: format!("{form:?}: {name}"),
        prepare: Box::new(|name| Subject::Store(open(name))),
        act: Box::new(move |_, subject| {
            act(subject.store());
            tell("done 1");
        }),
        kill: Box::new(move |killing| {
            let name = killing.name;
            let mut store = form.create(name);
            store.write(record(1)).expect("nobody else writes");
            form.ask(name);
            store.write(record(2)).expect("nobody else writes");
            leave_half(name);
            let mut reader = Reader::new(open(name));
            let outcome = killing.run();
            // All fields were listed by the first to die. What a buffer had is
            // there again, but the next write has no copy of it.
            let mut bases = vec![[Some(2); 5]];
            let mut lost = ops.first().map_or([Some(2); 5], |op| op.lost([Some(2); 5]));
            if form != Form::Asked {
                bases.push([None; 5]);
                lost = [None; 5];
            }
            let expected = Expected {
                kept: form == Form::Asked && ops.is_empty(),
                whole: bases
                    .iter()
                    .flat_map(|&base| {
                        let after = ops.iter().fold(base, |now, op| op.after(now));
                        [base, after]
                    })
                    .collect(),
                lost: Some(lost),
            };
            let lived = !outcome.killed();
            assert!(!lived || !is_busy(name));
            go_on(killing, form, &mut store, &mut reader, &expected);
            drop(reader);
            store.unlink().expect("it can be removed");
            name.assert_nothing_left();
            outcome.killed()
        }),
    }
}

fn stores() -> Vec<Scenario> {
    let mut all = Vec::new();
    for form in Form::ALL {
        all.push(writer("write all", form, vec![full(10), full(11)]));
        all.push(writer(
            "write two fields",
            form,
            vec![part(10, [true, false, false, false, true])],
        ));
        all.push(writer(
            "write large and small arrays",
            form,
            vec![part(10, [false, false, true, true, false])],
        ));
        all.push(writer(
            "write text, then nothing",
            form,
            vec![
                part(10, [false, true, false, false, false]),
                part(11, [false; 5]),
            ],
        ));
        all.push(mender("repair", form, Vec::new(), |store| {
            assert!(store.repair().expect("the dead one's lock is free"));
        }));
        all.push(mender(
            "write after one that died",
            form,
            vec![part(10, [false, false, false, true, true])],
            |store| {
                let op = part(10, [false, false, false, true, true]);
                store.write(op.values()).expect("its lock is free");
            },
        ));
        all.push(flags(form));
        all.push(store_reader(form));
    }
    all
}

/// Clears the flags; the record stays.
fn flags(form: Form) -> Scenario {
    Scenario {
        name: format!("{form:?}: reset_modified"),
        prepare: Box::new(|name| {
            let mut store = open(name);
            store.read(WATCHDOG).expect("nobody writes");
            Subject::Store(store)
        }),
        act: Box::new(|_, subject| {
            let reset = subject.store().reset_modified();
            assert!(reset.expect("nobody else writes"));
        }),
        kill: Box::new(move |killing| kill_writer(killing, form, &[], |_| ())),
    }
}

/// Looks at what a writer left that died, and dies itself: nobody notices.
fn store_reader(form: Form) -> Scenario {
    Scenario {
        name: format!("{form:?}: read after one that died, and wait"),
        prepare: Box::new(|name| Subject::Store(open(name))),
        act: Box::new(move |_, subject| {
            let store = subject.store();
            let _ = store.read(Duration::from_millis(2));
            let _ = store.read_new(Duration::from_millis(2));
        }),
        kill: Box::new(move |killing| {
            let name = killing.name;
            let mut store = form.create(name);
            store.write(record(2)).expect("nobody else writes");
            if form == Form::Plain {
                // Nothing there to change.
                let mut reader = Reader::new(open(name));
                let outcome = killing.run();
                reader.expect([Some(2); 5]);
                return outcome.killed();
            }
            form.ask(name);
            store.write(record(2)).expect("nobody else writes");
            leave_half(name);
            let mut reader = Reader::new(open(name));
            let outcome = killing.run();
            let expected = Expected {
                kept: form == Form::Asked,
                whole: vec![[Some(2); 5]],
                lost: Some([None; 5]),
            };
            go_on(killing, form, &mut store, &mut reader, &expected);
            outcome.killed()
        }),
    }
}

// Creating, opening, removing.

/// What is left, if anything, is a segment that works; a creator that replaces
/// what is abandoned gets the name, and what it removes is gone.
fn replace_abandoned(killing: &Killing<'_>) {
    let name = killing.name;
    if killing.first == First::Survivors && file_of(name).exists() {
        let mut store = open(name);
        let fresh = look(&mut store).expect("nobody writes");
        let fresh = state(&fresh);
        assert!(fresh == [None; 5] || fresh == [Some(2); 5], "{fresh:?}");
        store.write(record(9)).expect("nobody writes");
        let mut reader = Reader::new(open(name));
        reader.expect([Some(9); 5]);
    }
    let options = Options::new().replace(Replace::Abandoned);
    let mut store = SlotStore::<Rec>::create_with(name, options).expect("it is abandoned");
    assert!(kept_of(name).exists());
    store.write(record(3)).expect("nobody writes");
    let mut reader = Reader::new(open(name));
    reader.expect([Some(3); 5]);
    fs::remove_file(file_of(name)).expect("it is there");
    let state = store.check_name().expect("it can be looked up");
    assert_eq!(state, NameState::Restored);
    assert!(store.unlink().expect("it can be removed"));
    name.assert_nothing_left();
}

/// Creates a segment in a process that dies without closing it.
fn leave_segment(name: &str) {
    let outcome = Outcome::of(child("left_behind", name));
    assert!(outcome.killed());
    assert!(file_of(name).exists() && kept_of(name).exists());
}

/// Runs in the child processes only.
#[test]
fn left_behind() {
    let Some(name) = role() else { return };
    let mut store = SlotStore::<Rec>::create(&name).expect("the name is free");
    store.write(record(2)).expect("nobody writes");
    // Before the first step of the next write.
    crash::arm(1);
    let _ = store.write(record(3));
}

fn creator(name: &str, left: bool, act: impl Fn(&str) -> Subject + 'static) -> Scenario {
    Scenario {
        name: name.to_owned(),
        prepare: Box::new(|_| Subject::Nothing),
        act: Box::new(move |name, subject| *subject = act(name)),
        kill: Box::new(move |killing| {
            if left {
                leave_segment(killing.name);
            }
            let outcome = killing.run();
            let fresh = !left && !file_of(killing.name).exists();
            assert!(
                !fresh || !kept_of(killing.name).exists(),
                "hidden till then"
            );
            replace_abandoned(killing);
            outcome.killed()
        }),
    }
}

/// Does something with a segment that it created.
fn owner(name: &str, act: impl Fn(&str, &mut Subject) + 'static) -> Scenario {
    Scenario {
        name: name.to_owned(),
        prepare: Box::new(|name| {
            let mut store = SlotStore::create(name).expect("the name is free");
            store.write(record(2)).expect("nobody else writes");
            Subject::Store(store)
        }),
        act: Box::new(act),
        kill: Box::new(|killing| {
            let outcome = killing.run();
            replace_abandoned(killing);
            outcome.killed()
        }),
    }
}

fn names() -> Vec<Scenario> {
    let create = |options: Options| {
        move |name: &str| {
            let store = SlotStore::create_with(name, options);
            Subject::Store(store.expect("the name is free"))
        }
    };
    let replacing = Options::new().replace(Replace::Abandoned);
    vec![
        creator("create", false, create(Options::new())),
        creator(
            "create without buffers",
            false,
            create(Options::new().buffered(false)),
        ),
        creator("replace what was left", true, create(replacing)),
        creator("open", true, |name| Subject::Store(open(name))),
        creator("remove what was left", true, |name| {
            assert!(polyshm_slots::remove(name).expect("it can be removed"));
            Subject::Nothing
        }),
        owner("unlink", |_, subject| {
            assert!(subject.store().unlink().expect("it can be removed"));
        }),
        owner("close", |_, subject| *subject = Subject::Nothing),
        owner("restore the name", |name, subject| {
            fs::remove_file(file_of(name)).expect("it is there");
            let state = subject.store().check_name().expect("it can be looked up");
            assert_eq!(state, NameState::Restored);
        }),
        Scenario {
            name: "create a plain segment".to_owned(),
            prepare: Box::new(|_| Subject::Nothing),
            act: Box::new(move |name, subject| {
                *subject = create(Options::new().trailer(false))(name);
            }),
            // It tells nothing of its creator, so only `Always` replaces it.
            kill: Box::new(|killing| {
                let name = killing.name;
                let outcome = killing.run();
                if killing.first == First::Survivors && file_of(name).exists() {
                    let mut store = open(name);
                    let fresh = look(&mut store).expect("nobody writes");
                    assert_eq!(state(&fresh), [None; 5]);
                }
                let options = Options::new().trailer(false).replace(Replace::Always);
                let store = SlotStore::<Rec>::create_with(name, options);
                let store = store.expect("anything is replaced");
                assert!(store.unlink().expect("it can be removed"));
                name.assert_nothing_left();
                outcome.killed()
            }),
        },
    ]
}

// FIFOs.

/// The number of an item's record, from its index.
const fn id(index: u64) -> u8 {
    (index % 100 + 1) as u8
}

fn push(fifo: &mut SlotFifo<Rec>) -> u64 {
    // Whoever pushes here is alone.
    let index = fifo.finalized();
    let pushed = fifo.push(record(id(index))).expect("there is room");
    assert_eq!(pushed, index);
    index
}

/// A reader in this process, and what it has got.
struct Follower {
    fifo: SlotFifo<Rec>,
    reading: Reading,
    next: u64,
    delivered: u64,
    overrun: u64,
    /// There are others that take items.
    shares: bool,
}

impl Follower {
    fn new(name: &str, slots: u64, reading: Reading, shares: bool) -> Self {
        let options = Options::new().reading(reading);
        let fifo = SlotFifo::open_with(name, slots, options).expect("it is there");
        Self {
            fifo,
            reading,
            next: 0,
            delivered: 0,
            overrun: 0,
            shares,
        }
    }

    /// The next item, if there is one in time: whole, in order, and all others
    /// counted.
    #[track_caller]
    fn take(&mut self) -> Option<u64> {
        match self.try_take() {
            Ok(index) => Some(index),
            Err(ReadError::Timeout { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    }

    #[track_caller]
    fn try_take(&mut self) -> Result<u64, ReadError> {
        let start = Instant::now();
        let result = self.fifo.read(TIMEOUT);
        let took = start.elapsed();
        assert!(took < TIMEOUT + SLACK, "a read took {took:?}");
        let item = result?;
        assert!(item.index() >= self.next, "{} again", item.index());
        assert_eq!(item.overrun(), item.index() - self.next);
        assert_eq!(
            state(&item),
            [Some(id(item.index())); 5],
            "{}",
            item.index()
        );
        assert!(item.overrun() == 0 || self.reading != Reading::Registered);
        self.overrun += item.overrun();
        self.delivered += 1;
        self.next = item.index() + 1;
        Ok(item.index())
    }

    /// Takes all that there is, but the last that is not free yet: its writer
    /// died when it was committed, and the next one ends it.
    #[track_caller]
    fn drain_but_one(&mut self) {
        while self.fifo.unread() > 0 {
            match self.try_take() {
                Ok(_) => {}
                Err(ReadError::Busy { .. } | ReadError::WriterDied { .. })
                    if self.fifo.unread() == 1 =>
                {
                    return;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Takes all that there is.
    #[track_caller]
    fn drain(&mut self) {
        while self.fifo.unread() > 0 {
            self.take().expect("there is one");
        }
        assert!(self.shares || self.next == self.fifo.finalized());
    }
}

/// The indices as other implementations see them.
fn indices(name: &str) -> [u64; 3] {
    [0, 8, 16].map(|at| word(name, at))
}

/// A FIFO, and how it is used.
#[derive(Clone, Copy, Debug)]
struct Fifo {
    slots: u64,
    on_full: OnFull,
    trailer: bool,
    /// How the survivor reads.
    reading: Reading,
    /// Items before the victim starts, and how many of them are read.
    before: u64,
    read: u64,
}

impl Fifo {
    fn options(self) -> Options {
        Options::new()
            .on_full(self.on_full)
            .trailer(self.trailer)
            .full_timeout(Some(WATCHDOG))
    }

    fn open(self, name: &str) -> SlotFifo<Rec> {
        let fifo = SlotFifo::open_with(name, self.slots, self.options());
        fifo.expect("it is there")
    }

    fn setup(self, name: &str, shares: bool) -> (SlotFifo<Rec>, Follower) {
        let fifo = SlotFifo::create_with(name, self.slots, self.options());
        let mut fifo = fifo.expect("the name is free");
        let mut follower = Follower::new(name, self.slots, self.reading, shares);
        for _ in 0..self.before {
            push(&mut fifo);
        }
        for _ in 0..self.read {
            follower.take().expect("it was pushed");
        }
        (fifo, follower)
    }

    /// All go on: whoever waits for room gets it, and every item is delivered.
    fn go_on(self, name: &str, mut fifo: SlotFifo<Rec>, follower: &mut Follower) {
        let mut newcomer = self.open(name);
        for round in 0..3 * self.slots {
            follower.drain();
            let start = Instant::now();
            let writer = if round % 2 == 0 {
                &mut fifo
            } else {
                &mut newcomer
            };
            // A dead reader may hold it back until it is noticed.
            push(writer);
            assert!(start.elapsed() < SLACK);
        }
        follower.drain();
        assert_eq!(follower.take(), None);
        let [write, read, count] = indices(name);
        assert_eq!(write, fifo.finalized());
        assert_eq!(count, write.wrapping_sub(read).min(self.slots), "{read}");
        if !follower.shares {
            assert_eq!(follower.delivered + follower.overrun, write);
        }
        if self.trailer {
            // The dead have left their places, also those who only came.
            let taken = usize::from(self.reading != Reading::Broadcast);
            let all: Vec<_> = (taken..CURSORS)
                .map(|_| Follower::new(name, self.slots, Reading::Registered, false))
                .collect();
            drop(all);
        }
        fifo.unlink().expect("it can be removed");
    }
}

/// The victim pushes.
fn pusher(name: &str, of: Fifo, count: u64, act: fn(&mut SlotFifo<Rec>)) -> Scenario {
    Scenario {
        name: format!("FIFO: {name}"),
        prepare: Box::new(move |name| Subject::Fifo(of.open(name))),
        act: Box::new(move |_, subject| {
            for done in 1..=count {
                act(subject.fifo());
                tell(&format!("done {done}"));
            }
        }),
        kill: Box::new(move |killing| {
            let name = killing.name;
            let (mut fifo, mut follower) = of.setup(name, false);
            let mut victim = killing.victim();
            victim.say("go");
            if of.on_full == OnFull::Block {
                // It waits for room.
                thread::sleep(Duration::from_millis(5));
                for _ in 0..count {
                    follower.take();
                }
            }
            let outcome = Outcome::of(victim);
            let done = outcome.number("done").unwrap_or(0);
            let committed = fifo.finalized();
            let more = u64::from(done < count);
            assert!(
                (of.before + done..=of.before + done + more).contains(&committed),
                "{committed} of {done}"
            );
            if killing.first == First::Newcomers {
                if of.on_full == OnFull::Block {
                    follower.take();
                }
                let mut newcomer = of.open(name);
                assert_eq!(push(&mut newcomer), committed);
            } else {
                follower.drain_but_one();
                assert_eq!(push(&mut fifo), committed);
            }
            of.go_on(name, fifo, &mut follower);
            name.assert_nothing_left();
            outcome.killed()
        }),
    }
}

/// The victim reads, or does something else that delivers nothing to others.
fn taker(
    name: &str,
    of: Fifo,
    shares: bool,
    prepare: impl Fn(&str) -> Subject + 'static,
    act: impl Fn(&str, &mut Subject) + 'static,
) -> Scenario {
    Scenario {
        name: format!("FIFO: {name}"),
        prepare: Box::new(prepare),
        act: Box::new(act),
        kill: Box::new(move |killing| {
            let name = killing.name;
            let (mut fifo, mut follower) = of.setup(name, shares);
            let outcome = killing.run();
            assert_eq!(fifo.finalized(), of.before);
            let full = of.on_full != OnFull::Overwrite && of.before - of.read == of.slots;
            if full {
                follower.take();
            }
            if killing.first == First::Newcomers {
                let mut newcomer = Follower::new(name, of.slots, Reading::Broadcast, false);
                newcomer.drain();
                assert_eq!(newcomer.next, of.before);
                let mut writer = of.open(name);
                push(&mut writer);
            } else {
                push(&mut fifo);
                follower.drain();
            }
            of.go_on(name, fifo, &mut follower);
            if shares {
                // Each to one, and at most those lost that the dead one took.
                let told = outcome.number("took").unwrap_or(0);
                let taken = follower.next - follower.delivered;
                let more = u64::from(outcome.killed());
                assert!((told..=told + more).contains(&taken), "{taken} of {told}");
            }
            name.assert_nothing_left();
            outcome.killed()
        }),
    }
}

fn fifos() -> Vec<Scenario> {
    const OF: Fifo = Fifo {
        slots: 4,
        on_full: OnFull::Overwrite,
        trailer: true,
        reading: Reading::Broadcast,
        before: 1,
        read: 0,
    };
    const PLAIN: Fifo = Fifo {
        trailer: false,
        ..OF
    };
    const BLOCK: Fifo = Fifo {
        slots: 3,
        on_full: OnFull::Block,
        reading: Reading::Registered,
        before: 3,
        ..OF
    };
    fn pushes(fifo: &mut SlotFifo<Rec>) {
        push(fifo);
    }
    fn stages(fifo: &mut SlotFifo<Rec>) {
        let index = fifo.finalized();
        let whole = record(id(index));
        let late = Rec::update().text("late").count(5);
        fifo.stage(late).expect("it fits");
        fifo.stage(&whole).expect("it fits");
        let item = fifo.finalize().expect("there is room");
        assert_eq!(item, Some(index));
    }
    let mut all = vec![
        pusher("push with room", OF, 2, pushes),
        pusher("push with room, plain", PLAIN, 2, pushes),
        pusher("stage and finalize", OF, 2, stages),
        pusher(
            "overwrite what nobody has read",
            Fifo { before: 6, ..OF },
            2,
            pushes,
        ),
        pusher(
            "overwrite what nobody has read, plain",
            Fifo { before: 6, ..PLAIN },
            2,
            pushes,
        ),
        pusher(
            "overwrite what was shared",
            Fifo {
                before: 6,
                reading: Reading::Shared,
                ..OF
            },
            2,
            pushes,
        ),
        pusher("wait for a registered reader", BLOCK, 2, pushes),
        pusher(
            "wait for a reader that shares",
            Fifo {
                reading: Reading::Shared,
                ..BLOCK
            },
            2,
            pushes,
        ),
        pusher(
            "wait for a reader that shares, plain",
            Fifo {
                reading: Reading::Shared,
                trailer: false,
                ..BLOCK
            },
            2,
            pushes,
        ),
    ];
    all.extend(takers(OF, PLAIN, BLOCK));
    all.extend(idlers(OF, BLOCK));
    all
}

fn takers(of: Fifo, plain: Fifo, block: Fifo) -> Vec<Scenario> {
    fn as_reader(slots: u64, reading: Reading) -> impl Fn(&str) -> Subject {
        move |name| {
            let options = Options::new().reading(reading);
            let fifo = SlotFifo::open_with(name, slots, options);
            Subject::Fifo(fifo.expect("it is there"))
        }
    }
    fn take_two(_: &str, subject: &mut Subject) {
        for took in 1..=2 {
            subject.fifo().read(TIMEOUT).expect("it was pushed");
            tell(&format!("took {took}"));
        }
    }
    let nothing = |_: &str| Subject::Nothing;
    let shared = |of| Fifo {
        reading: Reading::Shared,
        ..of
    };
    vec![
        taker(
            "read and wait",
            Fifo { before: 2, ..of },
            false,
            as_reader(4, Reading::Broadcast),
            |name, subject| {
                take_two(name, subject);
                let nothing = subject.fifo().read(Duration::from_millis(2));
                assert!(nothing.is_err_and(|error| error.is_timeout()));
            },
        ),
        taker(
            "register, read and leave",
            Fifo { read: 1, ..block },
            false,
            nothing,
            |name, subject| {
                *subject = as_reader(3, Reading::Registered)(name);
                take_two(name, subject);
                *subject = Subject::Nothing;
            },
        ),
        taker(
            "read as registered",
            Fifo { read: 1, ..block },
            false,
            as_reader(3, Reading::Registered),
            take_two,
        ),
        taker(
            "read the latest as registered",
            Fifo { read: 1, ..block },
            false,
            as_reader(3, Reading::Registered),
            |_, subject| {
                let latest = subject.fifo().read_latest(TIMEOUT).expect("it was pushed");
                assert_eq!(latest.skipped(), 2);
            },
        ),
        taker(
            "join those who share, read and leave",
            shared(Fifo { before: 3, ..of }),
            true,
            nothing,
            |name, subject| {
                *subject = as_reader(4, Reading::Shared)(name);
                take_two(name, subject);
                *subject = Subject::Nothing;
            },
        ),
        taker(
            "read by the shared index, plain",
            shared(Fifo { before: 3, ..plain }),
            // Nothing tells that the others are not of the original's kind, so
            // that each goes by its own count.
            false,
            as_reader(4, Reading::Shared),
            take_two,
        ),
    ]
}

/// What neither delivers nor takes anything.
fn idlers(of: Fifo, block: Fifo) -> Vec<Scenario> {
    vec![
        taker(
            "be refused",
            block,
            false,
            |name| {
                let options = Options::new().on_full(OnFull::Refuse);
                let fifo = SlotFifo::open_with(name, 3, options);
                Subject::Fifo(fifo.expect("it is there"))
            },
            |_, subject| {
                let full = subject.fifo().push(record(1));
                assert!(full.is_err_and(|error| error.is_full()));
            },
        ),
        taker(
            "republish and drain",
            Fifo { before: 2, ..of },
            false,
            |name| Subject::Fifo(SlotFifo::open(name, 4).expect("it is there")),
            |_, subject| {
                let fifo = subject.fifo();
                fifo.republish().expect("nobody writes");
                let drained = fifo.drain(Duration::from_millis(1));
                assert!(!drained.expect("nobody writes"), "nobody shares");
            },
        ),
    ]
}

fn scenarios() -> Vec<Scenario> {
    let mut all = stores();
    all.extend(names());
    all.extend(fifos());
    all
}

/// Plays a scenario to its end; gives how many steps it has. What fails is told
/// in `failures`, and the next step is tried.
fn play(which: usize, scenario: &Scenario, first: First, failures: &mut Vec<String>) -> u64 {
    let mut number = 1;
    let mut failed = 0;
    loop {
        println!("{}: point {number}, first the {first:?}", scenario.name);
        let name = Name::new("slots-crash");
        let killing = Killing {
            which,
            number,
            first,
            name: &name,
        };
        let killed = catch_unwind(AssertUnwindSafe(|| (scenario.kill)(&killing)));
        match killed {
            Ok(true) => number += 1,
            Ok(false) => return number - 1,
            Err(_) => {
                failures.push(format!("{}: point {number}, {first:?}", scenario.name));
                failed += 1;
                number += 1;
                if failed == 3 {
                    return number;
                }
            }
        }
        assert!(number < 1000, "{} does not end", scenario.name);
    }
}

#[test]
fn the_living_go_on_and_nothing_half_is_seen() {
    let mut points = serde_json::Map::new();
    let (mut total, mut runs) = (0, 0);
    let mut failures = Vec::new();
    for (which, scenario) in scenarios().iter().enumerate() {
        let [count, again] = [First::Survivors, First::Newcomers]
            .map(|first| play(which, scenario, first, &mut failures));
        println!("{}: {count} points", scenario.name);
        // These change nothing shared.
        let silent = ["Plain: read after one that died, and wait", "open"];
        assert!(
            count > 0 && again > 0 || silent.contains(&&*scenario.name),
            "{}: not one step",
            scenario.name
        );
        points.insert(scenario.name.clone(), count.into());
        total += count;
        runs += count + again + 2;
    }
    println!("{total} points, {runs} runs");
    polyshm_testkit::report(
        "slots-crash.json",
        &serde_json::json!({ "points": total, "runs": runs, "scenarios": points }),
    );
    assert!(failures.is_empty(), "failed:\n{}", failures.join("\n"));
}
