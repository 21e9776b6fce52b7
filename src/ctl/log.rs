//! Log lines on standard error, in the shape of those of etcdctl's client library. Not for failures of a
//! command, which have a text of their own.

use serde_json::Value;

use super::Context;
use super::shell::Shell;
use crate::codec;
use crate::env::Env;

/// The name of a client's logger.
pub(super) const LOGGER: &str = "etcd-client";

/// Writes a line; `fields` have their own order, behind the message.
pub(super) fn line(
    (env, shell): (&Env, &dyn Shell),
    level: &str,
    logger: Option<&str>,
    message: &str,
    fields: &[(&str, Value)],
) {
    let mut all = vec![("level", level.into()), ("ts", codec::timestamp(env.wall()).into())];
    all.extend(logger.map(|name| ("logger", name.into())));
    all.push(("msg", message.into()));
    all.extend(fields.iter().cloned());
    let pair = |(name, value): &(&str, Value)| format!("{}:{value}", Value::from(*name));
    let pairs: Vec<_> = all.iter().map(pair).collect();
    shell.err(&format!("{{{}}}\n", pairs.join(",")));
}

impl Context {
    /// A line of level info.
    pub(super) fn info(&self, logger: Option<&str>, message: &str, fields: &[(&str, Value)]) {
        line((&self.env, &*self.shell), "info", logger, message, fields);
    }

    /// A line of level warn.
    pub(super) fn warn(&self, logger: Option<&str>, message: &str, fields: &[(&str, Value)]) {
        line((&self.env, &*self.shell), "warn", logger, message, fields);
    }
}
