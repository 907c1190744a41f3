import type { WorkerContext } from "./worker.ts";

/**
 * What one end of a connection does, in order:
 *
 *     send BYTES       latin1, one character a byte
 *     await TEXT       until this has come, behind what was awaited before
 *     await-end        until the other side has ended its half, or reset
 *     end              FIN
 *     reset            RST
 */
export type Step =
  | readonly ["send", string]
  | readonly ["await", string]
  | readonly ["await-end"]
  | readonly ["end"]
  | readonly ["reset"];

/** What one end saw. */
export interface Heard {
  text: string;
  /** How the other side ended. */
  end: "open" | "fin" | "reset";
  /** The step that was not done in time; "" when all were. */
  missed: string;
}

/**
 * Listens, and plays one script on each connection that says something (who only connects is a proxy that looks whether the
 * server speaks first). Gives the port. `heardByServer` ends it. For `Pod.run`: it sees its arguments and nothing else.
 */
export function playServer({ net, state }: WorkerContext, scripts: readonly Step[][]): Promise<number> {
  type Played = { heard: Heard; done: Promise<void> };
  const played: Played[] = [];
  const sockets: { end(): void }[] = [];
  const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    const heard: Heard = { text: "", end: "open", missed: "" };
    let wake = (): void => undefined;
    let cursor = 0;
    sockets.push(socket);
    const until = async (what: string, holds: () => boolean): Promise<void> => {
      const stopAtMs = performance.now() + 4_000;
      while (!holds() && heard.missed === "") {
        if (heard.end !== "open" || performance.now() > stopAtMs) heard.missed = what;
        else
          await new Promise<void>((done) => {
            const timer = setTimeout(done, 200);
            wake = () => {
              clearTimeout(timer);
              done();
            };
          });
      }
    };
    const play = async (steps: readonly Step[]): Promise<void> => {
      for (const [what, arg] of steps) {
        if (heard.missed !== "") break;
        if (what === "send") socket.write(arg, "latin1");
        else if (what === "end") socket.end();
        else if (what === "reset") socket.resetAndDestroy();
        else if (what === "await-end") await until(what, () => heard.end !== "open");
        else {
          await until(`await ${arg}`, () => heard.text.includes(arg, cursor));
          cursor = heard.text.indexOf(arg, cursor) + arg.length;
        }
      }
    };
    socket.on("data", (bytes: Buffer) => {
      if (heard.text === "") {
        const script = scripts[Math.min(played.length, scripts.length - 1)] ?? [];
        const own: Played = { heard, done: Promise.resolve() };
        played.push(own);
        own.done = play(script);
      }
      heard.text += bytes.toString("latin1");
      wake();
    });
    socket.on("end", () => {
      heard.end = "fin";
      wake();
    });
    socket.on("error", () => {
      heard.end = "reset";
      wake();
    });
  });
  state["played"] = { server, played, sockets };
  return new Promise((done) =>
    server.listen(8080, "0.0.0.0", () => done((server.address() as { port: number }).port)),
  );
}

/** What each connection heard, once its script is over. The connections are ended, and gone when this returns. */
export async function heardByServer({ state }: WorkerContext): Promise<Heard[]> {
  const { server, played, sockets } = state["played"] as {
    server: { close(done: () => void): void };
    played: { heard: Heard; done: Promise<void> }[];
    sockets: { end(): void }[];
  };
  for (const { done } of played) await done;
  const heard = played.map((one) => ({ ...one.heard }));
  for (const socket of sockets) socket.end();
  await new Promise<void>((done) => server.close(done));
  return heard;
}

/** Plays a client, and closes after its last step. For `Pod.run`. */
export async function playClient(
  { net }: WorkerContext,
  host: string,
  port: number,
  steps: readonly Step[],
): Promise<Heard> {
  const heard: Heard = { text: "", end: "open", missed: "" };
  let wake = (): void => undefined;
  let cursor = 0;
  const socket = net.connect({ host, port, allowHalfOpen: true, noDelay: true });
  socket.on("data", (bytes: Buffer) => {
    heard.text += bytes.toString("latin1");
    wake();
  });
  socket.on("end", () => {
    heard.end = "fin";
    wake();
  });
  socket.on("error", () => {
    heard.end = "reset";
    wake();
  });
  const until = async (what: string, holds: () => boolean): Promise<void> => {
    const stopAtMs = performance.now() + 4_000;
    while (!holds() && heard.missed === "") {
      if (heard.end !== "open" || performance.now() > stopAtMs) heard.missed = what;
      else
        await new Promise<void>((done) => {
          const timer = setTimeout(done, 200);
          wake = () => {
            clearTimeout(timer);
            done();
          };
        });
    }
  };
  for (const [what, arg] of steps) {
    if (heard.missed !== "") break;
    if (what === "send") socket.write(arg, "latin1");
    else if (what === "end") socket.end();
    else if (what === "reset") socket.resetAndDestroy();
    else if (what === "await-end") await until(what, () => heard.end !== "open");
    else {
      await until(`await ${arg}`, () => heard.text.includes(arg, cursor));
      cursor = heard.text.indexOf(arg, cursor) + arg.length;
    }
  }
  socket.destroy();
  return heard;
}
