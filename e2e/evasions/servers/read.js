// What a lenient server in Node understands of a body: JSON.parse of its text without a byte order mark, as body-parser
// does it. Reads a path for each line of standard input, writes a line of JSON for each.
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
