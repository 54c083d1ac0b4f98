//! What entries of lists cost: memory, and time to take a change in.
//!
//! `cargo run --release --workspace --example lists -- 10000000`

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)] // prints figures for people

use std::time::Instant;

use events::{CardToken, ListAction, ListChange, ListScope, ListSource};
use scoring::{MemoryStore, Ruleset, RulesetSource, Scorer, SegmentStore};

fn change(list: &str, value: String, expires: bool, merchant: Option<&str>) -> ListChange {
    ListChange {
        list: list.parse().unwrap(),
        scope: merchant.map_or(ListScope::All, |id| ListScope::Merchant {
            merchant_id: id.parse().unwrap(),
            livemode: true,
        }),
        value,
        action: ListAction::Add,
        expires_at_us: expires.then_some(4_000_000_000_000_000),
        source: ListSource::Operator,
        changed_at_us: 0,
        note: None,
    }
}

/// Well spread, and each once.
fn scattered(n: u64) -> u64 {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn main() {
    let entries: u64 = std::env::args().nth(1).map_or(10_000_000, |n| n.parse().unwrap());
    let card = |n: u64| {
        let mut mac = [0; 16];
        mac[..8].copy_from_slice(&scattered(n).to_le_bytes());
        CardToken::new("k1", &mac).unwrap().to_string()
    };
    type Make<'a> = &'a dyn Fn(u64) -> ListChange;
    let kinds: [(&str, Make<'_>); 4] = [
        ("cards", &|n| change("block_card", card(n), false, None)),
        ("cards of a merchant, with expiry", &|n| change("block_card", card(n), true, Some("shop_1"))),
        ("IPv4 addresses", &|n| {
            let address = std::net::Ipv4Addr::from_bits(u32::try_from(scattered(n) >> 32).unwrap());
            change("block_ip", address.to_string(), false, None)
        }),
        ("e-mail addresses of 24 characters", &|n| {
            change("block_email", format!("{:014x}@shop.test", scattered(n) >> 8), false, None)
        }),
    ];
    for (name, make) in kinds {
        let store: std::sync::Arc<dyn SegmentStore> = MemoryStore::new();
        let mut scorer = Scorer::new(Ruleset::load(&RulesetSource::built_in()).unwrap(), &store);
        let (mut slowest_us, began) = (0, Instant::now());
        for n in 0..entries {
            let change = make(n);
            let one = Instant::now();
            scorer.change_list(&change).unwrap();
            slowest_us = slowest_us.max(one.elapsed().as_micros());
        }
        let held: usize = scorer.list_entries().map(|(_, entries)| entries).sum();
        #[allow(clippy::cast_precision_loss)] // figures for people
        let (each_bytes, each_us) =
            (scorer.list_bytes() as f64 / held as f64, began.elapsed().as_secs_f64() * 1e6 / entries as f64);
        println!(
            "{held} {name}: {each_bytes:.1} bytes and {each_us:.2} µs each, the slowest {slowest_us} µs"
        );
    }
}
