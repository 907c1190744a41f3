import { connect } from "node:net";
import type { OperatorAnswer, OperatorRequest } from "#/model/operator-protocol.ts";
import { CommandError } from "./exit.ts";
import type { InstancePaths } from "./instance-paths.ts";
import { isRootsInstead } from "./instance-paths.ts";

/** The answer of one kind, as `ask` narrows it. */
export type AnswerOf<K extends OperatorAnswer["kind"]> = Extract<OperatorAnswer, { kind: K }>;

/** Whether an agent is there to be asked: nobody listens, or nobody at all. */
export class AgentAway extends CommandError {
  constructor(paths: InstancePaths) {
    super(
      isRootsInstead(paths)
        ? `instance "${paths.name}" is root's; try again with sudo (you have none of that name yourself)`
        : `no mesh is running as instance "${paths.name}"; start one with: pillion up -f FOLDER`,
    );
  }
}

/** Asks the agent and gives the one answer that counts. An "error" answer is thrown as what the operator reads. */
export async function ask<K extends OperatorAnswer["kind"]>(
  paths: InstancePaths,
  request: OperatorRequest,
  kind: K,
): Promise<AnswerOf<K>> {
  for await (const answer of answers(paths, request)) {
    if (answer.kind === kind) return answer as AnswerOf<K>;
  }
  throw new CommandError(`the agent gave no "${kind}" answer; see its log at ${paths.agentLog}`);
}

/** All answers to one request, in order, until "done" or the end of the connection. */
export async function* answers(
  paths: InstancePaths,
  request: OperatorRequest,
): AsyncGenerator<OperatorAnswer> {
  const socket = connect(paths.agentSocket);
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", (error: NodeJS.ErrnoException) => {
        if (error.code === "EACCES")
          reject(new CommandError("only root may command the mesh; try again with sudo"));
        else reject(new AgentAway(paths));
      });
    });
    socket.write(`${JSON.stringify(request)}\n`);
    let rest = "";
    for await (const chunk of socket.setEncoding("utf8") as AsyncIterable<string>) {
      rest += chunk;
      for (let at = rest.indexOf("\n"); at !== -1; at = rest.indexOf("\n")) {
        const answer = JSON.parse(rest.slice(0, at)) as OperatorAnswer;
        rest = rest.slice(at + 1);
        if (answer.kind === "error") throw new CommandError(answer.message);
        yield answer;
        if (answer.kind === "done") return;
      }
    }
  } finally {
    socket.destroy();
  }
}
