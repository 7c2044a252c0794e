// Keycloak, with the realm of keycloak-realm.json: started, signed in at, and its keys rotated.

import { cpSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import * as oidc from 'openid-client';

import { application, signIn } from './browser.mjs';
import { eventually } from './cases.mjs';
import { start, stop } from './processes.mjs';

const ADMIN = { name: 'admin', password: 'secret of the admin' };
const SECRET = 'secret of the app';

export class Keycloak {
  name = 'keycloak';
  algorithms = ['RS256', 'PS256', 'ES256', 'ES512', 'EdDSA'];

  constructor(home, folder, port, here) {
    Object.assign(this, { home, folder, here, url: `http://127.0.0.1:${port}`, port });
    this.issuer = `${this.url}/realms/staff`;
    rmSync(join(home, 'data'), { recursive: true, force: true });
    mkdirSync(join(home, 'data/import'), { recursive: true });
    cpSync(join(here, 'keycloak-realm.json'), join(home, 'data/import/staff-realm.json'));
  }

  async up() {
    const args = ['start', '--optimized', '--import-realm', '--http-enabled=true', '--hostname-strict=false'];
    this.process = start(join(this.home, 'bin/kc.sh'), [...args, '--http-host=127.0.0.1', `--http-port=${this.port}`, '--cache=local'], {
      log: join(this.folder, 'keycloak.log'),
      env: {
        ...process.env,
        KC_BOOTSTRAP_ADMIN_USERNAME: ADMIN.name,
        KC_BOOTSTRAP_ADMIN_PASSWORD: ADMIN.password,
        JAVA_OPTS_KC_HEAP: '-Xms128m -Xmx512m',
        // It lives for a minute: better started soon than fast later.
        JAVA_OPTS_APPEND: '-XX:TieredStopAtLevel=1',
      },
    });
    const look = async () => {
      if (!(await fetch(`${this.issuer}/.well-known/openid-configuration`)).ok) throw new Error('not yet');
    };
    await eventually('Keycloak is up', look, 120_000);
  }

  async down() {
    await stop(this.process);
  }

  /** A person's tokens for `what`: orders, bills, or hasty, which lives for 4 seconds. */
  async signIn(name, what = 'orders') {
    const id = what === 'bills' ? 'bills-app' : 'shop-app';
    const life = what === 'hasty' ? '4' : '';
    await this.client('shop-app', { 'access.token.lifespan': life });
    return signIn(await application(this.issuer, id, SECRET), { name, password: `secret of ${name}` });
  }

  /** The same with access tokens signed so. */
  async signedWith(algorithm, name) {
    await this.client('shop-app', { 'access.token.signed.response.alg': algorithm });
    try {
      return await this.signIn(name);
    } finally {
      await this.client('shop-app', { 'access.token.signed.response.alg': '' });
    }
  }

  /** A token that an application has for itself. */
  async robot() {
    return oidc.clientCredentialsGrant(await application(this.issuer, 'robot', SECRET), {});
  }

  /** A new key signs from now on; the old one is published still. */
  async rotate() {
    const realm = await this.admin('GET', '');
    await this.admin('POST', '/components', {
      name: 'new', providerId: 'rsa-generated', providerType: 'org.keycloak.keys.KeyProvider', parentId: realm.id,
      config: { priority: ['1000'], enabled: ['true'], active: ['true'], keySize: ['2048'], algorithm: ['RS256'] },
    });
  }

  /** The old key is not published any more. */
  async retire() {
    const keys = await this.admin('GET', '/components?type=org.keycloak.keys.KeyProvider');
    await this.admin('DELETE', `/components/${keys.find(({ name }) => name === 'first').id}`);
  }

  async client(id, attributes) {
    const [client] = await this.admin('GET', `/clients?clientId=${id}`);
    await this.admin('PUT', `/clients/${client.id}`, { ...client, attributes: { ...client.attributes, ...attributes } });
  }

  async admin(method, path, body) {
    const token = await fetch(`${this.url}/realms/master/protocol/openid-connect/token`, {
      method: 'POST',
      body: new URLSearchParams({ grant_type: 'password', client_id: 'admin-cli', username: ADMIN.name, password: ADMIN.password }),
    });
    const { access_token: access } = await token.json();
    const answer = await fetch(`${this.url}/admin/realms/staff${path}`, {
      method,
      headers: { authorization: `Bearer ${access}`, 'content-type': 'application/json' },
      body: body && JSON.stringify(body),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    return text && JSON.parse(text);
  }
}
