// oidc-provider of npm, as oidc-provider-server.mjs sets it up: started, signed in at, and its keys rotated.

import { join } from 'node:path';
import * as jose from 'jose';
import * as oidc from 'openid-client';

import { application, signIn } from './browser.mjs';
import { eventually } from './cases.mjs';
import { start, stop } from './processes.mjs';

const SECRET = 'secret of the app';

async function key(kid, alg) {
  const { privateKey } = await jose.generateKeyPair(alg, { extractable: true });
  return { ...(await jose.exportJWK(privateKey)), kid, alg, use: 'sig' };
}

export class OidcProvider {
  name = 'oidc-provider';
  algorithms = ['RS256', 'PS256', 'ES256', 'ES512', 'EdDSA', 'Ed25519'];

  constructor(folder, port, here) {
    Object.assign(this, { folder, here, port, issuer: `http://127.0.0.1:${port}` });
  }

  async up() {
    this.keys ??= await Promise.all(this.algorithms.map((alg) => key(`first-${alg}`, alg)));
    this.process = start(process.execPath, [join(this.here, 'oidc-provider-server.mjs')], {
      log: join(this.folder, 'oidc-provider.log'),
      env: { ...process.env, PORT: this.port, KEYS: JSON.stringify(this.keys), NODE_ENV: 'development' },
    });
    const look = async () => {
      if (!(await fetch(`${this.issuer}/.well-known/openid-configuration`)).ok) throw new Error('not yet');
    };
    await eventually('oidc-provider is up', look);
  }

  async down() {
    await stop(this.process);
  }

  /** A person's tokens for `what`: orders, bills, or hasty, which lives for 4 seconds. */
  async signIn(name, what = 'orders', algorithm = 'RS256') {
    const audience = what === 'bills' ? 'bills' : 'orders';
    const resource = `https://${audience}.example/${algorithm}/${what === 'hasty' ? 4 : 300}`;
    const app = await application(this.issuer, 'shop-app', SECRET);
    return signIn(app, { name, password: 'any' }, { scope: 'openid orders.read', resource });
  }

  /** The same with access tokens signed so. */
  signedWith(algorithm, name) {
    return this.signIn(name, 'orders', algorithm);
  }

  /** A token that an application has for itself. */
  async robot() {
    const app = await application(this.issuer, 'robot', SECRET);
    return oidc.clientCredentialsGrant(app, { resource: 'https://orders.example/RS256/300' });
  }

  /** A new key signs from now on; the old one is published still. */
  async rotate() {
    this.keys = [await key('second-RS256', 'RS256'), ...this.keys];
    await this.down();
    await this.up();
  }

  /** The old key is not published any more. */
  async retire() {
    this.keys = this.keys.filter(({ kid }) => kid !== 'first-RS256');
    await this.down();
    await this.up();
  }
}
