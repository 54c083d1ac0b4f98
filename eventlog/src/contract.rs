//! The rules that every log keeps, as tests that know nothing of the implementation.
//!
//! An implementation gives a [`Fixture`] and has all rules made into tests:
//!
//! ```ignore
//! eventlog::contract_tests!(a_new_log); // async fn a_new_log() -> Option<impl Fixture>
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use events::topics::{ALERTS, ALL, CREATED, DEAD_LETTERS, DECIDED, INTERNAL};

use crate::{Change, EventLog, LogError, LoggedRecord, NewRecord, Position};

/// Long enough for any step on a busy machine; no rule waits for it when it is kept.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// Wait for nothing.
const NOW: Duration = Duration::ZERO;
const A_MOMENT: Duration = Duration::from_millis(20);

/// A log to test, with at least two partitions per topic, and empty when the fixture is made.
#[async_trait]
pub trait Fixture: Send {
    /// The log.
    fn log(&self) -> Arc<dyn EventLog>;

    /// Ends this log without a farewell where that can be done, and opens another on the same storage.
    async fn reopen(&mut self);
}

/// Makes a `#[tokio::test]` of every rule of the contract. Takes the path of an `async fn` that makes a
/// [`Fixture`](crate::contract::Fixture), in an `Option`: without one, as what it needs is not there, the
/// rules are not tried, and the function has said so.
#[macro_export]
macro_rules! contract_tests {
    ($fixture:path) => {
        $crate::contract_tests! { @each $fixture:
            positions_are_contiguous_in_each_partition
            a_key_keeps_its_partition_and_its_order
            what_append_returned_is_readable_at_once
            what_append_returned_is_there_after_reopening
            offsets_continue_after_reopening
            reading_starts_and_stops_where_it_is_told
            reading_at_the_end_waits_and_then_returns_nothing
            reading_beyond_the_end_is_an_error
            an_append_wakes_a_waiting_reader
            an_append_to_any_partition_wakes_who_waits_for_any
            waiting_for_any_returns_none_when_nothing_comes
            one_append_writes_to_several_topics
            every_topic_and_its_dead_letters_exist
            positions_are_committed_per_group_topic_and_partition
            committed_positions_survive_reopening
            bounds_follow_the_records
            unknown_topics_and_partitions_are_errors
            concurrent_appends_get_unique_gapless_offsets
            a_record_reads_back_as_written
            a_large_record_reads_back_as_written
            an_empty_append_writes_nothing
            a_dropped_append_is_still_written
            a_writer_appends_as_the_log_does
            a_writer_whose_place_was_taken_is_fenced
            who_joins_alone_gets_every_part
        }
    };
    (@each $fixture:path: $($rule:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $rule() {
            if let Some(fixture) = $fixture().await {
                $crate::contract::$rule(fixture).await;
            }
        }
    )*};
}

/// A record of a topic with a text for key and value.
#[must_use]
pub fn record(topic: &'static str, key: &str, value: &str) -> NewRecord {
    NewRecord {
        topic,
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        headers: Vec::new(),
        timestamp_ms: now_ms(),
    }
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.expect("the clock is past 1970").as_millis())
        .expect("and before the year 292 million")
}

async fn append(log: &dyn EventLog, records: Vec<NewRecord>) -> Vec<Position> {
    let appended = tokio::time::timeout(DEADLINE, log.append(records)).await;
    appended.expect("an append ends within the deadline").expect("the log takes records")
}

/// Everything in a partition.
///
/// # Panics
/// When the log fails to read it.
pub async fn read_all(log: &dyn EventLog, topic: &str, partition: u32) -> Vec<LoggedRecord> {
    let (mut from, end) = log.bounds(topic, partition).await.expect("the partition exists");
    let mut records: Vec<LoggedRecord> = Vec::new();
    while from < end {
        // No wait: what lies before the end is there. Numbers may be left out, also the last ones.
        let more = log.read(topic, partition, from, 1_000, NOW).await.expect("the log reads");
        let Some(last) = more.last() else { break };
        from = last.offset + 1;
        records.extend(more);
    }
    assert!(records.is_sorted_by(|one, next| one.offset < next.offset), "offsets increase");
    records
}

async fn read_topic(log: &dyn EventLog, topic: &str) -> BTreeMap<(u32, u64), LoggedRecord> {
    let mut found = BTreeMap::new();
    for partition in 0..log.partitions(topic).expect("the topic exists") {
        for record in read_all(log, topic, partition).await {
            found.insert((partition, record.offset), record);
        }
    }
    found
}

fn values(records: &[LoggedRecord]) -> Vec<String> {
    records.iter().map(|record| String::from_utf8_lossy(&record.value).into_owned()).collect()
}

/// Two keys that belong to different partitions.
async fn keys_apart(log: &dyn EventLog) -> (String, String) {
    let records = (0..64).map(|i| record(ALERTS, &format!("key-{i}"), "probe")).collect();
    let places = append(log, records).await;
    let other = places.iter().position(|place| place.partition != places[0].partition);
    ("key-0".to_owned(), format!("key-{}", other.expect("64 keys reach two partitions")))
}

/// Rule: where only the log itself appends, and no writer, positions within one partition increase by one, in
/// the order of the records.
pub async fn positions_are_contiguous_in_each_partition(fixture: impl Fixture) {
    let log = fixture.log();
    let mut next: BTreeMap<u32, u64> = BTreeMap::new();
    for round in 0..5 {
        let records = (0..20).map(|i| record(CREATED, &format!("key-{}", i % 7), &format!("{round}-{i}")));
        for place in append(&*log, records.collect()).await {
            let expected = next.entry(place.partition).or_default();
            assert_eq!(place.offset, *expected, "partition {}", place.partition);
            *expected += 1;
        }
    }
    assert!(next.len() > 1, "seven keys reach more than one partition");
}

/// Rule: one key always goes to one partition, and its records keep the order they were appended in.
pub async fn a_key_keeps_its_partition_and_its_order(fixture: impl Fixture) {
    let log = fixture.log();
    let mut partitions = BTreeSet::new();
    for i in 0..50 {
        let places = append(
            &*log,
            vec![record(CREATED, "one", &i.to_string()), record(CREATED, &format!("other-{i}"), "x")],
        )
        .await;
        partitions.insert(places[0].partition);
    }
    assert_eq!(partitions.len(), 1);
    let all = read_all(&*log, CREATED, partitions.into_iter().next().expect("one")).await;
    let own: Vec<LoggedRecord> = all.into_iter().filter(|record| record.key == "one").collect();
    assert_eq!(values(&own), (0..50).map(|i| i.to_string()).collect::<Vec<_>>());
}

/// Rule: what an append returned for can be read without waiting.
pub async fn what_append_returned_is_readable_at_once(fixture: impl Fixture) {
    let log = fixture.log();
    for i in 0..20 {
        let place = append(&*log, vec![record(DECIDED, "key", &i.to_string())]).await[0];
        let read = log.read(DECIDED, place.partition, place.offset, 1, NOW).await.expect("reads");
        assert_eq!(values(&read), [i.to_string()]);
    }
}

/// Rule: what an append returned for is there when the log is opened again.
pub async fn what_append_returned_is_there_after_reopening(mut fixture: impl Fixture) {
    let records: Vec<NewRecord> =
        (0..200).map(|i| record(CREATED, &format!("key-{}", i % 9), &i.to_string())).collect();
    let mut places = Vec::new();
    for some in records.chunks(7) {
        places.extend(append(&*fixture.log(), some.to_vec()).await);
    }
    fixture.reopen().await;
    let found = read_topic(&*fixture.log(), CREATED).await;
    assert_eq!(found.len(), records.len());
    for (place, record) in places.iter().zip(&records) {
        assert_eq!(found[&(place.partition, place.offset)].value, record.value);
    }
}

/// Rule: opening again does not give an offset a second time, nor leave one out.
pub async fn offsets_continue_after_reopening(mut fixture: impl Fixture) {
    for round in 0..3 {
        for i in 0..4 {
            let place = append(&*fixture.log(), vec![record(CREATED, "key", "x")]).await[0];
            assert_eq!(place.offset, round * 4 + i);
        }
        fixture.reopen().await;
    }
}

/// Rule: a read begins at the offset asked for and returns no more records than asked for.
pub async fn reading_starts_and_stops_where_it_is_told(fixture: impl Fixture) {
    let log = fixture.log();
    let records = (0..30).map(|i| record(CREATED, "key", &i.to_string())).collect();
    let partition = append(&*log, records).await[0].partition;
    let some = log.read(CREATED, partition, 10, 5, NOW).await.expect("reads");
    assert_eq!(some.iter().map(|record| record.offset).collect::<Vec<_>>(), [10, 11, 12, 13, 14]);
    assert_eq!(values(&some), ["10", "11", "12", "13", "14"]);
    let last = log.read(CREATED, partition, 28, 1_000, NOW).await.expect("reads");
    assert_eq!(values(&last), ["28", "29"]);
    assert_eq!(log.read(CREATED, partition, 0, 0, DEADLINE).await.expect("reads"), []);
}

/// Rule: at the end, a read returns nothing, and not before the wait is over.
pub async fn reading_at_the_end_waits_and_then_returns_nothing(fixture: impl Fixture) {
    let log = fixture.log();
    let place = append(&*log, vec![record(CREATED, "key", "x")]).await[0];
    let started = std::time::Instant::now();
    let none = log.read(CREATED, place.partition, place.offset + 1, 10, A_MOMENT).await.expect("reads");
    assert_eq!(none, []);
    assert!(started.elapsed() >= A_MOMENT);
}

/// Rule: an offset past the next one was never written: asking for it shows that records were lost.
pub async fn reading_beyond_the_end_is_an_error(fixture: impl Fixture) {
    let log = fixture.log();
    let place = append(&*log, vec![record(CREATED, "key", "x")]).await[0];
    let error = log.read(CREATED, place.partition, place.offset + 2, 10, DEADLINE).await;
    let expected_end = place.offset + 1;
    assert!(
        matches!(error, Err(LogError::OffsetOutOfRange { end, .. }) if end == expected_end),
        "expected out of range, got {error:?}"
    );
}

/// Rule: a reader at the end gets the next record as soon as it is durable.
pub async fn an_append_wakes_a_waiting_reader(fixture: impl Fixture) {
    let log = fixture.log();
    let place = append(&*log, vec![record(CREATED, "key", "before")]).await[0];
    let reader = tokio::spawn({
        let log = log.clone();
        async move { log.read(CREATED, place.partition, place.offset + 1, 10, DEADLINE).await }
    });
    tokio::time::sleep(A_MOMENT).await; // most likely it waits by now; the rule holds in either case
    append(&*log, vec![record(CREATED, "key", "after")]).await;
    let read = tokio::time::timeout(DEADLINE / 2, reader).await.expect("the reader wakes");
    assert_eq!(values(&read.expect("no panic").expect("reads")), ["after"]);
}

/// Rule: waiting for any partition ends as soon as one of them has a record.
pub async fn an_append_to_any_partition_wakes_who_waits_for_any(fixture: impl Fixture) {
    let log = fixture.log();
    let (one, other) = keys_apart(&*log).await;
    let partitions = log.partitions(CREATED).expect("exists") as usize;
    for key in [one, other] {
        let mut from = vec![0; partitions];
        for (partition, from) in (0..).zip(&mut from) {
            *from = log.bounds(CREATED, partition).await.expect("exists").1;
        }
        let from = Position::of_all(&from);
        let waiter = tokio::spawn({
            let (log, from) = (log.clone(), from.clone());
            async move { log.wait_for_any(CREATED, &from, DEADLINE).await }
        });
        tokio::time::sleep(A_MOMENT).await; // most likely it waits by now; the rule holds in either case
        let place = append(&*log, vec![record(CREATED, &key, "x")]).await[0];
        let woken = tokio::time::timeout(DEADLINE / 2, waiter).await.expect("it wakes");
        assert_eq!(woken.expect("no panic").expect("waits"), [place.partition]);
        let again = log.wait_for_any(CREATED, &from, NOW).await.expect("waits");
        assert_eq!(again, [place.partition], "what was seen needs no wait");
    }
}

/// Rule: waiting for any partition ends with none once the wait is over.
pub async fn waiting_for_any_returns_none_when_nothing_comes(fixture: impl Fixture) {
    let log = fixture.log();
    let partitions = log.partitions(CREATED).expect("exists") as usize;
    let from = Position::of_all(&vec![0; partitions]);
    assert_eq!(log.wait_for_any(CREATED, &from, A_MOMENT).await.expect("waits"), [0_u32; 0]);
}

/// Rule: the records of one append may go to several topics; positions come in the order of the records.
pub async fn one_append_writes_to_several_topics(fixture: impl Fixture) {
    let log = fixture.log();
    let places = append(
        &*log,
        vec![
            record(DECIDED, "key", "decided-0"),
            record(ALERTS, "key", "alert-0"),
            record(DECIDED, "key", "decided-1"),
        ],
    )
    .await;
    assert_eq!(places.iter().map(|place| place.offset).collect::<Vec<_>>(), [0, 0, 1]);
    let decided = read_all(&*log, DECIDED, places[0].partition).await;
    assert_eq!(values(&decided), ["decided-0", "decided-1"]);
    assert_eq!(values(&read_all(&*log, ALERTS, places[1].partition).await), ["alert-0"]);
    assert_eq!(read_topic(&*log, CREATED).await, BTreeMap::new());
}

/// Rule: the log has all topics of the contract, each with its dead-letter topic.
pub async fn every_topic_and_its_dead_letters_exist(fixture: impl Fixture) {
    let log = fixture.log();
    for topic in INTERNAL {
        let place = append(&*log, vec![record(topic, "key", topic)]).await[0];
        assert_eq!(values(&read_all(&*log, topic, place.partition).await), [topic]);
    }
    for topic in ALL.into_iter().chain(DEAD_LETTERS) {
        assert!(log.partitions(topic).expect("exists") >= 2, "{topic}");
        let place = append(&*log, vec![record(topic, "key", topic)]).await[0];
        assert_eq!(values(&read_all(&*log, topic, place.partition).await), [topic]);
    }
}

/// Rule: positions of one group, topic and partition do not touch those of another; the last commit counts.
pub async fn positions_are_committed_per_group_topic_and_partition(fixture: impl Fixture) {
    let log = fixture.log();
    assert_eq!(log.committed("a", CREATED, 0).await.expect("reads"), None);
    for (group, topic, partition, offset) in
        [("a", CREATED, 0, 5), ("a", CREATED, 1, 6), ("a", DECIDED, 0, 7), ("b", CREATED, 0, 8)]
    {
        log.commit(group, topic, partition, offset).await.expect("commits");
    }
    assert_eq!(log.committed("a", CREATED, 0).await.expect("reads"), Some(5));
    assert_eq!(log.committed("a", CREATED, 1).await.expect("reads"), Some(6));
    assert_eq!(log.committed("a", DECIDED, 0).await.expect("reads"), Some(7));
    assert_eq!(log.committed("b", CREATED, 0).await.expect("reads"), Some(8));
    assert_eq!(log.committed("b", DECIDED, 0).await.expect("reads"), None);
    log.commit("a", CREATED, 0, 3).await.expect("a group may be set back");
    assert_eq!(log.committed("a", CREATED, 0).await.expect("reads"), Some(3));
}

/// Rule: a committed position is there when the log is opened again.
pub async fn committed_positions_survive_reopening(mut fixture: impl Fixture) {
    fixture.log().commit("group", CREATED, 1, 42).await.expect("commits");
    fixture.log().commit("group", CREATED, 1, 43).await.expect("commits");
    fixture.reopen().await;
    assert_eq!(fixture.log().committed("group", CREATED, 1).await.expect("reads"), Some(43));
    assert_eq!(fixture.log().committed("group", CREATED, 0).await.expect("reads"), None);
}

/// Rule: bounds are from the oldest record to the offset the next one gets.
pub async fn bounds_follow_the_records(fixture: impl Fixture) {
    let log = fixture.log();
    assert_eq!(log.bounds(CREATED, 0).await.expect("exists"), (0, 0));
    let place = append(&*log, (0..5).map(|_| record(CREATED, "key", "x")).collect()).await[0];
    assert_eq!(log.bounds(CREATED, place.partition).await.expect("exists"), (0, 5));
}

/// Rule: asking for what does not exist says so, and an append to it writes nothing at all.
pub async fn unknown_topics_and_partitions_are_errors(fixture: impl Fixture) {
    let log = fixture.log();
    let partitions = log.partitions(CREATED).expect("exists");
    let unknown_topic = |error: LogError| matches!(error, LogError::UnknownTopic(topic) if topic == "nope");
    let unknown_partition = |error: LogError| {
        matches!(error, LogError::UnknownPartition { topic, partition }
            if topic == CREATED && partition == partitions)
    };
    assert!(unknown_topic(log.partitions("nope").expect_err("no such topic")));
    assert!(unknown_topic(log.read("nope", 0, 0, 1, DEADLINE).await.expect_err("no such topic")));
    assert!(unknown_topic(log.bounds("nope", 0).await.expect_err("no such topic")));
    assert!(unknown_topic(
        log.wait_for_any("nope", &Position::of_all(&[0]), DEADLINE).await.expect_err("no such topic")
    ));
    assert!(unknown_topic(log.commit("g", "nope", 0, 0).await.expect_err("no such topic")));
    assert!(unknown_topic(log.committed("g", "nope", 0).await.expect_err("no such topic")));
    let mixed = vec![record(CREATED, "key", "x"), record("nope", "key", "x")];
    assert!(unknown_topic(log.append(mixed).await.expect_err("no such topic")));
    assert_eq!(read_topic(&*log, CREATED).await, BTreeMap::new());

    let read = log.read(CREATED, partitions, 0, 1, DEADLINE).await;
    assert!(unknown_partition(read.expect_err("no such partition")));
    assert!(unknown_partition(log.bounds(CREATED, partitions).await.expect_err("no such partition")));
    let commit = log.commit("g", CREATED, partitions, 0).await;
    assert!(unknown_partition(commit.expect_err("no such partition")));
    let committed = log.committed("g", CREATED, partitions).await;
    assert!(unknown_partition(committed.expect_err("no such partition")));
}

/// Rule: however many append at once, no offset is given twice or left out, and each position holds the
/// record it was given for.
pub async fn concurrent_appends_get_unique_gapless_offsets(fixture: impl Fixture) {
    const CALLERS: usize = 16;
    const APPENDS: usize = 25;
    let log = fixture.log();
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let log = log.clone();
            tokio::spawn(async move {
                let mut written = Vec::new();
                for i in 0..APPENDS {
                    let texts: Vec<String> = (0..=i % 3).map(|n| format!("{caller}-{i}-{n}")).collect();
                    let records = texts.iter().map(|text| record(CREATED, text, text)).collect();
                    let places = append(&*log, records).await;
                    written.extend(places.into_iter().zip(texts));
                }
                written
            })
        })
        .collect();
    let mut written = BTreeMap::new();
    for caller in callers {
        for (place, text) in caller.await.expect("no caller panics") {
            assert_eq!(written.insert((place.partition, place.offset), text), None, "given twice: {place:?}");
        }
    }
    let found = read_topic(&*log, CREATED).await;
    let found = found.iter().map(|(&place, record)| (place, values(std::slice::from_ref(record)).remove(0)));
    assert_eq!(found.collect::<BTreeMap<_, _>>(), written);
}

/// Rule: key, value, headers and timestamp come back byte for byte, empty ones and binary ones too.
pub async fn a_record_reads_back_as_written(fixture: impl Fixture) {
    let log = fixture.log();
    let every_byte: Bytes = (0..=u8::MAX).collect::<Vec<_>>().into();
    let records = [
        NewRecord {
            topic: CREATED,
            key: every_byte.clone(),
            value: every_byte.clone(),
            headers: vec![
                ("reason".to_owned(), Bytes::from_static(b"not an envelope")),
                ("reason".to_owned(), every_byte.clone()),
                ("grüße".to_owned(), Bytes::new()),
            ],
            timestamp_ms: now_ms() - 1_234,
        },
        NewRecord {
            topic: CREATED,
            key: Bytes::from_static(b"k"),
            value: Bytes::new(),
            headers: Vec::new(),
            timestamp_ms: now_ms(),
        },
    ];
    for written in records {
        let place = append(&*log, vec![written.clone()]).await[0];
        let read = log.read(CREATED, place.partition, place.offset, 1, NOW).await.expect("reads");
        let NewRecord { key, value, headers, timestamp_ms, .. } = written;
        assert_eq!(read, [LoggedRecord { offset: place.offset, key, value, headers, timestamp_ms }]);
    }
}

/// Rule: a record of most of a megabyte, which no compression makes small, is taken and comes back.
pub async fn a_large_record_reads_back_as_written(mut fixture: impl Fixture) {
    let mut state = 1_u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    let value: Bytes = (0..900_000).map(|_| noise()).collect::<Vec<_>>().into();
    let large = NewRecord { value: value.clone(), ..record(CREATED, "key", "") };
    let place = append(&*fixture.log(), vec![large]).await[0];
    for _ in 0..2 {
        let read = fixture.log().read(CREATED, place.partition, place.offset, 1, NOW).await;
        assert!(read.expect("reads")[0].value == value);
        fixture.reopen().await;
    }
}

/// Rule: an append of nothing succeeds and changes nothing.
pub async fn an_empty_append_writes_nothing(fixture: impl Fixture) {
    let log = fixture.log();
    assert_eq!(append(&*log, Vec::new()).await, []);
    assert_eq!(log.bounds(CREATED, 0).await.expect("exists"), (0, 0));
}

/// Rule: once an append has begun, whoever called it may go away: the record is written.
pub async fn a_dropped_append_is_still_written(fixture: impl Fixture) {
    let log = fixture.log();
    let partitions = log.partitions(CREATED).expect("exists") as usize;
    {
        let mut append = log.append(vec![record(CREATED, "key", "left alone")]);
        // Polled once: it has begun.
        std::future::poll_fn(|context| {
            let _ = append.as_mut().poll(context);
            std::task::Poll::Ready(())
        })
        .await;
    }
    let from = Position::of_all(&vec![0; partitions]);
    assert!(!log.wait_for_any(CREATED, &from, DEADLINE).await.expect("waits").is_empty());
    let found: Vec<LoggedRecord> = read_topic(&*log, CREATED).await.into_values().collect();
    assert_eq!(values(&found), ["left alone"]);
}

/// Rule: a writer appends to several topics at once, at positions that increase, and the log's readers see it.
pub async fn a_writer_appends_as_the_log_does(fixture: impl Fixture) {
    let log = fixture.log();
    let mut writer = log.writer("writer").await.expect("no other");
    let mut expected = Vec::new();
    let mut next = Vec::new();
    for i in 0..10 {
        let value = i.to_string();
        let records = vec![record(DECIDED, "key", &value), record(ALERTS, "key", &value)];
        let places = writer.append(records).await.expect("appends");
        // In each topic past the record before, and not before where that said the next one may be.
        assert!(next.iter().zip(&places).all(|(next, place)| place.offset >= *next), "{next:?}, {places:?}");
        next = places.iter().map(|place| place.offset + 1).collect();
        let read = log.read(DECIDED, places[0].partition, places[0].offset, 1, NOW).await.expect("reads");
        assert_eq!((read[0].offset, values(&read)), (places[0].offset, vec![value.clone()]));
        expected.push(value);
    }
    for topic in [DECIDED, ALERTS] {
        let read: Vec<_> = read_topic(&*log, topic).await.into_values().collect();
        assert_eq!(values(&read), expected, "{topic}");
    }
    assert!(writer.append(Vec::new()).await.expect("nothing to do").is_empty());
}

/// Rule: who takes a writer's place finds all that it appended, and it appends nothing more.
pub async fn a_writer_whose_place_was_taken_is_fenced(fixture: impl Fixture) {
    let log = fixture.log();
    let mut first = log.writer("writer").await.expect("no other");
    let mut bystander = log.writer("another").await.expect("no other");
    let partition = first.append(vec![record(DECIDED, "key", "first")]).await.expect("appends")[0].partition;
    let mut second = log.writer("writer").await.expect("takes over");
    assert_eq!(values(&read_all(&*log, DECIDED, partition).await), ["first"]);
    let late = first.append(vec![record(DECIDED, "key", "late")]).await;
    assert!(matches!(late, Err(LogError::Fenced(_))), "expected fenced, got {late:?}");
    second.append(vec![record(DECIDED, "key", "second")]).await.expect("appends");
    let late = first.append(vec![record(DECIDED, "key", "later")]).await;
    assert!(matches!(late, Err(LogError::Fenced(_))), "expected fenced, got {late:?}");
    bystander.append(vec![record(DECIDED, "key", "bystander")]).await.expect("has another name");
    let read = read_all(&*log, DECIDED, partition).await;
    assert_eq!(values(&read), ["first", "second", "bystander"]);
}

/// Rule: who is alone in a group has all of the work.
pub async fn who_joins_alone_gets_every_part(fixture: impl Fixture) {
    let log = fixture.log();
    let mut membership = log.join("contract", 3).await.expect("joins");
    let mut parts = BTreeSet::new();
    while parts.len() < 3 {
        let change = tokio::time::timeout(DEADLINE, membership.changed()).await.expect("in time");
        match change.expect("joins") {
            Change::Gained(gained) => parts.extend(gained),
            other => panic!("expected to gain parts, got {other:?}"),
        }
    }
    assert_eq!(parts, BTreeSet::from([0, 1, 2]));
    membership.leave().await;
}
