//! Parsers of foreign bytes, for fuzzing.

use bytes::Bytes;

use super::json;
use super::judged;
use super::paths;
use super::pieces::Pieces;
use super::reader::{Bounds, Reader};

const BOUNDS: Bounds = Bounds { json_bytes: 1 << 20, wire_bytes: 1 << 20 };

fn rpc(number: usize) -> &'static paths::Rpc {
    paths::all().nth(number).expect("the number is below that of all")
}

/// How many RPCs there are; the functions below name one by its number.
pub fn rpcs() -> usize {
    paths::all().count()
}

/// A request from its JSON.
pub fn read(number: usize, json: &[u8]) -> Result<Bytes, String> {
    let mut reader = Reader::new(rpc(number).request.clone(), BOUNDS);
    let text = |status: tonic::Status| status.message().to_owned();
    match reader.read(&mut Bytes::copy_from_slice(json)).map_err(text)? {
        Some(wire) => Ok(wire),
        None => reader.finish().map_err(text),
    }
}

/// A request as JSON.
pub fn write_request(number: usize, wire: Bytes) -> Result<String, String> {
    json::write(&rpc(number).request, wire)
}

/// An answer as JSON, at once and while it comes in pieces.
pub fn answer(number: usize, wire: Bytes, piece: usize) {
    let kind = &rpc(number).response;
    let _ = json::write(kind, wire.clone());
    let mut pieces = Pieces::new(kind.clone(), wire.len(), 16);
    for part in wire.chunks(piece) {
        pieces.push(part);
        while let Ok(json) = pieces.next(64) {
            if json.is_empty() {
                break;
            }
        }
    }
}

/// The requests of a stream of JSON, cut into pieces, up to an error.
pub fn objects(number: usize, json: &[u8], piece: usize) -> (Vec<Bytes>, Option<String>) {
    let (mut reader, mut found) = (Reader::new(rpc(number).request.clone(), BOUNDS), Vec::new());
    for part in json.chunks(piece) {
        let mut part = Bytes::copy_from_slice(part);
        while !part.is_empty() {
            match reader.read(&mut part) {
                Ok(Some(wire)) => found.push(wire),
                Ok(None) => break,
                Err(status) => return (found, Some(status.message().to_owned())),
            }
        }
    }
    (found, None)
}

/// What is passed on of the frames of a client over WebSocket, cut into pieces, and the farewell.
pub fn websocket(bytes: &[u8], piece: usize) -> (Vec<u8>, Option<(u16, String)>) {
    judged::in_pieces(bytes, piece)
}
