//! Tokens: what a client that has logged in shows with its further calls. Simple ones are names that
//! all members remember for a while; signed ones ([`super::jwt`]) tell by themselves. Who may do what is
//! not known here.
//!
//! A simple token is etcd's `<16 random letters>.<index>`, the index being that of the log entry before
//! the login's own: a member that has not applied the login waits until it has. Each use prolongs a token
//! at the member that was asked, and there only. None survives a restart.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::jwt::{Jwt, JwtOptions};
use crate::env::Env;
use crate::error::{Fatal, Refused};
use crate::types::Index;

/// How clients show that they have logged in (`--auth-token`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenKind {
    Simple {
        ttl: Duration,
    },
    Jwt(JwtOptions),
    /// Not at all: nobody can log in, and certificates are the only names.
    None,
}

pub(super) enum Tokens {
    Simple(Simple),
    Jwt(Box<Jwt>),
    None,
}

impl Tokens {
    /// Reads the keys, where there are any.
    pub async fn open(env: &Env, kind: &TokenKind) -> Result<Self, Fatal> {
        Ok(match kind {
            TokenKind::Simple { ttl } => Self::Simple(Simple::new(*ttl)),
            TokenKind::Jwt(options) => {
                let (disk, options) = (env.disk.clone(), options.clone());
                let jwt = env.blocking("read keys", move || Jwt::load(&*disk, &options)).await?;
                Self::Jwt(Box::new(jwt))
            }
            TokenKind::None => Self::None,
        })
    }

    /// What the entry of a login carries to become its token; empty when it does not.
    pub fn draw(&self, env: &Env) -> String {
        match self {
            Self::Simple(_) => draw_letters(env),
            Self::Jwt(_) | Self::None => String::new(),
        }
    }

    /// The token of a login that was carried out: the one it got there, or one signed now.
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

/// The tokens that this member remembers.
pub(super) struct Simple {
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

/// How often those that are over are looked for, as in etcd.
const SWEEP: Duration = Duration::from_secs(1);
/// When `--auth-token-ttl` is 0.
const TTL_DEFAULT: Duration = Duration::from_secs(300);
/// What a clock can be asked to add.
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

    /// Whose token it is; from now on it lasts its full time again.
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
        self.table.lock().expect("nobody panics with the tokens in hand")
    }
}

/// The log entry of the login that gave a simple token out; `None` when it is none.
pub(super) fn given_at(token: &str) -> Option<Index> {
    let (letters, index) = token.split_once('.')?;
    // No sign, no second dot: etcd's parser takes digits only.
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
