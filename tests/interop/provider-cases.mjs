// What must be true of every provider. `provider` is one of the two; `chancery` runs beside it.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import * as jose from 'jose';
import { parse } from 'yaml';

import { check, eventually, pause, refused } from './cases.mjs';

/** The provider as a resource, for every tenant: as docs/providers.md has it, but for where it is. */
export function resource(provider, { annotations, ...more } = {}) {
  const page = readFileSync(process.env.PROVIDERS_PAGE, 'utf8');
  const manifests = [...page.matchAll(/<<'?MANIFEST'?\n(.*?)\nMANIFEST\n/gs)].map(([, yaml]) => parse(yaml));
  const { kind, metadata, spec } = manifests.find((one) => one.metadata.name === provider.name);
  return {
    kind,
    metadata: { ...metadata, annotations },
    spec: {
      ...spec,
      wellKnownUri: `${provider.issuer}/.well-known/openid-configuration`,
      issuers: [provider.issuer],
      requireHttps: false,
      // The second is what the provider's ID tokens are for: they must be told from access tokens nevertheless.
      audiences: [...spec.audiences, 'shop-app'],
      jwks: { refreshInterval: '10s' },
      ...more,
    },
  };
}

/** The same provider for the tenant globex alone, whose people its tokens for `bills` are. */
export function ofTenant(provider) {
  const { spec } = resource(provider, { audiences: ['bills'], examples: [] });
  return { kind: 'OidcProvider', metadata: { name: provider.name, namespace: 'globex' }, spec };
}

const kid = (token) => jose.decodeProtectedHeader(token).kid;
const claims = (token) => jose.decodeJwt(token);

/** Verifies a token of Chancery as any service would, and returns what it says. */
export async function verified(chancery, token, audience) {
  const keys = jose.createRemoteJWKSet(new URL(`${chancery.issuer}/.well-known/jwks.json`));
  const options = { issuer: chancery.issuer, audience, typ: 'at+jwt', requiredClaims: ['sub', 'exp', 'iat', 'jti', 'client_id'] };
  return (await jose.jwtVerify(token, keys, options)).payload;
}

async function taken(chancery, token) {
  const answer = await chancery.exchange('acme.shop', token);
  assert.equal(answer.status, 200, JSON.stringify(answer.body));
  return answer.body;
}

export async function beforeItIsUp(chancery, provider) {
  await check(`${provider.name}: down when Chancery starts, status tells`, () =>
    eventually('status tells', () => {
      const reachable = chancery.condition(provider.name, 'Reachable');
      assert.equal(reachable.status, 'False');
      assert.match(reachable.message, /could not be read/);
      assert.equal(chancery.condition(provider.name, 'Ready').status, 'False');
      return reachable.reason;
    }));
}

export async function known(chancery, provider) {
  await check(`${provider.name}: up, it becomes Reachable by itself; issuer and keys are told`, () =>
    eventually('it is Ready', async () => {
      assert.equal(chancery.condition(provider.name, 'Reachable').status, 'True');
      assert.equal(chancery.condition(provider.name, 'Ready').status, 'True');
      const status = chancery.status(provider.name);
      const metadata = await (await fetch(`${provider.issuer}/.well-known/openid-configuration`)).json();
      const { keys } = await (await fetch(metadata.jwks_uri)).json();
      const sign = keys.filter((key) => key.use !== 'enc').map((key) => key.kid);
      assert.equal(status.issuer, provider.issuer);
      assert.equal(status.jwksUri, metadata.jwks_uri);
      assert.deepEqual([...status.keyIds].sort(), sign.sort());
      return `${sign.length} keys`;
    }, 90_000));
}

export async function people(chancery, provider) {
  const of = (name) => `${provider.name}: ${name}`;
  let ann = {};
  await check(of('ann signs in, and acme.shop gets a token to act for her'), async () => {
    ann = await provider.signIn('ann');
    const { sub } = claims(ann.access_token);
    const got = await taken(chancery, ann.access_token);
    const payload = await verified(chancery, got.access_token, 'https://orders.acme.example');
    assert.equal(payload.sub, `${provider.name}:${sub}`);
    assert.equal(payload.caas_user_id, payload.sub);
    assert.equal(payload.caas_org_id, 'acme');
    assert.equal(payload.client_id, 'acme.shop');
    assert.deepEqual(payload.act, { sub: 'acme.shop' });
    assert.deepEqual(payload.user_roles, ['clerk']);
    assert.ok(payload.exp <= claims(ann.access_token).exp);
    return payload.sub;
  });
  for (const algorithm of provider.algorithms) {
    await check(of(`a token signed with ${algorithm} is taken`), async () => {
      const { access_token: token } = await provider.signedWith(algorithm, 'ann');
      assert.equal(jose.decodeProtectedHeader(token).alg, algorithm);
      const got = await eventually('its key is known', () => taken(chancery, token));
      const payload = await verified(chancery, got.access_token, 'https://orders.acme.example');
      assert.deepEqual(payload.user_roles, ['clerk']);
    });
  }
  await check(of('a token for another service is refused'), async () => {
    const { access_token: token } = await provider.signIn('ann', 'bills');
    refused(await chancery.exchange('acme.shop', token), 'invalid_request', /^aud in the token/);
  });
  await check(of('an ID token is refused'), async () => {
    assert.equal(claims(ann.id_token).aud, 'shop-app');
    refused(await chancery.exchange('acme.shop', ann.id_token), 'invalid_request', /no access token/);
  });
  await check(of('a token that an application has for itself is refused'), async () => {
    const { access_token: token } = await provider.robot();
    refused(await chancery.exchange('acme.shop', token), 'invalid_request', /speaks of a client/);
  });
  await check(of('what was issued to another client of Chancery is refused'), async () => {
    const { access_token: shops } = await taken(chancery, ann.access_token);
    refused(await chancery.exchange('acme.other', shops), 'invalid_request', /not for this client/);
  });
  await check(of('another signature, another subject, no signature: refused'), async () => {
    const [header, body, signature] = ann.access_token.split('.');
    const flipped = (signature[9] === 'A' ? 'B' : 'A') + signature.slice(10);
    const other = jose.base64url.encode(JSON.stringify({ ...claims(ann.access_token), sub: 'eve' }));
    const none = jose.base64url.encode(JSON.stringify({ alg: 'none', typ: 'JWT' }));
    for (const forged of [
      `${header}.${body}.${signature.slice(0, 9)}${flipped}`,
      `${header}.${other}.${signature}`,
      `${none}.${body}.`,
    ]) {
      refused(await chancery.exchange('acme.shop', forged), 'invalid_request', /no provider that is trusted|no JWT/);
    }
  });
  await check(of('a token that has expired is refused'), async () => {
    const { access_token: token } = await provider.signIn('ann', 'hasty');
    await taken(chancery, token);
    await eventually('it has expired', async () => {
      refused(await chancery.exchange('acme.shop', token), 'invalid_request', /expired/);
    });
  });
  await check(of("bob of globex is no person of acme's, and is of globex"), async () => {
    const { access_token: token } = await provider.signIn('bob');
    refused(await chancery.exchange('acme.shop', token), 'access_denied', /another legal entity/);
    const got = await chancery.exchange('globex.shop', token);
    assert.equal(claims(got.body.access_token).caas_org_id, 'globex', JSON.stringify(got.body));
  });
  await check(of("globex has it too, for bills: another provider, other people"), async () => {
    const { access_token: bobs } = await provider.signIn('bob', 'bills');
    const got = await eventually('it is taken', async () => {
      const answer = await chancery.exchange('globex.shop', bobs);
      assert.equal(answer.status, 200, JSON.stringify(answer.body));
      return claims(answer.body.access_token).sub;
    });
    assert.equal(got, `globex/${provider.name}:${claims(bobs).sub}`);
    const { access_token: anns } = await provider.signIn('ann', 'bills');
    refused(await chancery.exchange('globex.shop', anns), 'access_denied', /another legal entity/);
    return got;
  });
  await check(of('inactive, its tokens are refused within 2 s; active again, they are taken'), async () => {
    chancery.apply(resource(provider, { active: false }));
    const start = Date.now();
    await eventually('it is refused', async () => {
      refused(await chancery.exchange('acme.shop', ann.access_token), 'invalid_request', /no provider that is trusted/);
    });
    const after = Date.now() - start;
    // The file is looked at now and then, which is not counted where a cluster is.
    assert.ok(after < 4000, `${after} ms`);
    chancery.apply(resource(provider));
    await eventually('it is taken', () => taken(chancery, ann.access_token));
    return `refused after ${after} ms`;
  });
}

export async function rotation(chancery, provider, reload) {
  let old;
  await check(`${provider.name}: keys rotate under load, followed by ${reload ? 'the reload annotation' : 'the clock'}`, async () => {
    old = (await provider.signIn('ann')).access_token;
    await taken(chancery, old);
    const tokens = [old];
    const failures = [];
    let requests = 0;
    let going = true;
    const load = async () => {
      while (going) {
        for (const token of tokens) {
          const answer = await chancery.exchange('acme.shop', token);
          requests += 1;
          if (answer.status !== 200) failures.push(`${kid(token)}: ${JSON.stringify(answer.body)}`);
        }
        await pause(60);
      }
    };
    const loads = [load(), load(), load()];
    const start = Date.now();
    let followed;
    try {
      await provider.rotate();
      const { access_token: fresh } = await provider.signIn('ann');
      assert.notEqual(kid(fresh), kid(old));
      if (reload) chancery.apply(resource(provider, { annotations: { 'chancery.dev/reload': 'now' } }));
      await eventually('the new key is known', () => assert.ok(chancery.status(provider.name).keyIds.includes(kid(fresh))));
      await eventually('a token of the new key is taken', () => taken(chancery, fresh), 5000);
      followed = Date.now() - start;
      if (reload) await eventually('the reload is told', () => assert.equal(chancery.status(provider.name).lastHandledReload, 'now'));
      tokens.push(fresh);
      await pause(1000);
    } finally {
      going = false;
      await Promise.all(loads);
    }
    assert.deepEqual(failures, []);
    return `${requests} exchanges, none failed, followed after ${followed} ms`;
  });
  await check(`${provider.name}: a key that it takes out of its JWKS is trusted no more`, async () => {
    const { access_token: fresh } = await provider.signIn('ann');
    await provider.retire();
    chancery.apply(resource(provider, { annotations: { 'chancery.dev/reload': 'again' } }));
    await eventually('it is out', () => assert.ok(!chancery.status(provider.name).keyIds.includes(kid(old))));
    await eventually('a token of it is refused', async () => {
      refused(await chancery.exchange('acme.shop', old), 'invalid_request', /no provider that is trusted/);
    });
    await taken(chancery, fresh);
  });
}

/** All at once, so that Chancery is restarted while nobody tells it any key. */
export async function outage(chancery, providers) {
  const tokens = await Promise.all(providers.map(async (provider) => (await provider.signIn('ann')).access_token));
  const names = providers.map(({ name }) => name).join(' and ');
  const all = (look) => Promise.all(providers.map(async (provider, n) => look(provider, tokens[n])));
  await check(`${names}: down later, status tells, and their tokens are taken by the keys that are kept`, async () => {
    await all((provider) => provider.down());
    await all(({ name }) =>
      eventually('status tells', () => assert.equal(chancery.condition(name, 'Reachable').reason, 'ProviderUnreachable')));
    await all(async ({ name }, token) => {
      assert.equal(chancery.condition(name, 'Ready').status, 'True');
      await taken(chancery, token);
    });
  });
  await check('Chancery restarted meanwhile takes them too', async () => {
    await chancery.down();
    await chancery.up();
    await all((_, token) => eventually('it is taken', () => taken(chancery, token)));
  });
  await check(`${names}: up again, and Reachable again by itself`, async () => {
    await all((provider) => provider.up());
    await all(({ name }) =>
      eventually('it is Reachable', () => assert.equal(chancery.condition(name, 'Reachable').status, 'True'), 60_000));
    await all(async (provider) => taken(chancery, (await provider.signIn('ann')).access_token));
  });
}
