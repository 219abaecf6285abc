"""An OCSP responder on loopback, for the tests of signing."""

from __future__ import annotations

import datetime as dt
import http.server
import threading
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID as Eku

from safegen.provenance.ocsp import MAX_BYTES
from safegen.provenance.signers import CallbackSigner, Signer
from tests.unit.provenance.native_pki import Identity, issue, make_pki

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
Status = ocsp.OCSPCertStatus


class Responder:
    """An OCSP responder for one leaf. ``mood`` says what is wrong with its answers."""

    def __init__(self, kind: str = "es384") -> None:
        self.mood, self.asked = "good", 0
        handler = type("Handler", (_Handler,), {"responder": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/ocsp/"
        self.pki = make_pki(responder=self.url, issuer=kind)
        self.delegate = issue("OCSP", "es256", self.pki.issuing, Eku.OCSP_SIGNING, extra=x509.OCSPNoCheck())
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def signer(self) -> Signer:
        return CallbackSigner(self.pki.chain_pem, lambda data: self.pki.leaf.key.sign(data, ec.ECDSA(hashes.SHA256())))

    def answer(self) -> bytes:
        if self.mood == "garbage":
            return b"\x30\x03\x0a\x01"
        if self.mood == "too long":
            return bytes(MAX_BYTES + 1)
        if self.mood == "refused":
            refused = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER)
            return refused.public_bytes(serialization.Encoding.DER)
        content = self._signed(self._single())
        if self.mood == "tampered":
            at = content.index(self.delegate.certificate.public_bytes(serialization.Encoding.DER)) - 12
            content = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        return content

    def _single(self) -> dict[str, Any]:
        status = {"revoked": Status.REVOKED, "unknown": Status.UNKNOWN}.get(self.mood, Status.GOOD)
        start, end = {
            "old": (NOW - 3 * DAY, NOW - DAY), "future": (NOW + DAY, NOW + 2 * DAY), "endless": (NOW - DAY, None),
        }.get(self.mood, (NOW - DAY / 24, NOW + DAY))  # fmt: skip
        revoked = NOW - DAY / 2 if self.mood == "revoked" else None
        about = issue("Other", "es256", self.pki.issuing) if self.mood == "other" else self.pki.leaf
        return {
            "cert": about.certificate, "issuer": self.pki.issuing.certificate, "algorithm": hashes.SHA1(),
            "cert_status": status, "this_update": start, "next_update": end, "revocation_time": revoked,
            "revocation_reason": None,
        }  # fmt: skip

    def _signed(self, single: dict[str, Any]) -> bytes:
        by: Identity = {
            "stranger": make_pki().leaf,
            "undelegated": issue("OCSP", "es256", self.pki.issuing, Eku.EMAIL_PROTECTION),
            "other CA's delegate": issue("OCSP", "es256", make_pki().issuing, Eku.OCSP_SIGNING),
            "issuer": self.pki.issuing,
        }.get(self.mood, self.delegate)
        place = ocsp.OCSPResponderEncoding.NAME if self.mood == "named" else ocsp.OCSPResponderEncoding.HASH
        builder = ocsp.OCSPResponseBuilder().add_response(**single).responder_id(place, by.certificate)
        if self.mood != "issuer":
            builder = builder.certificates([by.certificate])
        return builder.sign(by.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


class _Handler(http.server.BaseHTTPRequestHandler):
    responder: Responder

    def do_POST(self) -> None:
        query = ocsp.load_der_ocsp_request(self.rfile.read(int(self.headers["content-length"])))
        assert query.serial_number == self.responder.pki.leaf.certificate.serial_number
        self.responder.asked += 1
        if self.responder.mood == "error":
            self.send_error(500)
            return
        content = self.responder.answer()
        self.send_response(200)
        self.send_header("content-type", "application/ocsp-response")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass
