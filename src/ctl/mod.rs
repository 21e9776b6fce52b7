//! quoratectl.
