//! The Service proxy and the pod network on the real kernel, in network namespaces made for each test.

mod announcement;
mod by_load;
mod churn;
mod fake;
mod flows;
mod iptables;
mod load_balancer;
mod network_policy;
mod pods;
mod restart;
mod sctp;
mod spread;
mod world;
