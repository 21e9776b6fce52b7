//! One HTTP/1.1 GET, for the pages that members serve beside gRPC.

use http::Request;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::Options;
use crate::env::Env;
use crate::tls::{Dialer, Target};

/// The largest page, bytes.
const PAGE_BYTES_MAX: usize = 64 << 20;

/// The body of `path` at an endpoint.
///
/// # Errors
/// A text when the endpoint cannot be reached, or answers with another status than 200.
pub async fn get(
    env: &Env,
    endpoint: &str,
    options: &Options,
    path: &str,
) -> Result<bytes::Bytes, String> {
    let target = Target::parse(endpoint.trim_end_matches('/'))?;
    let secure = target.secure.unwrap_or(options.tls.is_some());
    let connect = async {
        let stream = target.connect(env).await?;
        match secure {
            false => Ok(stream),
            true => {
                let tls = options.tls.clone().unwrap_or_default();
                Dialer::new(env, &tls, &["http/1.1"]).secure(&target.name, stream).await
            }
        }
    };
    let connected = env.timeout(options.connect_timeout, connect).await;
    let stream =
        connected.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    drop(env.spawn("page", async move {
        // The request reports the failure.
        let _ = connection.await;
    }));
    let request = Request::get(path).header(http::header::HOST, &target.authority);
    let request = request.body(Empty::<bytes::Bytes>::new()).map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    if response.status() != http::StatusCode::OK {
        return Err(format!("{path}: {}", response.status()));
    }
    let body = Limited::new(response.into_body(), PAGE_BYTES_MAX).collect().await;
    Ok(body.map_err(|error| error.to_string())?.to_bytes())
}
