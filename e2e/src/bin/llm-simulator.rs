//! A simulated LLM provider. It answers every chat completion and reports as many tokens as `max_tokens`
//! allows. `WEIR_LLM_LISTEN` sets its address, 127.0.0.1:8000 by default.

use e2e::upstream::Upstream;

fn main() -> std::io::Result<()> {
    let address = std::env::var("WEIR_LLM_LISTEN").unwrap_or_else(|_| "127.0.0.1:8000".to_owned());
    let upstream = Upstream::listen(&address)?;
    println!("the LLM simulator listens on {}", upstream.address());
    loop {
        std::thread::park();
    }
}
