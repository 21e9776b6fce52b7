//! The codec of gRPC calls: protobuf with small initial buffers. tonic's default codec reserves two
//! buffers of 8 KiB for as long as a call is open, and each message decoded out of one keeps it alive.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{self, BufferSettings};
use tonic_prost::ProstCodec;

/// Initial size of an encode buffer, bytes. Most responses fit; the buffer grows for larger ones.
const ENCODED_BYTES: usize = 256;
/// Initial size of a decode buffer, bytes: it is allocated when a message arrives.
const DECODED_BYTES: usize = 0;
/// Messages that are ready are joined into one data frame up to this size, bytes: tonic's default.
const FRAME_BYTES: usize = 32 << 10;

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
    type Decoder = <ProstCodec<T, U> as codec::Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(ENCODED_BYTES, FRAME_BYTES))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::new(DECODED_BYTES, FRAME_BYTES))
    }
}
