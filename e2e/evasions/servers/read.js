// Parses bodies like a lenient server in Node. Like body-parser, it removes a byte order mark and calls JSON.parse. Reads
// one path per line from stdin, and writes one line of JSON for each.
const fs = require("fs");

function read(path) {
  try {
    const document = JSON.parse(new TextDecoder("utf-8").decode(fs.readFileSync(path)));
    const { model, stream, max_tokens, n } = document ?? {};
    return JSON.stringify({ model, stream, max_tokens, n, document });
  } catch (error) {
    return JSON.stringify({ error: error.message });
  }
}

for (const path of fs.readFileSync(0, "utf8").split("\n").filter(Boolean)) {
  console.log(read(path));
}
