//! Traffic to look at: endless, gentle to the server, with every fraud within the first minute.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use tokio_util::sync::CancellationToken;

use crate::client::Target;
use crate::engine::{Plan, Refusal, drive};
use crate::random::hash_text;
use crate::schedule::{Arrivals, Schedule};
use crate::traffic::{Traffic, TrafficConfig, fresh_run_id};

const CONNECTIONS: usize = 16;
const TIMEOUT: Duration = Duration::from_secs(10);
/// After a pause of the server, traffic carries on as it is now instead of catching up.
const SKIP_LATER_THAN: Duration = Duration::from_secs(1);
/// Frauds per second that show all scenarios within the first minute.
const FRAUDS_PER_S: f64 = 1.2;
/// Fraud in percent stays plausible at high rates, and leaves honest traffic to be seen at low ones.
const FRAUD_SHARE: std::ops::RangeInclusive<f64> = 0.03..=0.4;

/// The traffic of a demonstration: as at midday around the globe, whatever the hour.
#[must_use]
pub fn demo_traffic(rate_per_s: f64, run_id: String, start: jiff::Timestamp) -> Traffic {
    Traffic::new(TrafficConfig {
        fraud_share: (FRAUDS_PER_S / rate_per_s).clamp(*FRAUD_SHARE.start(), *FRAUD_SHARE.end()),
        day_curve: false,
        ..TrafficConfig::new(hash_text(&run_id), run_id, start, rate_per_s)
    })
}

/// Sends demonstration traffic until stopped. Refusals and a server that is away only slow it down.
///
/// # Errors
/// When the URL or rate makes no sense.
pub async fn run_demo(
    url: &str,
    rate_per_s: f64,
    stop: CancellationToken,
    api_key: Option<&str>,
) -> anyhow::Result<()> {
    ensure!(
        rate_per_s.is_finite() && (0.001..=10_000.0).contains(&rate_per_s),
        "the demo rate is {rate_per_s}: give 0.001 to 10000 requests per second"
    );
    let target = Arc::new(Target::resolve(url, api_key).await?);
    let run_id = fresh_run_id();
    let schedule = Schedule::new(Arrivals::Poisson, rate_per_s, None, hash_text(&run_id));
    let plan = Plan {
        target,
        traffic: demo_traffic(rate_per_s, run_id, jiff::Timestamp::now()),
        schedule,
        duration: None,
        connections: CONNECTIONS,
        timeout: TIMEOUT,
        refusal: Refusal::Rest,
        skip_later_than: Some(SKIP_LATER_THAN),
        accepted: None,
        stop,
    };
    drive(plan, |_| {}).await.map(drop)
}
