//! Another order of the addresses in an answer, and as much of it as fits.

use std::net::IpAddr;

use crate::wire::{HEADER, MAX_NAME, RecordAt, flag, record_at, rtype, skip_name, u16_at};

/// An address of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// Whose: the name in wire form and lower case.
    pub(crate) owner: Vec<u8>,
    /// The address.
    pub(crate) ip: IpAddr,
}

/// Puts the addresses of an answer, and those that come in addition, in the order that `order` gives for those that stand
/// together: their places. What is no message, or could be another one with its records in another order, stays as it is.
pub(crate) fn arrange(answer: &mut [u8], mut order: impl FnMut(&[Address]) -> Vec<usize>) {
    for run in runs(answer).unwrap_or_default() {
        let Some(addresses) = run.iter().map(|record| address(answer, record)).collect::<Option<Vec<_>>>()
        else {
            continue;
        };
        let order = order(&addresses);
        if let Some(bytes) = rearranged(answer, &run, &order) {
            let start = run[0].start;
            answer[start..start + bytes.len()].copy_from_slice(&bytes);
        }
    }
}

/// The address records that stand together, more than one of them, in the answer and additional sections.
fn runs(answer: &[u8]) -> Option<Vec<Vec<RecordAt>>> {
    let mut at = skip_name(answer, HEADER)? + 4;
    let mut runs: Vec<Vec<RecordAt>> = Vec::new();
    for (count_at, is_told) in [(6, true), (8, false), (10, true)] {
        let mut run = Vec::new();
        for _ in 0..u16_at(answer, count_at)? {
            let record = record_at(answer, at)?;
            at = record.end;
            if is_told && matches!(record.rtype, rtype::A | rtype::AAAA) {
                run.push(record);
            } else {
                runs.push(std::mem::take(&mut run));
            }
        }
        runs.push(run);
    }
    runs.retain(|run| run.len() > 1);
    Some(runs)
}

fn data<'m>(answer: &'m [u8], record: &RecordAt) -> &'m [u8] {
    &answer[record.ttl_at + 6..record.end]
}

fn address(answer: &[u8], record: &RecordAt) -> Option<Address> {
    let data = data(answer, record);
    let v4 = <[u8; 4]>::try_from(data).map(IpAddr::from);
    let ip = v4.or_else(|_| <[u8; 16]>::try_from(data).map(IpAddr::from)).ok()?;
    Some(Address { owner: name_at(answer, record.start)?, ip })
}

/// A name in wire form and lower case, its pointers followed.
fn name_at(message: &[u8], mut at: usize) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    loop {
        let length = *message.get(at)?;
        if length & 0xc0 == 0xc0 {
            let to = usize::from(u16_at(message, at)? & 0x3fff);
            // Only backwards, so that it ends.
            at = (to < at).then_some(to)?;
            continue;
        }
        let label = message.get(at..=at + usize::from(length))?;
        name.extend(label.iter().map(u8::to_ascii_lowercase));
        if name.len() > MAX_NAME {
            return None;
        }
        if length == 0 {
            return Some(name);
        }
        at += label.len();
    }
}

/// The bytes of a run in another order. Whole records change places where their owners are pointers, to which nothing else
/// points; only their data where they have one owner and are of one type.
fn rearranged(answer: &[u8], run: &[RecordAt], order: &[usize]) -> Option<Vec<u8>> {
    let owner = |record: &RecordAt| &answer[record.start..record.ttl_at - 4];
    let is_pointer = |record: &RecordAt| owner(record).len() == 2 && owner(record)[0] & 0xc0 == 0xc0;
    let record = |place: &usize| run.get(*place);
    let mut bytes = Vec::new();
    if run.iter().all(is_pointer) {
        for record in order.iter().map(record) {
            let record = record?;
            bytes.extend(&answer[record.start..record.end]);
        }
    } else if run.iter().all(|one| owner(one) == owner(&run[0]) && one.rtype == run[0].rtype) {
        for (place, from) in run.iter().zip(order.iter().map(record)) {
            bytes.extend(&answer[place.start..place.ttl_at + 6]);
            bytes.extend(data(answer, from?));
        }
    }
    let length = run.last()?.end - run[0].start;
    (bytes.len() == length).then_some(bytes)
}

/// Cuts an answer to at most `limit` bytes: whole records from its end, but for its OPT record. Marks it as cut where one of
/// the answers or of the authority is missing.
pub(crate) fn cut(answer: &mut Vec<u8>, limit: usize) {
    if answer.len() > limit && try_cut(answer, limit).is_none() {
        // Nothing that anybody here has written.
        answer.truncate(HEADER);
    }
}

fn try_cut(answer: &mut Vec<u8>, limit: usize) -> Option<()> {
    let mut at = skip_name(answer, HEADER)? + 4;
    let mut records = Vec::new();
    for section in [6, 8, 10] {
        for _ in 0..u16_at(answer, section)? {
            let record = record_at(answer, at)?;
            at = record.end;
            records.push((section, record));
        }
    }
    let opt = records.pop_if(|(_, record)| record.rtype == rtype::OPT);
    let opt = opt.map(|(_, record)| answer[record.start..record.end].to_vec()).unwrap_or_default();
    let mut counts = [0_u16; 3];
    let mut end = skip_name(answer, HEADER)? + 4;
    (end + opt.len() <= limit).then_some(())?;
    let mut is_cut = false;
    for (section, record) in records {
        if record.end + opt.len() > limit {
            is_cut = section < 10;
            break;
        }
        counts[(section - 6) / 2] += 1;
        end = record.end;
    }
    counts[2] += u16::from(!opt.is_empty());
    answer.truncate(end);
    answer.extend(opt);
    for (count, at) in counts.into_iter().zip([6, 8, 10]) {
        answer[at..at + 2].copy_from_slice(&count.to_be_bytes());
    }
    let flags = u16_at(answer, 2)? | if is_cut { flag::TC } else { 0 };
    answer[2..4].copy_from_slice(&flags.to_be_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{Edns, Message, Query},
        rr::{
            Name, RData, Record, RecordType,
            rdata::{CNAME, SRV},
        },
    };
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn record(owner: &str, address: &str) -> Record {
        let data = match address.parse().unwrap() {
            IpAddr::V4(v4) => RData::A(v4.into()),
            IpAddr::V6(v6) => RData::AAAA(v6.into()),
        };
        Record::from_rdata(name(owner), 30, data)
    }

    fn told(records: &[Record]) -> Vec<String> {
        records.iter().map(|record| format!("{} {}", record.name, record.data)).collect()
    }

    fn reversed(addresses: &[Address]) -> Vec<usize> {
        (0..addresses.len()).rev().collect()
    }

    fn aliased() -> Message {
        let mut message = Message::query();
        message.add_query(Query::query(name("A.test."), RecordType::A));
        message.add_answer(Record::from_rdata(name("A.test."), 30, RData::CNAME(CNAME(name("b.test.")))));
        for n in 1..=3 {
            message.add_answer(record("b.test.", &format!("192.0.2.{n}")));
        }
        message
    }

    #[test]
    fn addresses_change_places_and_aliases_do_not() {
        let mut bytes = aliased().to_vec().unwrap();
        let mut seen = Vec::new();
        arrange(&mut bytes, |addresses| {
            seen.extend(addresses.iter().map(|address| address.owner.clone()));
            reversed(addresses)
        });
        assert_eq!(seen, vec![b"\x01b\x04test\0".to_vec(); 3]);
        let answers = told(&Message::from_vec(&bytes).unwrap().answers);
        assert_eq!(
            answers,
            ["A.test. b.test.", "b.test. 192.0.2.3", "b.test. 192.0.2.2", "b.test. 192.0.2.1"]
        );
    }

    #[test]
    fn what_comes_in_addition_changes_places_with_its_owner() {
        let mut message = Message::query();
        message.add_query(Query::query(name("_s._tcp.test."), RecordType::SRV));
        for host in ["one.test.", "two.test."] {
            let data = RData::SRV(SRV::new(0, 1, 80, name(host)));
            message.add_answer(Record::from_rdata(name("_s._tcp.test."), 30, data));
        }
        message.add_additional(record("one.test.", "192.0.2.1"));
        message.add_additional(record("one.test.", "2001:db8::1"));
        message.add_additional(record("two.test.", "192.0.2.2"));
        message.edns = Some(Edns::new());
        let mut bytes = message.to_vec().unwrap();
        arrange(&mut bytes, reversed);
        let after = Message::from_vec(&bytes).unwrap();
        // Whether names are pointers is the writer's affair; the records are the same.
        let mut all = told(&after.additionals);
        if all[0] != "one.test. 192.0.2.1" {
            assert_eq!(all, ["two.test. 192.0.2.2", "one.test. 2001:db8::1", "one.test. 192.0.2.1"]);
        }
        all.sort();
        assert_eq!(all, ["one.test. 192.0.2.1", "one.test. 2001:db8::1", "two.test. 192.0.2.2"]);
        assert!(after.edns.is_some());
    }

    #[test]
    fn what_is_too_long_is_cut_at_a_record() {
        let mut message = aliased();
        message.edns = Some(Edns::new());
        let whole = message.to_vec().unwrap();
        for limit in [whole.len(), whole.len() - 1, whole.len() - 20, 60, 40] {
            let mut bytes = whole.clone();
            cut(&mut bytes, limit);
            let after = Message::from_vec(&bytes).unwrap();
            assert!(bytes.len() <= limit, "{limit}");
            assert!(after.edns.is_some());
            assert_eq!(after.metadata.truncation, after.answers.len() < 4, "{limit}");
            assert_eq!(after.answers, message.answers[..after.answers.len()]);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut answer in proptest::collection::vec(any::<u8>(), 0..200), limit in 12_usize..100) {
            arrange(&mut answer, reversed);
            cut(&mut answer, limit);
            prop_assert!(answer.len() <= limit.max(HEADER));
        }
    }
}
