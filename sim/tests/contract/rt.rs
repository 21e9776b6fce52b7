//! What every `Runtime` must do, real or simulated.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate::env::{Elapsed, Env};
use tokio::sync::oneshot;

pub async fn check(env: Env) {
    time(&env).await;
    tasks(&env).await;
    blocking_work(&env).await;
    workers(&env).await;
    let (mut a, mut b) = ([0; 32], [0; 32]);
    env.rt.fill_random(&mut a);
    env.rt.fill_random(&mut b);
    assert_ne!(a, b);
}

async fn time(env: &Env) {
    let (before, wall) = (env.now(), env.wall());
    env.sleep(Duration::from_millis(20)).await;
    assert!(env.now() - before >= Duration::from_millis(20));
    assert!(env.wall().duration_since(wall).expect("it did not jump") >= Duration::from_millis(15));
    env.sleep_until(before).await;
    let mut sleep = env.sleep(Duration::from_millis(1));
    sleep.as_mut().await;
    sleep.as_mut().await;
    let late = env.timeout(Duration::from_millis(5), std::future::pending::<()>()).await;
    assert_eq!(late, Err(Elapsed));
    let ready = env.timeout(Duration::ZERO, std::future::ready(1)).await;
    assert_eq!(ready, Ok(1), "a result that is there counts");
}

async fn tasks(env: &Env) {
    let (started, has_started) = oneshot::channel();
    let (held, dropped) = oneshot::channel::<()>();
    let task = env.spawn("contract", async move {
        let _held = held;
        started.send(()).expect("it is waited for");
        std::future::pending().await
    });
    has_started.await.expect("it starts");
    assert!(!task.is_finished());
    task.abort();
    assert!(dropped.await.is_err(), "an aborted task is dropped");

    let (sent, received) = oneshot::channel();
    drop(env.spawn("contract", async move { sent.send(()).expect("it is waited for") }));
    received.await.expect("dropping the handle lets the task run");
}

async fn blocking_work(env: &Env) {
    assert_eq!(env.blocking("contract", || 6 * 7).await, 42);
    assert_eq!(env.blocking_outside("contract", || 6 * 7).await, 42);
    let (sent, received) = oneshot::channel();
    drop(
        env.rt
            .spawn_blocking("contract", Box::new(move || sent.send(()).expect("it is waited for"))),
    );
    received.await.expect("it runs although nobody waits");
}

async fn workers(env: &Env) {
    let worker = env.rt.worker("contract");
    let order = Arc::new(Mutex::new(Vec::new()));
    let running = Arc::new(AtomicUsize::new(0));
    let mut last = None;
    for n in 0..20 {
        let (order, running) = (Arc::clone(&order), Arc::clone(&running));
        last = Some(worker.run(Box::new(move || {
            assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "one at a time");
            order.lock().expect("no job panics").push(n);
            running.fetch_sub(1, Ordering::SeqCst);
        })));
    }
    last.expect("there were jobs").await;
    let order = order.lock().expect("no job panics");
    assert!(order.iter().copied().eq(0..20), "in the order given: {order:?}");
}
