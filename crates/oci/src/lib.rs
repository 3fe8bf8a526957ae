//! Images and containers of a node: registry pulls, the image store, bundles, the container launcher and the shim
//! that outlives the daemon. Upstream counterpart: what kubelet expects of a CRI runtime (containerd and runc).
//!
//! * [`ImageStore`] loads archives, pulls from registries and keeps unpacked layers.
//! * [`Runtime`] runs pods: one shim process a pod holds its namespaces, its log pipes and waits for its processes.
//! * [`shim_main`] is the entry of that shim. The binary that hosts a [`Runtime`] must run it, before it starts any
//!   thread, when it is called with the arguments of [`RuntimeConfig::shim_command`].

use std::process::ExitCode;

mod blocking;
mod error;
mod image;
mod launch;
mod record;
mod runtime;
mod shim;
mod spec;
mod state;

pub use error::{Error, Result};
pub use image::{Credentials, Image, ImageConfig, ImageStore, PullConfig, PullProgress};
pub use runtime::{Attachment, ExecSession, OciRuntime, Runtime, RuntimeConfig, Stream};
pub use spec::{
    Capabilities, ContainerSpec, Device, ExecSpec, Mount, MountSource, Network, PodSpec, Propagation,
    Resources, Rlimit, Seccomp, User,
};
pub use state::{ContainerState, ContainerStatus, Event, Exit, PodState, Stats};

/// The entry of the shim: run it in `main`, before any thread starts, and end the process with what it returns.
/// Standard input must be the socket that a [`Runtime`] gave.
pub fn shim_main() -> ExitCode {
    match shim::serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shim server: {error}");
            ExitCode::FAILURE
        }
    }
}
