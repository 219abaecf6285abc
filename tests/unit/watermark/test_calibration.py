"""Profiles of VAEs: measured, kept, found, damaged; and the round trip, on a VAE whose answers are known."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from safegen.calibration import profiles, roundtrip
from safegen.calibration.roundtrip_attacks import attacks
from safegen.calibration.roundtrip_result import RoundTrip
from safegen.errors import ConfigError, WatermarkError
from safegen.settings import Home
from safegen.watermark import fastvae
from safegen.watermark.calibration import calibrate, random_pattern
from safegen.watermark.clip.profile import SHIPPED, Profile, file_name, find, weights_digest
from safegen.watermark.layouts import Layout, strides
from tests import families
from tests.linear_vae import AutoencoderKLHunyuanVideo, Silent, Uneven

pytestmark = pytest.mark.filterwarnings("ignore")
CLEAN, RESIZED, CROPPED = attacks()[0], attacks()[4], attacks()[6]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def linear() -> Any:
    return AutoencoderKLHunyuanVideo().requires_grad_(False)


@pytest.fixture(scope="module")
def linear_profile(linear: Any) -> Profile:
    return calibrate(linear, clips=3)


@pytest.fixture(scope="module")
def wan() -> Any:
    """The real class with tiny random weights, which draw nothing that anybody asked for."""
    return fastvae.prepare(families.build("wan21").pipe.vae)


@pytest.fixture(scope="module")
def wan_profile(wan: Any) -> Profile:
    return calibrate(wan, clips=3, cells=6)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def small(digest: str = "ab" * 32, gain: float = 1.5) -> Profile:
    """A profile of two channels."""
    generator = torch.Generator().manual_seed(1)
    body, first = (torch.randn(2, 48, n, 3, 3, generator=generator) for n in (3, 2))
    preview = torch.randn(3, generator=generator)
    return Profile(digest=digest, body=body, first=first, gain=gain, preview=preview, notes={"clips": 2})


# -- measuring --------------------------------------------------------------------------------------------------------


def test_the_filter_of_a_linear_vae_is_found(linear: Any, linear_profile: Profile) -> None:
    """What the decoder draws is the pattern: all the energy is in it, and nothing goes to other cells or frames."""
    layout = Layout("BCTHW", *strides(linear))
    drawn = random_pattern(np.random.default_rng(5), layout, (4, 12, 16), 2.0)
    assert linear_profile.notes["energy_in_the_pattern"] > 0.99
    # Y, Cb and Cr of levels up to 255 become RGB of 127.5 to one: the centre tap is that matrix for each sample.
    matrix = torch.tensor([[1.0, 0.0, 1.402], [1.0, -0.344136, -0.714136], [1.0, 1.772, 0.0]]) / 127.5
    rgb = torch.einsum("rc,btcyx->btryx", matrix, drawn)
    wanted = nnf.pixel_unshuffle(rgb, 4).transpose(1, 2)
    got = linear_profile.shape_latents(drawn)
    assert got.shape == (1, 48, 4, 12, 16)
    assert float((got - wanted).square().mean() / wanted.square().mean()) < 0.02
    levels = rgb * 127.5
    frames = torch.tensor([1.0, 4, 4, 4])
    rms = float((levels.square().mean(dim=(0, 2, 3, 4)) @ frames / frames.sum()).sqrt())
    assert linear_profile.gain == pytest.approx(rms / 2, rel=0.1)


def test_the_preview_of_a_linear_vae_is_its_luma(linear: Any, linear_profile: Profile) -> None:
    clip = roundtrip.sample_hosts(linear, 1, cells=6, latent_frames=3, seed=9)
    shown = torch.einsum("bcthw,c->bthw", clip, linear_profile.preview[:-1]) + linear_profile.preview[-1]
    with torch.no_grad():
        video = (fastvae.decode(linear, clip).clamp(-1, 1) + 1) * 127.5
    luma = torch.einsum("c,bcthw->bthw", torch.tensor([0.299, 0.587, 0.114]), video)
    cells = nnf.avg_pool2d(luma, 4)[:, [0, 1, 5]]  # the frames of a latent frame are all alike
    assert torch.allclose(shown, cells, atol=2)


def test_a_louder_decoder_needs_smaller_latents(linear_profile: Profile) -> None:
    loud = calibrate(AutoencoderKLHunyuanVideo(4.0).requires_grad_(False), clips=3)
    assert torch.allclose(loud.body, linear_profile.body / 4, atol=1e-5)
    assert loud.gain == pytest.approx(linear_profile.gain, rel=1e-3)
    assert loud.digest != linear_profile.digest


@pytest.mark.slow
def test_a_real_vae_is_measured_with_progress_to_the_end(wan: Any) -> None:
    seen: list[tuple[int, int]] = []
    profile = calibrate(wan, clips=2, cells=4, refine=2, progress=lambda done, total: seen.append((done, total)))
    assert profile.body.shape == (16, 48, 3, 3, 3)
    assert profile.first.shape == (16, 48, 2, 3, 3)
    assert torch.isfinite(profile.body).all()
    assert profile.gain > 0
    assert 0 <= profile.notes["energy_in_the_pattern"] <= 1
    assert profile.notes["refine_steps"] == 2
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1]


@pytest.mark.slow
def test_refining_mends_what_the_encoder_does_not_tell() -> None:
    fitted, refined = (calibrate(Uneven(0.25).requires_grad_(False), clips=3, refine=n) for n in (0, 80))
    assert fitted.digest == refined.digest
    shares = [p.notes["energy_in_the_pattern"] for p in (fitted, refined)]
    assert shares[0] < 0.9
    assert shares[1] > shares[0] + 0.005


@pytest.mark.slow
def test_measuring_twice_gives_the_same(wan: Any, wan_profile: Profile) -> None:
    again = calibrate(wan, clips=3, cells=6)
    assert torch.equal(again.body, wan_profile.body)
    assert again.gain == wan_profile.gain


@pytest.mark.slow
def test_unknown_families_and_silent_decoders_are_refused(wan: Any) -> None:
    with pytest.raises(WatermarkError, match="family") as caught:
        calibrate(torch.nn.Linear(2, 2))
    assert "pixel" in caught.value.remedy
    with pytest.raises(WatermarkError, match="draw"):
        calibrate(Silent().requires_grad_(False), clips=2)


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_profile_comes_back_from_its_file(tmp_path: Path) -> None:
    profile = small()
    profile.save(tmp_path / "p.safetensors")
    again = Profile.load(tmp_path / "p.safetensors")
    assert (again.digest, again.gain, again.notes) == (profile.digest, profile.gain, profile.notes)
    assert torch.equal(again.body, profile.body.half().float())
    assert torch.equal(again.first, profile.first.half().float())
    assert torch.equal(again.preview, profile.preview)


def _metadata(**changes: Any) -> dict[str, str]:
    about = {"format": "safegen-vae-profile-1", "digest": "ab" * 32, "gain": 1.0, "notes": {}} | changes
    return {"profile": json.dumps(about)}


def _tensors(**changes: Tensor) -> dict[str, Tensor]:
    sound = {"body": torch.zeros(2, 48, 3, 3, 3), "first": torch.zeros(2, 48, 2, 3, 3), "preview": torch.zeros(3)}
    return sound | changes


DAMAGED: dict[str, Any] = {
    "empty": b"",
    "text": b"this is no profile",
    "cut": None,
    "without_metadata": (_tensors(), None),
    "metadata_no_json": (_tensors(), {"profile": "{"}),
    "metadata_no_object": (_tensors(), {"profile": "[]"}),
    "another_format": (_tensors(), _metadata(format="safegen-vae-profile-0")),
    "gain_no_number": (_tensors(), _metadata(gain="loud")),
    "notes_no_object": (_tensors(), _metadata(notes=7)),
    "one_tensor_missing": ({"body": torch.zeros(2, 48, 3, 3, 3)}, _metadata()),
    "preview_of_another_vae": (_tensors(preview=torch.zeros(17)), _metadata()),
    "wrong_shape": (_tensors(first=torch.zeros(3, 48, 2, 3, 3)), _metadata()),
    "not_finite": (_tensors(body=torch.full((2, 48, 3, 3, 3), torch.nan)), _metadata()),
}


@pytest.fixture(params=list(DAMAGED))
def damaged(request: pytest.FixtureRequest, home: Home) -> Path:
    """A damaged profile where the home would look for the one of VAE abab..."""
    path = profiles.store(small(), home)
    content = DAMAGED[request.param]
    if content is None:
        path.write_bytes(path.read_bytes()[:1000])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save_file(content[0], path, metadata=content[1])
    return path


def test_damaged_files_say_so_and_what_to_do(damaged: Path, home: Home) -> None:
    with pytest.raises(WatermarkError, match="damaged") as caught:
        Profile.load(damaged)
    assert "safegen watermark calibrate" in caught.value.remedy
    with pytest.raises(WatermarkError, match="damaged"):
        find("ab" * 32, profiles.folder(home))
    listed = [k for k in profiles.known(home) if not k.shipped]
    assert [k.path for k in listed] == [damaged]
    assert listed[0].profile is None
    assert "damaged" in str(listed[0].to_json()["damage"])


def test_another_vaes_profile_under_the_name_is_not_taken(home: Home) -> None:
    """The name holds only the beginning of the digest."""
    path = profiles.store(small("ab" * 32), home)
    assert find("ab" * 32, path.parent) is not None
    assert find("ab" * 8 + "cd" * 24, path.parent) is None
    small("cd" * 32).save(path)
    assert find("ab" * 32, path.parent) is None


def test_a_vaes_digest_follows_its_weights_alone() -> None:
    vae, same = (families.build("wan21").pipe.vae for _ in range(2))
    before = weights_digest(vae)
    assert weights_digest(same) == before
    assert weights_digest(fastvae.prepare(vae)) == before  # another memory layout, the same values
    with torch.no_grad():
        next(vae.parameters()).mul_(1.001)
    assert weights_digest(vae) != before


# -- in the home ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_measured_once_then_read_from_the_home(wan: Any, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from safegen.watermark import calibration

    calls: list[int] = []

    def quick(vae: Any, **options: Any) -> Profile:
        calls.append(1)
        return calibrate(vae, clips=2, cells=4, **options)

    monkeypatch.setattr(calibration, "calibrate", quick)
    first = profiles.profile_for(wan, home)
    second = profiles.profile_for(wan, home)
    assert calls == [1]
    assert second.digest == first.digest == weights_digest(wan)
    assert torch.equal(second.body, first.body.half().float())
    assert [k.shipped for k in profiles.known(home)].count(False) == 1


def test_the_embedded_models_profile_comes_along(home: Home) -> None:
    import safegen

    vae = fastvae.load_vae(Path(safegen.__file__).parent / "tinymodel" / "pipe")
    profile = profiles.profile_for(vae, home)
    assert profile.digest == weights_digest(vae)
    assert not home.root.exists()
    assert any(k.shipped and k.profile and k.profile.digest == profile.digest for k in profiles.known(home))


def test_a_full_disk_leaves_the_old_profile(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    path = profiles.store(small(gain=1.0), home)
    before = path.read_bytes()

    def half(self: Profile, path: Path) -> None:
        path.write_bytes(before[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Profile, "save", half)
    with pytest.raises(ConfigError, match="No space left"):
        profiles.store(small(gain=2.0), home)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_readers_see_whole_profiles_while_others_write(home: Home) -> None:
    path = profiles.store(small(gain=1.0), home)
    writers = [
        threading.Thread(target=lambda: [profiles.store(small(gain=g), home) for g in (1.0, 2.0, 3.0)])
        for _ in range(3)
    ]
    for writer in writers:
        writer.start()
    gains = set()
    while any(writer.is_alive() for writer in writers):
        gains.add(Profile.load(path).gain)
    for writer in writers:
        writer.join()
    assert gains <= {1.0, 2.0, 3.0}
    assert [p.name for p in path.parent.iterdir()] == [file_name("ab" * 32)]


def test_a_home_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(ConfigError, match="Cannot write"):
        profiles.store(small(), Home(tmp_path / "home"))


# -- the round trip ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def linear_trip(linear: Any, linear_profile: Profile) -> RoundTrip:
    hosts = roundtrip.sample_hosts(linear, 2, cells=12, latent_frames=4)
    return roundtrip.measure(linear, linear_profile, hosts, tried=(CLEAN, RESIZED, CROPPED))


def test_a_lossless_linear_vae_gives_back_all(linear_trip: RoundTrip) -> None:
    rows = {(r.group, r.name): r for r in linear_trip.rows}
    mark = rows["mark", "the mark's own pattern"]
    assert mark.drawn == pytest.approx(1, abs=0.05)
    assert mark.share > 0.98
    for row in rows.values():
        assert row.latents["clean"] == pytest.approx(1, abs=0.05), row.name
    for row in (r for r in rows.values() if r.group == "band"):
        assert row.canvas["clean"] == pytest.approx(row.drawn, abs=0.1), row.name
    assert linear_trip.natural["clean"]["gain"] == pytest.approx(1, abs=0.02)
    assert linear_trip.natural["clean"]["kept"] > 0.98
    assert all(gain == pytest.approx(1, abs=0.02) for gain in linear_trip.linearity.values())
    assert all(share > 0.9 for share in linear_trip.invariance.values())


def test_attacks_take_what_they_should(linear_trip: RoundTrip) -> None:
    """Half the size costs white changes of the pixels; cropping moves latents but not what an aligned reader sees."""
    rows = {(r.group, r.name): r for r in linear_trip.rows}
    low = rows["band", "Y 3-8 changing"]
    assert low.canvas["crop 0.9"] == pytest.approx(low.canvas["clean"], abs=0.15)
    assert low.latents["crop 0.9"] < 0.9 * low.latents["clean"]
    assert rows["band", "Y 26-36 changing"].latents["resize 0.5"] < low.latents["resize 0.5"]


def test_the_result_is_told_as_json_and_as_a_table(linear_trip: RoundTrip) -> None:
    told = json.loads(json.dumps(linear_trip.to_json()))
    assert told["clips"] == 2
    assert {r["name"] for r in told["rows"]} == {r.name for r in linear_trip.rows}
    lines = linear_trip.to_markdown().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + len(linear_trip.rows) + 1
    assert len({line.count("|") for line in table}) == 1
    assert "crop 0.9" in table[0]


@pytest.mark.slow
def test_a_real_vaes_round_trip_is_finite(wan: Any, wan_profile: Profile) -> None:
    hosts = roundtrip.sample_hosts(wan, 1, cells=4, latent_frames=3)
    seen: list[tuple[int, int]] = []
    found = roundtrip.measure(
        wan, wan_profile, hosts, tried=attacks()[:2], progress=lambda done, total: seen.append((done, total))
    )
    numbers = [x for r in found.rows for x in (r.drawn, r.share, r.psnr, *r.canvas.values(), *r.latents.values())]
    numbers += [*found.linearity.values(), *(x for f in found.natural.values() for x in f.values())]
    assert numbers
    assert all(torch.isfinite(torch.tensor(numbers)))
    assert all(0 <= r.share <= 1 + 1e-6 for r in found.rows)
    assert set(found.natural) == {"clean", "H.264 23"}
    assert found.invariance == {}  # too small a picture for impulses
    assert seen[-1][0] == seen[-1][1]


@pytest.mark.parametrize("shape", [(16, 3, 4, 4), (1, 8, 3, 4, 4), (0, 16, 3, 4, 4)])
def test_hosts_that_are_no_latents_are_refused(wan: Any, wan_profile: Profile, shape: tuple[int, ...]) -> None:
    with pytest.raises(WatermarkError, match="do not fit"):
        roundtrip.measure(wan, wan_profile, torch.zeros(shape))


def shipped() -> Profile:
    return Profile.load(next(SHIPPED.glob("*.safetensors")))


def test_a_vae_that_begins_loud_draws_all_frames_alike() -> None:
    """Causal VAEs draw the first latent frames louder, which showed as a flash."""
    profile = replace(shipped(), frame_gains=(0.9, 1.5, 1.0))
    assert profile.even(5).tolist() == pytest.approx([1 / 0.9, 1 / 1.5, 1, 1, 1])
    assert profile.even(2).tolist() == pytest.approx([1 / 0.9, 1 / 1.5])
    assert len(shipped().frame_gains) == 4
    assert shipped().frame_gains[1] > 1.1


def test_a_profile_keeps_its_frame_gains_and_older_files_have_none(tmp_path: Path) -> None:
    profile = replace(shipped(), frame_gains=(1.25, 0.5))
    profile.save(tmp_path / "p.safetensors")
    assert Profile.load(tmp_path / "p.safetensors").frame_gains == (1.25, 0.5)
    with safe_open(tmp_path / "p.safetensors", "pt") as file:
        about = json.loads(file.metadata()["profile"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del about["frame_gains"]
    save_file(tensors, tmp_path / "old.safetensors", metadata={"profile": json.dumps(about)})
    assert Profile.load(tmp_path / "old.safetensors").frame_gains == (1.0,)
    about["frame_gains"] = [1.0, -2.0]
    save_file(tensors, tmp_path / "bad.safetensors", metadata={"profile": json.dumps(about)})
    with pytest.raises(WatermarkError, match="damaged"):
        Profile.load(tmp_path / "bad.safetensors")
