//! Which endpoint sits in which slot: changes touch as few slots as they can.

use crate::frontend::{Commit, Draft, Frontend, Key, LOCAL_SLOTS, Target, Value};
use ipnet::{IpNet, Ipv4Net};
use std::collections::{BTreeMap, BTreeSet};

/// Puts a list into the slots that begin at `first`. An endpoint that has a slot keeps it; the others take the place
/// of those that went, then the slots behind. An endpoint has as many slots as it is in the list.
pub(crate) fn change_slots(
    draft: &mut Draft,
    frontend: Frontend,
    first: u16,
    list: &[Target],
    ids: &BTreeMap<Target, u32>,
    commit: &mut Commit,
) {
    let last = first + (LOCAL_SLOTS - 1);
    let old: BTreeMap<u16, Target> = draft
        .range(Key::Slot(frontend, first), Key::Slot(frontend, last))
        .filter_map(|entry| match entry {
            (Key::Slot(_, slot), Value::Target(target)) => Some((slot, target)),
            _ => None,
        })
        .collect();
    let slots = first..first + u16::try_from(list.len()).expect("lists are cut to the number of slots");
    let mut waiting: BTreeMap<Target, usize> = BTreeMap::new();
    for target in list {
        *waiting.entry(*target).or_default() += 1;
    }
    let mut take = |target: &Target| match waiting.get_mut(target) {
        Some(left @ 1..) => {
            *left -= 1;
            true
        }
        _ => false,
    };
    let kept: BTreeSet<u16> = slots
        .clone()
        .filter(|slot| old.get(slot).is_some_and(&mut take))
        .collect();
    let mut waiting = list.iter().copied().filter(|target| take(target));
    for slot in slots.clone() {
        let target = if kept.contains(&slot) {
            old.get(&slot).copied()
        } else {
            waiting.next()
        };
        draft.set(Key::Slot(frontend, slot), target.map(Value::Target), commit);
        let id = target.and_then(|target| ids.get(&target)).copied();
        draft.set(Key::SlotId(frontend, slot), id.map(Value::Id), commit);
    }
    let behind = |from: Key, to: Key, draft: &Draft| -> Vec<Key> {
        let keys = draft.range(from, to).map(|(key, _)| key);
        keys.collect()
    };
    let end = slots.end;
    for key in behind(Key::Slot(frontend, end), Key::Slot(frontend, last), draft)
        .into_iter()
        .chain(behind(
            Key::SlotId(frontend, end),
            Key::SlotId(frontend, last),
            draft,
        ))
    {
        draft.set(key, None, commit);
    }
}

/// Makes a restricted frontend let these clients through.
pub(crate) fn change_sources(draft: &mut Draft, frontend: Frontend, sources: &[IpNet], commit: &mut Commit) {
    let first: IpNet = IpNet::V4(Ipv4Net::default());
    let old: Vec<IpNet> = draft
        .range_from(Key::Source(frontend, first))
        .map_while(|key| match key {
            Key::Source(of, range) if of == frontend => Some(range),
            _ => None,
        })
        .collect();
    for range in old.iter().filter(|range| !sources.contains(range)) {
        draft.set(Key::Source(frontend, *range), None, commit);
    }
    for range in sources {
        draft.set(Key::Source(frontend, *range), Some(Value::Present), commit);
    }
}

/// Makes the endpoints of a sticky frontend known by their ids.
pub(crate) fn change_ids(
    draft: &mut Draft,
    frontend: Frontend,
    ids: &BTreeMap<Target, u32>,
    commit: &mut Commit,
) {
    let by_id: BTreeMap<u32, Target> = ids.iter().map(|(target, id)| (*id, *target)).collect();
    let old: Vec<Key> = draft
        .range(Key::Endpoint(frontend, 0), Key::Endpoint(frontend, u32::MAX))
        .map(|(key, _)| key)
        .collect();
    for key in old {
        if let Key::Endpoint(_, id) = key
            && !by_id.contains_key(&id)
        {
            draft.set(key, None, commit);
        }
    }
    for (id, target) in by_id {
        draft.set(Key::Endpoint(frontend, id), Some(Value::Target(target)), commit);
    }
}
