"""Consent records: their form, their signature, and what they change about a decision."""

from __future__ import annotations

import base64
import datetime as dt
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from safegen.consent.check import MEANING, Circumstances, apply_consents, check_consent, is_named
from safegen.consent.record import Consent, SignedConsent, parse_consent, read_consent, sign_consent
from safegen.consent.trust import (
    Revocation,
    Signer,
    distrust_signer,
    load_key,
    own_key,
    revocations,
    revoke,
    signers,
    trust_signer,
)
from safegen.errors import ConfigError, InputError, KeyStoreError, LedgerDamagedError
from safegen.keys.pki import public_id, public_pem
from safegen.ledger import Ledger
from safegen.ledger.subjects import Personal
from safegen.policies.engine.engine import Engine, Request
from safegen.settings import Home
from safegen.types import Action, Decision
from tests.unit.consent.consent_samples import DAY, NOW, SUBJECT, altered, consent, signed, write, write_key

PROMPT = f"{SUBJECT} walks along a beach at sunset"
KEY = Ed25519PrivateKey.generate()
TRUSTED = (Signer(public_id(KEY.public_key()), "agency", public_pem(KEY.public_key()).decode(), "2026-01-01"),)
GIVEN = Circumstances(TRUSTED, {}, NOW)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load("eu")


# -- the record


def test_a_record_reads_back_as_it_was_signed() -> None:
    made = consent(aliases=("Ada W.",), projects=("film",), excluded_contexts=("violence",), images=("0" * 64,))
    read = parse_consent(sign_consent(made, KEY))
    assert replace(read.consent, id="", salt="") == made
    assert read.consent.id.startswith("urn:uuid:")
    assert len(read.consent.salt) == 32
    assert check_consent(read, replace(GIVEN, project="film")) == "valid"


def test_any_jws_implementation_verifies_it() -> None:
    """RFC 7515 by hand: the signature is over the two encoded parts with a point between them."""
    envelope = json.loads(sign_consent(consent(), KEY))
    assert set(envelope) == {"payload", "protected", "signature"}
    signature = base64.urlsafe_b64decode(envelope["signature"] + "==")
    KEY.public_key().verify(signature, f"{envelope['protected']}.{envelope['payload']}".encode())
    head = json.loads(base64.urlsafe_b64decode(envelope["protected"] + "=="))
    assert head["alg"] == "EdDSA"


def test_two_records_of_the_same_words_have_digests_of_their_own() -> None:
    assert signed(KEY).digest != signed(KEY).digest


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": ""},
        {"subject": "x" * 201},
        {"subject": "line\nbreak"},
        {"granted_by": " "},
        {"expires": NOW - 2 * DAY},
        {"uses": ("dance",)},
        {"images": ("no digest",)},
        {"aliases": tuple(str(i) for i in range(101))},
    ],
    ids=lambda c: "_".join(c),
)
def test_a_record_that_makes_no_sense_is_not_signed(changes: dict[str, Any]) -> None:
    fields = {"subject": SUBJECT} | changes
    with pytest.raises(InputError):
        sign_consent(consent(**fields), KEY)


RECORD = sign_consent(consent(), KEY)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{}", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b"x" * 70_000,
        RECORD.replace(b'"payload"', b'"payloads"'),
        json.dumps({**json.loads(RECORD), "header": {}}).encode(),
        json.dumps({**json.loads(RECORD), "signature": "!"}).encode(),
        json.dumps({**json.loads(RECORD), "payload": "e30"}).encode(),
        json.dumps({**json.loads(RECORD), "protected": base64.urlsafe_b64encode(b'{"alg":"none"}').decode()}).encode(),
        altered(RECORD, subject=3), altered(RECORD, expires="soon"), altered(RECORD, extra=1),
        altered(RECORD, schema="safegen.consent/9"), altered(RECORD, id="1"), altered(RECORD, salt=""),
        altered(RECORD, uses="likeness"),
    ],
    ids=[
        "empty", "object", "list", "null", "not_text", "deep", "long", "member_missing", "member_more", "no_base64",
        "empty_payload", "no_algorithm", "subject_no_text", "time_no_time", "field_more", "other_schema", "id_no_urn",
        "salt_missing", "list_no_list",
    ],
)  # fmt: skip
def test_what_is_no_record_is_an_input_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.consent"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.consent"):
        read_consent(path)


@given(st.binary(max_size=200) | st.tuples(st.integers(0, len(RECORD) - 1), st.integers(1, 255)))
def test_no_bytes_make_a_valid_record_or_another_error(change: bytes | tuple[int, int]) -> None:
    if isinstance(change, bytes):
        content = change
    else:
        at, bits = change
        content = RECORD[:at] + bytes([RECORD[at] ^ bits]) + RECORD[at + 1 :]
    try:
        read = parse_consent(content)
    except InputError:
        return
    assert check_consent(read, GIVEN) in ("altered", "unknown_signer") or read == parse_consent(RECORD)


def test_a_record_that_is_not_there_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        read_consent(tmp_path / "none.consent")
    with pytest.raises(InputError):
        read_consent(tmp_path)


# -- whether it holds


def other_key() -> SignedConsent:
    return signed(Ed25519PrivateKey.generate())


def claims_our_key() -> SignedConsent:
    """Signed by another key that names ours."""
    return replace(other_key(), signer=TRUSTED[0].id)


BROKEN: dict[str, tuple[SignedConsent, Circumstances]] = {
    "unknown_signer": (other_key(), GIVEN),
    "altered": (parse_consent(altered(sign_consent(consent("Eve Miller"), KEY), subject=SUBJECT)), GIVEN),
    "altered ": (claims_our_key(), GIVEN),
    "not_yet_valid": (signed(KEY, not_before=NOW + DAY / 2), GIVEN),
    "expired": (signed(KEY, expires=NOW - DAY / 2), GIVEN),
    "expired ": (signed(KEY, expires=NOW), GIVEN),
    "use_not_allowed": (signed(KEY, uses=("voice",)), GIVEN),
    "other_project": (signed(KEY, projects=("film",)), GIVEN),
    "other_project ": (signed(KEY, projects=("film",)), replace(GIVEN, project="advert")),
}


def with_revoked(record: SignedConsent) -> Circumstances:
    return replace(GIVEN, revoked={record.consent.id: Revocation(record.consent.id, 3, "", "ada", "")})


@pytest.mark.parametrize("state", BROKEN)
def test_a_record_that_does_not_hold_says_why_and_lifts_nothing(engine: Engine, state: str) -> None:
    record, given = BROKEN[state]
    assert check_consent(record, given) == state.strip()
    judged = apply(engine, PROMPT, [record], given)
    assert judged.action is Action.REVIEW
    assert f"consent_{state.strip()}" in judged.explanation
    assert state.strip() in MEANING


def test_a_revoked_record_lifts_nothing(engine: Engine) -> None:
    record = signed(KEY)
    judged = apply(engine, PROMPT, [record], with_revoked(record))
    assert judged.action is Action.REVIEW
    assert "consent_revoked" in judged.explanation


def apply(
    engine: Engine, prompt: str, records: list[SignedConsent], given: Circumstances = GIVEN, **more: Any
) -> Decision:
    decision = engine.judge(Request(prompt))
    people = engine.people([("prompt", prompt)])
    return apply_consents(decision, records, given, pack=engine.pack, people=people, **more)[0]


@pytest.mark.parametrize(
    "prompt", [PROMPT, PROMPT.upper(), f"{SUBJECT}'s walk along a beach at sunset", PROMPT.replace("a W", "a\u200b W")]
)
def test_a_record_that_holds_turns_review_into_allow(engine: Engine, prompt: str) -> None:
    assert engine.judge(Request(prompt)).action is Action.REVIEW
    judged = apply(engine, prompt, [signed(KEY)])
    assert judged.action is Action.ALLOW
    assert {r.category for r in judged.reasons} == {"likeness", "consent"}
    assert SUBJECT not in json.dumps([r.to_json() for r in judged.reasons if r.category == "consent"])


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        (PROMPT, "Eve Miller"),
        (PROMPT, "Ada"),
        (PROMPT, "Ada Wong Lee"),
        (f"{SUBJECT} and Peter Miller walk along a beach at sunset", SUBJECT),
    ],
    ids=["somebody_else", "a_part_of_the_name", "a_longer_name", "one_of_two"],
)
def test_a_record_of_another_person_lifts_nothing(engine: Engine, prompt: str, subject: str) -> None:
    judged = apply(engine, prompt, [signed(KEY, subject)])
    assert judged.action is Action.REVIEW
    assert "consent_other_person" in judged.explanation


def test_two_people_need_two_records(engine: Engine) -> None:
    prompt = f"{SUBJECT} and Peter Miller walk along a beach at sunset"
    assert apply(engine, prompt, [signed(KEY), signed(KEY, "Peter Miller")]).action is Action.ALLOW


def test_an_alias_is_a_name_and_spelling_is_forgiven() -> None:
    record = Consent("Zoë Martínez-Díaz", "z", NOW, NOW + DAY, aliases=("Zed",))
    assert all(is_named(record, name) for name in ("zoe martinez diaz", "ZOË MARTÍNEZ DÍAZ", "zed", "Zed's"))
    assert not any(is_named(record, name) for name in ("zoe", "zoe martinez", "zedd", ""))


def test_an_excluded_context_and_an_unknown_one_keep_the_review(engine: Engine) -> None:
    assert apply(engine, PROMPT, [signed(KEY, excluded_contexts=("violence",))]).action is Action.ALLOW
    for context in ("likeness", "no_such_category"):
        judged = apply(engine, PROMPT, [signed(KEY, excluded_contexts=(context,))])
        assert judged.action is Action.REVIEW
        assert "consent_excluded_context" in judged.explanation


def test_a_record_lifts_no_block(engine: Engine) -> None:
    word = Engine.load("eu")._lexicon().lists["gore"][0]
    prompt = f"{PROMPT}, {word}"
    before = engine.judge(Request(prompt))
    assert before.action is Action.BLOCK
    after = apply(engine, prompt, [signed(KEY)])
    assert (after.action, after.reasons) == (before.action, before.reasons)


def test_a_record_lifts_no_other_review(engine: Engine) -> None:
    judged = apply(engine, f"{SUBJECT} 海滩 日落", [signed(KEY)])
    assert judged.action is Action.REVIEW
    stopping = {r.category for r in judged.reasons if r.action.stops}
    assert "unsupported_language" in stopping
    assert "likeness" not in stopping


def test_a_face_in_a_picture_needs_a_record_of_that_picture(engine: Engine) -> None:
    decision = engine.judge(Request("somebody walks along a beach at sunset"))
    face = replace(engine.judge(Request(PROMPT)).reasons[0], source="image", classifier="joint:face")
    decision = replace(decision, action=Action.REVIEW, reasons=(face,))

    def lifted(record: SignedConsent, images: list[str]) -> Action:
        return apply_consents(decision, [record], GIVEN, pack=engine.pack, people=frozenset(), images=images)[0].action

    allowed = signed(KEY, images=("a" * 64,))
    assert lifted(allowed, ["a" * 64]) is Action.ALLOW
    assert lifted(allowed, ["b" * 64]) is Action.REVIEW
    assert lifted(allowed, ["a" * 64, "b" * 64]) is Action.REVIEW
    assert lifted(allowed, []) is Action.REVIEW
    assert lifted(signed(KEY), ["a" * 64]) is Action.REVIEW


# -- the home's signers, keys and revocations


def test_signers_are_trusted_by_name_and_no_longer(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert signers(home) == ()
    _, public = write_key(tmp_path, KEY)
    trust_signer(home, public, "agency")
    (held,) = signers(home)
    assert (held.id, held.name) == (TRUSTED[0].id, "agency")
    assert [s.name for s in (trust_signer(home, public, "the agency"),)] == [s.name for s in signers(home)]
    distrust_signer(home, held.id)
    assert signers(home) == ()
    with pytest.raises(InputError):
        distrust_signer(home, held.id)


def test_what_is_no_key_is_not_trusted(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    curve = tmp_path / "curve.pub"
    curve.write_bytes(
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    text = tmp_path / "text.pub"
    text.write_text("no key")
    _, public = write_key(tmp_path, KEY)
    for path, name in ((curve, "a"), (text, "a"), (tmp_path / "none", "a"), (public, ""), (public, "a\nb")):
        with pytest.raises(InputError):
            trust_signer(home, path, name)
    assert signers(home) == ()


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{}",
        '{"schema": "other", "signers": []}',
        '{"schema": "safegen.consent-signers/1", "signers": [{}]}',
        "key",
    ],
)
def test_a_damaged_list_of_signers_is_no_empty_one(tmp_path: Path, damage: str) -> None:
    home = Home(tmp_path / "home")
    trust_signer(home, write_key(tmp_path, KEY)[1], "agency")
    path = home.root / "consent" / "signers.json"
    other = public_pem(Ed25519PrivateKey.generate().public_key()).decode()
    document = json.loads(path.read_text())
    document["signers"][0]["public_key"] = other  # the id stays: a swapped key
    path.write_text(json.dumps(document) if damage == "key" else damage)
    with pytest.raises(ConfigError):
        signers(home)


def test_the_homes_own_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    key = own_key(home)
    assert public_id(own_key(home).public_key()) == public_id(key.public_key())
    path = home.root / "consent" / "signer.key"
    assert path.stat().st_mode & 0o077 == 0
    assert signers(home) == ()
    path.chmod(0o644)
    with pytest.raises(KeyStoreError):
        own_key(home)


def test_keys_that_cannot_sign_records(tmp_path: Path) -> None:
    from safegen.keys.pki import private_pem

    wrong = tmp_path / "curve.key"
    wrong.write_bytes(private_pem(ec.generate_private_key(ec.SECP256R1())))
    text = tmp_path / "text.key"
    text.write_text("no key")
    for path in (wrong, text):
        path.chmod(0o600)
        with pytest.raises(KeyStoreError):
            load_key(path)
    with pytest.raises(KeyStoreError):
        load_key(tmp_path / "none.key")


def test_a_revocation_is_an_entry_and_changing_it_shows(tmp_path: Path) -> None:
    import contextlib
    import sqlite3

    record = signed(KEY)
    database = tmp_path / "ledger.db"
    with Ledger.open(f"sqlite:///{database}", key=Ed25519PrivateKey.generate()) as ledger:
        home = Home(tmp_path)
        home.keys.mkdir(mode=0o700)
        personal = Personal(ledger, home)
        revoke(personal, record.consent.id, by="ada", reason="changed my mind")
        found = revocations(ledger, personal)[record.consent.id]
        assert (found.entry, found.by, found.reason) == (0, "ada", "changed my mind")
        assert "ada" not in ledger.get(0).leaf
        with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
            for (name,) in connection.execute("select name from sqlite_master where type = 'trigger'").fetchall():
                connection.execute(f'drop trigger "{name}"')
            connection.execute("update entries set leaf = replace(leaf, ?, ?)", (record.consent.id, "urn:uuid:other"))
        assert not ledger.verify().ok
        with pytest.raises(LedgerDamagedError):
            revocations(ledger)


def test_times_are_read_with_and_without_a_clock(tmp_path: Path) -> None:
    from safegen.consent.record import parse_time

    assert parse_time("2027-01-31", "x") == dt.datetime(2027, 1, 31, tzinfo=dt.UTC)
    assert parse_time("2027-01-31T13:00+01:00", "x") == dt.datetime(2027, 1, 31, 12, tzinfo=dt.UTC)
    for text in ("", "tomorrow", "2027-13-01", None):
        with pytest.raises(InputError):
            parse_time(text, "x")
    assert write(tmp_path / "a.consent", KEY).exists()


@pytest.mark.parametrize("pack", ["default", "eu"])
@pytest.mark.parametrize(
    ("words", "category"),
    [("deceptive_acts", "likeness"), ("fake_cues", "likeness"), ("violence_strong", "likeness"), ("gore", "likeness"),
     ("undress_tools", "ncii"), ("sexual_explicit", "ncii")],
)  # fmt: skip
def test_a_named_person_in_such_a_context_is_blocked(pack: str, words: str, category: str) -> None:
    judge = Engine.load(pack)
    word = judge._lexicon().lists[words][0].lstrip("=")
    decision = judge.judge(Request(f"{SUBJECT} {word} at a beach at sunset"))
    assert decision.action is Action.BLOCK
    assert category in {r.category for r in decision.reasons if r.action is Action.BLOCK}
