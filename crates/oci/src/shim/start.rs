//! Starting a container.

use std::io;
use std::os::fd::AsFd;

use coracle_kernel::process::Fork;
use rustix::process::PidfdFlags;

use super::container::{Container, Launching, Pipes, pipes};
use super::log::LogFile;
use super::pod::Pod;
use crate::launch::{self, Launch, Stdio};
use crate::record::{self, ContainerRecord};
use crate::runtime::OciRuntime;
use crate::spec::ContainerSpec;

impl Pod {
    /// Launches a container's first process. Its client is answered when it reports.
    pub(super) fn start(&mut self, client: u64, request: u64, id: &str) -> Result<(), String> {
        let directory = self.directory.container(id);
        let ContainerRecord { spec, .. } =
            record::read(&directory.record()).map_err(|error| format!("read record: {error}"))?;
        let failed =
            |what: &'static str| move |error: io::Error| format!("{what}: {}", launch::words(&error));
        let log = if spec.log_path.as_os_str().is_empty() {
            None
        } else {
            let path = self.record.spec.log_dir.join(&spec.log_path);
            Some(LogFile::open(&path).map_err(failed("open log"))?)
        };
        let (ours, theirs) = if spec.tty {
            Default::default()
        } else {
            pipes(spec.stdin).map_err(failed("make pipes"))?
        };
        let launching = match &self.record.oci_runtime {
            OciRuntime::Builtin => self.fork_container(id, &spec, theirs, (client, request)),
            OciRuntime::Binary(_) => self.runtime_run(id, &spec, theirs, (client, request)),
        }?;
        let mut container = Container::new(directory, self.group(id), &spec, launching, log);
        if !spec.tty {
            container.take_pipes(ours).map_err(failed("take pipes"))?;
        }
        self.containers.insert(id.to_owned(), container);
        Ok(())
    }

    fn fork_container(
        &self,
        id: &str,
        spec: &ContainerSpec,
        pipes: Pipes,
        (client, request): (u64, u64),
    ) -> Result<Launching, String> {
        let failed = |error: io::Error| format!("start: {}", launch::words(&error));
        let (report, status) = launch::report_channel().map_err(failed)?;
        match self.fork_into(self.pid_namespace()).map_err(failed)? {
            Fork::Parent(pid) => {
                let process = rustix::process::pidfd_open(pid, PidfdFlags::empty())
                    .map_err(|error| failed(error.into()))?;
                Ok(Launching {
                    pid,
                    process,
                    report: Some(report),
                    executing: false,
                    client,
                    request,
                })
            }
            Fork::Child => {
                drop(report);
                launch::container(Launch {
                    pod: &self.record.spec,
                    spec,
                    directory: &self.directory.container(id).0,
                    pod_directory: &self.directory.0,
                    hierarchy: &self.hierarchy,
                    group: &self.group(id),
                    stdio: Stdio {
                        stdin: pipes.stdin,
                        stdout: pipes.stdout,
                        stderr: pipes.stderr,
                        terminal: spec.tty.then_some((0, 0)),
                    },
                    status: status.as_fd(),
                })
            }
        }
    }
}
