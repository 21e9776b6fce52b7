//! What foreign bytes reach here, for fuzzing.

use bytes::Bytes;

use super::json::{self, Objects};
use super::paths;
use super::pieces::Pieces;

fn rpc(number: usize) -> &'static paths::Rpc {
    paths::all().nth(number).expect("the number is below that of all")
}

/// How many RPCs there are; the functions below name one by its number.
pub fn rpcs() -> usize {
    paths::all().count()
}

/// A request from its JSON.
pub fn read(number: usize, json: &[u8]) -> Result<Bytes, String> {
    json::read(&rpc(number).request, json)
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

/// The objects of a stream of JSON, which comes in pieces, up to an error.
pub fn objects(json: &[u8], piece: usize) -> (Vec<Vec<u8>>, Option<String>) {
    let (mut objects, mut found) = (Objects::default(), Vec::new());
    for part in json.chunks(piece) {
        objects.push(part);
        loop {
            match objects.next() {
                Ok(Some(object)) => found.push(object),
                Ok(None) => break,
                Err(why) => return (found, Some(why)),
            }
        }
    }
    (found, None)
}
