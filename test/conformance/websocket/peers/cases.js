// What every client does with an echo server. `open(path, options)` gives a peer: `send`, `next`, `close`, `closed`, `extensions`,
// `protocol`, and, where the library can, `sendFragments`, `ping`, `terminate`. `about` says `isOverHttp2`, and `isShort` for a
// run without the hundred megabytes. Prints a line of JSON for each case.
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";

const CASE_MS = 30_000;
/** Lengths on both sides of the three forms of a frame's length (RFC 6455 §5.2), and a megabyte. */
const LENGTHS = [0, 1, 125, 126, 65_535, 65_536, 1_000_000];
const HUNDRED_MEGABYTES = 100_000_000;

const CASES = {
  async "text, with what UTF-8 needs four bytes for"(open) {
    const peer = await open("/text");
    for (const text of ["héllo ☃ 𝄞", "", "x".repeat(70_000)]) {
      peer.send(text);
      assert.equal(await peer.next(), text);
    }
    peer.close(1000);
    assert.equal(await peer.closed, "1000 ");
  },
  async "binary, of every form of length"(open) {
    const peer = await open("/binary");
    for (const length of LENGTHS) {
      const bytes = randomBytes(length);
      peer.send(bytes);
      assert.ok(bytes.equals(await peer.next()), `${length} bytes`);
    }
    peer.close(1000);
  },
  async "messages one after the other without waiting"(open) {
    const peer = await open("/many");
    for (let i = 0; i < 1000; i++) peer.send(`message ${i}`);
    for (let i = 0; i < 1000; i++) assert.equal(await peer.next(), `message ${i}`);
    peer.close(1000);
  },
  async "fragments from the client, with pings between"(open) {
    const peer = await open("/fragments");
    if (peer.sendFragments === undefined) return "left out";
    peer.sendFragments(["one ", "two ", "three"]);
    assert.equal(await peer.next(), "one two three");
    peer.close(1000);
  },
  async "fragments from the server, with a ping between"(open) {
    const peer = await open("/fragments-back");
    peer.send("!fragments");
    assert.equal(await peer.next(), "one two three");
    peer.close(1000);
  },
  async "a ping from the client"(open) {
    const peer = await open("/ping");
    if (peer.ping === undefined) return "left out";
    assert.equal(await peer.ping("are you there?"), "are you there?");
    peer.close(1000);
  },
  async "a ping from the server"(open) {
    const peer = await open("/ping-back");
    peer.send("!ping payload");
    assert.equal(await peer.next(), "pong payload");
    peer.close(1000);
  },
  async "a subprotocol"(open, { isOverHttp2 }) {
    if (isOverHttp2) return "left out";
    const peer = await open("/protocol", { protocols: ["chat.v2", "chat.v1"] });
    assert.equal(peer.protocol, "chat.v1");
    peer.close(1000);
  },
  async "compression (RFC 7692)"(open, { isOverHttp2 }) {
    if (isOverHttp2) return "left out";
    const peer = await open("/deflate");
    assert.match(peer.extensions, /permessage-deflate/);
    peer.send("!extensions");
    assert.match(await peer.next(), /permessage-deflate/);
    const text = "the same again and again ".repeat(40_000);
    for (let i = 0; i < 3; i++) {
      peer.send(text);
      assert.equal(await peer.next(), text);
    }
    peer.close(1000);
  },
  async "the client closes with a code and a reason"(open) {
    for (const [code, reason] of [
      [1000, ""],
      [3000, "enough"],
      [4999, "r".repeat(123)],
    ]) {
      const path = `/client-closes-${code}`;
      const peer = await open(path);
      peer.close(code, reason);
      assert.equal(await peer.closed, `${code} ${reason}`);
      await sawEnd(open, path, `${code} ${reason}`);
    }
  },
  async "the client closes without a code"(open) {
    const peer = await open("/client-closes");
    peer.close();
    assert.equal(await peer.closed, "1005 ");
    await sawEnd(open, "/client-closes", "1005 ");
  },
  async "the server closes with a code and a reason"(open) {
    for (const [code, reason] of [
      [1001, "leaving"],
      [1011, ""],
      [4000, "bye"],
    ]) {
      const peer = await open("/server-closes");
      peer.send(`!close ${code} ${reason}`);
      assert.equal(await peer.closed, `${code} ${reason}`);
    }
  },
  async "the server is gone in mid-connection: 1006"(open) {
    const peer = await open("/server-gone");
    peer.send("!terminate");
    assert.equal(await peer.closed, "1006 ");
  },
  async "the client is gone in mid-connection: 1006"(open) {
    const peer = await open("/client-gone");
    if (peer.terminate === undefined) return "left out";
    peer.send("hello");
    await peer.next();
    peer.terminate();
    await sawEnd(open, "/client-gone", "1006 ");
  },
  async "100 MB in one message"(open, { isShort }) {
    if (isShort) return "left out";
    const peer = await open("/large", { isCompressed: false });
    if (peer.terminate === undefined) return "left out";
    const bytes = Buffer.alloc(HUNDRED_MEGABYTES, randomBytes(65_521));
    peer.send(bytes);
    const back = await peer.next();
    const hash = (all) => createHash("sha1").update(all).digest("hex");
    assert.equal(back.length, bytes.length);
    assert.equal(hash(back), hash(bytes));
    peer.close(1000);
  },
};

/** Asks the server how it saw a connection end, until it has. */
async function sawEnd(open, path, wanted) {
  const peer = await open("/ends");
  let seen = "";
  while (seen === "") {
    peer.send(`!end-of ${path}`);
    seen = await peer.next();
  }
  peer.close(1000);
  assert.equal(seen, wanted);
}

export async function runCases(open, about) {
  for (const [name, run] of Object.entries(CASES)) {
    let reason = "";
    try {
      const late = new Promise((_, reject) =>
        setTimeout(() => reject(new Error(`not over after ${CASE_MS} ms`)), CASE_MS).unref(),
      );
      if ((await Promise.race([run(open, about), late])) === "left out") continue;
    } catch (error) {
      reason = error.message || String(error);
    }
    console.log(JSON.stringify({ name, reason }));
  }
  process.exit(0);
}
