//! The tables in the kernel: made or adopted at start, changed by commits, never flushed.
//!
//! They belong to this process (table flag `owner`), so that nobody else's tools can change them, and stay when it
//! ends (`persist`), so that a restart, or the death of the daemon, costs no packet: the next process adopts the
//! tables, reads them, and writes only what is different. Before Linux 6.9 there is no `persist`; then they have no
//! owner either.

use super::elements::{self, set_of, sets};
use super::rules::{CLASSES, INSIDE_CLASSES, Rules, TABLE, is_by_iptables};
use coracle_dataplane::{Class, Commit, Config, Key, Operation, Pick, Source, State, Value};
use coracle_kernel::net::Result;
use coracle_kernel::net::nftables::{
    self, Batch, Element, ElementData, Family, Nftables, OWNER, PERSIST, Verdict,
};
use std::collections::{BTreeMap, BTreeSet};

/// Numbers of classes begin here; a packet's priority, which holds them, is never like this otherwise.
const FIRST_CLASS: u32 = 0xc0de_0001;
/// Elements that one message of a transaction adds.
const ELEMENTS_AT_ONCE: usize = 512;

/// The tables of all address families.
#[derive(Debug)]
pub(super) struct KernelTables {
    nft: Nftables,
    tables: Vec<Table>,
    /// Families that this daemon does without, where an earlier one had Services.
    unused: Vec<Family>,
    /// Families whose Services the process before had in the chains of iptables.
    by_iptables: Vec<Family>,
}

/// The table of one address family.
#[derive(Debug)]
struct Table {
    rules: Rules,
    comment: String,
    /// Numbers of the classes that have a chain.
    classes: BTreeMap<Class, u32>,
    /// Classes of one frontend only that were not in use at the last sweep.
    unused: BTreeSet<Class>,
    /// An older daemon's table, to be replaced by the first commit.
    outdated: bool,
    flags: u32,
}

impl KernelTables {
    /// Makes the tables where there are none and adopts those whose owner is gone. Fails with `EPERM` while another
    /// process owns one. The tables of another version stay in force until the first commit replaces them.
    pub fn open(config: &Config) -> Result<Self> {
        let mut nft = Nftables::open()?;
        let mut tables = Vec::new();
        let mut by_iptables = Vec::new();
        for ipv6 in config.families() {
            let family = if ipv6 { Family::Ip6 } else { Family::Ip };
            let rules = Rules::new(family, config);
            let mut table = Table {
                comment: rules.comment(),
                rules,
                classes: BTreeMap::new(),
                unused: BTreeSet::new(),
                outdated: false,
                flags: OWNER | PERSIST,
            };
            let mut replace = false;
            // What was looked at must be what is taken over: if anybody changes anything in between, look again.
            loop {
                let generation = nft.generation()?;
                let existing = nft.table(family, TABLE)?;
                let mut batch = Batch::guarded(generation);
                match &existing {
                    None => table.write(&mut batch),
                    Some(_) if replace => {
                        batch.delete_table(family, TABLE);
                        table.write(&mut batch);
                    }
                    Some(_) => batch.add_table(family, TABLE, table.flags, &table.comment),
                }
                match nft.commit(batch) {
                    Err(error) if error.came_too_late() => continue,
                    Err(error) if error.is_not_supported() && table.flags != 0 => {
                        table.flags = 0;
                        continue;
                    }
                    // Somebody made it with flags that cannot become ours.
                    Err(error) if error.is_not_supported() && existing.is_some() && !replace => {
                        table.flags = OWNER | PERSIST;
                        replace = true;
                        continue;
                    }
                    result => result?,
                }
                if says_by_iptables(existing.as_ref()) {
                    by_iptables.push(family);
                }
                table.outdated = !replace
                    && existing.is_some_and(|existing| existing.comment.as_ref() != Some(&table.comment));
                break;
            }
            tables.push(table);
        }
        let mut unused = Vec::new();
        for family in [Family::Ip, Family::Ip6] {
            let is_used = tables.iter().any(|table| table.rules.family == family);
            if !is_used && let Some(existing) = nft.table(family, TABLE)? {
                unused.push(family);
                if says_by_iptables(Some(&existing)) {
                    by_iptables.push(family);
                }
            }
        }
        Ok(Self {
            nft,
            tables,
            unused,
            by_iptables,
        })
    }

    /// Whether the process before had Services in the chains of iptables, in the families of this one.
    pub fn followed_iptables(&self) -> bool {
        let mut families = self.by_iptables.iter();
        families.any(|family| !self.unused.contains(family))
    }

    /// The same for the other families, of which nothing is to be left: true for IPv6.
    pub fn left_in_iptables(&self) -> impl Iterator<Item = bool> {
        let families = self.by_iptables.iter();
        let left = families.filter(|family| self.unused.contains(family));
        left.map(|family| *family == Family::Ip6)
    }

    /// Deletes the tables of families that this daemon does without.
    pub fn delete_unused(&mut self) -> Result<()> {
        for family in std::mem::take(&mut self.unused) {
            let mut batch = Batch::new();
            batch.delete_table(family, TABLE);
            self.nft.commit(batch)?;
        }
        Ok(())
    }

    /// Everything in the tables. A table that holds what this version cannot read is outdated too.
    pub fn dump(&mut self) -> Result<State> {
        let mut state = State::new();
        for table in &mut self.tables {
            if table.outdated {
                continue;
            }
            match table.dump(&mut self.nft)? {
                Some(elements) => state.extend(elements),
                None => table.outdated = true,
            }
        }
        Ok(state)
    }

    /// Applies a commit: all of it at once, or nothing.
    pub fn commit(&mut self, commit: &Commit) -> Result<()> {
        let mut batch = Batch::new();
        for table in &mut self.tables {
            table.write_commit(commit, &mut batch);
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.nft.commit(batch)?;
        for table in &mut self.tables {
            table.outdated = false;
        }
        Ok(())
    }

    /// Deletes the chains of classes that belong to one frontend and are used no more: all others are shared, and few.
    /// To be called when a grace period has passed. A class goes at the second call that finds it unused: no packet is
    /// on its way from a frontend to its chain then.
    pub fn sweep_chains(&mut self, state: &State) -> Result<()> {
        let mut batch = Batch::new();
        let mut gone = Vec::new();
        for (index, table) in self.tables.iter_mut().enumerate() {
            let of_one =
                |class: &Class| matches!(class, Class::Pick(pick) if pick.balancing.is_of_one_frontend());
            let mut unused: BTreeSet<Class> = table.classes.keys().copied().filter(of_one).collect();
            if unused.is_empty() {
                continue;
            }
            for value in state.values() {
                if let Value::Class(class) = value {
                    unused.remove(class);
                }
            }
            for class in unused.intersection(&table.unused) {
                table.delete_class(*class, &mut batch);
                gone.push((index, *class));
            }
            table.unused = unused;
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.nft.commit(batch)?;
        for (index, class) in gone {
            let table = &mut self.tables[index];
            table.classes.remove(&class);
            table.unused.remove(&class);
        }
        Ok(())
    }

    /// Deletes the tables: connections to Services stop working.
    pub fn delete(mut self) -> Result<()> {
        let mut batch = Batch::new();
        for table in &self.tables {
            batch.delete_table(table.rules.family, TABLE);
        }
        self.nft.commit(batch)
    }
}

impl Table {
    fn is_ipv6(&self) -> bool {
        self.rules.family == Family::Ip6
    }

    /// Everything but the elements that Services bring.
    fn write(&mut self, batch: &mut Batch) {
        let family = self.rules.family;
        batch.add_table(family, TABLE, self.flags, &self.comment);
        self.rules.write(batch);
        self.classes.clear();
        for class in [Class::Reject, Class::Drop] {
            self.add_class(class, batch);
        }
    }

    fn add_class(&mut self, class: Class, batch: &mut Batch) {
        if self.classes.contains_key(&class) {
            return;
        }
        let number = self.classes.values().max().map_or(FIRST_CLASS, |last| last + 1);
        self.classes.insert(class, number);
        self.rules.write_class(class, batch);
        let element = Element {
            key: number.to_ne_bytes().to_vec(),
            key_end: None,
            data: Some(ElementData::Verdict(Verdict::Goto(class.to_string()))),
        };
        let elements = [element];
        batch.add_elements(self.rules.family, TABLE, CLASSES, &elements);
        if is_inside(class) {
            batch.add_elements(self.rules.family, TABLE, INSIDE_CLASSES, &elements);
        }
    }

    fn delete_class(&self, class: Class, batch: &mut Batch) {
        let Some(number) = self.classes.get(&class) else {
            return;
        };
        let elements = [Element {
            key: number.to_ne_bytes().to_vec(),
            key_end: None,
            data: None,
        }];
        let family = self.rules.family;
        batch.delete_elements(family, TABLE, CLASSES, &elements);
        if is_inside(class) {
            batch.delete_elements(family, TABLE, INSIDE_CLASSES, &elements);
        }
        batch.delete_chain(family, TABLE, &class.to_string());
    }

    fn write_commit(&mut self, commit: &Commit, batch: &mut Batch) {
        if self.outdated {
            batch.delete_table(self.rules.family, TABLE);
            self.write(batch);
        }
        let mut delete: BTreeMap<&str, Vec<Element>> = BTreeMap::new();
        let mut add: BTreeMap<&str, Vec<(Key, Value)>> = BTreeMap::new();
        let mut classes = BTreeSet::new();
        for operation in &commit.operations {
            let key = operation.key();
            if key.address().is_ipv6() != self.is_ipv6() {
                continue;
            }
            let (old, new) = match operation {
                Operation::Add(_, new) => (false, Some(*new)),
                Operation::Replace { to, .. } => (true, Some(*to)),
                Operation::Delete(..) => (true, None),
            };
            if old {
                delete.entry(set_of(&key)).or_default().push(Element {
                    key: elements::write_key(&key),
                    key_end: elements::write_key_end(&key),
                    data: None,
                });
            }
            if let Some(new) = new {
                add.entry(set_of(&key)).or_default().push((key, new));
                if let Value::Class(class) = new {
                    classes.insert(class);
                }
            }
        }
        for class in classes {
            self.unused.remove(&class);
            self.add_class(class, batch);
        }
        let family = self.rules.family;
        for (set, elements) in delete {
            batch.delete_elements(family, TABLE, set, &elements);
        }
        for (set, entries) in add {
            let number = |class| self.classes.get(&class).copied().unwrap_or_default();
            // Piece by piece: a start with many Services would need as much memory again for a moment, and keep it.
            for entries in entries.chunks(ELEMENTS_AT_ONCE) {
                let elements: Vec<Element> = entries
                    .iter()
                    .map(|(key, value)| elements::write(key, value, number))
                    .collect();
                batch.add_elements(family, TABLE, set, &elements);
            }
        }
    }

    /// The elements; none if one cannot be read.
    fn dump(&mut self, nft: &mut Nftables) -> Result<Option<State>> {
        let Some((classes, state)) = read_table(nft, self.rules.family)? else {
            return Ok(None);
        };
        self.classes = classes;
        Ok(Some(state))
    }
}

/// Numbers of the classes that have a chain, and the elements; none if one of them cannot be read.
pub(super) fn read_table(
    nft: &mut Nftables,
    family: Family,
) -> Result<Option<(BTreeMap<Class, u32>, State)>> {
    let mut by_number = BTreeMap::new();
    for element in nft.elements(family, TABLE, CLASSES)? {
        let Some((number, class)) = read_class(&element) else {
            return Ok(None);
        };
        by_number.insert(number, class);
    }
    let mut state = State::new();
    for set in sets() {
        for element in nft.elements(family, TABLE, set)? {
            let class = |number| by_number.get(&number).copied();
            let Some((key, value)) = elements::read(set, &element, family == Family::Ip6, class) else {
                return Ok(None);
            };
            state.insert(key, value);
        }
    }
    let classes = by_number
        .into_iter()
        .map(|(number, class)| (class, number))
        .collect();
    Ok(Some((classes, state)))
}

/// Whether packets come to the class from [`Key::Inside`], too.
fn is_inside(class: Class) -> bool {
    matches!(
        class,
        Class::Pick(Pick {
            source: Source::RewriteOutside,
            ..
        })
    )
}

fn says_by_iptables(existing: Option<&nftables::Table>) -> bool {
    existing
        .and_then(|existing| existing.comment.as_deref())
        .is_some_and(is_by_iptables)
}

fn read_class(element: &Element) -> Option<(u32, Class)> {
    let number = u32::from_ne_bytes(element.key.as_slice().try_into().ok()?);
    match &element.data {
        Some(ElementData::Verdict(Verdict::Goto(chain))) => Some((number, chain.parse().ok()?)),
        _ => None,
    }
}
