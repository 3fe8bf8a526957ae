//! The default system call filter, as two programs that the kernel runs one after the other: one answers `ENOSYS` to
//! what neither list knows, so that programs fall back from calls newer than this file; the other answers `EPERM` to
//! what is known and refused. Upstream counterpart: containerd's `contrib/seccomp/seccomp_default.go`, and runc's
//! handling of unknown calls (`libcontainer/seccomp/patchbpf`).

use std::collections::BTreeMap;

use coracle_kernel::process::FilterInstruction;
use rustix::thread::CapabilitySet;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// Name, as the C library spells its constant, and number.
pub(crate) type Call = (&'static str, i64);

macro_rules! calls {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), libc::$name)),*] };
}

/// Calls that every container may make.
#[rustfmt::skip]
const ALLOWED: &[Call] = calls![
    SYS_accept, SYS_accept4, SYS_bind, SYS_brk, SYS_capget,
    SYS_capset, SYS_chdir, SYS_clock_adjtime, SYS_clock_getres, SYS_clock_gettime,
    SYS_clock_nanosleep, SYS_close, SYS_close_range, SYS_connect, SYS_copy_file_range,
    SYS_dup, SYS_dup3, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait,
    SYS_epoll_pwait2, SYS_eventfd2, SYS_execve, SYS_execveat, SYS_exit,
    SYS_exit_group, SYS_faccessat, SYS_faccessat2, SYS_fadvise64, SYS_fallocate,
    SYS_fanotify_mark, SYS_fchdir, SYS_fchmod, SYS_fchmodat, SYS_fchmodat2,
    SYS_fchown, SYS_fchownat, SYS_fcntl, SYS_fdatasync, SYS_fgetxattr,
    SYS_flistxattr, SYS_flock, SYS_fremovexattr, SYS_fsetxattr, SYS_fstat,
    SYS_fstatfs, SYS_fsync, SYS_ftruncate, SYS_futex, SYS_futex_waitv,
    SYS_get_robust_list, SYS_getcpu,
    SYS_getcwd, SYS_getdents64, SYS_getegid, SYS_geteuid, SYS_getgid,
    SYS_getgroups, SYS_getitimer, SYS_getpeername, SYS_getpgid, SYS_getpid,
    SYS_getppid, SYS_getpriority, SYS_getrandom, SYS_getresgid, SYS_getresuid,
    SYS_getrlimit, SYS_getrusage, SYS_getsid, SYS_getsockname, SYS_getsockopt,
    SYS_gettid, SYS_gettimeofday, SYS_getuid, SYS_getxattr, SYS_inotify_add_watch,
    SYS_inotify_init1, SYS_inotify_rm_watch, SYS_io_cancel, SYS_io_destroy,
    SYS_io_getevents, SYS_io_setup, SYS_io_submit, SYS_ioctl,
    SYS_ioprio_get, SYS_ioprio_set, SYS_kill, SYS_landlock_add_rule,
    SYS_landlock_create_ruleset, SYS_landlock_restrict_self, SYS_lgetxattr, SYS_linkat,
    SYS_listen, SYS_listxattr, SYS_llistxattr, SYS_lremovexattr, SYS_lseek,
    SYS_lsetxattr, SYS_madvise, SYS_membarrier, SYS_memfd_create, SYS_mincore,
    SYS_mkdirat, SYS_mknodat, SYS_mlock, SYS_mlock2, SYS_mlockall, SYS_mmap,
    SYS_mprotect, SYS_mq_getsetattr, SYS_mq_notify, SYS_mq_open, SYS_mq_timedreceive,
    SYS_mq_timedsend, SYS_mq_unlink, SYS_mremap, SYS_msgctl, SYS_msgget,
    SYS_msgrcv, SYS_msgsnd, SYS_msync, SYS_munlock, SYS_munlockall, SYS_munmap,
    SYS_name_to_handle_at, SYS_nanosleep, SYS_newfstatat, SYS_openat, SYS_openat2,
    SYS_pidfd_open, SYS_pidfd_send_signal, SYS_pipe2, SYS_pkey_alloc, SYS_pkey_free,
    SYS_pkey_mprotect, SYS_ppoll, SYS_prctl, SYS_pread64, SYS_preadv, SYS_preadv2,
    SYS_prlimit64, SYS_process_mrelease, SYS_process_vm_readv, SYS_process_vm_writev,
    SYS_pselect6, SYS_ptrace, SYS_pwrite64, SYS_pwritev, SYS_pwritev2, SYS_read,
    SYS_readahead, SYS_readlinkat, SYS_readv, SYS_recvfrom, SYS_recvmmsg,
    SYS_recvmsg, SYS_remap_file_pages, SYS_removexattr, SYS_renameat2,
    SYS_restart_syscall, SYS_rseq, SYS_rt_sigaction, SYS_rt_sigpending,
    SYS_rt_sigprocmask, SYS_rt_sigqueueinfo, SYS_rt_sigreturn, SYS_rt_sigsuspend,
    SYS_rt_sigtimedwait, SYS_rt_tgsigqueueinfo, SYS_sched_get_priority_max,
    SYS_sched_get_priority_min, SYS_sched_getaffinity, SYS_sched_getattr, SYS_sched_getparam,
    SYS_sched_getscheduler, SYS_sched_rr_get_interval, SYS_sched_setaffinity,
    SYS_sched_setattr, SYS_sched_setparam, SYS_sched_setscheduler, SYS_sched_yield,
    SYS_seccomp, SYS_semctl, SYS_semget, SYS_semop, SYS_semtimedop, SYS_sendfile,
    SYS_sendmmsg, SYS_sendmsg, SYS_sendto, SYS_set_robust_list, SYS_set_tid_address,
    SYS_setfsgid, SYS_setfsuid, SYS_setgid, SYS_setgroups, SYS_setitimer,
    SYS_setpgid, SYS_setpriority, SYS_setregid, SYS_setresgid, SYS_setresuid,
    SYS_setreuid, SYS_setrlimit, SYS_setsid, SYS_setsockopt, SYS_setuid,
    SYS_setxattr, SYS_shmat, SYS_shmctl, SYS_shmdt, SYS_shmget, SYS_shutdown,
    SYS_sigaltstack, SYS_signalfd4, SYS_socketpair, SYS_splice, SYS_statfs,
    SYS_statx, SYS_symlinkat, SYS_sync, SYS_sync_file_range, SYS_syncfs,
    SYS_sysinfo, SYS_tee, SYS_tgkill, SYS_timer_create, SYS_timer_delete,
    SYS_timer_getoverrun, SYS_timer_gettime, SYS_timer_settime, SYS_timerfd_create,
    SYS_timerfd_gettime, SYS_timerfd_settime, SYS_times, SYS_tkill, SYS_truncate,
    SYS_umask, SYS_uname, SYS_unlinkat, SYS_utimensat, SYS_vmsplice, SYS_wait4,
    SYS_waitid, SYS_write, SYS_writev,
];

/// Older forms of the above, and what belongs to the architecture.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const ALLOWED_HERE: &[Call] = calls![
    SYS_access, SYS_alarm, SYS_arch_prctl, SYS_chmod, SYS_chown, SYS_creat,
    SYS_dup2, SYS_epoll_create, SYS_epoll_ctl_old, SYS_epoll_wait, SYS_epoll_wait_old,
    SYS_eventfd, SYS_fork, SYS_futimesat, SYS_get_thread_area, SYS_getdents,
    SYS_getpgrp, SYS_inotify_init, SYS_lchown, SYS_link, SYS_lstat, SYS_mkdir,
    SYS_mknod, SYS_modify_ldt, SYS_open, SYS_pause, SYS_pipe, SYS_poll,
    SYS_readlink, SYS_rename, SYS_renameat, SYS_rmdir, SYS_select,
    SYS_set_thread_area, SYS_signalfd, SYS_stat, SYS_symlink, SYS_time,
    SYS_unlink, SYS_utime, SYS_utimes, SYS_vfork,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[Call] = calls![SYS_renameat];

/// Calls that containers may make only with a capability.
#[rustfmt::skip]
const GATED: &[(CapabilitySet, &[Call])] = &[
    (CapabilitySet::DAC_READ_SEARCH, calls![SYS_open_by_handle_at]),
    (CapabilitySet::SYS_ADMIN, calls![
        SYS_bpf, SYS_clone, SYS_clone3, SYS_fanotify_init, SYS_fsconfig,
        SYS_fsmount, SYS_fsopen, SYS_fspick, SYS_lookup_dcookie, SYS_mount,
        SYS_mount_setattr, SYS_move_mount, SYS_open_tree, SYS_perf_event_open,
        SYS_quotactl, SYS_quotactl_fd, SYS_setdomainname, SYS_sethostname, SYS_setns,
        SYS_syslog, SYS_umount2, SYS_unshare, SYS_swapon, SYS_swapoff,
    ]),
    (CapabilitySet::SYS_BOOT, calls![SYS_reboot]),
    (CapabilitySet::SYS_CHROOT, calls![SYS_chroot]),
    (CapabilitySet::SYS_MODULE, calls![SYS_delete_module, SYS_finit_module, SYS_init_module]),
    (CapabilitySet::SYS_PACCT, calls![SYS_acct]),
    (CapabilitySet::SYS_PTRACE, calls![SYS_kcmp, SYS_pidfd_getfd, SYS_process_madvise]),
    (CapabilitySet::SYS_TIME, calls![SYS_adjtimex, SYS_clock_settime, SYS_settimeofday]),
    (CapabilitySet::SYS_TTY_CONFIG, calls![SYS_vhangup]),
    (CapabilitySet::SYS_NICE, calls![
        SYS_get_mempolicy, SYS_mbind, SYS_set_mempolicy, SYS_set_mempolicy_home_node,
    ]),
    (CapabilitySet::SYSLOG, calls![SYS_syslog]),
    (CapabilitySet::BPF, calls![SYS_bpf]),
    (CapabilitySet::PERFMON, calls![SYS_perf_event_open]),
];

/// Calls that no capability opens: they reach beyond the container or have a history of holes.
#[rustfmt::skip]
const REFUSED: &[Call] = calls![
    SYS_add_key, SYS_io_uring_enter, SYS_io_uring_register, SYS_io_uring_setup,
    SYS_kexec_load, SYS_keyctl, SYS_memfd_secret, SYS_migrate_pages, SYS_move_pages,
    SYS_nfsservctl, SYS_personality, SYS_pivot_root, SYS_request_key, SYS_userfaultfd,
];
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const REFUSED_HERE: &[Call] = calls![
    SYS__sysctl, SYS_ioperm, SYS_iopl,
    SYS_kexec_file_load, SYS_sysfs, SYS_uselib, SYS_ustat,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[Call] = calls![];

/// Flags of `clone` that make namespaces.
const NAMESPACES: u64 = 0x7e02_0000;

/// Calls that every container may make and that `libc` does not name yet.
const ALLOWED_NEW: &[Call] = &[
    ("SYS_cachestat", 451),
    ("SYS_map_shadow_stack", 453),
    ("SYS_futex_wake", 454),
    ("SYS_futex_wait", 455),
    ("SYS_futex_requeue", 456),
    (
        "SYS_io_pgetevents",
        if cfg!(target_arch = "x86_64") { 333 } else { 292 },
    ),
];

/// When a call is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Always,
    /// None of these bits is set in this argument.
    Clear(u8, u64),
    /// The lower half of this argument has one of these values.
    OneOf(u8, &'static [u64]),
    /// The lower half of this argument is not this value.
    Not(u8, u64),
    /// Never, as if the kernel did not know it.
    Unknown,
    Never,
}

/// The profile for a process that may have these capabilities: each known call and when it is allowed.
pub(crate) fn default_profile(capabilities: CapabilitySet) -> BTreeMap<Call, When> {
    let mut profile = BTreeMap::new();
    let mut put = |calls: &[Call], when| profile.extend(calls.iter().map(|call| (*call, when)));
    put(ALLOWED, When::Always);
    put(ALLOWED_HERE, When::Always);
    put(ALLOWED_NEW, When::Always);
    put(REFUSED, When::Never);
    put(REFUSED_HERE, When::Never);
    for (_, calls) in GATED {
        put(calls, When::Never);
    }
    // Namespaces need a capability; the flags of clone3 are in memory, where a filter cannot look: without it the C
    // library falls back to clone.
    put(calls![SYS_clone], When::Clear(0, NAMESPACES));
    put(calls![SYS_clone3], When::Unknown);
    for (_, calls) in GATED
        .iter()
        .filter(|(capability, _)| capabilities.contains(*capability))
    {
        put(calls, When::Always);
    }
    // AF_VSOCK would reach the hypervisor.
    put(calls![SYS_socket], When::Not(0, 40));
    // Linux, 32-bit addresses, short inode numbers, both, and the question which one it is.
    put(
        calls![SYS_personality],
        When::OneOf(0, &[0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff]),
    );
    profile
}

/// The programs to install, in this order: of two answers with an error the kernel takes that of the later one.
pub(super) fn default_filter(
    capabilities: CapabilitySet,
) -> Result<[Vec<FilterInstruction>; 2], seccompiler::Error> {
    let mut known = BTreeMap::new();
    let mut refused = BTreeMap::new();
    for ((_, call), when) in default_profile(capabilities) {
        if when != When::Unknown {
            known.insert(call, Vec::new());
        }
        let rules = match when {
            When::Always | When::Unknown => continue,
            When::Never => Vec::new(),
            When::Not(argument, value) => vec![rule([condition(argument, SeccompCmpOp::Eq, value)])?],
            // A rule for each bit: any of them refuses.
            When::Clear(argument, mask) => (0..u64::BITS)
                .map(|bit| 1 << bit)
                .filter(|bit| mask & bit != 0)
                .map(|bit| rule([condition(argument, SeccompCmpOp::MaskedEq(bit), bit)]))
                .collect::<Result<_, _>>()?,
            // One rule: all its conditions together refuse.
            When::OneOf(argument, values) => {
                vec![rule(
                    values
                        .iter()
                        .map(|value| condition(argument, SeccompCmpOp::Ne, *value)),
                )?]
            }
        };
        refused.insert(call, rules);
    }
    let errno = |number: i32| SeccompAction::Errno(number.cast_unsigned());
    Ok([
        compile(known, errno(libc::ENOSYS), SeccompAction::Allow)?,
        compile(refused, SeccompAction::Allow, errno(libc::EPERM))?,
    ])
}
fn condition(
    argument: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}

fn rule(
    conditions: impl IntoIterator<Item = Result<SeccompCondition, seccompiler::BackendError>>,
) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(conditions.into_iter().collect::<Result<_, _>>()?)
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<Vec<FilterInstruction>, seccompiler::Error> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let program: BpfProgram = SeccompFilter::new(rules, otherwise, matched, arch)?.try_into()?;
    Ok(program
        .iter()
        .map(|instruction| FilterInstruction {
            code: instruction.code,
            jt: instruction.jt,
            jf: instruction.jf,
            k: instruction.k,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_open_their_calls_and_no_others() {
        let when = |capabilities, name: &str| {
            let profile = default_profile(capabilities);
            profile
                .iter()
                .find(|((known, _), _)| *known == name)
                .map(|(_, when)| *when)
        };
        let none = CapabilitySet::empty();
        assert_eq!(when(none, "SYS_read"), Some(When::Always));
        assert_eq!(when(none, "SYS_mount"), Some(When::Never));
        assert_eq!(when(none, "SYS_clone3"), Some(When::Unknown));
        assert_eq!(when(CapabilitySet::SYS_ADMIN, "SYS_mount"), Some(When::Always));
        assert_eq!(when(CapabilitySet::SYS_ADMIN, "SYS_clone3"), Some(When::Always));
        assert_eq!(when(CapabilitySet::SYS_ADMIN, "SYS_clone"), Some(When::Always));
        assert_eq!(when(CapabilitySet::SYS_ADMIN, "SYS_keyctl"), Some(When::Never));
        assert_eq!(when(CapabilitySet::SYS_ADMIN, "SYS_reboot"), Some(When::Never));
        assert_eq!(when(none, "SYS_no_such_call"), None);
    }

    #[test]
    fn no_call_is_listed_twice() {
        let gated = GATED
            .iter()
            .flat_map(|(_, calls)| *calls)
            .collect::<std::collections::BTreeSet<_>>();
        let mut seen = std::collections::BTreeSet::new();
        for call in [ALLOWED, ALLOWED_HERE, ALLOWED_NEW, REFUSED, REFUSED_HERE]
            .into_iter()
            .flatten()
            .chain(gated)
        {
            assert!(seen.insert(call), "{call:?}");
        }
    }

    #[test]
    fn programs_fit_the_kernel() {
        for program in default_filter(CapabilitySet::all()).unwrap() {
            assert!(program.len() > 20 && program.len() < 4096);
        }
    }
}
