//! The page's queries give the same on both warehouses, and analysts' queries have limits.

use std::sync::Arc;

use serde_json::Value;

use super::Warehouse;
use crate::clickhouse::ClickHouseConfig;
use crate::engine::QueryError;
use crate::queries::{self, Param, bind};
use crate::tests::{BASE_MS, id};
use crate::warehouse::Warehouse as Embedded;

#[tokio::test(flavor = "multi_thread")]
async fn every_query_gives_the_same_on_the_embedded_warehouse_and_on_clickhouse() {
    let Some(warehouse) = Warehouse::new("equal").await else { return };
    warehouse.world.append(0..1_000).await;
    warehouse.store().await;
    let log = Arc::clone(&warehouse.world.log);
    let embedded = Embedded::open_offline(&warehouse.world.dir(), log).await.unwrap();
    let id = id(50).to_string();
    let all =
        [("since", Param::TimeMs(BASE_MS + 5_000)), ("rows", Param::Number(40)), ("id", Param::Text(&id))];
    for (file, sql) in queries::ALL {
        let given: Vec<_> =
            all.iter().filter(|(name, _)| sql.contains(&format!("{{{name}:"))).cloned().collect();
        let here = embedded.query(&bind(sql, &given)).await.unwrap();
        let there = warehouse.server.ask(sql, &warehouse.config, &given).await.unwrap();
        let names = |columns: &[crate::result::ResultColumn]| -> Vec<String> {
            columns.iter().map(|column| column.name.clone()).collect()
        };
        assert_eq!(names(&here.columns()), names(&there.columns), "{file}");
        let (mut here, mut there) = (here.json_rows().unwrap(), there.rows);
        assert!(!here.is_empty(), "{file} answers nothing: the test shows nothing");
        if !sql.contains("ORDER BY") {
            sort(&mut here);
            sort(&mut there);
        }
        assert_eq!(here.len(), there.len(), "{file}");
        for (here, there) in here.iter().zip(&there) {
            assert_eq!(here, there, "{file}");
        }
    }
    warehouse.end().await;
}

fn sort(rows: &mut [Vec<Value>]) {
    rows.sort_by_cached_key(|row| Value::from(row.clone()).to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_read_only_and_its_answer_is_cut() {
    let Some(warehouse) = Warehouse::new("limits").await else { return };
    warehouse.world.append(0..100).await;
    warehouse.store().await;
    let config =
        ClickHouseConfig { query_max_rows: 10, query_deadline_ms: 1_000, ..warehouse.config.clone() };
    let ask = async |sql: &str| warehouse.server.query(sql, &config).await;
    let answer = ask("SELECT transaction_id FROM decisions").await.unwrap();
    assert_eq!((answer.row_count, answer.rows.len(), answer.truncated), (10, 10, true));
    let answer = ask("SELECT 'a?b' AS q, 1 AS n").await.unwrap();
    assert_eq!((answer.rows, answer.truncated), (vec![vec![Value::from("a?b"), Value::from(1)]], false));
    for refused in ["DROP TABLE alerts", "INSERT INTO audit_log SELECT now(), '', '', '', ''", "SELEC 1"] {
        let error = ask(refused).await.unwrap_err();
        assert!(matches!(&error, QueryError::Invalid(text) if text.contains("DB::Exception")), "{error:?}");
    }
    let endless = "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1";
    assert!(matches!(ask(endless).await.unwrap_err(), QueryError::Deadline(_)));
    warehouse.end().await;
}
