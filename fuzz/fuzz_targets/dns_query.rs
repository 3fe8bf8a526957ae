//! Any datagram to the cluster DNS is answered with something short about the same question, or not at all.
#![no_main]

use coracle_dns::{Answers, Zone};
use libfuzzer_sys::fuzz_target;
use parking_lot::RwLock;
use serde_json::{Value, from_value, json};
use std::sync::{Arc, LazyLock};

static ANSWERS: LazyLock<Answers> = LazyLock::new(|| {
    let mut zone = Zone::new("cluster.local").expect("a domain");
    zone.upsert_namespace("ns");
    let service = |name: &str, spec: Value| {
        from_value(json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec})).expect("a Service")
    };
    zone.upsert_service(&service(
        "web",
        json!({"clusterIP": "10.96.0.1", "ports": [{"name": "http", "port": 80}]}),
    ));
    zone.upsert_service(&service("db", json!({"clusterIP": "None"})));
    let far = json!({"type": "ExternalName", "externalName": "web.ns.svc.cluster.local"});
    zone.upsert_service(&service("far", far));
    let endpoints: Vec<Value> = (0..60)
        .map(|n| json!({"addresses": [format!("10.244.1.{n}")], "hostname": format!("db-{n}")}))
        .collect();
    let slice = json!({
        "metadata": {"namespace": "ns", "name": "db-x", "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4", "ports": [{"name": "sql", "port": 5432}], "endpoints": endpoints,
    });
    zone.upsert_slice(&from_value(slice).expect("a slice"));
    zone.set_synced();
    Answers::of(Arc::new(RwLock::new(zone)))
});

fuzz_target!(|message: &[u8]| {
    if let Some(answer) = ANSWERS.answer(message) {
        assert_eq!(answer[..2], message[..2], "the identifier");
        assert!(answer.len() <= 1232, "{} bytes", answer.len());
    }
});
