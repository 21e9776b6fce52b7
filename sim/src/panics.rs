//! The text of a panic, for runs that make it a part of their verdict. Threads that do not want it
//! panic as always.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    /// `None` where panics are not kept; the text of the first one otherwise.
    static KEPT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From now on the first panic of this thread is kept and none is printed.
pub(crate) fn keep() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let kept = KEPT.with_borrow_mut(|kept| match kept {
                Some(text) if text.is_empty() => {
                    *text = info.to_string();
                    true
                }
                kept => kept.is_some(),
            });
            if !kept {
                usual(info);
            }
        }));
    });
    KEPT.set(Some(String::new()));
}

/// The text and place of this thread's first panic.
pub(crate) fn take() -> String {
    KEPT.take().unwrap_or_default()
}
