"""A folder for each test file, with keys and a clip in it; and each way of signing."""

from __future__ import annotations

from pathlib import Path

import pytest

from safegen.keys import KeyStore
from safegen.provenance.backends import BACKENDS, Signing
from safegen.provenance.native.cose import ClaimSigner
from safegen.settings import Home
from tests.unit.provenance.provenance_samples import make_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("provenance")


@pytest.fixture(scope="module")
def home(folder: Path) -> Home:
    return Home(folder / "home")


@pytest.fixture(scope="module")
def keys(home: Home) -> KeyStore:
    return KeyStore.init(home)


@pytest.fixture(scope="module")
def clip(folder: Path) -> Path:
    return make_clip(folder / "clip.mp4")


@pytest.fixture(scope="module")
def signer(keys: KeyStore) -> ClaimSigner:
    return ClaimSigner.from_pem(keys.certificate_chain_pem, keys.signing_key)


@pytest.fixture(params=sorted(BACKENDS))
def signing(request: pytest.FixtureRequest) -> Signing:
    return Signing(BACKENDS[request.param])
