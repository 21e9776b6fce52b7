//! The client used by the tools, the simulator and the benchmark.
