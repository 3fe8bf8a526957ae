//! A look at the packet rules in force, without owning them and without changing anything.

use super::kernel_tables::read_table;
use super::rules::TABLE;
use coracle_dataplane::State;
use coracle_kernel::net::Result;
use coracle_kernel::net::nftables::{Family, Nftables};

/// What the kernel's tables hold in the network namespace of the calling thread, whichever process keeps them. None if
/// there are no tables, or none that this version can read.
pub fn look() -> Result<Option<State>> {
    let mut nft = Nftables::open()?;
    let mut found = None;
    for family in [Family::Ip, Family::Ip6] {
        if nft.table(family, TABLE)?.is_none() {
            continue;
        }
        let Some((_, state)) = read_table(&mut nft, family)? else {
            return Ok(None);
        };
        found.get_or_insert_with(State::new).extend(state);
    }
    Ok(found)
}
