//! Asks every request of a service for its key before anything else is done with it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};

use super::{Found, Keys, Scope};
use crate::http::Problem;

/// For how long what still comes is read when a request is refused.
const LINGER: Duration = Duration::from_secs(1);

/// Lets only those through whose key has a scope: `to_read` for what changes nothing, `to_write` for the rest. Without
/// keys everybody may do everything.
pub fn guard(routes: Router, keys: Option<&Arc<Keys>>, to_read: Scope, to_write: Scope) -> Router {
    let Some(keys) = keys.map(Arc::clone) else { return routes };
    routes.route_layer(from_fn(move |mut request: Request, next: Next| {
        let changes_nothing = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        let scope = if changes_nothing { to_read } else { to_write };
        let outcome = secret(request.headers()).map(|secret| keys.find(secret, scope));
        async move {
            let refused = match outcome {
                Some(Found::Allowed(caller)) => {
                    request.extensions_mut().insert(caller);
                    return next.run(request).await;
                }
                Some(Found::OutOfScope(name)) => out_of_scope(&name, scope),
                Some(Found::Unknown) => {
                    unknown("this key is not known", "Bearer realm=\"cornjacket\", error=\"invalid_token\"")
                }
                None => {
                    let error = "a key is needed: send the header `Authorization: Bearer KEY`";
                    unknown(error, "Bearer realm=\"cornjacket\"")
                }
            };
            discard(request).await;
            refused
        }
    }))
}

/// The key that a request shows.
fn secret(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (scheme, secret) = values.next()?.as_bytes().split_at_checked(7)?;
    let is_one = scheme.eq_ignore_ascii_case(b"Bearer ") && values.next().is_none();
    is_one.then(|| secret.trim_ascii())
}

fn unknown(error: &str, challenge: &'static str) -> Response {
    answer(Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", error), HeaderValue::from_static(challenge))
}

fn out_of_scope(name: &str, scope: Scope) -> Response {
    let error = format!("the key of `{name}` has not the scope `{scope}`, which this needs");
    let challenge = format!("Bearer realm=\"cornjacket\", error=\"insufficient_scope\", scope=\"{scope}\"");
    let challenge = HeaderValue::from_str(&challenge).unwrap_or(HeaderValue::from_static("Bearer"));
    answer(Problem::new(StatusCode::FORBIDDEN, "forbidden", error), challenge)
}

fn answer(problem: Problem, challenge: HeaderValue) -> Response {
    let mut response = problem.into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

/// Lets go of what still comes, for a moment: a client that sends all before it reads would find its connection reset and
/// never see the answer. Who asks before it sends is not told to.
async fn discard(request: Request) {
    if request.headers().contains_key(header::EXPECT) {
        return;
    }
    let mut body: Body = request.into_body();
    let let_go = async {
        while let Some(Ok(_)) = std::future::poll_fn(|context| std::pin::Pin::new(&mut body).poll_frame(context)).await
        {
        }
    };
    let _ = tokio::time::timeout(LINGER, let_go).await;
}
