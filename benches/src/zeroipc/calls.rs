//! What single calls cost on one thread, when nobody contends.

use crate::{
    machine::Pinned,
    names,
    report::Section,
    turns::{self, Contender, Effort, Group},
};
use anyhow::Result;
use crossbeam_queue::ArrayQueue;
use polyshm_zeroipc::{Map, Memory, Queue, Semaphore};
use std::{
    collections::HashMap,
    hint::black_box,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

/// Elements of each queue.
const QUEUE: usize = 1024;
/// Slots of the map; half of them are used, in both maps.
const SLOTS: u64 = 1 << 14;
const KEYS: u64 = SLOTS / 2;
const FULL: Effort = Effort {
    rounds: 40,
    batch: 20_000,
};
const SMOKE: Effort = Effort {
    rounds: 2,
    batch: 2_000,
};

/// A comparison: the first contender's time over the second's.
#[derive(Debug)]
struct Comparison {
    over: &'static str,
    under: &'static str,
    /// The most that it should be.
    target: Option<f64>,
}

const COMPARISONS: [Comparison; 6] = [
    Comparison {
        over: "Queue<u64> push, pop",
        under: "ArrayQueue<u64> push, pop",
        target: Some(1.0),
    },
    Comparison {
        over: "Queue<u32> push, pop",
        under: "ArrayQueue<u32> push, pop",
        target: Some(1.0),
    },
    Comparison {
        over: "Map get, hit",
        under: "HashMap get, hit",
        target: None,
    },
    Comparison {
        over: "Map get, miss",
        under: "HashMap get, miss",
        target: None,
    },
    Comparison {
        over: "Semaphore acquire, release",
        under: "AtomicU32 sub, add",
        target: None,
    },
    Comparison {
        over: "Semaphore acquire, release",
        under: "std Mutex lock, unlock",
        target: None,
    },
];

/// What is compared with each other, in groups.
///
/// The structures are in a segment of this run, which goes with its
/// [`names::Guard`].
///
/// # Errors
///
/// The segment cannot be created, or is too small.
pub fn groups() -> Result<Vec<Group>> {
    let name = format!("{}calls", names::prefix());
    let memory = Memory::create_new(&name, 2 << 20)?;
    let groups = vec![
        ("queue of u64", queue_u64(&memory)?),
        ("queue of u32", queue_u32(&memory)?),
        ("map", map(&memory)?),
        ("semaphore", semaphore(&memory)?),
    ];
    // The structures keep it mapped.
    memory.unlink()?;
    Ok(groups)
}

fn queue_u64(memory: &Memory) -> Result<Vec<Contender>> {
    let queue = Queue::<u64>::create(memory, "u64", QUEUE as u64)?;
    let array = ArrayQueue::<u64>::new(QUEUE);
    Ok(vec![
        Contender::new(COMPARISONS[0].over, move |number| {
            queue.try_push(number).is_ok() && queue.try_pop() == Some(number)
        }),
        Contender::new(COMPARISONS[0].under, move |number| {
            array.push(number).is_ok() && array.pop() == Some(number)
        }),
    ])
}

fn queue_u32(memory: &Memory) -> Result<Vec<Contender>> {
    let queue = Queue::<u32>::create(memory, "u32", QUEUE as u64)?;
    let array = ArrayQueue::<u32>::new(QUEUE);
    Ok(vec![
        Contender::new(COMPARISONS[1].over, move |number| {
            let number = number as u32;
            queue.try_push(number).is_ok() && queue.try_pop() == Some(number)
        }),
        Contender::new(COMPARISONS[1].under, move |number| {
            let number = number as u32;
            array.push(number).is_ok() && array.pop() == Some(number)
        }),
    ])
}

/// A number's key: any two numbers have different ones (splitmix64).
fn key(number: u64) -> u64 {
    let mut key = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    key = (key ^ (key >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    key = (key ^ (key >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    key ^ (key >> 31)
}

fn map(memory: &Memory) -> Result<Vec<Contender>> {
    let shared = Map::<u64, u64>::create(memory, "map", SLOTS)?;
    let mut private = HashMap::with_capacity(KEYS as usize);
    let keys: Vec<u64> = (0..KEYS).map(key).collect();
    let strange: Vec<u64> = (KEYS..2 * KEYS).map(key).collect();
    for (value, &key) in (0..).zip(&keys) {
        shared.insert(key, value)?;
        private.insert(key, value);
    }
    let at = |number: u64| (number % KEYS) as usize;
    let (shared2, private2) = (shared.clone(), private.clone());
    let (keys2, strange2) = (keys.clone(), strange.clone());
    Ok(vec![
        Contender::new(COMPARISONS[2].over, move |number| {
            shared.get(keys[at(number)]) == Ok(Some(number % KEYS))
        }),
        Contender::new(COMPARISONS[2].under, move |number| {
            private.get(&keys2[at(number)]) == Some(&(number % KEYS))
        }),
        Contender::new(COMPARISONS[3].over, move |number| {
            shared2.get(strange[at(number)]) == Ok(None)
        }),
        Contender::new(COMPARISONS[3].under, move |number| {
            !private2.contains_key(&strange2[at(number)])
        }),
    ])
}

fn semaphore(memory: &Memory) -> Result<Vec<Contender>> {
    let semaphore = Semaphore::create(memory, "semaphore", 1, None)?;
    let count = Box::new(AtomicU32::new(1));
    let mutex = Box::new(Mutex::new(0));
    Ok(vec![
        Contender::new(COMPARISONS[4].over, move |_| {
            let permit = semaphore.try_acquire();
            permit.is_some() && semaphore.count() == 0
        }),
        Contender::new(COMPARISONS[4].under, move |_| {
            // As the semaphore: what is done with the permit stays within.
            let had = count.fetch_sub(1, Ordering::Acquire) == 1;
            let none = count.load(Ordering::Acquire) == 0;
            count.fetch_add(1, Ordering::Release);
            had && none
        }),
        Contender::new(COMPARISONS[5].under, move |number| {
            mutex.lock().is_ok_and(|mut guard| {
                *guard = number;
                black_box(*guard) == number
            })
        }),
    ])
}

/// Measures all groups, block by block. In a block the contenders of a group
/// take turns many times; each counts with its median.
///
/// # Errors
///
/// A call gave something wrong.
pub fn section(blocks: usize, smoke: bool, core: Option<usize>) -> Result<Section> {
    let _pinned = Pinned::to(core)?;
    let mut section = Section::new("zeroipc calls", "ns per pair of calls or lookup");
    let effort = if smoke { SMOKE } else { FULL };
    for _ in 0..blocks {
        // Anew for each block: where the bytes lie counts.
        for (_, mut group) in groups()? {
            turns::block(&mut section, &mut group, effort)?;
        }
    }
    for Comparison {
        over,
        under,
        target,
    } in COMPARISONS
    {
        section.ratio(&format!("{over} / {under}"), over, under);
        if let Some(most) = target {
            section.aim_at_most(most);
        }
    }
    Ok(section)
}
