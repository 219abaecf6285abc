"""Every entrance through the real path: what comes beside the prompt is judged, sealed or refused, and recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import safegen
from safegen.errors import BlockedError
from safegen.generators import load, resolve
from safegen.ledger import Ledger
from safegen.media import probe, read_clip
from safegen.policies.engine.engine import FRAME_CLASSIFIERS
from safegen.policies.text.lexicon import Lexicon
from safegen.settings import Home
from tests.e2e.conftest import PROMPT, SMALL
from tests.e2e.test_consent import assertions
from tests.e2e.test_protect import CALL
from tests.unit.policies.test_frames import Says


@pytest.fixture(scope="module")
def pipe() -> Any:
    return load(resolve("tiny"))


@pytest.fixture(scope="module")
def forbidden() -> str:
    lists = Lexicon.load().lists
    return f"{lists['making'][0]} a {lists['weapon_products'][2]} at home"


def last(home: Home) -> Any:
    with Ledger.open(home.ledger_url, create=False, read_only=True) as ledger:
        *_, entry = ledger.entries()
    return entry


class Wide:
    """A pipeline that also takes what other families take, and would draw from it."""

    def __init__(self, pipe: Any, enhanced: Any = None) -> None:
        self._pipe = pipe
        self._enhanced = enhanced
        self.seen: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipe, name)

    def enhance_prompt(self, prompt: str) -> Any:
        return prompt if self._enhanced is None else self._enhanced

    def __call__(
        self, prompt: Any = None, negative_prompt: Any = None, height: int = 192, width: int = 192,
        num_frames: int = 13, num_inference_steps: int = 2, guidance_scale: float = 3.0, max_sequence_length: int = 64,
        prompt_2: Any = None, system_prompt: Any = None, ip_adapter_image: Any = None, control_video: Any = None,
        mask: Any = None, latents: Any = None, id_cond: Any = None, prompt_embeds: Any = None,
        negative_prompt_embeds: Any = None, image_embeds: Any = None, attention_kwargs: Any = None, **kept: Any,
    ) -> Any:  # fmt: skip
        self.seen.append(prompt)
        text = prompt if prompt is None else self.enhance_prompt(prompt)
        return self._pipe(
            prompt=text, negative_prompt=negative_prompt, height=height, width=width, num_frames=num_frames,
            num_inference_steps=num_inference_steps, guidance_scale=guidance_scale, prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds, max_sequence_length=max_sequence_length, **kept,
        )  # fmt: skip


REFUSED: dict[str, tuple[Any, str]] = {
    "prompt_embeds": (torch.zeros(1, 64, 256), "embeddings_without_text"),
    "negative_prompt_embeds": (torch.zeros(1, 64, 256), "embeddings_without_text"),
    "image_embeds": (torch.zeros(1, 4, 16), "embeddings_without_text"),
    "latents": (torch.zeros(1, 4, 4, 4, 4), "not_judgeable"),
    "id_cond": (torch.zeros(4), "not_judgeable"),
    "control_video": (np.zeros((3, 8, 8, 3), np.float32), "not_judgeable"),
    "attention_kwargs": ({"ip_adapter_masks": torch.zeros(4)}, "not_judgeable"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_nobody_can_judge_is_refused_and_recorded(pipe: Any, fresh_home: Home, tmp_path: Path, name: str) -> None:
    value, category = REFUSED[name]
    wide = Wide(pipe)
    with pytest.raises(BlockedError) as caught:
        safegen.protect(wide, home=fresh_home)(PROMPT, output=tmp_path / "clip.mp4", **{name: value}, **CALL)
    (reason,) = [r for r in caught.value.decision.reasons if r.action.stops]
    assert (reason.category, reason.source.partition(".")[0]) == (category, name)
    assert (last(fresh_home).kind, last(fresh_home).event.action) == ("blocked", "block")
    assert wide.seen == []


@pytest.mark.parametrize("name", ["prompt_2", "system_prompt"])
def test_a_text_beside_the_prompt_is_judged(
    pipe: Any, fresh_home: Home, tmp_path: Path, forbidden: str, name: str
) -> None:
    with pytest.raises(BlockedError) as caught:
        safegen.protect(Wide(pipe), home=fresh_home)(
            PROMPT, output=tmp_path / "clip.mp4", **{name: f"{PROMPT}, {forbidden}"}, **CALL
        )
    assert name in {r.source for r in caught.value.decision.reasons if r.action.stops}


@pytest.mark.parametrize("name", ["ip_adapter_image", "control_video", "mask"])
def test_a_picture_beside_the_prompt_is_judged(
    pipe: Any, fresh_home: Home, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FRAME_CLASSIFIERS, "nudenet", Says)  # type: ignore[misc, index]
    exposed = Image.new("RGB", (24, 24), (255, 0, 0))
    value = [exposed] * 3 if name == "control_video" else exposed
    with pytest.raises(BlockedError) as caught:
        safegen.protect(Wide(pipe), home=fresh_home)(PROMPT, output=tmp_path / "clip.mp4", **{name: value}, **CALL)
    assert name in {r.source for r in caught.value.decision.reasons if r.action.stops}
    (said,) = last(fresh_home).body["entrances"]
    assert (said["name"], said["kind"], len(said["sha256"])) == (name, "pictures", 64)


def test_harmless_entrances_are_judged_and_on_record(pipe: Any, fresh_home: Home, tmp_path: Path) -> None:
    sky = Image.fromarray(np.tile(np.linspace(90, 200, 64, dtype=np.uint8), (64, 1))).convert("RGB")
    wide = Wide(pipe, enhanced=f"{PROMPT}, warm light")
    made = safegen.protect(wide, home=fresh_home)(
        PROMPT, output=tmp_path / "clip.mp4", prompt_2="a sunny meadow", ip_adapter_image=sky, seed=2, **CALL
    )
    assert set(made.decision.sources) == {"prompt", "prompt_2", "ip_adapter_image"}
    body = last(fresh_home).body
    assert [e["name"] for e in body["entrances"]] == ["prompt_2", "ip_adapter_image"]
    assert "meadow" not in last(fresh_home).leaf
    assert safegen.verify(made.output, home=fresh_home).verdict == "verified"
    assert "enhance_prompt" not in vars(wide)  # the wrapper is gone


@pytest.mark.parametrize("kind", ["forbidden", "list", "no_text"])
def test_an_enhanced_prompt_is_judged_too(
    pipe: Any, fresh_home: Home, tmp_path: Path, forbidden: str, kind: str
) -> None:
    made = {"forbidden": f"{PROMPT}, {forbidden}", "list": [PROMPT, f"{PROMPT}, {forbidden}"], "no_text": 3}[kind]
    with pytest.raises(BlockedError, match="enhancer") as caught:
        safegen.protect(Wide(pipe, made), home=fresh_home)(PROMPT, output=tmp_path / "clip.mp4", **CALL)
    assert "enhanced_prompt" in {r.source for r in caught.value.decision.reasons if r.action.stops}
    assert last(fresh_home).body["stage"] == "enhanced"
    assert not (tmp_path / "clip.mp4").exists()


def test_sealed_embeddings_draw_a_clip(pipe: Any, fresh_home: Home, tmp_path: Path) -> None:
    made = safegen.embed(pipe, PROMPT, home=fresh_home, max_sequence_length=64)
    safe = safegen.protect(pipe, home=fresh_home)
    with pytest.raises(BlockedError):
        safe(f"{PROMPT} today", output=tmp_path / "a.mp4", embeddings_token=made.token, **made.tensors, **CALL)
    drawn = safe(PROMPT, output=tmp_path / "b.mp4", embeddings_token=made.token, seed=3, **made.tensors, **CALL)
    assert safegen.verify(drawn.output, home=fresh_home).verdict == "verified"
    assert {e["name"] for e in last(fresh_home).body["entrances"]} == set(made.tensors)


class ShowsAtTheEnd(Says):
    """Says that the last sampled frame of a clip and the one before it are exposed, as long as they look as they did.

    A stand-in: nothing that NudeNet would say this of is in these tests.
    """

    def __init__(self) -> None:
        self.shown: list[bytes] = []
        self.calls = 0

    def score(self, frames: Any) -> Any:
        self.calls += 1
        if self.calls <= 2:  # the samples, then the neighbours of the one that hit
            self.shown.append(frames[-1].tobytes())
        scores = np.zeros((len(frames), len(self.classes)), np.float32)
        scores[:, self.classes.index("BUTTOCKS_EXPOSED")] = [float(f.tobytes() in self.shown) for f in frames]
        return scores


@pytest.mark.parametrize("remedy", ["pixelate", "drop"])
def test_a_span_is_taken_out_and_the_mark_still_reads(
    fresh_home: Home, tmp_path: Path, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = tmp_path / "pack.yaml"
    pack.write_text(
        "schema: safegen.policy/1\nid: mending\nversion: '1'\ndescription: x\nextends: default\n"
        f"frames: {{remedies: {{sexual: {remedy}}}}}\n"
    )
    monkeypatch.setitem(FRAME_CLASSIFIERS, "nudenet", ShowsAtTheEnd)  # type: ignore[misc, index]
    made = safegen.generate(PROMPT, output=tmp_path / "clip.mp4", policy=pack, home=fresh_home, seed=7, **SMALL)
    (span,) = made.frames_decision.spans
    assert (span.remedy, span.start_s, span.end_s) == (remedy, 0.562, 0.812)
    assert made.frames_decision.action == "flag"
    frames = read_clip(made.output).frames
    assert len(frames) == (13 if remedy == "pixelate" else 9)
    assert frames[-1].std() > 5, "never black"
    assert probe(made.output).frames == len(frames)
    actions = next(a["data"]["actions"] for a in assertions(made.output) if a["label"].startswith("c2pa.actions"))
    assert [a["action"] for a in actions if "moderation" in a.get("description", "")] == ["c2pa.edited"]
    verdict = safegen.verify(made.output, home=fresh_home)
    assert (verdict.verdict, verdict.content_id) == ("verified", made.content_id)


class OutOfOrder(Says):
    """A frame classifier that fails."""

    def score(self, frames: Any) -> Any:
        raise RuntimeError("out of order")


def test_what_was_not_checked_is_on_record_as_such(
    fresh_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = tmp_path / "first.png"
    Image.new("RGB", (64, 64), (90, 120, 200)).save(picture)
    monkeypatch.setitem(FRAME_CLASSIFIERS, "nudenet", OutOfOrder)  # type: ignore[misc, index]
    for given, stage, key in (({"image": picture}, "request", "decision"), ({}, "frames", "frames_decision")):
        with pytest.raises(BlockedError):
            safegen.generate(PROMPT, output=tmp_path / "clip.mp4", seed=7, home=fresh_home, **given, **SMALL)
        body = last(fresh_home).body
        assert body["stage"] == stage
        assert {c["name"]: c["status"] for c in body[key]["classifiers"]}["nudenet"] == "failed"
        assert "frames_not_judged" in {r["category"] for r in body[key]["reasons"]}
    assert not (tmp_path / "clip.mp4").exists()
