"""``safegen cert``."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from safegen.cli.shell import JsonFlag, command, print_json
from safegen.errors import EXIT_DONE, EXIT_NOT_VERIFIED, InputError
from safegen.settings import Home

app = typer.Typer(
    help="Make, check, renew and show the certificates that claims are signed with.", no_args_is_help=True
)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="New folder for root.pem, chain.pem and signing.key.")],
    organisation: Annotated[str, typer.Option(help="Organisation named in the certificates.")] = "safegen development",
    country: Annotated[str, typer.Option(help="Country code; ZZ means none.")] = "ZZ",
    algorithm: Annotated[str, typer.Option(help="es256, es384, es512, ps256 or ed25519.")] = "es256",
    ocsp_url: Annotated[str, typer.Option(help="OCSP responder named in them; must end with a slash.")] = "",
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help="Encrypt the key with $SAFEGEN_PASSPHRASE, or ask for one.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make a development CA and a claim-signing certificate in C2PA's profile, to use as `file:` signer."""
    with command(as_json=as_json):
        from safegen.keys.pki import NO_OCSP, issue_pki
        from safegen.provenance.certificates import read_certificates, write_pki

        passphrase = ""
        if encrypt:
            passphrase = os.environ.get("SAFEGEN_PASSPHRASE") or typer.prompt(
                "Passphrase", hide_input=True, confirmation_prompt=True, err=True
            )
        pki = issue_pki(
            organisation, dt.datetime.now(dt.UTC), algorithm=algorithm, country=country,
            ocsp_url=ocsp_url or NO_OCSP, passphrase=passphrase,
        )  # fmt: skip
        write_pki(folder, pki)
        signer = f"file:{folder / 'signing.key'}?chain={folder / 'chain.pem'}"
        made = {"folder": str(folder), "signer": signer, "encrypted": bool(passphrase)}
        certificates = [_describe(c) for c in (*read_certificates(pki.chain), *read_certificates(pki.root))]
        if as_json:
            print_json("cert.init/1", made | {"certificates": certificates})
            return
        typer.echo(f"Made a development CA in {folder}. Sign with: --signer '{signer}'")
        _print(certificates)


@app.command()
def lint(
    file: Annotated[Path, typer.Argument(help="Chain as PEM, leaf first; the private key may stand in it too.")],
    profile: Annotated[
        bool, typer.Option("--profile/--no-profile", help="Also check the conformance programme's profile.")
    ] = True,
    as_json: JsonFlag = False,
) -> None:
    """Name everything that is wrong with a claim-signing certificate. Exit code 1 if something is."""
    with command(as_json=as_json):
        from safegen.provenance.certificates import lint as lint_chain

        passphrase = os.environ.get("SAFEGEN_PASSPHRASE", "").encode() or None
        defects = lint_chain(_read(file), profile=profile, passphrase=passphrase)
        if as_json:
            print_json("cert.lint/1", {"file": str(file), "ok": not defects, "defects": [d.to_json() for d in defects]})
        else:
            for defect in defects:
                typer.echo(f"{defect.level:<8}{defect.rule} ({defect.where}): {defect.message}")
                typer.echo(f"        {defect.remedy}")
            typer.echo(f"{file}: {len(defects)} defects" if defects else f"{file}: nothing wrong")
        raise typer.Exit(EXIT_NOT_VERIFIED if defects else EXIT_DONE)


@app.command()
def rotate(as_json: JsonFlag = False) -> None:
    """Issue a new signing certificate for this home; the old one is set aside and stays good for verification."""
    with command(as_json=as_json):
        from safegen.keys import KeyStore
        from safegen.provenance.certificates import read_certificates

        keys = KeyStore.renew(Home.default())
        chain = [_describe(c) for c in read_certificates(keys.certificate_chain_pem.encode())]
        if as_json:
            print_json("cert.rotate/1", {"folder": str(keys.folder), "certificates": chain})
        else:
            _print(chain)


@app.command()
def show(
    file: Annotated[Path | None, typer.Argument(help="Certificates as PEM or DER; this home's if not given.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what certificates say."""
    with command(as_json=as_json):
        from safegen.keys import KeyStore
        from safegen.provenance.certificates import read_certificates

        if file is None:
            keys = KeyStore.load(Home.default(), purpose="verify")
            content = (keys.certificate_chain_pem + keys.root_pem).encode()
        else:
            content = _read(file)
        certificates = [_describe(c) for c in read_certificates(content, str(file or "the key store"))]
        if as_json:
            print_json("cert.show/1", {"certificates": certificates})
        else:
            _print(certificates)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {file}: {error}", remedy="Give a file with certificates.") from error


def _describe(certificate: Any) -> dict[str, Any]:
    from safegen.provenance.certificates import describe

    return describe(certificate)


def _print(certificates: list[dict[str, Any]]) -> None:
    for certificate in certificates:
        typer.echo(certificate["subject"])
        for name, value in certificate.items():
            if name != "subject":
                typer.echo(f"  {name.replace('_', ' '):<12}{', '.join(value) if isinstance(value, list) else value}")
