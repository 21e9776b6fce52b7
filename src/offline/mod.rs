//! quorateutl.
