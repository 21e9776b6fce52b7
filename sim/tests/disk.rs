//! What a simulated disk does when things go wrong. What any disk does is in `contract`.

use std::collections::BTreeSet;
use std::future::Future;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quorate::env::{Disk, Env, Open};
use sim::{DiskFaults, World};

const HOST: &str = "a";

/// Runs `scenario` with one host, for some seeds.
fn each_seed<F: Future<Output = ()> + 'static>(
    scenario: impl Fn(World) -> F + Send + Copy + 'static,
) {
    for seed in 0..20 {
        sim::run(seed, move |world| async move {
            world.add_host(HOST);
            scenario(world).await;
        });
    }
}

/// Runs `act` on the host's disk in a process of its own, to its end.
async fn on_disk<T: Send + 'static>(
    world: &World,
    act: impl FnOnce(&dyn Disk) -> T + Send + 'static,
) -> T {
    let main = |env: Env| async move {
        let disk = env.disk.clone();
        env.blocking("test", move || act(&*disk)).await
    };
    world.start(HOST, main).await.join().await.expect("nothing cuts it short")
}

fn create(disk: &dyn Disk, path: &str, bytes: &[u8]) -> Box<dyn quorate::env::File> {
    let file = disk.open(Path::new(path), Open::CreateNew).expect("a new name");
    file.write_all_at(bytes, 0).expect("space");
    file
}

fn read(disk: &dyn Disk, path: &str) -> std::io::Result<Vec<u8>> {
    let file = disk.open(Path::new(path), Open::Read)?;
    let mut bytes = vec![0; file.len()? as usize];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[test]
fn what_is_put_there_from_outside_stays() {
    each_seed(|world| async move {
        on_disk(&world, |disk| drop(create(disk, "/unsynced", b"unsynced"))).await;
        for bytes in [b"long", b"new!"] {
            world.disk(HOST).put("/folder/f", bytes).expect("space");
            world.power_off(HOST);
            let kept = on_disk(&world, |disk| read(disk, "/folder/f")).await;
            assert_eq!(kept.expect("kept"), bytes);
        }
    });
}

#[test]
fn a_killed_process_loses_nothing_it_wrote() {
    each_seed(|world| async move {
        on_disk(&world, |disk| drop(create(disk, "/f", b"unsynced"))).await;
        world.kill(HOST);
        assert_eq!(on_disk(&world, |disk| read(disk, "/f")).await.expect("kept"), b"unsynced");
    });
}

#[test]
fn what_was_synced_survives_a_power_cut() {
    each_seed(|world| async move {
        let write = |disk: &dyn Disk| {
            create(disk, "/f", &[7; 5000]).sync_data().expect("a sound disk");
            disk.sync_dir(Path::new("/")).expect("a sound disk");
        };
        on_disk(&world, write).await;
        world.power_off(HOST);
        assert_eq!(on_disk(&world, |disk| read(disk, "/f")).await.expect("durable"), [7; 5000]);
    });
}

#[test]
fn unsynced_writes_tear_at_sectors() {
    let mut seen = BTreeSet::new();
    for seed in 0..20 {
        let sectors = sim::run(seed, |world| async move {
            world.add_host(HOST);
            let write = |disk: &dyn Disk| {
                let file = create(disk, "/f", &[1; 4 * 512]);
                file.sync_data().expect("a sound disk");
                disk.sync_dir(Path::new("/")).expect("a sound disk");
                file.write_all_at(&[2; 4 * 512], 0).expect("space");
            };
            on_disk(&world, write).await;
            world.power_off(HOST);
            let bytes = on_disk(&world, |disk| read(disk, "/f")).await.expect("durable");
            let whole = bytes.chunks(512).all(|sector| sector.iter().all(|b| *b == sector[0]));
            assert!(whole, "sectors are never torn");
            bytes.chunks(512).map(|sector| sector[0]).collect::<Vec<_>>()
        });
        seen.insert(sectors);
    }
    assert!(seen.len() > 5, "old and new sectors in many patterns: {seen:?}");
}

#[test]
fn a_failed_sync_forgets_what_it_was_about() {
    each_seed(|world| async move {
        world.disk(HOST).set_faults(DiskFaults { sync: 1.0, ..Default::default() });
        let disk = world.disk(HOST);
        let write = move |door: &dyn Disk| {
            let file = create(door, "/f", b"lost");
            door.sync_dir(Path::new("/")).expect("folders are sound");
            file.sync_data().expect_err("injected");
            disk.set_faults(DiskFaults::default());
            file.sync_data().expect("the retry succeeds, and proves nothing");
            assert_eq!(read(door, "/f").expect("open"), b"lost", "still in the cache");
        };
        on_disk(&world, write).await;
        world.power_off(HOST);
        assert_eq!(
            on_disk(&world, |disk| read(disk, "/f")).await.expect("its name is durable"),
            b""
        );
    });
}

#[test]
fn folders_forget_what_was_not_synced() {
    let (mut kept, mut lost) = (0, 0);
    for seed in 0..20 {
        let exists = sim::run(seed, |world| async move {
            world.add_host(HOST);
            on_disk(&world, |disk| create(disk, "/f", b"x").sync_data().expect("sound")).await;
            world.power_off(HOST);
            on_disk(&world, |disk| disk.exists(Path::new("/f"))).await.expect("readable")
        });
        if exists { kept += 1 } else { lost += 1 }
    }
    assert!(kept > 0 && lost > 0, "syncing the file is not syncing its name: {kept} {lost}");
}

#[test]
fn syncing_one_folder_does_not_sync_another() {
    let mut lost = 0;
    for seed in 0..20 {
        lost += sim::run(seed, |world| async move {
            world.add_host(HOST);
            let write = |disk: &dyn Disk| {
                for folder in ["/a", "/b"] {
                    disk.create_dir_all(Path::new(folder)).expect("space");
                }
                disk.sync_dir(Path::new("/")).expect("sound");
                drop(create(disk, "/a/f", b""));
                drop(create(disk, "/b/f", b""));
                disk.sync_dir(Path::new("/b")).expect("sound");
            };
            on_disk(&world, write).await;
            world.power_off(HOST);
            let look = |disk: &dyn Disk| {
                assert!(disk.exists(Path::new("/b/f")).expect("readable"), "it was synced");
                usize::from(!disk.exists(Path::new("/a/f")).expect("readable"))
            };
            on_disk(&world, look).await
        });
    }
    assert!(lost > 0, "the other folder's entry may be lost");
}

#[test]
fn created_folders_are_durable() {
    each_seed(|world| async move {
        let path = Path::new("/data/member/wal");
        on_disk(&world, |disk| disk.create_dir_all(path).expect("space")).await;
        world.power_off(HOST);
        assert!(on_disk(&world, |disk| disk.exists(path)).await.expect("readable"));
    });
}

#[test]
fn a_rename_is_whole_whatever_is_lost() {
    each_seed(|world| async move {
        let write = |disk: &dyn Disk| {
            for (path, bytes) in [("/old", b"1"), ("/new", b"2")] {
                create(disk, path, bytes).sync_data().expect("sound");
            }
            disk.sync_dir(Path::new("/")).expect("sound");
            disk.rename(Path::new("/new"), Path::new("/old")).expect("replaces");
        };
        on_disk(&world, write).await;
        world.power_off(HOST);
        let look =
            |disk: &dyn Disk| (read(disk, "/old").expect("always there"), read(disk, "/new"));
        match on_disk(&world, look).await {
            (old, Err(_)) => assert_eq!(old, b"2", "renamed"),
            (old, Ok(new)) => assert_eq!((&old[..], &new[..]), (&b"1"[..], &b"2"[..]), "not yet"),
        }
    });
}

#[test]
fn the_power_goes_at_the_chosen_operation() {
    each_seed(|world| async move {
        let went_on = Arc::new(AtomicBool::new(false));
        let after = Arc::clone(&went_on);
        world.power_off_at_operation(HOST, 3);
        let main = |env: Env| async move {
            let disk = env.disk.clone();
            let work = move || {
                let file = disk.open(Path::new("/f"), Open::CreateNew).expect("operation 1");
                file.write_all_at(b"x", 0).expect("operation 2");
                let cut = file.sync_data().expect_err("operation 3");
                assert_eq!(cut.to_string(), "the power went");
                file.len().expect_err("nothing works any more");
                disk.exists(Path::new("/")).expect_err("not even that");
            };
            env.blocking("test", work).await;
            after.store(true, Ordering::Relaxed);
        };
        assert_eq!(world.start(HOST, main).await.join().await, None);
        assert!(!world.is_running(HOST));
        assert!(!went_on.load(Ordering::Relaxed), "the failed sync is not reported");
        on_disk(&world, |disk| disk.exists(Path::new("/")).expect("a new process")).await;
    });
}

#[test]
fn a_full_disk_takes_what_fits_and_preallocated_space_stays_usable() {
    each_seed(|world| async move {
        world.disk(HOST).set_capacity(10_000);
        let write = |disk: &dyn Disk| {
            let log = create(disk, "/log", b"");
            log.allocate(8_000).expect("it fits");
            assert_eq!(disk.free_bytes(Path::new("/")).expect("a folder"), 2_000);
            let other = create(disk, "/other", b"");
            let full = other.write_all_at(&[1; 3_000], 0).expect_err("too much");
            assert_eq!(full.kind(), ErrorKind::StorageFull);
            assert_eq!(other.len().expect("open"), 2_000, "a part of it was written");
            log.write_all_at(&[2; 8_000], 0).expect("reserved");
            let full = log.allocate(8_001).expect_err("not one byte more");
            assert_eq!(full.kind(), ErrorKind::StorageFull);
        };
        on_disk(&world, write).await;
    });
}

#[test]
fn a_flipped_bit_stays_flipped() {
    each_seed(|world| async move {
        let write = |disk: &dyn Disk| {
            create(disk, "/f", &[0; 100]).sync_data().expect("sound");
            disk.sync_dir(Path::new("/")).expect("sound");
        };
        on_disk(&world, write).await;
        world.disk(HOST).flip_bit("/f", 42, 3).expect("it exists");
        world.power_off(HOST);
        let bytes = on_disk(&world, |disk| read(disk, "/f")).await.expect("durable");
        assert_eq!((bytes[42], bytes.iter().filter(|byte| **byte != 0).count()), (8, 1));
    });
}

#[test]
fn a_lock_is_free_after_its_holder_is_killed() {
    each_seed(|world| async move {
        let hold = |env: Env| async move {
            let _held = env.disk.lock(Path::new("/lock")).expect("free");
            std::future::pending::<()>().await
        };
        world.start(HOST, hold).await;
        world.sleep(std::time::Duration::from_secs(1)).await;
        world.kill(HOST);
        on_disk(&world, |disk| drop(disk.lock(Path::new("/lock")).expect("free again"))).await;
    });
}
