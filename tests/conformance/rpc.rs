//! gRPC calls as text: the RPC by its name, requests as JSON, and a line of JSON for each answer, or for
//! how the call ended when not well. JSON is protobuf's own with etcd's names, except that bytes are
//! written as text, a character for each. Methods that the .proto texts do not have are called, too.
//!
//! Which requests there are is not known here; see `rpc.txt`.

use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Buf, BufMut, Bytes};
use futures::{StreamExt as _, stream};
use http::uri::PathAndQuery;
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, Kind, MessageDescriptor, MethodDescriptor,
    SerializeOptions,
};
use serde_json::{Value, json};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tonic::{Request, Status};

use crate::client::{Channel, origin};
use crate::etcdctl::Output;

/// For a call to end, or to bring what is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// For a connection to a server that serves.
const CONNECT: Duration = Duration::from_secs(5);

/// One server's gRPC port.
pub struct Rpc {
    endpoint: String,
    pool: DescriptorPool,
    runtime: tokio::runtime::Runtime,
}

impl Rpc {
    pub fn new(endpoint: String) -> Self {
        let pool = DescriptorPool::decode(quorate_proto::FILE_DESCRIPTOR_SET);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        Self {
            endpoint,
            pool: pool.expect("our compiler wrote it"),
            runtime: runtime.enable_all().build().expect("a runtime starts"),
        }
    }

    /// Calls with `Service/Method`, `-H 'name: value'` and requests. With a number of lines the call
    /// stays open on our side and is dropped when so many answers are there.
    pub fn run(&self, args: &[String], lines: Option<usize>) -> Output {
        let call = Call::read(&self.pool, args).unwrap_or_else(|why| panic!("{args:?}: {why}"));
        let done = self.runtime.block_on(async {
            tokio::time::timeout(PATIENCE, call.make(&self.endpoint, lines)).await
        });
        let hangs = |_| Output {
            code: None,
            stdout: String::new(),
            stderr: "no answer, and no end".into(),
        };
        done.unwrap_or_else(hangs)
    }
}

/// One call, as it is to be made.
struct Call {
    path: PathAndQuery,
    metadata: MetadataMap,
    requests: Vec<Bytes>,
    /// `None` for a method that the .proto texts do not have.
    method: Option<MethodDescriptor>,
}

impl Call {
    fn read(pool: &DescriptorPool, args: &[String]) -> Result<Self, String> {
        let (rpc, args) = args.split_first().ok_or("an RPC comes first")?;
        let (service, name) = rpc.split_once('/').ok_or("wants Service/Method")?;
        let service = pool.services().find(|s| s.name() == service).ok_or("no such service")?;
        let method = service.methods().find(|method| method.name() == name);
        let path = format!("/{}/{name}", service.full_name());
        let path = path.parse().map_err(|e| format!("{e}"))?;
        let mut call = Self { path, metadata: MetadataMap::new(), requests: Vec::new(), method };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match (arg.as_str(), &call.method) {
                ("-H", _) => call.add_metadata(args.next().ok_or("a header follows -H")?)?,
                (json, Some(method)) => call.requests.push(read(&method.input(), json)?),
                (_, None) => call.requests.push(Bytes::new()),
            }
        }
        Ok(call)
    }

    /// Values are bytes, a character for each.
    fn add_metadata(&mut self, header: &str) -> Result<(), String> {
        let (name, value) = header.split_once(": ").ok_or("wants name: value")?;
        let name = MetadataKey::from_bytes(name.as_bytes()).map_err(|e| e.to_string())?;
        let value = MetadataValue::try_from(latin(value)?).map_err(|e| e.to_string())?;
        self.metadata.append(name, value);
        Ok(())
    }

    async fn make(self, endpoint: &str, lines: Option<usize>) -> Output {
        let mut stdout = String::new();
        let code = match self.answers(endpoint, lines, &mut stdout).await {
            Ok(()) => return Output { code: Some(0), stdout, stderr: String::new() },
            Err(status) => status,
        };
        let stderr = json!({"code": format!("{:?}", code.code()), "message": code.message()});
        Output { code: Some(code.code() as i32), stdout, stderr: stderr.to_string() }
    }

    async fn answers(
        self,
        endpoint: &str,
        lines: Option<usize>,
        text: &mut String,
    ) -> Result<(), Status> {
        let channel = Channel::connect_within(endpoint, CONNECT).await?;
        let mut grpc = tonic::client::Grpc::with_origin(channel, origin(endpoint))
            .max_decoding_message_size(usize::MAX);
        grpc.ready().await.map_err(|e| Status::from_error(e.into()))?;
        // A call that is dropped early keeps its request stream open until then.
        let more = self.method.as_ref().is_some_and(MethodDescriptor::is_client_streaming);
        let open = stream::pending().take(usize::from(more && lines.is_some()));
        let mut request = Request::new(stream::iter(self.requests).chain(open));
        *request.metadata_mut() = self.metadata;
        let mut answers = grpc.streaming(request, self.path, Raw).await?.into_inner();
        let mut left = lines.unwrap_or(usize::MAX);
        while left > 0
            && let Some(answer) = answers.message().await?
        {
            left -= 1;
            let _ = match &self.method {
                Some(method) => writeln!(text, "{}", write(&method.output(), answer)),
                None => writeln!(text, "{}", answer.escape_ascii()),
            };
        }
        Ok(())
    }
}

/// Encodes the message that `json` describes.
fn read(kind: &MessageDescriptor, json: &str) -> Result<Bytes, String> {
    let mut value: Value = serde_json::from_str(json).map_err(|e| format!("{json}: {e}"))?;
    each_bytes(kind, &mut value, &|text| Ok(BASE64.encode(latin(text)?)))?;
    let options = DeserializeOptions::new();
    let message = DynamicMessage::deserialize_with_options(kind.clone(), value, &options);
    Ok(message.map_err(|e| format!("{json}: {e}"))?.encode_to_vec().into())
}

fn write(kind: &MessageDescriptor, wire: Bytes) -> Value {
    let message = DynamicMessage::decode(kind.clone(), wire).expect("an answer of this kind");
    let options = SerializeOptions::new().use_proto_field_name(true);
    let value = message.serialize_with_options(serde_json::value::Serializer, &options);
    let mut value = value.expect("a message can be written");
    let text = |base64: &str| {
        let bytes = BASE64.decode(base64).map_err(|e| e.to_string())?;
        Ok(bytes.escape_ascii().to_string())
    };
    each_bytes(kind, &mut value, &text).expect("protobuf's JSON has bytes in base64");
    value
}

/// Changes the texts that stand for bytes in the JSON of a message.
fn each_bytes(
    kind: &MessageDescriptor,
    json: &mut Value,
    change: &dyn Fn(&str) -> Result<String, String>,
) -> Result<(), String> {
    let Value::Object(members) = json else { return Ok(()) };
    for (name, value) in members {
        let field = kind.get_field_by_name(name).or_else(|| kind.get_field_by_json_name(name));
        let kind = field.ok_or_else(|| format!("{} has no {name}", kind.name()))?.kind();
        let items = match value {
            Value::Array(items) => items.iter_mut().collect(),
            one => vec![one],
        };
        for item in items {
            match (&kind, item) {
                (Kind::Bytes, Value::String(text)) => *text = change(text)?,
                (Kind::Message(kind), item) => each_bytes(kind, item, change)?,
                _ => {}
            }
        }
    }
    Ok(())
}

/// Bytes written as characters.
fn latin(text: &str) -> Result<Vec<u8>, String> {
    let byte = |c: char| u8::try_from(c).map_err(|_| format!("{c:?} is no byte"));
    text.chars().map(byte).collect()
}

/// Messages as they are on the wire.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
