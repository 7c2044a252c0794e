// Cases, one line each as they end, and waiting on conditions.

import assert from 'node:assert/strict';

let passed = 0;
const failed = [];

/** Runs a case. A failure is told at once, and the rest goes on. */
export async function check(name, body) {
  const start = Date.now();
  const seconds = () => ((Date.now() - start) / 1000).toFixed(1);
  try {
    const told = await body();
    passed += 1;
    console.log(`ok   ${name}${told ? `: ${told}` : ''} (${seconds()} s)`);
  } catch (error) {
    failed.push(name);
    console.log(`FAIL ${name} (${seconds()} s)\n     ${String(error?.stack ?? error).replaceAll('\n', '\n     ')}`);
  }
}

/** The summary; true if all passed. */
export function summary() {
  for (const name of failed) console.log(`failed: ${name}`);
  console.log(`interop: ${passed} passed, ${failed.length} failed`);
  return failed.length === 0 && passed > 0;
}

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** Looks until `look` returns without an error, and returns what it returned. */
export async function eventually(what, look, limit = 30_000) {
  const end = Date.now() + limit;
  for (;;) {
    try {
      return await look();
    } catch (error) {
      if (Date.now() > end) {
        throw new Error(`waited ${limit} ms in vain until ${what}: ${error.message}`, { cause: error });
      }
      await pause(100);
    }
  }
}

/** That an answer is this OAuth error, with words that tell the reason. */
export function refused(answer, error, words) {
  assert.equal(answer.body.error, error, JSON.stringify(answer.body).slice(0, 400));
  assert.match(answer.body.error_description, words);
}
