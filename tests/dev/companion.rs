//! `examples/device` as it stands: a device, and the agent that goes with it.

use std::path::Path;

use super::desk::Desk;
use super::support::{Signal, eventually};
use super::{SOON, curl_line, ends, line};

#[test]
fn a_device_and_its_agent_from_the_example() {
    let desk = Desk::empty("dev-device");
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/device");
    for entry in std::fs::read_dir(examples).expect("the example") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        let text = std::fs::read_to_string(&path).expect("an example");
        desk.save(&name, &text);
    }
    let dev = desk.start();
    for (id, scope) in [
        ("acme.phone", "orders.read orders.write"),
        ("acme.phone-agent", "orders.read"),
    ] {
        curl_line(&dev, id);
        let (claims, _) = desk.verified_token(id);
        assert_eq!(claims["scope"], scope, "{claims}");
    }
    assert_eq!(dev.stderr(), "");

    // More than the device has is told with file and line, and changes nothing.
    let device = desk.read("30-device.yaml");
    let beyond = device.replace("scopes: [orders.read]\n", "scopes: [orders.delete]\n");
    assert_ne!(beyond, device);
    desk.save("30-device.yaml", &beyond);
    let told = line(&dev, "companionAgent.scopes has a scope");
    assert!(told.starts_with("m/30-device.yaml:14: "), "{told}");
    desk.verified_token("acme.phone-agent");

    // Its agent is no manifest's, and stays through a restart; taken away, it goes.
    desk.save("30-device.yaml", &device);
    line(&dev, "m/30-device.yaml: mended.");
    ends(&dev, Signal::Term);
    let dev = desk.start();
    curl_line(&dev, "acme.phone-agent");
    desk.verified_token("acme.phone-agent");
    let alone = device.replace("  companionAgent:\n    scopes: [orders.read]\n", "");
    desk.save("30-device.yaml", &alone);
    eventually("its agent is gone", SOON, || {
        match desk.token("acme.phone-agent") {
            // The file with its secret goes too.
            Err(_) => Ok(()),
            Ok(token) => Err(token.len().to_string()),
        }
    });
    desk.verified_token("acme.phone");
    ends(&dev, Signal::Term);
}
