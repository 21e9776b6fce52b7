//! The caller of a request: from a client's credentials to its user, and whether that user may call an RPC.
//! Permissions on keys are checked where the keys are read or written.

use std::borrow::Cow;
use std::sync::Arc;

use quorate_proto::otlp::common::v1::KeyValue;

use crate::auth::{Auth, Principal, Rule};
use crate::error::{Error, Refused};
use crate::limits;
use crate::member::Member;
use crate::member::tokens::{Tokens, given_at};
use crate::trace::Span;

/// The credentials of a caller.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    token: Option<Arc<str>>,
    common_name: Option<Arc<str>>,
    internal: bool,
    /// The span of the call, if it is traced.
    span: Option<Span>,
}

impl Caller {
    /// A client with its token and the verified common name of its certificate. A token takes precedence,
    /// even an invalid one.
    pub fn client(token: Option<&str>, common_name: Option<&str>) -> Self {
        Self {
            token: token.map(Arc::from),
            common_name: common_name.map(Arc::from),
            internal: false,
            span: None,
        }
    }

    /// The member itself, which has all permissions.
    pub fn internal() -> Self {
        Self { internal: true, ..Self::default() }
    }

    /// The same caller with a traced call.
    pub fn traced(self, span: Span) -> Self {
        Self { span: Some(span), ..self }
    }

    pub fn span(&self) -> Option<&Span> {
        self.span.as_ref()
    }

    /// The same caller within a child span, which ends when the returned value is dropped.
    pub(in crate::member) fn within(
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

    /// Whether it has no credentials.
    pub fn is_anonymous(&self) -> bool {
        !self.internal && self.token.is_none() && self.common_name.is_none()
    }

    pub fn is_internal(&self) -> bool {
        self.internal
    }

    /// The token, to be forwarded to another member.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }
}

impl Member {
    /// Whether `caller` may make a call with this rule. Calls whose permission depends on their content pass
    /// here.
    pub async fn permit(&self, caller: &Caller, rule: Rule) -> Result<(), Error> {
        if matches!(rule, Rule::Anyone | Rule::Content) || !self.auth().is_enabled() {
            return Ok(());
        }
        let principal = self.identify(caller).await?;
        let auth = self.auth();
        match rule {
            Rule::Root => auth.is_admin(&principal)?,
            _ => auth.is_user(&principal)?,
        }
        Ok(())
    }

    /// Whether the caller is a user; where authentication is disabled, every caller is known.
    pub fn knows(&self, caller: &Caller) -> bool {
        let auth = self.auth();
        !auth.is_enabled() || self.identify_now(caller).is_ok_and(|who| auth.is_user(&who).is_ok())
    }

    /// The tables as this member has applied them.
    pub fn auth(&self) -> Arc<Auth> {
        self.0.signals.auth.borrow().clone()
    }

    /// The caller's user; no user without credentials, or when authentication is disabled.
    pub(in crate::member) async fn identify(&self, caller: &Caller) -> Result<Principal, Error> {
        self.await_login(caller).await?;
        Ok(self.identify_now(caller)?)
    }

    /// Waits until this member has applied the login that issued the caller's token, at most as long as a
    /// request may take.
    pub(in crate::member) async fn await_login(&self, caller: &Caller) -> Result<(), Error> {
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

    /// As [`Self::identify`], without waiting.
    pub(in crate::member) fn identify_now(&self, caller: &Caller) -> Result<Principal, Refused> {
        let auth = self.auth();
        if caller.internal {
            return Ok(auth.root());
        }
        if !auth.is_enabled() {
            return Ok(Principal::default());
        }
        if let Some(token) = &caller.token {
            let principal = match &*self.0.tokens {
                Tokens::Simple(simple) => {
                    simple.holder(self.0.env.now(), token).map(|user| auth.principal(&user))
                }
                Tokens::Jwt(jwt) => jwt.verify(token, self.0.env.wall()),
                Tokens::None => None,
            };
            return principal.ok_or(Refused::InvalidAuthToken);
        }
        Ok(caller.common_name.as_ref().map_or_else(Principal::default, |cn| auth.principal(cn)))
    }
}
