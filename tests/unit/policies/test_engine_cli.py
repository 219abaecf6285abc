"""``safegen policy``, and what a run records of its texts, through the real path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from safegen.cli.app import app
from safegen.errors import GeneratorError
from safegen.keys import KeyStore, check_commitment
from safegen.settings import Home

HEAD = "schema: safegen.policy/1\nid: mine\nversion: '1'\ndescription: Mine.\nextends: default\n"


def run(*arguments: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["policy", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


def told(*arguments: str | Path, code: int = 0) -> Any:
    return json.loads(run(*arguments, "--json", code=code))


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.yaml"
    path.write_text(HEAD + "colour: red\ncategories:\n  sexual: {block: 2}\n", encoding="utf-8")
    return path


def test_lint_names_file_line_and_field(broken: Path) -> None:
    assert run("lint", broken, code=1).splitlines()[:2] == [
        f"{broken}:6: error: colour: no such field",
        f"{broken}:8: error: categories.sexual.block: 2 is greater than the maximum of 1",
    ]
    body = told("lint", broken, code=1)
    assert (body["ok"], [d["line"] for d in body["defects"]]) == (False, [6, 8])
    assert told("lint", "eu") == {"schema": "safegen.policy.lint/1", "file": "eu", "ok": True, "defects": []}
    assert "no policy pack" in told("lint", "no-such", code=2)["error"]["message"]
    broken.write_text("a: [", encoding="utf-8")
    assert "line 1" in told("lint", broken, code=4)["error"]["message"]


def test_broken_pack_is_refused_by_every_verb(broken: Path) -> None:
    for verb in (("show", broken), ("check", "a tree", "--policy", broken), ("test", broken), ("diff", "eu", broken)):
        assert "line 6: colour" in told(*verb, code=4)["error"]["message"]


def test_schema_is_json_schema() -> None:
    assert json.loads(run("schema"))["$schema"].startswith("https://json-schema.org/")


@pytest.mark.slow
def test_own_examples_are_a_regression_suite(tmp_path: Path) -> None:
    assert told("test", "default")["ok"]
    pack = tmp_path / "mine.yaml"
    pack.write_text(HEAD, encoding="utf-8")
    assert "mine.examples.yaml" in told("test", pack, code=2)["error"]["remedy"]
    examples = tmp_path / "mine.examples.yaml"
    examples.write_text(
        "schema: safegen.policy-examples/1\nexamples:\n  - {prompt: a tree, expect: allow}\n"
        "  - {prompt: a house, expect: block}\n",
        encoding="utf-8",
    )
    body = told("test", pack, code=1)
    assert [e["failures"] for e in body["examples"]] == [[], ["allow instead of block"]]
    assert "line 4: allow instead of block: a house" in run("test", pack, code=1)
    assert run("test", "default", "--examples", examples, code=1).endswith("default: 1 of 2 examples as expected\n")


def test_diff_says_what_is_loosened() -> None:
    assert run("diff", "default", "default") == "no difference\n"
    body = told("diff", "strict", "default", "--refuse-loosened", code=1)
    assert body["loosened"]
    assert {
        "field": "defaults.on_unsupported_language",
        "before": "block",
        "after": "review",
        "effect": "loosened",
    } in (body["changes"])
    assert not told("diff", "default", "us")["loosened"]


@pytest.mark.slow
def test_check_judges_pictures_and_negative_prompts(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "grey.png"
    Image.fromarray(np.full((64, 64, 3), 128, np.uint8)).save(path)
    body = told("check", "a tree", "--image", path, "--negative-prompt", "blurry")["decision"]
    assert body["sources"] == ["prompt", "negative_prompt", "image"]
    assert [c["status"] for c in body["classifiers"]] == ["ran"] * len(body["classifiers"])
    path.write_bytes(b"no picture")
    told("check", "a tree", "--image", path, code=2)
    told("check", "--file", "-", "--image", path, code=2)


def test_check_tells_which_guard_did_not_run(tmp_path: Path) -> None:
    pack = tmp_path / "guarded.yaml"
    pack.write_text(
        f"{HEAD}text:\n  classifiers:\n    - {{use: qwen3guard, path: {tmp_path / 'absent'}, required: false}}\n",
        encoding="utf-8",
    )
    assert "qwen3guard did not judge (not_run)" in run("check", "a tree", "--policy", pack)
    assert told("show", pack)["classifiers"][-2]["status"] == "not_run"
    assert told("lint", pack)["ok"]


def test_check_shows_the_rewritten_prompt() -> None:
    out = run("check", "Maria Kowalski walks a dog along the river", "--policy", "rewrite")
    assert "rewritten: a person walks a dog along the river" in out


class Stopping:
    """The embedded model's pipeline, up to where it would begin to draw."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipe, name)

    def __call__(
        self, prompt: str = "", negative_prompt: str = "", height: int = 192, width: int = 192, num_frames: int = 13,
        num_inference_steps: int = 2, **_: Any,
    ) -> Any:  # fmt: skip
        self.asked.append(prompt)
        raise RuntimeError("far enough")


@pytest.mark.parametrize("minors", [False, True])
def test_run_is_drawn_from_the_rewritten_prompt_and_records_both(tmp_path: Path, minors: bool) -> None:
    import safegen
    from safegen.generators import load, resolve
    from safegen.ledger import Ledger
    from safegen.ledger.subjects import Personal

    home = Home(tmp_path / "home")
    keys = KeyStore.init(home)
    pack = tmp_path / "mine.yaml"
    pack.write_text(HEAD.replace("extends: default", "extends: rewrite") + "record_text: clear\n", encoding="utf-8")
    more = " with two children" if minors else ""
    prompt, changed = (f"{who} walks a dog along the river{more}" for who in ("Maria Kowalski", "a person"))
    pipe = Stopping(load(resolve("tiny")))
    with pytest.raises(GeneratorError):
        safegen.protect(pipe, policy=pack, home=home)(
            prompt, output=tmp_path / "out.mp4", negative_prompt="blurry", seed=1, num_frames=13, num_inference_steps=2,
            height=192, width=192,
        )  # fmt: skip
    assert pipe.asked == [changed]
    with Ledger.open(home.ledger_url, key=keys.ledger_key, origin=keys.ledger_name) as ledger:
        *_, entry = ledger.entries()
        kept: dict[str, Any] = Personal(ledger, home).opened(entry)
    body = json.loads(entry.leaf)["body"]
    salts = kept.get("salts", {})
    assert (entry.kind, body["decision"]["action"]) == ("failed", "rewrite")
    texts = body["texts"]
    for source, text in (("prompt", prompt), ("rewritten_prompt", changed), ("negative_prompt", "blurry")):
        salt = {"salt": salts[source]} if salts else {}
        assert check_commitment(text, keys.commitment_key, texts[source]["commitment"] | salt)
        assert kept.get("texts", {}).get(source) == (None if minors else text)
    salt = {"salt": salts["prompt_commitment"]} if salts else {}
    assert check_commitment(prompt, keys.commitment_key, body["prompt_commitment"] | salt)
    assert bool(salts) is not minors
    assert "river" not in entry.leaf
