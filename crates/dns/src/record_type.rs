//! Numbers of record types, classes and response codes (IANA's DNS parameters).

/// IPv4 address.
pub(crate) const A: u16 = 1;
/// Name server of a zone.
pub(crate) const NS: u16 = 2;
/// Another name of the same.
pub(crate) const CNAME: u16 = 5;
/// Start of a zone.
pub(crate) const SOA: u16 = 6;
/// Name of an address.
pub(crate) const PTR: u16 = 12;
/// Host information.
pub(crate) const HINFO: u16 = 13;
/// Mail server.
pub(crate) const MX: u16 = 15;
/// Text.
pub(crate) const TXT: u16 = 16;
/// IPv6 address.
pub(crate) const AAAA: u16 = 28;
/// Where a service is.
pub(crate) const SRV: u16 = 33;
/// Rules of names.
pub(crate) const NAPTR: u16 = 35;
/// Not a record: the extension of the message (RFC 6891).
pub(crate) const OPT: u16 = 41;
/// How to reach a service (RFC 9460).
pub(crate) const SVCB: u16 = 64;
/// The same for HTTP.
pub(crate) const HTTPS: u16 = 65;
/// A part of a zone.
pub(crate) const IXFR: u16 = 251;
/// A whole zone.
pub(crate) const AXFR: u16 = 252;

/// The Internet.
pub(crate) const CLASS_IN: u16 = 1;

/// Response codes.
pub(crate) mod code {
    pub const NO_ERROR: u16 = 0;
    pub const FORM_ERR: u16 = 1;
    pub const SERV_FAIL: u16 = 2;
    pub const NX_DOMAIN: u16 = 3;
    pub const NOT_IMP: u16 = 4;
    pub const REFUSED: u16 = 5;
    pub const BAD_VERS: u16 = 16;
}
