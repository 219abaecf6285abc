"""``safegen watermark``."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safegen.cli.shell import Bars, JsonFlag, command, counted, print_json
from safegen.errors import EXIT_DONE, EXIT_NOT_VERIFIED, InputError, LedgerError
from safegen.files import Target
from safegen.settings import ISSUED_IDS, Home
from safegen.types import ContentId, Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from safegen.calibration.profiles import Known
    from safegen.calibration.roundtrip_result import RoundTrip
    from safegen.watermark.base import Extraction

app = typer.Typer(help="Read the mark of clips, and measure the VAEs it is written through.", no_args_is_help=True)

BAR = 64
"""Characters of a time map at most; shorter clips have one per frame."""


@app.command()
def calibrate(
    model: Annotated[str, typer.Option(help="tiny (embedded), a diffusers folder, or a hub id.")],
    refine: Annotated[
        int, typer.Option(min=0, max=100_000, help="Steps of refinement through the decoder: minutes, a cleaner mark.")
    ] = 0,
    round_trip: Annotated[
        bool, typer.Option("--round-trip", help="Also measure what decode, attack and encode leave: minutes.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Measure the profile of a model's VAE and keep it in the home, in place of an older one of the same weights."""
    with command(as_json=as_json):
        from safegen.generators import resolve, vae_folder

        folder = vae_folder(resolve(model))  # a wrong name shows before anything heavy is loaded
        import torch

        from safegen.calibration.profiles import describe, store
        from safegen.generators.loading import quiet
        from safegen.watermark import fastvae
        from safegen.watermark.calibration import calibrate as measure_profile

        home, start = Home.default(), time.perf_counter()
        with quiet():
            vae = fastvae.load_vae(folder)
        if torch.cuda.is_available():
            vae.to("cuda")
        with Bars() as bars:
            profile = measure_profile(
                vae, refine=refine, progress=lambda done, total: bars("measuring the VAE", done, total)
            )
            file = store(profile, home)
            seconds = time.perf_counter() - start
            measured: RoundTrip | None = None
            if round_trip:
                from safegen.calibration.roundtrip import measure, sample_hosts

                measured = measure(
                    vae, profile, sample_hosts(vae), progress=lambda done, total: bars("round trip", done, total)
                )
        about: dict[str, Json] = {
            "model": model, "output": str(file), "seconds": round(seconds, 1), **describe(profile),
        }  # fmt: skip
        if as_json:
            print_json(
                "watermark.calibrate/1", about if measured is None else about | {"round_trip": measured.to_json()}
            )
            return
        _print_rows(f"Wrote {file}", _rows(about))
        if measured is not None:
            typer.echo("\n" + measured.to_markdown(), nl=False)


@app.command()
def show(as_json: JsonFlag = False) -> None:
    """List the VAE profiles of this home and those that come with safegen; damaged ones are named."""
    with command(as_json=as_json):
        from safegen.calibration.profiles import known

        found = list(known(Home.default()))
        if as_json:
            print_json("watermark.show/1", {"profiles": [k.to_json() for k in found]})
            return
        for one in found:
            _print_rows(_title(one), _rows(one.to_json()) if one.profile else {})


@app.command()
def read(
    file: Annotated[Path, typer.Argument(help="A video file.")],
    picture: Annotated[
        Path | None, typer.Option(help="Draw where and when the mark was found: a .png to write.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the picture if it exists.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Read the clip mark alone under this home's keys, retired ones too. Exit 1 where it names no clip.

    Says when and where in the clip the mark is. Only `safegen verify` weighs it against credential and ledger.
    """
    with command(as_json=as_json):
        from safegen.keys import KeyStore
        from safegen.media import decode, probe
        from safegen.watermark.clip.extraction import MIN_FRAMES, extract_stream

        home = Home.default()
        target = None if picture is None else Target.check(picture, suffix=".png", force=force)
        info = probe(file, tolerant=True)
        if info.frames < MIN_FRAMES:
            raise InputError(
                f"{file} has {counted(info.frames, 'frame')}; the clip mark needs {MIN_FRAMES} or more.",
                remedy="`safegen verify` reads the mark of stills.",
            )
        stores = (KeyStore.load(home, purpose="verify"), *KeyStore.retired(home))
        keys = list(dict.fromkeys(s.watermark_key for s in stores))
        issued, problem = _issued(home)
        with Bars() as bars:
            frames = _counted(decode(file, tolerant=True), info.frames, bars)
            found = extract_stream(frames, keys, issued=issued)
        if target is not None:
            from safegen.media import encode_png
            from safegen.verification.mark_picture import draw

            encode_png(draw(file, found, home), target.path)
        if as_json:
            drawn = None if target is None else str(target.path)
            print_json(
                "watermark.read/1",
                {"file": str(file), **found.to_json(), "ledger_problem": problem or None, "picture": drawn},
            )
        else:
            _print_reading(file, found, problem)
            if target is not None:
                typer.echo(f"Wrote {target.path}")
        raise typer.Exit(EXIT_NOT_VERIFIED if found.payload is None else EXIT_DONE)


def _issued(home: Home) -> tuple[list[ContentId], str]:
    """The ids that a weak mark can be recognised as, and why there are none where the ledger cannot be read."""
    from safegen.ledger import Ledger

    try:
        with Ledger.open(home.ledger_url, create=False, read_only=True) as ledger:
            return ledger.content_ids(ISSUED_IDS), ""
    except LedgerError as error:
        return [], str(error)


def _counted(frames: Iterable[NDArray[np.uint8]], total: int, bars: Bars) -> Iterator[NDArray[np.uint8]]:
    for done, frame in enumerate(frames, 1):
        yield frame
        bars("reading the mark", done, max(done, total))


def _print_reading(file: Path, found: Extraction, problem: str) -> None:
    from rich.console import Console

    evidence: dict[str, Any] = dict(found.evidence)
    console = Console(soft_wrap=True, highlight=False)
    label, meaning = _outcome(found)
    colour = "yellow" if found.payload is None else "green"
    console.print(f"[bold {colour}]{label}[/]  ", end="")
    console.print(f"{file}: {meaning}", markup=False)
    rows = {
        "p-value": f"{_bound(found)} (statistic {found.statistic:.1f}, needed {found.threshold:.1f})",
        "frames": str(evidence.get("frames", 0)),
    }
    if segments := evidence.get("segments"):
        bar, names = time_map(segments, evidence["frames"])
        rows["time map"] = f"[{bar}]"
        rows |= {f"  {letter}": content_id for letter, content_id in names.items()}
    if corners := evidence.get("corners"):
        rows["corners"] = " ".join(f"({x:.2f}, {y:.2f})" for x, y in corners) + " of the clip, in its short sides"
    if problem:
        rows["ledger"] = f"not compared with the ids issued: {problem}"
    for name, value in rows.items():
        console.print(f"  [dim]{name:<9}[/] ", end="")
        console.print(value, markup=False)


def _bound(found: Extraction) -> str:
    """The p-value's bound, also where it is too small for a float."""
    exponent = found.evidence.get("log10_p")
    small = found.p_value <= 1e-300 and isinstance(exponent, float)
    return f"at most 10^{exponent:.0f}" if small else f"at most {found.p_value:.1e}"


def _outcome(found: Extraction) -> tuple[str, str]:
    """The headline: one word and what it means."""
    if found.payload is None:
        if found.status == "none":
            return "NONE", "no clip mark of this home was found (`safegen verify` looks for every kind)"
        return str(found.status).upper(), "a mark of this home is there, but too damaged to name a clip"
    content_id, among = found.payload.content_id, found.evidence.get("recognised_among")
    if among:
        return "RECOGNISED", f"too weak to decode; of {among} content ids issued {content_id} fits by far best"
    return str(found.status).upper(), f"the mark names content id {content_id}"


def time_map(segments: list[dict[str, Any]], frames: int) -> tuple[str, dict[str, str]]:
    """Draw evidence segments as text: (bar, content id by letter). A dot is a stretch without a mark."""
    ids = dict.fromkeys(s["content_id"] for s in segments if s["content_id"] is not None)
    letters = {content_id: chr(ord("A") + min(n, 25)) for n, content_id in enumerate(ids)}
    width = max(1, min(frames, BAR))
    bar = ["."] * width
    for n in range(width):
        frame = (2 * n + 1) * frames // (2 * width)
        for segment in segments:
            if segment["first"] <= frame <= segment["last"] and segment["content_id"] is not None:
                bar[n] = letters[segment["content_id"]]
    return "".join(bar), {letter: content_id for content_id, letter in letters.items()}


def _title(one: Known) -> str:
    where = "comes with safegen" if one.shipped else "this home's"
    return f"{one.path} ({where})" if one.profile else f"DAMAGED {one.path} ({where}): {one.damage}"


def _rows(about: dict[str, Json]) -> dict[str, str]:
    notes = about["notes"] if isinstance(about["notes"], dict) else {}
    share = notes.get("energy_in_the_pattern")
    rows = {
        "VAE": str(about["digest"]),
        "latent channels": str(about["latent_channels"]),
        "gain": str(about["gain"]),
        "in the pattern": f"{share:.0%} of the energy drawn" if isinstance(share, float) else "not measured",
        "measured on": f"{notes.get('clips', '?')} clip(s), {notes.get('refine_steps', 0)} steps of refinement",
    }
    return rows | ({"time": f"{about['seconds']} s"} if "seconds" in about else {})


def _print_rows(title: str, rows: dict[str, str]) -> None:
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    console.print(title, markup=False)
    for name, value in rows.items():
        console.print(f"  [dim]{name:<16}[/] ", end="")
        console.print(value, markup=False)
