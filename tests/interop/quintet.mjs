// Runs Quintet programs.

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import readline from 'node:readline';

/** A run of the program at a path, and the events that it prints. */
export class Quintet {
  constructor(program, args) {
    this.home = mkdtempSync(path.join(os.tmpdir(), 'quintet-'));
    const env = { ...process.env };
    for (const name of ['STATE', 'CONFIG', 'DATA']) env[`XDG_${name}_HOME`] = this.home;
    this.events = [];
    this.waiting = [];
    this.child = spawn(program, [...args, '--json'], { env, stdio: ['ignore', 'pipe', 'inherit'] });
    readline.createInterface({ input: this.child.stdout }).on('line', (line) => {
      this.events.push({ ...JSON.parse(line), at: performance.now() });
      this.waiting = this.waiting.filter((check) => !check());
    });
  }

  /** The first event of this name. */
  event(name) {
    return new Promise((resolve) => {
      const check = () => {
        const found = this.events.find(({ event }) => event === name);
        if (found) resolve(found);
        return found;
      };
      if (!check()) this.waiting.push(check);
    });
  }

  stop() {
    this.child.kill('SIGKILL');
    rmSync(this.home, { recursive: true, force: true, maxRetries: 5 });
  }
}
