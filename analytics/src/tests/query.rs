//! SQL over the warehouse: what works, what is refused, what is cut.

use std::time::Duration;

use super::{BASE_MS, World, ask, fast, id, parquet_files};
use crate::config::WarehouseConfig;
use crate::engine::{Engine, QueryError, QueryLimits};
use crate::queries::{self, Param, bind};
use crate::store::Store;

const LIMITS: QueryLimits = QueryLimits { deadline: Duration::from_secs(60), max_rows: 10_000 };

/// Rows in files and in memory.
async fn filled(world: &World) -> Store {
    let store = world.open();
    world.append(0..200).await;
    world.catch_up(&store).await;
    store.flush(&fast()).unwrap();
    world.append(200..300).await;
    world.catch_up(&store).await;
    store
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_the_page_finds_rows() {
    let world = World::new();
    let store = filled(&world).await;
    let engine = world.engine();
    let labelled = id(0).to_string();
    for (file, sql) in queries::ALL {
        let all = [
            ("since", "{since:", Param::TimeMs(BASE_MS)),
            ("rows", "{rows:", Param::Number(50)),
            ("id", "{id:", Param::Text(&labelled)),
        ];
        let params: Vec<_> =
            all.into_iter().filter(|(_, used, _)| sql.contains(used)).map(|(name, _, p)| (name, p)).collect();
        let sql = bind(sql, &params);
        assert!(!sql.contains('{'), "{file} has a parameter that was not bound");
        let answer = ask(&engine, &store, &sql).await;
        assert!(answer.row_count > 0, "{file} finds nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_bound_finds_what_is_after_it_in_files_and_in_memory() {
    let world = World::new();
    let store = filled(&world).await;
    let engine = world.engine();
    for from in [0, 150, 250, 299] {
        let since = Param::TimeMs(BASE_MS + from * 20);
        let sql =
            bind("SELECT seq FROM decisions WHERE accepted_at >= {since:DateTime64(3)}", &[("since", since)]);
        assert_eq!(ask(&engine, &store, &sql).await.row_count, 300 - from as usize);
    }
    let one = format!("SELECT amount_minor FROM transactions WHERE id = '{}'", id(42));
    assert_eq!(ask(&engine, &store, &one).await.json_rows().unwrap(), [[10_092]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_reading_the_warehouse_is_possible() {
    let world = World::new();
    let store = filled(&world).await;
    let engine = world.engine();
    let file = parquet_files(&world.dir())[0].to_str().unwrap().to_owned();
    let elsewhere = world.dir().join("out.csv");
    let refused = [
        "CREATE TABLE t AS SELECT 1".to_owned(),
        "CREATE VIEW v AS SELECT 1".to_owned(),
        format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{file}'"),
        "INSERT INTO labels SELECT * FROM labels".to_owned(),
        "DELETE FROM labels".to_owned(),
        "UPDATE labels SET note = ''".to_owned(),
        "DROP TABLE labels".to_owned(),
        format!("COPY (SELECT 1) TO '{}'", elsewhere.display()),
        format!("EXPLAIN ANALYZE COPY (SELECT 1) TO '{}' STORED AS CSV", elsewhere.display()),
        "SET datafusion.execution.target_partitions = 64".to_owned(),
        "PREPARE p AS SELECT 1".to_owned(),
        format!("SELECT * FROM '{file}'"),
        format!("SELECT * FROM \"{file}\""),
        format!("SELECT * FROM read_parquet('{file}')"),
        "SELECT * FROM generate_series(1, 1000000000)".to_owned(),
        "SELECT repeat('x', 1000000000)".to_owned(),
        "SELECT 1; DROP TABLE labels".to_owned(),
        "SELECT * FROM nothing".to_owned(),
        "SELEKT".to_owned(),
        String::new(),
    ];
    for sql in refused {
        let answer = engine.query(store.snapshot(), &sql, LIMITS).await;
        assert!(matches!(answer, Err(QueryError::Invalid(_))), "{sql}: {answer:?}");
    }
    assert!(!elsewhere.exists());
    assert_eq!(ask(&engine, &store, "SELECT * FROM labels").await.row_count, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tables_describe_themselves() {
    let world = World::new();
    let (store, engine) = (world.open(), world.engine());
    let sql = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'warehouse' ORDER BY 1";
    let rows = ask(&engine, &store, sql).await.json_rows().unwrap();
    let names: Vec<_> = rows.iter().map(|row| row[0].as_str().unwrap()).collect();
    assert_eq!(names, ["alerts", "decisions", "labels", "rule_hits", "transactions"]);
    assert!(ask(&engine, &store, "SHOW COLUMNS FROM decisions").await.row_count > 10);
    assert_eq!(
        ask(&engine, &store, "SELECT * FROM decisions").await.row_count,
        0,
        "an empty warehouse answers"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_cut_at_the_row_limit_and_says_so() {
    let world = World::new();
    let store = filled(&world).await;
    let engine = world.engine();
    for (max_rows, rows, truncated) in [(7, 7, true), (299, 299, true), (300, 300, false), (301, 300, false)]
    {
        let limits = QueryLimits { max_rows, ..LIMITS };
        let answer = engine.query(store.snapshot(), "SELECT seq FROM decisions", limits).await.unwrap();
        assert_eq!((answer.row_count, answer.truncated), (rows, truncated), "limit {max_rows}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_ends_at_its_deadline_and_gives_its_place_back() {
    let world = World::new();
    let store = filled(&world).await;
    let config = WarehouseConfig { query_max_concurrent: 1, ..WarehouseConfig::default() };
    let engine = Engine::new(&world.dir(), &config).unwrap();
    let limits = QueryLimits { deadline: Duration::from_millis(200), ..LIMITS };
    for endless in [
        "SELECT sum(length(a.transaction_id || b.transaction_id || c.transaction_id || d.transaction_id)) \
         FROM decisions a, decisions b, decisions c, (SELECT * FROM decisions LIMIT 30) d",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t",
    ] {
        let answer = engine.query(store.snapshot(), endless, limits).await;
        assert!(matches!(answer, Err(QueryError::Deadline(_))), "{answer:?}");
        // The only place is free again once the query has really ended.
        assert_eq!(ask(&engine, &store, "SELECT 1").await.row_count, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_of_everything_with_everything_is_refused_before_it_runs() {
    let world = World::new();
    let store = filled(&world).await;
    let engine = world.engine();
    let product = "SELECT count(*) FROM decisions a, decisions b, decisions c, decisions d \
                   WHERE a.seq + b.seq + c.seq <> d.seq";
    let answer = engine.query(store.snapshot(), product, LIMITS).await;
    assert!(matches!(&answer, Err(QueryError::Invalid(why)) if why.contains("pairs of rows")), "{answer:?}");
    let by_id = "SELECT count(*) FROM decisions d JOIN transactions t ON t.id = d.transaction_id \
                 WHERE d.amount_minor > (SELECT avg(amount_minor) FROM transactions)";
    assert_eq!(ask(&engine, &store, by_id).await.json_rows().unwrap(), [[150]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_needs_too_much_memory_is_refused_and_others_go_on() {
    let world = World::new();
    let store = filled(&world).await;
    let config = WarehouseConfig { query_memory_bytes: 4 * 1024 * 1024, ..WarehouseConfig::default() };
    let engine = Engine::new(&world.dir(), &config).unwrap();
    let large = "SELECT count(*) FROM (SELECT DISTINCT a.transaction_id || b.transaction_id \
                 FROM decisions a, decisions b)";
    let answer = engine.query(store.snapshot(), large, LIMITS).await;
    assert!(matches!(answer, Err(QueryError::TooLarge(_))), "{answer:?}");
    assert_eq!(ask(&engine, &store, "SELECT count(*) FROM decisions").await.row_count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_have_the_json_form_of_their_type() {
    let world = World::new();
    let store = filled(&world).await;
    let sql = "SELECT id, accepted_at, livemode, amount_minor, location_lat, mcc, card_exp_month \
               FROM transactions WHERE source_partition < 4 ORDER BY accepted_at LIMIT 1";
    let answer = ask(&world.engine(), &store, sql).await;
    let types: Vec<_> = answer.columns().into_iter().map(|c| c.data_type).collect();
    assert_eq!(types, ["text", "timestamp", "boolean", "int64", "float64", "text", "uint8"]);
    let expected =
        serde_json::json!([id(0).to_string(), "2026-11-21T06:59:30.000Z", true, 10_050, 52.5, null, 12]);
    assert_eq!(serde_json::json!(answer.json_rows().unwrap()[0]), expected);
}
