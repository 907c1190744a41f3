/**
 * What Node promises to code that libuv calls through `node:ffi`, past Node's own callbacks: when its promises and ticks run, and what
 * becomes of what it throws; and whether all this works behind a sidecar's filter of system calls.
 *
 *   scripts/run node bench/choices/epoll-callback.ts
 */
import { spawnSync } from "node:child_process";
import { connect } from "node:net";
import { confine } from "#/kernel/confinement.ts";
import { EpollLoop } from "./epoll-loop.ts";

const PORT = 19_321;
const NEXT_EVENT_MS = 300;

function run(mode: "later" | "confined" | "throw"): void {
  if (mode === "confined") confine({ writes: "nothing" });
  const loop = new EpollLoop();
  loop.listen(PORT, (conn) => {
    conn.received = (_bytes, length) => {
      if (length <= 0) return;
      if (mode === "throw") throw new Error("thrown in the callback");
      const startMs = performance.now();
      const say = (what: string) => (): void => {
        console.log(`${what} ran ${(performance.now() - startMs).toFixed(0)} ms after the callback`);
      };
      process.nextTick(say("process.nextTick"));
      void Promise.resolve().then(say("a promise"));
    };
  });
  loop.runInside();
  process.on("uncaughtException", (error) => console.log(`uncaughtException was told of: ${error.message}`));
  const socket = connect(PORT, "127.0.0.1", () => socket.write("x"));
  // The next that Node itself does. Nothing else wakes this process.
  setTimeout(() => undefined, NEXT_EVENT_MS);
  setTimeout(() => process.exit(), NEXT_EVENT_MS + 50);
}

const [mode] = process.argv.slice(2);
if (mode === "later" || mode === "confined" || mode === "throw") run(mode);
else {
  for (const each of ["later", "confined", "throw"]) {
    const { stdout, status, signal } = spawnSync(
      process.execPath,
      ["--no-warnings", import.meta.filename, each],
      {
        encoding: "utf8",
        timeout: 10_000,
      },
    );
    console.log(`${each}: ${stdout.trim().replaceAll("\n", "; ")} (ended with ${signal ?? status})`);
  }
}
