//! What 10,000 Services with ten endpoints each cost the data plane: its start, one change, its memory. The real
//! data plane on the real kernel, in a network namespace of its own.

use crate::services::{self, ENDPOINTS, MANY, settle};
use crate::{figure, footprint, machine};
use anyhow::{Context, Result, ensure};
use coracle_dns::Zone;
use coracle_node::service_proxy::{Event, ServiceProxy};
use std::process::Command;
use std::time::Instant;

const LOADS: usize = 7;
const CHANGES: u32 = 2_000;

/// Prints `full_load_ms`, `endpoint_change_us`, `commit_us` and `dataplane_rss_mib`.
pub fn measure() -> Result<()> {
    machine::run(|_| {
        let events = services::events(MANY)?;
        let mut loads = Vec::new();
        for _ in 1..LOADS {
            let (proxy, took) = load(events.clone())?;
            loads.push(took);
            proxy.delete()?;
        }
        let (proxy, took) = load(events)?;
        loads.push(took);
        figure::print("full_load_ms", "ms", &loads);
        changes(&proxy)?;
        Ok(proxy.delete()?)
    })?;
    // Of a process that has never held anything else.
    let own = std::env::current_exe().context("cannot find this program")?;
    let status = Command::new(own).args(["inside", "dataplane-memory"]).status()?;
    ensure!(status.success(), "measuring memory: {status}");
    Ok(())
}

/// A data plane that starts with nothing in the kernel; milliseconds until everything is there.
fn load(events: Vec<Event>) -> Result<(ServiceProxy, f64)> {
    let begin = Instant::now();
    let proxy = ServiceProxy::start(services::config()?)?;
    for event in events {
        proxy.send(event);
    }
    proxy.send(Event::Synced);
    settle(&proxy)?;
    Ok((proxy, begin.elapsed().as_secs_f64() * 1e3))
}

/// One endpoint more, one less, one for another, of a different Service each time: from the event to the kernel, and
/// the kernel's part of it.
fn changes(proxy: &ServiceProxy) -> Result<()> {
    let (mut all, mut commits) = (Vec::new(), Vec::new());
    for turn in 0..CHANGES {
        let number = (turn / 4 * 17) % MANY;
        let mut pods = services::pods_of(number);
        match turn % 4 {
            0 => pods[3] = MANY * ENDPOINTS,
            1 => (),
            2 => drop(pods.pop()),
            _ => (),
        }
        let slice = services::slice(number, &pods)?;
        proxy.send(Event::EndpointSlice(Box::new(slice)));
        settle(proxy)?;
        let timeline = proxy.timeline().of(&services::key(number));
        let change = timeline
            .and_then(|timeline| timeline.last)
            .context("a change left no trace")?;
        let committed = change.committed.context("a change was not committed")?;
        ensure!(change.operations > 0, "change {turn} changed nothing");
        let microseconds = |from: jiff::Timestamp| committed.duration_since(from).as_secs_f64() * 1e6;
        all.push(microseconds(change.seen));
        commits.push(microseconds(change.began));
    }
    figure::print("endpoint_change_us", "us", &all);
    figure::print("commit_us", "us", &commits);
    Ok(())
}

/// The data plane and the zone of the cluster DNS with all Services, and nothing else. Prints `dataplane_rss_mib`.
pub fn memory() -> Result<()> {
    machine::run(|_| {
        let proxy = ServiceProxy::start(services::config()?)?;
        let mut zone = Zone::new("cluster.local")?;
        for number in 0..MANY {
            let service = services::service(number)?;
            zone.upsert_service(&service);
            proxy.send(Event::Service(Box::new(service)));
            let slice = services::slice(number, &services::pods_of(number))?;
            zone.upsert_slice(&slice);
            proxy.send(Event::EndpointSlice(Box::new(slice)));
        }
        zone.set_synced();
        proxy.send(Event::Synced);
        settle(&proxy)?;
        let resident = footprint::resident()?;
        // Both live until here.
        drop(zone);
        figure::print("dataplane_rss_mib", "MiB", &[resident]);
        Ok(proxy.delete()?)
    })
}
