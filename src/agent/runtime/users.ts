/** Who the parts of a mesh are to the kernel. */
export interface Users {
  /** Only this user (0 inside) is mapped: all parts run as the one who started the mesh. */
  readonly isOneForAll: boolean;
  readonly control: number;
  readonly dns: number;
  sidecar(slot: number): number;
}

const SIDECAR_FIRST = 61_100;

/** As root: every part has its own. */
export const OWN_USERS: Users = {
  isOneForAll: false,
  control: 61_000,
  dns: 61_001,
  sidecar: (slot) => SIDECAR_FIRST + slot,
};

/** Inside an unprivileged user namespace. */
export const ONE_USER: Users = { isOneForAll: true, control: 0, dns: 0, sidecar: () => 0 };
