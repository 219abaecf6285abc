"""The Typer application: every verb of ``safegen`` and its options."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from safegen.cli import audit, cert, consent, keys, ledger, policy, review, trust
from safegen.cli import doctor as doctor_command
from safegen.cli import generate as generate_command
from safegen.cli import recover as recover_command
from safegen.cli import resign as resign_command
from safegen.cli import serve as serve_command
from safegen.cli import verify as verify_command
from safegen.cli import watermark as watermark_commands
from safegen.cli.shell import JsonFlag
from safegen.version import __version__

EXIT_CODES = (
    "Exit codes: 0 done or verified · 1 not verified · 2 usage or bad input · 3 blocked by policy · 4 could not run."
)
NOTICE = "Removing or altering the marks that safegen writes is against the terms that many laws set for AI content."

app = typer.Typer(
    name="safegen",
    help="Provenance and safety for generative video: moderate, mark, sign, record, verify.",
    epilog=f"{EXIT_CODES} {NOTICE}",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(ledger.app, name="ledger")
app.add_typer(audit.app, name="audit")
app.add_typer(policy.app, name="policy")
app.add_typer(consent.app, name="consent")
app.add_typer(review.app, name="review")
app.add_typer(keys.app, name="keys")
app.add_typer(cert.app, name="cert")
app.add_typer(trust.app, name="trust")
app.add_typer(watermark_commands.app, name="watermark")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"safegen {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Provenance and safety for generative video: moderate, mark, sign, record, verify."""


@app.command(epilog=EXIT_CODES)
def generate(
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write: .mp4, or .png for one frame.")],
    prompt: Annotated[str, typer.Argument(help="What the clip shall show; - reads it from standard input.")] = "",
    prompt_file: Annotated[
        Path | None, typer.Option(help="Read the prompt from a file: other users see what a command line says.")
    ] = None,
    negative_prompt: Annotated[str, typer.Option(help="What the clip shall not show.")] = "",
    seed: Annotated[int | None, typer.Option(help="Seed of the initial noise; drawn at random if not given.")] = None,
    frames: Annotated[int | None, typer.Option(help="Number of frames; the model's card decides if not given.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels; the card decides if not given.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps; the card decides if not given.")] = None,
    image: Annotated[Path | None, typer.Option(help="First frame: image-to-video.")] = None,
    video: Annotated[Path | None, typer.Option(help="Source clip: video-to-video.")] = None,
    model: Annotated[str, typer.Option(help="tiny (embedded), a diffusers folder, or a hub id.")] = "tiny",
    policy_pack: Annotated[str, typer.Option("--policy", help="Policy pack: a name or a YAML file.")] = "default",
    label: Annotated[
        list[str] | None, typer.Option(help="Visible label to add to the policy's: eu, cn or in. Can be repeated.")
    ] = None,
    probe: Annotated[
        list[str] | None, typer.Option(help="Probe that may stop the run early: a name or a file. Can be repeated.")
    ] = None,
    consent_record: Annotated[
        list[Path] | None, typer.Option("--consent", help="Consent record of a person depicted. Can be repeated.")
    ] = None,
    project: Annotated[str, typer.Option(help="What the clip is for, where a consent asks.")] = "",
    subject: Annotated[
        str,
        typer.Option(help="For whom it is made, by an account's id, say: they can be shown and erased what is kept."),
    ] = "",
    subject_file: Annotated[Path | None, typer.Option(help="Read the subject from a file.")] = None,
    signer: Annotated[str, typer.Option(help="Signer URI: file:, env:, pkcs11:, awskms:, gcpkms: or callback:.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace the output file if it exists.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Generate a clip: moderated, marked in its latents, signed (C2PA) and recorded in the ledger."""
    generate_command.run(
        prompt=prompt, prompt_file=prompt_file, subject_file=subject_file, output=output,
        negative_prompt=negative_prompt, seed=seed, frames=frames, size=size,
        steps=steps, image=image, video=video, model=model, policy=policy_pack, labels=label or [], probes=probe or [],
        consent=consent_record or [], project=project, subject=subject, force=force, as_json=as_json, signer=signer,
    )  # fmt: skip


@app.command(epilog=f"{EXIT_CODES[:-1]} · 5 with --strict: sound, but of an older version of C2PA.")
def verify(
    files: Annotated[list[Path], typer.Argument(help="Videos and images, or folders of them.")],
    neural: Annotated[bool, typer.Option("--neural/--no-neural", help="Read the mark (needs torch).")] = True,
    forensic: Annotated[
        bool, typer.Option("--forensic", help="Ask the passive detector as well: a hint, on which no verdict rests.")
    ] = False,
    fragment: Annotated[
        list[Path] | None,
        typer.Option(help="A segment that follows FILE as initialisation segment (DASH, CMAF); repeat it in order."),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Ask for a trusted credential and time-stamp, and for all conformance checks."),
    ] = False,
    accept_listed: Annotated[
        bool, typer.Option("--accept-listed", help="With --strict: a signer of a trust list counts as this home does.")
    ] = False,
    crjson: Annotated[
        bool,
        typer.Option("--crjson", help="Print the C2PA validation as crJSON instead: no mark, no ledger, no verdict."),
    ] = False,
    trust_anchors: Annotated[
        Path | None, typer.Option(help="With --crjson: certificates that signers are held against.")
    ] = None,
    tsa_anchors: Annotated[
        Path | None, typer.Option(help="With --crjson: certificates that time-stamps are held against.")
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, help="So many files at a time, each in a process of its own.")
    ] = 1,
    time_limit: Annotated[
        float | None,
        typer.Option(help="Seconds for each file, then inconclusive; 25 if not said, and 2.5 a MB beyond ten."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what can be known of a file: credential, mark, ledger and labels, and one verdict.

    Of several files, or a folder, a line each and a count; the exit code is the highest of theirs.
    """
    if len(files) > 1 and (crjson or fragment):
        raise typer.BadParameter("--crjson and --fragment go with one file.")
    if crjson:
        if strict or accept_listed or fragment:
            raise typer.BadParameter("--crjson reads one whole file and gives no verdict.")
        verify_command.run_crjson(file=files[0], trust_anchors=trust_anchors, tsa_anchors=tsa_anchors)
        return
    if trust_anchors is not None or tsa_anchors is not None:
        raise typer.BadParameter(
            "--trust-anchors and --tsa-anchors go with --crjson; `safegen trust add` is for verdicts."
        )
    if accept_listed and not strict:
        raise typer.BadParameter("--accept-listed goes with --strict.")
    if fragment and strict:
        raise typer.BadParameter("--strict looks at whole files.")
    verify_command.run(
        paths=files, neural=neural, forensic=forensic, fragments=fragment or (), strict=strict,
        accept_listed=accept_listed, jobs=jobs, time_limit=time_limit, as_json=as_json,
    )  # fmt: skip


@app.command(epilog=EXIT_CODES)
def recover(
    file: Annotated[Path, typer.Argument(help="A file whose credential was stripped.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write, of the same format.")],
    sidecar: Annotated[
        bool, typer.Option("--sidecar", help="Leave the media as it is; write the credential beside it, as .c2pa.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Give a stripped file its credential back, found by its mark: as the parent of a new one, signed and recorded."""
    recover_command.run(file=file, output=output, sidecar=sidecar, force=force, as_json=as_json)


@app.command(epilog=EXIT_CODES)
def resign(
    file: Annotated[Path, typer.Argument(help="A file of this home, with its credential.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write, of the same format.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Sign a file of this home again, after a rotation or for a time-stamp: all earlier credentials stay in it."""
    resign_command.run(file=file, output=output, force=force, as_json=as_json)


@app.command(epilog=EXIT_CODES)
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free one.")] = 8732,
    public: Annotated[
        bool, typer.Option("--public", help="Answer everybody on other addresses than this machine's own, tokenless.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Serve the C2PA Soft Binding Resolution API: others find this home's manifests by the marks in its clips."""
    serve_command.run(host=host, port=port, public=public, as_json=as_json)


@app.command(epilog=EXIT_CODES)
def doctor(
    check: Annotated[bool, typer.Option("--check", help="Exit with code 4 where something is not ready.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show what will really run: versions, device, model, keys, ledger, ffmpeg."""
    doctor_command.run(check=check, as_json=as_json)


def main() -> None:
    """Entry point of the ``safegen`` script.

    Leaves by ``os._exit`` once everything is printed: a process that has imported torch spends over a second on taking
    the interpreter apart, and nothing of ours waits for that. What must be durable was fsynced long before.
    """
    code: object = 0
    try:
        app(prog_name="safegen")
    except SystemExit as done:
        code = done.code
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # the reader of a pipe has gone: nothing is left to say
            stream.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)
