//! The annotation that says how a Service spreads connections over its endpoints: who writes a Service is warned, the
//! packet rules follow it, and the diagnosis knows it, too. No upstream counterpart.

/// On a Service: how the endpoint of a new connection is chosen.
pub const BALANCING: &str = "coracle.dev/balancing";

/// What it may say.
pub const BALANCINGS: [&str; 7] = [
    "random",
    "round-robin",
    "source-hash",
    "destination-hash",
    "least-connections",
    "shortest-expected-delay",
    "never-queue",
];
