import assert from "node:assert/strict";
import { test } from "node:test";
import { isMissing } from "../corpora.ts";
import { judgeHttp1 } from "./http1.ts";

test(
  "reads every case of llhttp's tests as its strict mode does, or refuses more, for a written reason (RFC 9112)",
  { skip: isMissing("http1") },
  () => assert.deepEqual(judgeHttp1().problems, []),
);
