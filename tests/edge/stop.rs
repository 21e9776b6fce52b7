//! An orderly stop.

use super::*;

#[tokio::test]
async fn a_stop_ends_streams_with_etcds_status_and_answers_what_is_under_way() {
    let world = World::new(|_| {}).await;
    let mut watches = [world.watch(None).await, world.watch(None).await];
    let mut health = HealthClient::new(world.channel.clone())
        .watch(HealthCheckRequest::default())
        .await
        .expect("the stream opens")
        .into_inner();
    let serving = health.message().await.expect("an answer").expect("not the end");
    assert_eq!(serving.status, 1);
    let puts: Vec<_> = (0..64)
        .map(|_| {
            let mut kv = world.kv();
            tokio::spawn(async move { kv.put(put(10)).await })
        })
        .collect();
    // As soon as one is answered, the others are on their way.
    let mut puts = puts.into_iter();
    let first = puts.next().expect("there are 64").await.expect("it does not panic");
    first.expect("a server at work answers");
    let World { server, _dir, .. } = world;
    let stop = tokio::spawn(async move {
        tokio::time::timeout(Duration::from_secs(3), server.shutdown()).await
    });
    let stopped = (Code::Unavailable, "etcdserver: server stopped".to_owned());
    for watch in &mut watches {
        assert_eq!(watch.end().await, stopped);
    }
    let turned = health.message().await.expect("health turns first").expect("not the end");
    assert_eq!(turned.status, 2);
    assert_eq!(health.message().await.expect_err("the end").message(), stopped.1);
    for put in puts {
        if let Err(status) = put.await.expect("it does not panic") {
            // Not sent before the server took no more; never half done.
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        }
    }
    stop.await.expect("it does not panic").expect("a stop with streams open does not take long");
}
