//! A node in a network namespace of its own, with pods, and a machine outside. Needs root, and fails without.
//!
//! Tests are written in IPv4 and run twice: the second time each address stands for its IPv6 twin, and nothing in the
//! world has an IPv4 address. Whoever opens a socket of its own asks [`here`] or [`at`] for the address.

use coracle_dataplane::{Config, ServiceKey};
use coracle_kernel::net::netns;
use coracle_kernel::net::rtnetlink::{Route, Rtnetlink, Scope, Veth};
use coracle_node::pod_network::{PodInterface, PodNetwork, PodNetworkConfig};
use coracle_node::service_proxy::{Event, ServiceProxy};
use coracle_testkit::ipv6_twin;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The node's address towards the outside, and the machine outside.
pub const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The node's address in the pod network.
pub const NODE_IN_PODS: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Long enough for a busy machine; nothing waits for it to pass but what must not be answered.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The node, its pods, the machine outside.
pub struct World {
    pub directory: PathBuf,
    pub network: PodNetwork,
    outside: PathBuf,
}

/// Where a connection begins.
#[derive(Clone, Copy)]
pub enum From<'a> {
    Node,
    Pod(&'a Pod),
    Outside,
}

/// A pod, and its address as tests name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    pub ip: Ipv4Addr,
    pub interface: PodInterface,
}

impl Deref for Pod {
    type Target = PodInterface;

    fn deref(&self) -> &PodInterface {
        &self.interface
    }
}

/// Whether the world that the calling thread is in is the one of the twins.
pub fn is_ipv6() -> bool {
    const TWIN: &str = "fd000064";
    let addresses = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap_or_default();
    addresses.lines().any(|line| line.starts_with(TWIN))
}

/// The address that stands for this one where the calling thread is.
pub fn here(ip: Ipv4Addr) -> IpAddr {
    if is_ipv6() {
        ipv6_twin::of(ip).into()
    } else {
        ip.into()
    }
}

/// The same with a port.
pub fn at(ip: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::new(here(ip), port)
}

/// The same in a text, such as JSON.
pub fn text_here(text: &str) -> String {
    if is_ipv6() {
        ipv6_twin::text(text)
    } else {
        text.to_owned()
    }
}

/// A network that stands for this one.
pub fn range(text: &str) -> IpNet {
    text_here(text).parse().expect("a range")
}

/// Runs a test once in each family.
pub fn on_a_node(test: impl Fn(&World) + Sync) {
    for ipv6 in [false, true] {
        println!("in {}", if ipv6 { "IPv6" } else { "IPv4" });
        on_a_node_of(ipv6, &test);
    }
}

/// Runs a test that is about one family as it is written.
pub fn on_an_ipv4_node(test: impl Fn(&World) + Sync) {
    on_a_node_of(false, &test);
}

/// Runs a test on a thread inside a fresh namespace; whatever it makes there goes with the namespace.
fn on_a_node_of(ipv6: bool, test: &(impl Fn(&World) + Sync)) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = directory.path().join("node");
    let outside = directory.path().join("outside");
    let result = netns::create(&node, |_| {
        let world = World::new(ipv6, directory.path(), &outside);
        assert_eq!(is_ipv6(), ipv6);
        let tested = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&world)));
        // The mounts that name the pods' namespaces are the machine's, and do not go with the node's namespace.
        Ok((tested, world.network.tear_down()))
    });
    let _ = netns::delete(&outside);
    netns::delete(&node).expect("the namespace goes");
    let (tested, torn_down) = result.expect("a network namespace: these tests need root");
    if let Err(panic) = tested {
        std::panic::resume_unwind(panic);
    }
    torn_down.expect("the pods' network goes");
}

impl World {
    fn new(ipv6: bool, directory: &Path, outside: &Path) -> Self {
        let twin = |ip: Ipv4Addr| -> IpAddr { if ipv6 { ipv6_twin::of(ip).into() } else { ip.into() } };
        let prefix = if ipv6 { 120 } else { 24 };
        let mut here = Rtnetlink::open().expect("a netlink socket");
        netns::create(outside, |namespace| {
            here.add_veth(&Veth {
                name: "uplink",
                mac: [2, 0, 0, 0, 0, 2],
                peer_name: "node",
                peer_mac: [2, 0, 0, 0, 0, 1],
                peer_namespace: namespace,
                mtu: 1500,
            })?;
            let mut there = Rtnetlink::open()?;
            let link = there.require_link("node")?.index;
            there.set_up(link)?;
            there.add_address(link, twin(OUTSIDE), prefix, Scope::Universe)
        })
        .expect("a machine outside");
        let uplink = here.require_link("uplink").expect("the uplink").index;
        here.set_up(uplink).expect("the uplink goes up");
        netns::run(outside, || {
            let mut there = Rtnetlink::open()?;
            there.wait_until_operational("node", PATIENCE)
        })
        .and_then(|result| result)
        .expect("the machine outside is connected");
        here.add_address(uplink, twin(NODE), prefix, Scope::Universe)
            .expect("an address");
        here.add_route(&Route {
            destination: (twin(Ipv4Addr::UNSPECIFIED), 0),
            link: uplink,
            gateway: Some(twin(OUTSIDE)),
            source: None,
            scope: Scope::Universe,
            mtu: None,
        })
        .expect("a default route");
        Self {
            directory: directory.to_owned(),
            network: network(directory),
            outside: outside.to_owned(),
        }
    }

    /// A pod whose address ends with this number.
    pub fn pod(&self, number: u8) -> Pod {
        let ip = Ipv4Addr::new(10, 244, 0, number);
        let interface = self.network.attach(&format!("pod-{number}"), &[here(ip)]);
        Pod {
            ip,
            interface: interface.expect("a pod"),
        }
    }

    /// Runs a closure where connections begin.
    pub fn at<T: Send>(&self, from: From<'_>, run: impl FnOnce() -> T + Send) -> T {
        match from {
            From::Node => run(),
            From::Pod(pod) => netns::run(&pod.netns_path, run).expect("inside the pod"),
            From::Outside => netns::run(&self.outside, run).expect("outside"),
        }
    }

    /// Connects and reads what the server says of itself and of its client.
    pub fn ask(&self, from: From<'_>, to: impl Into<SocketAddr>) -> io::Result<Answer> {
        let to = to.into();
        self.at(from, || ask(to))
    }

    /// Serves TCP in a pod until the handle is dropped.
    pub fn serve(&self, pod: &Pod, port: u16) -> Server {
        Server::new(self.at(From::Pod(pod), || {
            TcpListener::bind(at(Ipv4Addr::UNSPECIFIED, port))
        }))
    }

    /// Serves TCP outside.
    pub fn serve_outside(&self, port: u16) -> Server {
        Server::new(self.at(From::Outside, || {
            TcpListener::bind(at(Ipv4Addr::UNSPECIFIED, port))
        }))
    }

    /// Answers each UDP packet in a pod with the pod's number until the handle is dropped.
    pub fn serve_udp(&self, pod: &Pod, port: u16) -> Server {
        let socket = self.at(From::Pod(pod), || {
            UdpSocket::bind(at(Ipv4Addr::UNSPECIFIED, port))
        });
        let socket = socket.expect("a UDP socket");
        let server = Server(socket.try_clone().expect("a descriptor").into());
        let number = pod.ip.octets()[3];
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((1.., client)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&[number], client);
            }
        });
        server
    }
}

/// The pod network as a daemon opens it.
pub fn network(directory: &Path) -> PodNetwork {
    PodNetwork::new(PodNetworkConfig {
        directory: directory.join("pods"),
        pod_cidrs: vec![range("10.244.0.0/16")],
        service_cidrs: vec![range("10.96.0.0/12")],
        local_addresses: vec![here(DNS)],
        mtu: None,
    })
    .expect("a pod network")
}

pub fn config() -> Config {
    Config {
        node_name: "here".into(),
        zone: None,
        pod_cidrs: vec![range("10.244.0.0/16")],
        service_cidrs: vec![range("10.96.0.0/12")],
        local_addresses: [here(DNS)].into(),
        by_iptables: false,
        load_balancer_pool: vec![range("192.0.2.128/25")],
    }
}

/// What a server said: its pod, and the client as it saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub server: Ipv4Addr,
    pub client: Ipv4Addr,
}

/// Connects from here.
pub fn ask(to: SocketAddr) -> io::Result<Answer> {
    let to = at(ipv6_twin::back(to.ip()), to.port());
    answer(TcpStream::connect_timeout(&to, PATIENCE)?)
}

/// Reads what the server says.
pub fn answer(mut stream: TcpStream) -> io::Result<Answer> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    let [a, b, c, d, rest @ ..] = bytes;
    Ok(Answer {
        server: [a, b, c, d].into(),
        client: rest.into(),
    })
}

/// A server that works until it is dropped.
pub struct Server(pub OwnedFd);

impl Server {
    /// Tells each client the two addresses and hangs up.
    fn new(listener: io::Result<TcpListener>) -> Self {
        let listener = listener.expect("a listener");
        let server = Self(listener.try_clone().expect("a descriptor").into());
        std::thread::spawn(move || {
            while let Ok((mut stream, client)) = listener.accept() {
                let Ok(server) = stream.local_addr() else {
                    continue;
                };
                let octets = |address: SocketAddr| ipv6_twin::back(address.ip()).octets();
                let _ = stream.write_all(&[octets(server), octets(client)].concat());
            }
        });
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Wakes the thread and ends its loop; a UDP socket is said not to be connected, and wakes all the same.
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both);
    }
}

/// A Service as its `spec` in JSON says.
pub fn service(name: &str, spec: &str) -> Event {
    let spec = text_here(spec);
    let text = format!(r#"{{"metadata":{{"namespace":"ns","name":"{name}"}},"spec":{spec}}}"#);
    let service: Service = serde_json::from_str(&text).expect("a service");
    Event::Service(Box::new(service))
}

/// A Service of type LoadBalancer that has got an address.
pub fn load_balancer(name: &str, spec: &str, ip: impl Into<IpAddr>) -> Event {
    let ip = ip.into();
    let mut event = service(name, spec);
    if let Event::Service(service) = &mut event {
        let status = format!(r#"{{"loadBalancer":{{"ingress":[{{"ip":"{ip}","ipMode":"VIP"}}]}}}}"#);
        service.status = serde_json::from_str(&text_here(&status)).expect("a status");
    }
    event
}

/// A Service that chooses among its endpoints otherwise than by chance.
pub fn balanced(name: &str, spec: &str, balancing: &str) -> Event {
    let mut event = service(name, spec);
    if let Event::Service(service) = &mut event {
        let annotation = ("coracle.dev/balancing".to_owned(), balancing.to_owned());
        service.metadata.annotations = Some([annotation].into());
    }
    event
}

pub fn no_service(name: &str) -> Event {
    Event::ServiceGone(ServiceKey::new("ns", name))
}

/// The ready endpoints of a Service: last numbers of the pods' addresses. Ports in JSON.
pub fn slice(service: &str, ports: &str, pods: &[u8]) -> Event {
    let endpoints: Vec<String> = pods
        .iter()
        .map(|pod| {
            format!(r#"{{"addresses":["10.244.0.{pod}"],"nodeName":"here","conditions":{{"ready":true}}}}"#)
        })
        .collect();
    let text = format!(
        r#"{{"metadata":{{"namespace":"ns","name":"{service}-x","labels":{{"kubernetes.io/service-name":"{service}"}}}},
            "addressType":"IPv4","ports":{ports},"endpoints":[{}]}}"#,
        endpoints.join(",")
    );
    slice_of(&text)
}

/// An EndpointSlice in JSON.
pub fn slice_of(text: &str) -> Event {
    let slice: EndpointSlice = serde_json::from_str(&text_here(text)).expect("a slice");
    Event::EndpointSlice(Box::new(slice))
}

/// A pod of this node in JSON.
pub fn pod_of(text: &str) -> Event {
    Event::Pod(Box::new(serde_json::from_str(&text_here(text)).expect("a pod")))
}

pub const HTTP: &str = r#"[{"name":"","port":8080,"protocol":"TCP"}]"#;

/// A proxy that has seen these events.
pub fn proxy(events: Vec<Event>) -> ServiceProxy {
    proxy_with(config(), events)
}

/// The same with a configuration of its own.
pub fn proxy_with(config: Config, events: Vec<Event>) -> ServiceProxy {
    let proxy = ServiceProxy::start(config).expect("a proxy");
    for event in events {
        proxy.send(event);
    }
    proxy.send(Event::Synced);
    settle(&proxy);
    proxy
}

/// Waits until the proxy has worked off what it was told.
pub fn settle(proxy: &ServiceProxy) {
    use coracle_node::DataPlane;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.expect("a runtime").block_on(async {
        let never_an_endpoint = Ipv4Addr::new(198, 51, 100, 255).into();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        proxy.drained(never_an_endpoint, deadline).await;
        assert!(
            tokio::time::Instant::now() < deadline,
            "the proxy works off its events"
        );
    });
}

/// Tells the clients of a test to stop, also when the test fails.
pub struct StopAtEnd<'a>(pub &'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks until the answer is right.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::yield_now();
    }
}
