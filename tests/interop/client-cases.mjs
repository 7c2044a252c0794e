// The other direction: a client library that knows nothing of Chancery but its issuer.

import assert from 'node:assert/strict';
import * as jose from 'jose';
import * as oidc from 'openid-client';

import { check, eventually } from './cases.mjs';
import { ACCESS_TOKEN, EXCHANGE } from './chancery.mjs';
import { verified } from './provider-cases.mjs';

export async function clients(chancery, keyPair, person) {
  const [id, secret] = chancery.credential('acme.shop');
  const discover = (algorithm, as, method) =>
    oidc.discovery(new URL(chancery.issuer), as, undefined, method, { algorithm, execute: [oidc.allowInsecureRequests] });
  const audience = 'https://orders.acme.example';
  const ways = [
    ['Basic', id, () => oidc.ClientSecretBasic(secret)],
    ['post', id, () => oidc.ClientSecretPost(secret)],
    ['private_key_jwt', 'acme.signer', () => oidc.PrivateKeyJwt({ key: keyPair.privateKey, kid: 'signer' })],
  ];
  for (const algorithm of ['oidc', 'oauth2']) {
    for (const [name, as, method] of ways) {
      await check(`openid-client, ${algorithm} discovery, ${name}: client_credentials`, async () => {
        const config = await discover(algorithm, as, method());
        const got = await oidc.clientCredentialsGrant(config, { scope: 'orders.read', resource: audience });
        assert.equal(got.token_type, 'bearer');
        const payload = await verified(chancery, got.access_token, audience);
        assert.equal(payload.sub, as);
        assert.equal(payload.scope, 'orders.read');
      });
    }
  }
  await check('openid-client: introspection, revocation, and introspection again', async () => {
    const config = await discover('oauth2', id, oidc.ClientSecretBasic(secret));
    const { access_token: token } = await oidc.clientCredentialsGrant(config, {});
    const said = await oidc.tokenIntrospection(config, token);
    assert.equal(said.active, true);
    assert.equal(said.client_id, id);
    await oidc.tokenRevocation(config, token);
    await eventually('it is not active', async () => assert.deepEqual(await oidc.tokenIntrospection(config, token), { active: false }), 5000);
  });
  await check('jose: a signed introspection (RFC 9701), found by discovery', async () => {
    const config = await discover('oauth2', id, oidc.ClientSecretBasic(secret));
    const { introspection_endpoint: endpoint, jwks_uri: uri } = config.serverMetadata();
    const { access_token: token } = await oidc.clientCredentialsGrant(config, {});
    const basic = Buffer.from(`${id}:${secret}`).toString('base64');
    const headers = { accept: 'application/token-introspection+jwt', authorization: `Basic ${basic}` };
    const answer = await fetch(endpoint, { method: 'POST', headers, body: new URLSearchParams({ token }) });
    const options = { issuer: chancery.issuer, audience: id, typ: 'token-introspection+jwt' };
    const { payload } = await jose.jwtVerify(await answer.text(), jose.createRemoteJWKSet(new URL(uri)), options);
    assert.equal(payload.token_introspection.active, true);
  });
  await check('openid-client: token exchange, with each way to authenticate', async () => {
    for (const [, as, method] of ways) {
      const config = await discover('oauth2', as, method());
      const form = { subject_token: await person(), subject_token_type: ACCESS_TOKEN, resource: audience };
      const got = await oidc.genericGrantRequest(config, EXCHANGE, form);
      assert.equal(got.issued_token_type, ACCESS_TOKEN);
      assert.deepEqual((await verified(chancery, got.access_token, audience)).act, { sub: as });
    }
  });
  await check('openid-client: a wrong secret is invalid_client', async () => {
    const config = await discover('oauth2', id, oidc.ClientSecretBasic('wrong'));
    await assert.rejects(oidc.clientCredentialsGrant(config, {}), (error) => {
      // 401 comes with a challenge, which the library tells instead of the body.
      assert.match(JSON.stringify(error.cause), /"scheme":"basic"/);
      return true;
    });
  });
}
