//! The stream encodings against bytes written down by hand, and against themselves.

use proptest::prelude::*;

use super::*;

const LOCAL: MemberId = MemberId(0xa);
const REMOTE: MemberId = MemberId(0xb);

fn entry(term: u64, index: u64, data: &'static [u8]) -> Entry {
    Entry { term, index, data: Bytes::from_static(data), ..Entry::default() }
}

fn app(term: u64, log_term: u64, index: u64, entries: Vec<Entry>, commit: u64) -> Message {
    Message {
        r#type: MessageType::MsgApp as i32,
        to: LOCAL.0,
        from: REMOTE.0,
        term,
        log_term,
        index,
        entries,
        commit,
        ..Message::default()
    }
}

fn encode(kind: StreamKind, messages: &[Message]) -> Vec<u8> {
    let mut encoder = Encoder::new(kind);
    let mut out = BytesMut::new();
    for message in messages {
        if is_link_heartbeat(message) {
            encoder.link_heartbeat(&mut out);
        } else {
            encoder.encode(message, &mut out);
        }
    }
    out.to_vec()
}

/// Decodes `bytes` handed over `step` at a time.
fn decode(kind: StreamKind, bytes: &[u8], step: usize) -> Result<Vec<Message>, CodecError> {
    let mut decoder = Decoder::new(kind, LOCAL, REMOTE);
    let mut arrived = BytesMut::new();
    let mut messages = Vec::new();
    for chunk in bytes.chunks(step) {
        arrived.extend_from_slice(chunk);
        while let Some(message) = decoder.decode(&mut arrived)? {
            messages.push(message);
        }
    }
    assert!(arrived.is_empty(), "bytes left over: {arrived:?}");
    Ok(messages)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check(kind: StreamKind, messages: &[Message], golden: &[&str]) {
    let bytes = encode(kind, messages);
    assert_eq!(hex(&bytes), golden.concat());
    for step in [1, 7, bytes.len()] {
        assert_eq!(decode(kind, &bytes, step).expect("our own bytes"), messages);
    }
}

fn link_heartbeat() -> Message {
    Message { r#type: MessageType::MsgHeartbeat as i32, ..Message::default() }
}

#[test]
fn message_stream_is_length_and_message() {
    let vote = Message {
        r#type: MessageType::MsgPreVote as i32,
        to: 1,
        from: 2,
        term: 3,
        log_term: 4,
        index: 5,
        ..Message::default()
    };
    check(
        StreamKind::Message,
        &[vote, link_heartbeat()],
        &["000000000000000c", "081110011802200328043005", "0000000000000002", "0808"],
    );
}

#[test]
fn msgapp_is_short_only_when_it_continues() {
    let messages = [
        // A new stream stands nowhere: whole.
        app(2, 2, 5, vec![entry(2, 6, b"x")], 5),
        // From 6 on, in the same term: short.
        app(2, 2, 6, vec![entry(2, 7, b"y"), entry(2, 8, b"")], 6),
        // No entries, only the commit index: short too.
        app(2, 2, 8, vec![], 8),
        link_heartbeat(),
        // A gap (a probe after a loss): whole.
        app(2, 2, 7, vec![], 8),
        // Continues, but the entry before is of an older term: whole.
        app(3, 2, 7, vec![entry(3, 8, b"z")], 8),
        app(3, 3, 8, vec![], 9),
    ];
    check(
        StreamKind::MsgApp,
        &messages,
        &[
            "02",
            "0000000000000017",
            "0803100a180b2002280230053a071002180622017840",
            "05",
            "01",
            "0000000000000002",
            "0000000000000007",
            "10021807220179",
            "0000000000000004",
            "10021808",
            "0000000000000006",
            "01",
            "0000000000000000",
            "0000000000000008",
            "00",
            "02",
            "000000000000000e",
            "0803100a180b2002280230074008",
            "02",
            "0000000000000017",
            "0803100a180b2003280230073a071003180822017a4008",
            "01",
            "0000000000000000",
            "0000000000000009",
        ],
    );
}

#[test]
fn older_releases_write_their_zeroes() {
    // gogo/protobuf of etcd 3.4 writes every scalar and an empty snapshot: a link heartbeat.
    let heartbeat = [
        0x08, 0x08, 0x10, 0, 0x18, 0, 0x20, 0, 0x28, 0, 0x30, 0, 0x40, 0, 0x4a, 0x0a, 0x12, 0x08,
        0x0a, 0, 0x10, 0, 0x18, 0, 0x18, 0, 0x50, 0, 0x58, 0,
    ];
    let mut bytes = (heartbeat.len() as u64).to_be_bytes().to_vec();
    bytes.extend_from_slice(&heartbeat);
    let decoded = decode(StreamKind::Message, &bytes, 3);
    let messages = decoded.expect("skips what it does not know");
    assert!(messages.len() == 1 && is_link_heartbeat(&messages[0]), "{messages:?}");
}

#[test]
fn nonsense_ends_the_stream() {
    let unknown = decode(StreamKind::MsgApp, &[3], 1);
    assert!(matches!(unknown, Err(CodecError::UnknownFrame(3))), "{unknown:?}");

    let large = decode(StreamKind::Message, &u64::MAX.to_be_bytes(), 8);
    assert!(matches!(large, Err(CodecError::TooLarge(u64::MAX))), "{large:?}");

    let mut bytes = vec![APP];
    bytes.extend_from_slice(&2u64.to_be_bytes());
    bytes.extend_from_slice(&[0xff, 0xff]);
    let malformed = decode(StreamKind::MsgApp, &bytes, 1);
    assert!(matches!(malformed, Err(CodecError::Malformed(_))), "{malformed:?}");
}

/// MsgApps as a leader makes them: some continue, some go back, some change the term.
fn apps() -> impl Strategy<Value = Vec<Message>> {
    let step = (
        0..4u64,
        0..3u64,
        proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..4),
        0..5u8,
    );
    proptest::collection::vec(step, 1..40).prop_map(|steps| {
        let (mut term, mut index) = (1, 0);
        let mut messages = Vec::new();
        for (back, newer, data, heartbeat) in steps {
            if heartbeat == 0 {
                messages.push(link_heartbeat());
            }
            // Mostly go on from where the last one ended.
            index -= if back == 3 { index.min(2) } else { 0 };
            let log_term = term;
            term += u64::from(newer == 2);
            let entries: Vec<Entry> = data
                .into_iter()
                .zip(index + 1..)
                .map(|(data, index)| Entry { term, index, data: data.into(), ..Entry::default() })
                .collect();
            let length = entries.len() as u64;
            messages.push(app(term, log_term, index, entries, index));
            index += length;
        }
        messages
    })
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(messages in apps(), step in 1..200usize) {
        for kind in [StreamKind::MsgApp, StreamKind::Message] {
            let bytes = encode(kind, &messages);
            prop_assert_eq!(&decode(kind, &bytes, step).expect("our own bytes"), &messages);
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), step in 1..50usize) {
        for kind in [StreamKind::MsgApp, StreamKind::Message] {
            let mut decoder = Decoder::new(kind, LOCAL, REMOTE);
            let mut arrived = BytesMut::new();
            'stream: for chunk in bytes.chunks(step) {
                arrived.extend_from_slice(chunk);
                loop {
                    match decoder.decode(&mut arrived) {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(_) => break 'stream,
                    }
                }
            }
        }
    }
}
