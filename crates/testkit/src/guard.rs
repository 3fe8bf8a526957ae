//! Who is killed cleans up nothing: a small process beside it does, also after SIGKILL.

use anyhow::{Context, Result};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Reads a pipe that this process holds: a word says that all is well, and an end without a word that nobody is left to
/// say it.
const SCRIPT: &str = r#"
read -r _ && exit
if [ -n "$BINARY" ]; then
    nsenter --net="/run/netns/$NODE" "$BINARY" down --delete --data-dir "$DIRECTORY/data" \
        --run-dir "$DIRECTORY/run" --kubeconfig "$DIRECTORY/kubeconfig"
fi
for namespace in $NODE $OUTSIDE; do
    ip netns pids "$namespace" | xargs --no-run-if-empty kill -KILL
    ip netns delete "$namespace"
done
grep --only-matching " $DIRECTORY/[^ ]*" /proc/mounts | tac | xargs --no-run-if-empty --max-args=1 umount --lazy
rm --recursive --force --one-file-system "$DIRECTORY"
"#;

/// Takes away a directory, with what is mounted below it, once this process has ended without dropping this.
pub struct Guard(Child);

impl Guard {
    /// Watches over a directory.
    pub fn new(directory: &Path) -> Result<Self> {
        Self::start(Command::new("sh").env("DIRECTORY", directory))
    }

    /// Watches over a cluster in a directory, and the namespaces of its network: that of the node, and the one outside.
    pub(crate) fn of_cluster(directory: &Path, binary: &Path, (node, outside): (&str, &str)) -> Result<Self> {
        let mut command = Command::new("sh");
        command.env("DIRECTORY", directory).env("BINARY", binary);
        Self::start(command.env("NODE", node).env("OUTSIDE", outside))
    }

    fn start(command: &mut Command) -> Result<Self> {
        let command = command
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C is not for it.
            .process_group(0);
        Ok(Self(command.spawn().context("cannot start a shell")?))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(mut told) = self.0.stdin.take() {
            // One that was killed itself has nothing to be told.
            let _ = told.write_all(b"done\n");
        }
        let _ = self.0.wait();
    }
}
