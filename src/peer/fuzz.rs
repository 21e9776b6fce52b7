//! What foreign bytes reach here, for fuzzing.

pub use super::stream_codec::{Decoder, Encoder, StreamKind};
