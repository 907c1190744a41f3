import { existsSync } from "node:fs";
import { readFolder } from "#/agent/folder.ts";
import { isFault } from "#/control/policy/conditions.ts";
import { loadFolder } from "#/kube/folder.ts";
import type { LoadedObject } from "#/kube/folder.ts";
import { describeParent } from "#/model/node-protocol.ts";
import type { FolderFile, FolderProblem, NodeInfo } from "#/model/node-protocol.ts";
import { meshOfFolder } from "#/sim/scenario/folder-mesh.ts";
import type { FolderMesh } from "#/sim/scenario/folder-mesh.ts";
import { CommandError } from "../exit.ts";

/** A condition that complains, of a route at a parent or a policy at a target. */
export interface BadCondition {
  readonly object: string;
  readonly file: string;
  readonly line: number;
  readonly at: string;
  readonly type: string;
  readonly status: string;
  readonly reason: string;
  readonly message: string;
}

/** A folder as the control plane takes it in, once every pod is ready; no mesh has to run. */
export interface FolderModel {
  readonly mesh: FolderMesh;
  readonly objects: ReadonlyMap<string, LoadedObject>;
  /** What keeps a file or a pod from being taken. */
  readonly problems: readonly FolderProblem[];
  /** What of a policy does not count, while the rest of it does. */
  readonly findings: readonly FolderProblem[];
  readonly conditions: readonly BadCondition[];
}

/** Throws a `CommandError` of exit code 2 where there is nothing to read. `of`: of the mesh that it is compared with. */
export function readModel(folder: string, of: Partial<NodeInfo> = {}): FolderModel {
  if (!existsSync(folder)) throw new CommandError(`${folder} does not exist; check the path`, 2);
  const { files, problems } = readFolder(folder);
  return modelOf(
    files,
    problems.map((reason) => ({ file: folder, line: 0, object: "", field: "", reason })),
    of,
  );
}

/** `unread`: what was wrong before anything could be looked at. */
export function modelOf(
  files: readonly FolderFile[],
  unread: readonly FolderProblem[] = [],
  of: Partial<NodeInfo> = {},
): FolderModel {
  const loaded = loadFolder(files, new Map());
  const { mesh, problems, warnings } = meshOfFolder(loaded.objects, () => null, of);
  return {
    mesh,
    objects: loaded.objects,
    problems: [...unread, ...loaded.problems, ...problems],
    findings: warnings,
    conditions: badConditions(mesh, loaded.objects),
  };
}

function badConditions({ view }: FolderMesh, objects: ReadonlyMap<string, LoadedObject>): BadCondition[] {
  return [...view.policy.statuses].flatMap(([key, parents]) => {
    const loaded = objects.get(key);
    if (loaded === undefined) return [];
    const { kind, metadata } = loaded.object;
    return parents.flatMap(({ parent, conditions }) =>
      conditions.filter(isFault).map(({ type, status, reason, message }) => ({
        object: `${kind} ${metadata.namespace ?? "default"}/${metadata.name}`,
        file: loaded.file,
        line: loaded.lineOf([]),
        at: describeParent(parent),
        type,
        status,
        reason,
        message,
      })),
    );
  });
}
