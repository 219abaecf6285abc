"""``safegen consent``."""

from __future__ import annotations

import datetime as dt
import getpass
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safegen.cli.home_ledger import read_ledger
from safegen.cli.shell import JsonFlag, command, print_json
from safegen.errors import EXIT_DONE, EXIT_NOT_VERIFIED, InputError
from safegen.settings import Home
from safegen.types import Json

if TYPE_CHECKING:
    from safegen.consent.record import SignedConsent
    from safegen.consent.trust import Signer

app = typer.Typer(help="Consent records: who allows their likeness to be drawn, for what, until when.")

ByOption = Annotated[
    str, typer.Option("--by", help="Who says so; the system's user if not given, unless that is root.")
]


def person(by: str) -> str:
    """Return who acts: as named, or the operating system's user."""
    if by:
        return by
    try:
        user = getpass.getuser()
    except (OSError, KeyError) as error:  # no such user in the system's list
        raise InputError("Nobody knows who you are.", remedy="Say it with --by.") from error
    if user == "root":
        raise InputError("root can be anybody, and the ledger is to say who it was.", remedy="Say it with --by.")
    return user


@app.command()
def sign(
    subject: Annotated[str, typer.Argument(help="The person's name, as prompts spell it.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    granted_by: Annotated[str, typer.Option(help="Who grants it: the person, or who may speak for them.")],
    expires: Annotated[str, typer.Option(help="When it ends: 2027-01-31 or 2027-01-31T12:00Z.")],
    not_before: Annotated[str, typer.Option(help="When it begins; now if not given.")] = "",
    alias: Annotated[list[str] | None, typer.Option(help="Another name of the person. Can be repeated.")] = None,
    use: Annotated[list[str] | None, typer.Option(help="likeness (the default) or voice. Can be repeated.")] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Category of the policy that it excludes. Can be repeated.")
    ] = None,
    project: Annotated[list[str] | None, typer.Option(help="Project that it is for alone. Can be repeated.")] = None,
    image: Annotated[
        list[Path] | None, typer.Option(help="Picture or clip of the person that may be drawn from. Can be repeated.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="Ed25519 private key as PEM; the home's own consent key if not given.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write a consent record and sign it."""
    with command(as_json=as_json):
        from safegen.consent.record import Consent, parse_consent, parse_time, sign_consent
        from safegen.consent.trust import load_key, own_key

        if output.exists():
            raise InputError(f"{output} exists already.", remedy="Choose another name.")
        consent = Consent(
            subject, granted_by,
            parse_time(not_before, "--not-before") if not_before else dt.datetime.now(dt.UTC).replace(microsecond=0),
            parse_time(expires, "--expires"), aliases=tuple(alias or ()), uses=tuple(use or ("likeness",)),
            excluded_contexts=tuple(exclude or ()), projects=tuple(project or ()),
            images=tuple(_digest(path) for path in image or ()),
        )  # fmt: skip
        content = sign_consent(consent, own_key(Home.default()) if key is None else load_key(key))
        try:
            output.write_bytes(content)
        except OSError as error:
            raise InputError(f"Cannot write {output}: {error.strerror}", remedy="Choose another place.") from error
        signed = parse_consent(content)
        if as_json:
            print_json("consent.sign/1", {"output": str(output), **_about(signed)})
        else:
            typer.echo(f"Wrote {output}: {signed.consent.id}, signed with key {signed.signer}")


def _about(signed: SignedConsent) -> dict[str, Json]:
    return {"consent": signed.consent.id, "sha256": signed.digest, "signer": signed.signer}


def _described(signer: Signer) -> dict[str, Json]:
    return {"signer": signer.id, "name": signer.name, "public_key": signer.public_key, "added": signer.added}


def _digest(path: Path) -> str:
    try:
        with path.expanduser().open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}", remedy="Name a file.") from error


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A consent record.")],
    project: Annotated[str, typer.Option(help="The project that it is to hold for.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Say whether a record holds now: signature, trusted signer, revocation, time, use, project. Exit 1 if it does not.

    Whether it fits a prompt is decided when one is given to `safegen generate`.
    """
    with command(as_json=as_json):
        from safegen.consent.check import MEANING, Circumstances, check_consent
        from safegen.consent.record import read_consent
        from safegen.consent.trust import revocations, signers
        from safegen.ledger import Ledger

        home = Home.default()
        signed = read_consent(file)
        with read_ledger(Ledger, home) as ledger:
            revoked = dict(revocations(ledger))
        given = Circumstances(signers(home), revoked, dt.datetime.now(dt.UTC), project)
        state = check_consent(signed, given)
        if as_json:
            print_json("consent.check/1", {**_about(signed), "state": state})
        else:
            typer.echo(f"{state.upper()}: {signed.consent.id} {MEANING[state]}")
        raise typer.Exit(EXIT_DONE if state == "valid" else EXIT_NOT_VERIFIED)


@app.command()
def show(
    file: Annotated[Path | None, typer.Argument(help="A consent record; the trusted signers if not given.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what a record says, unchecked, or whose records this home trusts."""
    with command(as_json=as_json):
        from safegen.consent.record import read_consent

        if file is None:
            _print_signers(Home.default(), as_json=as_json)
            return
        signed = read_consent(file)
        print_json(
            "consent.show/1", {**_about(signed), "record": signed.consent.to_json()}, indent=None if as_json else 2
        )


def _print_signers(home: Home, *, as_json: bool) -> None:
    from safegen.consent.trust import signers

    held = signers(home)
    if as_json:
        print_json("consent.signers/1", {"signers": [_described(signer) for signer in held]})
        return
    for signer in held:
        typer.echo(f"{signer.id}  {signer.added[:10]}  {signer.name}")
    if not held:
        typer.echo("Nobody's records count yet. Trust a signer: safegen consent trust KEY, or --own.")


@app.command()
def trust(
    key: Annotated[
        Path | None, typer.Argument(help="Ed25519 public key as PEM; without one, those that count are listed.")
    ] = None,
    own: Annotated[bool, typer.Option("--own", help="The home's own consent key.")] = False,
    name: Annotated[str, typer.Option(help="Who signs with it.")] = "",
    remove: Annotated[str, typer.Option(help="Id of a signer to take off the list instead.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Count the records that somebody signs, from now on; or no longer. Without a key: list whose records count."""
    with command(as_json=as_json):
        from safegen.consent.trust import distrust_signer, own_key, trust_signer

        home = Home.default()
        if remove and (key is not None or own or name):
            raise InputError("--remove goes alone.", remedy="safegen consent trust --remove ID")
        if own and key is not None:
            raise InputError("Give a key, or --own.", remedy="--own stands for the home's own consent key.")
        if key is None and not own and not remove:
            if name:
                raise InputError(
                    "--name needs the key that it is about.", remedy="safegen consent trust KEY --name NAME"
                )
            _print_signers(home, as_json=as_json)
            return
        if remove:
            signer = distrust_signer(home, remove)
        else:
            if key is None:
                own_key(home)
                key, name = home.root / "consent" / "signer.pub", name or "this home"
            signer = trust_signer(home, key, name)
        if as_json:
            print_json("consent.trust/1", {**_described(signer), "trusted": not remove})
        else:
            typer.echo(f"{'No longer trusted' if remove else 'Trusted'}: {signer.id}  {signer.name}")


@app.command()
def revoke(
    record: Annotated[str, typer.Argument(help="A consent record's file, or its id (urn:uuid:...).")],
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    by: ByOption = "",
    as_json: JsonFlag = False,
) -> None:
    """Record in the ledger that a consent no longer holds. That cannot be taken back."""
    with command(as_json=as_json):
        from safegen.consent.record import is_consent_id, read_consent
        from safegen.consent.trust import revocations
        from safegen.consent.trust import revoke as revoke_consent
        from safegen.keys import KeyStore
        from safegen.ledger import Ledger
        from safegen.ledger.subjects import Personal

        name = record if is_consent_id(record) else read_consent(record).consent.id
        if len(reason) > 2000:
            raise InputError("The reason is longer than 2000 characters.", remedy="Keep it short.")
        home = Home.default()
        keys = KeyStore.load(home)
        with Ledger.open(home.ledger_url, key=keys.ledger_key, origin=keys.ledger_name) as ledger:
            personal = Personal(ledger, home)
            earlier = revocations(ledger, personal).get(name)
            if earlier is not None:
                raise InputError(f"It was revoked already, by {earlier.by} (entry {earlier.entry}).")
            receipt = revoke_consent(personal, name, by=person(by), reason=reason)
        if as_json:
            print_json("consent.revoke/1", {"consent": name, "entry": receipt.index})
        else:
            typer.echo(f"Revoked {name} (ledger entry {receipt.index})")
