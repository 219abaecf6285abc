"""The commands of ``safegen ledger`` that give others something to check: checkpoints, proofs, receipts, tiles."""

from __future__ import annotations

import datetime as dt
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safegen.cli.home_ledger import read_ledger
from safegen.cli.serve import listen
from safegen.cli.shell import Bars, JsonFlag, command, counted, print_json
from safegen.errors import EXIT_DONE, EXIT_NOT_VERIFIED, ConfigError, InputError, LedgerError
from safegen.settings import Home
from safegen.types import Json

if TYPE_CHECKING:
    from safegen.keys import KeyStore
    from safegen.ledger import Entry, Ledger, VerifierKey
    from safegen.ledger.witness_http import Cosigned

Witnesses = Annotated[
    list[str] | None, typer.Option("--witness", help='Ask this witness to cosign: "https://w.example VKEY".')
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="File to write; standard output otherwise.")]
EntryName = Annotated[str, typer.Argument(help="An entry's index, or a content id (its `generated` entry).")]


def checkpoint(output: Output = None, witness: Witnesses = None, as_json: JsonFlag = False) -> None:
    """Print the newest signed checkpoint, to be kept where this machine's administrator cannot change it."""
    with command(as_json=as_json), _open() as ledger:
        cosigned = _cosigned(ledger, witness or ())
        if output is not None:
            _write(output, cosigned.note.encode())
        if as_json:
            print_json("ledger.checkpoint/1", asdict(cosigned) | {"output": None if output is None else str(output)})
        elif output is None:
            typer.echo(cosigned.note, nl=False)
        else:
            origin, size, *_ = cosigned.note.splitlines()
            typer.echo(f"Wrote {output}: {counted(int(size), 'entry', 'entries')}, signed by {origin}.")
        _say_missing(cosigned)


def prove(entry: EntryName, output: Output = None, as_json: JsonFlag = False) -> None:
    """Prove that an entry lies under the newest checkpoint: a C2SP tlog-proof, checked offline by `ledger check`."""
    with command(as_json=as_json), _open() as ledger:
        found = _find(ledger, entry)
        proof, written = ledger.prove(found.index), {"output": None if output is None else str(output)}
        if output is not None:
            _write(output, proof.to_text().encode())
        if as_json:
            print_json("ledger.prove/1", {"entry": found.index, "leaf": found.leaf, "proof": proof.to_text()} | written)
        elif output is None:
            typer.echo(proof.to_text(), nl=False)
        else:
            typer.echo(f"Wrote {output}: entry {found.index} of {proof.size}.")


def receipt(
    entry: EntryName,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write (CBOR).")],
    as_json: JsonFlag = False,
) -> None:
    """Write a COSE receipt (RFC 9942) for an entry, signed with the ledger's key."""
    with command(as_json=as_json), _open() as ledger:
        from safegen.keys import KeyStore
        from safegen.ledger.receipt import make_receipt

        found = _find(ledger, entry)
        key = KeyStore.load(Home.default()).ledger_key
        _write(output, make_receipt(ledger.prove(found.index), found.leaf, key, dt.datetime.now(dt.UTC)))
        if as_json:
            print_json("ledger.receipt/1", {"entry": found.index, "leaf": found.leaf, "output": str(output)})
        else:
            typer.echo(f"Wrote {output}: entry {found.index}.")


def check(
    proof: Annotated[Path, typer.Argument(help="A tlog-proof, or a COSE receipt.")],
    leaf: Annotated[Path, typer.Option(help="The entry's leaf: its canonical JSON, byte for byte.")],
    key: Annotated[str, typer.Option(help="The ledger's vkey; by default this home's.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Check somebody's proof or receipt for a leaf, without any ledger. Exit 1 if it does not hold."""
    with command(as_json=as_json):
        from safegen.ledger import VerifierKey

        verifier = VerifierKey.parse(key) if key else _vkey(_keys())
        problem, facts = _check(_read(proof), _read(leaf), verifier)
        if as_json:
            print_json("ledger.check/1", {"holds": not problem, "problem": problem or None, **facts})
        else:
            typer.echo(f"Does not hold: {problem}" if problem else f"Holds: entry {facts['entry']} of {facts['size']}.")
        raise typer.Exit(EXIT_NOT_VERIFIED if problem else EXIT_DONE)


def export_tiles(
    place: Annotated[str, typer.Argument(help="A folder, https:// (written with PUT), or an fsspec URL (s3://...).")],
    every: Annotated[float | None, typer.Option(min=1, help="Go on, once in so many seconds, until Ctrl-C.")] = None,
    witness: Witnesses = None,
    as_json: JsonFlag = False,
) -> None:
    """Publish the ledger as static files (C2SP tlog-tiles): what is new is written, the checkpoint last.

    SAFEGEN_PUBLISH_TOKEN is sent to web servers as bearer token.
    """
    with command(as_json=as_json), _open() as ledger:
        from safegen.ledger.publication import open_place

        target, verifier = open_place(place, os.environ.get("SAFEGEN_PUBLISH_TOKEN", "")), _vkey(_keys())
        while True:
            cosigned = _cosigned(ledger, witness or ())
            with Bars() as bars:
                done = ledger.publish(
                    target, verifier, lambda now, total: bars("publishing", now, total), note=cosigned.note
                )
            assert done is not None  # noqa: S101 - there is a checkpoint
            if as_json:
                print_json(
                    "ledger.export-tiles/1",
                    {**asdict(done), "witnesses": cosigned.witnesses, "missing": cosigned.missing},
                )
            else:
                typer.echo(
                    f"{place} holds {counted(done.size, 'entry', 'entries')}; {counted(done.files, 'file')} written."
                )
                _say_missing(cosigned)
            if every is None:
                return
            time.sleep(every)


witness_app = typer.Typer(help="Be a witness of other ledgers.", no_args_is_help=True)


@witness_app.command("init")
def witness_init(
    folder: Annotated[Path, typer.Argument(help="Where the witness keeps its key and what it has seen.")],
    name: Annotated[str, typer.Option(help="The witness's name, such as witness.example/one.")],
    as_json: JsonFlag = False,
) -> None:
    """Make a witness. Its key is printed: give it to those whose ledgers it will watch."""
    with command(as_json=as_json):
        from safegen.ledger.witness_http import WitnessFolder

        vkey = str(WitnessFolder(folder).init(name))
        print_json("ledger.witness.init/1", {"vkey": vkey}) if as_json else typer.echo(vkey)


@witness_app.command("add")
def witness_add(
    folder: Annotated[Path, typer.Argument(help="A witness's folder.")],
    log: Annotated[str, typer.Argument(help="A ledger's vkey, as `safegen keys show` prints it.")],
    as_json: JsonFlag = False,
) -> None:
    """Let a witness cosign a ledger's checkpoints from now on."""
    with command(as_json=as_json):
        from safegen.ledger import VerifierKey
        from safegen.ledger.witness_http import WitnessFolder

        key = VerifierKey.parse(log)
        WitnessFolder(folder).add_log(key)
        print_json("ledger.witness.add/1", {"origin": key.name}) if as_json else typer.echo(f"Watches {key.name}.")


@witness_app.command("serve")
def witness_serve(
    folder: Annotated[Path, typer.Argument(help="A witness's folder.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free one.")] = 8733,
    as_json: JsonFlag = False,
) -> None:
    """Cosign the checkpoints that are brought (POST /add-checkpoint), until interrupted."""
    with command(as_json=as_json):
        try:
            import uvicorn

            from safegen.ledger.witness_http import WitnessFolder, make_app

            application = make_app(WitnessFolder(folder))
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"safegen ledger witness serve needs {error.name}, which is not installed.",
                remedy='Install the extra: pip install "safegen[server]"',
            ) from error
        with listen(host, port) as listening:
            url = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
            print_json("ledger.witness.serve/1", {"url": url}) if as_json else typer.echo(
                f"Witness at {url}; Ctrl-C ends."
            )
            config = uvicorn.Config(application, log_level="warning", server_header=False, limit_concurrency=64)
            uvicorn.Server(config).run([listening])


def add_to(app: typer.Typer) -> None:
    """Register these commands under ``safegen ledger``."""
    for function in (checkpoint, prove, receipt, check):
        app.command()(function)
    app.command("export-tiles")(export_tiles)
    app.add_typer(witness_app, name="witness")


def _open() -> Ledger:
    from safegen.ledger import Ledger

    return read_ledger(Ledger, Home.default())


def _keys() -> KeyStore:
    from safegen.keys import KeyStore

    return KeyStore.load(Home.default(), purpose="verify")


def _vkey(keys: KeyStore) -> VerifierKey:
    from safegen.ledger import VerifierKey

    return VerifierKey.of(keys.ledger_name, keys.ledger_public_key)


def _cosigned(ledger: Ledger, witnesses: list[str] | tuple[str, ...]) -> Cosigned:
    from safegen.ledger.witness_http import WitnessAddress, gather_cosignatures

    return gather_cosignatures(ledger, [WitnessAddress.parse(text) for text in witnesses])


def _say_missing(cosigned: Cosigned) -> None:
    for name, why in cosigned.missing.items():
        typer.echo(f"Not cosigned by {name}: {why}", err=True)


def named(ledger: Ledger, entry: str) -> list[Entry]:
    """Return the entries that an index or a content id stands for; InputError if the ledger has none.

    16 hex digits are a content id: indices have fewer digits until the ledger has 10^15 entries.
    """
    if entry.isdecimal() and len(entry) < 16:
        found = [ledger.get(int(entry))] if int(entry) < ledger.count() else []
    else:
        found = ledger.find_content(entry)
    if not found:
        raise InputError(f"The ledger has no entry {entry}.", remedy="See `safegen ledger list`.")
    return found


def _find(ledger: Ledger, entry: str) -> Entry:
    found = named(ledger, entry)
    return next((one for one in found if one.kind == "generated"), found[0])


def _check(proof: bytes, leaf: bytes, key: VerifierKey) -> tuple[str, dict[str, Json]]:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from safegen.ledger import InclusionProof, verify_inclusion
    from safegen.ledger.receipt import verify_receipt

    try:
        if proof.startswith(b"c2sp.org/"):
            parsed = InclusionProof.from_text(proof.decode(), leaf)
            facts: dict[str, Json] = {"entry": parsed.index, "size": parsed.size, "leaf_hash": parsed.leaf_hash}
            return ("" if verify_inclusion(parsed, leaf, key) else "the proof does not fit leaf and key"), facts
        claims = verify_receipt(proof, leaf, Ed25519PublicKey.from_public_bytes(key.public))
    except (LedgerError, UnicodeDecodeError) as error:
        return str(error), {}
    if claims.issuer != key.name:
        return f"the receipt is of another ledger: {claims.issuer!r}", {}
    issued = claims.issued_at.isoformat()
    return "", {"entry": claims.index, "size": claims.size, "root": claims.root.hex(), "issued_at": issued}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}.", remedy="Give an existing file.") from error


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error.strerror}.", remedy="Choose another place.") from error
