//! The only place that names RocksDB.
