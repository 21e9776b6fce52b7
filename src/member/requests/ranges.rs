//! Ranges, whole, as streams and in read-only txns: the read index, the permission, the state to read from,
//! and the memory of the responses.

use std::collections::VecDeque;
use std::time::Instant;

use prost::Message as _;
use quorate_proto::etcdserverpb::{RangeRequest, RangeResponse, TxnRequest, TxnResponse};
use quorate_proto::mvccpb::KeyValue;

use super::budget::{Budget, Charge};
use super::keys::judged_at;
use super::stall::StallGuard;
use super::{slow, spans};
use crate::apply::planted::{judged_end, judged_txn};
use crate::env::Work;
use crate::error::{Error, Refused, Unavailable};
use crate::limits;
use crate::member::applier::read_only_txn;
use crate::member::{Caller, Member, ResponseMemory};
use crate::metrics::{observe, truth};
use crate::mvcc::{self, RangeStream, Ranged, TxnRead};
use crate::plant;
use crate::trace::Span;
use crate::types::Revision;

impl Member {
    pub async fn range(
        &self,
        caller: &Caller,
        request: RangeRequest,
    ) -> Result<RangeResponse, Error> {
        if self.is_learner() && !request.serializable {
            return Err(Refused::NotSupportedForLearner.into());
        }
        mvcc::check_range(&request)?;
        let caller = &*caller.within(spans::RANGE, || spans::range(&request));
        let started = self.0.env.now();
        let logged = request.clone();
        let outcome = self.range_checked(caller, request).await;
        self.observe_request("Range", started, outcome.is_ok());
        self.warn_of_range(started, &logged, &outcome, slow::range_size);
        outcome
    }

    async fn range_checked(
        &self,
        caller: &Caller,
        request: RangeRequest,
    ) -> Result<RangeResponse, Error> {
        let judged = self.may_range(caller, &request).await?;
        let began = self.0.env.now();
        let large = is_large(&request);
        let read = self.read_as_judged(large, judged, move |view| view.range(&request)).await;
        self.observe_range(began, read.is_ok());
        let response = read?;
        self.metrics().ranges.inc();
        Ok(self.completed(response))
    }

    /// As [`Self::range`], for clients: the memory of all responses is bounded, and a large response is
    /// paged.
    pub async fn range_answer(
        &self,
        caller: &Caller,
        request: RangeRequest,
    ) -> Result<ReadResponse<RangeResponse>, Error> {
        if self.is_learner() && !request.serializable {
            return Err(Refused::NotSupportedForLearner.into());
        }
        mvcc::check_range(&request)?;
        let caller = &*caller.within(spans::RANGE, || spans::range(&request));
        let started = self.0.env.now();
        let logged = request.clone();
        let outcome = self.answer_checked(caller, request).await;
        self.observe_request("Range", started, outcome.is_ok());
        self.warn_of_range(started, &logged, &outcome, |answer| match answer {
            ReadResponse::Whole(response, _) => slow::range_size(response),
            ReadResponse::Paged(frame, pages) => {
                let keys =
                    if logged.limit > 0 { frame.count.min(logged.limit) } else { frame.count };
                (keys, pages.bytes() + frame.encoded_len() as u64)
            }
        });
        outcome
    }

    async fn answer_checked(
        &self,
        caller: &Caller,
        request: RangeRequest,
    ) -> Result<ReadResponse<RangeResponse>, Error> {
        let judged = self.may_range(caller, &request).await?;
        self.metrics().ranges.inc();
        let began = self.0.env.now();
        let answer = self.answer_as_judged(judged, request).await;
        self.observe_range(began, answer.is_ok());
        answer
    }

    async fn answer_as_judged(
        &self,
        judged: Option<u64>,
        request: RangeRequest,
    ) -> Result<ReadResponse<RangeResponse>, Error> {
        if request.count_only {
            let read = self.read_as_judged(true, judged, move |view| view.range(&request));
            return Ok(ReadResponse::Whole(self.completed(read.await?), None));
        }
        if !is_large(&request)
            && let Some(answer) = self.small_answer(&request, judged).await?
        {
            return Ok(answer);
        }
        let answers = self.0.options.response_memory;
        let need = if mvcc::is_sorted(&request) { answers.sorted } else { answers.paged() };
        let charge = self.charge(need).await?;
        let share = answers.share(need);
        let read = self.read_as_judged(true, judged, move |view| view.range_paged(&request, share));
        Ok(match read.await? {
            Ranged::Whole(response) => self.whole(response, charge),
            Ranged::Paged(pages) => {
                let frame = self.completed(pages.frame().clone());
                ReadResponse::Paged(frame, self.pages(vec![(0, *pages)], 0, charge))
            }
        })
    }

    fn observe_range(&self, began: Instant, success: bool) {
        let histogram = self.metrics().range_seconds.with_label_values(&[truth(success)]);
        observe(&histogram, self.0.env.now() - began);
    }

    /// A read-only txn of a client; see [`Self::range_answer`].
    pub(in crate::member) async fn read_only_txn(
        &self,
        caller: &Caller,
        request: TxnRequest,
    ) -> Result<ReadResponse<TxnResponse>, Error> {
        if !mvcc::is_serializable(&request) {
            self.linearizable_for_client().await?;
        }
        let principal = self.identify(caller).await?;
        // Without a put, no lease is looked up.
        let no_lease = |_| Ok(Vec::new());
        let judged = judged_txn(&request);
        self.fatal_stops(self.auth().may_txn(&principal, &judged, &no_lease))??;
        drop(judged);
        let answer = self.txn_as_judged(request, judged_at(caller, &principal)).await?;
        let (ReadResponse::Whole(response, _) | ReadResponse::Paged(response, _)) = &answer;
        read_only_txn(&self.0.metrics, response);
        Ok(answer)
    }

    async fn txn_as_judged(
        &self,
        request: TxnRequest,
        judged: Option<u64>,
    ) -> Result<ReadResponse<TxnResponse>, Error> {
        let answers = self.0.options.response_memory;
        let asked = request.clone();
        let read =
            self.read_as_judged(true, judged, move |view| view.txn_within(&asked, answers.inline));
        if let Some(response) = read.await? {
            let bytes = response.encoded_len();
            if bytes < answers.counted {
                return Ok(ReadResponse::Whole(response, None));
            }
            if let Some(charge) = self.0.response_memory.try_take(2 * bytes) {
                return Ok(ReadResponse::Whole(response, Some(charge)));
            }
        }
        let need = answers.sorted;
        let mut charge = self.charge(need).await?;
        let share = answers.share(need);
        let read = self.read_as_judged(true, judged, move |view| view.txn_paged(&request, share));
        let TxnRead { response, pages } = read.await?;
        let bytes = response.encoded_len();
        if pages.is_empty() {
            charge.shrink(2 * bytes);
            return Ok(ReadResponse::Whole(response, Some(charge)));
        }
        Ok(ReadResponse::Paged(response, self.pages(pages, 2 * bytes, charge)))
    }

    /// Pages, with their charge reduced to what they need; `besides` bytes are held apart from them.
    fn pages(&self, pages: Vec<(usize, mvcc::Pages)>, besides: usize, charge: Charge) -> Pages {
        let mut charge = charge;
        let held: usize = pages.iter().map(|(_, pages)| pages.held()).sum();
        charge.shrink(self.0.options.response_memory.paged() + besides + held);
        let lists = pages.iter().map(|(n, pages)| (*n, pages.bytes())).collect();
        let pages = pages.into_iter().map(|(_, pages)| pages).collect();
        let held = StallGuard::new(self.env(), (pages, charge), limits::ANSWER_STALL);
        Pages { member: self.clone(), lists, held }
    }

    /// Reserves memory for what a writing txn reads and for previous key-values in its response, if that is
    /// much. It may read more when it is applied, but cannot be refused any more once it is in the log.
    pub(in crate::member) async fn charge_for_reads(
        &self,
        caller: &Caller,
        request: &TxnRequest,
    ) -> Result<Option<Charge>, Error> {
        let (reads, walks) = (mvcc::reads_much(request), mvcc::walks_much(request));
        if !(reads || walks) || plant::TXN_NOT_WEIGHED.is_planted() {
            return Ok(None);
        }
        let principal = self.identify(caller).await?;
        let no_lease = |_| Ok(Vec::new());
        if self.fatal_stops(self.auth().may_txn(&principal, request, &no_lease))?.is_err() {
            // The permission is checked again at apply.
            return Ok(None);
        }
        let ResponseMemory { most, counted, .. } = self.0.options.response_memory;
        let (view, asked) = (self.0.store.view(), request.clone());
        let weigh = move || {
            if walks && !view.txn_walks_within(&asked, limits::TXN_WALKED_KEYS_MAX)? {
                return Ok(None);
            }
            view.weigh_txn(&asked, most as u64).map(Some)
        };
        let weight = self.0.env.blocking_for(Work::Reads, "weigh", weigh).await;
        let bytes = self.fatal_stops(weight)?.ok_or(Refused::TooManyOps)?;
        match usize::try_from(bytes).unwrap_or(usize::MAX) {
            bytes if bytes < counted => Ok(None),
            bytes if bytes > most => Err(Unavailable::TooManyRequests.into()),
            bytes => Ok(Some(self.charge(bytes).await?)),
        }
    }

    /// Reads at once; `None` when the response turns out to be large, or does not fit into memory.
    async fn small_answer(
        &self,
        request: &RangeRequest,
        judged: Option<u64>,
    ) -> Result<Option<ReadResponse<RangeResponse>>, Error> {
        let ResponseMemory { inline, counted, .. } = self.0.options.response_memory;
        let asked = request.clone();
        let read =
            self.read_as_judged(false, judged, move |view| view.range_within(&asked, inline));
        let Some(response) = read.await? else { return Ok(None) };
        let bytes = bytes_of(&response);
        if bytes < counted {
            return Ok(Some(ReadResponse::Whole(self.completed(response), None)));
        }
        let charge = self.0.response_memory.try_take(2 * bytes);
        Ok(charge.map(|charge| self.whole(response, charge)))
    }

    /// A response with its charge reduced to what it needs: it exists as read and as sent.
    fn whole(&self, response: RangeResponse, mut charge: Charge) -> ReadResponse<RangeResponse> {
        let bytes = bytes_of(&response);
        charge.shrink(2 * bytes);
        let charge = Some(charge).filter(|_| bytes >= self.0.options.response_memory.counted);
        ReadResponse::Whole(self.completed(response), charge)
    }

    /// Reserves bytes, waiting until they are free.
    async fn charge(&self, bytes: usize) -> Result<Charge, Error> {
        let limit = limits::request_timeout(self.0.options.election_timeout);
        let charge = self.0.env.timeout(limit, self.0.response_memory.take(bytes)).await;
        Ok(charge.unwrap_or(Err(Unavailable::TooManyRequests))?)
    }

    fn completed(&self, response: RangeResponse) -> RangeResponse {
        RangeResponse { header: self.complete(response.header), ..response }
    }

    /// A range in chunks; nothing is read before the first call of [`Chunks::next`].
    pub async fn range_stream(
        &self,
        caller: &Caller,
        request: RangeRequest,
    ) -> Result<Chunks, Error> {
        mvcc::check_range_stream(&request)?;
        let caller = caller.within(spans::RANGE_STREAM, || spans::range_stream(&request));
        let judged = self.may_range(&caller, &request).await?;
        let stream = RangeStream::new(request, self.0.options.request_bytes_max);
        let span = caller.span().cloned();
        Ok(Chunks { member: self.clone(), judged, stream: Some(stream), charge: None, _span: span })
    }

    /// Waits until the state is new enough and checks the permission to read. Returns the auth revision that
    /// the state must still have when it is read.
    async fn may_range(
        &self,
        caller: &Caller,
        request: &RangeRequest,
    ) -> Result<Option<u64>, Error> {
        if !request.serializable {
            self.linearizable_for_client().await?;
        }
        let principal = self.identify(caller).await?;
        self.auth().may_read(&principal, &request.key, judged_end(&request.range_end))?;
        Ok(judged_at(caller, &principal))
    }
}

fn bytes_of(response: &RangeResponse) -> usize {
    response.kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum()
}

/// Whether the response may have more than a few keys.
fn is_large(request: &RangeRequest) -> bool {
    !request.range_end.is_empty() && !(1..=limits::INLINE_RANGE_KEYS).contains(&request.limit)
}

/// The memory that large responses share.
pub(in crate::member) fn budget_of(answers: &ResponseMemory) -> Budget {
    let most = u32::try_from(answers.most).unwrap_or(u32::MAX);
    Budget::new(most, limits::ANSWERS_WAITING_MAX)
}

/// A response to a client's read.
pub enum ReadResponse<T> {
    /// With its reserved memory, to be held until it is sent.
    Whole(T, Option<Charge>),
    /// Without the keys that follow in pages.
    Paged(T, Pages),
}

/// The keys of a large response, read page by page.
pub struct Pages {
    member: Member,
    /// The index of the response within a txn, 0 for a single range, and the bytes of its keys as field 2.
    lists: Vec<(usize, u64)>,
    held: StallGuard<(VecDeque<mvcc::Pages>, Charge)>,
}

impl Pages {
    /// The lists of keys, and the bytes of each.
    pub fn lists(&self) -> &[(usize, u64)] {
        &self.lists
    }

    /// Whether the keys of that response are paged.
    pub fn has(&self, response: usize) -> bool {
        self.lists.iter().any(|(n, _)| *n == response)
    }

    /// The bytes of all keys.
    pub fn bytes(&self) -> u64 {
        self.lists.iter().map(|(_, bytes)| bytes).sum()
    }

    /// The next keys; none at the end of a list, after which the next list begins.
    pub async fn next(&mut self) -> Result<Vec<KeyValue>, Error> {
        let (mut lists, charge) = self.held.take().ok_or(Unavailable::Canceled)?;
        let member = &self.member;
        let bytes = member.0.options.response_memory.page;
        let read = member.0.env.blocking_for(Work::Reads, "page", move || {
            let kvs = lists.front_mut().map_or(Ok(Vec::new()), |pages| pages.next(bytes))?;
            if kvs.is_empty() {
                lists.pop_front();
            }
            Ok((kvs, lists))
        });
        let (kvs, lists) = member.fatal_stops(read.await)?;
        self.held.put((lists, charge));
        Ok(kvs)
    }
}

/// The chunks of a RangeStream, each read on demand.
pub struct Chunks {
    member: Member,
    /// The auth revision that the state must have for every chunk: permissions are checked once.
    judged: Option<u64>,
    /// `None` after the last chunk, or an error.
    stream: Option<RangeStream>,
    /// For the chunk in flight; a client that stalls loses the charge, but not the stream.
    charge: Option<StallGuard<Charge>>,
    /// Ends with the stream.
    _span: Option<Span>,
}

impl Chunks {
    /// The next chunk; the last one has a header.
    pub async fn next(&mut self) -> Result<Option<RangeResponse>, Error> {
        let Some(mut stream) = self.stream.take() else { return Ok(None) };
        // The first chunk has a few keys only.
        let large = !stream.is_fresh();
        // The previous chunk has been sent by now.
        self.charge = None;
        let bytes = 2 * stream.bytes_max();
        let charge = self.member.charge(bytes).await?;
        self.charge = Some(StallGuard::new(self.member.env(), charge, limits::ANSWER_STALL));
        let read = self.member.read_as_judged(large, self.judged, move |view| {
            Ok(view.range_chunk(&mut stream)?.map(|chunk| (chunk, stream)))
        });
        let (mut chunk, stream) = read.await?;
        let member = &self.member;
        member.metrics().ranges.inc();
        chunk.header = chunk.header.map(|header| member.header_at(Revision(header.revision)));
        self.stream = Some(stream).filter(|stream| !stream.is_over());
        Ok(Some(chunk))
    }
}
