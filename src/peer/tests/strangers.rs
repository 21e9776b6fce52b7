//! Senders that are no members by the receiver's table.

use futures::future::join_all;

use super::*;

const C: MemberId = MemberId(0xc);

fn identity(id: MemberId) -> Identity {
    Identity { id, cluster: CLUSTER_ID, urls: vec!["http://127.0.0.1:9".to_owned()] }
}

fn proposal(from: MemberId, to: MemberId) -> Message {
    let r#type = MessageType::MsgProp as i32;
    let entries = vec![Entry { data: Bytes::from_static(b"x"), ..Entry::default() }];
    Message { r#type, from: from.0, to: to.0, entries, ..Message::default() }
}

async fn post(to: &Node, from: MemberId, message: &Message) -> HttpAnswer {
    ask(to, &identity(from), Method::POST, "/raft", message.encode_to_vec()).await
}

const UNKNOWN: &str = r#"{"message":"cannot process message from unknown member"}"#;

#[tokio::test]
async fn invented_senders_are_refused_and_fill_no_table() {
    let (mut a, b) = pair().await;
    for id in 0x100..0x100 + 2 * crate::limits::PEER_REMOTES_MAX as u64 {
        let stranger = MemberId(id);
        for message in [heartbeat(stranger, A, 1), proposal(stranger, A)] {
            check(&post(&a, stranger, &message).await, 503, UNKNOWN);
        }
        let path = format!("/raft/stream/message/{stranger}");
        let stream = ask(&a, &identity(stranger), Method::GET, &path, "").await;
        check(&stream, 404, "error sender not found\n");
    }
    assert_eq!(a.transport.stats().len(), 1, "B alone is a peer");
    b.transport.send(vec![heartbeat(B, A, 7)]);
    assert_eq!(a.message().await, heartbeat(B, A, 7), "nothing came before it");
}

/// An etcd takes 403, whatever its text, for its own removal, and ends.
#[tokio::test]
async fn only_a_removed_sender_is_answered_that_it_is_removed() {
    let a = Node::start(A, CLUSTER_ID).await;
    a.notes.members.lock().expect("not poisoned").clear();
    let first = (0x100..0x100 + 4 * crate::limits::PEER_VOUCHES as u64).map(MemberId);
    let answers = first.map(|sender| {
        let message = heartbeat(sender, A, 1);
        let a = &a;
        async move { post(a, sender, &message).await }
    });
    for answer in join_all(answers).await {
        assert!([204, 503].contains(&answer.status.as_u16()), "{answer:?}");
    }
    let elsewhere = heartbeat(B, C, 1);
    assert_eq!(post(&a, B, &elsewhere).await.status.as_u16(), 412);
}

#[tokio::test]
async fn a_sender_that_names_no_member_or_another_one_is_refused() {
    let (a, _b) = pair().await;
    check(&post(&a, MemberId(0), &heartbeat(B, A, 1)).await, 503, UNKNOWN);
    check(&post(&a, A, &heartbeat(A, A, 1)).await, 503, UNKNOWN);
    check(&post(&a, B, &heartbeat(C, A, 1)).await, 503, UNKNOWN);
}

#[tokio::test]
async fn a_member_that_joined_meanwhile_is_known_to_others() {
    let (mut a, b) = pair().await;
    b.notes.members.lock().expect("not poisoned").insert(C);
    check(&post(&a, C, &heartbeat(C, A, 1)).await, 204, "");
    assert_eq!(a.message().await, heartbeat(C, A, 1));
    check(&post(&a, C, &proposal(C, A)).await, 204, "");
    assert_eq!(a.message().await, proposal(C, A));
    assert!(a.transport.link(C).is_some(), "it can be answered");
    assert!(a.transport.member(C).is_none(), "and is no member here");
}

#[tokio::test]
async fn what_a_member_passes_on_keeps_its_first_sender() {
    let (mut a, b) = pair().await;
    check(&post(&a, B, &proposal(C, A)).await, 204, "");
    assert_eq!(a.message().await, proposal(C, A));
    b.transport.send(vec![heartbeat(C, A, 1), proposal(C, A), heartbeat(B, A, 2)]);
    assert_eq!(a.message().await, proposal(C, A));
    assert_eq!(a.message().await, heartbeat(B, A, 2));
}

#[tokio::test]
async fn a_sender_of_whom_nobody_can_be_asked_proposes_nothing() {
    let mut a = Node::start(A, CLUSTER_ID).await;
    // All that A knows are gone: it was down while they were replaced.
    a.transport.add(B, vec!["http://127.0.0.1:9".to_owned()]);
    check(&post(&a, C, &heartbeat(C, A, 1)).await, 204, "");
    assert_eq!(a.message().await, heartbeat(C, A, 1));
    check(&post(&a, C, &proposal(C, A)).await, 503, UNKNOWN);
}

#[tokio::test]
async fn a_lone_member_knows_that_there_is_no_other() {
    let a = Node::start(A, CLUSTER_ID).await;
    check(&post(&a, C, &heartbeat(C, A, 1)).await, 503, UNKNOWN);
}

#[tokio::test]
async fn a_member_without_a_table_takes_the_first_messages() {
    let mut a = Node::start(A, CLUSTER_ID).await;
    a.notes.members.lock().expect("not poisoned").clear();
    check(&post(&a, B, &heartbeat(B, A, 1)).await, 204, "");
    assert_eq!(a.message().await, heartbeat(B, A, 1));
}

#[tokio::test]
async fn acknowledgements_to_a_remote_are_sent_when_it_becomes_a_member() {
    let a = Node::start(A, CLUSTER_ID).await;
    let (mut b, listener) = Node::bind(B, CLUSTER_ID).await;
    a.transport.add_remote(B, vec![b.url.clone()]);
    // More than are posted at once: the others wait for B to answer.
    let count = 4 * crate::limits::PEER_PIPELINE_IN_FLIGHT as u64;
    for index in 0..count {
        a.transport.send(vec![heartbeat(A, B, index)]);
    }
    a.transport.add(B, vec![b.url.clone()]);
    b.serve(listener);
    let mut arrived = BTreeSet::new();
    while arrived.len() < usize::try_from(count).expect("few") {
        arrived.insert(b.message().await.commit);
    }
    assert!(a.transport.member(B).is_some());
}

#[tokio::test]
async fn a_message_that_nests_without_end_is_refused_before_it_is_decoded() {
    let mut message = Vec::new();
    for _ in 0..5_000 {
        let mut outer = vec![14 << 3 | 2];
        prost::encoding::encode_varint(message.len() as u64, &mut outer);
        outer.append(&mut message);
        message = outer;
    }
    let (mut a, b) = pair().await;
    let answer = ask(&a, &identity(B), Method::POST, "/raft", message).await;
    check(&answer, 400, "error unmarshalling raft message\n");
    b.transport.send(vec![heartbeat(B, A, 7)]);
    assert_eq!(a.message().await, heartbeat(B, A, 7), "A goes on");
}
