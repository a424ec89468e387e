"""The tests' Hub as fixtures: `hub` for processes that a test starts, `hub_here` for this one."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub.server import Hub


@pytest.fixture
def hub() -> Iterator[Hub]:
    """An empty Hub. `hub.environment(folder)` is what a process needs to use it."""
    made = Hub()
    yield made
    made.stop()


@pytest.fixture
def hub_here(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A Hub that this process uses, with an empty cache in `tmp_path / "huggingface"`."""
    use_here(hub, tmp_path / "huggingface", monkeypatch)
    return hub


def use_here(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch, token: str | None = None
) -> None:
    """Lets the libraries of this process, and processes that it starts, use this Hub and cache.

    The libraries have read their settings when they were imported, so each copy is replaced.
    """
    import datasets.config
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.utils import _http, close_session

    from kdsweep.core.hub import client, snapshots

    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HF_DATASETS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in hub.settings(cache).items():
        monkeypatch.setenv(name, value)
    if token is None:
        monkeypatch.delenv("HF_TOKEN", raising=False)
    else:
        monkeypatch.setenv("HF_TOKEN", token)
    for name, value in {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_URL_HOSTS": constants.HF_URL_HOSTS | {"127.0.0.1"},
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": hub.content.xet is None,
        "HF_HOME": str(cache),
        "HF_HUB_CACHE": str(cache / "hub"),
        "HUGGINGFACE_HUB_CACHE": str(cache / "hub"),
        "HF_ASSETS_CACHE": str(cache / "assets"),
        "HF_TOKEN_PATH": str(cache / "token"),
        "HF_STORED_TOKENS_PATH": str(cache / "stored_tokens"),
        "AGENT_HARNESSES_PATH": str(cache / ".agent_harnesses.json"),
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.url)
    monkeypatch.setattr(_http, "_HUB_ORIGINS", _http._HUB_ORIGINS | {_http._url_origin(hub.url)})
    for name, value in {
        "HF_ENDPOINT": hub.url,
        "HUB_DATASETS_URL": hub.url + "/datasets/{repo_id}/resolve/{revision}/{path}",
        "HF_HUB_OFFLINE": False,
        "HF_DATASETS_OFFLINE": False,
        "HF_CACHE_HOME": str(cache),
        "HF_DATASETS_CACHE": cache / "datasets",
        "DOWNLOADED_DATASETS_PATH": str(cache / "datasets" / "downloads"),
        "HF_MODULES_CACHE": cache / "modules",
    }.items():
        monkeypatch.setattr(datasets.config, name, value)
    # What kdsweep knows of another Hub.
    monkeypatch.setattr(snapshots, "_SCOPE", snapshots._Scope())
    monkeypatch.setattr(client, "_PATIENCE", client._Patience())
    # A client keeps connections and file systems keep listings.
    close_session()
    huggingface_hub.HfFileSystem.clear_instance_cache()


def make_certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1 and localhost with its key in one file, signed by itself."""
    from ipaddress import IPv4Address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a Hub for tests")])
    names = [x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    file = folder / "certificate.pem"
    file.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return file
