"""Loading and sampling any diffusers text-to-video pipeline by one code path; the embedded model is just one folder.

    ref = resolve("tiny")
    call = Card.read(ref).resolve(steps=8)
    frames = sample(load(ref), call, prompt="a red ball on grass", seed=1)

Importing this package imports neither torch nor diffusers; ``load`` and ``sample`` do.
"""

from safegen.generators.card import Card, Geometry, parse_size
from safegen.generators.loading import autocast, load
from safegen.generators.refs import ModelRef, model_facts, resolve, vae_folder
from safegen.generators.sampling import call_defaults, check_call, decode_latents, fit, sample

__all__ = [
    "Card",
    "Geometry",
    "ModelRef",
    "autocast",
    "call_defaults",
    "check_call",
    "decode_latents",
    "fit",
    "load",
    "model_facts",
    "parse_size",
    "resolve",
    "sample",
    "vae_folder",
]
