//! The names of chains: upstream's, so that who looks for a Service's chain as a textbook says finds it.

use super::{EXTERNAL_SERVICES, FIREWALL, FORWARD, MARK_MASQ, NODE_PORTS, POSTROUTING, SERVICES};
use crate::frontend::Target;
use sha2::{Digest, Sha256};

const CLUSTER: &str = "KUBE-SVC-";
const LOCAL: &str = "KUBE-SVL-";
const SOURCE_RANGES: &str = "KUBE-FW-";
const EXTERNAL: &str = "KUBE-EXT-";
const ENDPOINT: &str = "KUBE-SEP-";

/// The chains of a Service port.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// `namespace/name:port` and the protocol in small letters.
    hashed: String,
    /// To the endpoints of the cluster.
    pub cluster: String,
    /// To the endpoints of this node.
    pub local: String,
    /// Who may come to the load balancer.
    pub source_ranges: String,
    /// From outside the cluster.
    pub external: String,
}

impl Names {
    pub fn new(service_port: &str, protocol: &str) -> Self {
        let hashed = format!("{service_port}{protocol}");
        let hash = hash(&hashed);
        Self {
            cluster: format!("{CLUSTER}{hash}"),
            local: format!("{LOCAL}{hash}"),
            source_ranges: format!("{SOURCE_RANGES}{hash}"),
            external: format!("{EXTERNAL}{hash}"),
            hashed,
        }
    }

    /// To one endpoint.
    pub fn endpoint(&self, target: Target) -> String {
        format!("{ENDPOINT}{}", hash(&format!("{}{target}", self.hashed)))
    }
}

/// Whether a chain is one that a proxy for Services makes.
pub(super) fn is_ours(chain: &str) -> bool {
    [
        SERVICES,
        EXTERNAL_SERVICES,
        NODE_PORTS,
        FORWARD,
        FIREWALL,
        POSTROUTING,
        MARK_MASQ,
    ]
    .contains(&chain)
        || [CLUSTER, LOCAL, SOURCE_RANGES, EXTERNAL, ENDPOINT]
            .iter()
            .any(|prefix| chain.starts_with(prefix))
}

/// The first 16 characters of SHA-256 in base 32: names of chains have at most 28.
fn hash(text: &str) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let digest = Sha256::digest(text.as_bytes());
    let groups = digest[..10].chunks(5).flat_map(|five| {
        let bits = five.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        (0..8).rev().map(move |index| bits >> (5 * index) & 31)
    });
    groups
        .map(|index| char::from(ALPHABET[usize::try_from(index).expect("five bits")]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_upstreams() {
        // As every cluster in the world shows them.
        for (service_port, protocol, chain) in [
            ("default/kubernetes:https", "tcp", "KUBE-SVC-NPX46M4PTMTKRN6Y"),
            ("kube-system/kube-dns:dns", "udp", "KUBE-SVC-TCOU7JCQXEZGVUNU"),
            ("kube-system/kube-dns:dns-tcp", "tcp", "KUBE-SVC-ERIFXISQEP7F7OF4"),
        ] {
            assert_eq!(Names::new(service_port, protocol).cluster, chain);
            assert!(is_ours(chain));
        }
        assert!(!is_ours("KUBE-KUBELET-CANARY") && !is_ours("DOCKER"));
    }
}
