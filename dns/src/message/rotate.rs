//! The order of addresses in others' answers: each of several comes first in turn, as in our own.

use hickory_proto::{
    op::Message,
    rr::{RData, Record, RecordType},
};

use crate::wire::{HEADER, RecordAt, record_at, rtype, skip_name, u16_at};

/// Lets the `turn`th of the addresses of an answer come first, and those before it last; or of the mail servers, where these
/// are what is asked for. It is no longer than `limit` bytes, and stays so.
pub(crate) fn rotate(answer: &mut Vec<u8>, qtype: u16, turn: u32, limit: usize) {
    if qtype == rtype::MX {
        rotate_mail(answer, turn, limit);
    } else {
        rotate_addresses(answer, turn);
    }
}

/// Only data of one length change places, between records of one owner, type and length, so that no name moves.
fn rotate_addresses(answer: &mut [u8], turn: u32) {
    let Some((first, count)) = addresses(answer) else { return };
    let stride = first.end - first.start;
    let size = first.end - data_at(&first);
    let mut swap = |a: usize, b: usize| {
        let at = |n: usize| data_at(&first) + n * stride;
        for byte in 0..size {
            answer.swap(at(a) + byte, at(b) + byte);
        }
    };
    // Turned round as a whole, and then each part once more.
    let mut reverse = |from: usize, to: usize| (0..(to - from) / 2).for_each(|n| swap(from + n, to - 1 - n));
    let middle = turn as usize % count;
    if middle > 0 {
        reverse(0, count);
        reverse(0, count - middle);
        reverse(count - middle, count);
    }
}

/// Names are of any length and may be pointed to, so the answer is written anew; where that is too long, it stays as it is.
fn rotate_mail(answer: &mut Vec<u8>, turn: u32, limit: usize) {
    if turn == 0 {
        return;
    }
    let Ok(mut message) = Message::from_vec(answer) else { return };
    let is_mail = |record: &&mut Record| record.record_type() == RecordType::MX;
    let data: Vec<RData> =
        message.answers.iter_mut().filter(is_mail).map(|record| record.data.clone()).collect();
    let places = message.answers.iter_mut().filter(is_mail);
    let first = turn as usize % data.len().max(1);
    if first == 0 {
        return;
    }
    for (record, data) in places.zip(data[first..].iter().chain(&data[..first])) {
        record.data = data.clone();
    }
    if let Ok(rotated) = message.to_vec()
        && rotated.len() <= limit
    {
        *answer = rotated;
    }
}

fn data_at(record: &RecordAt) -> usize {
    record.ttl_at + 6
}

/// The first of the address records that stand together, and how many there are; none where that is one.
fn addresses(answer: &[u8]) -> Option<(RecordAt, usize)> {
    let mut at = skip_name(answer, HEADER)? + 4;
    let mut first: Option<RecordAt> = None;
    let mut count = 0;
    for _ in 0..u16_at(answer, 6)? {
        let record = record_at(answer, at)?;
        at = record.end;
        let is_address = matches!(record.rtype, rtype::A | rtype::AAAA);
        match &first {
            None if is_address => (first, count) = (Some(record), 1),
            None => {}
            Some(first) if is_same(answer, first, &record) => count += 1,
            Some(_) => break,
        }
    }
    first.filter(|_| count > 1).map(|first| (first, count))
}

fn is_same(answer: &[u8], one: &RecordAt, other: &RecordAt) -> bool {
    let owner = |record: &RecordAt| answer.get(record.start..record.ttl_at);
    one.end - one.start == other.end - other.start && owner(one) == owner(other)
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{Edns, Query},
        rr::{
            Name,
            rdata::{CNAME, MX},
        },
    };
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_address_comes_first_in_turn() {
        let name = |text: &str| Name::from_ascii(text).unwrap();
        let mut message = Message::query();
        message.add_query(Query::query(name("a.test."), RecordType::A));
        let alias = RData::CNAME(CNAME(name("b.test.")));
        message.add_answer(Record::from_rdata(name("a.test."), 30, alias));
        for n in 1..=3 {
            let data = RData::A(std::net::Ipv4Addr::new(192, 0, 2, n).into());
            message.add_answer(Record::from_rdata(name("b.test."), 30, data));
        }
        let bytes = message.to_vec().unwrap();
        for (turn, order) in [(0, [1, 2, 3]), (1, [2, 3, 1]), (2, [3, 1, 2]), (3, [1, 2, 3])] {
            let mut rotated = bytes.clone();
            rotate(&mut rotated, rtype::A, turn, bytes.len());
            let answers = Message::from_vec(&rotated).unwrap().answers;
            let told: Vec<_> = answers[1..].iter().map(|record| record.data.to_string()).collect();
            assert_eq!(told, order.map(|n| format!("192.0.2.{n}")), "{turn}");
            assert_eq!(answers[0].record_type(), RecordType::CNAME);
        }
    }

    #[test]
    fn each_mail_server_comes_first_in_turn() {
        let name = |text: &str| Name::from_ascii(text).unwrap();
        let mut message = Message::query();
        message.add_query(Query::query(name("Mail.test."), RecordType::MX));
        for host in ["a", "longer", "c.d"] {
            let data = RData::MX(MX::new(10, name(&format!("{host}.mail.test."))));
            message.add_answer(Record::from_rdata(name("Mail.test."), 30, data));
        }
        message.edns = Some(Edns::new());
        let bytes = message.to_vec().unwrap();
        for (turn, first) in [(0, "a"), (1, "longer"), (2, "c.d"), (3, "a")] {
            let mut rotated = bytes.clone();
            rotate(&mut rotated, rtype::MX, turn, bytes.len());
            let after = Message::from_vec(&rotated).unwrap();
            assert_eq!(after.answers[0].data.to_string(), format!("10 {first}.mail.test."));
            assert_eq!((after.answers.len(), after.edns.is_some()), (3, true));
            assert_eq!(after.queries[0].name().to_string(), "Mail.test.");
        }
        let mut short = bytes.clone();
        rotate(&mut short, rtype::MX, 1, 20);
        assert_eq!(short, bytes);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut answer in proptest::collection::vec(any::<u8>(), 0..200), turn: u32) {
            rotate(&mut answer, rtype::A, turn, 300);
            rotate(&mut answer, rtype::MX, turn, 300);
        }
    }
}
