import assert from "node:assert/strict";
import { test } from "node:test";
import { isMissing } from "../corpora.ts";
import { judgeHpack } from "./hpack.ts";

test(
  "decodes every story, is read by nghttp2 and Go, and takes no more bytes than nghttp2 (RFC 7541)",
  { skip: isMissing("hpack") },
  async () => assert.deepEqual((await judgeHpack()).problems, []),
);
