// A server that speaks HTTP/2 over TLS and nothing else. Arguments: its key and certificate (PEM). Prints its port.
"use strict";
const fs = require("node:fs");
const http2 = require("node:http2");

const [key, cert] = process.argv.slice(2).map((path) => fs.readFileSync(path));
const server = http2.createSecureServer({ key, cert, allowHTTP1: false }, (request, response) => {
  let length = 0;
  request.on("data", (part) => (length += part.length));
  request.on("end", () => response.end(`HTTP/${request.httpVersion} ${request.method} ${length}\n`));
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
