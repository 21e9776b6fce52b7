//! A plain thread beside the simulation, for work that must not see the simulated clock: opening a
//! RocksDB, which registers with a timer thread that lives by the real one. The simulation waits for
//! it, so it takes no simulated time and wakes no task.

use std::sync::mpsc::{SyncSender, sync_channel};

use quorate::env::Job;

#[derive(Clone)]
pub(crate) struct Off(SyncSender<Job>);

impl Off {
    /// Must be called before the simulation's context exists: madsim forbids threads inside.
    pub(crate) fn start() -> Self {
        let (queue, jobs) = sync_channel::<Job>(1);
        std::thread::Builder::new()
            .name("sim-off".to_owned())
            .spawn(move || jobs.into_iter().for_each(|job| job()))
            .expect("the system has a thread left");
        Self(queue)
    }

    /// Runs `work` there and waits for what it returns.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (reply, result) = sync_channel(1);
        let job: Job = Box::new(move || drop(reply.send(work())));
        self.0.send(job).expect("no job outside the simulation has panicked");
        result.recv().expect("the job outside the simulation has not panicked")
    }
}
