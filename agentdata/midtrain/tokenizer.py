"""The files of a Hugging Face tokenizer to what packing needs of them: definition, chat template, special tokens."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentdata.errors import UsageError

FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@dataclass(frozen=True)
class AddedToken:
    """A token that is found as a whole in a text, before anything is split."""

    id: int
    text: str
    special: bool
    """Special tokens are made by templates and ends of documents, never from content."""
    plain: bool
    """Whether it is matched exactly as written, without swallowing spaces or asking for word borders."""


@dataclass(frozen=True)
class TokenizerFiles:
    """A tokenizer as it was read. Raises UsageError where it cannot be used."""

    name: str
    path: Path
    """Its tokenizer.json."""
    sha256: str
    """Of its tokenizer.json."""
    definition: dict[str, Any]
    settings: dict[str, Any]
    """tokenizer_config.json, or nothing."""
    chat_template: str
    """Empty when it has none."""

    @property
    def added(self) -> tuple[AddedToken, ...]:
        """The added tokens, by id."""
        rows = sorted(self.definition.get("added_tokens", []), key=lambda row: int(row["id"]))
        return tuple(
            AddedToken(
                id=row["id"],
                text=row["content"],
                special=bool(row["special"]),
                plain=not (row.get("lstrip") or row.get("rstrip") or row.get("single_word")),
            )
            for row in rows
        )

    @property
    def digest(self) -> str:
        """SHA-256 over all that decides what becomes of a row."""
        told = json.dumps([self.sha256, self.settings, self.chat_template], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()

    @property
    def most_id(self) -> int:
        """The largest id of a token."""
        vocabulary = self.definition["model"].get("vocab", {})
        ids = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
        return max([*ids, *(token.id for token in self.added)], default=0)

    def special(self, role: str) -> str:
        """The text of the token that plays a role (`bos_token`, `eos_token`, `pad_token`), or nothing."""
        value = self.settings.get(role)
        text = value.get("content") if isinstance(value, dict) else value
        return text if isinstance(text, str) else ""

    def id_of(self, text: str) -> int:
        """The id of an added token. Raises UsageError."""
        for token in self.added:
            if token.text == text:
                return token.id
        known = ", ".join(token.text for token in self.added[:8])
        raise UsageError(f"The tokenizer {self.name!r} has no added token {text!r}; it has {known or 'none'}.")


def read_tokenizer(name: str, chat_template: str = "") -> TokenizerFiles:
    """Read a tokenizer and its chat template.

    name: path of a tokenizer.json, of a directory that holds one, or the id of a model on the Hub. chat_template: path of
    a template that takes the place of the tokenizer's own. Raises UsageError.
    """
    paths = _find(name)
    definition = _json(paths["tokenizer.json"], name)
    if not isinstance(definition.get("model"), dict):
        raise UsageError(f"{paths['tokenizer.json']} describes no tokenizer: it has no `model`. Give a tokenizer.json.")
    settings = _json(paths["tokenizer_config.json"], name) if "tokenizer_config.json" in paths else {}
    return TokenizerFiles(
        name=name,
        path=paths["tokenizer.json"],
        sha256=hashlib.sha256(paths["tokenizer.json"].read_bytes()).hexdigest(),
        definition=definition,
        settings=settings,
        chat_template=_template(chat_template, paths.get("chat_template.jinja"), settings),
    )


def _find(name: str) -> dict[str, Path]:
    path = Path(name).expanduser()
    if path.is_file():
        path = path.parent if path.name == "tokenizer.json" else path
    if path.is_dir():
        found = {file: path / file for file in FILES if (path / file).is_file()}
    elif path.is_file():
        found = {"tokenizer.json": path}
    else:
        found = _download(name)
    if "tokenizer.json" not in found:
        raise UsageError(
            f"There is no tokenizer {name!r}: give a tokenizer.json, a directory that holds one, or the id of a model on "
            "the Hub."
        )
    return found


def _download(name: str) -> dict[str, Path]:
    """The files of a model on the Hub; none where it cannot be asked or has none."""
    if name.count("/") > 1 or name.startswith((".", "~")) or not name:
        return {}
    from huggingface_hub import hf_hub_download

    found = {}
    for file in FILES:
        try:
            found[file] = Path(hf_hub_download(name, file))
        except Exception:  # The library has an exception for every way in which a file is not to be had.
            if file == FILES[0]:
                break
    return found


def _json(path: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        words = " ".join(str(error).split())[:200]
        raise UsageError(f"Cannot read {path} of the tokenizer {name!r}: {words}.") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path} of the tokenizer {name!r} is not a JSON object.")
    return value


def _template(given: str, beside: Path | None, settings: dict[str, Any]) -> str:
    if given or beside is not None:
        path = Path(given).expanduser() if given else beside
        assert path is not None
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"Cannot read the chat template {path}: {' '.join(str(error).split())}.") from error
    value = settings.get("chat_template", "")
    if isinstance(value, list):
        named = {row["name"]: row["template"] for row in value}
        value = named.get("tool_use") or named.get("default", "")
    return value if isinstance(value, str) else ""
