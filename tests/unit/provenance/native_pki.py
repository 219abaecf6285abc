"""A certification authority, an OCSP responder and a time-stamp authority for the tests of the native writer."""

from __future__ import annotations

import datetime as dt
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID as Eku
from cryptography.x509.oid import NameOID

CLAIM_SIGNING = x509.ObjectIdentifier("1.3.6.1.4.1.62558.2.1")
NOW = dt.datetime.now(dt.UTC)


@dataclass(frozen=True)
class Identity:
    key: Any
    certificate: x509.Certificate

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def key_pem(self) -> bytes:
        return bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )


def new_key(kind: str) -> Any:
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "ps256":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key({"es256": ec.SECP256R1(), "es384": ec.SECP384R1(), "es512": ec.SECP521R1()}[kind])


def issue(
    name: str, kind: str, issuer: Identity | None, *ekus: x509.ObjectIdentifier, ca: bool = False, extra: Any = None
) -> Identity:
    key = new_key(kind)
    issuer_key = issuer.key if issuer else key
    subject = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test"), x509.NameAttribute(NameOID.COMMON_NAME, name)]
    )
    usage = dict.fromkeys(("key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - dt.timedelta(days=1))
        .not_valid_after(NOW + dt.timedelta(days=90))
        .add_extension(x509.BasicConstraints(ca, None), True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not ca, content_commitment=not ca, key_cert_sign=ca, crl_sign=ca,
                decipher_only=False, **usage,
            ),
            True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False)
    )  # fmt: skip
    if ekus:
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(ekus)), Eku.TIME_STAMPING in ekus)
    if extra is not None:
        builder = builder.add_extension(extra, False)
    return Identity(key, builder.sign(issuer_key, hashes.SHA384()))


@dataclass(frozen=True)
class Pki:
    root: Identity
    issuing: Identity
    leaf: Identity

    @property
    def chain_pem(self) -> str:
        return self.leaf.pem + self.issuing.pem


def make_pki(kind: str = "es256", responder: str = "http://127.0.0.1:9/ocsp/", issuer: str = "es384") -> Pki:
    root = issue("Root", "es384", None, ca=True)
    issuing = issue("Issuing CA", issuer, root, CLAIM_SIGNING, Eku.EMAIL_PROTECTION, ca=True)
    url = x509.UniformResourceIdentifier(responder)
    place = x509.AuthorityInformationAccess([x509.AccessDescription(x509.AuthorityInformationAccessOID.OCSP, url)])
    return Pki(root, issuing, issue("Signer", kind, issuing, CLAIM_SIGNING, Eku.EMAIL_PROTECTION, extra=place))


def ocsp_response(pki: Pki) -> bytes:
    responder = issue("OCSP", "es256", pki.issuing, Eku.OCSP_SIGNING, extra=x509.OCSPNoCheck())
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=pki.leaf.certificate,
        issuer=pki.issuing.certificate,
        algorithm=hashes.SHA1(),
        cert_status=ocsp.OCSPCertStatus.GOOD,
        this_update=NOW - dt.timedelta(hours=1),
        next_update=NOW + dt.timedelta(days=3),
        revocation_time=None,
        revocation_reason=None,
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, responder.certificate)
    return (
        builder.certificates([responder.certificate])
        .sign(responder.key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


class TimestampAuthority:
    """``openssl ts``, as a signer's server would run it."""

    def __init__(self, folder: Path) -> None:
        self.root = issue("TSA Root", "es384", None, ca=True)
        issuing = issue("TSA CA", "es384", self.root, Eku.TIME_STAMPING, ca=True)
        authority = issue("TSA", "ps256", issuing, Eku.TIME_STAMPING)
        self._folder, self.asked = folder, 0
        (folder / "tsa.pem").write_text(authority.pem)
        (folder / "tsa.key").write_bytes(authority.key_pem)
        (folder / "chain.pem").write_text(issuing.pem)
        (folder / "serial").write_text("01")
        (folder / "tsa.cnf").write_text(
            f"[tsa]\ndefault_tsa = t\n[t]\ndir = {folder}\nserial = $dir/serial\nsigner_cert = $dir/tsa.pem\n"
            "certs = $dir/chain.pem\nsigner_key = $dir/tsa.key\nsigner_digest = sha256\ndefault_policy = 1.2.3.4.1\n"
            "digests = sha256\naccuracy = secs:1\ness_cert_id_alg = sha256\n"
        )

    def __call__(self, message: bytes) -> bytes:
        self.asked += 1
        (self._folder / "message").write_bytes(message)
        self._run("-query", "-data", "message", "-sha256", "-cert", "-no_nonce", "-out", "query")
        self._run("-reply", "-config", "tsa.cnf", "-queryfile", "query", "-out", "token", "-token_out")
        return (self._folder / "token").read_bytes()

    def _run(self, *arguments: str) -> None:
        subprocess.run(["openssl", "ts", *arguments], cwd=self._folder, check=True, capture_output=True)
