//! The LLM behind Envoy. It sends the same response to every request at minimal cost, so that Envoy dominates the
//! results.

use crate::message;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

/// Serves until the program ends.
pub fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let answer = answer();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            thread::spawn(move || serve(stream, &answer));
        }
    });
    Ok(address)
}

fn serve(mut stream: TcpStream, answer: &[u8]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = message::Reader::new(stream.try_clone()?);
    while reader.next()?.is_some() {
        stream.write_all(answer)?;
    }
    Ok(())
}

/// Returns a chat completion of 1.2 kB with a usage of 100 tokens.
fn answer() -> Vec<u8> {
    let text = "The river is held back by the weir, and what may pass is measured. ".repeat(12);
    let body = message::completion(&text);
    message::encode("HTTP/1.1 200 OK", &[("content-type", "application/json")], body.as_bytes())
}
