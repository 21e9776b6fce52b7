//! The id of a request is found in any bytes, or none is: never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quorate::codec;

fuzz_target!(|bytes: &[u8]| {
    let _ = codec::request_id(bytes);
});
