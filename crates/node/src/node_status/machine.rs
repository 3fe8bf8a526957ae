//! What the machine is and has. Upstream: `cadvisor` machine info, `nodestatus.MachineInfo`.

use coracle_meta::KUBERNETES_VERSION;
use k8s_openapi::api::core::v1::NodeSystemInfo;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Memory that pods cannot have: at this point the kernel begins to reclaim.
const RESERVED_MEMORY: u64 = 100 << 20;

type List = BTreeMap<String, Quantity>;

/// CPU, memory, disk and pods of the node.
#[derive(Debug, Clone)]
pub struct Resources {
    memory: u64,
    capacity: List,
    allocatable: List,
}

impl Resources {
    /// Measures the machine; `data_dir` is on the disk that pods write to.
    pub fn measure(data_dir: &Path, max_pods: u32) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let memory = memory();
        let disk = rustix::fs::statvfs(data_dir).map_or(0, |s| s.f_blocks * s.f_frsize);
        let list = |memory: u64, disk: String| {
            let quantity = |text: String| Quantity(text);
            List::from([
                ("cpu".to_owned(), quantity(cpus.to_string())),
                ("memory".to_owned(), quantity(format!("{}Ki", memory / 1024))),
                ("ephemeral-storage".to_owned(), quantity(disk)),
                ("hugepages-1Gi".to_owned(), quantity("0".to_owned())),
                ("hugepages-2Mi".to_owned(), quantity("0".to_owned())),
                ("pods".to_owned(), quantity(max_pods.to_string())),
            ])
        };
        Self {
            memory,
            capacity: list(memory, format!("{}Ki", disk / 1024)),
            allocatable: list(
                memory.saturating_sub(RESERVED_MEMORY),
                (disk / 10 * 9).to_string(),
            ),
        }
    }

    /// Bytes of memory.
    pub fn memory(&self) -> u64 {
        self.memory
    }

    /// What there is.
    pub fn capacity(&self) -> &List {
        &self.capacity
    }

    /// What pods may have of it.
    pub fn allocatable(&self) -> &List {
        &self.allocatable
    }
}

fn memory() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// The architecture in Go's words.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// Identity and versions.
pub fn system_info() -> NodeSystemInfo {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let uname = rustix::system::uname();
    let release = read("/etc/os-release");
    let os_image = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let machine_id = read("/etc/machine-id");
    let product_uuid = read("/sys/class/dmi/id/product_uuid");
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: format!("{}://{}", coracle_pods::RUNTIME, env!("CARGO_PKG_VERSION")),
        kernel_version: uname.release().to_string_lossy().into_owned(),
        // Deprecated since 1.33, and still a required field.
        kube_proxy_version: String::new(),
        kubelet_version: KUBERNETES_VERSION.to_owned(),
        operating_system: "linux".to_owned(),
        os_image: os_image.unwrap_or("Linux").trim_matches('"').to_owned(),
        system_uuid: if product_uuid.is_empty() {
            machine_id.clone()
        } else {
            product_uuid
        },
        machine_id,
        swap: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_something() {
        let resources = Resources::measure(Path::new("/"), 110);
        let value = |list: &List, name: &str| {
            coracle_meta::Quantity::parse(&list[name].0)
                .expect("a quantity")
                .value()
        };
        assert!(value(resources.capacity(), "cpu") >= 1);
        assert!(value(resources.capacity(), "memory") > value(resources.allocatable(), "memory"));
        assert!(
            value(resources.capacity(), "ephemeral-storage")
                > value(resources.allocatable(), "ephemeral-storage")
        );
        assert_eq!(value(resources.allocatable(), "pods"), 110);
        assert!(!system_info().kernel_version.is_empty());
    }
}
