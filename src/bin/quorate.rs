//! Stands in until the server joins: does nothing.

fn main() {}
