// A client of Node's waits until its path is healed.
import assert from "node:assert";
import http from "node:http";
import net from "node:net";
import test from "node:test";

function order(path, body = {}) {
  return new Promise((resolve, reject) => {
    const request = http.request(
      { socketPath: process.env.HALFOPEN_CONTROL, path, method: "POST" },
      (response) => response.resume().on("end", () => resolve(response.statusCode)),
    );
    request.on("error", reject).end(JSON.stringify(body));
  });
}

test("what is written in an outage is answered after it", async () => {
  const client = net.connect(7000, "server");
  await new Promise((connected) => client.on("connect", connected));
  assert.equal(await order("/fault", { kind: "flap", for: "1s" }), 200);
  const answer = new Promise((answered) => client.once("data", answered));
  client.write("x");
  assert.equal((await answer).toString(), "x");
  assert.equal(await order("/heal"), 409);
  client.destroy();
});
