//! coracle: Kubernetes in one binary.
mod certificates;
mod config;
mod demo;
mod kubeconfig;
fn main() {}
