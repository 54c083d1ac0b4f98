//! A span under way.

use std::borrow::Cow;
use std::time::SystemTime;

use opentelemetry::trace::{Event, SpanContext, SpanId, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{IdGenerator as _, SpanData, SpanEvents, SpanLinks};

use super::{Kind, TraceContext, Tracing};

/// A piece of work of a sampled trace. It ends when it is dropped, or when [`Span::end_at`] says.
#[derive(Debug)]
pub struct Span {
    tracing: &'static Tracing,
    /// Taken when it ends.
    data: Option<Box<SpanData>>,
    context: TraceContext,
}

impl Span {
    /// Within a parent, or the first of a trace.
    pub(super) fn new(
        tracing: &'static Tracing,
        component: &'static str,
        kind: Kind,
        name: &'static str,
        trace_id: TraceId,
        parent: Option<SpanId>,
    ) -> Self {
        let context = TraceContext { trace_id, span_id: tracing.ids.new_span_id() };
        // Begun now; whoever knows better says so.
        let now = SystemTime::now();
        let data = SpanData {
            span_context: SpanContext::new(
                trace_id,
                context.span_id,
                TraceFlags::SAMPLED,
                false,
                TraceState::NONE,
            ),
            parent_span_id: parent.unwrap_or(SpanId::INVALID),
            // What serves or consumes was caused elsewhere.
            parent_span_is_remote: parent.is_some() && matches!(kind, Kind::Server | Kind::Consumer),
            span_kind: kind,
            name: Cow::Borrowed(name),
            start_time: now,
            end_time: now,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::builder(component).build(),
        };
        Self { tracing, data: Some(Box::new(data)), context }
    }

    /// What comes after this span goes by it.
    #[must_use]
    pub const fn context(&self) -> TraceContext {
        self.context
    }

    /// Begun earlier than it was made.
    #[must_use]
    pub fn started_at(mut self, at: SystemTime) -> Self {
        self.with(|data| data.start_time = at);
        self
    }

    /// Calls it otherwise.
    pub fn rename(&mut self, name: impl Into<Cow<'static, str>>) {
        let name = name.into();
        self.with(|data| data.name = name);
    }

    /// Notes something about the work: never anything secret, and nothing of a card.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        let attribute = KeyValue::new(key, value);
        self.with(|data| data.attributes.push(attribute));
    }

    /// Notes that something happened at a moment of the work.
    pub fn note(&mut self, what: &'static str, at: SystemTime) {
        self.with(|data| data.events.events.push(Event::new(what, at, Vec::new(), 0)));
    }

    /// Notes that the work failed.
    pub fn fail(&mut self, why: impl Into<Cow<'static, str>>) {
        let status = Status::error(why);
        self.with(|data| data.status = status);
    }

    /// Ended at this moment.
    pub fn end_at(mut self, at: SystemTime) {
        self.finish(at);
    }

    fn with(&mut self, change: impl FnOnce(&mut SpanData)) {
        if let Some(data) = &mut self.data {
            change(data);
        }
    }

    fn finish(&mut self, at: SystemTime) {
        if let Some(mut data) = self.data.take() {
            data.end_time = at;
            self.tracing.queue.push(*data);
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        self.finish(SystemTime::now());
    }
}
