"""Certificates with and without defects, and a local time-stamp authority, for the tests of credentials."""

from __future__ import annotations

import datetime as dt
import http.server
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from safegen.keys.pki import (
    ASSURANCE_LEVEL,
    ASSURANCE_LEVEL_1,
    CERTIFICATE_POLICY,
    CLAIM_SIGNING_EKU,
    PRODUCT_RECORD,
)

NOW = dt.datetime.now(dt.UTC)
CLAIM = (CLAIM_SIGNING_EKU, ExtendedKeyUsageOID.EMAIL_PROTECTION)


@dataclass(frozen=True)
class Identity:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def key_pem(self, passphrase: str = "", form: str = "PKCS8") -> str:
        cipher = (
            serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
        )
        chosen = {"PKCS8": serialization.PrivateFormat.PKCS8, "SEC1": serialization.PrivateFormat.TraditionalOpenSSL}
        return str(self.key.private_bytes(serialization.Encoding.PEM, chosen[form], cipher).decode())


def issue(
    name: str,
    issuer: Identity | None,
    *,
    key: Any = None,
    ca: bool | None = False,
    path_length: int | None = None,
    ekus: Sequence[x509.ObjectIdentifier] | None = CLAIM,
    usage: dict[str, bool] | None = None,
    usage_critical: bool = True,
    key_usage: bool = True,
    ski: bool = True,
    aki: bool = True,
    start: dt.datetime | None = None,
    days: float = 300,
    profile: bool = True,
    eku_critical: bool = False,
) -> Identity:
    """Issue one certificate; ``ca=None`` leaves the basic constraints out, ``issuer=None`` signs it with itself."""
    key = key or ec.generate_private_key(ec.SECP384R1() if ca and issuer is None else ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "ZZ"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test"),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
    by = issuer or Identity(None, key)  # type: ignore[arg-type]
    start = start or NOW - dt.timedelta(minutes=5)
    bits = dict.fromkeys(
        ("key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"), False
    )
    bits |= {"digital_signature": not ca, "content_commitment": not ca, "key_cert_sign": bool(ca), "crl_sign": bool(ca)}
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=days))
    )
    extensions: list[tuple[x509.ExtensionType, bool]] = []
    if ca is not None:
        extensions.append((x509.BasicConstraints(ca, path_length), True))
    if key_usage:
        extensions.append((x509.KeyUsage(**(bits | (usage or {}))), usage_critical))
    if ekus:
        extensions.append((x509.ExtendedKeyUsage(list(ekus)), eku_critical))
    if ski:
        extensions.append((x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False))
    if aki:
        extensions.append((x509.AuthorityKeyIdentifier.from_issuer_public_key(by.key.public_key()), False))
    if profile:
        access = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier("http://o/"))
        extensions += [
            (x509.CertificatePolicies([x509.PolicyInformation(CERTIFICATE_POLICY, None)]), False),
            (x509.AuthorityInformationAccess([access]), False),
        ]
        if not ca:
            extensions += [
                (x509.UnrecognizedExtension(ASSURANCE_LEVEL, ASSURANCE_LEVEL_1), False),
                (
                    x509.UnrecognizedExtension(PRODUCT_RECORD, b"\x0c\x24" + b"1b4e28ba-2fa1-11d2-883f-0016d3cca427"),
                    False,
                ),
            ]
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    digest = None if isinstance(by.key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return Identity(builder.sign(by.key, digest), key)


@dataclass(frozen=True)
class Authority:
    """A root and an issuing CA in the conformance programme's profile."""

    root: Identity
    issuing: Identity

    @classmethod
    def make(cls, name: str = "Test", ekus: Sequence[x509.ObjectIdentifier] = CLAIM) -> Authority:
        root = issue(f"{name} Root", None, ca=True, path_length=1, ekus=None, profile=False)
        key = ec.generate_private_key(ec.SECP384R1())
        return cls(root, issue(f"{name} Issuing", root, ca=True, path_length=0, ekus=ekus, days=1800, key=key))

    def leaf(self, **changes: Any) -> Identity:
        return issue("Test Signer", self.issuing, **changes)

    def chain(self, leaf: Identity) -> str:
        return leaf.pem + self.issuing.pem


def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


CONFIG = """[tsa]
default_tsa = t
[t]
dir = {folder}
serial = $dir/serial
crypto_device = builtin
signer_cert = $dir/tsa.pem
certs = $dir/chain.pem
signer_key = $dir/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha384, sha512
accuracy = secs:1
ess_cert_id_alg = sha256
"""


class TimeStampAuthority:
    """``openssl ts`` behind a loopback server. ``mood`` is how it answers: well, error, garbage, refuse, other."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("needs the openssl command as time-stamp authority")
        self.folder, self.mood, self.asked, self.url = folder, "well", 0, ""
        stamping = (ExtendedKeyUsageOID.TIME_STAMPING,)
        self.authority = Authority.make("TSA", stamping)
        leaf = issue("TSA", self.authority.issuing, ekus=stamping, eku_critical=True, profile=False)
        for name, content in {
            "tsa.pem": leaf.pem,
            "tsa.key": leaf.key_pem(),
            "chain.pem": self.authority.issuing.pem,
            "serial": "01",
            "tsa.cnf": CONFIG.format(folder=folder),
        }.items():
            (folder / name).write_text(content)

    def reply(self, query: bytes) -> bytes:
        if self.mood == "other":  # a good time-stamp of something else
            query = subprocess.run(
                ["openssl", "ts", "-query", "-data", str(self.folder / "serial"), "-sha256", "-cert"],
                capture_output=True, check=True,
            ).stdout  # fmt: skip
        (self.folder / "query").write_bytes(query if self.mood != "refuse" else query[:-3])
        command = ["openssl", "ts", "-reply", "-config", str(self.folder / "tsa.cnf")]
        command += ["-queryfile", str(self.folder / "query"), "-out", str(self.folder / "reply")]
        subprocess.run(command, capture_output=True, check=self.mood != "refuse")
        return (self.folder / "reply").read_bytes()

    @contextmanager
    def serve(self) -> Iterator[TimeStampAuthority]:
        authority = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                query = self.rfile.read(int(self.headers["content-length"]))
                authority.asked += 1
                if authority.mood == "error":
                    self.send_error(503)
                    return
                content = b"no answer" if authority.mood == "garbage" else authority.reply(query)
                self.send_response(200)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            self.url = f"http://127.0.0.1:{server.server_address[1]}/tsa"
            try:
                yield self
            finally:
                server.shutdown()
