//! `serve sink`: accepts gRPC messages without reading them, for `bench telemetry`. A receiver that reads them would use CPU of the measured
//! processes' cores.

use std::{
    future::{Ready, ready},
    net::SocketAddr,
    time::Duration,
};

use anyhow::Context;
use axum::{Router, extract::Request, response::IntoResponse};
use bytes::Buf;
use runtime::Endpoint;
use tokio_util::sync::CancellationToken;
use tonic::{
    Response, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{Grpc, UnaryService},
};

/// Above what an exporter sends at a time.
const MAX_MESSAGE_BYTES: usize = 8 << 20;

/// Serves until `stop`.
///
/// # Errors
/// The port is taken, or the server failed.
pub async fn serve(listen: SocketAddr, stop: CancellationToken) -> anyhow::Result<()> {
    let listen = Endpoint::from(listen);
    let listener = listen.bind().await.with_context(|| format!("cannot listen on {listen}"))?;
    let take = async |request: Request| {
        let mut grpc = Grpc::new(Unread).max_decoding_message_size(MAX_MESSAGE_BYTES);
        grpc.unary(Unread, request).await.into_response()
    };
    runtime::lifecycle::serve(listener, Router::new().fallback(take), stop, Duration::from_secs(1)).await
}

/// Any message, and an empty one for an answer: of OTLP's, it says that all was taken.
#[derive(Clone, Copy)]
struct Unread;

impl UnaryService<()> for Unread {
    type Response = ();
    type Future = Ready<Result<Response<()>, Status>>;

    fn call(&mut self, _request: tonic::Request<()>) -> Self::Future {
        ready(Ok(Response::new(())))
    }
}

impl Codec for Unread {
    type Encode = ();
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Unread {
    type Item = ();
    type Error = Status;

    fn encode(&mut self, (): (), _out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        Ok(())
    }
}

impl Decoder for Unread {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        message.advance(message.remaining());
        Ok(Some(()))
    }
}
