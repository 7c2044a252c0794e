// Servers that a run starts, and ends again, also when it fails.

import { spawn } from 'node:child_process';
import { openSync } from 'node:fs';
import { createServer } from 'node:net';

const running = new Set();

/** Starts a program; what it says is appended to the file `log`. */
export function start(program, args, { log, ...options }) {
  const out = openSync(log, 'a');
  // A group of its own, so that what a script starts ends with it.
  const child = spawn(program, args, { ...options, detached: true, stdio: ['ignore', out, out] });
  running.add(child);
  child.once('exit', () => running.delete(child));
  return child;
}

/** Ends it at once, as a power cut would, or as it is told by `signal`. */
export async function stop(child, signal = 'SIGKILL') {
  if (!running.has(child)) return;
  const ended = new Promise((done) => child.once('exit', done));
  process.kill(-child.pid, signal);
  await ended;
}

export const stopAll = () => Promise.all([...running].map((child) => stop(child)));

/** A port that nobody listens on now. */
export function freePort() {
  return new Promise((done, fail) => {
    const server = createServer();
    server.once('error', fail);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });
}
