//! What the proxy does beside its commits, on a thread of its own so that no commit waits for it: waiting until
//! packets on their way have passed, and ending UDP flows whose endpoint is gone. Upstream for the latter:
//! pkg/proxy/conntrack/cleanup.go.

use super::worker::Message;
use coracle_dataplane::{Flows, Frontend, Grace, Protocol, Target};
use coracle_kernel::net::conntrack::{Conntrack, Flow, UDP};
use coracle_kernel::net::rtnetlink::Rtnetlink;
use coracle_kernel::net::{Result, grace_period};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, Sender};

/// Something to do.
#[derive(Debug)]
pub(super) enum Job {
    /// End the stale ones among the flows to these frontends.
    Flows(Vec<Flows>),
    /// Tell the proxy when every packet that is on its way has passed.
    Grace(Grace),
}

/// Works until the proxy hangs up.
pub(super) fn run(
    mut conntrack: Conntrack,
    mut addresses: Rtnetlink,
    jobs: &Receiver<Job>,
    proxy: &Sender<Message>,
) {
    while let Ok(first) = jobs.recv() {
        let mut frontends = BTreeMap::new();
        let mut grace = None;
        for job in std::iter::once(first).chain(jobs.try_iter()) {
            match job {
                Job::Flows(flows) => {
                    frontends.extend(flows.into_iter().map(|flows| (flows.frontend, flows.endpoints)));
                }
                Job::Grace(moment) => grace = Some(moment),
            }
        }
        if !frontends.is_empty() {
            match end_stale_flows(&mut conntrack, &mut addresses, &frontends) {
                Ok(0) => (),
                Ok(ended) => tracing::info!(ended, "ended udp flows to endpoints that are gone"),
                Err(error) => tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "cannot end udp flows to endpoints that are gone"
                ),
            }
        }
        if let Some(grace) = grace {
            if let Err(error) = grace_period::wait_for_packets() {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot wait for packets"
                );
            }
            if proxy.send(Message::GracePassed(grace)).is_err() {
                return;
            }
        }
    }
}

/// Returns how many were ended.
fn end_stale_flows(
    conntrack: &mut Conntrack,
    addresses: &mut Rtnetlink,
    frontends: &BTreeMap<Frontend, BTreeSet<Target>>,
) -> Result<usize> {
    let node: BTreeSet<IpAddr> = addresses.addresses()?.iter().map(|address| address.ip).collect();
    let mut ended = 0;
    for ipv6 in [false, true] {
        if !frontends
            .keys()
            .any(|frontend| frontend.address.is_ipv6() == ipv6)
        {
            continue;
        }
        for flow in conntrack.flows(ipv6, UDP)? {
            if is_stale(&flow, frontends, &node) && conntrack.delete(&flow)? {
                ended += 1;
            }
        }
    }
    Ok(ended)
}

/// A flow is stale if it was sent to what is no endpoint of its frontend any more, or was let through unchanged when
/// there was no endpoint and now there is one.
fn is_stale(flow: &Flow, frontends: &BTreeMap<Frontend, BTreeSet<Target>>, node: &BTreeSet<IpAddr>) -> bool {
    let (address, port) = flow.original.destination;
    let frontend = Frontend {
        address,
        protocol: Protocol::Udp,
        port,
    };
    let node_port = Frontend::node_port(address.is_ipv6(), Protocol::Udp, port);
    let endpoints = frontends
        .get(&frontend)
        .or_else(|| frontends.get(&node_port).filter(|_| node.contains(&address)));
    let Some(endpoints) = endpoints else {
        return false;
    };
    if flow.destination_rewritten {
        let (ip, port) = flow.reply.source;
        !endpoints.contains(&Target::new(ip, port))
    } else {
        !endpoints.is_empty()
    }
}
