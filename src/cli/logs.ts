import { closeSync, fstatSync, openSync, readSync, watch } from "node:fs";
import { CommandError } from "./exit.ts";
import type { InstancePaths } from "./instance-paths.ts";
import { ask } from "./operator.ts";
import { findContainer, findPod } from "./pod-reference.ts";

export interface LogsOptions {
  readonly pod: string;
  readonly namespace: string | null;
  readonly container: string | null;
  readonly follow: boolean;
  /** Lines from the end; -1 for all. */
  readonly tailLines: number;
}

const CHUNK_BYTES = 65_536;

/** Copies a container's log to `write`; with `follow` goes on as it grows, until the process is interrupted. */
export async function logs(
  paths: InstancePaths,
  options: LogsOptions,
  write: (bytes: Uint8Array) => void,
  say: (line: string) => void,
): Promise<void> {
  const { pods } = await ask(paths, { kind: "status" }, "status");
  const pod = findPod(pods, options.pod, options.namespace);
  const container = findContainer(pod, options.container);
  if (pods.filter((other) => other.owner === pod.owner).length > 1 && pod.name !== options.pod)
    say(`${options.pod} has several pods; this is ${pod.namespace}/${pod.name}`);
  const { file } = await ask(
    paths,
    { kind: "logs", namespace: pod.namespace, pod: pod.name, container },
    "logs",
  );
  let fd: number;
  try {
    fd = openSync(file, "r");
  } catch (error) {
    throw new CommandError(
      `${pod.name}/${container} has no log yet (${(error as NodeJS.ErrnoException).code})`,
    );
  }
  let at = options.tailLines < 0 ? 0 : tailOffset(fd, options.tailLines);
  const copy = (): void => {
    // A log that shrank was rotated in place: begin again at its start.
    if (fstatSync(fd).size < at) at = 0;
    const chunk = new Uint8Array(CHUNK_BYTES);
    for (
      let read = readSync(fd, chunk, 0, CHUNK_BYTES, at);
      read > 0;
      read = readSync(fd, chunk, 0, CHUNK_BYTES, at)
    ) {
      write(chunk.slice(0, read));
      at += read;
    }
  };
  copy();
  if (!options.follow) {
    closeSync(fd);
    return;
  }
  // The log of a pod that is gone is gone too, and grows no more.
  await new Promise<void>((resolve) => {
    const watcher = watch(file, () => {
      copy();
      if (fstatSync(fd).nlink > 0) return;
      watcher.close();
      resolve();
    });
  });
  closeSync(fd);
}

/** Where the last `lines` lines begin. */
export function tailOffset(fd: number, lines: number): number {
  if (lines === 0) return fstatSync(fd).size;
  const end = fstatSync(fd).size;
  let start = end;
  let newlines = 0;
  const chunk = new Uint8Array(CHUNK_BYTES);
  while (start > 0) {
    const length = Math.min(CHUNK_BYTES, start);
    readSync(fd, chunk, 0, length, start - length);
    for (let i = length - 1; i >= 0; i--) {
      const at = start - length + i;
      // The log's own last newline ends a line, it begins none.
      if (chunk[i] === 0x0a && at !== end - 1 && ++newlines === lines) return at + 1;
    }
    start -= length;
  }
  return 0;
}
