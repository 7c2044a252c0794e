//! A table: every way to get a token or to use one, against every reason to refuse it. Each cell is looked at,
//! at both replicas: what a reason concerns is refused within two seconds, all else goes on, and once the
//! reason is gone everything is back.

use std::sync::Arc;
use std::time::Duration;

use chancery::crypto::key_pair::KeyPair;
use chancery::domain::algorithm::Algorithm;
use serde_json::json;
use tokio::time::Instant;

use crate::assertions::{Ask, Key, public_keys, with_token};
use crate::exchange::{GRANT, TYPE};
use crate::login::{self, Login, signed};
use crate::outside::Trusting;
use crate::release::LIMIT;
use crate::revocation::KNOWN_WITHIN;
use crate::support::{eventually, http};

/// In an emergency a key leaves the JWKS of every replica within 10 s; five times that, as for all limits.
const WITHDRAWN_WITHIN: Duration = Duration::from_secs(50);

/// A way to get a token, or to use one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// `client_credentials`, with a client secret.
    Secret,
    /// `client_credentials`, with a key of the client's own (RFC 7523).
    OwnKey,
    /// `client_credentials`, with a projected `ServiceAccount` token.
    Workload,
    /// A token exchange with a provider's token.
    ExchangeOutside,
    /// The same, with the client's own token as `actor_token`.
    ExchangeActor,
    /// A token exchange with a token of this issuer's that speaks of a person: the next hop.
    ExchangePerson,
    /// Introspection of a client's own token.
    IntrospectClient,
    /// Introspection of a token that was exchanged.
    IntrospectPerson,
    /// Introspection of a provider's token.
    IntrospectOutside,
    /// `/account` with a client's own token.
    AccountClient,
    /// `/account` with a token that was exchanged.
    AccountPerson,
    /// `/account` with a provider's token.
    AccountOutside,
    /// `/account/subscriptions` with a provider's token.
    SubscriptionsOutside,
}

use Way::{
    AccountClient, AccountOutside, AccountPerson, ExchangeActor, ExchangeOutside, ExchangePerson,
    IntrospectClient, IntrospectOutside, IntrospectPerson, OwnKey, Secret, SubscriptionsOutside,
    Workload,
};

const WAYS: [Way; 13] = [
    Secret,
    OwnKey,
    Workload,
    ExchangeOutside,
    ExchangeActor,
    ExchangePerson,
    IntrospectClient,
    IntrospectPerson,
    IntrospectOutside,
    AccountClient,
    AccountPerson,
    AccountOutside,
    SubscriptionsOutside,
];

/// With a provider's token.
const OUTSIDE: [Way; 5] = [
    ExchangeOutside,
    ExchangeActor,
    IntrospectOutside,
    AccountOutside,
    SubscriptionsOutside,
];
/// With the token of a person that the service has.
const PERSONS: [Way; 3] = [ExchangePerson, IntrospectPerson, AccountPerson];
/// Of the client with a secret.
const ROBOTS: [Way; 3] = [Secret, IntrospectClient, AccountClient];
const INTROSPECTIONS: [Way; 3] = [IntrospectClient, IntrospectPerson, IntrospectOutside];

fn exchange(port: u16, (id, secret): &(String, String), token: &str, more: &str) -> http::Answer {
    let url = format!("http://127.0.0.1:{port}/oauth/token");
    let body = format!("grant_type={GRANT}&subject_token={token}&subject_token_type={TYPE}{more}");
    http::form(&url, id, secret, &body).expect("the server answers")
}

/// A tenant in which every way goes.
struct Table {
    trusting: Trusting,
    login: Login,
    signer: Arc<KeyPair>,
    key: Key,
    tokens: Tokens,
    /// A row for each reason.
    rows: Vec<String>,
}

/// The tokens and secrets that are in use.
#[derive(Default)]
struct Tokens {
    robot: (String, String),
    shop: (String, String),
    orders: (String, String),
    gateway: (String, String),
    keyed: Option<Ask>,
    workload: Option<Ask>,
    of_robot: String,
    of_shop: String,
    person: String,
    outside: String,
}

impl Table {
    fn start() -> Self {
        let trusting = Trusting::start("table");
        let (tenant, release) = (&trusting.tenant, &trusting.release);
        let signer = login::key();
        let login = Login::start(&[&signer]);
        trusting.trust("login", &login.base, "1h");
        let key = Key::new(Algorithm::ES256, "one");
        trusting.patch(
            "technicaluser",
            "shop",
            &json!({"audiences": [format!("{tenant}.orders")]}).to_string(),
        );
        release.user(tenant, "orders", "  onBehalfOf: true\n");
        release.user(tenant, "gateway", "  introspect: true\n");
        let credentials = [
            ("keyed", json!({"publicKey": public_keys(&[&key])})),
            ("pod", json!({"serviceAccount": {"name": "app"}})),
        ];
        for (name, credential) in credentials {
            release.apply(&format!(
                "apiVersion: chancery.dev/v1alpha1\nkind: TechnicalUser\nmetadata: {{name: {name}, namespace: {tenant}}}\nspec: {{audiences: ['https://a.example'], credential: {credential}}}\n"
            ));
        }
        let mut table = Self {
            trusting,
            login,
            signer,
            key,
            tokens: Tokens::default(),
            rows: Vec::new(),
        };
        table.subscribe();
        table.robot();
        table.workload();
        table.renew();
        table
    }

    fn kubectl(&self, args: &[&str]) -> String {
        let args = [args, &["-n", &self.trusting.tenant]].concat();
        self.trusting.release.cluster.kubectl_ok(&args)
    }

    fn subscribe(&self) {
        let tenant = &self.trusting.tenant;
        self.trusting.release.subscribe(tenant, "main", tenant, "");
        let allowed = "{\"allowed\": {\"audiences\": [\"*\"]}}";
        self.trusting.patch("subscription", "main", allowed);
    }

    fn robot(&self) {
        let tenant = &self.trusting.tenant;
        self.trusting.release.user(tenant, "robot", "");
    }

    fn workload(&self) {
        self.kubectl(&["create", "serviceaccount", "app"]);
    }

    /// Everything anew that a reason may have taken away, until every way goes at both replicas.
    fn renew(&mut self) {
        let release = &self.trusting.release;
        let tenant = &self.trusting.tenant;
        for name in ["robot", "shop", "orders", "gateway", "keyed", "pod"] {
            release.wait_ready("technicaluser", tenant, name);
        }
        let issuer = release.issuer();
        let audience = format!("--audience={issuer}");
        let token = self.kubectl(&["create", "token", "app", &audience]);
        let token = token.trim().to_owned();
        release.remember(&token);
        let of = |name| release.credentials(tenant, name);
        let keyed = self.key.ask(&format!("{tenant}.keyed"), &issuer);
        self.tokens = Tokens {
            robot: of("robot"),
            shop: of("shop"),
            orders: of("orders"),
            gateway: of("gateway"),
            keyed: Some(keyed),
            workload: Some(with_token(&format!("{tenant}.pod"), &token)),
            ..Tokens::default()
        };
        let claims = self.trusting.claims(&self.login.base, "login");
        self.tokens.outside = signed(&self.signer, &claims);
        eventually("every way goes", LIMIT, || {
            let release = &self.trusting.release;
            let tokens = &self.tokens;
            let token = |(id, secret): &(String, String)| release.token(id, secret, "");
            let (of_robot, of_shop) = (token(&tokens.robot), token(&tokens.shop));
            let person = exchange(release.port, &tokens.shop, &tokens.outside, "");
            let person = person.json()["access_token"].as_str().map(str::to_owned);
            self.tokens.of_robot = of_robot;
            self.tokens.of_shop = of_shop;
            self.tokens.person = person.ok_or("no token for the person")?;
            let stopped = self.cells(|_, goes| !goes);
            let tail = || self.trusting.release.tail();
            if stopped.is_empty() {
                Ok(())
            } else {
                Err(format!("{stopped:?}\n{}", tail()))
            }
        });
    }

    fn answer(&self, way: Way, port: u16) -> http::Answer {
        let tokens = &self.tokens;
        let base = format!("http://127.0.0.1:{port}");
        let introspect = |token: &str| {
            let (id, secret) = &tokens.gateway;
            let url = format!("{base}/oauth/introspect");
            http::form(&url, id, secret, &format!("token={token}"))
        };
        let get = |path: &str, token: &str| {
            let bearer = format!("Bearer {token}");
            let url = format!("{base}{path}");
            http::request("GET", &url, &[("authorization", &bearer)], b"")
        };
        let assertion = |ask: &Option<Ask>| ask.as_ref().expect("made before")(port);
        let answer = match way {
            Secret => {
                let (id, secret) = &tokens.robot;
                http::token(&format!("{base}/oauth/token"), id, secret, "")
            }
            OwnKey => assertion(&tokens.keyed),
            Workload => assertion(&tokens.workload),
            ExchangeOutside => return exchange(port, &tokens.shop, &tokens.outside, ""),
            ExchangeActor => {
                let actor = format!("&actor_token={}&actor_token_type={TYPE}", tokens.of_shop);
                return exchange(port, &tokens.shop, &tokens.outside, &actor);
            }
            ExchangePerson => return exchange(port, &tokens.orders, &tokens.person, ""),
            IntrospectClient => introspect(&tokens.of_robot),
            IntrospectPerson => introspect(&tokens.person),
            IntrospectOutside => introspect(&tokens.outside),
            AccountClient => get("/account", &tokens.of_robot),
            AccountPerson => get("/account", &tokens.person),
            AccountOutside => get("/account", &tokens.outside),
            SubscriptionsOutside => get("/account/subscriptions", &tokens.outside),
        };
        answer.expect("the server answers")
    }

    /// Whether a way goes. What comes too often is asked again: that is no answer to this question.
    fn goes(&self, way: Way, port: u16) -> bool {
        loop {
            let answer = self.answer(way, port);
            match answer.status {
                429 => std::thread::sleep(Duration::from_millis(100)),
                200 if INTROSPECTIONS.contains(&way) => {
                    if answer.json()["active"] == true {
                        return true;
                    }
                    assert_eq!(answer.json(), json!({"active": false}), "{way:?}");
                    return false;
                }
                status => return status == 200,
            }
        }
    }

    /// The cells of which that holds, now.
    fn cells(&self, which: impl Fn(Way, bool) -> bool) -> Vec<(Way, u16)> {
        let ports = self.trusting.ports();
        let all = WAYS.iter().flat_map(|way| ports.map(|port| (*way, port)));
        all.filter(|(way, port)| which(*way, self.goes(*way, *port)))
            .collect()
    }

    /// A reason, which concerns these ways, and no other.
    fn reason(&mut self, what: &str, within: Duration, concerns: &[Way], begin: impl Fn(&Self)) {
        begin(self);
        let since = Instant::now();
        for way in concerns {
            for port in self.trusting.ports() {
                eventually(&format!("{what}: {way:?} is refused"), LIMIT, || {
                    let tail = || self.trusting.release.tail();
                    (!self.goes(*way, port)).then_some(()).ok_or_else(tail)
                });
            }
        }
        let took = since.elapsed();
        assert!(took < within, "{what}: {took:?}");
        // Nothing of it comes back by itself, and nothing else is refused.
        let wrong = self.cells(|way, goes| goes == concerns.contains(&way));
        assert_eq!(wrong, [], "{what}");
        let cells = WAYS.map(|way| if concerns.contains(&way) { " x" } else { " ." });
        self.rows.push(format!(
            "{} {what} ({:.2} s)",
            cells.concat(),
            took.as_secs_f64()
        ));
    }

    /// The same, which is taken back then.
    fn passing(
        &mut self,
        what: &str,
        concerns: &[Way],
        begin: impl Fn(&Self),
        end: impl Fn(&Self),
    ) {
        self.reason(what, KNOWN_WITHIN, concerns, begin);
        end(self);
        self.renew();
    }

    /// A field of a resource that has one value while the reason is there, and another one then.
    fn field(
        &mut self,
        what: &str,
        concerns: &[Way],
        (kind, name): (&str, &str),
        specs: [&str; 2],
    ) {
        let patch = |spec: &str| {
            let (spec, kind, name) = (spec.to_owned(), kind.to_owned(), name.to_owned());
            move |table: &Self| table.trusting.patch(&kind, &name, &spec)
        };
        self.passing(what, concerns, patch(specs[0]), patch(specs[1]));
    }

    /// The key that signs in a ring is withdrawn with no grace.
    fn withdraw(&mut self, ring: &str, concerns: &[Way]) {
        let name = self.trusting.release.name.clone();
        let withdraw = |table: &Self| {
            let release = &table.trusting.release;
            let stands = release.get("signingkey", &name, ring);
            let kid = stands["status"]["activeKeyId"].clone();
            let spec = json!({"spec": {"invalidated": [{"keyId": kid, "gracePeriod": "0s"}]}});
            let spec = spec.to_string();
            let patch = [
                "patch",
                "signingkey",
                ring,
                "-n",
                &name,
                "--type=merge",
                "-p",
            ];
            let patch = [&patch[..], &[&spec]].concat();
            release.cluster.kubectl_ok(&patch);
        };
        let what = format!("the key of ring {ring} is withdrawn");
        self.reason(&what, WITHDRAWN_WITHIN, concerns, withdraw);
        self.renew();
    }

    fn revoke(&self, (id, secret): &(String, String), token: &str) {
        let url = format!("{}/oauth/revoke", self.trusting.release.issuer());
        let answer = http::form(&url, id, secret, &format!("token={token}"));
        assert_eq!(answer.expect("the server answers").status, 200);
    }
}

#[test]
fn every_way_against_every_reason() {
    let mut table = Table::start();
    let tenant = table.trusting.tenant.clone();
    let both = |one: &[Way], two: &[Way]| [one, two].concat();

    // The provider.
    let login = ("oidcprovider", "login");
    let active = ["{\"active\": false}", "{\"active\": true}"];
    table.field(
        "its provider is inactive",
        &both(&OUTSIDE, &PERSONS),
        login,
        active,
    );
    table.passing(
        "its provider is deleted",
        &OUTSIDE,
        |table| drop(table.kubectl(&["delete", "oidcprovider", "login"])),
        |table| table.trusting.trust("login", &table.login.base, "1h"),
    );

    // The person.
    let person = format!(
        "apiVersion: chancery.dev/v1alpha1\nkind: User\nmetadata: {{name: ann, namespace: {tenant}}}\nspec: {{provider: {{name: login, scope: Tenant}}, subject: ann, suspended: true}}\n"
    );
    table.passing(
        "the person is suspended",
        &both(&OUTSIDE, &PERSONS),
        |table| drop(table.trusting.release.apply(&person)),
        |table| {
            table
                .trusting
                .patch("users.chancery.dev", "ann", "{\"suspended\": false}");
        },
    );
    let suspended = ["{\"suspended\": true}", "{\"suspended\": false}"];
    table.field(
        "the person is suspended again",
        &both(&OUTSIDE, &PERSONS),
        ("users.chancery.dev", "ann"),
        suspended,
    );

    // The tenant.
    table.field(
        "its Subscription is over",
        &WAYS,
        ("subscription", "main"),
        [
            "{\"periodTo\": \"2026-01-01T00:00:00Z\"}",
            "{\"periodTo\": null}",
        ],
    );
    table.passing(
        "its Subscription is deleted",
        &WAYS,
        |table| drop(table.kubectl(&["delete", "subscription", "main"])),
        Table::subscribe,
    );

    // The clients.
    let user = |name| ("technicaluser", name);
    let acting = both(&[ExchangeOutside, ExchangeActor], &PERSONS);
    for (what, concerns, name, specs) in [
        ("the client is suspended", &ROBOTS[..], "robot", suspended),
        (
            "that with a key is suspended",
            &[OwnKey],
            "keyed",
            suspended,
        ),
        ("the workload is suspended", &[Workload], "pod", suspended),
        ("the service is suspended", &acting, "shop", suspended),
        (
            "the next service is suspended",
            &[ExchangePerson],
            "orders",
            suspended,
        ),
        (
            "who asks is suspended",
            &INTROSPECTIONS,
            "gateway",
            suspended,
        ),
        (
            "the service may not act for people",
            &[ExchangeOutside, ExchangeActor],
            "shop",
            ["{\"onBehalfOf\": false}", "{\"onBehalfOf\": true}"],
        ),
        (
            "who asks may not introspect",
            &INTROSPECTIONS,
            "gateway",
            ["{\"introspect\": false}", "{\"introspect\": true}"],
        ),
    ] {
        table.field(what, concerns, user(name), specs);
    }
    table.passing(
        "the client is deleted",
        &ROBOTS,
        |table| drop(table.kubectl(&["delete", "technicaluser", "robot"])),
        Table::robot,
    );

    // What it authenticates with.
    let keys = |key: &Key| {
        let keys = public_keys(&[key]);
        json!({"credential": {"publicKey": keys}}).to_string()
    };
    let other = keys(&Key::new(Algorithm::ES256, "two"));
    let own = keys(&table.key);
    let specs = [other.as_str(), own.as_str()];
    table.field("its key is another", &[OwnKey], user("keyed"), specs);
    table.passing(
        "its ServiceAccount is deleted and made again",
        &[Workload],
        |table| {
            table.kubectl(&["delete", "serviceaccount", "app"]);
            table.workload();
        },
        |_| {},
    );

    // The tokens.
    table.passing(
        "the client's token is revoked",
        &[IntrospectClient, AccountClient],
        |table| table.revoke(&table.tokens.robot, &table.tokens.of_robot),
        |_| {},
    );
    table.passing(
        "the person's token is revoked",
        &PERSONS,
        |table| table.revoke(&table.tokens.shop, &table.tokens.person),
        |_| {},
    );
    table.withdraw("main", &[ExchangeActor, IntrospectClient, AccountClient]);
    table.withdraw("people", &PERSONS);

    table.reason("the service is deleted", KNOWN_WITHIN, &acting, |table| {
        drop(table.kubectl(&["delete", "technicaluser", "shop"]));
    });
    println!("each cell at two replicas; x: refused, .: goes on");
    for (n, way) in WAYS.iter().enumerate() {
        println!("{}+ {way:?}", " |".repeat(n));
    }
    for row in &table.rows {
        println!("{row}");
    }
    table.trusting.end();
}
