import type { Log } from "#/net/log.ts";
import type { Authority } from "./authority.ts";
import type { IssuerSource } from "./issuer-folder.ts";

/** Takes what an authority outside gives into ours. What cannot be used is said, and what was in force stays. */
export class IssuerFeed {
  readonly #source: IssuerSource;
  readonly #authority: Authority;
  readonly #log: Log;
  #problem = "";
  #isReading = false;
  #isChanged = false;
  readonly #unlisten: () => void;

  constructor(source: IssuerSource, authority: Authority, log: Log) {
    this.#source = source;
    this.#authority = authority;
    this.#log = log;
    // What came during a rotation is taken after it.
    this.#unlisten = authority.listen(() => {
      if (this.#isChanged && authority.rotation === null) this.#take();
    });
    source.watch(() => this.#take());
  }

  get name(): string {
    return this.#source.name;
  }

  /** "": all is well. */
  get problem(): string {
    return this.#problem;
  }

  close(): void {
    this.#unlisten();
    this.#source.close();
  }

  #take(): void {
    this.#isChanged = true;
    if (this.#isReading) return;
    this.#isReading = true;
    this.#isChanged = false;
    this.#source
      .read()
      .then((material) => {
        this.#isReading = false;
        const what = this.#authority.adopt(material);
        if (this.#problem !== "")
          this.#log.info("the issuer from outside can be used again", { source: this.name });
        this.#problem = "";
        if (what === "later") this.#isChanged = true;
        else if (what === "taken")
          this.#log.info("an issuer from outside is taken up", { source: this.name });
        else if (this.#isChanged) this.#take();
      })
      // It cannot be read, or what it gives cannot be written down.
      .catch((error: unknown) => {
        this.#isReading = false;
        const problem = `the issuer from outside cannot be used, what was in force stays: ${error instanceof Error ? error.message : String(error)}`;
        if (problem !== this.#problem) this.#log.error("certificates", { problem });
        this.#problem = problem;
        if (this.#isChanged) this.#take();
      });
  }
}
