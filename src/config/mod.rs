//! Flags and environment into one validated configuration.
