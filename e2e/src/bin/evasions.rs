//! Writes the bodies of all evasions into a folder, for `e2e/evasions/readings.py`. `KIND/NAME.plain` is the
//! body before it is encoded, `KIND/NAME.sent` is the body as it is sent, and `KIND/NAME.headers` has a line
//! for each header.

use e2e::scenario::Evasion;
use std::path::Path;

fn main() {
    let folder = std::env::args().nth(1).expect("usage: evasions FOLDER");
    for (name, path) in Evasion::all() {
        let evasion = Evasion::read(&path).unwrap_or_else(|error| panic!("{error}"));
        let (plain, sent) = evasion.bodies();
        let file = |extension: &str| Path::new(&folder).join(format!("{name}.{extension}"));
        let parent = file("plain").parent().map(std::fs::create_dir_all);
        parent.transpose().expect("a folder can be made");
        let lines = evasion.headers().into_iter().map(|(name, value)| format!("{name}: {value}\n"));
        for (extension, bytes) in
            [("plain", plain), ("sent", sent), ("headers", lines.collect::<String>().into())]
        {
            std::fs::write(file(extension), bytes).expect("a file can be written");
        }
    }
}
