/**
 * Whether a connection whose messages are redirected past TCP (`loopback-redirect.bpf.c`) still behaves as one: each case on plain
 * loopback and with the redirect, in a network namespace of its own. Needs root, clang 14 and bpftool.
 *
 *   scripts/run test bench/choices/loopback-semantics.ts
 */
import { execFileSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describeMachine } from "../lib/machine.ts";
import { Redirect } from "./redirect.ts";
import * as sockets from "./sockets.ts";

const PORT = 4140;
/** The kernel program leaves a message of this size to TCP. */
const LEFT_BYTES = 7777;
const WAIT_MS = 500;
const SLOW_READER_BYTES_MAX = 256 * 1024 * 1024;

interface Pair {
  client: number;
  server: number;
}

/** What is seen, in words that are the same where the behaviour is. */
const CASES: Readonly<Record<string, (pair: Pair) => string>> = {
  "1 MiB, then FIN": ({ client, server }) => {
    const sent = Buffer.alloc(1 << 20, "abcdefghijklmnopqrstuvwxyz");
    const got = exchange(client, sent, server);
    sockets.endWriting(client);
    const end = readAll(server);
    return `${got.equals(sent) ? "whole" : "damaged"}, then ${end.how} (${end.bytes.length} bytes more)`;
  },
  "100 bytes and FIN at once, read later": ({ client, server }) => {
    sockets.send(client, Buffer.alloc(100, "x"));
    sockets.endWriting(client);
    sockets.poll(server, sockets.POLLRDHUP, WAIT_MS);
    const { bytes, how } = readAll(server);
    return `${bytes.length} bytes, then ${how}`;
  },
  "answer after the client's FIN": ({ client, server }) => {
    sockets.send(client, Buffer.from("question"));
    sockets.endWriting(client);
    readAll(server);
    sockets.send(server, Buffer.alloc(50_000, "y"));
    sockets.close(server);
    const { bytes, how } = readAll(client);
    return `${bytes.length} bytes, then ${how}`;
  },
  "close with unread bytes": ({ client, server }) => {
    sockets.send(client, Buffer.alloc(100, "x"));
    sockets.poll(server, sockets.POLLIN, WAIT_MS);
    sockets.close(server);
    return `the sender sees ${readAll(client).how}`;
  },
  "reset after bytes that are not read yet": ({ client, server }) => {
    sockets.send(client, Buffer.alloc(100, "x"));
    sockets.reset(client);
    sockets.poll(server, sockets.POLLHUP, WAIT_MS);
    const { bytes, how } = readAll(server);
    return `the reader gets ${bytes.length} bytes, then ${how}`;
  },
  "reader that does not read": ({ client, server }) => {
    const chunk = Buffer.alloc(64 * 1024, "z");
    let sent = 0;
    const pagesBefore = tcpPages();
    while (sent < SLOW_READER_BYTES_MAX) {
      const done = sockets.send(client, chunk);
      if (done > 0) sent += done;
      else if (sockets.poll(client, sockets.POLLOUT, WAIT_MS) === 0) break;
    }
    const pages = tcpPages() - pagesBefore;
    const mib = (bytes: number): string => (bytes / (1 << 20)).toFixed(0);
    void server;
    return sent >= SLOW_READER_BYTES_MAX
      ? `the writer is never held: ${mib(sent)} MiB taken when we stopped, ${mib(pages * 4096)} MiB of them in kernel memory`
      : `the writer is held within 8 MiB: ${sent < 8 << 20}`;
  },
  "a message by TCP, then one by the redirect": ({ client, server }) => {
    sockets.send(client, Buffer.alloc(LEFT_BYTES, "1"));
    sockets.send(client, Buffer.alloc(100, "2"));
    sockets.poll(server, sockets.POLLIN, WAIT_MS);
    const got = readSome(server, LEFT_BYTES + 100).toString();
    return got.startsWith("1") && got.endsWith("2") ? "in order" : "the second arrives before the first";
  },
  "urgent byte": ({ client, server }) => {
    const sent = sockets.send(client, Buffer.from("!"), sockets.MSG_OOB);
    const events = sockets.poll(server, sockets.POLLPRI | sockets.POLLIN, WAIT_MS);
    const into = Buffer.alloc(4);
    return `sent ${sent}, POLLPRI ${(events & sockets.POLLPRI) !== 0}, read out of band ${sockets.receive(server, into, sockets.MSG_OOB)}, in band ${sockets.receive(server, into)}`;
  },
  FIONREAD: ({ client, server }) => {
    sockets.send(client, Buffer.alloc(10));
    sockets.poll(server, sockets.POLLIN, WAIT_MS);
    return String(sockets.unreadBytes(server));
  },
  MSG_PEEK: ({ client, server }) => {
    sockets.send(client, Buffer.from("peeked"));
    sockets.poll(server, sockets.POLLIN, WAIT_MS);
    const into = Buffer.alloc(10);
    return `${sockets.receive(server, into, sockets.MSG_PEEK)}, then ${sockets.receive(server, into)}`;
  },
  "TCP_INFO after 1,000 bytes": ({ client, server }) => {
    sockets.send(client, Buffer.alloc(1000));
    sockets.poll(server, sockets.POLLIN, WAIT_MS);
    readSome(server, 1000);
    return `acknowledged ${sockets.tcpBytes(client).acked - 1}, received ${sockets.tcpBytes(server).received}`;
  },
  "sendfile of 100 KB": ({ client, server }) =>
    withFile(100_000, (file) => {
      const sent = sockets.sendFile(client, file, 100_000);
      return `sent ${sent}, arrived ${readSome(server, 100_000).length}`;
    }),
  "splice out of the socket": ({ client, server }) => {
    sockets.send(client, Buffer.alloc(1000, "s"));
    sockets.poll(server, sockets.POLLIN, WAIT_MS);
    const [, write] = pipe();
    return String(sockets.spliceTo(server, write, 1000));
  },
};

function connected(listener: number): Pair {
  const client = sockets.connectTo(PORT);
  sockets.poll(listener, sockets.POLLIN, WAIT_MS);
  const server = sockets.acceptFrom(listener);
  if (server < 0) throw new Error(`nothing was accepted: error ${-server}`);
  sockets.poll(client, sockets.POLLOUT, WAIT_MS);
  return { client, server };
}

function exchange(from: number, bytes: Buffer, to: number): Buffer {
  const parts: Buffer[] = [];
  const into = Buffer.alloc(256 * 1024);
  let sent = 0;
  let got = 0;
  while (got < bytes.length) {
    const done = sent < bytes.length ? sockets.send(from, bytes.subarray(sent)) : 0;
    if (done > 0) sent += done;
    const read = sockets.receive(to, into);
    if (read > 0) {
      parts.push(Buffer.from(into.subarray(0, read)));
      got += read;
    } else if (done <= 0 && sockets.poll(to, sockets.POLLIN, WAIT_MS) === 0) break;
  }
  return Buffer.concat(parts);
}

/** Until the end, an error, or nothing for a while. */
function readAll(fd: number): { bytes: Buffer; how: string } {
  const parts: Buffer[] = [];
  const into = Buffer.alloc(256 * 1024);
  for (;;) {
    const read = sockets.receive(fd, into);
    if (read > 0) parts.push(Buffer.from(into.subarray(0, read)));
    else if (read === 0) return { bytes: Buffer.concat(parts), how: "FIN" };
    else if (read !== -sockets.EAGAIN) return { bytes: Buffer.concat(parts), how: `error ${-read}` };
    else if (sockets.poll(fd, sockets.POLLIN | sockets.POLLRDHUP, WAIT_MS) === 0)
      return { bytes: Buffer.concat(parts), how: "nothing" };
  }
}

function readSome(fd: number, wanted: number): Buffer {
  const parts: Buffer[] = [];
  const into = Buffer.alloc(256 * 1024);
  for (let got = 0; got < wanted;) {
    const read = sockets.receive(fd, into);
    if (read > 0) {
      parts.push(Buffer.from(into.subarray(0, read)));
      got += read;
    } else if (sockets.poll(fd, sockets.POLLIN, WAIT_MS) === 0) break;
  }
  return Buffer.concat(parts);
}

function withFile(bytes: number, use: (fd: number) => string): string {
  const folder = mkdtempSync(join(tmpdir(), "pillion-choice-"));
  const path = join(folder, "file");
  writeFileSync(path, Buffer.alloc(bytes, "f"));
  const fd = openSync(path, "r");
  try {
    return use(fd);
  } finally {
    closeSync(fd);
    rmSync(folder, { recursive: true });
  }
}

function tcpPages(): number {
  return Number(/^TCP:.* mem (\d+)/m.exec(readFileSync("/proc/net/sockstat", "utf8"))?.[1]);
}

/** Both ends of a pipe that Node has no word for: a FIFO, opened twice. */
function pipe(): [number, number] {
  const folder = mkdtempSync(join(tmpdir(), "pillion-choice-"));
  const path = join(folder, "fifo");
  execFileSync("mkfifo", [path]);
  const read = openSync(path, 0x802);
  const write = openSync(path, 0x801);
  rmSync(folder, { recursive: true });
  return [read, write];
}

/** In the namespace: one line of JSON, what each case saw. */
function runCases(): void {
  const listener = sockets.listenOn(PORT);
  const seen: Record<string, string> = {};
  for (const [name, run] of Object.entries(CASES)) {
    const pair = connected(listener);
    seen[name] = run(pair);
    // What a case has closed is gone; numbers are not used again before the next pair, since nothing opens between.
    sockets.close(pair.client);
    sockets.close(pair.server);
  }
  console.log(JSON.stringify(seen));
}

function main(): void {
  console.log(`${describeMachine()}\n`);
  const namespace = `pillion-choice-${process.pid}`;
  execFileSync("ip", ["netns", "add", namespace]);
  const redirect = new Redirect();
  try {
    execFileSync("ip", ["-n", namespace, "link", "set", "lo", "up"]);
    const command = [
      "netns",
      "exec",
      namespace,
      process.execPath,
      "--no-warnings",
      import.meta.filename,
      "cases",
    ];
    const run = (): Record<string, string> =>
      JSON.parse(execFileSync("ip", command, { encoding: "utf8", timeout: 60_000 })) as Record<
        string,
        string
      >;
    const plain = run();
    const redirected = redirect.within(run);
    for (const name of Object.keys(CASES)) {
      const same = plain[name] === redirected[name];
      console.log(`${same ? "same     " : "DIFFERENT"} ${name}\n    TCP:      ${plain[name]}`);
      if (!same) console.log(`    redirect: ${redirected[name]}`);
    }
    console.log(`\nmessages: ${JSON.stringify(redirect.messages())}`);
  } finally {
    redirect.close();
    execFileSync("ip", ["netns", "del", namespace]);
  }
}

if (process.argv[2] === "cases") runCases();
else main();
