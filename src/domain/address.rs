//! Which addresses a request to an outside provider may go to: what a person writes into a resource
//! must not turn the operator on the cluster, the machine that it runs on, or the cloud's metadata.

// Addresses alone: std::net has the sockets too, which nothing in the domain may have.
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

/// A range of addresses: `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is no range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no range of addresses such as 10.96.0.0/12 or fd00::/8")]
pub struct NoCidr;

impl FromStr for Cidr {
    type Err = NoCidr;

    fn from_str(text: &str) -> Result<Self, NoCidr> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NoCidr)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => longest,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| NoCidr)?
            }
            Some(_) => return Err(NoCidr),
        };
        let cidr = Self { address, prefix };
        // Of one with bits beyond its prefix nobody knows what was meant.
        let sound = prefix <= longest && cidr.network(address) == cidr.network_bits();
        sound.then_some(cidr).ok_or(NoCidr)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Cidr {
    /// Whether the address lies in it. An IPv4 address within an IPv6 one does not.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && self.network(address) == self.network_bits()
    }

    fn network(&self, address: IpAddr) -> u128 {
        let (bits, width) = bits(address);
        let rest = width - u32::from(self.prefix);
        if rest >= 128 { 0 } else { bits >> rest << rest }
    }

    fn network_bits(&self) -> u128 {
        bits(self.address).0
    }
}

fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(v4) => (v4.to_bits().into(), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    }
}

/// What kind of address it is that no request may go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Forbidden(pub &'static str);

/// The address, its prefix, and what it is (the IANA special-purpose registry).
type Range<A> = (A, u8, &'static str);

const PRIVATE: &str = "a private address";
const DOCUMENTATION: &str = "an address for documentation";
const RESERVED: &str = "a reserved address";
const METADATA: &str = "an address of the cloud's metadata";

const V4: [Range<[u8; 4]>; 18] = [
    ([0, 0, 0, 0], 8, "an unspecified address"),
    ([10, 0, 0, 0], 8, PRIVATE),
    ([100, 64, 0, 0], 10, "an address of a carrier's NAT"),
    ([127, 0, 0, 0], 8, "a loopback address"),
    ([169, 254, 169, 254], 32, METADATA),
    ([169, 254, 0, 0], 16, "a link-local address"),
    ([172, 16, 0, 0], 12, PRIVATE),
    // Azure's, which is public by its looks.
    ([168, 63, 129, 16], 32, METADATA),
    ([192, 0, 0, 0], 24, RESERVED),
    ([192, 0, 2, 0], 24, DOCUMENTATION),
    ([192, 88, 99, 0], 24, RESERVED),
    ([192, 168, 0, 0], 16, PRIVATE),
    ([198, 18, 0, 0], 15, RESERVED),
    ([198, 51, 100, 0], 24, DOCUMENTATION),
    ([203, 0, 113, 0], 24, DOCUMENTATION),
    ([224, 0, 0, 0], 4, "a multicast address"),
    ([240, 0, 0, 0], 4, RESERVED),
    ([255, 255, 255, 255], 32, "a broadcast address"),
];

/// Within `2000::/3`, beyond which nothing is public.
const V6_PUBLIC: [Range<[u16; 8]>; 4] = [
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, RESERVED),
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, DOCUMENTATION),
    (
        [0x2002, 0, 0, 0, 0, 0, 0, 0],
        16,
        "a 6to4 address, within which is another",
    ),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, DOCUMENTATION),
];

const V6_OTHER: [Range<[u16; 8]>; 7] = [
    ([0, 0, 0, 0, 0, 0, 0, 0], 128, "an unspecified address"),
    ([0, 0, 0, 0, 0, 0, 0, 1], 128, "a loopback address"),
    ([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128, METADATA),
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, PRIVATE),
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, "a link-local address"),
    ([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, PRIVATE),
    ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, "a multicast address"),
];

/// Whether a request may go to an address: it is public, or the release allows it. An IPv4 address
/// within an IPv6 one (mapped, compatible, NAT64) is judged as what it leads to.
///
/// # Errors
/// What kind of address it is.
pub fn judge(address: IpAddr, allowed: &[Cidr]) -> Result<(), Forbidden> {
    let leads_to = match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => embedded(v6).map_or(address, IpAddr::V4),
    };
    if [address, leads_to]
        .iter()
        .any(|address| allowed.iter().any(|cidr| cidr.contains(*address)))
    {
        return Ok(());
    }
    let what = match leads_to {
        IpAddr::V4(v4) => find(&V4, |octets| Ipv4Addr::from(octets).into(), v4.into()),
        IpAddr::V6(v6) => {
            let to_address = |segments: [u16; 8]| Ipv6Addr::from(segments).into();
            if v6.segments()[0] & 0xe000 == 0x2000 {
                find(&V6_PUBLIC, to_address, v6.into())
            } else {
                find(&V6_OTHER, to_address, v6.into()).or(Some(RESERVED))
            }
        }
    };
    what.map_or(Ok(()), |what| Err(Forbidden(what)))
}

fn find<A: Copy>(
    ranges: &[Range<A>],
    to_address: impl Fn(A) -> IpAddr,
    address: IpAddr,
) -> Option<&'static str> {
    let within = |(base, prefix, _): &&Range<A>| {
        let cidr = Cidr {
            address: to_address(*base),
            prefix: *prefix,
        };
        cidr.contains(address)
    };
    ranges.iter().find(within).map(|(.., what)| *what)
}

/// The IPv4 address that an IPv6 one leads to: mapped (`::ffff:0:0/96`), compatible (`::/96`,
/// RFC 4291 §2.5.5), or through a NAT64 (`64:ff9b::/96`, RFC 6052; `64:ff9b:1::/48`, RFC 8215).
fn embedded(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = v6.segments();
    let low = Ipv4Addr::from_bits(u32::from(segments[6]) << 16 | u32::from(segments[7]));
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap_or_else(|_| panic!("{text}"))
    }

    #[test]
    fn only_what_is_public_may_be_asked() {
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "93.184.216.34",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "223.255.255.255",
            "11.0.0.0",
            "2606:4700::1111",
            "2a00:1450::1",
            "2001:4860:4860::8888",
            "64:ff9b::1.1.1.1",
            "::ffff:1.1.1.1",
        ] {
            assert_eq!(judge(address(public), &[]), Ok(()), "{public}");
        }
        for forbidden in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.1.2.3",
            "168.63.129.16",
            "169.254.169.254",
            "169.254.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::2",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "::10.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1.1.1.1",
            "64:ff9b:1::10.0.0.1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "2001:10::1",
            "2001:2::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "3fff::1",
            "100::1",
            "5f00::1",
            "4000::1",
        ] {
            assert!(judge(address(forbidden), &[]).is_err(), "{forbidden}");
        }
        let what = |text| judge(address(text), &[]).expect_err("forbidden").0;
        assert_eq!(what("::ffff:127.0.0.1"), "a loopback address");
        assert_eq!(what("169.254.169.254"), METADATA);
        assert_eq!(what("fd00:ec2::254"), METADATA);
    }

    #[test]
    fn a_release_can_allow_ranges() {
        let allowed: Vec<Cidr> = ["10.96.0.0/12", "127.0.0.1", "fd00:1::/32"]
            .iter()
            .map(|text| text.parse().expect("a range"))
            .collect();
        for fine in [
            "10.96.0.1",
            "10.111.255.255",
            "127.0.0.1",
            "::ffff:10.96.0.1",
            "fd00:1:2::3",
        ] {
            assert_eq!(judge(address(fine), &allowed), Ok(()), "{fine}");
        }
        for not in [
            "10.112.0.0",
            "10.95.255.255",
            "127.0.0.2",
            "::1",
            "fd00:2::1",
            "169.254.169.254",
        ] {
            assert!(judge(address(not), &allowed).is_err(), "{not}");
        }
        let all: Cidr = "0.0.0.0/0".parse().expect("a range");
        assert_eq!(judge(address("127.0.0.1"), &[all]), Ok(()));
        assert!(judge(address("::1"), &[all]).is_err());
        assert_eq!(all.to_string(), "0.0.0.0/0");
        let all: Cidr = "::/0".parse().expect("a range");
        assert_eq!(judge(address("::1"), &[all]), Ok(()));
        for odd in [
            "",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "::/129",
            "a/8",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "/8",
        ] {
            assert_eq!(odd.parse::<Cidr>(), Err(NoCidr), "{odd:?}");
        }
    }
}
