"""What builds get of the host's way to the network, and what they do not."""

import os
from pathlib import Path

import pytest

from sandboxes.access import CA_BUNDLES, MOUNTED, BuildAccess
from sandboxes.protocol import Limits


@pytest.fixture(autouse=True)
def bare_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host without settings, whose home is a temporary folder."""
    for name in list(os.environ):
        if name.upper().startswith(("PIP_", "UV_")) or name.upper().endswith(("_PROXY", "_CERT_FILE", "_CERT")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    return tmp_path


def test_proxies_and_indexes_are_passed_and_the_hosts_own_places_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/simple")
    monkeypatch.setenv("PIP_CACHE_DIR", "/home/ada/.cache")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    found = BuildAccess.of_host().environment
    assert found["HTTPS_PROXY"] == "http://proxy.example:3128"
    assert found["UV_DEFAULT_INDEX"] == found["PIP_INDEX_URL"] == "https://index.example/simple"
    assert not {"PIP_CACHE_DIR", "AWS_SECRET_ACCESS_KEY"} & found.keys()


def test_options_of_pips_configuration_are_passed_as_variables(bare_host: Path) -> None:
    (bare_host / ".config/pip").mkdir(parents=True)
    (bare_host / ".config/pip/pip.conf").write_text("[global]\nindex-url = https://index.example/simple\nquiet = 1\n")
    found = BuildAccess.of_host().environment
    assert found["PIP_INDEX_URL"] == "https://index.example/simple"
    assert "PIP_QUIET" not in found


def test_a_configuration_of_pip_that_is_broken_is_as_none(bare_host: Path) -> None:
    (bare_host / ".pip").mkdir()
    (bare_host / ".pip/pip.conf").write_text("index-url = without a section\n")
    assert "PIP_INDEX_URL" not in BuildAccess.of_host().environment


def test_folders_of_wheels_are_mounted_where_images_do_not_keep_them(
    bare_host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = bare_host / "wheels"
    wheels.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", f"file://{wheels} /no/such/folder https://index.example/links")
    access = BuildAccess.of_host()
    moved = f"file://{MOUNTED}{wheels} /no/such/folder https://index.example/links"
    assert access.environment["PIP_FIND_LINKS"] == access.environment["UV_FIND_LINKS"] == moved
    assert f"{wheels}:{MOUNTED}{wheels}:ro" in access.binds


def test_the_hosts_certificates_are_trusted(bare_host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = bare_host / "company.pem"
    bundle.write_text("certificates")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    access = BuildAccess.of_host()
    assert access.environment["PIP_CERT"] == access.environment["SSL_CERT_FILE"] == f"{MOUNTED}/ca.crt"
    assert f"{bundle}:{MOUNTED}/ca.crt:ro" in access.binds
    monkeypatch.delenv("SSL_CERT_FILE")
    assert ("PIP_CERT" in BuildAccess.of_host().environment) == any(Path(path).is_file() for path in CA_BUNDLES)


def test_a_login_for_an_index_is_mounted_and_named(bare_host: Path) -> None:
    (bare_host / ".netrc").write_text("machine index.example login ada password secret\n")
    access = BuildAccess.of_host()
    assert access.environment["NETRC"] == f"{MOUNTED}/.netrc"
    assert f"{bare_host}/.netrc:{MOUNTED}/.netrc:ro" in access.binds
    assert "secret" not in str(access)


@pytest.mark.parametrize(
    ("proxy", "mode"), [("http://localhost:3128", "host"), ("http://127.0.0.1:1", "host"), ("http://proxy:1", "bridge")]
)
def test_a_proxy_on_the_host_itself_is_reached_through_its_own_network(
    monkeypatch: pytest.MonkeyPatch, proxy: str, mode: str
) -> None:
    monkeypatch.setenv("https_proxy", proxy)
    access = BuildAccess.of_host()
    assert access.network_mode(Limits(network=True)) == mode
    assert access.network_mode(Limits()) == "none"
