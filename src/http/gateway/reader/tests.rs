//! JSON requests: accepted and refused as by an etcd 3.7 with the same requests; the output of a JSON library
//! is read back, however it is cut.

use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::DynamicMessage;
use tonic::Code;

use super::*;
use crate::http::gateway::{json, paths};

const BOUNDS: Bounds = Bounds { json_bytes: 8 << 20, wire_bytes: 1 << 20 };

fn reader(path: &str) -> Reader {
    Reader::new(paths::find(path).expect("a path").request.clone(), BOUNDS)
}

/// Returns the message of a request as JSON, or the refusal.
fn read_in(path: &str, json: &str, part: usize) -> Result<String, String> {
    let mut reader = reader(path);
    let read = || -> Result<Bytes, Status> {
        for part in json.as_bytes().chunks(part) {
            let mut part = Bytes::copy_from_slice(part);
            if let Some(message) = reader.read(&mut part)? {
                return Ok(message);
            }
        }
        reader.finish()
    };
    let mut read = read;
    let message = read().map_err(|status| status.message().to_owned())?;
    json::write(&paths::find(path).expect("a path").request, message)
}

fn read(path: &str, json: &str) -> Result<String, String> {
    let whole = read_in(path, json, usize::MAX);
    for part in [1, 2, 7] {
        assert_eq!(read_in(path, json, part), whole, "parts of {part} bytes: {json}");
    }
    whole
}

#[test]
fn requests_are_read_as_protojson_reads_them() {
    for (json, message) in [
        (r#"{"key":"YQ==","limit":"1e0"}"#, r#"{"key":"YQ==","limit":"1"}"#),
        (r#"{"key":"YQ==","limit":1.0}"#, r#"{"key":"YQ==","limit":"1"}"#),
        (r#"{"limit":9223372036854775807}"#, r#"{"limit":"9223372036854775807"}"#),
        (r#"{"limit":"-12.50e1"}"#, r#"{"limit":"-125"}"#),
        (
            r#"{"sort_order":1.0,"sortTarget":"VALUE"}"#,
            r#"{"sort_order":"ASCEND","sort_target":"VALUE"}"#,
        ),
        (r#"{"sort_order":"1"}"#, "{}"),
        (r#"{"sort_order":"NOPE","key":"YQ"}"#, r#"{"key":"YQ=="}"#),
        ("{\"key\":\"YWFh\\r\\nYmJi\\r\\n\"}", r#"{"key":"YWFhYmJi"}"#),
        (r#"{"key":"Y-_Q"}"#, r#"{"key":"Y+/Q"}"#),
        (r#"{"key":"YQ=="} trailing"#, r#"{"key":"YQ=="}"#),
        (r#"{"key":null,"limit":null}"#, "{}"),
        ("", "{}"),
        (" \n\t{ \"keys_only\" : true , \"countOnly\":false }", r#"{"keys_only":true}"#),
        (
            r#"{"x":[1,-2.5e3,{"y":["\u0041",null,true,{}]}],"key":"YQ==","z":"\\\""}"#,
            r#"{"key":"YQ=="}"#,
        ),
        (r#"{"key":"YQ==","x":1,"x":2}"#, r#"{"key":"YQ=="}"#),
        (r#"{"k\u0065y":"YQ=="}"#, r#"{"key":"YQ=="}"#),
    ] {
        assert_eq!(read("/v3/kv/range", json), Ok(message.to_owned()), "{json}");
    }
    let nested = r#"{"success":[{"request_put":null},{"requestTxn":{"failure":[{"requestPut":{"key":"YQ=="}}]}}]}"#;
    let message =
        r#"{"success":[{},{"request_txn":{"failure":[{"request_put":{"key":"YQ=="}}]}}]}"#;
    assert_eq!(read("/v3/kv/txn", nested), Ok(message.to_owned()));
    let filters = r#"{"create_request":{"filters":["NOPE", 1.0, "NOPUT"]}}"#;
    let message = r#"{"create_request":{"filters":["NODELETE","NOPUT"]}}"#;
    assert_eq!(read("/v3/watch", filters), Ok(message.to_owned()));
    let urls = r#"{"peerURLs":["http://a:1","http://b:1"],"isLearner":true}"#;
    let message = r#"{"peerURLs":["http://a:1","http://b:1"],"isLearner":true}"#;
    assert_eq!(read("/v3/cluster/member/add", urls), Ok(message.to_owned()));
    let name = r#"{"name":"\ud83d\ude00 \u00fc"}"#;
    assert_eq!(read("/v3/auth/user/get", name), Ok("{\"name\":\"\u{1f600} \u{fc}\"}".to_owned()));
}

#[test]
fn requests_are_refused_in_etcds_words() {
    let range = [
        (r#"{"key":"YQ==","key":"YQ=="}"#, r#"proto: (line 1:15): duplicate field "key""#),
        (r#"{"key":"YQ==","key":null}"#, r#"proto: (line 1:15): duplicate field "key""#),
        (
            r#"{"key":"YQ==","range_end":"Yg==","rangeEnd":"Yg=="}"#,
            r#"proto: (line 1:34): duplicate field "rangeEnd""#,
        ),
        (r#"{"limit":"+1"}"#, r#"proto: (line 1:10): invalid value for int64 field limit: "+1""#),
        (r#"{"limit":"01"}"#, r#"proto: (line 1:10): invalid value for int64 field limit: "01""#),
        (r#"{"limit":" 1"}"#, r#"proto: (line 1:10): invalid value for int64 field limit: " 1""#),
        (r#"{"limit":1.5}"#, "proto: (line 1:10): invalid value for int64 field limit: 1.5"),
        (r#"{"limit":1e400}"#, "proto: (line 1:10): invalid value for int64 field limit: 1e400"),
        (
            r#"{"limit":"9223372036854775808"}"#,
            r#"proto: (line 1:10): invalid value for int64 field limit: "9223372036854775808""#,
        ),
        ("{\n \"limit\":{}}", "proto: (line 2:10): invalid value for int64 field limit: {"),
        (r#"{"limit":01}"#, "invalid character '1' after object key:value pair"),
        (r#"{"key":"Y!"}"#, r#"proto: (line 1:8): invalid value for bytes field key: "Y!""#),
        (r#"{"key":5}"#, "proto: (line 1:8): invalid value for bytes field key: 5"),
        (
            r#"{"key":"Y\nQ==\r\n"}"#,
            r#"proto: (line 1:8): invalid value for bytes field key: "Y\nQ==\r\n""#,
        ),
        (
            r#"{"keys_only":"true"}"#,
            r#"proto: (line 1:14): invalid value for bool field keysOnly: "true""#,
        ),
        (
            r#"{"sort_order":3000000000}"#,
            "proto: (line 1:15): invalid value for enum field sortOrder: 3000000000",
        ),
        (r#"["a"]"#, "proto: syntax error (line 1:1): unexpected token ["),
        ("5", "proto: syntax error (line 1:1): unexpected token 5"),
        ("null", "proto: syntax error (line 1:1): unexpected token null"),
        (r#""x""#, r#"proto: syntax error (line 1:1): unexpected token "x""#),
        ("xx", "invalid character 'x' looking for beginning of value"),
        ("{", "unexpected EOF"),
        ("-", "unexpected EOF"),
        (r#"{"a""#, "unexpected EOF"),
        (r#"{"key":"YQ==]}"#, "unexpected EOF"),
        ("]", "invalid character ']' looking for beginning of value"),
        ("{]", "invalid character ']' looking for beginning of object key string"),
        (r#"{"key":"YQ==",}"#, "invalid character '}' looking for beginning of object key string"),
        (r#"{"key":"YQ==" "limit":1}"#, "invalid character '\"' after object key:value pair"),
        (r#"{"key":"YQ=="]"#, "invalid character ']' after object key:value pair"),
        (r#"{"a" "b"}"#, "invalid character '\"' after object key"),
        (r#"{"a":[1 2]}"#, "invalid character '2' after array element"),
        (r#"{"key":tru}"#, "invalid character '}' in literal true (expecting 'e')"),
        (r#"{"limit":-}"#, "invalid character '}' in numeric literal"),
        (r#"{"x":1.e5}"#, "invalid character 'e' after decimal point in numeric literal"),
        (r#"{"x":1e+}"#, "invalid character '}' in exponent of numeric literal"),
        ("{\"key\":\"Y\n\"}", "invalid character '\\n' in string literal"),
        (r#"{"key":"a\q"}"#, "invalid character 'q' in string escape code"),
        (r#"{"key":"\u12g4"}"#, "invalid character 'g' in \\u hexadecimal character escape"),
        // The syntax of the whole counts before the meaning of a part.
        (r#"{"key":5,"x":tru}"#, "invalid character '}' in literal true (expecting 'e')"),
        (r#"{"key":5"#, "unexpected EOF"),
    ];
    for (json, text) in range {
        assert_eq!(read("/v3/kv/range", json), Err(text.to_owned()), "{json}");
    }
    let txn = [
        // The number of this field is 64.
        (
            r#"{"compare":[{"key":"YQ==","range_end":"Yg==","rangeEnd":"Yg=="}]}"#,
            r#"proto: (line 1:46): duplicate field "rangeEnd""#,
        ),
        (
            r#"{"compare":[{"key":"YQ==","version":"1","value":"YQ=="}]}"#,
            "proto: (line 1:41): error parsing \"value\", oneof etcdserverpb.Compare.target_union \
             is already set",
        ),
        (
            r#"{"success":[{"requestPut":{"key":"YQ==","value":"YQ=="},"requestRange":{"key":"YQ=="}}]}"#,
            "proto: (line 1:57): error parsing \"requestRange\", oneof \
             etcdserverpb.RequestOp.request is already set",
        ),
        (r#"{"success":[null]}"#, "proto: syntax error (line 1:13): unexpected token null"),
        (r#"{"success":[5]}"#, "proto: syntax error (line 1:13): unexpected token 5"),
        (r#"{"success":{}}"#, "proto: syntax error (line 1:12): unexpected token {"),
        (r#"{"success":"x"}"#, "proto: syntax error (line 1:12): unexpected token \"x\""),
        (r#"{"success":[[]]}"#, "proto: syntax error (line 1:13): unexpected token ["),
    ];
    for (json, text) in txn {
        assert_eq!(read("/v3/kv/txn", json), Err(text.to_owned()), "{json}");
    }
    let urls = r#"{"peerURLs":["http://a:1", 5]}"#;
    let text = "proto: (line 1:28): invalid value for string field peerURLs: 5";
    assert_eq!(read("/v3/cluster/member/add", urls), Err(text.to_owned()));
}

#[test]
fn a_stream_of_objects_is_read_one_after_the_other() {
    let text = r#" {"create_request":{"key":"e30="}} {}{"cancel_request":{"watch_id":7}} "#;
    let kind = &paths::find("/v3/watch").expect("a path").request;
    for part in 1..text.len() {
        let (mut reader, mut found) = (reader("/v3/watch"), Vec::new());
        for part in text.as_bytes().chunks(part) {
            let mut part = Bytes::copy_from_slice(part);
            while let Some(message) = reader.read(&mut part).expect("objects only") {
                found.push(json::write(kind, message).expect("a message"));
            }
        }
        let all = [
            r#"{"create_request":{"key":"e30="}}"#,
            "{}",
            r#"{"cancel_request":{"watch_id":"7"}}"#,
        ];
        assert_eq!(found, all, "parts of {part} bytes");
        assert!(!reader.is_partial());
    }
}

#[test]
fn a_request_that_is_too_large_is_measured_but_not_kept() {
    let ops = vec!["{}"; 700_000].join(",");
    let json = format!("{{\"success\":[{ops}]}}");
    let mut reader = reader("/v3/kv/txn");
    for part in json.as_bytes().chunks(16 << 10) {
        match reader.read(&mut Bytes::copy_from_slice(part)) {
            Ok(message) => assert!(message.is_none()),
            Err(status) => {
                let text = "grpc: received message larger than max (1400000 vs. 1048576)";
                assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, text));
                return;
            }
        }
        let (encoding, rest) = reader.kept();
        assert!(encoding <= BOUNDS.wire_bytes, "{encoding} bytes are kept");
        // The longest token is a name, whose buffer may be twice as large; three containers are open.
        assert!(rest <= 2 * "\"success\"".len() + 3, "{rest} bytes are kept besides");
    }
    panic!("it is taken");
}

#[test]
fn depth_and_length_are_bounded() {
    let refusal = |json: &[u8]| {
        let mut json = Bytes::copy_from_slice(json);
        reader("/v3/kv/range").read(&mut json).expect_err("it is refused").message().to_owned()
    };
    let deep = [&b"{\"x\":"[..], &[b'['; 20_000]].concat();
    assert_eq!(refusal(&deep), "exceeded max depth");
    let long = [&b"{\"x\":\""[..], &vec![b'x'; 9 << 20]].concat();
    assert!(refusal(&long).starts_with("request larger than max ("));
}

/// The reader relies on it.
#[test]
fn fields_of_requests_have_small_numbers_and_kinds_that_are_read() {
    fn check(kind: &MessageDescriptor, seen: &mut Vec<String>) {
        if seen.iter().any(|name| name == kind.full_name()) {
            return;
        }
        seen.push(kind.full_name().to_owned());
        for field in kind.fields() {
            assert!(field.number() < 128 && !field.is_map(), "{}", field.full_name());
            match field.kind() {
                Kind::Message(kind) => check(&kind, seen),
                kind => assert_ne!(scalar::name(&kind), "message", "{}", field.full_name()),
            }
        }
    }
    let mut seen = Vec::new();
    paths::all().for_each(|rpc| check(&rpc.request, &mut seen));
    assert!(seen.len() > 50, "{seen:?}");
}

fn txn() -> impl Strategy<Value = quorate_proto::etcdserverpb::TxnRequest> {
    use quorate_proto::etcdserverpb::{
        Compare, PutRequest, RequestOp, TxnRequest, compare::TargetUnion, request_op::Request,
    };
    let bytes = || proptest::collection::vec(any::<u8>(), 0..300);
    let put =
        (bytes(), bytes(), any::<i64>(), any::<bool>()).prop_map(|(key, value, lease, prev_kv)| {
            let (key, value) = (key.into(), value.into());
            Request::RequestPut(PutRequest { key, value, lease, prev_kv, ..PutRequest::default() })
        });
    let compare = (0..4_i32, bytes(), any::<i64>()).prop_map(|(result, key, lease)| {
        let target_union = Some(TargetUnion::Lease(lease));
        Compare { result, target: 4, key: key.into(), target_union, ..Compare::default() }
    });
    let op = put.prop_recursive(4, 24, 3, move |inner| {
        let ops = proptest::collection::vec(inner, 0..3);
        (ops, proptest::collection::vec(compare.clone(), 0..3)).prop_map(|(ops, compare)| {
            let success = ops.into_iter().map(|op| RequestOp { request: Some(op) }).collect();
            Request::RequestTxn(TxnRequest { compare, success, failure: Vec::new() })
        })
    });
    proptest::collection::vec(op, 0..4).prop_map(|ops| {
        let failure = ops.into_iter().map(|op| RequestOp { request: Some(op) }).collect();
        TxnRequest { failure, ..TxnRequest::default() }
    })
}

proptest! {
    #[test]
    fn what_a_library_writes_is_read_back(txn in txn(), part in 1..100_usize, camel in any::<bool>()) {
        let kind = &paths::find("/v3/kv/txn").expect("a path").request;
        let wire = Bytes::from(txn.encode_to_vec());
        let text = match camel {
            false => json::write(kind, wire).expect("a message"),
            true => {
                let message = DynamicMessage::decode(kind.clone(), wire).expect("a message");
                serde_json::to_string(&message).expect("it is written")
            }
        };
        let mut reader = reader("/v3/kv/txn");
        let mut found = None;
        for part in text.as_bytes().chunks(part) {
            found = reader.read(&mut Bytes::copy_from_slice(part)).expect("it is read");
        }
        let found = quorate_proto::etcdserverpb::TxnRequest::decode(found.expect("it ends"));
        prop_assert_eq!(found.expect("a message"), txn);
    }
}
