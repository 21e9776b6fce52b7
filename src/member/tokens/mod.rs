//! Tokens, which authenticate the calls of a client after its login. Simple ones are stored by all members
//! for a limited time; signed ones ([`jwt`]) are verified by their signature. Permissions are not known here.
//!
//! A simple token is etcd's `<16 random letters>.<index>`, where the index is that of the log entry before
//! the login's own: a member that has not applied the login waits until it has. Each use prolongs the token
//! on the member that receives the call. No token survives a restart.

pub mod jwt;
mod passwords;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::env::Env;
use crate::error::{Fatal, Refused};
use crate::types::Index;
use jwt::{Jwt, JwtOptions};

pub(in crate::member) use passwords::Passwords;

/// The kind of tokens (`--auth-token`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenKind {
    Simple {
        ttl: Duration,
    },
    Jwt(JwtOptions),
    /// No logins: users authenticate by certificate only.
    None,
}

pub(in crate::member) enum Tokens {
    Simple(Simple),
    Jwt(Box<Jwt>),
    None,
}

impl Tokens {
    /// Whether simple tokens are known.
    pub fn are_given(&self) -> bool {
        matches!(self, Self::Simple(simple) if !simple.table().tokens.is_empty())
    }

    /// Reads the keys of signed tokens.
    pub async fn open(env: &Env, kind: &TokenKind) -> Result<Self, Fatal> {
        Ok(match kind {
            TokenKind::Simple { ttl } => {
                warn!("simple token is not cryptographically signed");
                Self::Simple(Simple::new(*ttl))
            }
            TokenKind::Jwt(options) => {
                let (disk, options) = (env.disk.clone(), options.clone());
                let jwt = env.blocking("read keys", move || Jwt::load(&*disk, &options)).await?;
                Self::Jwt(Box::new(jwt))
            }
            TokenKind::None => Self::None,
        })
    }

    /// The random part of a simple token, for the entry of a login; empty for signed tokens.
    pub fn draw(&self, env: &Env) -> String {
        match self {
            Self::Simple(_) => draw_letters(env),
            Self::Jwt(_) | Self::None => String::new(),
        }
    }

    /// The token of an applied login: that of its entry, or one signed now.
    pub fn issue(
        &self,
        env: &Env,
        user: &str,
        revision: u64,
        given: String,
    ) -> Result<String, Refused> {
        match self {
            Self::Simple(_) => Ok(given),
            Self::Jwt(jwt) => jwt.sign(env, user, revision),
            Self::None => Err(Refused::AuthFailed),
        }
    }
}

/// The simple tokens of this member.
pub(in crate::member) struct Simple {
    ttl: Duration,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    tokens: BTreeMap<String, Holder>,
    swept: Option<Instant>,
}

struct Holder {
    user: String,
    until: Instant,
}

/// How often expired tokens are removed, as in etcd.
const SWEEP: Duration = Duration::from_secs(1);
/// Used when `--auth-token-ttl` is 0.
const TTL_DEFAULT: Duration = Duration::from_secs(300);
/// Longer times do not fit into an `Instant`.
const TTL_MAX: Duration = Duration::from_secs(u32::MAX as u64);

impl Simple {
    fn new(ttl: Duration) -> Self {
        let ttl = if ttl.is_zero() { TTL_DEFAULT } else { ttl.min(TTL_MAX) };
        Self { ttl, table: Mutex::default() }
    }

    pub fn give(&self, now: Instant, user: String, token: String) {
        let mut table = self.table();
        if table.swept.is_none_or(|swept| now >= swept + SWEEP) {
            table.tokens.retain(|_, holder| now < holder.until);
            table.swept = Some(now);
        }
        table.tokens.insert(token, Holder { user, until: now + self.ttl });
    }

    /// The user of a token, whose time to live begins again.
    pub fn holder(&self, now: Instant, token: &str) -> Option<String> {
        let mut table = self.table();
        let holder = table.tokens.get_mut(token).filter(|holder| now < holder.until)?;
        holder.until = now + self.ttl;
        Some(holder.user.clone())
    }

    pub fn end_of(&self, user: &str) {
        self.table().tokens.retain(|_, holder| holder.user != user);
    }

    pub fn end_all(&self) {
        self.table().tokens.clear();
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("nothing panics while it holds the tokens")
    }
}

/// The index of the login that issued a simple token; `None` for other tokens.
pub(in crate::member) fn given_at(token: &str) -> Option<Index> {
    let (letters, index) = token.split_once('.')?;
    // No sign, no second dot: etcd's parser accepts digits only.
    let digits = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
    let before: u64 = index.parse().ok().filter(|_| digits && !letters.contains('.'))?;
    Some(Index(before.saturating_add(1)))
}

const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const DRAWN: usize = 16;

/// Every letter is as likely as every other: bytes above the last multiple of 52 are drawn again.
fn draw_letters(env: &Env) -> String {
    let mut drawn = String::with_capacity(DRAWN);
    let fair = 256 / LETTERS.len() * LETTERS.len();
    while drawn.len() < DRAWN {
        let mut bytes = [0; 2 * DRAWN];
        env.rt.fill_random(&mut bytes);
        let letters = bytes.into_iter().map(usize::from).filter(|byte| *byte < fair);
        let missing = DRAWN - drawn.len();
        drawn.extend(letters.take(missing).map(|byte| char::from(LETTERS[byte % LETTERS.len()])));
    }
    drawn
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "any instant will do: only differences count")]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    #[test]
    fn a_token_lasts_from_its_last_use() {
        let (simple, start) = (Simple::new(TTL), Instant::now());
        simple.give(start, "ann".into(), "x.1".into());
        assert_eq!(simple.holder(start + TTL / 2, "x.1").as_deref(), Some("ann"));
        assert_eq!(simple.holder(start + TTL, "x.1").as_deref(), Some("ann"));
        assert_eq!(simple.holder(start + 2 * TTL, "x.1"), None);
        assert_eq!(simple.holder(start, "y.1"), None);
    }

    #[test]
    fn tokens_that_are_over_are_forgotten() {
        let (simple, start) = (Simple::new(TTL), Instant::now());
        for n in 0..100 {
            simple.give(start + n * TTL / 4, "ann".into(), format!("x.{n}"));
        }
        let kept = simple.table().tokens.len();
        assert!(kept <= 5, "{kept} tokens are kept where four are alive");
    }

    #[test]
    fn tokens_end_with_their_user_or_all() {
        let (simple, now) = (Simple::new(TTL), Instant::now());
        for (user, token) in [("ann", "a.1"), ("bob", "b.2"), ("ann", "a.3")] {
            simple.give(now, user.into(), token.into());
        }
        simple.end_of("ann");
        let held = |token| simple.holder(now, token).is_some();
        assert_eq!(["a.1", "b.2", "a.3"].map(held), [false, true, false]);
        simple.end_all();
        assert!(!held("b.2"));
    }

    #[test]
    fn the_index_of_a_token_is_read_as_etcd_reads_it() {
        assert_eq!(given_at("abc.12"), Some(Index(13)));
        assert_eq!(given_at(".0"), Some(Index(1)));
        for not in ["abc", "abc.", "a.b.1", "abc.+1", "abc.-1", "abc.1x", "a.99999999999999999999"]
        {
            assert_eq!(given_at(not), None, "{not}");
        }
    }
}
