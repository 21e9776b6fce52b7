//! Leases as replicated state.
