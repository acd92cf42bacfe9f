//! Micro-benchmarks within one process: what a frame and a copy cost when
//! nobody contends. Compare numbers of the same run only.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use polyshm_platform::Region;
use polyshm_zerobuffer::{BufferConfig, testing::HeapBuffer};
use std::{hint::black_box, time::Duration};

const COPIES: [(usize, &str); 5] = [
    (64, "64 B"),
    (1 << 10, "1 KiB"),
    (64 << 10, "64 KiB"),
    (1 << 20, "1 MiB"),
    (8 << 20, "8 MiB"),
];

/// A frame written, read and released, in a buffer on the heap.
fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("write and read");
    for (size, name) in [(64, "64 B"), (4 << 10, "4 KiB")] {
        let buffer = HeapBuffer::new(&BufferConfig::default()).expect("the default layout");
        let reader = buffer.reader().expect("a fresh buffer");
        let mut writer = buffer.writer().expect("a fresh buffer");
        let data = vec![7; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                writer.write(black_box(&data)).expect("room");
                let frame = reader.try_read().expect("a sound buffer").expect("a frame");
                black_box(frame.first().copied())
            });
        });
    }
    group.finish();
}

/// The tear-tolerant copies and `copy_from_slice`, between the same addresses.
fn copies(c: &mut Criterion) {
    for (size, name) in COPIES {
        let region = Region::heap(size);
        let bytes = region.bytes(0, size).expect("the whole region");
        let mut private = vec![7; size];
        let mut group = c.benchmark_group(format!("copy/{name}"));
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function("Bytes::write", |b| {
            b.iter(|| bytes.write(0, black_box(&private)));
        });
        group.bench_function("Bytes::read", |b| {
            b.iter(|| bytes.read(0, black_box(&mut private)));
        });
        group.bench_function("copy_from_slice", |b| {
            b.iter(|| {
                // SAFETY: this thread alone has the region, and no other loan.
                let mut lent = unsafe { bytes.lend_mut(0, size) }.expect("the whole region");
                lent.copy_from_slice(black_box(&private));
                black_box(&mut *lent);
            });
        });
        group.finish();
    }
}

/// Single calls of ZeroIPC's structures in a shared segment, and what `paired`
/// compares them with.
#[cfg(target_os = "linux")]
fn calls(c: &mut Criterion) {
    use polyshm_benches::{names, zeroipc::calls};
    use std::time::Instant;

    let _names = names::Guard::new();
    for (what, contenders) in calls::groups().expect("a segment") {
        let mut group = c.benchmark_group(format!("zeroipc/{what}"));
        for mut contender in contenders {
            group.bench_function(contender.name(), |b| {
                b.iter_custom(|calls| {
                    let started = Instant::now();
                    let right = contender.call(0..calls);
                    let took = started.elapsed();
                    assert!(right, "something wrong came out");
                    took
                });
            });
        }
        group.finish();
    }
}

#[cfg(not(target_os = "linux"))]
fn calls(_: &mut Criterion) {}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    targets = frames, copies, calls
}
criterion_main!(benches);
