"""Configuration of a command: a TOML file, then ``-s key=value``, checked by a pydantic model that knows every key."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from scidiff.cli.common import ConfigError

__all__ = ["Config", "load_config", "parse_setting", "read_toml"]


class Config(BaseModel):
    """Base class of configurations: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


C = TypeVar("C", bound=BaseModel)


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a dictionary.

    Raises:
        ConfigError: No such file, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ConfigError(f"configuration file {path} does not exist or is a folder.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration file {path} is not TOML: {error}") from error


def parse_setting(text: str) -> tuple[tuple[str, ...], Any]:
    """``sampler.steps=32`` -> (("sampler", "steps"), 32). Values are TOML; what is not TOML is a string.

    Raises:
        ConfigError: No equals sign, or an empty key.
    """
    key, equals, value = text.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        raise ConfigError(f"expected -s key=value, got {text!r}, for example -s sampler.steps=32.")
    try:
        parsed = tomllib.loads(f"value = {value.strip()}")
    except tomllib.TOMLDecodeError:
        return path, value.strip()
    return path, parsed["value"] if set(parsed) == {"value"} else value.strip()


def load_config(
    model: type[C], path: Path | None = None, settings: Sequence[str] = (), base: Mapping[str, Any] | None = None
) -> C:
    """Reads a configuration; later sources win.

    Arguments:
        model: Class that knows every key, usually a `Config`.
        path: TOML file.
        settings: ``key=value`` from the command line, dots for nested keys.
        base: Values of lowest precedence.

    Raises:
        ConfigError: Unreadable file, unknown key (the nearest valid one is named), or a value of the wrong kind.
    """
    merged = _merge(dict(base or {}), read_toml(path) if path else {})
    for key, value in map(parse_setting, settings):
        nested: dict[str, Any] = {key[-1]: value}
        for part in reversed(key[:-1]):
            nested = {part: nested}
        merged = _merge(merged, nested)
    try:
        return model.model_validate(merged)
    except ValidationError as error:
        source = f"{path}: " if path else ""
        raise ConfigError(
            source + "; ".join(_explain(model, e["loc"], e["type"], e["msg"], e["input"]) for e in error.errors())
        ) from error


def _merge(low: dict[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(low)
    for key, value in high.items():
        old = out.get(key)
        out[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return out


def _explain(model: type[BaseModel], place: Iterable[int | str], kind: str, message: str, found: Any) -> str:
    *parents, last = [str(part) for part in place] or [""]
    name = ".".join([*parents, last])
    if kind == "missing":
        about = getattr(_fields_at(model, parents).get(last), "description", None)
        return f"'{name}' is required" + (f": {about}" if about else "")
    if kind != "extra_forbidden":
        return f"'{name}': {message}, got {found!r}"
    keys = list(_fields_at(model, parents))
    near = difflib.get_close_matches(last, keys, 1, cutoff=0.5)
    hint = f"did you mean '{'.'.join([*parents, near[0]])}'?" if near else f"known keys: {', '.join(keys)}"
    return f"unknown key '{name}'; {hint}"


def _fields_at(model: Any, path: Sequence[str]) -> Mapping[str, Any]:
    for part in path:
        field = getattr(model, "model_fields", {}).get(part)
        kinds = [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)
    return getattr(model, "model_fields", {})
