//! Reads and writes bbolt database files.
