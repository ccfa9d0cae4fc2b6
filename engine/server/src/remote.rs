//! A running pipeline as the commands reach it: where its services are, how to ask, and what went wrong in words.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::Args;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::Failure;
use crate::folder::ports_of;

/// Where a running pipeline is.
#[derive(Clone, Debug, Args)]
pub struct Where {
    /// Where the service is; by default it is looked up in the data folder.
    #[arg(long)]
    pub url: Option<String>,
    /// The data folder of the running pipeline.
    #[arg(long, env = "CJ_DATA_DIR", default_value = "data")]
    pub data_dir: PathBuf,
    /// The key to show, where the services ask for one.
    #[arg(long, env = "CJ_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
}

/// A service of a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Takes events in.
    Ingest,
    /// Answers queries.
    Query,
    /// Delivers webhooks.
    Actions,
}

/// A service that can be asked.
#[derive(Clone, Debug)]
pub struct Remote {
    base: String,
    client: reqwest::Client,
    key: Option<String>,
}

#[derive(Deserialize)]
struct Problem {
    error: String,
    #[serde(default)]
    details: Vec<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    #[serde(default)]
    path: String,
    message: String,
}

impl Where {
    /// A service of the pipeline there.
    pub fn service(&self, service: Service) -> Result<Remote, Failure> {
        let mut client = reqwest::Client::builder();
        let base = if let Some(url) = &self.url {
            url.trim_end_matches('/').to_string()
        } else {
            // What runs on this machine is not reached through a proxy.
            client = client.no_proxy();
            self.local(service)?
        };
        let client = client.build().context("the process cannot start").map_err(Failure::Environment)?;
        Ok(Remote { base, client, key: self.api_key.clone() })
    }

    fn local(&self, service: Service) -> Result<String, Failure> {
        let folder = &self.data_dir;
        let ports = ports_of(folder);
        let port = ports.and_then(|ports| match service {
            Service::Ingest => ports.ingest,
            Service::Query => ports.query,
            Service::Actions => ports.actions,
        });
        let port = port.ok_or_else(|| {
            Failure::Environment(anyhow!(
                "no pipeline runs on the data folder {}: start one with `cornjacket run FILE`, or say where it is with \
                 --data-dir or --url",
                folder.display()
            ))
        })?;
        Ok(format!("http://127.0.0.1:{port}"))
    }
}

impl Remote {
    /// The service's address, for messages.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// A request to a path of the service, with the key.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Sends a request, and turns whatever is no success into words.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, Failure> {
        let unreachable = || format!("{} does not answer: is `cornjacket run` running?", self.base);
        let response = request.send().await.with_context(unreachable).map_err(Failure::Environment)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.context("the answer broke off").map_err(Failure::Environment)?;
        Err(self.failure(status, &body))
    }

    /// Asks for something in JSON.
    pub async fn json<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T, Failure> {
        let response = self.send(request).await?;
        response.json().await.context("the answer cannot be read").map_err(Failure::Environment)
    }

    /// What an answer that is no success says, in words.
    pub fn failure(&self, status: StatusCode, body: &[u8]) -> Failure {
        let text = match serde_json::from_slice::<Problem>(body) {
            Ok(Problem { error, details }) => {
                let detail = |Detail { path, message }: Detail| match path.as_str() {
                    "" => format!("\n  help: {message}"),
                    path => format!("\n  {path}: {message}"),
                };
                // A single fault is the error itself.
                let told = |detail: &Detail| !detail.path.is_empty() && error.contains(&detail.message);
                let details: Vec<Detail> = details.into_iter().filter(|detail| !told(detail)).collect();
                details.into_iter().map(detail).fold(error, |all, detail| all + &detail)
            }
            Err(_) => format!("{} answers {status}, which is not what a pipeline's service says", self.base),
        };
        let error = anyhow!(text);
        if status.is_client_error() { Failure::Input(error) } else { Failure::Environment(error) }
    }
}

/// A runtime for a command that asks.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("the process cannot start").map_err(Failure::Environment)
}

/// Events come from strangers, and a terminal obeys control characters.
pub fn harmless(text: &str) -> String {
    let shown = |c: char| if c.is_control() && c != '\n' { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}
