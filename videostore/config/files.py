"""Reading YAML so that a person finds the mistake: file, line or key, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Hashable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from videostore.config.settings import VERSION
from videostore.domain.errors import ConfigInvalid, SiteTooNew

Model = TypeVar("Model", bound=BaseModel)
if TYPE_CHECKING or not yaml.__with_libyaml__:
    from yaml import SafeLoader as _SafeLoader
else:  # the same in C: 1,000 cameras in a fifth of the time
    from yaml import CSafeLoader as _SafeLoader


class _UniqueKeyLoader(_SafeLoader):
    """SafeLoader lets the later of two equal keys win silently; a policy must not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands here twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path, model: type[Model]) -> Model:
    """Return the validated content of ``path``.

    Raises ConfigInvalid (missing, not YAML, unknown key, wrong value) or SiteTooNew.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigInvalid(
            f"cannot read {path}: {error.strerror}",
            hint="Restore the file or make a new site with `videostore init`.",
        ) from error
    parsed: Model = _parse(data, path, model)
    return parsed


@lru_cache(maxsize=16)
def _parse(data: bytes, path: Path, model: type[Model]) -> Model:
    """The same bytes say the same: policies are read for every answer of the gate, and parsed once."""
    try:
        content = yaml.load(data, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        what = " ".join(str(error).split())
        raise ConfigInvalid(f"{path} is not YAML: {what}", hint="Correct the line that is named.") from error
    if isinstance(content, dict) and isinstance(content.get("version"), int) and content["version"] > VERSION:
        raise SiteTooNew(
            f"{path} has version {content['version']}; this program knows version {VERSION}",
            hint="Upgrade videostore, or use the site with the version that made it.",
        )
    try:
        return model.model_validate(content)
    except ValidationError as error:
        found = error.errors()
        first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
        raise ConfigInvalid(f"{path}: {_first(first, model)}", hint=_hint(first, model)) from error


def _first(error: ErrorDetails, model: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in error["loc"]) or model.__name__
    if error["type"] == "extra_forbidden":
        return f"unknown key {where!r}"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}"


def _hint(error: ErrorDetails, model: type[BaseModel]) -> str:
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(error["loc"][-1]), _keys(model.model_json_schema()), n=1)
        if close:
            return f"Did you mean {close[0]!r}?"
        return "Remove it; docs/reference/configuration.md lists every key."
    return "docs/reference/configuration.md explains every key."


def _keys(schema: dict[str, Any]) -> set[str]:
    parts = [schema, *schema.get("$defs", {}).values()]
    return {key for part in parts for key in part.get("properties", {})}
