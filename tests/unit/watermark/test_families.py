"""Every diffusers family that the in-latent mark reaches: the layout of its latents, and its VAE in their units.

The pipelines are real and run their own loop; only their weights are small and random.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from safegen.errors import WatermarkError
from safegen.watermark import fastvae
from safegen.watermark.layouts import FAMILIES, ClipShape, Layout, call_shape, reaches
from tests import families
from tests.families import BUILDERS, STEPS, Case
from tests.quick import quick

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("exact")]
NAMES = tuple(BUILDERS)
MIXED = ("wan21", "ltx", "cogvideox", "mochi", "svd")
"""One of each layout and stride."""


@dataclass
class Hook:
    """A callback that puts other latents in the last step's place and keeps what went by."""

    shape: ClipShape
    layout: Layout | None = None
    seen: list[Tensor] = field(default_factory=list)
    given: Tensor | None = None

    def __call__(self, pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        latents = tensors["latents"]
        self.seen.append(latents.clone())
        if step + 1 < STEPS:
            return tensors
        self.layout = Layout.of(pipe.vae, latents, self.shape)
        noise = torch.randn(self.layout.unify(latents).shape, generator=torch.Generator().manual_seed(2))
        self.given = self.layout.restore(noise, latents)
        return {"latents": self.given}


@dataclass
class Run:
    """One call of a family's pipeline."""

    case: Case
    shape: ClipShape
    layout: Layout
    final: Tensor  # the last latents, before the hook
    given: Tensor  # what the hook put in their place
    output: Tensor


def run(case: Case, output_type: str = "pt") -> Run:
    hook = Hook(call_shape(case.pipe, case.call))
    output = case.pipe(
        **case.call,
        output_type=output_type,
        callback_on_step_end=hook,
        callback_on_step_end_tensor_inputs=["latents"],
    )
    assert len(hook.seen) == STEPS
    assert hook.layout is not None
    assert hook.given is not None
    made = output.frames if hasattr(output, "frames") else output.images
    return Run(case, hook.shape, hook.layout, hook.seen[-1], hook.given, made)


@pytest.fixture(scope="module", params=quick(NAMES, *MIXED))
def ran(request: pytest.FixtureRequest) -> Run:
    torch.set_num_threads(1)
    return run(families.build(request.param))


def decode(vae: Any, latents: Tensor) -> Tensor:
    with torch.no_grad():
        return fastvae.decode(vae, latents)


# --- in the real loop ---


@pytest.mark.slow
def test_unified_latents_have_the_shape_that_the_decoded_clip_implies(ran: Run) -> None:
    unified = ran.layout.unify(ran.final)
    assert reaches(ran.case.pipe.vae)
    assert (ran.shape.frames, ran.shape.height, ran.shape.width) == ran.case.clip
    assert tuple(unified.shape) == (len(ran.final), *ran.case.latents)
    assert ran.layout.cell == ran.case.cell
    _, _, frames, rows, columns = unified.shape
    images = ran.output if ran.output.ndim == 5 else ran.output.unsqueeze(1)  # [B, T, 3, H, W]
    assert images.shape[1] == ran.layout.spans(frames)[-1][1]
    assert tuple(images.shape[3:]) == (rows * ran.layout.cell, columns * ran.layout.cell)


def test_restoring_is_the_exact_inverse(ran: Run) -> None:
    unified = ran.layout.unify(ran.final)
    assert torch.equal(ran.layout.restore(unified, ran.final), ran.final)
    other = torch.randn_like(unified)
    assert torch.equal(ran.layout.unify(ran.layout.restore(other, ran.final)), other)
    with pytest.raises(WatermarkError, match="take the place"):
        ran.layout.restore(unified[..., :-1], ran.final)


def test_pipeline_goes_on_with_the_hooks_latents_and_decodes_them_as_we_do(ran: Run) -> None:
    """The output equals our decode of what the hook gave: right order, right normalisation, right VAE arguments."""
    made = (decode(ran.case.pipe.vae, ran.layout.unify(ran.given)) + 1) / 2
    images = ran.output if ran.output.ndim == 5 else ran.output.unsqueeze(1)
    assert torch.allclose(made.clamp(0, 1).transpose(1, 2), images, atol=1e-4)
    without = (decode(ran.case.pipe.vae, ran.layout.unify(ran.final)) + 1) / 2
    assert not torch.allclose(without.clamp(0, 1).transpose(1, 2), images, atol=1e-2)


def test_encode_is_in_the_units_that_decode_takes(ran: Run) -> None:
    """What diffusers' own VAE does between raw latents, ``fastvae`` does between normalised ones."""
    vae = ran.case.pipe.vae
    video = decode(vae, torch.randn(1, *ran.case.latents)).clamp(-1, 1)
    with torch.no_grad():
        back = fastvae.encode(vae, video)
        if type(vae).__name__ in ("AutoencoderKL", "AutoencoderKLTemporalDecoder"):
            raw = vae.encode(video[0].transpose(0, 1)).latent_dist.mode().transpose(0, 1)[None]
            options = {"num_frames": raw.shape[2]} if "Temporal" in type(vae).__name__ else {}
            again = vae.decode(raw[0].transpose(0, 1), **options).sample.transpose(0, 1)[None]
        else:
            raw = vae.encode(video).latent_dist.mode()
            timestep = [torch.zeros(1)] if vae.config.get("timestep_conditioning") else []
            again = vae.decode(raw, *timestep).sample
    assert tuple(back.shape) == (1, *ran.case.latents)
    # Wan's own decode clips, the whole-clip pass does not.
    assert torch.allclose(decode(vae, back).clamp(-1, 1), again.clamp(-1, 1), atol=1e-4)
    mean, std = fastvae.latent_stats(vae)
    assert torch.allclose(back * std + mean, raw, atol=1e-4)


@pytest.mark.parametrize("name", quick(NAMES, *MIXED))
def test_bfloat16_latents_come_back_exactly_and_reach_the_output(name: str) -> None:
    case = families.build(name, torch.bfloat16)
    ran = run(case, "pt" if name == "ltx_condition" else "latent")  # that one decodes a slice of what it is given
    assert torch.equal(ran.layout.restore(ran.layout.unify(ran.final), ran.final), ran.final)
    assert ran.given.dtype == ran.final.dtype
    if name != "ltx_condition":
        assert torch.equal(ran.output, ran.given)
    video = decode(case.pipe.vae, ran.layout.unify(ran.given))
    assert video.shape[2] == case.clip[0]
    assert torch.isfinite(video).all()


# --- where a change shows ---


def local(vae: Any, causal: bool) -> Any:
    """Leave each convolution of the decoder the tap of its own place and time alone, and attention nothing.

    Random weights look around as far as they can; what is left moves a change only as up-sampling does.
    """
    with torch.no_grad():
        for name, module in vae.decoder.named_modules():
            if isinstance(module, (torch.nn.Conv2d, torch.nn.Conv3d)) and max(module.kernel_size) > 1:
                own = [size // 2 for size in module.kernel_size]
                if isinstance(module, torch.nn.Conv3d) and causal:
                    own[0] = module.kernel_size[0] - 1
                mask = torch.zeros(module.kernel_size)
                mask[tuple(own)] = 1
                module.weight.mul_(mask)
            elif name.endswith(("to_out.0", "attentions.0.proj")):
                module.weight.zero_()
    return vae


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_change_of_one_latent_cell_shows_where_the_layout_says(name: str) -> None:
    case = families.build(name)
    ran = run(case, "latent") if name != "ltx_condition" else run(case)
    vae, layout = local(case.pipe.vae, case.causal), ran.layout
    channels, frames, rows, columns = case.latents
    spans = layout.spans(frames)
    assert [a for a, _ in spans] == [0, *(b for _, b in spans[:-1])]  # without gap or overlap
    generator = torch.Generator().manual_seed(3)
    base = torch.randn(6, *case.latents, generator=generator)
    before = decode(vae, base)
    cells = itertools.cycle([(1, 0), (rows - 2, columns - 1), (0, 1)])
    for frame, (row, column) in zip(range(frames), cells, strict=False):
        # The change goes in through the pipeline's own order, clip by clip, as an embedder's would.
        unified = base.clone()
        unified[:, :, frame, row, column] += torch.randn(6, channels, generator=generator)
        like = ran.final[:1].expand(6, *ran.final.shape[1:])
        energy = (decode(vae, layout.unify(layout.restore(unified, like))) - before).square().mean((0, 1))  # [T, H, W]
        start, stop = spans[frame]
        in_time = energy.mean((1, 2))
        assert in_time[start:stop].sum() > 0.5 * in_time.sum()
        assert start == 0 or in_time[start] > 2 * in_time[start - 1]
        assert stop == len(in_time) or in_time[stop - 1] > 2 * in_time[stop]
        in_space = energy.sum(0).reshape(rows, layout.cell, columns, layout.cell).mean((1, 3))
        assert divmod(int(in_space.argmax()), columns) == (row, column)


def test_spans_follow_each_familys_stride() -> None:
    def spans(order: str, stride: int, frames: int, paired: bool = False) -> list[tuple[int, int]]:
        return Layout(order, 8, stride, paired).spans(frames)

    assert spans("BCTHW", 4, 3) == [(0, 1), (1, 5), (5, 9)]
    assert spans("BLC", 8, 3) == [(0, 1), (1, 9), (9, 17)]
    assert spans("BCTHW", 6, 2) == [(0, 1), (1, 7)]
    assert spans("BTCHW", 4, 3, paired=True) == [(0, 1), (1, 5), (5, 9)]
    assert spans("BTCHW", 4, 2, paired=True) == [(0, 4), (4, 8)]
    assert spans("BCHW", 1, 1) == [(0, 1)]
    assert spans("BTCHW", 1, 3) == [(0, 1), (1, 2), (2, 3)]


# --- ways of running ---


def test_second_transformer_of_wan22_takes_the_last_step() -> None:
    case = families.build("wan22")
    calls: list[str] = []
    for name in ("transformer", "transformer_2"):
        getattr(case.pipe, name).register_forward_hook(lambda *_, name=name: calls.append(name))
    made = run(case, "latent")
    assert calls == ["transformer"] * 2 + ["transformer_2"] * 2  # with and without the prompt
    assert torch.equal(made.output, made.given)


def test_hook_of_an_earlier_step_steers_the_loop() -> None:
    case = families.build("wan21")
    plain = run(case)
    case.call["generator"] = torch.Generator().manual_seed(1)
    seen: list[Tensor] = []

    def hook(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        layout = Layout.of(pipe.vae, tensors["latents"])
        seen.append(tensors["latents"].clone())
        return {"latents": layout.restore(layout.unify(tensors["latents"]) + (step == 0), tensors["latents"])}

    case.pipe(**case.call, output_type="latent", callback_on_step_end=hook)
    assert not torch.allclose(seen[-1], plain.final, atol=0.1)


@pytest.mark.parametrize("name", ["wan22", "flux"])
def test_offloaded_pipeline_runs_the_same(name: str) -> None:
    plain = run(families.build(name))
    case = families.build(name)
    try:
        case.pipe.enable_model_cpu_offload(device="cpu")
    except (ImportError, RuntimeError, ValueError) as error:
        pytest.skip(f"this machine cannot offload: {error}")
    offloaded = run(case)
    assert case.pipe._all_hooks
    assert torch.allclose(offloaded.output, plain.output, atol=1e-5)


@pytest.mark.slow
def test_compiled_transformer_and_vae_run_the_same() -> None:
    plain = run(families.build("wan21"))
    case = families.build("wan21")
    case.pipe.transformer = torch.compile(case.pipe.transformer, backend="aot_eager")
    compiled = run(case)
    assert torch.allclose(compiled.output, plain.output, atol=1e-4)
    wrapped = torch.compile(case.pipe.vae, backend="eager")
    assert reaches(wrapped)
    assert Layout.of(wrapped, compiled.final) == compiled.layout
    assert torch.allclose(
        decode(wrapped, compiled.final[:, :, :1]), decode(case.pipe.vae, compiled.final[:, :, :1]), atol=1e-5
    )


# --- shapes of calls, and refusals ---


@pytest.mark.parametrize("name", NAMES)
def test_call_that_leaves_its_size_out_gets_the_pipelines_own(name: str) -> None:
    case = families.build(name)
    left = {k: v for k, v in case.call.items() if k not in ("height", "width", "num_frames")}
    shape = call_shape(case.pipe, left)
    wanted = {
        "wan": (81, 480, 832),
        "ltx": (161, 512, 704),
        "cog": (9, 48, 32),
        "hun": (129, 720, 1280),
        "moc": (19, 480, 848),
        "svd": (25, 576, 1024),
        "ani": (16, 48, 48),
        "flu": (1, 1024, 1024),
        "sd3": (1, 48, 48),
        "sdx": (1, 48, 48),
    }[name[:3]]
    assert (shape.frames, shape.height, shape.width) == wanted


def test_pipeline_that_says_no_size_is_refused() -> None:
    class Pipe:
        def __call__(self, height: int | None = None, num_frames: int | None = None) -> None: ...

    with pytest.raises(WatermarkError, match="frames"):
        call_shape(Pipe(), {"height": 64, "width": 64})
    with pytest.raises(WatermarkError, match="width"):
        call_shape(Pipe(), {"height": 64, "num_frames": 9})


def test_unknown_vae_and_latents_that_do_not_fit_are_refused() -> None:
    class Other:
        config: dict[str, Any] = {}  # noqa: RUF012

    assert not reaches(Other())
    with pytest.raises(WatermarkError, match="does not know Other"):
        Layout.of(Other(), torch.zeros(1, 4, 4, 4))
    assert len(FAMILIES) == 7
    wan, flux = families.build("wan21").pipe.vae, families.build("flux").pipe.vae
    cog, ltx = families.build("cogvideox15").pipe.vae, families.build("ltx").pipe.vae
    clip = ClipShape(9, 64, 64)
    for vae, shape in (
        (wan, (1, 144, 64)),
        (wan, (1, 7, 48, 12, 12)),
        (wan, (48,)),
        (wan, (1, 16, 8, 8)),
        (flux, (1, 6, 12)),
        (flux, (1, 6, 1)),
        (cog, (1, 2, 4, 8, 8)),  # fewer frames than the call asks for
        (cog, (1, 4, 3, 8, 8)),
    ):
        with pytest.raises(WatermarkError, match="fit no layout"):
            Layout.of(vae, torch.zeros(shape), clip)
    with pytest.raises(WatermarkError, match="height and width"):
        Layout.of(flux, torch.zeros(1, 16, 16))
    for vae, tokens, width in ((flux, 15, 16), (flux, 32, 16), (ltx, 7, 8), (ltx, 9, 8)):
        with pytest.raises(WatermarkError, match="packed tokens fit no layout"):
            Layout.of(vae, torch.zeros(1, tokens, width), clip)


def test_packing_is_the_pipelines_own() -> None:
    from diffusers import FluxPipeline, LTXPipeline

    ltx, flux = families.build("ltx").pipe.vae, families.build("flux").pipe.vae
    video, image = torch.randn(2, 8, 3, 2, 4), torch.randn(2, 4, 6, 4)
    packed = LTXPipeline._pack_latents(video)
    assert torch.equal(Layout.of(ltx, packed, ClipShape(17, 64, 128)).unify(packed), video)
    packed = FluxPipeline._pack_latents(image, 2, 4, 6, 4)
    layout = Layout.of(flux, packed, ClipShape(1, 63, 32))  # the pipeline rounds 63 down to 48
    assert torch.equal(layout.unify(packed)[:, :, 0], image)
    with pytest.raises(WatermarkError, match="take the place"):
        layout.restore(image[:1, :, None], packed)
