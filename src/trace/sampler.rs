//! Which traces are kept, when no caller has decided: a share of them, by the trace's id alone, as
//! OpenTelemetry's `TraceIdRatioBased` is in its Go library.

use super::context::TraceId;

/// Half of the range of 64 bits: the numbers that ids are compared by are below.
const ALL: u64 = 1 << 63;
const MILLION: u32 = 1_000_000;

/// A share of all traces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sampler {
    bound: u64,
}

impl Sampler {
    pub fn new(per_million: u32) -> Self {
        assert!(per_million <= MILLION, "a share is at most the whole");
        // The same steps as in Go: other programs compute the same bound for the same share.
        let share = f64::from(per_million) / f64::from(MILLION);
        Self { bound: (share * ALL as f64) as u64 }
    }

    pub fn keeps_none(self) -> bool {
        self.bound == 0
    }

    pub fn keeps(self, trace: TraceId) -> bool {
        let [.., a, b, c, d, e, f, g, h] = trace.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1 < self.bound
    }
}
