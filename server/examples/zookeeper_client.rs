//! A session with ZooKeeper that is led line by line, for tests that break what lies between it and the servers.
//!
//! `zookeeper_client CONNECT SESSION_TIMEOUT_MS [digest NAME:PASSWORD | sasl NAME PASSWORD] [acl]`. Each line of standard input is a
//! request, which is sent at once: `get PATH [watch]`, `children PATH [watch]`, `create PATH DATA [ephemeral|sequential]`, `set PATH
//! DATA`, `delete PATH`, `close`. Each line of output begins with the number of the request that it answers, or with `session` or
//! `fired N` and tells what happened.

use std::io::BufRead;
use std::sync::Arc;

use bytes::Bytes;
use milena_server::coordination::zookeeper::{AuthInfo, Credentials, ZooKeeper, ZooKeeperConfig};
use milena_server::coordination::{
    Coordination, CoordinationError, CreateMode, ExpectedVersion, Node, SessionEvent, Watch,
};

type Failure = Box<dyn std::error::Error>;

fn config(arguments: &[&str]) -> Result<ZooKeeperConfig, Failure> {
    let [connect, timeout, rest @ ..] = arguments else {
        return Err("expected CONNECT SESSION_TIMEOUT_MS".into());
    };
    let (set_acl, rest) = match rest {
        [rest @ .., "acl"] => (true, rest),
        rest => (false, rest),
    };
    let (auth, sasl) = match rest {
        [] => (Vec::new(), None),
        ["digest", credentials] => {
            let auth = AuthInfo {
                scheme: "digest".to_owned(),
                credentials: credentials.as_bytes().to_vec(),
            };
            (vec![auth], None)
        }
        ["sasl", username, password] => {
            let credentials = Credentials {
                username: (*username).to_owned(),
                password: (*password).to_owned(),
            };
            (Vec::new(), Some(credentials))
        }
        other => return Err(format!("found {other:?}, expected digest or sasl").into()),
    };
    Ok(ZooKeeperConfig {
        connect: connect.parse()?,
        session_timeout_ms: timeout.parse()?,
        max_in_flight_requests: 10,
        set_acl,
        auth,
        sasl,
        tls: None,
    })
}

fn shown(node: Option<Node>) -> String {
    node.map_or("none".to_owned(), |node| {
        let data = node
            .data
            .map_or("null".into(), |data| String::from_utf8_lossy(&data).into_owned());
        let owner = node.stat.ephemeral_owner.unwrap_or(0);
        format!("{data} version {} owner 0x{owner:x}", node.stat.version)
    })
}

async fn answer(session: &ZooKeeper, number: usize, words: &[&str]) -> Result<String, CoordinationError> {
    let tree: &dyn Coordination = session;
    let watch = || -> Option<Watch> {
        Some(Box::new(move |event| {
            println!("fired {number} {:?} {}", event.kind, event.path)
        }))
    };
    Ok(match words {
        ["get", path] => shown(tree.get(path, None).await?),
        ["get", path, "watch"] => shown(tree.get(path, watch()).await?),
        ["children", path] => format!("{:?}", tree.children(path, None).await?),
        ["children", path, "watch"] => format!("{:?}", tree.children(path, watch()).await?),
        ["create", path, data, mode @ ..] => {
            let mode = match mode {
                ["ephemeral"] => CreateMode::Ephemeral,
                ["sequential"] => CreateMode::PersistentSequential,
                _ => CreateMode::Persistent,
            };
            tree.create(path, Some(Bytes::copy_from_slice(data.as_bytes())), mode)
                .await?
        }
        ["set", path, data] => {
            let data = Bytes::copy_from_slice(data.as_bytes());
            let stat = tree.set(path, data, ExpectedVersion::Any).await?;
            format!("version {}", stat.version)
        }
        ["delete", path] => format!("{}", tree.delete(path, ExpectedVersion::Any).await?),
        ["close"] => {
            session.close().await?;
            "closed".to_owned()
        }
        other => format!("found {other:?}, expected a request"),
    })
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let session = Arc::new(ZooKeeper::begin(config(&arguments)?)?);
    session.listen(Arc::new(|event: SessionEvent| println!("session {event:?}")));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    let (lines, mut to_do) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    local.block_on(&runtime, async {
        session.ensure_chroot().await?;
        let mut number = 0;
        while let Some(line) = to_do.recv().await {
            let session = Arc::clone(&session);
            tokio::task::spawn_local(async move {
                let words: Vec<&str> = line.split_whitespace().collect();
                match answer(&session, number, &words).await {
                    Ok(text) => println!("{number} {text}"),
                    Err(error) => println!("{number} error {error}"),
                }
            });
            number += 1;
        }
        Ok(())
    })
}
