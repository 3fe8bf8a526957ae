//! The last steps before a program runs, the same for a container's first process and for those run in it later:
//! identity, environment, limits, capabilities, filter, the search for the program.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use coracle_kernel::process as kernel;
use coracle_kernel::root::Root;
use rustix::fs::{Access, AtFlags, CWD, Gid, Uid};
use rustix::process::{Resource, Rlimit};
use rustix::thread::CapabilitySet;

use super::terminal::Standard;
use super::user::{Identity, identify as look_up};
use super::{Failure, Notice, capabilities, report, seccomp, words};
use crate::spec::{self, ContainerSpec, PodSpec, Seccomp, User};

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Account files are small; an image must not make the launcher read for ever.
const MAX_ACCOUNT_FILE: u64 = 4 << 20;

/// Sets how readily the kernel kills this process when memory runs out. Without `CAP_SYS_RESOURCE` it cannot be made
/// less likely than it is: that is left as it is, as other launchers do in such a place.
pub(super) fn set_oom_score_adj(score: i32) -> Result<(), Failure> {
    match fs::write("/proc/self/oom_score_adj", score.to_string()) {
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => Ok(()),
        result => result.map_err(Failure::at("set oom_score_adj")),
    }
}

/// Looks the user up in the files of the container whose root file system is at `root`.
pub(crate) fn identify(root: &Path, user: &User) -> Result<Identity, Failure> {
    let root = Root::open_path(root).map_err(Failure::at("open root file system"))?;
    let read = |path: &str| match root.read(Path::new(path), MAX_ACCOUNT_FILE) {
        Ok(contents) => Ok(String::from_utf8_lossy(&contents).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(Failure::at(format!("read {path}"))(error)),
    };
    Ok(look_up(user, &read("/etc/passwd")?, &read("/etc/group")?)?)
}

/// The environment: the spec's, that of an exec on top of it, and what programs expect to find when it is missing.
pub(crate) fn environment(
    pod: &PodSpec,
    spec: &ContainerSpec,
    more: &[String],
    identity: &Identity,
    tty: bool,
) -> Vec<String> {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut env: Vec<String> = Vec::with_capacity(spec.env.len() + more.len() + 4);
    for entry in spec.env.iter().chain(more) {
        match env.iter_mut().find(|present| name(present) == name(entry)) {
            Some(present) => present.clone_from(entry),
            None => env.push(entry.clone()),
        }
    }
    let mut default = |entry: String| {
        if !env.iter().any(|present| name(present) == name(&entry)) {
            env.push(entry);
        }
    };
    default(DEFAULT_PATH.to_owned());
    if !pod.hostname.is_empty() {
        default(format!("HOSTNAME={}", pod.hostname));
    }
    if tty {
        default("TERM=xterm".to_owned());
    }
    default(format!("HOME={}", identity.home));
    env
}

/// Makes the working directory, as root, when the image lacks it.
pub(super) fn make_working_directory(cwd: &str) -> Result<(), Failure> {
    if cwd.is_empty() || Path::new(cwd).is_dir() {
        return Ok(());
    }
    fs::create_dir_all(cwd).map_err(|error| Failure(format!("mkdir {cwd}: {}", words(&error))))
}

/// A program about to be executed.
pub(super) struct Program<'a> {
    pub(super) spec: &'a ContainerSpec,
    pub(super) argv: &'a [String],
    pub(super) env: Vec<String>,
    pub(super) cwd: &'a str,
    pub(super) identity: Identity,
    pub(super) stdio: Standard,
    pub(super) status: BorrowedFd<'a>,
}

impl Program<'_> {
    /// Becomes the program.
    pub(super) fn execute(self) -> Result<Infallible, Failure> {
        let Self {
            spec,
            argv,
            env,
            identity,
            ..
        } = &self;
        self.give_streams()?;
        let cwd = if self.cwd.is_empty() { "/" } else { self.cwd };
        // As root it may be forbidden (NFS), as the user too: one of both must do.
        let entered = rustix::process::chdir(cwd);
        for limit in &spec.rlimits {
            set_limit(limit)?;
        }
        let wanted = capabilities::wanted(&spec.capabilities, spec.privileged)?;
        let filter = match spec.seccomp {
            Seccomp::RuntimeDefault if !spec.privileged => Some(
                seccomp::default_filter(wanted)
                    .map_err(|error| Failure(format!("compile seccomp filter: {error}")))?,
            ),
            _ => None,
        };
        let install = || {
            let mut programs = filter.iter().flatten();
            programs.try_for_each(|program| kernel::install_seccomp_filter(program))
        };
        let kept = capabilities::bound(wanted)?;
        if !spec.no_new_privileges {
            // Needs a capability that is about to go.
            install().map_err(Failure::at("install seccomp filter"))?;
        }
        become_user(identity)?;
        capabilities::apply(kept)?;
        if entered.is_err() {
            rustix::process::chdir(cwd)
                .map_err(|error| Failure(format!("chdir to cwd ({cwd:?}): {}", words(&error.into()))))?;
        }
        kernel::reset_signals().map_err(Failure::at("reset signals"))?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        let path = find(argv, env)?;
        let strings = |list: &[String]| -> Result<Vec<CString>, Failure> {
            list.iter()
                .map(|text| {
                    CString::new(text.as_str()).map_err(|_| Failure(format!("{text:?} has a zero byte")))
                })
                .collect()
        };
        let (argv, env) = (strings(argv)?, strings(env)?);
        let program = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| Failure("program has a zero byte".into()))?;
        kernel::close_on_exec_from(3).map_err(Failure::at("close descriptors"))?;
        if spec.no_new_privileges {
            rustix::thread::set_no_new_privs(true).map_err(Failure::at("set no_new_privs"))?;
            install().map_err(Failure::at("install seccomp filter"))?;
        }
        report(self.status, &Notice::Executing, &[])?;
        let Err(error) = kernel::execve(&program, &argv, &env);
        Err(Failure(format!("exec {}: {}", path.display(), words(&error))))
    }

    /// Makes the streams the standard ones, and the user's own, so that it can open `/dev/stdout` anew.
    fn give_streams(&self) -> Result<(), Failure> {
        let [stdin, stdout, stderr] = &self.stdio;
        let owner = Some(Uid::from_raw(self.identity.uid));
        for stream in &self.stdio {
            // Group and mode of a terminal stay; /dev/null belongs to everybody.
            let is_null =
                rustix::fs::fstat(stream).is_ok_and(|stat| stat.st_rdev == rustix::fs::makedev(1, 3));
            if !is_null {
                match rustix::fs::fchown(stream.as_fd(), owner, None) {
                    // A stream that the pod got from elsewhere and that lies on a read-only file system.
                    Err(rustix::io::Errno::ROFS | rustix::io::Errno::PERM) => {}
                    result => result.map_err(Failure::at("chown standard stream"))?,
                }
            }
        }
        rustix::stdio::dup2_stdin(stdin).map_err(Failure::at("set standard input"))?;
        rustix::stdio::dup2_stdout(stdout).map_err(Failure::at("set standard output"))?;
        rustix::stdio::dup2_stderr(stderr).map_err(Failure::at("set standard error"))
    }
}

fn become_user(identity: &Identity) -> Result<(), Failure> {
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    let groups: Vec<Gid> = identity
        .groups
        .iter()
        .map(|group| Gid::from_raw(*group))
        .collect();
    rustix::thread::set_keep_capabilities(true).map_err(Failure::at("keep capabilities"))?;
    rustix::thread::set_thread_groups(&groups).map_err(Failure::at("setgroups"))?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(Failure::at("setgid"))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(Failure::at("setuid"))?;
    // Keeping them lets the bounding set's capabilities survive the change of user until apply() picks from them.
    let mut sets = rustix::thread::capabilities(None).map_err(Failure::at("get capabilities"))?;
    sets.effective = sets.permitted;
    sets.inheritable = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, sets).map_err(Failure::at("raise capabilities"))
}

/// Sets a limit; one above what this process may raise is clamped to that.
fn set_limit(limit: &spec::Rlimit) -> Result<(), Failure> {
    let resource = match limit.kind.strip_prefix("RLIMIT_").unwrap_or(&limit.kind) {
        "AS" => Resource::As,
        "CORE" => Resource::Core,
        "CPU" => Resource::Cpu,
        "DATA" => Resource::Data,
        "FSIZE" => Resource::Fsize,
        "LOCKS" => Resource::Locks,
        "MEMLOCK" => Resource::Memlock,
        "MSGQUEUE" => Resource::Msgqueue,
        "NICE" => Resource::Nice,
        "NOFILE" => Resource::Nofile,
        "NPROC" => Resource::Nproc,
        "RSS" => Resource::Rss,
        "RTPRIO" => Resource::Rtprio,
        "RTTIME" => Resource::Rttime,
        "SIGPENDING" => Resource::Sigpending,
        "STACK" => Resource::Stack,
        other => return Err(Failure(format!("unknown resource limit {other:?}"))),
    };
    let set = |soft: u64, hard: u64| {
        let finite = |value: u64| Some(value).filter(|value| *value != u64::MAX);
        rustix::process::setrlimit(
            resource,
            Rlimit {
                current: finite(soft),
                maximum: finite(hard),
            },
        )
    };
    match set(limit.soft, limit.hard) {
        Err(rustix::io::Errno::PERM) => {
            let most = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
            set(limit.soft.min(most), limit.hard.min(most))
                .map_err(Failure::at(format!("set {}", limit.kind)))
        }
        result => result.map_err(Failure::at(format!("set {}", limit.kind))),
    }
}

/// Finds the program as the user who will run it, with the errors that Go's `exec.LookPath` gave to runc's users.
fn find(argv: &[String], env: &[String]) -> Result<PathBuf, Failure> {
    let name = argv
        .first()
        .filter(|name| !name.is_empty())
        .ok_or_else(|| Failure("no command specified".into()))?;
    if name.contains('/') {
        return match executable(Path::new(name)) {
            Ok(()) => Ok(PathBuf::from(name)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure(format!(
                "exec: {name:?}: stat {name}: no such file or directory"
            ))),
            Err(error) => Err(Failure(format!("exec: {name:?}: {}", words(&error)))),
        };
    }
    let path = env
        .iter()
        .find_map(|entry| entry.strip_prefix("PATH="))
        .unwrap_or_default();
    path.split(':')
        .map(|directory| Path::new(if directory.is_empty() { "." } else { directory }).join(name))
        .find(|candidate| executable(candidate).is_ok())
        .ok_or_else(|| Failure(format!("exec: {name:?}: executable file not found in $PATH")))
}

fn executable(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    Ok(rustix::fs::accessat(
        CWD,
        path,
        Access::EXEC_OK,
        AtFlags::EACCESS,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_has_defaults_and_later_entries_win() {
        let pod = PodSpec {
            hostname: "web-0".into(),
            ..PodSpec::default()
        };
        let spec = ContainerSpec {
            env: vec!["A=1".into(), "A=2".into(), "HOME=/x".into()],
            ..ContainerSpec::default()
        };
        let identity = Identity {
            uid: 0,
            gid: 0,
            groups: vec![],
            home: "/root".into(),
        };
        let env = environment(&pod, &spec, &["B=3".into(), "A=4".into()], &identity, true);
        assert_eq!(
            env,
            [
                "A=4",
                "HOME=/x",
                "B=3",
                DEFAULT_PATH,
                "HOSTNAME=web-0",
                "TERM=xterm"
            ]
        );
    }

    #[test]
    fn programs_are_found_or_the_error_is_the_known_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        fs::write(directory.path().join("plain"), "").unwrap();
        fs::copy("/bin/busybox", directory.path().join("program")).unwrap();
        let env = [format!("PATH=/nonexistent:{path}")];
        let find = |name: &str| find(&[name.to_owned()], &env).map_err(|failure| failure.0);
        assert_eq!(find("program").unwrap(), directory.path().join("program"));
        assert_eq!(
            find("plain").unwrap_err(),
            "exec: \"plain\": executable file not found in $PATH"
        );
        assert_eq!(
            find("/no/x").unwrap_err(),
            "exec: \"/no/x\": stat /no/x: no such file or directory"
        );
        assert_eq!(
            find(&format!("{path}/plain")).unwrap_err(),
            format!("exec: \"{path}/plain\": permission denied")
        );
        assert_eq!(find(path).unwrap_err(), format!("exec: {path:?}: is a directory"));
        assert_eq!(find("").unwrap_err(), "no command specified");
    }
}
