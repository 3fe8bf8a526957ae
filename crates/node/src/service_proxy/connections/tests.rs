//! Counting on the real kernel when it goes wrong: more connections than the kernel can tell of, and requests that it
//! refuses. In a network namespace of its own.

use super::*;
use crate::pod_network::{PodNetwork, PodNetworkConfig};
use crate::service_proxy::{Event as ProxyEvent, ServiceProxy};
use coracle_kernel::net::netns;
use coracle_kernel::net::rtnetlink::{Rtnetlink, Scope};
use rustix::thread::CapabilitySet;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

const SERVICE: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 96, 0, 53), 53);
const ENDPOINT: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 244, 0, 5), 5353);

/// Runs a test where a Service has an endpoint: the node itself.
fn with_service(test: impl FnOnce() + Send) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let name = directory.path().join("node");
    let run = || {
        let network = PodNetwork::new(PodNetworkConfig {
            directory: directory.path().join("pods"),
            pod_cidrs: vec!["10.244.0.0/16".parse().expect("a range")],
            service_cidrs: vec!["10.96.0.0/12".parse().expect("a range")],
            local_addresses: vec![],
            mtu: None,
        });
        let _network = network.expect("a network");
        let mut host = Rtnetlink::open().expect("a socket");
        let lo = host.loopback().expect("lo");
        host.add_address(lo, ENDPOINT.0.into(), 32, Scope::Universe)
            .expect("an address");
        let proxy = ServiceProxy::start(coracle_dataplane::Config {
            node_name: "here".into(),
            zone: None,
            pod_cidrs: vec!["10.244.0.0/16".parse().expect("a range")],
            service_cidrs: vec!["10.96.0.0/12".parse().expect("a range")],
            local_addresses: BTreeSet::new(),
            by_iptables: false,
            load_balancer_pool: vec![],
        });
        let proxy = proxy.expect("a proxy");
        let service = serde_json::json!({
            "metadata": {"namespace": "ns", "name": "dns"},
            "spec": {"clusterIP": SERVICE.0, "ports": [{"port": SERVICE.1, "protocol": "UDP"}]},
        });
        let slice = serde_json::json!({
            "metadata": {"namespace": "ns", "name": "x", "labels": {"kubernetes.io/service-name": "dns"}},
            "addressType": "IPv4",
            "ports": [{"name": "", "port": ENDPOINT.1, "protocol": "UDP"}],
            "endpoints": [{"addresses": [ENDPOINT.0]}],
        });
        proxy.send(ProxyEvent::Service(
            serde_json::from_value(service).expect("a Service"),
        ));
        proxy.send(ProxyEvent::EndpointSlice(
            serde_json::from_value(slice).expect("a slice"),
        ));
        proxy.send(ProxyEvent::Synced);
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let in_force = runtime.expect("a runtime").block_on(proxy.in_force());
        in_force.expect("the Service is there");
        test();
    };
    let done = netns::create(&name, |_| {
        Ok(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)))
    });
    netns::delete(&name).expect("the namespace goes");
    if let Err(panic) = done.expect("a network namespace: this test needs root") {
        std::panic::resume_unwind(panic);
    }
}

/// A counter that is told to count the endpoint, the proxy's side of it, and what keeps it.
fn counter() -> (Counter, Receiver<Message>, Thread) {
    let (proxy, told) = mpsc::channel();
    let (sleep, wake) = std::io::pipe().expect("a pipe");
    let (endpoints, inbox) = mpsc::channel();
    let mut thread = Thread {
        endpoints,
        wake: Some(wake),
        handle: None,
    };
    let counter = Counter {
        proxy,
        inbox,
        sleep,
        events: Events::open().expect("a socket"),
        conntrack: Some(Conntrack::open().expect("a socket")),
        stale: false,
        counts: Counts::default(),
    };
    let target = Target::new(ENDPOINT.0.into(), ENDPOINT.1);
    assert!(thread.tell(BTreeSet::from([(Protocol::Udp, target)])));
    (counter, told, thread)
}

/// What the proxy was told last.
fn last(told: &Receiver<Message>) -> Option<u32> {
    let counts = told.try_iter().filter_map(|message| match message {
        Message::Connections(counts) => counts.first().map(|(_, count, _)| *count),
        _ => None,
    });
    counts.last()
}

fn connect() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
    socket.connect(SERVICE).expect("an address");
    socket.send(b"?").expect("sent");
    socket
}

#[test]
fn what_the_kernel_could_not_tell_is_counted_anew() {
    with_service(|| {
        let (mut counter, told, _thread) = counter();
        assert!(counter.step().expect("counted"));
        assert_eq!(last(&told), Some(0));
        // Of other flows, until there is no room for more.
        let flood = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        for port in 1..60_000 {
            let to = (IpAddr::from(Ipv4Addr::LOCALHOST), port);
            // What comes back from closed ports is of no interest.
            let _ = flood.send_to(b"?", to);
        }
        let _connections = [connect(), connect(), connect()];
        assert!(counter.step().expect("counted"));
        assert_eq!(last(&told), Some(3));
        // And what begins and ends from then on.
        let _one_more = connect();
        assert!(counter.step().expect("counted"));
        assert_eq!(last(&told), Some(4));
    });
}

#[test]
fn a_request_that_fails_does_not_end_the_counting() {
    with_service(|| {
        let (mut counter, told, _thread) = counter();
        let _one = connect();
        let may_ask = rustix::thread::capabilities(None).expect("capabilities");
        let mut may_not = may_ask;
        may_not.effective -= CapabilitySet::NET_ADMIN;
        rustix::thread::set_capabilities(None, may_not).expect("less than before");
        assert!(counter.step().expect("it goes on"));
        assert!(counter.stale);
        rustix::thread::set_capabilities(None, may_ask).expect("as before");
        told.try_iter().for_each(drop);
        let _two = connect();
        assert!(counter.step().expect("counted"));
        assert_eq!(last(&told), Some(2));
        assert!(!counter.stale);
    });
}
