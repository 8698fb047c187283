//! Just enough HTTP for the registry, ClickHouse and `/readyz`: one request a connection.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Sends a request to an address such as `http://127.0.0.1:8081/subjects`; gives status and body.
pub(crate) fn request(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> std::io::Result<(u16, String)> {
    let rest = url.strip_prefix("http://").expect("the tests' services speak plain HTTP");
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    // HTTP/1.0: the answer ends with the connection and has no chunks.
    let mut text = format!("{method} /{path} HTTP/1.0\r\nHost: {host}\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    stream.write_all(text.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no HTTP: {head:?}")))?;
    let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    Ok((status, if chunked { join_chunks(body) } else { body.to_owned() }))
}

/// Some servers send chunks to anybody. Each has its length in front.
fn join_chunks(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((length, behind)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length.trim(), 16).unwrap_or(0);
        let Some((chunk, behind)) = behind.split_at_checked(length) else { break };
        body.push_str(chunk);
        rest = behind.trim_start_matches("\r\n");
    }
    body
}

/// Reads what stands at an address; anything but 200 is an error.
pub(crate) fn get(url: &str) -> Result<String, String> {
    match request("GET", url, &[], "") {
        Ok((200, body)) => Ok(body),
        Ok((status, body)) => Err(format!("{url}: {status} {body}")),
        Err(error) => Err(format!("{url}: {error}")),
    }
}
