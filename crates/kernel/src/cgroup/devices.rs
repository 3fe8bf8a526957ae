//! Which devices a group may use: lines of `devices.allow` for version 1, a BPF program for version 2.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

/// Kind of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// Block and character devices.
    All,
    /// Block device.
    Block,
    /// Character device.
    Character,
}

/// Allows the use of devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// Which kind.
    pub kind: DeviceKind,
    /// Major number; any when absent.
    pub major: Option<u32>,
    /// Minor number; any when absent.
    pub minor: Option<u32>,
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
    /// Making the device file.
    pub mknod: bool,
}

impl fmt::Display for DeviceRule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            DeviceKind::All => return out.write_str("a"),
            DeviceKind::Block => 'b',
            DeviceKind::Character => 'c',
        };
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        write!(out, "{kind} {}:{} ", number(self.major), number(self.minor))?;
        let permissions = [(self.read, "r"), (self.write, "w"), (self.mknod, "m")];
        permissions
            .iter()
            .filter(|(set, _)| *set)
            .try_for_each(|(_, letter)| out.write_str(letter))
    }
}

/// An instruction of extended BPF, `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb7;
const MOVE_32: u8 = 0xbc;
const AND_32: u8 = 0x54;
const SHIFT_RIGHT_32: u8 = 0x74;
const JUMP_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

const fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: to | (from << 4),
        offset,
        immediate,
    }
}

/// A program of type `CGROUP_DEVICE`: r1 points at `{ access << 16 | kind, major, minor }`; 1 allows, 0 denies.
fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut code = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(MOVE_32, 3, 2, 0, 0),
        instruction(AND_32, 2, 0, 0, 0xffff), // r2: kind, 1 block, 2 character
        instruction(SHIFT_RIGHT_32, 3, 0, 0, 16), // r3: access, 1 mknod, 2 read, 4 write
        instruction(LOAD_WORD, 4, 1, 4, 0),   // r4: major
        instruction(LOAD_WORD, 5, 1, 8, 0),   // r5: minor
    ];
    for rule in rules {
        let allowed = i32::from(rule.mknod) | (i32::from(rule.read) << 1) | (i32::from(rule.write) << 2);
        let number = |register: u8, value: Option<u32>| value.map(|value| (register, value.cast_signed()));
        let kind = match rule.kind {
            DeviceKind::All => None,
            DeviceKind::Block => Some((2, 1)),
            DeviceKind::Character => Some((2, 2)),
        };
        let mut tests = Vec::new();
        if rule.kind != DeviceKind::All {
            // No access but the allowed ones: (r3 & !allowed) == 0.
            tests.push(vec![
                instruction(MOVE_32, 0, 3, 0, 0),
                instruction(AND_32, 0, 0, 0, !allowed & 7),
            ]);
        }
        let equal = [kind, number(4, rule.major), number(5, rule.minor)];
        let compares: Vec<(u8, i32)> = tests
            .iter()
            .map(|_| (0, 0))
            .chain(equal.into_iter().flatten())
            .collect();
        let mut block: Vec<Instruction> = tests.into_iter().flatten().collect();
        let count = compares.len();
        for (index, (register, value)) in compares.into_iter().enumerate() {
            // To the next rule: over the remaining compares and the two instructions that allow.
            let over = i16::try_from(count - index - 1 + 2).unwrap_or(i16::MAX);
            block.push(instruction(JUMP_NOT_EQUAL, register, 0, over, value));
        }
        code.extend(block);
        code.extend([instruction(MOVE, 0, 0, 0, 1), instruction(EXIT, 0, 0, 0, 0)]);
    }
    code.extend([instruction(MOVE, 0, 0, 0, 0), instruction(EXIT, 0, 0, 0, 0)]);
    code
}

/// `union bpf_attr` for `BPF_PROG_LOAD`, its first fields.
#[repr(C)]
struct Load {
    program_type: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// `union bpf_attr` for `BPF_PROG_ATTACH`.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

pub(super) fn attach(directory: &Path, rules: &[DeviceRule]) -> io::Result<()> {
    const PROG_LOAD: i32 = 5;
    const PROG_ATTACH: i32 = 8;
    const TYPE_CGROUP_DEVICE: u32 = 15;
    const ATTACH_CGROUP_DEVICE: u32 = 6;
    const ALLOW_MULTI: u32 = 2;

    let code = program(rules);
    let load = Load {
        program_type: TYPE_CGROUP_DEVICE,
        count: u32::try_from(code.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
        instructions: code.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the instructions and the licence outlive the call; the kernel verifies the program; the result is a
    // descriptor nobody else owns.
    let program = unsafe {
        let fd = libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, size_of::<Load>());
        let fd = RawFd::try_from(fd).unwrap_or(-1);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    let group = File::open(directory)?;
    let attach = Attach {
        target: group.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        attach_type: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: both descriptors are open and the structure outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attach, size_of::<Attach>()) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
