"""Personal data and secrets in text, replaced by what stands for them in documentation.

    emails           name@firm.de                →  email@example.com       not of example domains, nor git@host:path
    ip_addresses     public IPv4 and IPv6        →  192.0.2.1, 2001:db8::1  not private ones, versions and section numbers
    phone_numbers    international and US forms  →  +1 202-555-0100         off unless asked for: parts and orders have such numbers
    secrets          keys and tokens by their own prefix, private keys in PEM  →  REDACTED

The replacements are reserved for documentation (RFC 2606, RFC 5737, RFC 3849, the numbers 555-01xx), so a model learns the shape and
nobody's data. Replaced after the rules, whose limits are for the text as it was. FineWeb replaces e-mail and public IP
addresses (arXiv 2406.17557, 3.6); secrets are told by prefixes that their issuers publish.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

REDACTED = "redacted:"  # and a kind: the count of pieces that were replaced in kept documents
KINDS = ("emails", "ip_addresses", "phone_numbers", "secrets")
NAMES = {
    "emails": ("e-mail address", "e-mail addresses"),
    "ip_addresses": ("IP address", "IP addresses"),
    "phone_numbers": ("phone number", "phone numbers"),
    "secrets": ("secret", "secrets"),
}
EMAIL, IPV4, IPV6, PHONE, SECRET = "email@example.com", "192.0.2.1", "2001:db8::1", "+1 202-555-0100", "REDACTED"
LEAST_OCTET = 32  # an address nearly always has two as large; versions and section numbers have not

_EMAIL = re.compile(
    r"(?<![\w.+%-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@"
    r"((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24})(?![\w@-])(?!:\w)"
)
_RESERVED = re.compile(r"(?i)(?:^|\.)(?:example(?:\.(?:com|net|org|edu))?|test|invalid|localhost|local)$")
_IPV4 = re.compile(r"(?<![\w.-])(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?![\w/-]|\.\d)")
_VERSION = re.compile(r"(?i)(?:\bversions?|\bver\.?|\bv\.?|\brelease|\brev\.?|§|\bsections?|\bchapters?)\s*$")
_IPV6 = re.compile(r"(?<![\w:.])[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{1,34}(?![\w:/])")
_PHONE = re.compile(
    r"(?<![\w.+-])(?:\+\d{1,3}(?:[ ./-]?\(?\d{1,4}\)?){2,5}|\(\d{3}\) ?\d{3}-\d{4}|\d{3}-\d{3}-\d{4})(?![\w-])"
)
_SECRET = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:AKIA|ASIA)[0-9A-Z]{16}"  # AWS
    r"|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{60,255}"
    r"|glpat-[A-Za-z0-9_-]{20,64}"
    r"|xox[abprs]-[A-Za-z0-9-]{20,255}"  # Slack
    r"|AIza[0-9A-Za-z_-]{35}"  # Google
    r"|[sr]k_live_[0-9A-Za-z]{20,247}"  # Stripe
    r"|sk-(?:proj-|ant-)?[A-Za-z0-9_-]{32,255}"  # OpenAI, Anthropic
    r"|npm_[A-Za-z0-9]{36}|pypi-AgEI[A-Za-z0-9_-]{50,255}|hf_[A-Za-z]{34}"
    r"|eyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{10,1000}"  # JSON Web Tokens
    r")(?![A-Za-z0-9])"
    r"|-----BEGIN (?:[A-Z]{2,10} ){0,2}PRIVATE KEY-----[^-]{20,8000}-----END (?:[A-Z]{2,10} ){0,2}PRIVATE KEY-----"
)
_BEGINS = ("AKIA", "ASIA", "AIza", "glpat-", "xox", "sk-", "eyJ", "pypi-AgEI", "PRIVATE KEY-----")
_BEGINS_WITH_BAR = ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "k_live_", "npm_", "hf_")


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """may_hold: a cheap look that most texts do not pass. stand_in: what replaces a match, itself where it is none."""

    may_hold: Callable[[str], bool]
    pattern: re.Pattern[str]
    stand_in: Callable[[re.Match[str]], str]


def redact(text: str, kinds: Collection[str]) -> tuple[str, dict[str, int]]:
    """The text with the data of these kinds replaced, and how many pieces of each kind were."""
    counts: dict[str, int] = {}
    for name in KINDS:
        for kind in _PATTERNS[name] if name in kinds else ():
            if not kind.may_hold(text):
                continue
            replaced = 0

            def replace(found: re.Match[str], kind: _Kind = kind) -> str:
                nonlocal replaced
                stand_in = kind.stand_in(found)
                replaced += stand_in != found.group()
                return stand_in

            text = kind.pattern.sub(replace, text)
            if replaced:
                counts[name] = counts.get(name, 0) + replaced
    return text, counts


def in_words(details: Mapping[str, int]) -> str:
    """The counts of replaced pieces among the counts of extraction: "12 e-mail addresses, 3 IP addresses"; empty for none."""
    found = {name.removeprefix(REDACTED): count for name, count in details.items() if name.startswith(REDACTED)}
    return ", ".join(f"{count:,} {NAMES[name][count != 1]}" for name, count in found.items())


def _email(found: re.Match[str]) -> str:
    return found.group() if _RESERVED.search(found[1]) else EMAIL


def _ipv4(found: re.Match[str]) -> str:
    octets = [int(octet) for octet in found.groups()]
    before = found.string[max(0, found.start() - 12) : found.start()]
    if sorted(octets)[2] < LEAST_OCTET or max(octets) > 255 or _VERSION.search(before):
        return found.group()
    return IPV4 if _is_public(found.group()) else found.group()


def _ipv6(found: re.Match[str]) -> str:
    return IPV6 if _is_public(found.group()) else found.group()


def _is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def _phone(found: re.Match[str]) -> str:
    digits = sum(character.isdigit() for character in found.group())
    fictional = "555-01" in found.group()
    return PHONE if 9 <= digits <= 15 and not fictional else found.group()


def _secret(found: re.Match[str]) -> str:
    return found.group() if "EXAMPLE" in found.group() else SECRET


_DOTTED = re.compile(r"\.\d{1,3}\.\d{1,3}\.\d")  # begins with a fixed character, which is looked for much faster


def _may_hold_secrets(text: str) -> bool:
    return any(begin in text for begin in _BEGINS) or ("_" in text and any(begin in text for begin in _BEGINS_WITH_BAR))


_PATTERNS: dict[str, tuple[_Kind, ...]] = {
    "emails": (_Kind(may_hold=lambda text: "@" in text, pattern=_EMAIL, stand_in=_email),),
    "ip_addresses": (
        _Kind(may_hold=lambda text: _DOTTED.search(text) is not None, pattern=_IPV4, stand_in=_ipv4),
        _Kind(may_hold=lambda text: "::" in text or text.count(":") > 6, pattern=_IPV6, stand_in=_ipv6),
    ),
    "phone_numbers": (_Kind(may_hold=lambda text: "+" in text or "-" in text, pattern=_PHONE, stand_in=_phone),),
    "secrets": (_Kind(may_hold=_may_hold_secrets, pattern=_SECRET, stand_in=_secret),),
}
