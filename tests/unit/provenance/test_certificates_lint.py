"""Every defect of a certificate is named, and a certificate without any is left alone."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID as Eku

from safegen.errors import InputError
from safegen.keys.pki import ALGORITHMS, issue_pki
from safegen.provenance.certificates import describe, lint, read_certificates
from tests.unit.provenance.pki_samples import NOW, Authority, issue, rsa_key

AUTHORITY = Authority.make()
DAY = dt.timedelta(days=1)


def chain(**changes: object) -> str:
    return AUTHORITY.chain(AUTHORITY.leaf(**changes))


def self_signed() -> str:
    return issue("Alone", None).pem


def reversed_chain() -> str:
    return AUTHORITY.issuing.pem + AUTHORITY.leaf().pem


SIXTEEN: dict[str, Callable[[], str]] = {
    "no-extended-key-usage": lambda: chain(ekus=None),
    "unsuitable-extended-key-usage": lambda: chain(ekus=(Eku.SERVER_AUTH,)),
    "any-extended-key-usage": lambda: chain(ekus=(Eku.ANY_EXTENDED_KEY_USAGE,)),
    "exclusive-extended-key-usage": lambda: chain(ekus=(Eku.EMAIL_PROTECTION, Eku.TIME_STAMPING)),
    "no-key-usage": lambda: chain(key_usage=False),
    "no-digital-signature": lambda: chain(usage={"digital_signature": False}),
    "leaf-signs-certificates": lambda: chain(usage={"key_cert_sign": True}),
    "no-authority-key-identifier": lambda: chain(aki=False),
    "leaf-is-ca": lambda: chain(ca=True, usage={"digital_signature": True, "key_cert_sign": False}),
    "reversed-chain": reversed_chain,
    "weak-key": lambda: chain(key=rsa_key(1024)),
    "no-subject-key-identifier": lambda: chain(ski=False),
    "no-basic-constraints": lambda: chain(ca=None),
    "key-usage-not-critical": lambda: chain(usage_critical=False),
    "self-signed-leaf": self_signed,
    "root-in-chain": lambda: chain() + AUTHORITY.root.pem,
}
MORE: dict[str, Callable[[], str]] = {
    "expired": lambda: chain(start=NOW - 20 * DAY, days=10),
    "not-yet-valid": lambda: chain(start=NOW + 2 * DAY),
    "incomplete-chain": lambda: AUTHORITY.leaf().pem,
    "broken-chain": lambda: AUTHORITY.leaf().pem + Authority.make("Other").issuing.pem,
    "key-mismatch": lambda: chain() + AUTHORITY.leaf().key_pem(),
    "key-unreadable": lambda: chain() + "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
}


@pytest.mark.parametrize("defect", [*SIXTEEN, *MORE])
def test_defect_is_named_and_alone(defect: str) -> None:
    found = lint((SIXTEEN | MORE)[defect]().encode(), profile=False)
    assert [d.rule for d in found] == [defect]
    assert found[0].level == "error"
    assert found[0].message
    assert found[0].remedy


def test_there_are_sixteen() -> None:
    assert len(SIXTEEN) == 16


def test_weak_curve() -> None:
    found = lint(chain(key=ec.generate_private_key(ec.SECP256K1())).encode(), profile=False)
    assert [d.rule for d in found] == ["weak-key"]


def test_sec1_key_is_named() -> None:
    leaf = AUTHORITY.leaf()
    content = AUTHORITY.chain(leaf) + leaf.key_pem(form="SEC1")
    assert [d.rule for d in lint(content.encode())] == ["key-not-pkcs8"]


def test_encrypted_key_is_checked_where_the_passphrase_is_known() -> None:
    content = (chain() + AUTHORITY.leaf().key_pem("secret")).encode()
    assert lint(content) == ()
    assert [d.rule for d in lint(content, passphrase=b"secret")] == ["key-mismatch"]
    assert [d.rule for d in lint(content, passphrase=b"wrong")] == ["key-unreadable"]
    leaf = AUTHORITY.leaf()
    assert lint((AUTHORITY.chain(leaf) + leaf.key_pem()).encode(), passphrase=b"for another key") == ()


def test_several_defects_are_all_named() -> None:
    found = {d.rule for d in lint(chain(ski=False, aki=False, ekus=None, usage_critical=False).encode())}
    assert found >= {"no-subject-key-identifier", "no-authority-key-identifier", "key-usage-not-critical"}


def test_time_of_signing_decides() -> None:
    content = chain(days=10).encode()
    assert lint(content, at=NOW + 9 * DAY) == ()
    assert [d.rule for d in lint(content, at=NOW + 11 * DAY)] == ["expired"]


PROFILE: dict[str, Callable[[], str]] = {
    "profile-no-policy": lambda: chain(profile=False),
    "profile-no-ocsp": lambda: chain(profile=False),
    "profile-no-assurance-level": lambda: chain(profile=False),
    "profile-no-product-record": lambda: chain(profile=False),
    "profile-validity": lambda: chain(days=400),
    "profile-no-non-repudiation": lambda: chain(usage={"content_commitment": False}),
    "profile-extended-key-usage": lambda: chain(ekus=(Eku.EMAIL_PROTECTION,)),
    "profile-issuing-key": lambda: _issued_by(key=ec.generate_private_key(ec.SECP256R1())),
    "profile-issuing-constraints": lambda: _issued_by(path_length=1),
    "profile-issuing-usage": lambda: _issued_by(usage={"crl_sign": False}),
}


def _issued_by(**changes: object) -> str:
    fields = {"key": ec.generate_private_key(ec.SECP384R1()), "path_length": 0, "days": 900} | changes
    issuing = issue("Odd CA", AUTHORITY.root, ca=True, **fields)  # type: ignore[arg-type]
    return issue("Signer", issuing).pem + issuing.pem


@pytest.mark.parametrize("rule", PROFILE)
def test_profile_rules(rule: str) -> None:
    content = PROFILE[rule]().encode()
    found = lint(content)
    assert rule in {d.rule for d in found}
    assert {d.level for d in found} == {"profile"}
    assert lint(content, profile=False) == ()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_our_development_pki_has_no_defect(algorithm: str) -> None:
    pki = issue_pki("Test", dt.datetime.now(dt.UTC), algorithm=algorithm)
    assert lint(pki.chain + pki.signing_key) == ()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 40,
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    ],
)
def test_what_is_no_certificate(content: bytes) -> None:
    with pytest.raises(InputError):
        lint(content)


def test_der_is_read_too() -> None:
    leaf = AUTHORITY.leaf().certificate
    (found,) = read_certificates(leaf.public_bytes(Encoding.DER))
    assert found == leaf
    assert describe(found)["serial"] == f"{leaf.serial_number:x}"
