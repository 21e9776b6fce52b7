//! Watchers: live hub, catch-up, sessions.
