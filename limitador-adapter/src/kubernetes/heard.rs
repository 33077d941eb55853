//! A client that records when the API server last answered. Without it, a silent watch cannot be
//! distinguished from a dead one.

use crate::metrics::AdapterMetrics;
use kube::Client;
use kube::client::Body;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};
use tonic::codegen::Service;
use tonic::codegen::http::{Method, Request, Response};

/// Wraps a client so that its lists and watches are recorded.
pub fn heard(client: Client, metrics: Arc<AdapterMetrics>) -> Client {
    let namespace = client.default_namespace().to_owned();
    Client::new(HeardClient { client, metrics }, namespace)
}

struct HeardClient {
    client: Client,
    metrics: Arc<AdapterMetrics>,
}

impl Service<Request<Body>> for HeardClient {
    type Response = Response<Body>;
    type Error = kube::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let resource = (request.method() == Method::GET).then(|| resource(request.uri().path())).flatten();
        let last_heard = resource.map(|resource| self.metrics.last_heard(resource));
        let client = self.client.clone();
        Box::pin(async move {
            let answer = client.send(request).await?;
            if let (Some(last_heard), true) = (last_heard, answer.status().is_success()) {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                last_heard.set(now.as_secs_f64());
            }
            Ok(answer)
        })
    }
}

/// Returns the resource in a path that lists all objects: `/api/VERSION/RESOURCE` or
/// `/apis/GROUP/VERSION/RESOURCE`.
fn resource(path: &str) -> Option<&str> {
    let mut parts = path.trim_matches('/').split('/');
    match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some("api"), Some(_), Some(resource), None, None) => Some(resource),
        (Some("apis"), Some(_), Some(_), Some(resource), None) => Some(resource),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::resource;

    #[test]
    fn a_list_of_all_namespaces_names_its_resource() {
        for (path, wanted) in [
            ("/apis/gateway.networking.k8s.io/v1/httproutes", Some("httproutes")),
            ("/api/v1/namespaces", Some("namespaces")),
            ("/apis/coordination.k8s.io/v1/namespaces/weir-system/leases", None),
            ("/version", None),
            ("", None),
        ] {
            assert_eq!(resource(path), wanted, "{path}");
        }
    }
}
