// A person at a browser, as far as a sign-in needs one: cookies, redirects, and forms that are filled in.

import * as oidc from 'openid-client';

const CALLBACK = 'http://127.0.0.1:1/callback';

/** The authorization code flow with PKCE, by an application that knows nothing but the issuer. */
export async function signIn(application, person, more = {}) {
  const verifier = oidc.randomPKCECodeVerifier();
  const url = oidc.buildAuthorizationUrl(application, {
    redirect_uri: CALLBACK,
    scope: 'openid',
    code_challenge: await oidc.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    ...more,
  });
  const back = await visit(url, person);
  const resource = more.resource ? { resource: more.resource } : {};
  return oidc.authorizationCodeGrant(application, back, { pkceCodeVerifier: verifier }, resource);
}

/** Goes where it is sent, answers each form, and returns the URL of the callback. */
async function visit(start, { name, password }) {
  const cookies = new Map();
  let request = { url: new URL(start) };
  for (let step = 0; step < 20; step += 1) {
    if (request.url.href.startsWith(CALLBACK)) return request.url;
    const answer = await fetch(request.url, {
      method: request.form ? 'POST' : 'GET',
      body: request.form,
      redirect: 'manual',
      headers: { cookie: [...cookies].map(([key, value]) => `${key}=${value}`).join('; ') },
    });
    for (const line of answer.headers.getSetCookie()) {
      const [key, value] = line.split(';')[0].split(/=(.*)/s);
      if (value) cookies.set(key, value);
      else cookies.delete(key);
    }
    const page = await answer.text();
    const next = answer.headers.get('location');
    if (next) {
      request = { url: new URL(next, request.url) };
      continue;
    }
    const form = /<form[^>]*\baction="([^"]+)"[^>]*>(.*?)<\/form>/s.exec(page);
    if (!form) throw new Error(`no form at ${request.url}, status ${answer.status}: ${page.slice(0, 500)}`);
    const fields = new URLSearchParams();
    for (const [input] of form[2].matchAll(/<input[^>]*>/g)) {
      const attribute = (key) => new RegExp(`\\b${key}="([^"]*)"`).exec(input)?.[1];
      const key = attribute('name');
      if (key === 'username' || key === 'login') fields.set(key, name);
      else if (key === 'password') fields.set(key, password);
      else if (key && attribute('type') === 'hidden') fields.set(key, attribute('value') ?? '');
    }
    request = { url: new URL(form[1].replaceAll('&amp;', '&'), request.url), form: fields };
  }
  throw new Error(`the sign-in of ${name} leads nowhere`);
}

/** An application that is registered at a provider, by discovery. */
export function application(issuer, id, secret) {
  const method = oidc.ClientSecretBasic(secret);
  return oidc.discovery(new URL(issuer), id, undefined, method, { execute: [oidc.allowInsecureRequests] });
}
