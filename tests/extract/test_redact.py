"""Personal data and secrets: replaced where they are, left where something only looks like them."""

from __future__ import annotations

import ipaddress
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.extract.redact import EMAIL, IPV4, IPV6, KINDS, PHONE, SECRET, redact

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to Jane.Doe+list@mail.firm-x.co.uk.", f"Write to {EMAIL}."),
        ("<a.b@c.de>, (x_y@z.org)", f"<{EMAIL}>, ({EMAIL})"),
        ("mailto:someone@firm.de?subject=hi", f"mailto:{EMAIL}?subject=hi"),
        ("user@example.com, a@sub.example.org, root@localhost, x@host.test", None),
        ("git@github.com:user/repo.git and @decorator a@b foo@2x.png@x", None),
        ("from 93.184.216.34:80 to 8.8.4.4", f"from {IPV4}:80 to 8.8.4.4"),
        ("10.0.0.1, 192.168.1.77, 127.0.0.1, 255.255.255.0, 192.0.2.55, 300.1.1.99", None),
        ("version 93.184.216.34, v93.1.2.3, 36.7.2.1. SQL, 128.91.0.0/16, 1.2.3.4.99", None),
        ("at 2606:2800:220:1:248:1893:25c8:1946 or 2a00:1450::200e", f"at {IPV6} or {IPV6}"),
        ("fe80::1, ::1, 2001:db8::7, std::vector, 23:59:59, 2024:12", None),
        ("Call +49 30 1234567, (415) 555-2671 or 415-555-2671", f"Call {PHONE}, {PHONE} or {PHONE}"),
        ("+1 202-555-0143, 2024-10-12, 1+2, ISBN 978-3-16-148410-0, 123-45", None),
        ("key = AKIAABCDEFGHIJKLMNOP;", f"key = {SECRET};"),
        ("AKIAIOSFODNN7EXAMPLE is the one of the manual, sk-learn-is-short, hf_hub_download", None),
        (f"token: ghp_{'aB3' * 12}", f"token: {SECRET}"),
        (f"-----BEGIN RSA PRIVATE KEY-----\n{'MIIE' * 20}\n-----END RSA PRIVATE KEY-----\nx", f"{SECRET}\nx"),
        ("-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END PUBLIC KEY-----", None),
    ],
)  # fmt: skip
def test_what_is_replaced_and_what_stays(text: str, expected: str | None) -> None:
    assert redact(text, KINDS)[0] == (text if expected is None else expected)


def test_counts_are_by_kind_and_kinds_that_are_not_asked_for_stay() -> None:
    text = f"a@b.de, c@d.de from 93.184.216.34 or 2a00:1450::200e with npm_{'x' * 36}"
    assert redact(text, KINDS)[1] == {"emails": 2, "ip_addresses": 2, "secrets": 1}
    assert redact(text, ["secrets"]) == (text.replace(f"npm_{'x' * 36}", SECRET), {"secrets": 1})
    assert redact(text, []) == (text, {})


@given(st.ip_addresses(v=4), st.sampled_from(["", " ", "(", ", ", "\n"]))
def test_an_ipv4_address_goes_when_it_is_public_and_has_two_large_octets(
    address: ipaddress.IPv4Address, before: str
) -> None:
    replaced = redact(f"{before}{address} x", ["ip_addresses"])[0] != f"{before}{address} x"
    assert replaced == (address.is_global and sorted(address.packed)[2] >= 32)


@given(st.ip_addresses(v=6))
def test_an_ipv6_address_goes_when_it_is_public(address: ipaddress.IPv6Address) -> None:
    replaced = redact(f"at {address} x", ["ip_addresses"])[0] != f"at {address} x"
    assert replaced == (address.is_global and str(address)[0] in "23" and len(str(address).split(":")[0]) == 4)


@given(st.text(LETTERS + " @.:-_+()\n", max_size=300))
def test_what_was_replaced_is_not_replaced_again(text: str) -> None:
    once, _ = redact(text, KINDS)
    assert redact(once, KINDS) == (once, {})


@given(st.emails())
def test_addresses_of_ordinary_form_go(address: str) -> None:
    ordinary = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}", address)
    reserved = re.search(r"(?i)[@.](test|example|invalid|localhost|local)$|[@.]example\.(com|net|org|edu)$", address)
    if ordinary and not reserved:
        assert redact(json.dumps({"to": address}), ["emails"])[0] == json.dumps({"to": EMAIL})


@pytest.mark.parametrize(
    "text",
    [
        "a" * 200_000 + "@",
        "a@" * 50_000,
        "1." * 100_000,
        "2a00:" * 50_000,
        "-----BEGIN PRIVATE KEY-----" * 2_000,
        "+1 " * 50_000,
    ],
)
def test_hostile_text_takes_time_that_grows_with_its_length(text: str) -> None:
    assert redact(text, KINDS)[0]
