/** The C library calls that the sidecar and the agent make, against a real kernel. No root needed. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { connect, createServer, type Server, type Socket } from "node:net";
import { test } from "node:test";
import { originalDestination, peerCredentials } from "#/kernel/libc.ts";

test("SO_PEERCRED names the process at the other end of a Unix socket", async () => {
  await withAccepted({ path: `\0pillion-libc-${process.pid}` }, (fd) => {
    const expected = { pid: process.pid, uid: process.getuid?.(), gid: process.getgid?.() };
    assert.deepEqual(peerCredentials(fd), expected);
    assert.equal(originalDestination(fd), null);
  });
});

test("a TCP socket has no peer credentials worth the name, and no file has", async () => {
  await withAccepted({ port: 0, host: "127.0.0.1" }, (fd) => {
    const found = peerCredentials(fd);
    assert.ok(found === null || found.pid === 0);
  });
  assert.equal(peerCredentials(-1), null);
  assert.equal(originalDestination(-1), null);
});

test("after forbidDumping the process cannot be dumped (prctl(2) PR_SET_DUMPABLE)", () => {
  // The kernel gives the files below /proc/self to root when a process is not dumpable.
  const root = process.getuid?.() === 0;
  const file = join(import.meta.dirname, "fixtures/undumpable.ts");
  // A program that is executed as another user may be dumped at first, whoever started it.
  const command = [process.execPath, "--disable-warning=ExperimentalWarning", file];
  const run = root
    ? spawnSync("setpriv", ["--reuid=65534", "--clear-groups", ...command], { encoding: "utf8" })
    : spawnSync(process.execPath, command.slice(1), { encoding: "utf8" });
  assert.equal(run.stdout.trim(), `${root ? 65534 : process.getuid?.()} 0`, run.stderr);
});

async function withAccepted(
  where: { path: string } | { port: number; host: string },
  use: (fd: number) => void,
): Promise<void> {
  const server: Server = createServer();
  await new Promise<void>((resolve) => server.listen(where, resolve));
  const address = server.address();
  const client = typeof address === "string" ? connect(address) : connect(address?.port ?? 0, "127.0.0.1");
  try {
    const socket = await new Promise<Socket>((resolve) => server.once("connection", resolve));
    use((socket as unknown as { _handle: { fd: number } })._handle.fd);
    socket.destroy();
  } finally {
    client.destroy();
    await new Promise((resolve) => server.close(resolve));
  }
}
