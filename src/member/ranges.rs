//! Ranges, whole, as streams and in txns that only read: the read index, the permission, the state to
//! read from, and the memory that their answers take.

use std::collections::VecDeque;
use std::time::Instant;

use prost::Message as _;
use quorate_proto::etcdserverpb::{RangeRequest, RangeResponse, TxnRequest, TxnResponse};
use quorate_proto::mvccpb::KeyValue;

use super::budget::{Budget, Charge};
use super::requests::judged_at;
use super::stall::Held;
use super::{Answers, Caller, Member, slow, spans, tally};
use crate::error::{Error, Refused, Unavailable};
use crate::limits;
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

    /// As [`Self::range`], for clients: what their answers take together is bounded, and a large one
    /// comes in pages.
    pub async fn range_answer(
        &self,
        caller: &Caller,
        request: RangeRequest,
    ) -> Result<Answer<RangeResponse>, Error> {
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
            Answer::Whole(response, _) => slow::range_size(response),
            Answer::Paged(frame, pages) => {
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
    ) -> Result<Answer<RangeResponse>, Error> {
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
    ) -> Result<Answer<RangeResponse>, Error> {
        if request.count_only {
            let read = self.read_as_judged(true, judged, move |view| view.range(&request));
            return Ok(Answer::Whole(self.completed(read.await?), None));
        }
        if !is_large(&request)
            && let Some(answer) = self.small_answer(&request, judged).await?
        {
            return Ok(answer);
        }
        let answers = self.0.options.answers;
        let need = if mvcc::is_sorted(&request) { answers.sorted } else { answers.paged() };
        let charge = self.charge(need).await?;
        let share = answers.share(need);
        let read = self.read_as_judged(true, judged, move |view| view.range_paged(&request, share));
        Ok(match read.await? {
            Ranged::Whole(response) => self.whole(response, charge),
            Ranged::Paged(pages) => {
                let frame = self.completed(pages.frame().clone());
                Answer::Paged(frame, self.pages(vec![(0, *pages)], 0, charge))
            }
        })
    }

    fn observe_range(&self, began: Instant, success: bool) {
        let histogram = self.metrics().range_seconds.with_label_values(&[truth(success)]);
        observe(&histogram, self.0.env.now() - began);
    }

    /// A txn that only reads, for clients: as [`Self::range_answer`].
    pub(super) async fn read_only_txn(
        &self,
        caller: &Caller,
        request: TxnRequest,
    ) -> Result<Answer<TxnResponse>, Error> {
        if !mvcc::is_serializable(&request) {
            self.linearizable_for_client().await?;
        }
        let who = self.identify(caller).await?;
        // It puts nothing, so no lease's keys are asked for.
        let no_lease = |_| Ok(Vec::new());
        self.fatal_stops(self.auth().may_txn(&who, &request, &no_lease))??;
        let answer = self.txn_as_judged(request, judged_at(caller, &who)).await?;
        let (Answer::Whole(response, _) | Answer::Paged(response, _)) = &answer;
        tally::read_only_txn(&self.0.metrics, response);
        Ok(answer)
    }

    async fn txn_as_judged(
        &self,
        request: TxnRequest,
        judged: Option<u64>,
    ) -> Result<Answer<TxnResponse>, Error> {
        let answers = self.0.options.answers;
        let asked = request.clone();
        let read =
            self.read_as_judged(true, judged, move |view| view.txn_within(&asked, answers.inline));
        if let Some(response) = read.await? {
            let bytes = response.encoded_len();
            if bytes < answers.counted {
                return Ok(Answer::Whole(response, None));
            }
            if let Some(charge) = self.0.answers.try_take(2 * bytes) {
                return Ok(Answer::Whole(response, Some(charge)));
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
            return Ok(Answer::Whole(response, Some(charge)));
        }
        Ok(Answer::Paged(response, self.pages(pages, 2 * bytes, charge)))
    }

    /// Pages, with what is still needed of their charge: `besides` bytes are held apart from them.
    fn pages(&self, pages: Vec<(usize, mvcc::Pages)>, besides: usize, charge: Charge) -> Pages {
        let mut charge = charge;
        let held: usize = pages.iter().map(|(_, pages)| pages.held()).sum();
        charge.shrink(self.0.options.answers.paged() + besides + held);
        let lists = pages.iter().map(|(n, pages)| (*n, pages.bytes())).collect();
        let pages = pages.into_iter().map(|(_, pages)| pages).collect();
        let held = Held::new(self.env(), (pages, charge), limits::ANSWER_STALL);
        Pages { member: self.clone(), lists, held }
    }

    /// Sets aside what a txn that writes will have read, or will tell of what was before it, when it is
    /// answered, if that is much. What it finds then may be more: nobody can refuse it any more when the
    /// log has it.
    pub(super) async fn charge_for_reads(
        &self,
        caller: &Caller,
        request: &TxnRequest,
    ) -> Result<Option<Charge>, Error> {
        let (reads, walks) = (mvcc::reads_much(request), mvcc::walks_much(request));
        if !(reads || walks) || plant::TXN_NOT_WEIGHED.is_planted() {
            return Ok(None);
        }
        let who = self.identify(caller).await?;
        let no_lease = |_| Ok(Vec::new());
        if self.fatal_stops(self.auth().may_txn(&who, request, &no_lease))?.is_err() {
            // It is judged again when it is applied.
            return Ok(None);
        }
        let Answers { most, counted, .. } = self.0.options.answers;
        let (view, asked) = (self.0.store.view(), request.clone());
        let weigh = move || {
            if walks && !view.txn_walks_within(&asked, limits::TXN_WALKED_KEYS_MAX)? {
                return Ok(None);
            }
            view.weigh_txn(&asked, most as u64).map(Some)
        };
        let weight = self.fatal_stops(self.0.env.blocking("weigh", weigh).await)?;
        let bytes = weight.ok_or(Refused::TooManyOps)?;
        match usize::try_from(bytes).unwrap_or(usize::MAX) {
            bytes if bytes < counted => Ok(None),
            bytes if bytes > most => Err(Unavailable::TooManyRequests.into()),
            bytes => Ok(Some(self.charge(bytes).await?)),
        }
    }

    /// Read at once; none when it turns out to be large, or when there is no room for what it takes.
    async fn small_answer(
        &self,
        request: &RangeRequest,
        judged: Option<u64>,
    ) -> Result<Option<Answer<RangeResponse>>, Error> {
        let Answers { inline, counted, .. } = self.0.options.answers;
        let asked = request.clone();
        let read =
            self.read_as_judged(false, judged, move |view| view.range_within(&asked, inline));
        let Some(response) = read.await? else { return Ok(None) };
        let bytes = bytes_of(&response);
        if bytes < counted {
            return Ok(Some(Answer::Whole(self.completed(response), None)));
        }
        let charge = self.0.answers.try_take(2 * bytes);
        Ok(charge.map(|charge| self.whole(response, charge)))
    }

    /// An answer with what was set aside for it, as far as that is needed: it is there as it was read and
    /// as it is sent.
    fn whole(&self, response: RangeResponse, mut charge: Charge) -> Answer<RangeResponse> {
        let bytes = bytes_of(&response);
        charge.shrink(2 * bytes);
        let charge = Some(charge).filter(|_| bytes >= self.0.options.answers.counted);
        Answer::Whole(self.completed(response), charge)
    }

    /// Sets bytes aside, when there are some.
    async fn charge(&self, bytes: usize) -> Result<Charge, Error> {
        let limit = limits::request_timeout(self.0.options.election_timeout);
        let charge = self.0.env.timeout(limit, self.0.answers.take(bytes)).await;
        Ok(charge.unwrap_or(Err(Unavailable::TooManyRequests))?)
    }

    fn completed(&self, response: RangeResponse) -> RangeResponse {
        RangeResponse { header: self.complete(response.header), ..response }
    }

    /// A range in chunks; nothing is read before the first is asked for.
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

    /// Waits until the state is new enough and asks whether `caller` may read those keys. Tells the auth
    /// revision that the state must still have when it is read.
    async fn may_range(
        &self,
        caller: &Caller,
        request: &RangeRequest,
    ) -> Result<Option<u64>, Error> {
        if !request.serializable {
            self.linearizable_for_client().await?;
        }
        let who = self.identify(caller).await?;
        self.auth().may_read(&who, &request.key, &request.range_end)?;
        Ok(judged_at(caller, &who))
    }
}

fn bytes_of(response: &RangeResponse) -> usize {
    response.kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum()
}

/// Whether it may be more than a few keys.
fn is_large(request: &RangeRequest) -> bool {
    !request.range_end.is_empty() && !(1..=limits::INLINE_RANGE_KEYS).contains(&request.limit)
}

/// The bytes that large answers share.
pub(super) fn budget_of(answers: &Answers) -> Budget {
    let most = u32::try_from(answers.most).unwrap_or(u32::MAX);
    Budget::new(most, limits::ANSWERS_WAITING_MAX)
}

/// What a client is told.
pub enum Answer<T> {
    /// With what was set aside for it, which must be held until it is sent.
    Whole(T, Option<Charge>),
    /// Without the keys that come in pages.
    Paged(T, Pages),
}

/// The keys of a large answer; they are read when they are asked for.
pub struct Pages {
    member: Member,
    /// Of which of a txn's responses they are, 0 for a single range, and what they take in it, as its
    /// field 2.
    lists: Vec<(usize, u64)>,
    held: Held<(VecDeque<mvcc::Pages>, Charge)>,
}

impl Pages {
    /// Which lists of keys there are, and what each takes, bytes.
    pub fn lists(&self) -> &[(usize, u64)] {
        &self.lists
    }

    /// Whether the keys of that response are among them.
    pub fn has(&self, response: usize) -> bool {
        self.lists.iter().any(|(n, _)| *n == response)
    }

    /// What all keys take.
    pub fn bytes(&self) -> u64 {
        self.lists.iter().map(|(_, bytes)| bytes).sum()
    }

    /// The next keys, none after the last of a list, behind which the next list begins.
    pub async fn next(&mut self) -> Result<Vec<KeyValue>, Error> {
        let (mut lists, charge) = self.held.take().ok_or(Unavailable::Canceled)?;
        let member = &self.member;
        let bytes = member.0.options.answers.page;
        let read = member.0.env.blocking("page", move || {
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

/// The chunks of a RangeStream, each read when it is asked for.
pub struct Chunks {
    member: Member,
    /// The auth revision that every chunk must find: permissions are not asked for again.
    judged: Option<u64>,
    /// None after the last one, or an error.
    stream: Option<RangeStream>,
    /// For the chunk that is on its way; a client that takes nothing loses it, but not the stream.
    charge: Option<Held<Charge>>,
    /// It ends with the last chunk, or when nobody wants another.
    _span: Option<Span>,
}

impl Chunks {
    /// The next chunk; the last one has a header.
    pub async fn next(&mut self) -> Result<Option<RangeResponse>, Error> {
        let Some(mut stream) = self.stream.take() else { return Ok(None) };
        // The first has a few keys only.
        let large = !stream.is_fresh();
        // The one before is sent when this one is asked for.
        self.charge = None;
        let bytes = 2 * stream.bytes_max();
        let charge = self.member.charge(bytes).await?;
        self.charge = Some(Held::new(self.member.env(), charge, limits::ANSWER_STALL));
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
