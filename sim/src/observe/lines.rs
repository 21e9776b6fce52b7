//! What servers log: a subscriber of the thread that a run lives on. Info and above goes to the story
//! under the host whose task has logged it, warnings and errors to the evidence too, and so does every
//! beginning of a leadership. Anything below info is not even formatted.

use std::cell::RefCell;
use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::World;
use crate::facts::evidence::Evidence;
use crate::facts::seen::{LogLine, Reign};
use crate::facts::story::{Story, What};
use crate::rt::host_at_work;

thread_local! {
    /// For as long as the thread lives.
    static LISTENING: RefCell<Option<DefaultGuard>> = const { RefCell::new(None) };
}

/// Takes down what is logged on this thread from now on.
pub(super) fn listen(world: &World, evidence: &Evidence, story: &Story) {
    let lines = Lines { world: world.clone(), evidence: evidence.clone(), story: story.clone() };
    LISTENING.with_borrow_mut(|listening| {
        // The one before, if any, must go first: guards put back what was there before them.
        drop(listening.take());
        *listening = Some(tracing::subscriber::set_default(lines));
    });
}

struct Lines {
    world: World,
    evidence: Evidence,
    story: Story,
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::INFO
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn event(&self, event: &Event<'_>) {
        let Some(host) = host_at_work().and_then(|number| self.world.host_name(number)) else {
            return;
        };
        let mut line = Line::default();
        event.record(&mut line);
        let (at, level) = (self.world.elapsed(), *event.metadata().level());
        let text = line.text();
        if let Some(term) = line.reign() {
            self.evidence.record().seen.reigns.push(Reign { at, host: host.clone(), term });
        }
        if level <= Level::WARN {
            let (host, text) = (host.clone(), text.clone());
            self.evidence.record().seen.lines.push(LogLine { at, host, level, text });
        }
        let level = level.as_str().to_ascii_lowercase();
        self.story.note(at, What::Log { host, level, text });
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// A line's message and fields as text.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
    role: Option<String>,
    term: Option<u64>,
}

impl Line {
    fn text(&self) -> String {
        format!("{}{}", self.message, self.fields)
    }

    /// The term that this member begins to lead, if that is what the line is.
    fn reign(&self) -> Option<u64> {
        let leads = self.message == "role" && self.role.as_deref() == Some("Leader");
        self.term.filter(|_| leads)
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
        written.expect("a string grows");
        match field.name() {
            "role" => self.role = Some(format!("{value:?}")),
            "term" => self.term = format!("{value:?}").parse().ok(),
            _ => {}
        }
    }
}
