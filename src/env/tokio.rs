//! The environment of a real machine.
