//! The codec of gRPC calls: protobuf with small initial buffers. tonic's default codec reserves two
//! buffers of 8 KiB for as long as a call is open, and each message decoded out of one keeps it alive.
//! Messages that nest too deep are refused before they are decoded.

use std::marker::PhantomData;

use bytes::Buf as _;
use prost::Message;
use tonic::Status;
use tonic::codec::{self, BufferSettings, DecodeBuf};
use tonic_prost::ProstCodec;

use crate::depth::{self, Shape};

/// Initial size of an encode buffer, bytes. Most responses fit; the buffer grows for larger ones.
const ENCODED_BYTES: usize = 256;
/// Initial size of a decode buffer, bytes: it is allocated when a message arrives.
const DECODED_BYTES: usize = 0;
/// Messages that are ready are joined into one data frame up to this size, bytes: tonic's default.
const FRAME_BYTES: usize = 32 << 10;

/// etcd's refusal of a txn with too many operations, which one that nests too deep has, too.
const TOO_MANY_OPERATIONS: &str = "etcdserver: too many operations in txn request";

/// How the refusal of a message of a stream begins that cannot be decoded, in the words of gRPC's Go library.
pub const MALFORMED: &str = "grpc: failed to unmarshal the received message: ";
/// How the decoder's text ends for a string that is none.
const NO_UTF8: &str = "invalid string value: data is not UTF-8 encoded";

/// Returns the refusal of a message that cannot be decoded, with one of the two texts of protobuf's Go
/// library.
fn malformed(error: &Status) -> Status {
    let why = match error.message().ends_with(NO_UTF8) {
        true => "string field contains invalid UTF-8",
        false => "proto: cannot parse invalid wire-format data",
    };
    Status::new(error.code(), format!("{MALFORMED}{why}"))
}

/// Encodes `T` and decodes `U`.
#[derive(Clone, Debug)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as codec::Codec>::Encoder;
    type Decoder = Decoder<<ProstCodec<T, U> as codec::Codec>::Decoder>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(ENCODED_BYTES, FRAME_BYTES))
    }

    fn decoder(&mut self) -> Self::Decoder {
        Decoder(ProstCodec::<T, U>::raw_decoder(BufferSettings::new(DECODED_BYTES, FRAME_BYTES)))
    }
}

/// Checks how deep a message nests, if it is of a type that can, before it is decoded.
#[derive(Debug)]
pub struct Decoder<D>(D);

impl<U, D> codec::Decoder for Decoder<D>
where
    U: 'static,
    D: codec::Decoder<Item = U, Error = Status>,
{
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // The message is in one piece: the library gathers it before it is decoded.
        depth::check::<U>(buf.chunk()).map_err(|too_deep| match Shape::of::<U>() {
            Some(Shape::Txn) => Status::invalid_argument(TOO_MANY_OPERATIONS),
            _ => Status::internal(too_deep.to_string()),
        })?;
        self.0.decode(buf).map_err(|error| malformed(&error))
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}
