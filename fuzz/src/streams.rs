//! Streams of bytes from peers and clients: however they are cut up, they mean the same.

use bytes::{Bytes, BytesMut};
use prost::Message;
use quorate::peer::fuzz::{Decoder, Encoder, StreamKind};
use quorate::types::MemberId;
use quorate::{http, replica, server};
use quorate_proto::raftpb::{Entry, Message as RaftMessage, MessageType};

/// Two ways to cut the same bytes: whole, and in pieces of so many.
fn cuts(input: &[u8]) -> Option<(usize, u8, &[u8])> {
    let [piece, choice, bytes @ ..] = input else { return None };
    Some((usize::from(*piece) + 1, *choice, bytes))
}

/// A stream of a peer's, and the body of one message.
pub fn peer(input: &[u8]) {
    let Some((piece, choice, bytes)) = cuts(input) else { return };
    let kind = if choice & 1 == 0 { StreamKind::Message } else { StreamKind::MsgApp };
    let decode = |piece: usize| {
        let mut decoder = Decoder::new(kind, MemberId(1), MemberId(2));
        let (mut arrived, mut messages) = (BytesMut::new(), Vec::new());
        for part in bytes.chunks(piece) {
            arrived.extend_from_slice(part);
            loop {
                match decoder.decode(&mut arrived) {
                    Ok(Some(message)) => messages.push(message),
                    Ok(None) => break,
                    Err(error) => return (messages, Some(error.to_string())),
                }
            }
        }
        (messages, None)
    };
    let whole = decode(bytes.len().max(1));
    assert_eq!(whole, decode(piece));
    let mut encoder = Encoder::new(StreamKind::Message);
    let mut written = BytesMut::new();
    whole.0.iter().for_each(|message| encoder.encode(message, &mut written));
    for message in &whole.0 {
        let mut decoder = Decoder::new(StreamKind::Message, MemberId(1), MemberId(2));
        let again = decoder.decode(&mut written).expect("our own bytes").expect("all of them");
        assert_eq!(again, *message);
        replica::fuzz::take(message.clone());
    }
    if let Ok(message) = RaftMessage::decode(bytes) {
        replica::fuzz::take(message);
    }
}

pub fn peer_seeds() -> Vec<Vec<u8>> {
    let app = |index, count: u64| RaftMessage {
        r#type: MessageType::MsgApp as i32,
        to: 1,
        from: 2,
        term: 3,
        log_term: 3,
        index,
        entries: (1..=count)
            .map(|n| Entry { term: 3, index: index + n, data: "x".into(), ..<_>::default() })
            .collect(),
        commit: index,
        ..RaftMessage::default()
    };
    let messages = [app(0, 1), app(1, 2), app(3, 0), RaftMessage { index: 9, ..app(9, 3) }];
    let stream = |kind, choice: u8| {
        let (mut encoder, mut out) = (Encoder::new(kind), BytesMut::new());
        messages.iter().for_each(|message| encoder.encode(message, &mut out));
        encoder.link_heartbeat(&mut out);
        [&[6, choice], &out[..]].concat()
    };
    vec![
        stream(StreamKind::Message, 0),
        stream(StreamKind::MsgApp, 1),
        [&[0, 0], &messages[1].encode_to_vec()[..]].concat(),
    ]
}

/// The walkers over HTTP/2 frames on the client port.
pub fn frames(input: &[u8]) {
    let Some((piece, _, bytes)) = cuts(input) else { return };
    let whole = server::fuzz::walk(bytes, bytes.len().max(1));
    assert_eq!(whole, server::fuzz::walk(bytes, piece), "pieces of {piece}");
    let (passed, _) = whole;
    assert!(passed.len() <= bytes.len(), "bytes were added");
}

pub fn frame_seeds() -> Vec<Vec<u8>> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let frame = |kind: u8, flags: u8, payload: &[u8]| {
        [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 1], payload].concat()
    };
    let headers = |authority: &[u8]| {
        let block =
            [&[0x83, 0x86, 0x44, 0x02, b'/', b'x', 0x41, authority.len() as u8][..], authority];
        frame(1, 4, &block.concat())
    };
    let start = [&[3, 0], PREFACE, &frame(4, 0, &[])].concat();
    vec![
        [&start[..], &headers(b"http://127.0.0.1:2379"), &frame(6, 0, &[0; 8])].concat(),
        [&start[..], &headers(b"/run/etcd.sock"), &frame(0, 1, b"data")].concat(),
        b"\x01\x00POST /v3/kv/put HTTP/1.1\r\n\r\n{}".to_vec(),
    ]
}

/// Bodies of the gateway: JSON of any RPC, and the answer's bytes as JSON.
pub fn gateway(input: &[u8]) {
    let Some((piece, choice, bytes)) = cuts(input) else { return };
    let rpcs = http::gateway::fuzz::rpcs();
    let rpc = usize::from(choice) % rpcs;
    let objects = |piece| http::gateway::fuzz::objects(rpc, bytes, piece);
    assert_eq!(objects(bytes.len().max(1)), objects(piece));
    if let Ok(wire) = http::gateway::fuzz::read(rpc, bytes) {
        let json = http::gateway::fuzz::write_request(rpc, wire.clone()).expect("our own bytes");
        let again = http::gateway::fuzz::read(rpc, json.as_bytes()).expect("our own JSON");
        let twice = http::gateway::fuzz::write_request(rpc, again).expect("our own bytes");
        assert_eq!(json, twice);
    }
    http::gateway::fuzz::answer(rpc, Bytes::copy_from_slice(bytes), piece);
}

pub fn gateway_seeds() -> Vec<Vec<u8>> {
    let texts: [&[u8]; 7] = [
        br#"{"key":"Zm9v","value":"YmFy","lease":"7","prev_kv":true}"#,
        br#"{"key":"Zm9v","range_end":"AA==","limit":10,"sort_order":"DESCEND","sortTarget":"KEY"}"#,
        br#"{"compare":[{"result":"EQUAL","target":"VALUE","key":"Zm9v","value":"YmFy"}],"success":[{"requestPut":{"key":"Zm9v"}}]}"#,
        br#"{"create_request":{"key":"Zm9v"}} {"cancel_request":{"watch_id":1}}"#,
        br#"{"TTL":60,"ID":"1"}"#,
        br#"{}"#,
        br#"[1e3,"\u00e9\\",null,{"a":[{}]}]"#,
    ];
    let of = |text: &[u8]| -> Vec<Vec<u8>> {
        (0..48).step_by(5).map(|rpc| [&[4, rpc], text].concat()).collect()
    };
    texts.into_iter().flat_map(of).collect()
}

/// The frames of a client over WebSocket.
pub fn websocket(input: &[u8]) {
    let Some((piece, _, bytes)) = cuts(input) else { return };
    let (whole, farewell) = http::gateway::fuzz::websocket(bytes, bytes.len().max(1));
    let (passed, same) = http::gateway::fuzz::websocket(bytes, piece);
    assert_eq!(farewell, same, "pieces of {piece}");
    // The first byte of a frame may be passed on before the second shows what it is.
    assert!(passed.starts_with(&whole) && passed.len() <= whole.len() + 1);
    // Of a Close that is not whole, nothing is passed on: two bytes, the mask, the payload.
    let missing = bytes.len() - whole.len();
    assert!(farewell.is_some() || missing < 2 + 4 + 125, "{missing} bytes are missing");
}

pub fn websocket_seeds() -> Vec<Vec<u8>> {
    let frame = |first: u8, payload: &[u8]| {
        [&[first, 0x80 | payload.len() as u8, 1, 2, 3, 4], payload].concat()
    };
    let message = frame(0x81, b"{\"ID\":\"1\"}");
    vec![
        [&[3, 0][..], &message, &frame(0x88, b"\x02\xea")].concat(),
        [&[0, 0][..], &frame(0x01, b"{"), &frame(0x89, b"hi"), &frame(0x80, b"}")].concat(),
        [&[7, 0][..], &[0x82, 0xfe, 1, 0, 0, 0, 0, 0], &[b' '; 256], &[0xc1, 2]].concat(),
    ]
}
