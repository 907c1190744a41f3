/**
 * Holds conversations, each a line on stdin, from inside a pod: so the same requests are made beside the origin and
 * from behind a sidecar. Each line on stdout is what came back. Started with the run's name, the host, and a port for
 * each origin.
 */
import { createInterface } from "node:readline";
import type { Conversation, OriginName, Run } from "./case.ts";
import { converse } from "./http1-client.ts";

/** Connections at a time. */
const LANES = 16;

const [run, host, ports] = process.argv.slice(2) as [Run, string, string];
const portOf = JSON.parse(ports) as Record<OriginName, number>;
const waiting: { readonly index: number; readonly conversation: Conversation }[] = [];
let busy = 0;

createInterface(process.stdin)
  .on("line", (line) => {
    waiting.push(JSON.parse(line) as { index: number; conversation: Conversation });
    begin();
  })
  .on("close", () => process.exit(0));

function begin(): void {
  while (busy < LANES) {
    const next = waiting.shift();
    if (next === undefined) return;
    busy++;
    void hold(next);
  }
}

async function hold({ index, conversation }: (typeof waiting)[number]): Promise<void> {
  const exchanges = await converse(conversation, run, { host, port: portOf[conversation.origin] });
  process.stdout.write(`${JSON.stringify({ index, exchanges })}\n`);
  busy--;
  begin();
}
