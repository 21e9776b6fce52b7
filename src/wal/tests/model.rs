//! Random histories against the model of [`super::world`], with power cuts at any operation of the disk.

use proptest::prelude::*;

use super::super::WalError;
use super::disk::MemDisk;
use super::world::{Step, World, crash};
use super::{at, create, open};

fn step() -> impl Strategy<Value = Step> {
    let sizes = prop::collection::vec(
        prop_oneof![6 => 0..60_usize, 2 => 300..700_usize, 1 => 1_500..3_000_usize],
        1..8,
    );
    prop_oneof![
        10 => (0..4_u64, sizes, 0..6_u64, prop::bool::weighted(0.1)).prop_map(
            |(overwrite, sizes, commit, new_term)| Step::Append { overwrite, sizes, commit, new_term }
        ),
        2 => Just(Step::Mark),
        1 => (1..9_u64).prop_map(|ahead| Step::Receive { ahead }),
        2 => Just(Step::Release),
        1 => Just(Step::Prepare),
        2 => Just(Step::Reopen),
        2 => Just(Step::PowerCut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_history_with_power_cuts_keeps_what_was_promised(
        lives in prop::collection::vec(
            (prop::collection::vec(step(), 1..20), 0..80_usize, any::<u64>()),
            1..5,
        ),
    ) {
        let mut world = World::new();
        for (steps, fail_after, seed) in lives {
            world.disk.fail_after(fail_after);
            for step in &steps {
                if !world.step(step) {
                    break;
                }
            }
            crash(&world.disk, seed);
            world.recover().expect("a power cut never keeps the log from opening");
        }
    }
}

/// Every operation of one history as the last one before the power goes.
#[test]
fn a_power_cut_at_any_operation_is_survived() {
    let append = |sizes: &[usize]| Step::Append {
        overwrite: 1,
        sizes: sizes.to_vec(),
        commit: 2,
        new_term: false,
    };
    let script = [
        append(&[10, 20, 600]),
        append(&[700, 900, 40]),
        Step::Mark,
        Step::Prepare,
        append(&[1_800]),
        Step::Receive { ahead: 3 },
        append(&[10, 2_500, 10]),
        Step::Mark,
        Step::Release,
        append(&[5, 5]),
    ];
    let mut cuts = 0;
    for operation in 0.. {
        let mut ended = true;
        for seed in 0..8 {
            let mut world = World::new();
            world.disk.fail_after(operation);
            ended &= script.iter().all(|step| world.step(step));
            crash(&world.disk, seed);
            cuts += u32::from(world.recover().expect("it opens"));
            // The end is where appending goes on.
            assert!(world.step(&append(&[30, 30])) && world.reopen());
        }
        if ended {
            break;
        }
    }
    assert!(cuts > 0, "some writes were torn");
}

/// The log appears whole, or not at all.
#[test]
fn a_power_cut_during_creation_leaves_no_half_log() {
    for operation in 0..12 {
        for seed in 0..8 {
            let disk = MemDisk::default();
            disk.fail_after(operation);
            let created = create(&disk).is_ok();
            crash(&disk, seed);
            match open(&disk, at(0)) {
                Ok((_, recovered)) => assert_eq!(recovered.entries, []),
                Err(WalError::Absent(_)) => {
                    assert!(!created, "a log that was created stays");
                    create(&disk).expect("a second attempt clears what the first has left");
                }
                Err(other) => panic!("operation {operation}: {other}"),
            }
        }
    }
}
