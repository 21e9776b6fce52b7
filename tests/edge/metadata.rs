//! Metadata of calls: as much as etcd takes, and a bound that costs other calls of the connection nothing.

use super::*;

/// So many bytes, in values of 8 000.
fn metadata(bytes: usize) -> Vec<(&'static str, &'static str)> {
    let value: &'static str = String::leak("x".repeat(8_000));
    vec![("more", value); bytes / value.len()]
}

#[tokio::test]
async fn metadata_of_200_kb_is_taken_and_too_much_is_refused_alone() {
    let world = World::new(|_| {}).await;
    let mut watch = world.watch(None).await;
    let range = RangeRequest { key: Bytes::from_static(b"w"), ..RangeRequest::default() };
    let range = framed(0, &range.encode_to_vec());
    let path = "/etcdserverpb.KV/Range";
    let answer = world.call(path, &metadata(200_000), range.clone()).await;
    assert_eq!(answer.body().trailers().expect("a result")["grpc-status"], "0");
    let refused = world.call(path, &metadata(limits::METADATA_BYTES_MAX + 8_000), range).await;
    let code = (Code::ResourceExhausted as i32).to_string();
    assert_eq!(refused.headers()["grpc-status"], code.as_str());
    let text = refused.headers()["grpc-message"].to_str().expect("text");
    assert!(text.starts_with("received metadata larger than max ("), "{text}");
    world.kv().put(PutRequest { key: Bytes::from_static(b"w"), ..put(1) }).await.expect("put");
    let event = watch.next().await.expect("the stream goes on").expect("an event");
    assert_eq!(event.events.len(), 1);
}
