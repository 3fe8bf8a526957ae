//! Firewalls of the machine that drop what it forwards.
//!
//! Docker sets that policy (`iptables -P FORWARD DROP`) wherever it runs, and every packet between pods is a forwarded
//! one. As network plugins do, a rule at the head of such a chain lets the pods' packets pass. It decides for that
//! chain only: the cluster's own rules are asked as well. Source: docs.docker.com, "Packet filtering and firewalls".
//!
//! Docker may start, or be restarted, later than the cluster. The kernel tells of its devices, and at each such change
//! the chains are looked at again. To be told of changes of rules would cost every change of a Service some time.

use super::LINK_PREFIX;
use coracle_kernel::net::link_events::LinkEvents;
use coracle_kernel::net::nftables::{
    BaseChain, Batch, Comparison, Expression, Family, Hook, Nftables, PayloadBase, Verdict,
};
use coracle_kernel::net::{Error, Result};
use ipnet::IpNet;
use std::io::{PipeReader, PipeWriter};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::thread::JoinHandle;

/// The remark on the rules; what bears it is the cluster's.
const REMARK: &str = "coracle: packets of pods";

/// Lets the pods' packets pass for as long as it lives. The rules stay when it is dropped, as the pods do:
/// [`withdraw`] takes them away.
#[derive(Debug)]
pub struct Forwarding {
    /// Closed to end the thread.
    end: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

/// The rules of others cannot be followed.
#[derive(Debug, thiserror::Error)]
#[error("follow the firewalls of others")]
pub enum StartError {
    /// The kernel does not tell of them.
    Kernel(#[from] Error),
    /// There is no thread for it.
    Thread(#[from] std::io::Error),
}

impl Forwarding {
    /// Lets the packets of these ranges pass, in the network namespace of the calling thread. Rules that an earlier
    /// daemon has made in a family without ranges go.
    pub fn start(pods: Vec<IpNet>) -> std::result::Result<Self, StartError> {
        let mut kernel = Nftables::open()?;
        // Before the first look: what changes meanwhile is told.
        let devices = LinkEvents::open()?;
        admit(&mut kernel, &pods);
        for family in [Family::Ip, Family::Ip6] {
            if !pods.iter().any(|range| is_in(family, range)) {
                withdraw_in(&mut kernel, family)?;
            }
        }
        let (ended, end) = std::io::pipe()?;
        let follow = move || {
            if let Err(error) = follow(kernel, devices, &pods, &ended) {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "firewalls of others are looked at no more"
                );
            }
        };
        let thread = std::thread::Builder::new()
            .name("forwarding".into())
            .spawn(follow)?;
        Ok(Self {
            end: Some(end),
            thread: Some(thread),
        })
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            // A panic was reported where it happened.
            let _ = thread.join();
        }
    }
}

fn follow(mut kernel: Nftables, mut devices: LinkEvents, pods: &[IpNet], ended: &PipeReader) -> Result<()> {
    while !devices.wait(ended.as_fd())? {
        if devices.read(|name| !name.starts_with(LINK_PREFIX))? {
            admit(&mut kernel, pods);
        }
    }
    Ok(())
}

/// Puts the rules at the head of each chain that drops and has none. Others may change the chains at the same time,
/// so a failure is no reason to give up.
fn admit(kernel: &mut Nftables, pods: &[IpNet]) {
    for family in [Family::Ip, Family::Ip6] {
        let ranges: Vec<&IpNet> = pods.iter().filter(|range| is_in(family, range)).collect();
        if ranges.is_empty() {
            continue;
        }
        let done = forward_chains(kernel, family).and_then(|chains| {
            for chain in chains.iter().filter(|chain| chain.drops) {
                admit_in(kernel, family, chain, &ranges)?;
            }
            Ok(())
        });
        if let Err(error) = done {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot let the pods' packets pass a firewall"
            );
        }
    }
}

fn admit_in(kernel: &mut Nftables, family: Family, chain: &BaseChain, ranges: &[&IpNet]) -> Result<()> {
    if !ours(kernel, family, chain)?.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::new();
    for range in ranges {
        for offset in address_offsets(family) {
            batch.insert_rule(
                family,
                &chain.table,
                &chain.name,
                &accept(range, offset, &mask(range), &network(range)),
                REMARK,
            );
        }
    }
    kernel.commit(batch)?;
    tracing::info!(
        table = chain.table,
        chain = chain.name,
        "the pods' packets pass a firewall that drops what is forwarded"
    );
    Ok(())
}

/// Takes the rules away, whichever process put them there.
pub fn withdraw() -> Result<()> {
    let mut kernel = Nftables::open()?;
    withdraw_in(&mut kernel, Family::Ip)?;
    withdraw_in(&mut kernel, Family::Ip6)
}

fn withdraw_in(kernel: &mut Nftables, family: Family) -> Result<()> {
    for chain in forward_chains(kernel, family)? {
        let rules = ours(kernel, family, &chain)?;
        if rules.is_empty() {
            continue;
        }
        let mut batch = Batch::new();
        for handle in rules {
            batch.delete_rule(family, &chain.table, &chain.name, handle);
        }
        kernel.commit(batch)?;
    }
    Ok(())
}

fn forward_chains(kernel: &mut Nftables, family: Family) -> Result<Vec<BaseChain>> {
    let mut chains = kernel.base_chains(family)?;
    chains.retain(|chain| chain.hook == Hook::Forward as u32);
    Ok(chains)
}

fn ours(kernel: &mut Nftables, family: Family, chain: &BaseChain) -> Result<Vec<u64>> {
    let rules = kernel.rules(family, &chain.table, &chain.name)?;
    let ours = rules
        .into_iter()
        .filter(|rule| rule.comment.as_deref() == Some(REMARK));
    Ok(ours.map(|rule| rule.handle).collect())
}

/// `saddr RANGE accept` or `daddr RANGE accept`, in the form that `iptables` can list.
fn accept<'a>(range: &IpNet, offset: u32, mask: &'a [u8], network: &'a [u8]) -> Vec<Expression<'a>> {
    let mut rule = vec![Expression::Payload {
        base: PayloadBase::Network,
        offset,
        length: u32::from(range.max_prefix_len() / 8),
        to: 0,
    }];
    if range.prefix_len() < range.max_prefix_len() {
        rule.push(Expression::Bitwise {
            register: 0,
            mask,
            xor: &[0; 16][..mask.len()],
        });
    }
    rule.push(Expression::Compare(0, Comparison::Equal, network));
    rule.push(Expression::Verdict(Verdict::Accept));
    rule
}

/// Where a packet's source and destination are.
fn address_offsets(family: Family) -> [u32; 2] {
    match family {
        Family::Ip => [12, 16],
        Family::Ip6 => [8, 24],
    }
}

fn is_in(family: Family, range: &IpNet) -> bool {
    match family {
        Family::Ip => range.addr().is_ipv4(),
        Family::Ip6 => range.addr().is_ipv6(),
    }
}

fn mask(range: &IpNet) -> Vec<u8> {
    octets(range.netmask())
}

fn network(range: &IpNet) -> Vec<u8> {
    octets(range.network())
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
