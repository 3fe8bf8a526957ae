//! Talks to an API server: transports (in process and TLS), requests, informers, the Event recorder, and the
//! drivers that execute what the pure crates decide. Upstream: `k8s.io/client-go`.

pub mod client;
pub mod driver;
pub mod error;
pub mod events;
#[cfg(test)]
mod fake_server;
pub mod informer;
pub mod machine_driver;
pub mod metadata_driver;
pub mod request;
pub mod tls_transport;
pub mod transport;
pub mod watch;
pub mod work_queue;

pub use client::{Api, Client};
pub use error::ClientError;
pub use events::Recorder;
pub use informer::Event;
pub use request::{DeleteOptions, ListOptions};
pub use tls_transport::TlsTransport;
pub use transport::{Body, Transport, TransportError};
