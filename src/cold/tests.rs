use super::*;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

fn volume(model: Model, bytes: u64) -> ColdVolume {
    ColdVolume::new(model, sectors_of(bytes), 1, ExtentSet::new())
}

fn gp3() -> Model {
    Model::named("gp3").unwrap()
}

fn block(unit: u64, model: &Model) -> Extent {
    Extent::at(unit * model.unit_sectors(), 8).unwrap()
}

/// Lets everything end; answers in order.
fn drain(volume: &mut ColdVolume) -> Vec<Answer> {
    std::iter::from_fn(|| volume.pop_due(u64::MAX)).collect()
}

#[test]
fn a_unit_is_fetched_once_and_then_warm() {
    let model = gp3();
    let mut volume = volume(model.clone(), 64 * MIB);
    volume.submit(0, 1, Op::Read, block(3, &model));
    volume.submit(0, 2, Op::Read, block(3, &model));
    let first = drain(&mut volume);
    assert_eq!(volume.counters().fetches, 1);
    assert!(first.iter().all(|answer| answer.at_ns > 5_000_000), "{first:?}");
    let now = first[1].at_ns;
    volume.submit(now, 3, Op::Read, block(3, &model));
    let again = drain(&mut volume)[0];
    assert!((400_000..1_200_000).contains(&(again.at_ns - now)), "{again:?}");
    assert_eq!(volume.touched().len(), 1);
    volume.reset();
    assert!(!volume.is_warm(3));
}

#[test]
fn one_at_a_time_has_the_latency_of_the_law() {
    let model = gp3();
    let mut volume = volume(model.clone(), 4096 * MIB);
    let mut now = 0;
    let mut latencies: Vec<u64> = (0..4000)
        .map(|unit| {
            volume.submit(now, unit, Op::Read, block(unit, &model));
            let at = drain(&mut volume)[0].at_ns;
            let latency = at - now;
            now = at;
            latency
        })
        .collect();
    latencies.sort_unstable();
    let median = latencies[2000] as f64 / 35e6;
    assert!((0.95..1.05).contains(&median), "{median}");
    // p99 of lognormal(35 ms, 0.6) is 141 ms.
    let p99 = latencies[3960] as f64 / 141.3e6;
    assert!((0.9..1.1).contains(&p99), "{p99}");
}

/// All at once, for each model: the hydration rate or the number of fetches decides, as the bound says.
#[test]
fn many_at_once_take_the_bound() {
    for name in Model::names() {
        let model = Model::named(name).unwrap();
        let units = 2000;
        let mut volume = volume(model.clone(), units * model.unit_bytes);
        for unit in 0..units {
            volume.submit(0, unit, Op::Read, block(unit, &model));
        }
        let last = drain(&mut volume).last().unwrap().at_ns as f64;
        let ratio = last / model.bound_ns(units) as f64;
        assert!((0.95..1.15).contains(&ratio), "{name}: {ratio}");
    }
}

#[test]
fn iops_and_throughput_limit_warm_reads() {
    let mut model = gp3();
    model.faults.warm_share = 1.0;
    let mut volume = volume(model.clone(), 512 * MIB);
    for id in 0..3000 {
        volume.submit(0, id, Op::Read, block(id % 1000, &model));
    }
    let last = drain(&mut volume).last().unwrap().at_ns as f64 / 1e9;
    assert!((0.99..1.01).contains(&last), "3000 reads at 3000 IOPS took {last} s");
    let start = volume.now_ns;
    for id in 0..125 {
        volume.submit(start, id, Op::Read, Extent::at(id * 2048, 2048).unwrap());
    }
    let last = (drain(&mut volume).last().unwrap().at_ns - start) as f64 / 1e9;
    assert!((0.98..1.01).contains(&last), "125 MiB at 125 MiB/s took {last} s");
}

#[test]
fn a_read_over_two_units_waits_for_both() {
    let ordered = gp3();
    let parallel = Model { span_parallel: true, ..gp3() };
    let time = |model: Model| {
        let mut volume = volume(model, 64 * MIB);
        volume.submit(0, 1, Op::Read, Extent::at(0, 2048).unwrap());
        let at = drain(&mut volume)[0].at_ns;
        assert_eq!(volume.counters().hydrated, 2);
        at
    };
    assert!(time(ordered) > time(parallel));
}

#[test]
fn faults_do_what_they_say() {
    let mut model = gp3();
    for (key, value) in
        [("eio_units", "2"), ("eio_sectors", "4096+8"), ("stall_fetch", "0"), ("stall", "60s")]
    {
        model.set(key, value).unwrap();
    }
    let mut volume = volume(model.clone(), 64 * MIB);
    volume.submit(0, 0, Op::Read, block(0, &model));
    volume.submit(0, 2, Op::Read, block(2, &model));
    volume.submit(0, 4, Op::Read, block(4, &model));
    volume.submit(0, 5, Op::Read, Extent::at(4104, 8).unwrap());
    let answers = drain(&mut volume);
    let by_id = |id| *answers.iter().find(|answer| answer.id == id).unwrap();
    assert!(by_id(0).at_ns >= 60_000_000_000 && !by_id(0).failed);
    assert!(by_id(2).failed && !volume.is_warm(2));
    assert!(by_id(4).failed && volume.is_warm(4), "bad sectors leave the rest of the unit readable");
    assert!(!by_id(5).failed);
    assert_eq!(volume.counters().errors, 2);
    let start = volume.now_ns;
    volume.submit(start, 6, Op::Read, block(2, &model));
    assert!(drain(&mut volume)[0].failed);
    let touched: Vec<u64> = volume.touched().iter().map(|touch| touch.unit).collect();
    assert_eq!(touched, [0, 2, 4]);
    assert_eq!(volume.counters().fetches, 4, "a unit that failed is fetched again, and listed once");
}

#[test]
fn unallocated_units_answer_warm_and_shares_are_drawn() {
    let model = gp3();
    let hole = Extent::at(0, 1024).into_iter().collect();
    let mut volume = ColdVolume::new(model.clone(), sectors_of(64 * MIB), 1, hole);
    volume.submit(0, 1, Op::Read, block(0, &model));
    assert!(drain(&mut volume)[0].at_ns < 2_000_000);
    assert!(volume.touched().is_empty());

    let mut third = gp3();
    third.set("unallocated", "0.33").unwrap();
    let volume = ColdVolume::new(third, sectors_of(512 * MIB), 5, ExtentSet::new());
    assert!((600..740).contains(&volume.cold_units()), "{}", volume.cold_units());
}

#[test]
fn writes_fetch_a_unit_unless_they_cover_it() {
    let model = gp3();
    let mut volume = volume(model.clone(), 64 * MIB);
    volume.submit(0, 1, Op::Write, block(1, &model));
    volume.submit(0, 2, Op::Write, Extent::at(2048, 1024).unwrap());
    drain(&mut volume);
    assert_eq!(volume.counters().fetches, 1);
    assert!(volume.is_warm(1) && volume.is_warm(2));
}

#[test]
fn a_varying_rate_varies() {
    let mut model = gp3();
    model.set("vary", "0.3..1.5").unwrap();
    let mut volume = volume(model.clone(), 2048 * MIB);
    for unit in 0..4000 {
        volume.submit(0, unit, Op::Read, block(unit, &model));
    }
    let mut per_second = [0u32; 64];
    for answer in drain(&mut volume) {
        per_second[(answer.at_ns / NS_PER_S).min(63) as usize] += 1;
    }
    let full: Vec<u32> = per_second.iter().copied().filter(|&n| n > 0).collect();
    let inner = &full[..full.len() - 1];
    assert!(inner.iter().max().unwrap() > &(2 * inner.iter().min().unwrap()), "{inner:?}");
}

proptest! {
    /// Whatever comes, in whatever order: every operation is answered once, not before it was asked, each unit
    /// is fetched at most once, and the same calls give the same answers.
    #[test]
    fn every_operation_is_answered_once(
        ops in prop::collection::vec((0u64..50_000_000, 0u64..4000, 1u64..3000, any::<bool>()), 1..80),
        seed in any::<u64>(),
    ) {
        let run = || {
            let mut volume = ColdVolume::new(gp3(), 4096, seed, ExtentSet::new());
            let mut now = 0;
            let mut answers = Vec::new();
            let mut asked = Vec::new();
            for (id, (wait, start, sectors, write)) in ops.iter().enumerate() {
                now += wait;
                answers.extend(std::iter::from_fn(|| volume.pop_due(now)));
                let op = if *write { Op::Write } else { Op::Read };
                volume.submit(now, id as u64, op, Extent::at(*start, *sectors).unwrap());
                asked.push(now);
            }
            answers.extend(drain(&mut volume));
            (answers, asked, volume.counters(), volume.pending.len() + volume.waiters.len())
        };
        let (answers, asked, counters, left) = run();
        prop_assert_eq!(left, 0);
        prop_assert_eq!(answers.len(), ops.len());
        prop_assert!(answers.windows(2).all(|w| w[0].at_ns <= w[1].at_ns));
        prop_assert!(answers.iter().all(|a| a.at_ns >= asked[a.id as usize]));
        prop_assert!(counters.fetches <= 4);
        prop_assert_eq!(answers, run().0);
    }
}
