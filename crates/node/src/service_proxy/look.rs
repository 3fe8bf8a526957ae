//! A look at the packet rules in force, without owning them and without changing anything.

use super::kernel_tables::read_table;
use super::rules::{TABLE, is_by_iptables};
use coracle_dataplane::State;
use coracle_kernel::net::Result;
use coracle_kernel::net::nftables::{Family, Nftables};

/// What is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Looked {
    /// The kernel's tables hold this.
    Tables(State),
    /// The Services are in the chains of iptables, and the kernel's tables hold the rest: NetworkPolicies, host ports.
    ByIptables(State),
    /// There are no tables, or none that this version can read.
    Nothing,
}

/// Looks in the network namespace of the calling thread, whichever process keeps the rules.
pub fn look() -> Result<Looked> {
    let mut nft = Nftables::open()?;
    loop {
        let before = nft.generation()?;
        let looked = look_once(&mut nft)?;
        // What was changed while it was read may look like the tables of another version.
        if looked != Looked::Nothing || nft.generation()? == before {
            return Ok(looked);
        }
    }
}

fn look_once(nft: &mut Nftables) -> Result<Looked> {
    let mut found = None;
    let mut by_iptables = false;
    for family in [Family::Ip, Family::Ip6] {
        let Some(table) = nft.table(family, TABLE)? else {
            continue;
        };
        by_iptables |= table.comment.as_deref().is_some_and(is_by_iptables);
        let Some((_, state)) = read_table(nft, family)? else {
            return Ok(Looked::Nothing);
        };
        found.get_or_insert_with(State::new).extend(state);
    }
    Ok(match found {
        Some(state) if by_iptables => Looked::ByIptables(state),
        Some(state) => Looked::Tables(state),
        None => Looked::Nothing,
    })
}
