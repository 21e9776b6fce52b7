//! Ranges, whole and as streams: the read index, the permission, the state to read from.

use prost::Message as _;
use quorate_proto::etcdserverpb::{RangeRequest, RangeResponse};
use quorate_proto::mvccpb::KeyValue;

use super::budget::{Budget, Charge};
use super::requests::judged_at;
use super::stall::Held;
use super::{Answers, Caller, Member, slow};
use crate::error::{Error, Refused, Unavailable};
use crate::limits;
use crate::mvcc::{self, RangeStream, Ranged};
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
        let large = is_large(&request);
        let mut response =
            self.read_as_judged(large, judged, move |view| view.range(&request)).await?;
        response.header = self.complete(response.header);
        self.metrics().ranges.inc();
        Ok(response)
    }

    /// As [`Self::range`], for clients: what their answers take together is bounded, and a large one
    /// comes in pages.
    pub async fn range_answer(
        &self,
        caller: &Caller,
        request: RangeRequest,
    ) -> Result<Answer, Error> {
        if self.is_learner() && !request.serializable {
            return Err(Refused::NotSupportedForLearner.into());
        }
        mvcc::check_range(&request)?;
        let started = self.0.env.now();
        let logged = request.clone();
        let outcome = self.answer_checked(caller, request).await;
        self.observe_request("Range", started, outcome.is_ok());
        self.warn_of_range(started, &logged, &outcome, |answer| match answer {
            Answer::Whole(response, _) => slow::range_size(response),
            Answer::Paged(pages) => pages.size(logged.limit),
        });
        outcome
    }

    async fn answer_checked(
        &self,
        caller: &Caller,
        request: RangeRequest,
    ) -> Result<Answer, Error> {
        let judged = self.may_range(caller, &request).await?;
        self.metrics().ranges.inc();
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
        let need = if mvcc::is_sorted(&request) { answers.sorted() } else { answers.paged() };
        let charge = self.charge(need).await?;
        let page = answers.page;
        let read = self.read_as_judged(true, judged, move |view| view.range_paged(&request, page));
        Ok(match read.await? {
            Ranged::Whole(response) => self.whole(response, charge),
            Ranged::Paged(pages) => {
                let (frame, bytes) = (self.completed(pages.frame().clone()), pages.bytes());
                let held = Held::new(self.env(), (pages, charge), limits::ANSWER_STALL);
                Answer::Paged(Pages { member: self.clone(), frame, bytes, held })
            }
        })
    }

    /// Read at once; none when it turns out to be large, or when there is no room for what it takes.
    async fn small_answer(
        &self,
        request: &RangeRequest,
        judged: Option<u64>,
    ) -> Result<Option<Answer>, Error> {
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
    fn whole(&self, response: RangeResponse, mut charge: Charge) -> Answer {
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
        let judged = self.may_range(caller, &request).await?;
        let stream = RangeStream::new(request, self.0.options.request_bytes_max);
        Ok(Chunks { member: self.clone(), judged, stream: Some(stream), charge: None })
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
pub enum Answer {
    /// With what was set aside for it, which must be held until it is sent.
    Whole(RangeResponse, Option<Charge>),
    Paged(Pages),
}

/// A large answer; its keys are read when they are asked for.
pub struct Pages {
    member: Member,
    frame: RangeResponse,
    bytes: u64,
    held: Held<(mvcc::Pages, Charge)>,
}

impl Pages {
    /// The answer without its keys.
    pub fn frame(&self) -> &RangeResponse {
        &self.frame
    }

    /// What all keys take in the answer, as its field 2.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many keys there are, given the limit on them, and the size of the answer, bytes.
    fn size(&self, limit: i64) -> (i64, u64) {
        let keys = if limit > 0 { self.frame.count.min(limit) } else { self.frame.count };
        (keys, self.bytes + self.frame.encoded_len() as u64)
    }

    /// The next keys, none after the last.
    pub async fn next(&mut self) -> Result<Vec<KeyValue>, Error> {
        let (mut pages, charge) = self.held.take().ok_or(Unavailable::Canceled)?;
        let member = &self.member;
        let bytes = member.0.options.answers.page;
        let read = member.0.env.blocking("page", move || pages.next(bytes).map(|kvs| (kvs, pages)));
        let (kvs, pages) = member.fatal_stops(read.await)?;
        self.held.put((pages, charge));
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
