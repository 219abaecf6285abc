"""Probes that look on while real pipelines (small random weights) run: when one is stopped, and that none changes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from safegen.errors import BlockedError, GeneratorError, InputError
from safegen.generators import probing, sample
from safegen.generators.observing import (
    GRID,
    Observer,
    bound_parts,
    latent_features,
    part_digest,
    text_features,
)
from safegen.generators.probing import ProbeWatch, StoppedError
from safegen.generators.training.probe import Labelled, Plan, Recorder, collect, main, read_prompts, record, train
from safegen.policies.pack.loading import load_pack
from safegen.policies.probes.probe_set import LATENTS, TEXT_STATES, AskedProbe, Probe, ProbeSet, ProbeUse
from safegen.types import Action, RunStatus
from safegen.watermark.layouts import call_shape
from tests.families import build
from tests.pipelines import random_cogvideox, random_ltx, random_wan

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("exact")]

PROMPT = "a red ball on grass"
STEPS = 4
NEVER, ALWAYS = -20.0, 20.0


def made(builder: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    pipe = builder()
    pipe.set_progress_bar_config(disable=True)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()  # a text encoder made here would drop values by lot
    return pipe


@pytest.fixture(scope="module")
def wan() -> Any:
    return made(random_wan)


CALLS: dict[str, dict[str, Any]] = {
    "wan": {"height": 32, "width": 48, "num_frames": 9, "max_sequence_length": 16},
    "cogvideox": {"height": 32, "width": 32, "num_frames": 9, "max_sequence_length": 16},
    "ltx": {"height": 32, "width": 64, "num_frames": 9, "max_sequence_length": 16},
}
PIPELINES = {"wan": random_wan, "cogvideox": random_cogvideox, "ltx": random_ltx}
PER_STEP = {"wan": 2, "cogvideox": 1, "ltx": 1}
"""Calls of the denoiser per step, guidance on: Wan asks twice, the others ask once for both halves."""


def call_of(name: str = "wan", steps: int = STEPS) -> dict[str, Any]:
    return CALLS[name] | {"num_inference_steps": steps, "guidance_scale": 3.0}


def count_features(pipe: Any, call: dict[str, Any], part: str) -> int:
    plan = Plan("x", "x", LATENTS if part == "latents" else TEXT_STATES, steps=(1,) if part == "latents" else ())
    return int(record(pipe, call, PROMPT, 0, plan).features[0].shape[1])


def probe_for(pipe: Any, call: dict[str, Any], bias: tuple[float, ...], **changes: Any) -> Probe:
    """A probe for ``pipe`` that gives its answer whatever it sees: a text probe, or with ``steps`` one of latents."""
    steps = tuple(changes.pop("steps", ()))
    part = "latents" if steps else "text_encoder"
    levels = []
    if steps:
        plan = Plan("x", "x", LATENTS, steps=steps)
        levels = record(pipe, call, PROMPT, 0, plan).levels
    features = count_features(pipe, call, part)
    fields: dict[str, Any] = {
        "name": "stand-in",
        "version": "1",
        "source": LATENTS if steps else TEXT_STATES,
        "part": part,
        "category": "stand_in",
        "threshold": 0.8,
        "steps": steps,
        "levels": tuple(levels),
        "binds": {n: part_digest(getattr(pipe, n)) for n in bound_parts(pipe, part)},
        "weight": np.zeros((len(bias), features), np.float32),
        "bias": np.array(bias, np.float32),
    }
    return Probe(**(fields | changes))


def watch_of(pipe: Any, call: dict[str, Any], *probes: Probe, required: bool = False, **policy: Any) -> ProbeWatch:
    held = tuple(AskedProbe(ProbeUse(p.name, required), f"probe:{p.name}", p) for p in probes)
    return ProbeWatch(pipe, ProbeSet(replace(load_pack("default"), **policy), held), call_shape(pipe, call))


@contextlib.contextmanager
def counted(module: Any) -> Iterator[list[int]]:
    calls: list[int] = []
    handle = module.register_forward_hook(lambda *_: calls.append(1))
    yield calls
    handle.remove()


def latents_of(pipe: Any, call: dict[str, Any], watch: ProbeWatch | None) -> list[Tensor]:
    seen: list[Tensor] = []

    def callback(_pipe: Any, _step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append(tensors["latents"].clone())
        return tensors

    sample(pipe, call, prompt=PROMPT, seed=3, callback=callback, probes=watch)
    return seen


# -- stopping ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_a_text_probe_stops_before_the_first_step(name: str) -> None:
    pipe, call = made(PIPELINES[name]), call_of(name)
    with counted(pipe.transformer) as calls, pytest.raises(StoppedError) as stopped:
        sample(pipe, call, prompt=PROMPT, probes=watch_of(pipe, call, probe_for(pipe, call, (ALWAYS,))))
    assert calls == []
    assert (stopped.value.steps_done, stopped.value.decision.action) == (0, Action.BLOCK)
    (reason,) = stopped.value.decision.reasons
    assert (reason.category, reason.source, reason.view) == ("stand_in", TEXT_STATES, "before step 1")


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_a_latent_probe_stops_at_its_step(name: str) -> None:
    pipe, call = made(PIPELINES[name]), call_of(name)
    probe = probe_for(pipe, call, (NEVER, ALWAYS, ALWAYS), steps=(1, 2, 4))
    own = type(pipe.scheduler)
    with counted(pipe.transformer) as calls, pytest.raises(StoppedError) as stopped:
        sample(pipe, call, prompt=PROMPT, probes=watch_of(pipe, call, probe))
    assert len(calls) == 2 * PER_STEP[name]
    assert (stopped.value.steps_done, stopped.value.steps) == (2, STEPS)
    assert [r.detail for r in stopped.value.decision.classifiers] == ["after step 1 of 4", "after step 2 of 4"]
    assert stopped.value.decision.reasons[0].source == LATENTS
    assert type(pipe.scheduler) is own, "nothing stays attached"
    assert not pipe.text_encoder._forward_hooks
    assert isinstance(stopped.value, BlockedError)


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_a_run_that_is_not_stopped_is_the_same_bit_for_bit(name: str) -> None:
    pipe, call = made(PIPELINES[name]), call_of(name)
    watch = watch_of(pipe, call, probe_for(pipe, call, (NEVER,)), probe_for(pipe, call, (NEVER, NEVER), steps=(1, 3)))
    plain, watched = latents_of(pipe, call, None), latents_of(pipe, call, watch)
    assert len(plain) == STEPS
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))
    assert watch.decision.action is Action.ALLOW
    assert [r.status for r in watch.decision.classifiers] == [RunStatus.RAN] * 3
    assert watch.decision.sources == (TEXT_STATES, LATENTS)


def test_a_mild_answer_is_recorded_and_the_run_goes_on(wan: Any) -> None:
    from safegen.policies.pack.loading import Rule

    watch = watch_of(wan, call_of(), probe_for(wan, call_of(), (ALWAYS,)), rules={"stand_in": Rule(flag=0.5)})
    sample(wan, call_of(), prompt=PROMPT, probes=watch)
    assert watch.decision.action is Action.FLAG


def test_a_review_stops_too(wan: Any) -> None:
    from safegen.policies.pack.loading import Rule

    watch = watch_of(wan, call_of(), probe_for(wan, call_of(), (ALWAYS,)), rules={"stand_in": Rule(review=0.5)})
    with pytest.raises(StoppedError) as stopped:
        sample(wan, call_of(), prompt=PROMPT, probes=watch)
    assert stopped.value.decision.action is Action.REVIEW


# -- what is looked at -------------------------------------------------------------------------------------------------


def tells_apart(pipe: Any, call: dict[str, Any], bad: str, good: str) -> Probe:
    """A text probe whose score is high for ``bad`` and low for ``good``."""
    plan = Plan("x", "x", TEXT_STATES)
    high, low = (record(pipe, call, p, 0, plan).features[0][0].numpy() for p in (bad, good))
    way = (high - low) * 20 / ((high - low) ** 2).sum()
    return probe_for(pipe, call, (float(-way @ (high + low) / 2),), weight=way[None].astype(np.float32))


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_the_prompt_is_judged_and_not_the_negative_prompt(name: str) -> None:
    pipe, call = made(PIPELINES[name]), call_of(name)
    bad, good = "a red ball", "grass on grass on grass"
    probe = tells_apart(pipe, call, bad, good)
    sample(pipe, call, prompt=good, negative_prompt=bad, probes=watch_of(pipe, call, probe))
    with pytest.raises(StoppedError):
        sample(pipe, call, prompt=bad, negative_prompt=good, probes=watch_of(pipe, call, probe))


def test_of_several_clips_one_is_enough(wan: Any) -> None:
    bad, good = "a red ball", "grass on grass on grass"
    probe = tells_apart(wan, call_of(), bad, good)
    watch = watch_of(wan, call_of(), probe)
    for prompts in ([good, good], [good, bad]):
        watch = watch_of(wan, call_of(), probe)
        with pytest.raises(StoppedError) if bad in prompts else contextlib.nullcontext(), watch.attached():
            wan(prompt=prompts, output_type="latent", **call_of())


def test_features_of_a_batch_are_those_of_its_clips() -> None:
    """Guidance on and two clips: the unconditioned halves are not part of what is seen."""
    case = build("cogvideox")
    recorder = Recorder(case.pipe, call_shape(case.pipe, case.call), "latents", (1, 2))

    def on_step_end(_pipe: Any, step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        recorder.on_step_end(step)
        return tensors

    with contextlib.suppress(Exception), torch.no_grad(), recorder.attached():
        case.pipe(**case.call, output_type="latent", callback_on_step_end=on_step_end)
    assert [tuple(f.shape) for f in recorder.features] == [(2, 4 * (GRID * GRID + 1))] * 2
    assert not torch.equal(recorder.features[0][0], recorder.features[0][1])


def test_text_features_leave_padding_out() -> None:
    states = torch.tensor([[[1.0, 5.0], [3.0, 1.0], [100.0, 100.0]]])
    found = text_features(states, torch.tensor([[1, 1, 0]]))
    torch.testing.assert_close(found, torch.tensor([[2.0, 3.0, 3.0, 5.0]]))


def test_latent_features_do_not_depend_on_the_clips_size() -> None:
    clip = torch.randn(2, 3, 2, 8, 8)
    large = clip.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
    torch.testing.assert_close(latent_features(clip), latent_features(large))
    assert latent_features(torch.randn(1, 3, 1, 1, 1)).isfinite().all(), "a still of one cell"


def test_another_number_of_steps_is_asked_at_the_same_noise(wan: Any) -> None:
    """Trained after steps 1 and 2 of 4; of 8 steps, the 3rd is the first that is as clean as the 2nd of 4."""
    probe = probe_for(wan, call_of(), (NEVER, NEVER), steps=(1, 2))
    for steps in (8, 2, 1):
        call = call_of(steps=steps)
        watch = watch_of(wan, call, probe)
        sample(wan, call, prompt=PROMPT, probes=watch)
        ran = [r.detail for r in watch.decision.classifiers if r.status is RunStatus.RAN]
        levels = [s.level for s in watch.steps()]
        due = {next((i + 1 for i, v in enumerate(levels) if v <= want + 1e-3), 0) for want in probe.levels} - {0}
        assert ran == [f"after step {i} of {steps}" for i in sorted(due)]


def test_video_to_video_is_asked_at_its_first_step(wan: Any) -> None:
    from diffusers import WanVideoToVideoPipeline

    parts = {n: p for n, p in wan.components.items() if n in ("tokenizer", "text_encoder", "transformer", "vae")}
    pipe = WanVideoToVideoPipeline(**parts, scheduler=wan.scheduler)
    pipe.set_progress_bar_config(disable=True)
    watch = watch_of(pipe, call_of(), probe_for(wan, call_of(), (NEVER, ALWAYS), steps=(1, 2)))
    clip = np.zeros((9, 32, 48, 3), np.uint8)
    with pytest.raises(StoppedError) as stopped:
        sample(pipe, call_of(), prompt=PROMPT, video=clip, strength=0.5, probes=watch)
    assert (stopped.value.steps_done, stopped.value.steps) == (1, 2)


class Reads(TorchDispatchMode):
    """Counts how often a number is read back from the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_one_number_is_read_back_where_a_probe_is_due_and_none_elsewhere(wan: Any) -> None:
    watch = watch_of(wan, call_of(), probe_for(wan, call_of(), (NEVER,), steps=(3,)))
    reads = []

    def between(observer: Observer, step: int) -> None:
        with Reads() as seen:
            ProbeWatch.on_step_end(observer, step)  # type: ignore[arg-type]
        reads.append(seen.count)

    watch.on_step_end = between.__get__(watch)  # type: ignore[method-assign]
    sample(wan, call_of(), prompt=PROMPT, probes=watch)
    assert reads == [0, 0, 1, 0]


# -- what does not fit, or fails ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [TEXT_STATES, LATENTS])
def test_a_probe_for_another_model_is_not_asked(wan: Any, source: str) -> None:
    torch.manual_seed(1)
    other = random_wan()
    probe = probe_for(other, call_of(), (ALWAYS,), **({"steps": (1,)} if source == LATENTS else {}))
    watch = watch_of(wan, call_of(), probe)
    sample(wan, call_of(), prompt=PROMPT, probes=watch)
    (run,) = watch.decision.classifiers
    assert (run.status, watch.decision.action) == (RunStatus.NOT_RUN, Action.ALLOW)
    assert "another model" in run.detail
    with pytest.raises(StoppedError, match="before its first step") as stopped:
        watch_of(wan, call_of(), probe, required=True)
    assert [r.category for r in stopped.value.decision.reasons] == ["classifier_missing"]


def test_a_probe_for_a_model_of_other_parts_is_not_asked(wan: Any) -> None:
    probe = probe_for(wan, call_of(), (ALWAYS,), steps=(1,))
    with pytest.raises(StoppedError):
        watch_of(wan, call_of(), replace(probe, binds={"vae": probe.binds["vae"]}), required=True)


def test_a_digest_tells_weights_apart_and_not_their_precision(wan: Any) -> None:
    first = part_digest(wan.vae)
    torch.manual_seed(0)
    same = random_wan().vae
    assert part_digest(same) == first
    assert part_digest(same.to(torch.bfloat16)) == first
    assert part_digest(wan.transformer) != first
    with torch.no_grad():
        next(same.parameters()).add_(0.1)
    assert part_digest(same) != first
    with pytest.raises(GeneratorError, match="memory"):
        part_digest(torch.nn.Linear(2, 2, device="meta"))


@pytest.mark.parametrize("on_error", [Action.REVIEW, Action.BLOCK])
@pytest.mark.parametrize("defect", ["raises", "nan", "too_few"])
def test_a_probe_without_an_answer_fails_closed(
    wan: Any, monkeypatch: pytest.MonkeyPatch, defect: str, on_error: Action
) -> None:
    def raises(_clean: Tensor) -> Tensor:
        raise ZeroDivisionError

    wrong = {
        "raises": raises,
        "nan": lambda clean: latent_features(clean) * torch.nan,
        "too_few": lambda clean: latent_features(clean)[:, 1:],
    }[defect]
    probe = probe_for(wan, call_of(), (NEVER,), steps=(2,))
    monkeypatch.setattr(probing, "latent_features", wrong)
    with counted(wan.transformer) as calls, pytest.raises(StoppedError) as stopped:
        sample(wan, call_of(), prompt=PROMPT, probes=watch_of(wan, call_of(), probe, on_error=on_error))
    assert len(calls) == 4
    assert stopped.value.decision.action is on_error
    assert [r.category for r in stopped.value.decision.reasons] == ["classifier_failed"]
    assert stopped.value.decision.classifiers[0].status is RunStatus.FAILED


def test_a_text_that_was_never_encoded_is_not_judged(wan: Any) -> None:
    """Prompt embeddings go past the text encoder."""
    call = call_of() | {"prompt_embeds": torch.zeros(1, 16, 32), "negative_prompt_embeds": torch.zeros(1, 16, 32)}
    text, latents = probe_for(wan, call_of(), (NEVER,)), probe_for(wan, call_of(), (NEVER,), steps=(1,))
    watch = watch_of(wan, call, text, latents)
    with watch.attached(), torch.no_grad():
        wan(output_type="latent", callback_on_step_end=lambda _p, i, _t, k: (watch.on_step_end(i), k)[1], **call)
    assert [r.status for r in watch.decision.classifiers] == [RunStatus.NOT_RUN, RunStatus.RAN]
    watch = watch_of(wan, call, text, required=True)
    with counted(wan.transformer) as calls, pytest.raises(StoppedError), watch.attached(), torch.no_grad():
        wan(output_type="latent", callback_on_step_end=lambda _p, i, _t, k: (watch.on_step_end(i), k)[1], **call)
    assert len(calls) == 2


def test_a_scheduler_that_is_not_understood_cannot_be_asked_about(wan: Any) -> None:
    from diffusers import DEISMultistepScheduler

    pipe = made(random_wan)
    probe = probe_for(pipe, call_of(), (NEVER,), steps=(2,))
    pipe.scheduler = DEISMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    watch = watch_of(pipe, call_of(), probe)
    sample(pipe, call_of(), prompt=PROMPT, probes=watch)
    assert "DEIS" in watch.decision.classifiers[0].detail
    with pytest.raises(StoppedError) as stopped:
        sample(pipe, call_of(), prompt=PROMPT, probes=watch_of(pipe, call_of(), probe, required=True))
    assert stopped.value.steps_done == 1


def test_a_run_that_never_comes_to_a_required_probe_is_stopped_in_the_end(wan: Any) -> None:
    probe = probe_for(wan, call_of(steps=8), (NEVER,), steps=(8,))
    with pytest.raises(StoppedError) as stopped:
        sample(wan, call_of(steps=1), prompt=PROMPT, probes=watch_of(wan, call_of(steps=1), probe, required=True))
    assert "noise level" in stopped.value.decision.classifiers[0].detail


def test_what_a_pipeline_raises_leaves_nothing_attached(wan: Any) -> None:
    watch = watch_of(wan, call_of(), probe_for(wan, call_of(), (NEVER,), steps=(1,)))
    own = type(wan.scheduler)
    with pytest.raises(GeneratorError):
        sample(wan, call_of() | {"max_sequence_length": -1}, prompt=PROMPT, probes=watch)
    assert type(wan.scheduler) is own


def test_a_copy_of_the_scheduler_steps_itself(wan: Any) -> None:
    """Pipelines with sound copy their scheduler in the middle of a run."""
    import copy

    watch = watch_of(wan, call_of(), probe_for(wan, call_of(), (NEVER,), steps=(1,)))
    wan.scheduler.set_timesteps(3)
    with watch.attached():
        mine = copy.deepcopy(wan.scheduler)
        mine.step(torch.zeros(1), mine.timesteps[0], torch.ones(1))
        assert (mine.step_index, wan.scheduler.step_index) == (1, None)
        assert watch._seen is None


# -- training ----------------------------------------------------------------------------------------------------------


def rows_of(count: int) -> list[Labelled]:
    colours = ("red", "grass")
    return [Labelled(f"a {colours[i % 2]} ball on {'a ' * (i // 2 % 5)}{i}", i % 2 == 0) for i in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize("source", [TEXT_STATES, LATENTS])
def test_a_trained_probe_fits_its_model_alone(wan: Any, tmp_path: Path, source: str) -> None:
    rows = rows_of(80)
    call = call_of(steps=2)
    plan = Plan("stand-in", "stand_in", source, steps=(1, 2) if source == LATENTS else (), held_out=0.4)
    features, levels = collect(wan, call, rows, plan)
    probe, report = train(wan, features, levels, rows, plan)
    assert report["held_out"]["prompts"] + report["training"]["prompts"] == len(rows)  # type: ignore[index,call-overload]
    again = Probe.load(probe.save(tmp_path, report))
    watch = watch_of(wan, call, again)
    with contextlib.suppress(StoppedError):
        sample(wan, call, prompt=rows[0].prompt, seed=0, probes=watch)
    (first, *_) = watch.decision.classifiers
    assert first.status is RunStatus.RAN
    # What the watch computes on the way is what training computed.
    expected = [probe.scores(features[0, row : row + 1], row)[0] for row in range(len(watch.decision.classifiers))]
    assert watch.decision.scores["stand_in"] == pytest.approx(max(expected), abs=1e-4)


def test_too_few_prompts_are_refused(wan: Any) -> None:
    rows = rows_of(20)
    features = np.zeros((20, 1, 3), np.float32)
    with pytest.raises(InputError, match="too few"):
        train(wan, features, (), rows, Plan("x", "x", TEXT_STATES))


def test_an_encoder_that_is_not_there_is_refused(wan: Any) -> None:
    with pytest.raises(InputError, match="text_encoder_9"):
        collect(wan, call_of(), rows_of(2), Plan("x", "x", TEXT_STATES, part="text_encoder_9"))


@pytest.mark.parametrize(
    "line",
    ["nonsense", "[]", '{"prompt": "x"}', '{"prompt": 3, "label": 1}', '{"prompt": " ", "label": 1}',
     '{"prompt": "x", "label": 2}', '{"prompt": "x", "label": "1"}'],
)  # fmt: skip
def test_a_malformed_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "fine", "label": 0}\n' + line + "\n")
    with pytest.raises(InputError, match="line 2"):
        read_prompts(path)


@pytest.mark.parametrize("body", [b"", b"\xff\xfe"])
def test_a_file_without_prompts_is_refused(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(body)
    with pytest.raises(InputError):
        read_prompts(path)


def test_without_scikit_learn_nothing_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    shared = ["--prompts", str(tmp_path / "none"), "--source", LATENTS, "--category", "stand_in", "--name", "x"]
    assert main(shared) == 4
    assert "safegen[train]" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_line_trains_for_the_embedded_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safegen.tinymodel.training.world import captions

    prompts = tmp_path / "prompts.jsonl"
    dark = ("night", "moon", "stars", "dusk", "sunset", "evening", "golden hour", "sun sets")
    lines = [{"prompt": p, "label": int(any(w in p for w in dark))} for p in captions(160, 3)]
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    shared = ["--prompts", str(prompts), "--source", TEXT_STATES, "--category", "stand_in", "--output", str(tmp_path)]
    assert main([*shared, "--name", "dark"]) == 0
    printed = json.loads(capsys.readouterr().out)
    probe = Probe.load(tmp_path / "probe-dark.safetensors")
    assert set(probe.binds) == {"text_encoder"}
    assert printed["held_out"]["auroc"] > 0.9
    assert main([*shared, "--name", "No Name"]) == 2
    assert "lower-case" in capsys.readouterr().err
    assert main([*shared, "--name", "x", "--false-stops", "0.7"]) == 2
