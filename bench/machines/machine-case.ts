/** One thing that a protocol machine, or a pair of whole sidecars, does over and over, without sockets or time. */
export interface MachineCase {
  readonly name: string;
  /** What one unit of work is, as "request" or "16 KiB". */
  readonly unit: string;
  /** Builds the machines. The function that it returns works a little and says how many units that were, at least one. */
  readonly make: () => () => number;
}
