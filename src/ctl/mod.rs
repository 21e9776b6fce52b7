//! `quoratectl`, the client's tool: etcdctl 3.7's commands, flags, variables, outputs and exit codes, and
//! a few commands of its own (`history`, `diff`). It works against etcd as well.
//!
//! A command line goes through [`table`] (what there is), [`arguments`] (what was given), [`cluster`]
//! (the client that the global flags describe) and one function of [`commands`], which prints through
//! [`mod@print`]. Everything of the process, such as standard streams and signals, is behind [`Shell`].
//!
//! Reading order: [`table`], this file, [`cluster`], [`commands`], [`mod@print`], [`log`], [`advice`].

mod advice;
mod cluster;
mod commands;
mod log;
mod print;
mod shell;
mod table;

use std::sync::Arc;

use print::{Format, Printer};
use table::TOOL;

use crate::env::Env;
use crate::tool::arguments::{self, Arguments, Wanted};
use crate::tool::complete;
pub use crate::tool::exit::Exit;
pub use shell::{Ended, Shell};

/// What every command works with.
pub(crate) struct Context {
    env: Env,
    shell: Arc<dyn Shell>,
    arguments: Arguments,
    printer: Printer,
}

/// Runs the command line `words`, the first of which is the program's path.
///
/// # Errors
/// The exit code and what goes to standard error behind `Error: `; earlier output was written.
pub async fn run(env: Env, shell: Arc<dyn Shell>, words: &[String]) -> Result<(), Exit> {
    let program = TOOL.called(words);
    if let Some((line, described)) = complete::wanted(words) {
        let (out, err) = complete::complete(&TOOL, line, described)?;
        shell.err(err);
        return Ok(shell.out(out.as_bytes())?);
    }
    let warn = |level: &str, message: &str, variable: &str| {
        log::line(
            (&env, &*shell),
            level,
            None,
            message,
            &[("environment-variable", variable.into())],
        );
    };
    // Mistakes on the command line come first, and commands that need no cluster read no variables.
    let arguments = match arguments::parse(&TOOL, program, words)? {
        Wanted::Help(text) => return Ok(shell.out(text.as_bytes())?),
        Wanted::Run(arguments) => arguments,
    };
    let variables = if commands::is_local(&arguments) { Vec::new() } else { shell.variables() };
    let words = match arguments::with_variables(&TOOL, &arguments.path, words, &variables) {
        Ok((words, warnings)) => {
            for variable in warnings {
                warn("warn", "unrecognized environment variable", &variable);
            }
            words
        }
        Err(variable) => {
            let message = "conflicting environment variable is shadowed by corresponding \
                           command-line flag (either unset environment variable or disable flag))";
            warn("fatal", message, &variable);
            return Err(Exit::silent(Exit::ERROR));
        }
    };
    let arguments = match arguments::parse(&TOOL, program, &words)? {
        Wanted::Help(text) => return Ok(shell.out(text.as_bytes())?),
        Wanted::Run(arguments) => arguments,
    };
    arguments.check_text(commands::takes_bytes(&arguments))?;
    let format = Format::parse(arguments.text("write-out"));
    let printer = Printer {
        shell: Arc::clone(&shell),
        format: format.unwrap_or(Format::Simple),
        hex: arguments.bool("hex"),
        value_only: arguments.bool("print-value-only"),
    };
    let context = Context { env, shell, arguments, printer };
    if !commands::is_local(&context.arguments) && format.is_none() {
        return Err(Exit::new(Exit::FEATURE, "unsupported output format"));
    }
    match commands::run(program, &context).await {
        Ok(()) => Ok(()),
        Err(exit) => Err(advice::give(&context, exit).await),
    }
}

#[cfg(test)]
mod tests;
