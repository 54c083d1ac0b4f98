//! Column types of the warehouse, each with its Arrow type and builder.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, StringBuilder, TimestampMillisecondBuilder,
    UInt8Builder, UInt16Builder, UInt32Builder, UInt64Builder,
};
use datafusion::arrow::datatypes::{DataType, TimeUnit};

/// The zone of all times in the warehouse.
pub(crate) const UTC: &str = "UTC";

/// What a column holds, and how its values become an Arrow array.
pub(crate) trait Column {
    /// A value of the column.
    type Value<'a>;
    /// Collects values.
    type Builder: Default + Send;
    /// Whether a value may be absent.
    const NULLABLE: bool;
    /// The column's Arrow type.
    fn data_type() -> DataType;
    /// Adds a value.
    fn push(builder: &mut Self::Builder, value: Self::Value<'_>);
    /// The values so far as an array; the builder is empty again.
    fn finish(builder: &mut Self::Builder) -> ArrayRef;
}

macro_rules! column {
    ($(#[$doc:meta])* $name:ident, $optional:ident, $value:ty, $builder:ty, $data_type:expr) => {
        $(#[$doc])*
        pub(crate) struct $name;
        impl Column for $name {
            type Value<'a> = $value;
            type Builder = $builder;
            const NULLABLE: bool = false;
            fn data_type() -> DataType { $data_type }
            fn push(builder: &mut Self::Builder, value: Self::Value<'_>) { builder.append_value(value); }
            fn finish(builder: &mut Self::Builder) -> ArrayRef { Arc::new(builder.finish()) }
        }

        $(#[$doc])*
        /// May be absent.
        #[allow(dead_code)] // each kind has its optional form, whether a table uses it or not
        pub(crate) struct $optional;
        impl Column for $optional {
            type Value<'a> = Option<$value>;
            type Builder = $builder;
            const NULLABLE: bool = true;
            fn data_type() -> DataType { $data_type }
            fn push(builder: &mut Self::Builder, value: Self::Value<'_>) { builder.append_option(value); }
            fn finish(builder: &mut Self::Builder) -> ArrayRef { Arc::new(builder.finish()) }
        }
    };
}

column!(
    /// Text.
    Text, OptText, &'a str, StringBuilder, DataType::Utf8
);
column!(
    /// A signed whole number, for example an amount in minor units.
    Int, OptInt, i64, Int64Builder, DataType::Int64
);
column!(
    /// A whole number below 256.
    Tiny, OptTiny, u8, UInt8Builder, DataType::UInt8
);
column!(
    /// A whole number below 65,536.
    Small, OptSmall, u16, UInt16Builder, DataType::UInt16
);
column!(
    /// A whole number below 2^32.
    Count, OptCount, u32, UInt32Builder, DataType::UInt32
);
column!(
    /// A whole number below 2^64, for example an offset.
    Long, OptLong, u64, UInt64Builder, DataType::UInt64
);
column!(
    /// A floating-point number.
    Float, OptFloat, f64, Float64Builder, DataType::Float64
);
column!(
    /// True or false.
    Flag, OptFlag, bool, BooleanBuilder, DataType::Boolean
);

/// A point in time, as milliseconds since the Unix epoch, UTC.
pub(crate) struct Time;

impl Column for Time {
    type Value<'a> = i64;
    type Builder = TimestampMillisecondBuilder;
    const NULLABLE: bool = false;
    fn data_type() -> DataType {
        DataType::Timestamp(TimeUnit::Millisecond, Some(UTC.into()))
    }
    fn push(builder: &mut Self::Builder, value: i64) {
        builder.append_value(value);
    }
    fn finish(builder: &mut Self::Builder) -> ArrayRef {
        Arc::new(builder.finish().with_timezone(UTC))
    }
}
