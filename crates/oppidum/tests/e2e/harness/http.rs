//! An HTTP/1.1 client by hand: a test decides every byte it sends, valid or not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use super::lock::authorization;

/// Longer than any answer may take.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(15);

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    /// A header's value, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The order number of a toy, or the transaction number of a share.
    pub(crate) fn number(&self) -> u64 {
        let body = self.json();
        let data = &body["data"];
        let number = data["order_number"].as_u64().or(data["transaction_number"].as_u64());
        number.unwrap_or_else(|| panic!("no order was placed: {self:?}"))
    }
}

/// One kept connection.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
    /// Sent with each request that has no `Authorization`.
    authorization: Option<String>,
}

impl Connection {
    /// To a public port on this machine.
    pub(crate) fn open(port: u16) -> std::io::Result<Self> {
        Self::open_for(port, READ_TIMEOUT)
    }

    /// The same with a shorter timeout, for a client that may meet a frozen process.
    pub(crate) fn open_for(port: u16, patience: Duration) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        let authorization = authorization(&stream);
        Ok(Self { stream: BufReader::new(stream), authorization })
    }

    /// Over a connection that is open already.
    pub(crate) fn over(stream: TcpStream) -> Self {
        // A test that waits longer fails.
        let _ = stream.set_read_timeout(Some(READ_TIMEOUT));
        let authorization = authorization(&stream);
        Self { stream: BufReader::new(stream), authorization }
    }

    /// Sends these bytes as they are, and reads nothing yet.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Reads the next answer to what was sent, other than HEAD.
    pub(crate) fn receive(&mut self) -> std::io::Result<Reply> {
        self.read(false)
    }

    /// Sends these bytes as they are, and reads one answer.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> std::io::Result<Reply> {
        self.stream.get_mut().write_all(bytes)?;
        self.read(bytes.starts_with(b"HEAD"))
    }

    /// Sends a request, and reads the answer.
    pub(crate) fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> std::io::Result<Reply> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n");
        let has_own = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        let customers = self.authorization.as_deref().filter(|_| !has_own);
        for (name, value) in customers.map(|it| ("Authorization", it)).iter().chain(headers) {
            request.extend([name, ": ", value, "\r\n"]);
        }
        if !body.is_empty() || method == "POST" {
            request.extend(["Content-Length: ", &body.len().to_string(), "\r\n"]);
        }
        request.push_str("\r\n");
        request.push_str(body);
        self.raw(request.as_bytes())
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    fn read(&mut self, bodiless: bool) -> std::io::Result<Reply> {
        let status = self.line()?;
        let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = code.unwrap_or_else(|| panic!("no status line: {status:?}"));
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let reply = Reply { status, headers, body: String::new() };
        let length = reply.header("content-length").and_then(|length| length.parse().ok());
        let mut body = vec![0; if bodiless { 0 } else { length.unwrap_or(0) }];
        self.stream.read_exact(&mut body)?;
        Ok(Reply { body: String::from_utf8(body).unwrap(), ..reply })
    }
}

/// Sends a request over a connection of its own.
pub(crate) fn ask(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Reply {
    let reply = Connection::open(port)
        .and_then(|mut connection| connection.ask(method, path, headers, body));
    reply.unwrap_or_else(|error| panic!("{method} {path} at {port}: {error}"))
}

/// `GET`.
pub(crate) fn get(port: u16, path: &str) -> Reply {
    ask(port, "GET", path, &[], "")
}

/// `POST /orders`, without any Content-Type, as real clients do.
pub(crate) fn post(port: u16, body: &str) -> Reply {
    ask(port, "POST", "/orders", &[], body)
}
