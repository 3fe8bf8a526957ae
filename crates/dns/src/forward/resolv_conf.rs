//! The host's resolv.conf, followed as it changes: a laptop that joins a network gets other resolvers.

use parking_lot::Mutex;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

pub(super) const DNS_PORT: u16 = 53;
/// A file is looked at again when a resolver is needed, but not more often than this.
const LOOK: Duration = Duration::from_secs(1);

/// The `nameserver` lines.
pub(super) fn nameservers(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            (fields.next() == Some("nameserver"))
                .then(|| address(fields.next()?))
                .flatten()
        })
        .collect()
}

/// An address with port 53; that of a link may name its interface, as `fe80::1%eth0`.
fn address(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(address, DNS_PORT));
    }
    let (address, interface) = text.split_once('%')?;
    let index = interface.parse().ok().or_else(|| {
        let index = std::fs::read_to_string(format!("/sys/class/net/{interface}/ifindex")).ok()?;
        index.trim().parse().ok()
    })?;
    Some(SocketAddrV6::new(address.parse().ok()?, DNS_PORT, 0, index).into())
}

/// A file that is read again when it has changed.
#[derive(Debug)]
pub(super) struct ResolvConf {
    path: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    looked: Option<Instant>,
    version: Option<(SystemTime, u64)>,
}

impl ResolvConf {
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            seen: Mutex::default(),
        }
    }

    /// The resolvers if they may be others than before; absent otherwise, or if the file cannot be read.
    pub fn changed(&self, now: Instant) -> Option<Vec<SocketAddr>> {
        let mut seen = self.seen.lock();
        if seen
            .looked
            .is_some_and(|looked| now.saturating_duration_since(looked) < LOOK)
        {
            return None;
        }
        seen.looked = Some(now);
        let metadata = std::fs::metadata(&self.path).ok()?;
        let version = Some((metadata.modified().ok()?, metadata.len()));
        if seen.version == version {
            return None;
        }
        let text = std::fs::read_to_string(&self.path);
        let text = text
            .map_err(|error| tracing::warn!(path = %self.path.display(), %error, "cannot read resolvers"));
        seen.version = version;
        Some(nameservers(&text.ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter()
            .map(|address| address.parse().expect("an address"))
            .collect()
    }

    #[test]
    fn lines() {
        let text = "# x\nnameserver 192.0.2.1 # y\nsearch a\n nameserver ::1\nnameserverx 1.1.1.1\nnameserver bad\n\
                    nameserver fe80::1%7\nnameserver fe80::1%nosuchinterface\n";
        assert_eq!(
            nameservers(text),
            addresses(&["192.0.2.1:53", "[::1]:53", "[fe80::1%7]:53"])
        );
    }

    #[tokio::test]
    async fn a_change_is_seen_once() {
        let path = std::env::temp_dir().join(format!("coracle-dns-resolv-conf-{}", std::process::id()));
        std::fs::write(&path, "nameserver 192.0.2.1\n").expect("written");
        let (file, start) = (ResolvConf::new(path.clone()), Instant::now());
        assert_eq!(file.changed(start), Some(addresses(&["192.0.2.1:53"])));
        assert_eq!(file.changed(start + 2 * LOOK), None);
        std::fs::write(&path, "nameserver 192.0.2.1\nnameserver 192.0.2.2\n").expect("written");
        assert_eq!(file.changed(start + 2 * LOOK), None, "not yet");
        assert_eq!(
            file.changed(start + 3 * LOOK),
            Some(addresses(&["192.0.2.1:53", "192.0.2.2:53"]))
        );
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(file.changed(start + 5 * LOOK), None);
    }
}
