"""Watches the texts that a pipeline writes for itself: what its enhancer makes of a prompt is judged before it counts.

Some pipelines rewrite the prompt with a language model of their own before they encode it. What comes out is another
text than the one that was judged. Every such method is wrapped for the length of a run, and so is ``encode_prompt``,
through which all texts pass: a text that nobody judged is judged there, whoever wrote it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

ENHANCERS: Final = ("enhance_prompt", "upsample_prompt", "expand_prompts", "_enhance_prompt_with_pe")
"""The methods of diffusers 0.42 that return a prompt in place of the given one: LTX-2, Flux 2, Kandinsky 6, ERNIE."""

Judge = Callable[[list[str] | None], None]
"""Judges texts, raising BlockedError where one is stopped; None where what came out is no text."""


@contextmanager
def watch_texts(pipe: Any, judge: Judge) -> Iterator[None]:
    """Have ``judge`` see what the pipeline's enhancers write and what is encoded, while the block runs."""
    before = dict(vars(pipe))
    wrapped = {name: _writes(getattr(pipe, name), judge) for name in ENHANCERS if callable(getattr(pipe, name, None))}
    if callable(getattr(pipe, "encode_prompt", None)):
        wrapped["encode_prompt"] = _reads(pipe.encode_prompt, judge)
    try:
        for name, method in wrapped.items():
            setattr(pipe, name, method)
        yield
    finally:
        for name in wrapped:
            if name in before:
                setattr(pipe, name, before[name])
            else:
                vars(pipe).pop(name, None)


def _writes(method: Callable[..., Any], judge: Judge) -> Callable[..., Any]:
    def judged(*args: Any, **kwargs: Any) -> Any:
        made = method(*args, **kwargs)
        judge(_texts(made))
        return made

    return judged


def _reads(method: Callable[..., Any], judge: Judge) -> Callable[..., Any]:
    signature = inspect.signature(method)

    def judged(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind_partial(*args, **kwargs).arguments
        for name, value in given.items():
            named = name.startswith("prompt") and "embed" not in name and "mask" not in name and "template" not in name
            if named and isinstance(value, str | list | tuple):
                judge(_texts(value))
        return method(*args, **kwargs)

    # diffusers looks at what its own methods accept; the wrapper accepts the same.
    judged.__signature__ = signature  # type: ignore[attr-defined]
    return judged


def _texts(value: Any) -> list[str] | None:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list | tuple) and all(isinstance(text, str) for text in value):
        return list(value)
    return None
