// A provider made with the npm package oidc-provider. Its port and private keys come in the environment.

import Provider from 'oidc-provider';

const { PORT, KEYS } = process.env;
const people = { ann: { caas_org_id: 'acme', roles: ['sales', 'audit'] }, bob: { caas_org_id: 'globex', roles: ['sales'] } };
const SCOPE = 'orders.read orders.write';

// What an access token for a resource is: https://AUDIENCE.example/ALGORITHM/SECONDS.
function resource(uri) {
  const { hostname, pathname } = new URL(uri);
  const [, alg, seconds] = pathname.split('/');
  return {
    scope: SCOPE,
    audience: hostname.split('.')[0],
    accessTokenTTL: Number(seconds),
    accessTokenFormat: 'jwt',
    jwt: { sign: { alg } },
  };
}

const application = (client_id, more) => ({ client_id, client_secret: 'secret of the app', ...more });
const provider = new Provider(`http://127.0.0.1:${PORT}`, {
  clients: [
    application('shop-app', { redirect_uris: ['http://127.0.0.1:1/callback'] }),
    application('robot', { redirect_uris: [], response_types: [], grant_types: ['client_credentials'], scope: SCOPE }),
  ],
  jwks: { keys: JSON.parse(KEYS) },
  cookies: { keys: ['a key for cookies'] },
  scopes: ['openid', ...SCOPE.split(' ')],
  findAccount: (_, accountId) => people[accountId] && { accountId, claims: () => ({ sub: accountId }) },
  // Roles as a text with spaces, or, for tokens with ES256, as the keys of an object.
  extraTokenClaims: (_, token) => {
    const { caas_org_id, roles } = people[token.accountId] ?? { caas_org_id: 'acme', roles: [] };
    const keys = token.resourceServer?.jwt.sign.alg === 'ES256';
    return { caas_org_id, user_roles: keys ? Object.fromEntries(roles.map((role) => [role, {}])) : roles.join(' ') };
  },
  features: {
    devInteractions: { enabled: true },
    clientCredentials: { enabled: true },
    resourceIndicators: { enabled: true, getResourceServerInfo: (_, uri) => resource(uri), useGrantedResource: () => true },
  },
});
provider.listen(Number(PORT), '127.0.0.1');
