//! Another ruleset between two batches: at once when only rules differ, else when its windows are warm.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::ensure;
use scoring::{Ruleset, WarmingRule};

use super::Pipeline;
use crate::generations::Generations;
use crate::recovery::Recovered;
use crate::rule_clock::RuleClock;
use crate::rulesets::{Inbox, Request, RulesetStatus, WarmUpStatus};
use crate::warm_up::{Surroundings, WarmUp};

/// What changes of the ruleset need beside the pipeline.
pub(super) struct Changes {
    inbox: Inbox,
    surroundings: Surroundings,
    warm_up: Option<WarmUp>,
    /// The rules in force that do not fire yet, soonest warm first.
    warming: Vec<WarmingRule>,
}

impl Changes {
    /// Says that what the pipeline begins with is in force.
    pub(super) fn new(inbox: Inbox, generations: Generations, pipeline: &Pipeline) -> Self {
        let surroundings = Surroundings {
            log: Arc::clone(&pipeline.log),
            lane: pipeline.lane,
            generations,
            metrics: pipeline.metrics.clone(),
            next_seq: Arc::new(AtomicU64::new(pipeline.progress.next_seq)),
        };
        let mut changes = Self { inbox, surroundings, warm_up: None, warming: Vec::new() };
        changes.say_in_force(pipeline);
        changes
    }

    /// Takes up what was asked for and what has become ready since the batch before. Returns whether another
    /// scorer took over.
    pub(super) async fn between_batches(&mut self, pipeline: &mut Pipeline) -> bool {
        self.surroundings.next_seq.store(pipeline.progress.next_seq, Ordering::Release);
        self.say_warm(pipeline.scorer.last_time_us());
        while let Ok(Request { ruleset, answer }) = self.inbox.requests.try_recv() {
            let taken_up = self.take_up(ruleset, pipeline).await;
            // Whoever asked may have gone away.
            let _ = answer.send(taken_up);
        }
        let Some(warm_up) = self.warm_up.take_if(|warm_up| warm_up.has_ended()) else { return false };
        let (ruleset, warm) = warm_up.end();
        let taken_over = match warm {
            Ok(warm) => pipeline.take_over(warm, &ruleset).await,
            Err(error) => Err(error),
        };
        match &taken_over {
            Ok(()) => self.say_in_force(pipeline),
            Err(error) => {
                self.surroundings.metrics.reload_failures.inc();
                self.surroundings.metrics.last_reload_successful.set(0);
                let ruleset = ruleset.hash();
                tracing::error!(ruleset, "a ruleset cannot take over, the one in force stays: {error:#}");
            }
        }
        self.say_warm_up();
        taken_over.is_ok()
    }

    /// Ends a warm-up under way.
    pub(super) async fn stop(self) {
        if let Some(warm_up) = self.warm_up {
            warm_up.stop().await;
        }
    }

    async fn take_up(&mut self, ruleset: Ruleset, pipeline: &mut Pipeline) -> anyhow::Result<()> {
        let in_force = pipeline.scorer.ruleset();
        if ruleset.has_windows_of(in_force) {
            if let Some(unwanted) = self.warm_up.take() {
                unwanted.discard();
            }
            if ruleset.hash() != in_force.hash() {
                pipeline.adopt(ruleset).await?;
                self.say_in_force(pipeline);
            }
        } else if let Some(warm_up) = &mut self.warm_up
            && ruleset.has_windows_of(&warm_up.ruleset)
        {
            warm_up.ruleset = ruleset;
        } else {
            let warm_up = WarmUp::start(ruleset, self.surroundings.clone())?;
            if let Some(unwanted) = self.warm_up.replace(warm_up) {
                unwanted.discard();
            }
        }
        self.say_warm_up();
        Ok(())
    }

    fn say_in_force(&mut self, pipeline: &Pipeline) {
        let (ruleset, from_seq) = (pipeline.scorer.ruleset(), pipeline.progress.next_seq);
        tracing::info!(ruleset = ruleset.hash(), from_seq, "the ruleset in force");
        self.warming = pipeline.scorer.warming_rules();
        let gauge = &self.surroundings.metrics.rule_warming;
        gauge.reset();
        let rules = ruleset.rule_ids();
        for rule in &rules {
            let is_warming = self.warming.iter().any(|warming| warming.rule == *rule);
            gauge.with_label_values(&[rule.as_str()]).set(is_warming.into());
        }
        if !self.warming.is_empty() {
            tracing::warn!(
                rules = ?self.warming.iter().map(|warming| &warming.rule).collect::<Vec<_>>(),
                "rules that do not fire yet: their windows reach back before what is known"
            );
        }
        self.inbox.status.send_replace(Some(RulesetStatus {
            ruleset: ruleset.hash().to_owned(),
            from_seq,
            lanes: vec![pipeline.lane.number],
            features: ruleset.feature_names().len(),
            rules: rules.len(),
            warming_rules: self.warming.clone(),
            warm_up: None,
        }));
    }

    fn say_warm_up(&self) {
        let metrics = &self.surroundings.metrics;
        metrics.warm_up.set(self.warm_up.is_some().into());
        if self.warm_up.is_none() {
            metrics.warm_up_lag_transactions.set(0);
        }
        let hash = self.warm_up.as_ref().map(|warm_up| warm_up.ruleset.hash().to_owned());
        if let Some(ruleset) = &hash {
            tracing::info!(ruleset, "the ruleset in force stays until this one's windows are warm");
        }
        self.inbox.status.send_modify(|status| {
            if let Some(status) = status {
                status.warm_up = hash.map(|ruleset| WarmUpStatus { ruleset, lag_transactions: 0 });
            }
        });
    }

    /// Says which rules fire from now on.
    fn say_warm(&mut self, time_us: i64) {
        let warm = self.warming.iter().take_while(|rule| rule.warm_at_us <= time_us).count();
        if warm == 0 {
            return;
        }
        for WarmingRule { rule, .. } in self.warming.drain(..warm) {
            self.surroundings.metrics.rule_warming.with_label_values(&[rule.as_str()]).set(0);
            tracing::info!(rule, "its windows are complete: it fires from now on");
        }
        self.inbox.status.send_modify(|status| {
            if let Some(status) = status {
                status.warming_rules.clone_from(&self.warming);
            }
        });
    }
}

impl Pipeline {
    /// Decides under a ruleset with the same windows from the next transaction on. Other lists are filled
    /// first, at a microsecond or two for each change there ever was.
    async fn adopt(&mut self, ruleset: Ruleset) -> anyhow::Result<()> {
        let other_lists = !ruleset.has_lists_of(self.scorer.ruleset());
        self.rule_clock = RuleClock::new(&self.metrics, &ruleset);
        assert!(self.scorer.adopt(ruleset), "its windows were compared before");
        if other_lists {
            let until = self.progress.lists.clone();
            // Their dead letters were written when they were taken in first.
            self.lists().take_until(&mut vec![0; until.len()], &until).await?;
        }
        Ok(())
    }

    /// Has a scorer with other windows decide from the next transaction on, once it has taken in what was
    /// decided since it was close behind.
    async fn take_over(&mut self, mut warm: Recovered, ruleset: &Ruleset) -> anyhow::Result<()> {
        let next_seq = self.progress.next_seq;
        warm.replay_decided(&*self.log, next_seq, usize::MAX, &self.metrics).await?;
        if warm.progress.next_seq != next_seq {
            ensure!(warm.progress.next_seq == 0, "what was decided last cannot be read");
            // Retention has left nothing of what was decided.
            warm.scorer.begin_after(self.scorer.last_time_us());
        }
        warm.take_lists(&*self.log, &self.progress.lists, &self.metrics).await?;
        let before = std::mem::replace(&mut self.scorer, warm.scorer);
        self.adopt(ruleset.clone()).await?;
        self.checkpoints = warm.checkpoints;
        self.checkpointed_seq = None;
        // Takes a while when it holds much.
        tokio::task::spawn_blocking(move || drop(before));
        Ok(())
    }
}
