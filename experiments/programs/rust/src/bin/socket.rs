//! A socket of tokio's: `socket waits [mended]`, `socket writes [mended]`.

use socket2::{SockRef, TcpKeepalive};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Error, ErrorKind};
use tokio::net::TcpStream;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [writes, mended] = ["writes", "mended"].map(|word| arguments.iter().any(|a| a == word));
    let mut server = TcpStream::connect("server:7000").await?;
    if mended && writes {
        SockRef::from(&server).set_tcp_user_timeout(Some(Duration::from_secs(30)))?;
    } else if mended {
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_secs(10))
            .with_interval(Duration::from_secs(5))
            .with_retries(3);
        SockRef::from(&server).set_tcp_keepalive(&keepalive)?;
    }
    server.write_all(b"x").await?;
    loop {
        if writes {
            tokio::time::sleep(Duration::from_secs(1)).await;
            server.write_all(b"x").await?;
        } else if server.read(&mut [0]).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
}
