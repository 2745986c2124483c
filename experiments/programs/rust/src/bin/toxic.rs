//! The toxic `timeout` of toxiproxy, as its port noxious has it: `toxic LISTEN UPSTREAM MILLISECONDS`. What the
//! server answers is taken and dropped; after so many milliseconds the connection is closed, and never with 0.

use noxious::proxy::{ProxyConfig, ProxyRunner, Runner, Toxics};
use noxious::signal::{Close, Stop};
use noxious::socket::TcpListener;
use noxious::toxic::{StreamDirection, Toxic, ToxicKind};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("toxic LISTEN UPSTREAM MILLISECONDS");
    let (listen, upstream) = (next(), next());
    let config = ProxyConfig { name: "toxic".into(), listen, upstream, enabled: true, rand_seed: None };
    let toxic = Toxic {
        kind: ToxicKind::Timeout { timeout: next().parse().expect("milliseconds") },
        name: "timeout".into(),
        toxicity: 1.0,
        direction: StreamDirection::Downstream,
    };
    let toxics = Toxics { upstream: vec![], downstream: vec![toxic] };
    let (listener, proxy) = ProxyRunner::initialize_proxy::<TcpListener>(config, toxics).await?;
    let ((_events, receiver), (stop, _stopper), (_closed, closer)) =
        (bmrng::channel(1), Stop::new(), Close::new());
    ProxyRunner::run_proxy(listener, proxy, receiver, stop, closer).await
}
