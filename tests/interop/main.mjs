// Chancery against Keycloak and oidc-provider, in the order of a day: down, up, people, rotation, outage.
// Arguments: the program, Keycloak's folder, a folder to work in.

import { rmSync } from 'node:fs';
import { join } from 'node:path';
import * as jose from 'jose';

import { Chancery } from './chancery.mjs';
import { check, summary } from './cases.mjs';
import { clients } from './client-cases.mjs';
import { Keycloak } from './keycloak.mjs';
import { OidcProvider } from './oidc-provider.mjs';
import { freePort, stopAll } from './processes.mjs';
import { beforeItIsUp, known, ofTenant, outage, people, resource, rotation } from './provider-cases.mjs';

const [program, keycloakHome, folder] = process.argv.slice(2);
const here = import.meta.dirname;
const ports = await Promise.all([freePort(), freePort(), freePort(), freePort()]);
const chancery = new Chancery(program, folder, ports[0], ports[1]);
const providers = [new OidcProvider(folder, ports[2], here), new Keycloak(keycloakHome, folder, ports[3], here)];

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => stopAll().then(() => process.exit(1)));

const keyPair = await jose.generateKeyPair('ES256', { extractable: true });
const system = 'chancery-system';
for (const name of [system, 'acme', 'globex']) chancery.apply({ apiVersion: 'v1', kind: 'Namespace', metadata: { name } });
for (const audience of ['client', 'human']) {
  chancery.apply({ kind: 'SigningKey', metadata: { name: audience, namespace: system }, spec: { audience, algorithm: 'ES256' } });
}
for (const name of ['acme', 'globex']) {
  const allowed = { scopes: ['*'], roles: ['clerk'], audiences: ['*'] };
  chancery.apply({ kind: 'Subscription', metadata: { name, namespace: name }, spec: { legalEntity: { id: name, name }, tier: 'Free', allowed } });
}
const user = (namespace, name, credential) =>
  chancery.apply({
    kind: 'TechnicalUser',
    metadata: { name, namespace },
    spec: {
      onBehalfOf: true,
      introspect: true,
      scopes: ['orders.read'],
      audiences: ['https://orders.acme.example'],
      credential,
    },
  });
user('acme', 'shop', { secret: {} });
user('acme', 'other', { secret: {} });
user('globex', 'shop', { secret: {} });
const signer = { ...(await jose.exportJWK(keyPair.publicKey)), kid: 'signer', alg: 'ES256', use: 'sig' };
user('acme', 'signer', { publicKey: { jwks: { keys: [signer] } } });
for (const provider of providers) [resource(provider), ofTenant(provider)].forEach((object) => chancery.apply(object));

try {
  await chancery.up();
  for (const provider of providers) await beforeItIsUp(chancery, provider);
  const [npm, keycloak] = providers;
  const day = async (provider, reload) => {
    await provider.up();
    await known(chancery, provider);
    await people(chancery, provider);
    await rotation(chancery, provider, reload);
  };
  // Both at the same time: Keycloak takes a while to start.
  const all = [
    day(npm, true).then(() => clients(chancery, keyPair, async () => (await npm.signIn('ann')).access_token)),
    day(keycloak, false),
  ];
  await Promise.all(all);
  await outage(chancery, providers);
} catch (error) {
  await check('the run goes to its end', () => {
    throw error;
  });
} finally {
  await stopAll();
}
if (summary()) {
  rmSync(folder, { recursive: true });
} else {
  console.log(`logs: ${join(folder, '*.log')}`);
  process.exitCode = 1;
}
