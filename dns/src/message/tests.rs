//! Answers of other servers, right and wrong.

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode},
    rr::{Name, RData, Record, RecordType, rdata},
};
use proptest::prelude::*;

use super::*;
use crate::testing::question;

const ID: u16 = 7;

/// An upstream's answer: addresses, an additional record, and OPT in between or at the end.
fn answer(addresses: u8, opt_first: bool) -> Vec<u8> {
    let name: Name = "www.example.org.".parse().unwrap();
    let mut message = Message::new(ID, MessageType::Response, OpCode::Query);
    message.add_query(hickory_proto::op::Query::query(name.clone(), RecordType::A));
    for n in 0..addresses {
        message.add_answer(Record::from_rdata(name.clone(), 300, RData::A(rdata::A::new(192, 0, 2, n))));
    }
    let extra = Record::from_rdata(name, 200, RData::A(rdata::A::new(192, 0, 2, 255)));
    if !opt_first {
        message.add_additional(extra.clone());
    }
    message.edns = Some(Edns::new());
    let mut bytes = message.to_vec().unwrap();
    if opt_first {
        // Our encoder writes OPT last; other servers need not.
        let mut alone = Message::new(ID, MessageType::Response, OpCode::Query);
        alone.add_additional(extra);
        bytes.extend(&alone.to_vec().unwrap()[HEADER..]);
        bytes[11] += 1;
    }
    bytes
}

fn asked() -> Question {
    Question::of(&Query::read(&question("www.example.org.", RecordType::A)).unwrap())
}

#[test]
fn opt_is_taken_out_wherever_it_is() {
    for opt_first in [false, true] {
        let Reading::Answer(read) = Answer::read(answer(3, opt_first), ID, &asked(), true) else { panic!() };
        let client = question("WWW.example.org.", RecordType::A);
        let mut out = Vec::new();
        read.write(&Query::read(&client).unwrap(), Some(17), 512, 1232, &mut out);
        let told = Message::from_vec(&out).unwrap();
        assert_eq!(told.queries[0].name().to_ascii(), "WWW.example.org.");
        assert!(told.edns.is_none());
        let ttls: Vec<u32> = told.answers.iter().chain(&told.additionals).map(|record| record.ttl).collect();
        assert_eq!(ttls, [17; 4], "OPT first: {opt_first}");
    }
}

#[test]
fn only_the_answer_to_the_question_is_taken() {
    let good = answer(1, false);
    let change = |at: usize, byte: u8| {
        let mut message = good.clone();
        message[at] = byte;
        message
    };
    for (what, message) in [
        ("another id", change(1, 8)),
        ("a query", change(2, 0)),
        ("another opcode", change(2, 0xa0)),
        ("another name", change(13, b'x')),
        ("another type", change(30, 28)),
        ("another class", change(32, 3)),
        ("no question", change(5, 0)),
        ("cut short", good[..good.len() - 30].to_vec()),
        ("nothing", Vec::new()),
    ] {
        assert!(matches!(Answer::read(message, ID, &asked(), true), Reading::Foreign), "{what}");
    }
    let mut upper = good;
    upper[13..16].make_ascii_uppercase();
    assert!(matches!(Answer::read(upper, ID, &asked(), true), Reading::Answer(_)), "case is no matter");
}

proptest! {
    #[test]
    fn no_answer_panics_and_none_grows_beyond_its_limit(
        flips in proptest::collection::vec((3_usize..150, any::<u8>()), 0..8),
        cut in 0_usize..150,
        opt_first in any::<bool>(),
        limit in 60_usize..600,
    ) {
        let mut message = answer(5, opt_first);
        for (at, byte) in flips {
            if let Some(place) = message.get_mut(at) {
                *place = byte;
            }
        }
        message.truncate(message.len().max(cut) - cut / 4);
        if let Reading::Answer(read) = Answer::read(message, ID, &asked(), true) {
            let client = question("www.example.org.", RecordType::A);
            let query = Query::read(&client).unwrap();
            let mut out = Vec::new();
            read.write(&query, Some(1), limit, 1232, &mut out);
            prop_assert!(out.len() <= limit);
            let _ = (read.min_ttl(), read.negative_ttl(), read.is_denial());
            // What we pass on is what a client can walk through.
            let mut at = query.question_end;
            for count in [6, 8, 10] {
                for _ in 0..u16_at(&out, count).unwrap() {
                    at = record_at(&out, at).unwrap().end;
                }
            }
        }
    }
}
