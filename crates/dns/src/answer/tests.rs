//! The Kubernetes DNS specification 1.1.0 as a table of questions and answers, section by section, and where it leaves
//! the choice, CoreDNS' answers.

use crate::forward::Forwarder;
use crate::respond::{Next, Responder};
use crate::testing::{
    answer, bytes, message, read, render, respond, responder, upsert_service, upsert_slice,
};
use crate::zone::Zone;
use hickory_proto::rr::RecordType as T;
use serde_json::json;

fn cluster() -> Zone {
    let mut zone = Zone::new("cluster.local").expect("a name");
    for namespace in ["default", "quiet"] {
        zone.upsert_namespace(namespace);
    }
    for (name, spec) in [
        (
            "web",
            json!({"clusterIP": "10.3.0.1", "clusterIPs": ["10.3.0.1"], "ports": [
                {"name": "https", "port": 443},
                {"name": "dns", "protocol": "UDP", "port": 53},
                {"name": "dns-tcp", "protocol": "TCP", "port": 53},
                {"name": "diameter", "protocol": "SCTP", "port": 3868}]}),
        ),
        (
            "unnamed",
            json!({"clusterIP": "10.3.0.2", "ports": [{"port": 80}]}),
        ),
        (
            "six",
            json!({"clusterIP": "2001:db8::1", "ports": [{"name": "https", "port": 443}]}),
        ),
        (
            "dual",
            json!({"clusterIP": "10.3.0.3", "clusterIPs": ["10.3.0.3", "2001:db8::3"],
                   "ports": [{"name": "https", "port": 443}]}),
        ),
        ("db", json!({"clusterIP": "None"})),
        ("six-db", json!({"clusterIP": "None"})),
        (
            "early",
            json!({"clusterIP": "None", "publishNotReadyAddresses": true}),
        ),
        (
            "empty",
            json!({"clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]}),
        ),
        ("waiting", json!({"clusterIP": "None"})),
        ("portless", json!({"clusterIP": "None"})),
        (
            "far",
            json!({"type": "ExternalName", "externalName": "www.example.com"}),
        ),
        (
            "inside",
            json!({"type": "ExternalName", "externalName": "web.default.svc.cluster.local."}),
        ),
        (
            "numbers",
            json!({"type": "ExternalName", "externalName": "192.0.2.1"}),
        ),
        (
            "round",
            json!({"type": "ExternalName", "externalName": "about.default.svc.cluster.local"}),
        ),
        (
            "about",
            json!({"type": "ExternalName", "externalName": "round.default.svc.cluster.local"}),
        ),
        (
            "lost",
            json!({"type": "ExternalName", "externalName": "nobody.default.svc.cluster.local"}),
        ),
    ] {
        upsert_service(&mut zone, "default", name, spec);
    }
    let ports = json!([{"name": "sql", "port": 5432, "protocol": "TCP"}, {"name": "stats", "port": 9000, "protocol": "TCP"}]);
    let endpoints = json!([
        {"addresses": ["10.3.1.100"], "hostname": "my-pet", "conditions": {"ready": true}},
        {"addresses": ["10.3.1.101"], "conditions": {}},
        {"addresses": ["10.3.1.102"], "hostname": "slow", "conditions": {"ready": false}},
    ]);
    upsert_slice(
        &mut zone,
        "default",
        "db",
        "db-4",
        ports.clone(),
        endpoints.clone(),
    );
    upsert_slice(&mut zone, "default", "early", "early-4", ports.clone(), endpoints);
    let six = json!([
        {"addresses": ["2001:db8::100"], "hostname": "my-pet", "conditions": {"ready": true}},
        {"addresses": ["2001:db8:0:1::"], "conditions": {"ready": true}},
    ]);
    upsert_slice(&mut zone, "default", "db", "db-6", ports.clone(), six.clone());
    upsert_slice(&mut zone, "default", "six-db", "six-db-6", ports.clone(), six);
    let twins = json!([
        {"addresses": ["10.3.1.200"], "hostname": "twin", "conditions": {"ready": true}},
        {"addresses": ["10.3.1.201"], "hostname": "twin", "conditions": {"ready": true}},
    ]);
    upsert_slice(&mut zone, "default", "portless", "portless-4", json!([]), twins);
    let unready = json!([{"addresses": ["10.3.1.210"], "conditions": {"ready": false}}]);
    upsert_slice(
        &mut zone,
        "default",
        "waiting",
        "waiting-4",
        ports.clone(),
        unready,
    );
    let behind = json!([{"addresses": ["10.3.1.220"], "conditions": {"ready": true}}]);
    upsert_slice(&mut zone, "default", "web", "web-4", ports, behind);
    zone.add_name_server("10.3.0.10".parse().expect("an address"));
    zone.set_synced();
    zone
}

fn check(responder: &Responder, table: &[(&str, T, &str)]) {
    for (name, record_type, expected) in table {
        let reply = answer(responder, &message(name, *record_type));
        assert_eq!(render(&reply), *expected, "{name} {record_type}");
        assert!(
            reply.metadata.authoritative && reply.metadata.recursion_available,
            "{name}"
        );
        let negative = reply.answers.is_empty();
        let authorities: Vec<_> = reply
            .authorities
            .iter()
            .map(|record| record.record_type())
            .collect();
        assert_eq!(
            authorities,
            if negative { vec![T::SOA] } else { vec![] },
            "{name} {record_type}"
        );
    }
}

fn specification() -> Responder {
    responder(cluster(), Forwarder::default())
}

#[test]
fn section_2_2_schema_version() {
    check(
        &specification(),
        &[
            ("dns-version.cluster.local.", T::TXT, "1.1.0"),
            ("dns-version.cluster.local.", T::A, "NODATA"),
        ],
    );
}

#[test]
fn section_2_3_services_with_cluster_ip() {
    check(
        &specification(),
        &[
            ("web.default.svc.cluster.local.", T::A, "10.3.0.1"),
            ("web.default.svc.cluster.local.", T::AAAA, "NODATA"),
            ("web.default.svc.cluster.local.", T::MX, "NODATA"),
            ("six.default.svc.cluster.local.", T::AAAA, "2001:db8::1"),
            ("six.default.svc.cluster.local.", T::A, "NODATA"),
            ("dual.default.svc.cluster.local.", T::A, "10.3.0.3"),
            ("dual.default.svc.cluster.local.", T::AAAA, "2001:db8::3"),
            (
                "_https._tcp.web.default.svc.cluster.local.",
                T::SRV,
                "0 100 443 web.default.svc.cluster.local.",
            ),
            (
                "_dns._udp.web.default.svc.cluster.local.",
                T::SRV,
                "0 100 53 web.default.svc.cluster.local.",
            ),
            (
                "_dns-tcp._tcp.web.default.svc.cluster.local.",
                T::SRV,
                "0 100 53 web.default.svc.cluster.local.",
            ),
            (
                "_diameter._sctp.web.default.svc.cluster.local.",
                T::SRV,
                "0 100 3868 web.default.svc.cluster.local.",
            ),
            (
                "_https._tcp.dual.default.svc.cluster.local.",
                T::SRV,
                "0 100 443 dual.default.svc.cluster.local.",
            ),
            ("_https._tcp.web.default.svc.cluster.local.", T::A, "NODATA"),
            ("_https._udp.web.default.svc.cluster.local.", T::SRV, "NXDOMAIN"),
            ("_http._tcp.web.default.svc.cluster.local.", T::SRV, "NXDOMAIN"),
            ("_tcp.web.default.svc.cluster.local.", T::SRV, "NODATA"),
            // Unnamed ports do not have an SRV record.
            ("_._tcp.unnamed.default.svc.cluster.local.", T::SRV, "NXDOMAIN"),
            ("_tcp.unnamed.default.svc.cluster.local.", T::SRV, "NXDOMAIN"),
            ("1.0.3.10.in-addr.arpa.", T::PTR, "web.default.svc.cluster.local."),
            (
                "3.0.3.10.in-addr.arpa.",
                T::PTR,
                "dual.default.svc.cluster.local.",
            ),
            (
                "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.",
                T::PTR,
                "six.default.svc.cluster.local.",
            ),
            (
                "3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.B.D.0.1.0.0.2.IP6.arpa.",
                T::PTR,
                "dual.default.svc.cluster.local.",
            ),
            ("1.0.3.10.in-addr.arpa.", T::A, "NODATA"),
        ],
    );
}

#[test]
fn section_2_4_headless_services() {
    check(
        &specification(),
        &[
            ("db.default.svc.cluster.local.", T::A, "10.3.1.100 | 10.3.1.101"),
            (
                "db.default.svc.cluster.local.",
                T::AAAA,
                "2001:db8:0:1:: | 2001:db8::100",
            ),
            (
                "six-db.default.svc.cluster.local.",
                T::AAAA,
                "2001:db8:0:1:: | 2001:db8::100",
            ),
            ("six-db.default.svc.cluster.local.", T::A, "NODATA"),
            ("my-pet.db.default.svc.cluster.local.", T::A, "10.3.1.100"),
            ("my-pet.db.default.svc.cluster.local.", T::AAAA, "2001:db8::100"),
            ("10-3-1-101.db.default.svc.cluster.local.", T::A, "10.3.1.101"),
            ("10-3-1-101.db.default.svc.cluster.local.", T::AAAA, "NODATA"),
            (
                "2001-db8-0-1--0.db.default.svc.cluster.local.",
                T::AAAA,
                "2001:db8:0:1::",
            ),
            // An endpoint with a hostname is not called by its address.
            ("10-3-1-100.db.default.svc.cluster.local.", T::A, "NXDOMAIN"),
            // Several addresses of one hostname.
            (
                "twin.portless.default.svc.cluster.local.",
                T::A,
                "10.3.1.200 | 10.3.1.201",
            ),
            // Endpoints that are not ready.
            ("slow.db.default.svc.cluster.local.", T::A, "NXDOMAIN"),
            (
                "early.default.svc.cluster.local.",
                T::A,
                "10.3.1.100 | 10.3.1.101 | 10.3.1.102",
            ),
            ("slow.early.default.svc.cluster.local.", T::A, "10.3.1.102"),
            ("waiting.default.svc.cluster.local.", T::A, "NXDOMAIN"),
            ("waiting.default.svc.cluster.local.", T::AAAA, "NXDOMAIN"),
            ("_sql._tcp.waiting.default.svc.cluster.local.", T::SRV, "NXDOMAIN"),
            ("empty.default.svc.cluster.local.", T::A, "NXDOMAIN"),
            ("_sql._tcp.empty.default.svc.cluster.local.", T::SRV, "NXDOMAIN"),
            // N endpoints and M ports: here three names for one port.
            (
                "_sql._tcp.db.default.svc.cluster.local.",
                T::SRV,
                "0 33 5432 10-3-1-101.db.default.svc.cluster.local. | \
                 0 33 5432 2001-db8-0-1--0.db.default.svc.cluster.local. | \
                 0 33 5432 my-pet.db.default.svc.cluster.local.",
            ),
            (
                "_stats._tcp.early.default.svc.cluster.local.",
                T::SRV,
                "0 33 9000 10-3-1-101.early.default.svc.cluster.local. | \
                 0 33 9000 my-pet.early.default.svc.cluster.local. | \
                 0 33 9000 slow.early.default.svc.cluster.local.",
            ),
            ("_sql._udp.db.default.svc.cluster.local.", T::SRV, "NXDOMAIN"),
            ("_tcp.db.default.svc.cluster.local.", T::A, "NODATA"),
            (
                "_sql._tcp.portless.default.svc.cluster.local.",
                T::SRV,
                "NXDOMAIN",
            ),
            ("portless.default.svc.cluster.local.", T::SRV, "NODATA"),
            (
                "100.1.3.10.in-addr.arpa.",
                T::PTR,
                "my-pet.db.default.svc.cluster.local. | my-pet.early.default.svc.cluster.local.",
            ),
            (
                "101.1.3.10.in-addr.arpa.",
                T::PTR,
                "10-3-1-101.db.default.svc.cluster.local. | 10-3-1-101.early.default.svc.cluster.local.",
            ),
            // Not ready in the one, published by the other.
            (
                "102.1.3.10.in-addr.arpa.",
                T::PTR,
                "slow.early.default.svc.cluster.local.",
            ),
            (
                "0.0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.",
                T::PTR,
                "my-pet.db.default.svc.cluster.local. | my-pet.six-db.default.svc.cluster.local.",
            ),
        ],
    );
}

#[test]
fn section_2_5_external_names() {
    check(
        &specification(),
        &[
            ("far.default.svc.cluster.local.", T::CNAME, "www.example.com."),
            (
                "inside.default.svc.cluster.local.",
                T::CNAME,
                "web.default.svc.cluster.local.",
            ),
            (
                "inside.default.svc.cluster.local.",
                T::A,
                "web.default.svc.cluster.local. | 10.3.0.1",
            ),
            // An address is no name.
            ("numbers.default.svc.cluster.local.", T::A, "NXDOMAIN"),
            ("endpoint.far.default.svc.cluster.local.", T::CNAME, "NXDOMAIN"),
            ("_http._tcp.far.default.svc.cluster.local.", T::SRV, "NXDOMAIN"),
        ],
    );
    let responder = specification();
    // Through an alias the answer is negative for its target, and says whose.
    for (name, record_type, code) in [
        ("inside.default.svc.cluster.local.", T::AAAA, "No Error"),
        ("lost.default.svc.cluster.local.", T::A, "Non-Existent Domain"),
    ] {
        let reply = answer(&responder, &message(name, record_type));
        assert_eq!(reply.metadata.response_code.to_string(), code);
        assert_eq!((reply.answers.len(), reply.authorities.len()), (1, 1), "{name}");
        assert_eq!(reply.authorities[0].name.to_ascii(), "cluster.local.");
    }
    let question = bytes(&message("round.default.svc.cluster.local.", T::A));
    let reply = read(&respond(&responder, &question, true).1);
    assert_eq!(
        reply.metadata.response_code.to_string(),
        "Server Failure",
        "aliases go round"
    );
}

#[test]
fn names_without_a_section() {
    check(
        &specification(),
        &[
            // Pods by address.
            ("10-244-0-9.default.pod.cluster.local.", T::A, "10.244.0.9"),
            ("10-244-0-9.default.pod.cluster.local.", T::AAAA, "NODATA"),
            ("fd00--9.quiet.pod.cluster.local.", T::AAAA, "fd00::9"),
            ("10-244-0-9.nowhere.pod.cluster.local.", T::A, "NXDOMAIN"),
            ("nonsense.default.pod.cluster.local.", T::A, "NXDOMAIN"),
            ("a.10-244-0-9.default.pod.cluster.local.", T::A, "NXDOMAIN"),
            // The endpoints of every Service have names, and addresses lead to them.
            ("10-3-1-220.web.default.svc.cluster.local.", T::A, "10.3.1.220"),
            (
                "220.1.3.10.in-addr.arpa.",
                T::PTR,
                "10-3-1-220.web.default.svc.cluster.local.",
            ),
            // SRV records of a Service are those of all its ports.
            (
                "web.default.svc.cluster.local.",
                T::SRV,
                "0 25 3868 web.default.svc.cluster.local. | 0 25 443 web.default.svc.cluster.local. | \
                 0 25 53 web.default.svc.cluster.local. | 0 25 53 web.default.svc.cluster.local.",
            ),
            (
                "unnamed.default.svc.cluster.local.",
                T::SRV,
                "0 100 80 unnamed.default.svc.cluster.local.",
            ),
            (
                "my-pet.early.default.svc.cluster.local.",
                T::SRV,
                "0 50 5432 my-pet.early.default.svc.cluster.local. | \
                 0 50 9000 my-pet.early.default.svc.cluster.local.",
            ),
            // What only has names below it.
            ("default.svc.cluster.local.", T::A, "NODATA"),
            ("quiet.svc.cluster.local.", T::A, "NODATA"),
            ("quiet.pod.cluster.local.", T::NS, "NODATA"),
            ("svc.cluster.local.", T::A, "NODATA"),
            ("pod.cluster.local.", T::A, "NODATA"),
            ("dns.cluster.local.", T::A, "NODATA"),
            ("cluster.local.", T::A, "NODATA"),
            ("cluster.local.", T::NS, "ns.dns.cluster.local."),
            ("ns.dns.cluster.local.", T::A, "10.3.0.10"),
            ("ns.dns.cluster.local.", T::AAAA, "NODATA"),
            // What is not there.
            ("nowhere.svc.cluster.local.", T::A, "NXDOMAIN"),
            ("missing.default.svc.cluster.local.", T::A, "NXDOMAIN"),
            ("missing.default.svc.cluster.local.", T::TXT, "NXDOMAIN"),
            ("web.default.cluster.local.", T::A, "NXDOMAIN"),
            ("a.b.c.web.default.svc.cluster.local.", T::A, "NXDOMAIN"),
            ("foo.cluster.local.", T::NS, "NXDOMAIN"),
        ],
    );
}

#[test]
fn other_names_are_not_the_clusters() {
    let responder = specification();
    for (name, record_type) in [
        ("example.org.", T::A),
        ("notcluster.local.", T::A),
        ("local.", T::A),
        (".", T::NS),
        ("1.1.1.1.in-addr.arpa.", T::PTR),
        ("1.0.3.256.in-addr.arpa.", T::PTR),
        ("0.3.10.in-addr.arpa.", T::PTR),
        ("x.1.0.3.10.in-addr.arpa.", T::PTR),
        ("in-addr.arpa.", T::PTR),
        ("1.0.0.0.ip6.arpa.", T::PTR),
        (
            "01.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.",
            T::PTR,
        ),
    ] {
        let (next, _) = respond(&responder, &bytes(&message(name, record_type)), false);
        assert!(matches!(next, Next::Ask(_)), "{name} {record_type}");
    }
}

#[test]
fn comparisons_ignore_case_and_the_question_keeps_it() {
    let responder = specification();
    for name in [
        "WEB.default.svc.Cluster.LOCAL.",
        "_HTTPS._Tcp.wEb.DEFAULT.svc.cluster.local.",
    ] {
        let record_type = if name.starts_with('_') { T::SRV } else { T::A };
        let (_, reply) = respond(&responder, &bytes(&message(name, record_type)), false);
        let reply = read(&reply);
        assert_eq!(reply.answers.len(), 1);
        assert_eq!(reply.queries[0].name.to_ascii(), name);
        assert_eq!(reply.answers[0].name.to_ascii(), name);
    }
    let reply = answer(&responder, &message("MY-PET.db.default.svc.cluster.local.", T::A));
    assert_eq!(render(&reply), "10.3.1.100");
}

#[test]
fn srv_answers_bring_the_addresses_of_their_targets() {
    let responder = specification();
    let additional = |name: &str| -> Vec<String> {
        let reply = answer(&responder, &message(name, T::SRV));
        let records = reply.additionals.iter();
        let mut lines: Vec<String> = records
            .map(|r| format!("{} {}", r.name.to_ascii(), r.data))
            .collect();
        lines.sort();
        lines
    };
    assert_eq!(
        additional("_https._tcp.dual.default.svc.cluster.local."),
        [
            "dual.default.svc.cluster.local. 10.3.0.3",
            "dual.default.svc.cluster.local. 2001:db8::3"
        ]
    );
    assert_eq!(
        additional("_sql._tcp.db.default.svc.cluster.local."),
        [
            "10-3-1-101.db.default.svc.cluster.local. 10.3.1.101",
            "2001-db8-0-1--0.db.default.svc.cluster.local. 2001:db8:0:1::",
            "my-pet.db.default.svc.cluster.local. 10.3.1.100",
            "my-pet.db.default.svc.cluster.local. 2001:db8::100",
        ]
    );
}

#[test]
fn lifetimes() {
    let responder = specification();
    let lifetime = |name, record_type| answer(&responder, &message(name, record_type)).answers[0].ttl;
    assert_eq!(lifetime("web.default.svc.cluster.local.", T::A), super::TTL);
    assert_eq!(lifetime("dns-version.cluster.local.", T::TXT), 28_800);
    let reply = answer(&responder, &message("missing.default.svc.cluster.local.", T::A));
    let soa = &reply.authorities[0];
    assert_eq!(
        (soa.name.to_ascii().as_str(), soa.ttl),
        ("cluster.local.", super::TTL)
    );
    let text = soa.data.to_string();
    assert!(
        text.starts_with("ns.dns.cluster.local. hostmaster.cluster.local. "),
        "{text}"
    );
    assert!(text.ends_with(" 7200 1800 86400 5"), "{text}");
    // The zone itself can be asked for it, and it counts changes.
    let serial = || {
        answer(&responder, &message("cluster.local.", T::SOA)).answers[0]
            .data
            .to_string()
    };
    let before = serial();
    responder.zone.write().remove_service("default", "web");
    assert_ne!(serial(), before);
}

#[test]
fn endpoints_take_turns_in_front() {
    let responder = specification();
    let mut first = std::collections::BTreeSet::new();
    for id in 0..4 {
        let mut question = message("db.default.svc.cluster.local.", T::A);
        question.metadata.id = id;
        first.insert(answer(&responder, &question).answers[0].data.to_string());
    }
    assert_eq!(first.len(), 2);
}
