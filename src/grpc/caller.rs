//! Reads the credentials of a request (token, certificate) and passes them to the handlers.

use http::{Extensions, HeaderMap};
use tonic::Request;

use crate::member::Caller;
use crate::tls::ClientName;

/// etcd's metadata keys for tokens, the clients' key before the JSON gateway's.
const TOKENS: [&str; 2] = ["token", "authorization"];
/// A header of the JSON gateway's calls, whose certificate would be the gateway's own.
const GATEWAY: &str = "grpcgateway-accept";

/// Reads the credentials in a request's headers and extensions.
pub(super) fn read(headers: &HeaderMap, extensions: &Extensions) -> Caller {
    let token = TOKENS.into_iter().find_map(|key| headers.get(key));
    // A value that is no text is an invalid token.
    let token = token.map(|token| token.to_str().unwrap_or_default());
    let token = token.map(|token| token.strip_prefix("Bearer ").unwrap_or(token));
    let common_name = extensions.get::<ClientName>().filter(|_| !headers.contains_key(GATEWAY));
    Caller::client(token, common_name.map(|name| &*name.0))
}

/// Splits a request into its caller, as read by the gate, and its message.
pub(super) fn of<T>(request: Request<T>) -> (Caller, T) {
    let (_, mut extensions, message) = request.into_parts();
    (extensions.remove::<Caller>().unwrap_or_default(), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(headers: &[(&'static str, &'static str)]) -> Option<String> {
        let headers = headers.iter().map(|(key, value)| {
            (key.parse().expect("a header name"), value.parse().expect("a header value"))
        });
        read(&headers.collect(), &Extensions::new()).token().map(str::to_owned)
    }

    #[test]
    fn tokens_are_found_where_etcd_finds_them() {
        assert_eq!(token(&[]), None);
        assert_eq!(token(&[("authorization", "Bearer b.2")]).as_deref(), Some("b.2"));
        assert_eq!(token(&[("token", "a.1")]).as_deref(), Some("a.1"));
        let both = [("authorization", "b.2"), ("token", "a.1")];
        assert_eq!(token(&both).as_deref(), Some("a.1"));
    }

    #[test]
    fn a_certificates_name_counts_unless_it_is_the_gateways() {
        let mut extensions = Extensions::new();
        extensions.insert(ClientName("ann".into()));
        let mut headers = HeaderMap::new();
        assert!(!read(&headers, &extensions).is_anonymous());
        headers.insert(GATEWAY, http::HeaderValue::from_static("*/*"));
        assert!(read(&headers, &extensions).is_anonymous());
    }
}
