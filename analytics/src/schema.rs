//! The tables of the warehouse. What each column means is written in `sql/warehouse/`; a test holds the
//! two equal.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use crate::column::{
    Column, Count, Flag, Float, Int, Long, OptFloat, OptInt, OptText, Small, Text, Time, Tiny,
};

/// A table of the warehouse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    /// What merchants submitted.
    Transactions,
    /// What scoring decided, one row per transaction.
    Decisions,
    /// The rules that matched, one row per match.
    RuleHits,
    /// Alerts raised.
    Alerts,
    /// What transactions turned out to be.
    Labels,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 5] =
        [Self::Transactions, Self::Decisions, Self::RuleHits, Self::Alerts, Self::Labels];

    /// The table's name in SQL, in file paths and in metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transactions => "transactions",
            Self::Decisions => "decisions",
            Self::RuleHits => "rule_hits",
            Self::Alerts => "alerts",
            Self::Labels => "labels",
        }
    }

    /// The time that decides which hour's file a row goes to.
    #[must_use]
    pub const fn time_column(self) -> &'static str {
        match self {
            Self::Transactions | Self::Decisions | Self::RuleHits => "accepted_at",
            Self::Alerts => "raised_at",
            Self::Labels => "labelled_at",
        }
    }

    /// The column that holds the transaction's id.
    #[must_use]
    pub const fn transaction_column(self) -> &'static str {
        match self {
            Self::Transactions => "id",
            _ => "transaction_id",
        }
    }

    /// The table's Arrow schema.
    #[must_use]
    pub fn schema(self) -> SchemaRef {
        match self {
            Self::Transactions => TransactionRows::schema(),
            Self::Decisions => DecisionRows::schema(),
            Self::RuleHits => RuleHitRows::schema(),
            Self::Alerts => AlertRows::schema(),
            Self::Labels => LabelRows::schema(),
        }
    }
}

macro_rules! table {
    ($(#[$doc:meta])* $row:ident, $rows:ident { $($column:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        pub(crate) struct $row<'a> {
            $(pub(crate) $column: <$kind as Column>::Value<'a>,)*
        }

        /// Collects rows into an Arrow batch.
        #[derive(Default)]
        pub(crate) struct $rows {
            len: usize,
            $($column: <$kind as Column>::Builder,)*
        }

        impl $rows {
            pub(crate) fn schema() -> SchemaRef {
                static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| Arc::new(Schema::new(vec![
                    $(Field::new(stringify!($column), <$kind as Column>::data_type(), <$kind as Column>::NULLABLE),)*
                ])));
                Arc::clone(&SCHEMA)
            }

            pub(crate) fn push(&mut self, row: $row<'_>) {
                $(<$kind as Column>::push(&mut self.$column, row.$column);)*
                self.len += 1;
            }

            /// The rows so far, or nothing when there are none; the builder is empty again.
            pub(crate) fn finish(&mut self) -> Option<RecordBatch> {
                if std::mem::take(&mut self.len) == 0 {
                    return None;
                }
                let columns = vec![$(<$kind as Column>::finish(&mut self.$column),)*];
                Some(RecordBatch::try_new(Self::schema(), columns).expect("made from the same list of columns"))
            }
        }
    };
}

table!(
    /// A row of `transactions`.
    TransactionRow, TransactionRows {
        id: Text,
        merchant_id: Text,
        accepted_at: Time,
        livemode: Flag,
        amount_minor: Int,
        currency: Text,
        reporting_amount_minor: OptInt,
        card_token: Text,
        card_bin: Text,
        card_last4: Text,
        card_brand: Text,
        card_exp_month: Tiny,
        card_exp_year: Small,
        customer_id: OptText,
        customer_email: OptText,
        customer_phone: OptText,
        device_id: OptText,
        device_ip: OptText,
        device_user_agent: OptText,
        billing_country: OptText,
        billing_city: OptText,
        billing_postal_code: OptText,
        shipping_country: OptText,
        shipping_city: OptText,
        shipping_postal_code: OptText,
        location_country: OptText,
        location_lat: OptFloat,
        location_lon: OptFloat,
        mcc: OptText,
        terminal_id: OptText,
        metadata: Text,
        test_behaviour: OptText,
        idempotency_key: OptText,
        source_partition: Count,
        source_offset: Long,
    }
);

table!(
    /// A row of `decisions`.
    DecisionRow, DecisionRows {
        transaction_id: Text,
        merchant_id: Text,
        accepted_at: Time,
        window_time_us: Int,
        decided_at: Time,
        latency_ms: Float,
        outcome: Text,
        risk_score: Tiny,
        risk_level: Text,
        ruleset: Text,
        model: OptText,
        livemode: Flag,
        amount_minor: Int,
        currency: Text,
        reporting_amount_minor: OptInt,
        card_token: Text,
        card_masked: Text,
        seq: Long,
        source_partition: Count,
        source_offset: Long,
    }
);

table!(
    /// A row of `rule_hits`.
    RuleHitRow, RuleHitRows {
        transaction_id: Text,
        merchant_id: Text,
        accepted_at: Time,
        outcome: Text,
        mode: Text,
        position: Small,
        rule: Text,
        code: Text,
        message: Text,
        observed: Float,
        limit_value: Float,
        points: Count,
    }
);

table!(
    /// A row of `alerts`.
    AlertRow, AlertRows {
        id: Text,
        transaction_id: Text,
        merchant_id: Text,
        raised_at: Time,
        severity: Text,
        outcome: Text,
        risk_score: Tiny,
        card_token: Text,
        card_masked: Text,
        amount_minor: Int,
        currency: Text,
        livemode: Flag,
        reasons: Text,
    }
);

table!(
    /// A row of `labels`.
    LabelRow, LabelRows {
        transaction_id: Text,
        merchant_id: Text,
        labelled_at: Time,
        verdict: Text,
        source: Text,
        note: OptText,
    }
);

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::DataType;
    use datafusion::prelude::{SessionConfig, SessionContext};

    use super::*;

    #[tokio::test]
    async fn the_documented_tables_are_the_tables_that_are_written() {
        let config = SessionConfig::new()
            .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false)
            .set_str("datafusion.execution.time_zone", "UTC");
        let scratch = SessionContext::new_with_config(config);
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../sql/warehouse");
        let mut documented = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let sql = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            scratch.sql(&sql).await.unwrap().collect().await.unwrap();
            documented += 1;
        }
        assert_eq!(documented, Table::ALL.len());
        for table in Table::ALL {
            let found = scratch.table_provider(table.as_str()).await.unwrap().schema();
            let columns = |schema: &Schema| -> Vec<(String, DataType, bool)> {
                let of = |f: &Arc<Field>| (f.name().clone(), f.data_type().clone(), f.is_nullable());
                schema.fields().iter().map(of).collect()
            };
            assert_eq!(columns(&found), columns(&table.schema()), "{}", table.as_str());
        }
    }
}
