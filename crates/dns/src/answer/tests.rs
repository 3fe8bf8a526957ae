//! The specification as a table of questions and answers.

use super::*;
use serde_json::json;

fn zone() -> Zone {
    let mut zone = Zone::new("cluster.local");
    for (name, spec) in [
        (
            "web",
            json!({"clusterIP": "10.96.0.20", "clusterIPs": ["10.96.0.20", "fd00::20"],
                   "ports": [{"name": "http", "port": 80}, {"name": "dns", "protocol": "UDP", "port": 53}]}),
        ),
        ("db", json!({"clusterIP": "None"})),
        (
            "early",
            json!({"clusterIP": "None", "publishNotReadyAddresses": true}),
        ),
        ("empty", json!({"clusterIP": "None"})),
        (
            "far",
            json!({"type": "ExternalName", "externalName": "example.org"}),
        ),
    ] {
        let service = json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec});
        zone.upsert_service(&serde_json::from_value(service).expect("a Service"));
    }
    for service in ["db", "early"] {
        let slice = json!({
            "metadata": {"name": format!("{service}-x"), "namespace": "default", "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": ["10.244.0.5"], "hostname": "db-0", "conditions": {"ready": true}},
                {"addresses": ["10.244.0.6"], "conditions": {"ready": true}},
                {"addresses": ["10.244.0.7"], "conditions": {"ready": false}},
            ],
        });
        zone.upsert_slice(&serde_json::from_value(slice).expect("a slice"));
    }
    zone
}

/// Asks and renders: data of the records, `NODATA`, `NXDOMAIN` or `ELSEWHERE`.
fn ask(zone: &Zone, name: &str, record_type: RecordType) -> String {
    let name = Name::from_ascii(name).expect("a name");
    match answer(zone, &name, record_type) {
        Answer::Records(records, _) => {
            let mut lines: Vec<String> = records.iter().map(|r| r.data.to_string()).collect();
            lines.sort();
            lines.join(" | ")
        }
        Answer::NoData(_) => "NODATA".into(),
        Answer::NameError(_) => "NXDOMAIN".into(),
        Answer::NotOurs => "ELSEWHERE".into(),
    }
}

#[test]
fn the_specification() {
    use RecordType as T;
    let zone = zone();
    for (name, record_type, expected) in [
        ("dns-version.cluster.local.", T::TXT, "1.1.0"),
        ("web.default.svc.cluster.local.", T::A, "10.96.0.20"),
        ("WEB.default.svc.Cluster.Local.", T::A, "10.96.0.20"),
        ("web.default.svc.cluster.local.", T::AAAA, "fd00::20"),
        ("web.default.svc.cluster.local.", T::MX, "NODATA"),
        (
            "_http._tcp.web.default.svc.cluster.local.",
            T::SRV,
            "0 100 80 web.default.svc.cluster.local.",
        ),
        (
            "_dns._udp.web.default.svc.cluster.local.",
            T::SRV,
            "0 100 53 web.default.svc.cluster.local.",
        ),
        ("_http._udp.web.default.svc.cluster.local.", T::SRV, "NXDOMAIN"),
        ("_tcp.web.default.svc.cluster.local.", T::SRV, "NODATA"),
        (
            "20.0.96.10.in-addr.arpa.",
            T::PTR,
            "web.default.svc.cluster.local.",
        ),
        ("db.default.svc.cluster.local.", T::A, "10.244.0.5 | 10.244.0.6"),
        ("db.default.svc.cluster.local.", T::AAAA, "NODATA"),
        ("db-0.db.default.svc.cluster.local.", T::A, "10.244.0.5"),
        ("10-244-0-6.db.default.svc.cluster.local.", T::A, "10.244.0.6"),
        ("10-244-0-7.db.default.svc.cluster.local.", T::A, "NXDOMAIN"),
        (
            "early.default.svc.cluster.local.",
            T::A,
            "10.244.0.5 | 10.244.0.6 | 10.244.0.7",
        ),
        (
            "_sql._tcp.db.default.svc.cluster.local.",
            T::SRV,
            "0 50 5432 10-244-0-6.db.default.svc.cluster.local. | 0 50 5432 db-0.db.default.svc.cluster.local.",
        ),
        ("empty.default.svc.cluster.local.", T::A, "NXDOMAIN"),
        ("far.default.svc.cluster.local.", T::A, "example.org."),
        ("10-244-0-9.default.pod.cluster.local.", T::A, "10.244.0.9"),
        ("nonsense.default.pod.cluster.local.", T::A, "NXDOMAIN"),
        ("default.svc.cluster.local.", T::A, "NODATA"),
        ("nowhere.svc.cluster.local.", T::A, "NXDOMAIN"),
        ("missing.default.svc.cluster.local.", T::A, "NXDOMAIN"),
        ("svc.cluster.local.", T::A, "NODATA"),
        ("cluster.local.", T::A, "NODATA"),
        ("example.org.", T::A, "ELSEWHERE"),
        ("notcluster.local.", T::A, "ELSEWHERE"),
        ("1.1.1.1.in-addr.arpa.", T::PTR, "ELSEWHERE"),
    ] {
        assert_eq!(ask(&zone, name, record_type), expected, "{name} {record_type}");
    }
    assert_eq!(
        ask(&zone, "5.0.244.10.in-addr.arpa.", T::PTR),
        "db-0.db.default.svc.cluster.local. | db-0.early.default.svc.cluster.local."
    );
}

#[test]
fn negative_answers_carry_the_soa_of_the_zone() {
    let name = Name::from_ascii("missing.default.svc.cluster.local.").expect("a name");
    let Answer::NameError(soa) = answer(&zone(), &name, RecordType::A) else {
        panic!("exists")
    };
    assert_eq!(soa.name.to_ascii(), "cluster.local.");
    assert!(matches!(soa.data, RData::SOA(_)));
}

#[test]
fn what_is_removed_answers_no_more() {
    let mut zone = zone();
    zone.remove_service("default", "web");
    assert_eq!(
        ask(&zone, "web.default.svc.cluster.local.", RecordType::A),
        "NXDOMAIN"
    );
    assert_eq!(
        ask(&zone, "20.0.96.10.in-addr.arpa.", RecordType::PTR),
        "ELSEWHERE"
    );
    zone.remove_slice("default", "db-x");
    assert_eq!(
        ask(&zone, "db.default.svc.cluster.local.", RecordType::A),
        "NXDOMAIN"
    );
}
