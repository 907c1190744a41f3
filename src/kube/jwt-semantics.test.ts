import assert from "node:assert/strict";
import { test } from "node:test";
import { describeProblem, loadFile } from "./folder.ts";

const TARGET = 'targetRefs: [{group: "", kind: Service, name: web}]';

function problems(issuer: string, more = "", target = TARGET): string {
  const text = `apiVersion: pillion.dev/v1alpha1\nkind: JwtPolicy\nmetadata: {name: p, namespace: shop}\nspec: {${target}, issuers: [${issuer}]${more}}\n`;
  return loadFile({ path: "p.yaml", text }).problems.map(describeProblem).join("\n");
}

const URL_OK = 'jwks: {url: "https://login.test/keys"}';

test("a JwtPolicy that is whole is taken", () => {
  for (const issuer of [
    `{issuer: a, ${URL_OK}}`,
    '{issuer: a, jwks: {url: "http://keys.auth.svc.cluster.local:8080/jwks"}}',
    '{issuer: a, jwks: {url: "http://keys.auth.svc/jwks"}}',
    "{issuer: a, jwks: {inline: '{}'}, leeway: 10m, headers: [X-Token], forward: true, audiences: [b]}",
    `{issuer: a, ${URL_OK}, claimHeaders: [{claim: sub, header: X-User}]}`,
  ])
    assert.equal(problems(issuer), "");
  assert.equal(problems(`{issuer: a, ${URL_OK}}`, ", required: {all: true}"), "");
  assert.equal(problems(`{issuer: a, ${URL_OK}}`, ", required: {requests: [{methods: [POST]}]}"), "");
});

test("parts of a JwtPolicy must agree with each other, and keys may not come over a wire that anybody can change", () => {
  for (const [issuer, more, expected] of [
    ["{issuer: a, jwks: {}}", "", /jwks must have exactly one of/],
    [`{issuer: a, jwks: {inline: '{}', url: "https://a/"}}`, "", /exactly one of/],
    [
      '{issuer: a, jwks: {url: "http://login.test/keys"}}',
      "",
      /must begin with https:\/\/: whoever is on the way/,
    ],
    ['{issuer: a, jwks: {url: "http://127.0.0.1/keys"}}', "", /must begin with https/],
    ['{issuer: a, jwks: {url: "file:///etc/passwd"}}', "", /must begin with https/],
    ['{issuer: a, jwks: {url: "https://u:p@login.test/"}}', "", /no name or password/],
    ["{issuer: a, jwks: {url: keys}}", "", /is no URL/],
    [`{issuer: a, ${URL_OK}}, {issuer: a, ${URL_OK}}`, "", /a is there twice/],
    [`{issuer: a, ${URL_OK}, leeway: 11m}`, "", /at most 10m/],
    [`{issuer: a, ${URL_OK}, claimHeaders: [{claim: a, header: Host}]}`, "", /cannot be set/],
    [
      `{issuer: a, ${URL_OK}, claimHeaders: [{claim: a, header: Authorization}]}`,
      "",
      /where tokens are looked for/,
    ],
    [
      `{issuer: a, ${URL_OK}, claimHeaders: [{claim: a, header: X-A}, {claim: b, header: x-a}]}`,
      "",
      /x-a is there twice/,
    ],
    [`{issuer: a, ${URL_OK}}`, ", required: {}", /either all: true or requests/],
    [
      `{issuer: a, ${URL_OK}}`,
      ", required: {all: true, requests: [{methods: [GET]}]}",
      /either all: true or requests/,
    ],
    [
      `{issuer: a, ${URL_OK}}`,
      ", required: {requests: [{claims: [{claim: a, values: [b]}]}]}",
      /claims says nothing/,
    ],
    [
      `{issuer: a, ${URL_OK}}`,
      ", required: {requests: [{paths: [{type: Exact, value: admin}]}]}",
      /must begin with \//,
    ],
  ] as const)
    assert.match(problems(issuer, more), expected);
  assert.match(
    problems(`{issuer: a, ${URL_OK}}`, "", 'targetRefs: [{group: "", kind: Pod}]'),
    /selector is missing/,
  );
  assert.match(
    problems(`{issuer: a, ${URL_OK}}`, "", 'targetRefs: [{group: "", kind: HTTPRoute, name: a}]'),
    /kind/,
  );
});
