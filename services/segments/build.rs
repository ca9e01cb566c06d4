//! Generates the gRPC client and server of `rpc.rs`. The messages are written in Rust, so no Protobuf compiler is needed.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    let method = |name: &str, route: &str| {
        Method::builder()
            .name(name)
            .route_name(route)
            .input_type("crate::rpc::Signed")
            .output_type("crate::rpc::Signed")
            .codec_path("tonic_prost::ProstCodec")
            .build()
    };
    let service = Service::builder()
        .name("SegmentCare")
        .package("testbed.segments.v1")
        .comment("Workers report their copies of segments to a monitor, and fetch its orders.")
        .method(method("report", "Report"))
        .method(method("orders", "Orders"))
        .build();
    Builder::new().compile(&[service]);
}
