// Chancery as `chancery dev` runs it: manifests in a folder, the real controllers and the real server.

import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';

import { eventually } from './cases.mjs';
import { start, stop } from './processes.mjs';

export const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
export const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';

export class Chancery {
  constructor(program, folder, port, admin) {
    Object.assign(this, { program, folder, port, admin, issuer: `http://127.0.0.1:${port}` });
    mkdirSync(join(folder, 'm'));
    // Providers on loopback: what a platform administrator allows for those within the cluster.
    writeFileSync(join(folder, 'release.yaml'), 'providers: {allowedAddresses: [127.0.0.0/8]}\n');
  }

  /** Applies an object, as an editor saves: renamed into place. */
  apply(object) {
    const { kind, metadata } = object;
    const file = `${kind}.${metadata.namespace ?? ''}.${metadata.name}.json`;
    writeFileSync(join(this.folder, file), JSON.stringify({ apiVersion: 'chancery.dev/v1alpha1', ...object }));
    renameSync(join(this.folder, file), join(this.folder, 'm', file));
  }

  async up() {
    const args = ['dev', 'm', `--listen=127.0.0.1:${this.port}`, `--admin-listen=127.0.0.1:${this.admin}`];
    // Verifiers' clocks are this one: what has expired has.
    const settings = ['--config=release.yaml', '--clock-leeway=0s', '--audit-log=audit.jsonl'];
    this.process = start(this.program, [...args, ...settings], { cwd: this.folder, log: join(this.folder, 'chancery.log') });
    await eventually('Chancery is ready', async () => {
      if (!(await fetch(`http://127.0.0.1:${this.admin}/readyz`)).ok) throw new Error('not yet');
    });
  }

  async down() {
    await stop(this.process, 'SIGTERM');
  }

  /** An object with its status, as it is kept. */
  object(plural, namespace, name) {
    return parse(readFileSync(join(this.folder, '.chancery', plural, namespace, `${name}.yaml`), 'utf8'));
  }

  /** A condition of a provider for all tenants. */
  condition(name, type) {
    const { status } = this.object('oidcproviders', 'chancery-system', name);
    return status.conditions.find((one) => one.type === type) ?? {};
  }

  status(name) {
    return this.object('oidcproviders', 'chancery-system', name).status;
  }

  /** Client id and secret of a technical user, from its file for curl. */
  credential(id) {
    const file = readFileSync(join(this.folder, `.chancery/curl/${id}.conf`), 'utf8');
    return /^user = "([^:]+):([^"]+)"$/m.exec(file).slice(1);
  }

  /** A request of a technical user, with Basic. */
  async ask(path, id, form) {
    const basic = Buffer.from(this.credential(id).join(':')).toString('base64');
    const answer = await fetch(this.issuer + path, {
      method: 'POST',
      headers: { authorization: `Basic ${basic}` },
      body: new URLSearchParams(form),
    });
    const text = await answer.text();
    return { status: answer.status, body: text ? JSON.parse(text) : {} };
  }

  /** Exchanges a person's token. */
  exchange(id, token, more = {}) {
    return this.ask('/oauth/token', id, { grant_type: EXCHANGE, subject_token: token, subject_token_type: ACCESS_TOKEN, ...more });
  }
}
