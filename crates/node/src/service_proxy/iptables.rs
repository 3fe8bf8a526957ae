//! Writes the chains of `coracle_dataplane::iptables` with the programs of iptables, whichever kernel interface those
//! use on this machine. Upstream: pkg/util/iptables.

use coracle_dataplane::Tables;
use coracle_dataplane::iptables::{Installed, Ruleset};
use std::io::{self, Write};
use std::process::{Command, Output, Stdio};

/// What failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not there.
    #[error("proxy mode iptables needs the program {0} (Debian package iptables)")]
    Missing(&'static str),
    /// The program does not run.
    #[error("run {0}")]
    Run(&'static str, #[source] io::Error),
    /// The program refuses.
    #[error("{program} failed: {said}")]
    Refused {
        /// The program.
        program: &'static str,
        /// What it said.
        said: String,
    },
}

/// The chains of all address families.
#[derive(Debug)]
pub(super) struct Iptables {
    families: Vec<Family>,
}

#[derive(Debug)]
struct Family {
    ipv6: bool,
    save: &'static str,
    restore: &'static str,
    /// None until it was read, and after a failure.
    installed: Option<Installed>,
}

impl Iptables {
    /// For these address families: false for IPv4. Fails if a program is missing.
    pub fn open(families: impl Iterator<Item = bool>) -> Result<Self, Error> {
        let family = |ipv6| {
            let (save, restore) = programs(ipv6);
            run(restore, &["--version"], "")?;
            Ok(Family {
                ipv6,
                save,
                restore,
                installed: None,
            })
        };
        let families = families.map(family).collect::<Result<_, _>>()?;
        Ok(Self { families })
    }

    /// Makes the chains those of the tables; on a failure what is there is read again, and the difference written once
    /// more.
    pub fn write(&mut self, tables: &Tables) -> Result<(), Error> {
        for family in &mut self.families {
            let wanted = tables.iptables(family.ipv6);
            if family.make(&wanted).is_err() {
                family.make(&wanted)?;
            }
        }
        Ok(())
    }

    /// Takes all chains away, whichever process made them.
    pub fn remove(&mut self) -> Result<(), Error> {
        for family in &mut self.families {
            family.installed = None;
            if let Some(text) = family.read()?.removal() {
                run(family.restore, &RESTORE, &text)?;
            }
        }
        Ok(())
    }
}

/// Other chains stay; another process that changes something at the moment is waited for, in seconds.
const RESTORE: [&str; 2] = ["--noflush", "--wait=5"];

impl Family {
    fn make(&mut self, wanted: &Ruleset) -> Result<(), Error> {
        let mut installed = match self.installed.take() {
            Some(installed) => installed,
            None => self.read()?,
        };
        if let Some(text) = installed.restore(wanted) {
            run(self.restore, &RESTORE, &text)?;
        }
        installed.set(wanted.clone());
        self.installed = Some(installed);
        Ok(())
    }

    fn read(&self) -> Result<Installed, Error> {
        let output = run(self.save, &[], "")?;
        Ok(Installed::read(&String::from_utf8_lossy(&output.stdout)))
    }
}

/// What reads and what writes the chains of an address family.
fn programs(ipv6: bool) -> (&'static str, &'static str) {
    if ipv6 {
        ("ip6tables-save", "ip6tables-restore")
    } else {
        ("iptables-save", "iptables-restore")
    }
}

/// The chains of all tables of an address family, whoever made them, as `iptables-save` prints them.
pub fn saved_chains(ipv6: bool) -> Result<String, Error> {
    let (save, _) = programs(ipv6);
    let output = run(save, &[], "")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// In the network namespace of the calling thread.
fn run(program: &'static str, arguments: &[&str], input: &str) -> Result<Output, Error> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Error::Missing(program),
        _ => Error::Run(program, error),
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // Where a daemon's PATH may not lead.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take()
        && let Err(error) = stdin.write_all(input.as_bytes())
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        return Err(failed(error));
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::Refused {
        program,
        said: said.trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let error = run("iptables-restore-of-nobody", &[], "").expect_err("no such program");
        assert_eq!(
            error.to_string(),
            "proxy mode iptables needs the program iptables-restore-of-nobody (Debian package iptables)"
        );
    }

    #[test]
    fn a_refusal_says_what_the_program_said() {
        let error = run("sh", &["-c", "cat >&2; exit 2"], "line 7 failed\n").expect_err("it fails");
        assert_eq!(error.to_string(), "sh failed: line 7 failed");
    }
}
