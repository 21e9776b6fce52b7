//! On whose behalf a request is made: from what a client shows to who it is, and whether that is enough
//! for the RPC it calls. What keys it may touch is judged where they are touched.

use std::borrow::Cow;
use std::sync::Arc;

use quorate_proto::otlp::common::v1::KeyValue;

use super::Member;
use super::tokens::{Tokens, given_at};
use crate::auth::{Auth, Principal, Rule};
use crate::error::{Error, Refused};
use crate::limits;
use crate::trace::Span;

/// What a caller shows of itself.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    token: Option<Arc<str>>,
    common_name: Option<Arc<str>>,
    internal: bool,
    /// What is being done for it, if that is traced.
    span: Option<Span>,
}

impl Caller {
    /// A client with the token and the name in its certificate, where it has them. The name must have
    /// been verified. A token that is there counts alone, also when it is wrong.
    pub fn client(token: Option<&str>, common_name: Option<&str>) -> Self {
        Self {
            token: token.map(Arc::from),
            common_name: common_name.map(Arc::from),
            internal: false,
            span: None,
        }
    }

    /// The member itself: it may do everything.
    pub fn internal() -> Self {
        Self { internal: true, ..Self::default() }
    }

    /// The same, whose call is traced.
    pub fn traced(self, span: Span) -> Self {
        Self { span: Some(span), ..self }
    }

    pub fn span(&self) -> Option<&Span> {
        self.span.as_ref()
    }

    /// The same in a part of what is done for it, which is over when what is returned is dropped.
    pub(super) fn within(
        &self,
        part: &'static str,
        attributes: impl FnOnce() -> Vec<KeyValue>,
    ) -> Cow<'_, Self> {
        match &self.span {
            None => Cow::Borrowed(self),
            Some(span) => {
                Cow::Owned(Self { span: Some(span.within(part, attributes())), ..self.clone() })
            }
        }
    }

    /// Whether it shows nothing.
    pub fn is_nobody(&self) -> bool {
        !self.internal && self.token.is_none() && self.common_name.is_none()
    }

    pub fn is_internal(&self) -> bool {
        self.internal
    }

    /// To be shown to another member.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }
}

impl Member {
    /// Whether `caller` may make a call of this rule. What depends on the content of the call is let
    /// through here.
    pub async fn permit(&self, caller: &Caller, rule: Rule) -> Result<(), Error> {
        if matches!(rule, Rule::Anyone | Rule::Content) || !self.auth().is_enabled() {
            return Ok(());
        }
        let who = self.identify(caller).await?;
        let auth = self.auth();
        match rule {
            Rule::Root => auth.is_admin(&who)?,
            _ => auth.is_user(&who)?,
        }
        Ok(())
    }

    /// The tables as this member has applied them.
    pub fn auth(&self) -> Arc<Auth> {
        self.0.signals.auth.borrow().clone()
    }

    /// Who the caller is; nobody when it says nothing, or when nobody judges.
    pub(super) async fn identify(&self, caller: &Caller) -> Result<Principal, Error> {
        self.hear_of(caller).await?;
        Ok(self.identify_now(caller)?)
    }

    /// Waits until this member has applied the login that gave the caller its token. A token that no
    /// login gave is not waited for longer than a request may take.
    pub(super) async fn hear_of(&self, caller: &Caller) -> Result<(), Error> {
        let (Some(token), Tokens::Simple(simple)) = (&caller.token, &*self.0.tokens) else {
            return Ok(());
        };
        if !self.auth().is_enabled() {
            return Ok(());
        }
        let index = given_at(token).ok_or(Refused::InvalidAuthToken)?;
        // A token that is known needs no wait, whatever its index: etcd 3.4 counts the login's own entry.
        if *self.0.signals.applied.borrow() >= index
            || simple.holder(self.0.env.now(), token).is_some()
        {
            return Ok(());
        }
        let mut applied = self.0.signals.applied.subscribe();
        let limit = limits::request_timeout(self.0.options.election_timeout);
        let reached = applied.wait_for(|applied| *applied >= index);
        match self.0.env.timeout(limit, reached).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Refused::InvalidAuthToken.into()),
        }
    }

    /// As [`Self::identify`], by what this member knows now.
    pub(super) fn identify_now(&self, caller: &Caller) -> Result<Principal, Refused> {
        let auth = self.auth();
        if caller.internal {
            return Ok(auth.root());
        }
        if !auth.is_enabled() {
            return Ok(Principal::default());
        }
        if let Some(token) = &caller.token {
            let who = match &*self.0.tokens {
                Tokens::Simple(simple) => {
                    simple.holder(self.0.env.now(), token).map(|user| auth.principal(&user))
                }
                Tokens::Jwt(jwt) => jwt.verify(token, self.0.env.wall()),
                Tokens::None => None,
            };
            return who.ok_or(Refused::InvalidAuthToken);
        }
        Ok(caller.common_name.as_ref().map_or_else(Principal::default, |cn| auth.principal(cn)))
    }
}
