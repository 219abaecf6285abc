"""Signers by URI: each signs a real clip that reads back as trusted; what goes wrong is said with its cause."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature

from safegen.errors import ConfigError, KeyStoreError, ProvenanceError
from safegen.keys import KeyStore
from safegen.keys.pki import ALGORITHMS, issue_pki
from safegen.provenance.backends import Signing
from safegen.provenance.certificates import write_pki
from safegen.provenance.credential import CredentialState
from safegen.provenance.file_signing import SignedAsset, sign_file
from safegen.provenance.read import read_credential
from safegen.provenance.signer_sources import open_signer, store_signer
from safegen.provenance.signers import CallbackSigner, Signer
from safegen.provenance.signing_identity import Seal
from safegen.provenance.trust import Trust
from safegen.settings import Home
from tests.unit.provenance.pki_samples import NOW, Authority, rsa_key
from tests.unit.provenance.provenance_samples import make_spec

AUTHORITY = Authority.make()
MODULE = next((p for p in ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm2.so",
                           "/opt/homebrew/lib/softhsm/libsofthsm2.so") if Path(p).exists()), "")  # fmt: skip


def sign(clip: Path, target: Path, keys: KeyStore, signer: Signer, signing: Signing | None = None) -> SignedAsset:
    return sign_file(clip, target, make_spec(), keys, signing=signing, seal=Seal(signer))


def no_question(question: str) -> str:
    raise AssertionError(question)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_file(tmp_path: Path, clip: Path, keys: KeyStore, signing: Signing, algorithm: str) -> None:
    pki = issue_pki("Someone else", dt.datetime.now(dt.UTC), algorithm=algorithm)
    write_pki(tmp_path / "pki", pki)
    uri = f"file:{tmp_path}/pki/signing.key?chain={tmp_path}/pki/chain.pem"
    signer = open_signer(uri, ask=no_question)
    assert signer.algorithm == algorithm
    signed = sign(clip, tmp_path / "out.mp4", keys, signer, signing)
    assert signed.signature["signer"] == "file:signing.key"
    assert signed.signature["algorithm"] == algorithm
    found = read_credential(signed.path, trust_anchors_pem=pki.root.decode())
    assert found.state is CredentialState.TRUSTED
    assert found.organisation == "Someone else"


def test_encrypted_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pki(tmp_path / "pki", issue_pki("Test", dt.datetime.now(dt.UTC), passphrase="right"))
    uri = f"file:{tmp_path}/pki/signing.key?chain={tmp_path}/pki/chain.pem"
    assert b"ENCRYPTED" in (tmp_path / "pki" / "signing.key").read_bytes()
    assert open_signer(uri, ask=lambda _: "right").sign(b"data")
    monkeypatch.setenv("SAFEGEN_PASSPHRASE", "right")
    assert open_signer(uri).sign(b"data")
    monkeypatch.setenv("SAFEGEN_PASSPHRASE", "wrong")
    with pytest.raises(KeyStoreError, match="cannot be read"):
        open_signer(uri)
    monkeypatch.delenv("SAFEGEN_PASSPHRASE")
    monkeypatch.setattr(sys, "stdin", open(os.devnull))  # noqa: SIM115, PTH123
    with pytest.raises(KeyStoreError, match="needs a passphrase"):
        open_signer(uri)


@pytest.mark.parametrize("form", ["PKCS8", "SEC1"])
def test_environment(
    tmp_path: Path, clip: Path, keys: KeyStore, signing: Signing, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    leaf = AUTHORITY.leaf()
    monkeypatch.setenv("CLAIM_KEY", leaf.key_pem(form=form) + AUTHORITY.chain(leaf) + AUTHORITY.root.pem)
    signed = sign(clip, tmp_path / "out.mp4", keys, open_signer("env:CLAIM_KEY"), signing)
    assert signed.signature["signer"] == "env:CLAIM_KEY"
    assert read_credential(signed.path, trust_anchors_pem=AUTHORITY.root.pem).signer == "Test Signer"


@pytest.mark.parametrize("kind", ["der", "raw", "pss", "ed25519"])
def test_callback(tmp_path: Path, clip: Path, keys: KeyStore, signing: Signing, kind: str) -> None:
    key: Any = {"pss": rsa_key, "ed25519": ed25519.Ed25519PrivateKey.generate}.get(
        kind, lambda: ec.generate_private_key(ec.SECP256R1())
    )()
    chain = AUTHORITY.chain(AUTHORITY.leaf(key=key))
    calls: list[int] = []

    def callback(data: bytes) -> bytes:
        calls.append(len(data))
        if isinstance(key, rsa.RSAPrivateKey):
            return key.sign(data, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return key.sign(data)
        signature = bytes(key.sign(data, ec.ECDSA(hashes.SHA256())))
        if kind == "raw":
            r, s = decode_dss_signature(signature)
            return bytes(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
        return signature

    sign(clip, tmp_path / "out.mp4", keys, CallbackSigner(chain, callback), signing)
    assert len(calls) == 1


def test_failing_signer_shows_its_cause(tmp_path: Path, clip: Path, keys: KeyStore, signing: Signing) -> None:
    def broken(_data: bytes) -> bytes:
        raise TimeoutError("the token did not answer")

    signer = CallbackSigner(AUTHORITY.chain(AUTHORITY.leaf()), broken, "callback:broken")
    with pytest.raises(ProvenanceError, match="callback:broken failed: TimeoutError: the token did not answer") as told:
        sign(clip, tmp_path / "out.mp4", keys, signer, signing)
    assert isinstance(told.value.__cause__, TimeoutError)
    assert not (tmp_path / "out.mp4").exists()


def test_interrupt_in_a_signer(tmp_path: Path, clip: Path, keys: KeyStore, signing: Signing) -> None:
    def stopped(_data: bytes) -> bytes:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sign(clip, tmp_path / "o.mp4", keys, CallbackSigner(AUTHORITY.chain(AUTHORITY.leaf()), stopped), signing)
    assert not (tmp_path / "o.mp4").exists()


@pytest.mark.parametrize("signature", [b"", b"\x00" * 64, b"nonsense"])
def test_wrong_signature(tmp_path: Path, clip: Path, keys: KeyStore, signing: Signing, signature: bytes) -> None:
    signer = CallbackSigner(AUTHORITY.chain(AUTHORITY.leaf()), lambda _: signature)
    with pytest.raises(ProvenanceError, match="not one of the key"):
        sign(clip, tmp_path / "out.mp4", keys, signer, signing)


def test_callback_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    leaf = AUTHORITY.leaf()
    module = types.ModuleType("house_signers")
    module.make = lambda: CallbackSigner(  # type: ignore[attr-defined]
        AUTHORITY.chain(leaf), lambda data: leaf.key.sign(data, ec.ECDSA(hashes.SHA256())), "house"
    )
    module.wrong = lambda: "no signer"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "house_signers", module)
    assert open_signer("callback:house_signers:make").uri == "house"
    for name in ("house_signers:wrong", "house_signers:absent", "no_such_module:make", "house_signers"):
        with pytest.raises(ConfigError, match="callback:"):
            open_signer(f"callback:{name}")


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"start": NOW - dt.timedelta(days=9), "days": 5}, "expired"),
        ({"ski": False}, "no-subject-key-identifier"),
        ({"ekus": None}, "no-extended-key-usage"),
    ],
)
def test_unusable_certificate_is_refused_with_its_defect(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], rule: str
) -> None:
    leaf = AUTHORITY.leaf(**changes)
    monkeypatch.setenv("CLAIM_KEY", leaf.key_pem() + AUTHORITY.chain(leaf))
    with pytest.raises(KeyStoreError, match=rf"\[{rule}\]"):
        open_signer("env:CLAIM_KEY")


def test_key_of_another_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLAIM_KEY", AUTHORITY.leaf().key_pem() + AUTHORITY.chain(AUTHORITY.leaf()))
    with pytest.raises(KeyStoreError, match="not the one"):
        open_signer("env:CLAIM_KEY")


@pytest.mark.parametrize("uri", ["", "file:", "nonsense", "https://example.org/key", "/etc/passwd", "env"])
def test_what_is_no_signer(uri: str) -> None:
    with pytest.raises(ConfigError, match="there is no signer"):
        open_signer(uri)


def test_missing_file_and_variable(tmp_path: Path) -> None:
    with pytest.raises(KeyStoreError, match="cannot read"):
        open_signer(f"file:{tmp_path}/none.pem")
    with pytest.raises(KeyStoreError, match="is empty"):
        open_signer("env:SAFEGEN_NO_SUCH_VARIABLE")


@pytest.mark.parametrize(
    ("uri", "module", "package"),
    [
        ("awskms:alias/claims?chain=c.pem", "boto3", "boto3"),
        ("gcpkms:projects/p/x?chain=c.pem", "google.cloud.kms", "google-cloud-kms"),
        ("pkcs11:token=t;object=o?module-path=m&x-chain=c.pem", "pkcs11", "python-pkcs11"),
    ],
)
def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, uri: str, module: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=f"needs the package {package}") as told:
        open_signer(uri)
    assert "pip install" in told.value.remedy


def test_home_signs_by_default(tmp_path: Path, clip: Path, keys: KeyStore, signing: Signing) -> None:
    signed = sign_file(clip, tmp_path / "out.mp4", make_spec(), keys, signing=signing)
    assert signed.signature == {
        "signer": "home",
        "algorithm": "es256",
        "leaf_sha256": keys.leaf_fingerprint,
        "timestamp": {"status": "none configured"},
        "ocsp": {"status": "off"},
    }
    assert store_signer(keys).algorithm == "es256"


def test_home_knows_what_its_other_signer_signed(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And does not take another certificate of the same CA for its own."""
    ours, other = AUTHORITY.leaf(), AUTHORITY.leaf()
    monkeypatch.setenv("OURS", ours.key_pem() + AUTHORITY.chain(ours))
    monkeypatch.setenv("OTHER", other.key_pem() + AUTHORITY.chain(other))
    home = Home(tmp_path / "home", signer="env:OURS")
    keys = KeyStore.init(home)
    before = Trust.of(home, (keys,))
    signed = sign_file(clip, tmp_path / "ours.mp4", make_spec(), keys, seal=Seal.of(home, keys))
    foreign = sign(clip, tmp_path / "other.mp4", keys, open_signer("env:OTHER"))
    trust = Trust.of(home, (keys,))
    assert read_credential(signed.path, trust=before).state is CredentialState.VALID
    found = read_credential(signed.path, trust=trust)
    assert (found.state, found.signer_trusted) == (CredentialState.TRUSTED, True)
    found = read_credential(foreign.path, trust=trust)
    assert (found.state, found.signer_trusted, found.listed_by) == (CredentialState.VALID, False, "")


# -- PKCS#11 -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def token(folder: Path) -> Path:
    pytest.importorskip("pkcs11", reason="needs python-pkcs11 (pip install 'safegen[pkcs11]')")
    if not MODULE or shutil.which("softhsm2-util") is None:
        pytest.skip("needs SoftHSM2 (Debian: apt install softhsm2)")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\n")
    os.environ["SOFTHSM2_CONF"] = str(folder / "softhsm2.conf")  # read when the module is loaded, once per process
    command = ["softhsm2-util", "--init-token", "--free", "--label", "safegen test", "--pin", "1234"]
    subprocess.run([*command, "--so-pin", "00000000"], check=True, capture_output=True)
    (folder / "pin").write_text("1234\n")
    for name, key in {"ec": ec.generate_private_key(ec.SECP256R1()), "rsa": rsa_key()}.items():
        leaf = AUTHORITY.leaf(key=key)
        (folder / f"{name}.pem").write_text(AUTHORITY.chain(leaf))
        (folder / f"{name}.key").write_text(leaf.key_pem())
        arguments = [
            "--token",
            "safegen test",
            "--label",
            name,
            "--id",
            "a1" if name == "ec" else "a2",
            "--pin",
            "1234",
        ]
        command = ["softhsm2-util", "--import", str(folder / f"{name}.key"), *arguments]
        subprocess.run(command, check=True, capture_output=True)
        (folder / f"{name}.key").unlink()
    return folder


def token_uri(folder: Path, name: str, *, token: str = "safegen%20test", named: str = "") -> str:
    query = f"module-path={MODULE}&x-chain={folder}/{name}.pem&pin-source={folder}/pin"
    return f"pkcs11:token={token};{named or f'object={name}'}?{query}"


@pytest.mark.parametrize("name", ["ec", "rsa"])
def test_pkcs11(tmp_path: Path, clip: Path, keys: KeyStore, signing: Signing, token: Path, name: str) -> None:
    signer = open_signer(token_uri(token, name))
    signed = sign(clip, tmp_path / "out.mp4", keys, signer, signing)
    assert signed.signature["signer"] == f"pkcs11:token=safegen test;object={name}"
    assert signed.signature["algorithm"] == {"ec": "es256", "rsa": "ps256"}[name]
    assert read_credential(signed.path, trust_anchors_pem=AUTHORITY.root.pem).state is CredentialState.TRUSTED


def test_pkcs11_key_by_id(token: Path) -> None:
    assert open_signer(token_uri(token, "ec", named="id=%a1")).sign(b"data")


def test_pkcs11_pin_from_the_environment(token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFEGEN_PASSPHRASE", "1234")
    uri = token_uri(token, "ec").partition("&pin-source")[0]
    assert open_signer(uri).sign(b"data")
    monkeypatch.setenv("SAFEGEN_PASSPHRASE", "9999")
    with pytest.raises(KeyStoreError, match="cannot be opened: PinIncorrect"):
        open_signer(uri)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("safegen%20test", "elsewhere"), "NoSuchToken"),
        (("object=ec", "object=none"), "NoSuchKey"),
        ((MODULE, "/no/such/module.so"), "cannot be opened"),
    ],
)
def test_pkcs11_that_is_not_there(token: Path, change: tuple[str, str], says: str) -> None:
    with pytest.raises(KeyStoreError, match=says):
        open_signer(token_uri(token, "ec").replace(*change))


def test_pkcs11_uri_that_says_too_little_or_too_much(token: Path) -> None:
    uri = token_uri(token, "ec")
    for wrong in ("pkcs11:object=ec", "pkcs11:token=t", uri.replace("module-path", "m"), uri.replace("x-chain", "c"),
                  f"{uri}&pin-value=1234"):  # fmt: skip
        with pytest.raises(ConfigError) as told:
            open_signer(wrong)
        assert "1234" not in str(told.value)


def test_pkcs11_with_the_certificate_of_another_key(token: Path) -> None:
    (token / "other.pem").write_text(AUTHORITY.chain(AUTHORITY.leaf()))
    with pytest.raises(ProvenanceError, match="not one of the key"):
        open_signer(token_uri(token, "ec").replace("ec.pem", "other.pem")).sign(b"data")


# -- cloud services: the calls and their answers, with a key of our own behind them ----------------------------------


class CloudKey:
    """Answers like boto3's kms client and Google's KeyManagementServiceClient, from a real private key."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key

    def _sign(self, digest: bytes) -> bytes:
        return self._key.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256())))

    def sign(self, **call: Any) -> dict[str, Any]:
        assert (call["KeyId"], call["MessageType"], call["SigningAlgorithm"]) == ("k1", "DIGEST", "ECDSA_SHA_256")
        return {"Signature": self._sign(call["Message"])}

    def asymmetric_sign(self, request: dict[str, Any]) -> Any:
        assert request["name"] == "projects/p"
        return types.SimpleNamespace(signature=self._sign(request["digest"]["sha256"]))


@pytest.mark.parametrize("kind", ["awskms", "gcpkms"])
def test_cloud_calls(tmp_path: Path, clip: Path, keys: KeyStore, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    leaf = AUTHORITY.leaf()
    (tmp_path / "chain.pem").write_text(AUTHORITY.chain(leaf))
    client = CloudKey(leaf.key)
    boto3, kms = types.ModuleType("boto3"), types.ModuleType("google.cloud.kms")
    boto3.client = lambda _service, **_options: client  # type: ignore[attr-defined]
    kms.KeyManagementServiceClient = lambda: client  # type: ignore[attr-defined]
    for name, module in {"boto3": boto3, "google.cloud.kms": kms}.items():
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("google", "google.cloud"):
        if name not in sys.modules:
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    name = {"awskms": "k1", "gcpkms": "projects/p"}[kind]
    signer = open_signer(f"{kind}:{name}?chain={tmp_path}/chain.pem")
    signed = sign(clip, tmp_path / "out.mp4", keys, signer)
    assert signed.signature["signer"] == f"{kind}:{name}"
