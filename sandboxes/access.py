"""What image builds get of the host's way to the network: CA bundle, proxies, package indexes. Agents get none of it.

Files are mounted below `/dev`, which is made anew for each container, and settings are given to each command, so that
neither is part of an image that is committed.
"""

import configparser
import os
import re
from pathlib import Path
from typing import NamedTuple, Self

from sandboxes.protocol import Limits

MOUNTED = "/dev/build-access"
CA_VARIABLES = (
    "SSL_CERT_FILE",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
)
CA_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
PASSED = re.compile(r"(?i)(https?|ftp|all|no)_proxy|(PIP|UV)_\w+")
ABOUT_THE_HOST = re.compile(
    r"(PIP|UV)_\w*(CACHE|TARGET|PREFIX|PYTHON|PROJECT|ENVIRONMENT|CONFIG_FILE|TOOL|USER|ROOT|LOG|DIR|CERT)\w*"
)
LOCAL_SERVER = re.compile(r"//(localhost|127\.|\[::1\])")
LOCAL_PATH = re.compile(r"(?:(?<=file://)|(?<![^\s,=]))/[^\s,]+")
PIP_OPTIONS = {"index-url", "extra-index-url", "find-links", "trusted-host", "no-index", "proxy", "timeout", "retries"}
UV_NAMES = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
    "PIP_NO_INDEX": "UV_NO_INDEX",
}


class BuildAccess(NamedTuple):
    """Variables for each command of a build, and read-only mounts (`source:target:ro`)."""

    environment: dict[str, str]
    binds: list[str]

    @classmethod
    def of_host(cls) -> Self:
        """What this process itself would use."""
        variables = _pip_configuration()
        variables |= {
            name: value
            for name, value in os.environ.items()
            if PASSED.fullmatch(name) and not ABOUT_THE_HOST.fullmatch(name)
        }
        for theirs, ours in UV_NAMES.items():
            if theirs in variables:
                variables.setdefault(ours, variables[theirs])
        variables, mounts = _move_paths(variables)
        bundle = _ca_bundle()
        if bundle:
            mounts[bundle] = f"{MOUNTED}/ca.crt"
            variables |= dict.fromkeys(CA_VARIABLES, f"{MOUNTED}/ca.crt")
        for name, path in _credential_files().items():
            mounts[str(path)] = f"{MOUNTED}/{path.name}"
            variables[name] = f"{MOUNTED}/{path.name}"
        variables |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "DEBIAN_FRONTEND": "noninteractive"}
        return cls(variables, [f"{source}:{target}:ro" for source, target in mounts.items()])

    def network_mode(self, limits: Limits) -> str:
        """The host's own network where a proxy or index is a server on the host itself, a bridge otherwise."""
        if not limits.network:
            return "none"
        return "host" if any(LOCAL_SERVER.search(value) for value in self.environment.values()) else "bridge"


def _pip_configuration() -> dict[str, str]:
    """Options of pip's configuration files as the variables that mean the same."""
    parser = configparser.RawConfigParser()
    home = Path.home()
    named = os.environ.get("PIP_CONFIG_FILE", "")
    files = [Path("/etc/pip.conf"), home / ".pip/pip.conf", home / ".config/pip/pip.conf"]
    files += [Path(named)] if named else []
    try:
        parser.read(files, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return {}
    found: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            options = {name.lower().replace("_", "-"): value for name, value in parser.items(section)}
            found |= {
                f"PIP_{name.upper().replace('-', '_')}": " ".join(options[name].split())
                for name in options.keys() & PIP_OPTIONS
            }
    return found


def _move_paths(variables: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Directories of the host that the variables name are mounted, and named by where they are mounted."""
    mounts: dict[str, str] = {}

    def move(found: re.Match[str]) -> str:
        path = found.group()
        if not Path(path).exists():
            return path
        mounts[path] = MOUNTED + path
        return mounts[path]

    return {name: LOCAL_PATH.sub(move, value) for name, value in variables.items()}, mounts


def _ca_bundle() -> str:
    named = [os.environ.get(name, "") for name in CA_VARIABLES]
    return next((path for path in (*named, *CA_BUNDLES) if path and Path(path).is_file()), "")


def _credential_files() -> dict[str, Path]:
    """Files with a login or options for an index, by the variable that names them."""
    home = Path.home()
    candidates = {
        "NETRC": Path(os.environ.get("NETRC", home / ".netrc")),
        "UV_CONFIG_FILE": Path(os.environ.get("UV_CONFIG_FILE", home / ".config/uv/uv.toml")),
    }
    return {name: path for name, path in candidates.items() if path.is_file()}
