//! Version 1: a hierarchy for each controller.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{DeviceRule, Limits, Usage, field, read_number, write};

/// The controllers a container's process is put into. `cpuset` belongs to them only where a limit asks for it: a new
/// cpuset is unusable until its CPUs and memory nodes are set. `name=systemd` keeps systemd from counting the process
/// as one of the daemon's service.
const JOINED: [&str; 6] = ["pids", "cpu", "cpuacct", "memory", "devices", "name=systemd"];

/// Where the hierarchies are mounted, by their first controller; controllers that share one are listed once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts {
    points: Vec<(Vec<String>, PathBuf)>,
    /// Hierarchies that containers are not put into by us, but that other container runtimes use.
    others: Vec<PathBuf>,
}

impl Mounts {
    pub(super) fn add(&mut self, point: &Path, super_options: &str) {
        let known = |option: &&str| JOINED.contains(option) || *option == "cpuset";
        let controllers: Vec<String> = super_options
            .split(',')
            .filter(known)
            .map(str::to_owned)
            .collect();
        if controllers
            .first()
            .is_some_and(|controller| !self.has(controller))
        {
            self.points.push((controllers, point.to_owned()));
        } else {
            self.add_other(point);
        }
    }

    pub(super) fn add_other(&mut self, point: &Path) {
        self.others.push(point.to_owned());
    }

    /// Every directory that this group can have in any hierarchy.
    pub(super) fn all_directories(&self, path: &Path) -> Vec<PathBuf> {
        self.points
            .iter()
            .map(|(_, point)| point)
            .chain(&self.others)
            .map(|point| point.join(path))
            .collect()
    }

    pub(super) fn has(&self, controller: &str) -> bool {
        self.point(controller).is_some()
    }

    fn point(&self, controller: &str) -> Option<&Path> {
        let mounted =
            |(controllers, _): &&(Vec<String>, PathBuf)| controllers.iter().any(|name| name == controller);
        self.points.iter().find(mounted).map(|(_, point)| point.as_path())
    }

    pub(super) fn directory(&self, controller: &str, path: &Path) -> Option<PathBuf> {
        self.point(controller).map(|point| point.join(path))
    }

    pub(super) fn directories(&self, path: &Path) -> Vec<(String, PathBuf)> {
        let cpuset = |directory: &Path| directory.join("cgroup.procs").exists();
        self.points
            .iter()
            .map(|(controllers, point)| (controllers.join(","), point.join(path)))
            .filter(|(controllers, directory)| controllers != "cpuset" || cpuset(directory))
            .collect()
    }

    pub(super) fn create(&self, path: &Path) -> io::Result<()> {
        self.points
            .iter()
            .filter(|(controllers, _)| controllers != &["cpuset"])
            .try_for_each(|(_, point)| fs::create_dir_all(point.join(path)))
    }

    pub(super) fn set(&self, path: &Path, limits: &Limits) -> io::Result<()> {
        let put = |controller: &str, file: &str, value: String| match self.directory(controller, path) {
            Some(directory) => write(&directory.join(file), &value),
            None => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("no {controller} cgroup is mounted"),
            )),
        };
        if let Some(shares) = limits.cpu_shares {
            put("cpu", "cpu.shares", shares.to_string())?;
        }
        if let Some(period) = limits.cpu_period {
            put("cpu", "cpu.cfs_period_us", period.to_string())?;
        }
        if let Some(quota) = limits.cpu_quota {
            put("cpu", "cpu.cfs_quota_us", quota.to_string())?;
        }
        if let Some(memory) = limits.memory {
            put("memory", "memory.limit_in_bytes", memory.to_string())?;
        }
        if let Some(pids) = limits.pids {
            put("pids", "pids.max", pids.to_string())?;
        }
        if limits.cpuset_cpus.is_some() || limits.cpuset_mems.is_some() {
            self.set_cpuset(path, limits)?;
        }
        Ok(())
    }

    /// Makes the group in the cpuset hierarchy: each level starts empty and must be filled from the one above.
    fn set_cpuset(&self, path: &Path, limits: &Limits) -> io::Result<()> {
        let Some(point) = self.point("cpuset") else {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "no cpuset cgroup is mounted",
            ));
        };
        let mut directory = point.to_owned();
        for component in path.components() {
            let above = directory.clone();
            directory.push(component);
            fs::create_dir_all(&directory)?;
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if fs::read_to_string(directory.join(file))?.trim().is_empty() {
                    write(
                        &directory.join(file),
                        fs::read_to_string(above.join(file))?.trim(),
                    )?;
                }
            }
        }
        for (file, value) in [
            ("cpuset.cpus", &limits.cpuset_cpus),
            ("cpuset.mems", &limits.cpuset_mems),
        ] {
            if let Some(value) = value {
                write(&directory.join(file), value)?;
            }
        }
        Ok(())
    }

    pub(super) fn set_devices(&self, path: &Path, rules: &[DeviceRule]) -> io::Result<()> {
        let Some(directory) = self.directory("devices", path) else {
            return Ok(());
        };
        write(&directory.join("devices.deny"), "a")?;
        let allow = directory.join("devices.allow");
        rules.iter().try_for_each(|rule| write(&allow, &rule.to_string()))
    }

    pub(super) fn usage(&self, path: &Path) -> io::Result<Usage> {
        let number = |controller: &str, file: &str| match self.directory(controller, path) {
            Some(directory) => read_number(&directory.join(file)),
            None => Ok(0),
        };
        let memory = match self.directory("memory", path) {
            Some(directory) => fs::read_to_string(directory.join("memory.stat"))?,
            None => String::new(),
        };
        Ok(Usage {
            cpu_ns: number("cpuacct", "cpuacct.usage")?,
            memory: number("memory", "memory.usage_in_bytes")?,
            memory_inactive_file: field(&memory, "total_inactive_file"),
            memory_anonymous: field(&memory, "total_rss"),
            pids: number("pids", "pids.current")?,
        })
    }
}
