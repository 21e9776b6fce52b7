//! The key space: revisions, ranges, transactions, compaction.
