//! tokio-postgres: `postgres CONFIG QUERY` asks every second.

use std::time::Duration;
use tokio_postgres::{Error, NoTls};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let arguments: Vec<_> = std::env::args().collect();
    let (client, connection) = tokio_postgres::connect(&arguments[1], NoTls).await?;
    tokio::spawn(connection);
    loop {
        client.simple_query(&arguments[2]).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
