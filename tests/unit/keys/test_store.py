"""The key store: what init makes, what load refuses, what never leaks."""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import pickle
import pprint
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from safegen.errors import KeyStoreError
from safegen.keys import KeyStore, key_store
from safegen.keys import files as key_files
from safegen.settings import Home

FILES = {
    "chain.pem",
    "commitment.key",
    "ledger.key",
    "ledger.pub",
    "root.pem",
    "signing.key",
    "store.json",
    "watermark.key",
}
PRIVATE_TO_SIGNER = {"signing.key", "ledger.key", "commitment.key"}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def set_clock(monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    moment = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
    monkeypatch.setattr(key_store, "_now", lambda: moment)


def overwrite(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)


def private_forms(keys: KeyStore) -> list[bytes]:
    """Every private value in the encodings in which it might slip out."""
    der = serialization.load_pem_private_key(keys.signing_key, None)
    assert isinstance(der, ec.EllipticCurvePrivateKey)
    raw = [
        keys.watermark_key,
        keys.commitment_key,
        der.private_numbers().private_value.to_bytes(32, "big"),
        keys.ledger_key.private_bytes_raw(),
    ]
    body = b"".join(keys.signing_key.splitlines()[1:-1])
    return [body[:40], *(f for r in raw for f in (r, r.hex().encode(), base64.b64encode(r), repr(r).encode()[2:-1]))]


def test_init_makes_private_files(home: Home) -> None:
    KeyStore.init(home)
    assert {p.name for p in home.keys.iterdir()} == FILES
    assert stat.S_IMODE(home.keys.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in home.keys.iterdir()} == {0o600}
    assert [p.name for p in home.root.iterdir()] == ["keys"]


def test_load_gives_what_init_gave(home: Home) -> None:
    made, loaded = KeyStore.init(home, organisation="Example Studio"), KeyStore.load(home)
    for name in ("certificate_chain_pem", "root_pem", "ledger_name", "watermark_key", "commitment_key", "ids"):
        assert getattr(made, name) == getattr(loaded, name)
    assert made.ledger_key.private_bytes_raw() == loaded.ledger_key.private_bytes_raw()
    assert made.ledger_public_key == loaded.ledger_key.public_key()
    assert loaded.ledger_name.startswith("safegen.local/")
    assert len(loaded.watermark_key) == len(loaded.commitment_key) == 32


def test_two_homes_share_nothing(tmp_path: Path) -> None:
    a, b = KeyStore.init(Home(tmp_path / "a")), KeyStore.init(Home(tmp_path / "b"))
    assert a.watermark_key != b.watermark_key
    assert a.commitment_key != b.commitment_key
    assert not {*vars_of(a)} & {*vars_of(b)}


def vars_of(keys: KeyStore) -> tuple[str, ...]:
    ids = keys.ids
    return (ids.signing, ids.ledger, ids.watermark, ids.commitment, keys.ledger_name, keys.leaf_fingerprint)


def test_certificates_follow_the_c2pa_profile(home: Home) -> None:
    keys = KeyStore.init(home)
    leaf, issuing = x509.load_pem_x509_certificates(keys.certificate_chain_pem.encode())
    root = x509.load_pem_x509_certificate(keys.root_pem.encode())
    leaf.verify_directly_issued_by(issuing)
    issuing.verify_directly_issued_by(root)
    root.verify_directly_issued_by(root)
    assert isinstance(root.public_key().curve, ec.SECP384R1)  # type: ignore[union-attr]
    assert isinstance(leaf.public_key().curve, ec.SECP256R1)  # type: ignore[union-attr]
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc <= dt.timedelta(days=365)
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    eku = set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert eku == {x509.ObjectIdentifier("1.3.6.1.4.1.62558.2.1"), ExtendedKeyUsageOID.EMAIL_PROTECTION}
    for certificate, authority, length in ((leaf, False, None), (issuing, True, 0), (root, True, 1)):
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, authority, length)
        certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)


def test_no_authority_key_is_kept(home: Home) -> None:
    keys = KeyStore.init(home)
    authorities = x509.load_pem_x509_certificates(keys.certificate_chain_pem.encode())[1:]
    authorities += x509.load_pem_x509_certificates(keys.root_pem.encode())
    forbidden = [c.public_key() for c in authorities]
    for path in home.keys.glob("*.key"):
        if path.read_bytes().startswith(b"-----"):
            key = serialization.load_pem_private_key(path.read_bytes(), None)
            assert key.public_key() not in forbidden


def test_init_refuses_to_replace_keys(home: Home) -> None:
    first = KeyStore.init(home)
    with pytest.raises(KeyStoreError, match="there are keys in") as caught:
        KeyStore.init(home)
    assert "--force" in caught.value.remedy
    assert KeyStore.load(home).watermark_key == first.watermark_key


def test_force_sets_old_keys_aside_and_keeps_them_usable(home: Home) -> None:
    first = KeyStore.init(home)
    second = KeyStore.init(home, force=True)
    third = KeyStore.init(home, force=True)
    assert len({first.watermark_key, second.watermark_key, third.watermark_key}) == 3
    assert [k.watermark_key for k in KeyStore.retired(home)] == [second.watermark_key, first.watermark_key]
    assert KeyStore.load(home).ids == third.ids


def test_force_carries_the_ledger_key_over(home: Home) -> None:
    first = KeyStore.init(home)
    second = KeyStore.init(home, force=True)
    assert (second.ids.ledger, second.ledger_name) == (first.ids.ledger, first.ledger_name)
    assert second.ledger_key.private_bytes_raw() == first.ledger_key.private_bytes_raw()


def test_force_replaces_a_damaged_ledger_key(home: Home) -> None:
    first = KeyStore.init(home)
    (home.keys / "ledger.key").write_text("no key")
    (home.keys / "ledger.pub").write_text("no key")
    assert KeyStore.init(home, force=True).ids.ledger != first.ids.ledger


def test_renew_changes_the_certificate_alone(home: Home) -> None:
    old = KeyStore.init(home, organisation="Example Studio")
    new = KeyStore.renew(home)
    assert new.leaf_fingerprint != old.leaf_fingerprint
    assert new.root_pem != old.root_pem
    assert (new.watermark_key, new.commitment_key, new.ledger_name, new.organisation) == (
        old.watermark_key,
        old.commitment_key,
        old.ledger_name,
        "Example Studio",
    )
    assert [k.leaf_fingerprint for k in KeyStore.retired(home)] == [old.leaf_fingerprint]


def test_renew_helps_where_the_certificate_has_expired(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    KeyStore.init(home)
    set_clock(monkeypatch, 400)
    KeyStore.renew(home)
    assert KeyStore.load(home).leaf_valid_until > dt.datetime.now(dt.UTC) + dt.timedelta(days=700)


def test_no_keys(home: Home) -> None:
    with pytest.raises(KeyStoreError, match="no key store") as caught:
        KeyStore.load(home)
    assert "safegen keys init" in caught.value.remedy


@pytest.mark.parametrize("name", sorted(FILES))
def test_missing_file(home: Home, name: str) -> None:
    KeyStore.init(home)
    (home.keys / name).unlink()
    with pytest.raises(KeyStoreError, match=name.replace(".", r"\.")):
        KeyStore.load(home)
    if name not in PRIVATE_TO_SIGNER:
        with pytest.raises(KeyStoreError, match=name.replace(".", r"\.")):
            KeyStore.load(home, purpose="verify")


def test_verifying_needs_no_private_key_of_the_signer(home: Home) -> None:
    full = KeyStore.init(home)
    for name in PRIVATE_TO_SIGNER:
        (home.keys / name).unlink()
    keys = KeyStore.load(home, purpose="verify")
    assert (keys.watermark_key, keys.ids, keys.ledger_name) == (full.watermark_key, full.ids, full.ledger_name)
    assert keys.describe()["can_sign"] is False
    for accessor in ("signing_key", "ledger_key", "commitment_key"):
        with pytest.raises(KeyStoreError, match="verify but not sign"):
            getattr(keys, accessor)


DAMAGE = [(name, damage) for name in sorted(FILES) for damage in ("empty", "half", "garbage", "binary", "flipped")]
DAMAGE.remove(("store.json", "flipped"))  # another letter in the organisation's name is no damage that could be seen


@pytest.mark.parametrize(("name", "damage"), DAMAGE)
def test_damaged_file(home: Home, name: str, damage: str) -> None:
    KeyStore.init(home)
    path = home.keys / name
    good = path.read_bytes()
    middle = len(good) // 2
    middle += good[middle] == ord("\n")  # another kind of line break would be no damage
    flipped = good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]
    bad = {"empty": b"", "half": good[:middle], "garbage": b"?" * 64, "binary": bytes(range(256)), "flipped": flipped}
    overwrite(path, bad[damage])
    with pytest.raises(KeyStoreError) as caught:
        KeyStore.load(home)
    assert "safegen" in caught.value.remedy


@pytest.mark.parametrize("content", ["[]", "1", "{}", '{"version": 1}', '{"version": 2}', '{"version":1,"key_ids":7}'])
def test_malformed_store_description(home: Home, content: str) -> None:
    KeyStore.init(home)
    overwrite(home.keys / "store.json", content.encode())
    with pytest.raises(KeyStoreError):
        KeyStore.load(home)


@pytest.mark.parametrize("name", sorted(FILES - {"store.json"}))
def test_file_of_another_store(tmp_path: Path, name: str) -> None:
    home, other = Home(tmp_path / "a"), Home(tmp_path / "b")
    KeyStore.init(home)
    KeyStore.init(other)
    overwrite(home.keys / name, (other.keys / name).read_bytes())
    with pytest.raises(KeyStoreError, match="damaged"):
        KeyStore.load(home)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o700])
def test_file_open_to_others(home: Home, mode: int) -> None:
    KeyStore.init(home)
    path = home.keys / "watermark.key"
    path.chmod(mode)
    for purpose in ("sign", "verify"):
        with pytest.raises(KeyStoreError, match="open to others") as caught:
            KeyStore.load(home, purpose=purpose)
        assert caught.value.remedy == f"chmod 600 '{path}'"
    path.chmod(0o400)
    KeyStore.load(home)


def test_folder_open_to_others(home: Home) -> None:
    KeyStore.init(home)
    home.keys.chmod(0o750)
    with pytest.raises(KeyStoreError, match="open to others") as caught:
        KeyStore.load(home)
    assert caught.value.remedy == f"chmod 700 '{home.keys}'"


def test_expired_certificate(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    KeyStore.init(home)
    set_clock(monkeypatch, 366)
    with pytest.raises(KeyStoreError, match="expired") as caught:
        KeyStore.load(home)
    assert "safegen keys renew" in caught.value.remedy
    assert KeyStore.load(home, purpose="verify").describe()["certificate"]["valid_now"] is False  # type: ignore[index,call-overload]


def test_certificate_from_the_future(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    KeyStore.init(home)
    set_clock(monkeypatch, -2)
    with pytest.raises(KeyStoreError, match="not valid before") as caught:
        KeyStore.load(home)
    assert "clock" in caught.value.remedy


@pytest.mark.parametrize("organisation", ["", "  ", "x" * 65, "two\nlines"])
def test_impossible_organisation(home: Home, organisation: str) -> None:
    with pytest.raises(KeyStoreError, match="organisation"):
        KeyStore.init(home, organisation=organisation)
    assert not home.keys.exists()


def test_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("in the way")
    with pytest.raises(KeyStoreError, match="cannot write keys"):
        KeyStore.init(Home(tmp_path / "home"))


@pytest.mark.parametrize("succeeding", range(10))
def test_full_disk_leaves_the_old_keys_in_place(home: Home, monkeypatch: pytest.MonkeyPatch, succeeding: int) -> None:
    """Each of the flushes that a new store needs (8 files, 2 folders) fails once."""
    old = KeyStore.init(home)
    calls, flush = 0, os.fsync

    def failing(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls > succeeding:
            raise OSError(28, "No space left on device")
        flush(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(key_files.os, "fsync", failing)
        with pytest.raises(KeyStoreError, match="No space left"):
            KeyStore.init(home, force=True)
    held = [KeyStore.load(home), *KeyStore.retired(home)]
    assert old.watermark_key in [k.watermark_key for k in held]
    assert not list(home.root.glob("keys.new-*"))


def test_private_bytes_stay_private(home: Home) -> None:
    keys = KeyStore.init(home)
    shown = "\n".join((repr(keys), str(keys), f"{keys}", pprint.pformat(keys), json.dumps(keys.describe())))
    for private in private_forms(keys):
        assert private not in shown.encode()
        for public in ("chain.pem", "root.pem", "ledger.pub", "store.json"):
            assert private not in (home.keys / public).read_bytes()
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(keys)
