//! W3C trace context as callers send it (<https://www.w3.org/TR/trace-context/>), read as OpenTelemetry's
//! Go library reads it. None is written: a call causes no call to another server.

use std::collections::BTreeSet;

use crate::limits;

/// A trace's name; not all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(pub [u8; 16]);

/// A span's name in its trace; not all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(pub [u8; 8]);

/// Trace flags: the caller records its span; the trace's id is a random number.
pub const SAMPLED: u8 = 1;
const RANDOM: u8 = 2;

/// Members of a `tracestate`.
const STATE_MEMBERS_MAX: usize = 32;

/// The span that a call was made in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    pub trace: TraceId,
    /// `None` for a call that begins its trace.
    pub span: Option<SpanId>,
    pub flags: u8,
    pub state: String,
}

impl Parent {
    /// Of a call that begins a trace which is kept.
    pub fn none(trace: TraceId) -> Self {
        Self { trace, span: None, flags: SAMPLED, state: String::new() }
    }

    /// From `traceparent` and `tracestate`. Nothing at all when the former is not one; a state that is
    /// none counts as empty.
    pub fn read(parent: &str, state: &str) -> Option<Self> {
        let mut parts = parent.splitn(5, '-');
        let [version] = hex(parts.next()?)?;
        let (trace, span) = (hex(parts.next()?)?, hex(parts.next()?)?);
        let [flags] = hex(parts.next()?)?;
        let rest = parts.next().unwrap_or_default();
        // Later versions may have more fields, and 255 is no version.
        let strict = version == 0 && (!rest.is_empty() || flags > SAMPLED | RANDOM);
        if version == u8::MAX || strict || trace == [0; 16] || span == [0; 8] {
            return None;
        }
        Some(Self {
            trace: TraceId(trace),
            span: Some(SpanId(span)),
            flags: flags & (SAMPLED | RANDOM),
            state: read_state(state).unwrap_or_default(),
        })
    }

    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }
}

/// Lower-case digits for exactly so many bytes.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn read_state(text: &str) -> Option<String> {
    let mut names = BTreeSet::new();
    let mut members = Vec::new();
    for member in text.split(',').filter(|member| !member.is_empty()) {
        let (key, value) = member.split_once('=')?;
        let blank = [' ', '\t'];
        let (key, value) = (key.trim_start_matches(blank), value.trim_end_matches(blank));
        if !is_key(key) || !is_value(value) || !names.insert(key) {
            return None;
        }
        members.push(format!("{key}={value}"));
    }
    let state = members.join(",");
    let fits = members.len() <= STATE_MEMBERS_MAX && state.len() <= limits::SPAN_TEXT_BYTES_MAX;
    fits.then_some(state)
}

/// `vendor`, or `tenant@vendor`.
fn is_key(key: &str) -> bool {
    let letter = |c: u8| c.is_ascii_lowercase();
    let first = |c: u8| letter(c) || c.is_ascii_digit();
    let later = |c: &u8| first(*c) || matches!(c, b'_' | b'-' | b'*' | b'/');
    let part = |text: &str, first: &dyn Fn(u8) -> bool, length: usize| match text.as_bytes() {
        [] => false,
        [one, more @ ..] => first(*one) && more.len() < length && more.iter().all(later),
    };
    match key.split_once('@') {
        None => part(key, &letter, 256),
        Some((tenant, vendor)) => part(tenant, &first, 241) && part(vendor, &letter, 14),
    }
}

fn is_value(value: &str) -> bool {
    let known = |c: u8| matches!(c, b' '..=b'~') && !matches!(c, b',' | b'=');
    (1..=256).contains(&value.len()) && value.bytes().all(known) && !value.ends_with(' ')
}
