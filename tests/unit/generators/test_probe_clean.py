"""The clean latents that a denoiser's output means: by hand-worked numbers, diffusers' own, whole pipelines."""

from __future__ import annotations

import math
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from safegen.errors import GeneratorError
from safegen.generators.clean import SCHEDULERS, schedule
from safegen.generators.observing import Observer
from safegen.watermark.layouts import Layout, call_shape
from tests.families import STEPS, build

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("exact")]


def scheduler(name: str, steps: int = 6, **config: Any) -> Any:
    made = getattr(diffusers, name)(**config)
    made.set_timesteps(steps)
    return made


# One timestep whose alpha squared is 0.64, so alpha = 0.8 and sigma = 0.6; x = 1 and m = 0.5.
WORKED = [
    ("DDIMScheduler", "epsilon", (1 - 0.6 * 0.5) / 0.8),
    ("DDIMScheduler", "v_prediction", 0.8 - 0.6 * 0.5),
    ("DDIMScheduler", "sample", 0.5),
    ("EulerDiscreteScheduler", "epsilon", 1 - 0.75 * 0.5),
    ("EulerDiscreteScheduler", "v_prediction", 0.64 - 0.6 * 0.5),
]


@pytest.mark.parametrize(("name", "kind", "clean"), WORKED)
def test_one_step_worked_by_hand(name: str, kind: str, clean: float) -> None:
    made = scheduler(name, 1, num_train_timesteps=1, trained_betas=[0.36], prediction_type=kind)
    (step,) = schedule(made)
    assert step.on_sample * 1 + step.on_output * 0.5 == pytest.approx(clean, abs=1e-6)
    assert step.level == pytest.approx(0.6, abs=1e-6)


def test_flow_worked_by_hand() -> None:
    made = diffusers.FlowMatchEulerDiscreteScheduler()
    made.set_timesteps(sigmas=[1.0, 0.6])
    assert schedule(made)[1].on_sample + schedule(made)[1].on_output * 0.5 == pytest.approx(1 - 0.6 * 0.5)
    made = diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True)  # x = 0.4 x0 + 0.6 n, m = x0 - n
    made.set_timesteps(sigmas=[1.0, 0.6])
    assert schedule(made)[1].on_sample + schedule(made)[1].on_output * 0.5 == pytest.approx(1 + 0.6 * 0.5)
    assert schedule(made)[1].level == pytest.approx(0.6)


def own_answer(made: Any, output: Tensor, sample: Tensor, at: int) -> Tensor:
    """What diffusers itself takes the clean sample for, at step ``at``."""
    if hasattr(made, "convert_model_output"):
        made._step_index = at
        return made.convert_model_output(output, sample=sample)  # type: ignore[no-any-return]
    time = made.timesteps[at]
    if type(made).__name__ == "CogVideoXDPMScheduler":
        return made.step(output, None, time, None, sample, return_dict=False)[1]  # type: ignore[no-any-return]
    return made.step(output, time, sample).pred_original_sample  # type: ignore[no-any-return]


PREDICTING = [
    (name, config)
    for name in SCHEDULERS
    if name not in ("FlowMatchEulerDiscreteScheduler", "LCMScheduler")
    for config in (
        {"prediction_type": "epsilon"},
        {"prediction_type": "v_prediction"},
        {"prediction_type": "flow_prediction", "use_flow_sigmas": True},
    )
    if "use_flow_sigmas" not in config or name in ("UniPCMultistepScheduler", "DPMSolverMultistepScheduler")
]


@pytest.mark.parametrize(("name", "config"), PREDICTING, ids=lambda v: v if isinstance(v, str) else str(v)[20:33])
def test_diffusers_itself_takes_the_same_for_clean(name: str, config: dict[str, Any]) -> None:
    clips = {"clip_sample": False} if name in ("DDIMScheduler", "DDPMScheduler", "CogVideoXDDIMScheduler") else {}
    made = scheduler(name, **config, **clips)
    generator = torch.Generator().manual_seed(0)
    output, sample = torch.randn(2, 2, 3, 4, 4, generator=generator)
    for at, step in enumerate(schedule(made)):
        fresh = scheduler(name, **config, **clips)
        fresh._step_index = at
        expected = own_answer(fresh, output, sample, at)
        torch.testing.assert_close(step.on_sample * sample + step.on_output * output, expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("inverted", [False, True])
def test_a_straight_flow_ends_where_each_of_its_steps_said(inverted: bool) -> None:
    made = scheduler("FlowMatchEulerDiscreteScheduler", shift=3.0, invert_sigmas=inverted)
    clean, x = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    velocity = clean - x if inverted else x - clean
    for step, time in zip(schedule(made), made.timesteps, strict=True):
        torch.testing.assert_close(step.on_sample * x + step.on_output * velocity, clean)
        x = made.step(velocity, time, x).prev_sample
    torch.testing.assert_close(x, clean)


def test_noise_levels_fall_and_lie_between_0_and_1() -> None:
    for name in SCHEDULERS:
        levels = [s.level for s in schedule(scheduler(name))]
        assert levels == sorted(levels, reverse=True), name
        assert all(0 <= v <= 1 for v in levels), name


def test_a_scheduler_that_is_not_understood_is_refused() -> None:
    with pytest.raises(GeneratorError, match="PNDMScheduler"):
        schedule(scheduler("PNDMScheduler"))
    with pytest.raises(GeneratorError, match="original_sample"):
        schedule(scheduler("EulerDiscreteScheduler", prediction_type="original_sample"))


class Last(Observer):
    """Keeps what the last step is taken for."""

    found: Tensor

    def saw_step(self, step: int) -> None:
        if step == STEPS:
            self.found = self.clean(step)


FAMILIES = (
    "wan21", "wan22", "ltx", "ltx_condition", "cogvideox", "cogvideox15", "hunyuan", "mochi", "svd", "animatediff",
    "flux", "sd3", "sdxl",
)  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_step_of_every_family_predicts_what_it_ends_with(family: str) -> None:
    """Two clips at once and guidance on: without noise left, the prediction and the final latents are one."""
    case = build(family)
    if "clip_sample" in case.pipe.scheduler.config:  # for pixels between -1 and 1; no latent model clips its own
        case.pipe.scheduler.register_to_config(clip_sample=False)
    watch = Last(case.pipe, call_shape(case.pipe, case.call), ["latents"])
    final = []

    def on_step_end(_pipe: Any, step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        watch.on_step_end(step)
        final.append(tensors["latents"].clone())
        return tensors

    own = type(case.pipe.scheduler)
    with watch.attached(), torch.no_grad():
        case.pipe(**case.call, output_type="latent", callback_on_step_end=on_step_end)
    assert type(case.pipe.scheduler) is own
    unified = Layout.of(case.pipe.vae, final[-1], call_shape(case.pipe, case.call)).unify(final[-1])
    clips = 1 if family == "ltx_condition" else 2
    assert tuple(watch.found.shape) == (clips, *case.latents)
    assert math.isfinite(float(watch.found.sum()))
    torch.testing.assert_close(watch.found, unified.float(), rtol=1e-3, atol=1e-3)
