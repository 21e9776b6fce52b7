//! Ranges, whole and as streams: the read index, the permission, the state to read from.

use quorate_proto::etcdserverpb::{RangeRequest, RangeResponse};

use super::requests::judged_at;
use super::{Caller, Member};
use crate::error::{Error, Refused};
use crate::limits;
use crate::mvcc::{self, RangeStream};
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
        let outcome = self.range_checked(caller, request).await;
        self.observe_request("Range", started, outcome.is_ok());
        outcome
    }

    async fn range_checked(
        &self,
        caller: &Caller,
        request: RangeRequest,
    ) -> Result<RangeResponse, Error> {
        let judged = self.may_range(caller, &request).await?;
        let large = !request.range_end.is_empty()
            && !(1..=limits::INLINE_RANGE_KEYS).contains(&request.limit);
        let mut response =
            self.read_as_judged(large, judged, move |view| view.range(&request)).await?;
        response.header = self.complete(response.header);
        self.metrics().ranges.inc();
        Ok(response)
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
        Ok(Chunks { member: self.clone(), judged, stream: Some(stream) })
    }

    /// Waits until the state is new enough and asks whether `caller` may read those keys. Tells the auth
    /// revision that the state must still have when it is read.
    async fn may_range(
        &self,
        caller: &Caller,
        request: &RangeRequest,
    ) -> Result<Option<u64>, Error> {
        if !request.serializable {
            self.linearizable().await?;
        }
        let who = self.identify(caller).await?;
        self.auth().may_read(&who, &request.key, &request.range_end)?;
        Ok(judged_at(caller, &who))
    }
}

/// The chunks of a RangeStream, each read when it is asked for.
pub struct Chunks {
    member: Member,
    /// The auth revision that every chunk must find: permissions are not asked for again.
    judged: Option<u64>,
    /// None after the last one, or an error.
    stream: Option<RangeStream>,
}

impl Chunks {
    /// The next chunk; the last one has a header.
    pub async fn next(&mut self) -> Result<Option<RangeResponse>, Error> {
        let Some(mut stream) = self.stream.take() else { return Ok(None) };
        // The first has a few keys only.
        let large = !stream.is_fresh();
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
