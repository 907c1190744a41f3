import { existsSync, readFileSync, realpathSync, watch, type FSWatcher } from "node:fs";
import { join } from "node:path";
import type { Clock, Timer } from "#/base/clock.ts";
import {
  BasicConstraintsExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
} from "./x509.ts";
import type { X509Certificate } from "./x509.ts";
import { certificatesIn, fingerprint, isIssuedBy, readKeyed, type KeyedCertificate } from "./certificates.ts";

/** What an authority outside gives: the roots that sidecars are to trust, and an issuer below one of them that may sign leaves. */
export interface IssuerMaterial {
  readonly anchors: readonly X509Certificate[];
  readonly issuer: KeyedCertificate;
}

/** An authority outside. Others than a folder (a Secret's API, a vault) are one more class of this shape. */
export interface IssuerSource {
  /** For people. */
  readonly name: string;
  /** What it has now. Rejects, saying what is wrong and where. */
  read(): Promise<IssuerMaterial>;
  /** `changed` is called soon after it may have something else, and once at first. */
  watch(changed: () => void): void;
  close(): void;
}

/** As in a Secret of the type kubernetes.io/tls that cert-manager writes. */
const FILES = { roots: "ca.crt", certificate: "tls.crt", key: "tls.key" } as const;
const POLL_MS = 2_000;
/** Files that are written one after another are read when nothing has changed for so long. */
const SETTLE_MS = 300;
const ANCHORS_MAX = 100;

/**
 * An issuer in three PEM files of a folder: `ca.crt` (one root or more), `tls.crt` (the issuer, and what stands between it and a root),
 * `tls.key`. Read again when they change; the swapped symbolic links of a Kubernetes volume are followed as one.
 */
export class IssuerFolder implements IssuerSource {
  readonly name: string;
  readonly #dir: string;
  readonly #trustDomain: string;
  readonly #clock: Clock;
  #timer: Timer | null = null;
  #watcher: FSWatcher | null = null;
  /** What the last look found, and what was last told of. */
  #seen: string | null = null;
  #told: string | null = null;

  /** `name`: the folder as the operator knows it; `dir`: as we see it. */
  constructor(name: string, dir: string, trustDomain: string, clock: Clock) {
    this.name = name;
    this.#dir = dir;
    this.#trustDomain = trustDomain;
    this.#clock = clock;
  }

  async read(): Promise<IssuerMaterial> {
    const { roots, certificate, key } = this.#texts();
    const anchors = await this.#part("roots", () => rootsIn(roots));
    const issuer = await this.#part("certificate", async () => {
      const keyed = await readKeyed(certificate, key);
      checkIssuer(keyed, anchors, this.#trustDomain);
      return keyed;
    });
    return { anchors, issuer };
  }

  watch(changed: () => void): void {
    const look = (): void => {
      const now = this.#glance();
      const isSettled = now === this.#seen;
      this.#seen = now;
      this.#again(isSettled ? POLL_MS : SETTLE_MS, look);
      if (!isSettled || now === this.#told) return;
      this.#told = now;
      changed();
    };
    try {
      this.#watcher = watch(this.#dir, () => this.#again(SETTLE_MS, look));
      this.#watcher.on("error", () => this.#watcher?.close());
    } catch {
      // Polled only: it may be made later.
    }
    look();
  }

  close(): void {
    this.#timer?.cancel();
    this.#watcher?.close();
  }

  #again(afterMs: number, look: () => void): void {
    this.#timer?.cancel();
    this.#timer = this.#clock.after(afterMs, look);
  }

  /** All that is read, or the error: to see whether something has changed. */
  #glance(): string {
    try {
      return JSON.stringify(this.#texts());
    } catch (error) {
      return String(error);
    }
  }

  #texts(): Record<keyof typeof FILES, string> {
    // Kubernetes makes a new folder and points `..data` to it: all files of one reading come from one of these.
    const swapped = join(this.#dir, "..data");
    const dir = existsSync(swapped) ? realpathSync(swapped) : this.#dir;
    const read = (file: string): string => {
      try {
        return readFileSync(join(dir, file), "utf8");
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        const remedy =
          code === "EACCES"
            ? `the control plane (uid ${process.getuid?.() ?? "?"}) may not read it; let that user, and nobody else, do so`
            : code === "ENOENT"
              ? "it is not there"
              : String(error);
        throw new Error(`${this.name}/${file}: ${remedy}`, { cause: error });
      }
    };
    return { roots: read(FILES.roots), certificate: read(FILES.certificate), key: read(FILES.key) };
  }

  async #part<T>(part: keyof typeof FILES, make: () => T | Promise<T>): Promise<T> {
    try {
      return await make();
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      throw new Error(`${this.name}/${FILES[part]}: ${why}`, { cause: error });
    }
  }
}

function rootsIn(pem: string): X509Certificate[] {
  const anchors = certificatesIn(pem);
  if (anchors.length === 0) throw new Error("it holds no certificate");
  if (anchors.length > ANCHORS_MAX) throw new Error(`it holds more than ${ANCHORS_MAX} roots`);
  const unfit = anchors.find((anchor) => anchor.getExtension(BasicConstraintsExtension)?.ca !== true);
  if (unfit !== undefined) throw new Error(`${unfit.subject} is no authority (basicConstraints)`);
  return anchors;
}

/** X.509-SVID §4, and that there is a way from the issuer to one of the roots. */
function checkIssuer(
  keyed: KeyedCertificate,
  anchors: readonly X509Certificate[],
  trustDomain: string,
): void {
  const chain = [keyed.certificate, ...keyed.above];
  for (const certificate of chain) {
    if (certificate.getExtension(BasicConstraintsExtension)?.ca !== true)
      throw new Error(`${certificate.subject} may not sign (basicConstraints)`);
    const usages = certificate.getExtension(KeyUsagesExtension)?.usages ?? 0;
    if ((usages & KeyUsageFlags.keyCertSign) === 0)
      throw new Error(`${certificate.subject} may not sign certificates (keyUsage)`);
  }
  const uris = (keyed.certificate.getExtension(SubjectAlternativeNameExtension)?.names.items ?? []).filter(
    ({ type }) => type === "url",
  );
  const foreign = uris.find(({ value }) => value !== `spiffe://${trustDomain}`);
  if (foreign !== undefined)
    throw new Error(`it is for ${foreign.value}, and this trust domain is ${trustDomain}`);
  for (const [i, certificate] of chain.entries()) {
    if (
      anchors.some(
        (anchor) => fingerprint(anchor) === fingerprint(certificate) || isIssuedBy(certificate, anchor),
      )
    )
      return;
    const next = chain[i + 1];
    if (next === undefined || !isIssuedBy(certificate, next)) break;
  }
  throw new Error("it was signed by none of the roots in ca.crt");
}
