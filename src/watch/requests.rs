//! Requests on a client's stream: create, cancel, progress. Validation and answers as in etcd;
//! nothing here waits.

use bytes::Bytes;
use quorate_proto::etcdserverpb::watch_create_request::FilterType;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{WatchCreateRequest, WatchRequest};

use super::record::Response;
use super::session::Session;
use super::span::Span;
use super::watchers::{State, Watcher};
use crate::error::{Refused, Unavailable};
use crate::limits;
use crate::plant;
use crate::types::Revision;

const EMPTY_RANGE: &str = "mvcc: watcher range is empty";
const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";

impl Session {
    pub(super) fn request(&mut self, request: WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create),
            Some(RequestUnion::CancelRequest(cancel)) => self.cancel(cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => self.ask_progress(),
            // Not a reason to end the stream.
            None => self.log_invalid(),
        }
    }

    /// Logs a request that is of no kind, once in a while: a few bytes are one.
    fn log_invalid(&mut self) {
        self.invalid += 1;
        let now = self.env.now();
        let last = self.invalid_logged.map(|at| now.saturating_duration_since(at));
        if last.is_none_or(|since| since >= limits::WATCH_INVALID_LOG_INTERVAL) {
            tracing::info!(
                requests = self.invalid,
                "invalid watch request type received in gRPC stream"
            );
            self.invalid_logged = Some(now);
        }
    }

    /// The answer comes first, so that it precedes every event of the watcher. A watcher that cannot
    /// be made is created and cancelled in one response, under no id.
    fn create(&mut self, request: WatchCreateRequest) {
        let current = self.history.current();
        let watcher = match self.admit(request, current) {
            Ok(watcher) => watcher,
            Err(cancel_reason) => {
                let (created, canceled) = (true, true);
                let refused =
                    Response { watch_id: -1, created, canceled, cancel_reason, ..<_>::default() };
                return self.outbox.push(current, refused);
            }
        };
        let response = Response { watch_id: watcher.id, created: true, ..Response::default() };
        self.outbox.push(current, response);
        let state = watcher.state;
        let slot = self.watchers.insert(watcher);
        match state {
            State::Ready => self.ready.push(slot),
            _ => self.behind.push_back(slot),
        }
    }

    /// Checks in etcd's order, which decides the reason that a client sees.
    fn admit(&mut self, request: WatchCreateRequest, current: Revision) -> Result<Watcher, String> {
        let mut request = request;
        // The empty key is the smallest key.
        if request.key.is_empty() {
            request.key = Bytes::from_static(&[0]);
        }
        if request.start_revision < 0 {
            return Err(Refused::Compacted.text().into());
        }
        if let Some(allow) = &self.options.allow {
            allow(&request.key, &request.range_end)?;
        }
        let (key, range_end) = (request.key.clone(), request.range_end.clone());
        let span = Span::new(key, range_end).ok_or(EMPTY_RANGE)?;
        if self.watchers.len() >= limits::WATCHERS_PER_STREAM_MAX {
            return Err(Unavailable::TooManyRequests.text().into());
        }
        let id = self.watchers.free_id(request.watch_id).ok_or(DUPLICATE_ID)?;
        let start = Revision(request.start_revision);
        let late = i64::from(plant::WATCH_BEGINS_LATE.is_planted());
        // From now on, or from a revision that is still to come: nothing to read first.
        let ready = start.0 == 0 || start > current;
        Ok(Watcher {
            id,
            span,
            no_put: request.filters.contains(&(FilterType::Noput as i32)),
            no_delete: request.filters.contains(&(FilterType::Nodelete as i32)),
            prev_kv: request.prev_kv,
            fragment: request.fragment,
            progress_notify: request.progress_notify,
            quiet: true,
            start,
            next: if start.0 == 0 { Revision(current.0 + 1 + late) } else { start },
            state: if ready { State::Ready } else { State::Behind },
            open_response: 0,
            _trace: self.options.span.as_ref().map(|traced| traced.watcher(&request)),
        })
    }

    /// An id that is not known is not answered.
    fn cancel(&mut self, id: i64) {
        let Some(slot) = self.watchers.slot(id) else { return };
        self.link.leave(slot);
        self.behind.retain(|it| *it != slot);
        self.ready.retain(|it| *it != slot);
        self.watchers.remove(slot);
        let response = Response { watch_id: id, canceled: true, ..Response::default() };
        self.outbox.push(self.history.current(), response);
    }
}
