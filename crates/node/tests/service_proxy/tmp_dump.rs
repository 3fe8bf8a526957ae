use crate::world::*;
use std::time::Instant;
use coracle_dataplane::*;
use coracle_node::service_proxy::Event;
#[test]
fn bench() {
    on_a_node(|world| {
        let _p = world.pod(5);
        let proxy0 = proxy(vec![]);
        let n: u32 = 10_000;
        let svc = |i: u32| service(&format!("s{i}"), &format!(r#"{{"type":"ClusterIP","clusterIP":"10.{}.{}.{}","ports":[{{"port":80}}]}}"#, 97 + (i >> 16), (i >> 8) & 255, i & 255));
        let sl = |i: u32, pods: &[u8]| slice(&format!("s{i}"), HTTP, pods);
        let ten: Vec<u8> = (10..20).collect();
        drop(proxy0);
        let t = Instant::now();
        let mut events = vec![];
        for i in 1..=n { events.push(svc(i)); events.push(sl(i, &ten)); }
        println!("made events {:?}", t.elapsed());
        let t = Instant::now();
        let p = proxy(events.clone());
        println!("full load {:?}", t.elapsed());
        drop(p);
        let t = Instant::now();
        let p = proxy(events);
        println!("restart {:?}", t.elapsed());
        let mut times = vec![];
        for k in 0..2000u32 {
            let mut pods = ten.clone(); if k % 2 == 0 { pods[3] = 99; }
            let e = sl(77, &pods);
            let t = Instant::now();
            p.send(e);
            settle(&p);
            times.push(t.elapsed());
        }
        times.sort();
        println!("replace p50 {:?} p99 {:?} max {:?}", times[1000], times[1980], times[1999]);
        let mut times = vec![];
        for k in 0..2000u32 {
            let pods = if k % 2 == 0 { &ten[..9] } else { &ten[..] };
            let e = sl(77, pods);
            let t = Instant::now();
            p.send(e);
            settle(&p);
            times.push(t.elapsed());
        }
        times.sort();
        println!("count p50 {:?} p99 {:?} max {:?}", times[1000], times[1980], times[1999]);
        let _ = Event::Synced; let _ = Config::default();
    });
}
