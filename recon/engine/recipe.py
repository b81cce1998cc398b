"""Recipes: TOML files that say how to reconstruct, one table per stage."""

from __future__ import annotations

import difflib
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError

from recon.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

QUALITIES = ("preview", "normal", "high")
COMMAND_LINE = "--set"
_HEADER_KEYS = ("name", "description", "extends", "quality")


class HasSettings(Protocol):
    """The part of a stage that a recipe needs."""

    @property
    def name(self) -> str: ...

    @property
    def Settings(self) -> type[BaseModel]: ...  # noqa: N802


@dataclass(frozen=True)
class Recipe:
    """A recipe with everything resolved: inheritance, quality, command line, defaults.

    Attributes:
        name: what the recipe calls itself (the file's name if it does not).
        description: one line or more.
        quality: the level whose overlay was applied.
        settings: validated settings of each stage.
        source: the file that it came from.
    """

    name: str
    description: str
    quality: str
    settings: Mapping[str, BaseModel]
    source: Path

    def to_toml(self) -> str:
        """The resolved recipe as a TOML text that can be used as a recipe itself."""
        header: dict[str, Any] = {"name": self.name, "description": self.description}
        lines = [f"# Resolved from {self.source.name} at quality {self.quality!r}; usable as --recipe."]
        lines += [f"{key} = {_toml_value(value)}" for key, value in header.items()]
        for section, model in self.settings.items():
            lines += ["", *_toml_table((section,), model.model_dump(mode="json"))]
        return "\n".join(lines) + "\n"


@dataclass
class _Source:
    """A merged tree of keys, and for each key the file that set it last."""

    tree: dict[str, Any] = field(default_factory=dict)
    origin: dict[tuple[str, ...], str] = field(default_factory=dict)

    def merge(self, table: Mapping[str, Any], where: str, at: tuple[str, ...] = ()) -> None:
        """Lay ``table`` over the tree at a place: tables merge, everything else replaces."""
        node = self.tree
        for step in at:
            below = node.setdefault(step, {})
            if not isinstance(below, dict):
                node[step] = below = {}
            node = below
        for key, value in table.items():
            self.origin[(*at, key)] = where
            if isinstance(value, Mapping):
                if not isinstance(node.get(key), dict):
                    node[key] = {}
                self.merge(value, where, (*at, key))
            else:
                node[key] = value

    def where(self, key: Sequence[str], fallback: str) -> str:
        """The file that set a key (or the nearest table around it)."""
        for length in range(len(key), 0, -1):
            found = self.origin.get(tuple(key[:length]))
            if found is not None:
                return found
        return fallback


def recipe_folders() -> list[Path]:
    """Folders of recipes that have names: the installed package's, or the checkout's ``pipelines``."""
    import recon

    package = Path(recon.__file__).resolve().parent
    installed = package / "pipelines"
    return [installed if installed.is_dir() else package.parent / "pipelines"]


def available_recipes() -> list[str]:
    """Names of the recipes that can be given without a path."""
    return sorted(
        {path.stem for folder in recipe_folders() if folder.is_dir() for path in folder.glob("*.toml")}
    )


def find_recipe(name: str | Path, beside: Path | None = None) -> Path:
    """The file of a recipe given by name or by path.

    Raises:
        UsageError: there is none; the message lists close names.
    """
    text = str(name)
    looks_like_path = text.endswith(".toml") or "/" in text or "\\" in text
    if looks_like_path:
        path = Path(text).expanduser()
        if beside is not None and not path.is_absolute() and (beside / path).is_file():
            return beside / path
        if path.is_file():
            return path
        raise UsageError(f"no recipe file {text}; give the path of a TOML file or one of: {_listing()}")
    folders = [*([beside] if beside is not None else []), *recipe_folders()]
    for folder in folders:
        path = folder / f"{text}.toml"
        if path.is_file():
            return path
    hint = _did_you_mean(text, available_recipes())
    raise UsageError(f"no recipe is called {text!r}{hint}; there are: {_listing()}")


def load_recipe(
    name: str | Path,
    stages: Iterable[HasSettings],
    quality: str = "normal",
    overrides: Iterable[str] = (),
) -> Recipe:
    """The recipe with its parents, the quality's overlay, ``overrides`` and defaults laid over each other.

    From weak to strong: defaults; the parent's tables and then its tables for the quality; the same of the
    child; ``overrides``. So a child that sets a key sets it at every quality.

    Args:
        name: a name in ``pipelines/`` or a path.
        stages: the stages whose sections the recipe may have.
        quality: "preview", "normal" or "high".
        overrides: "section.key=value" with a TOML value; a bare word is a string.

    Raises:
        UsageError: a wrong key, value, name or quality; the message names the file, the key and close
            matches.
    """
    if quality not in QUALITIES:
        hint = _did_you_mean(quality, QUALITIES)
        raise UsageError(f"unknown quality {quality!r}{hint}; there are: {', '.join(QUALITIES)}")
    sections = {stage.name: stage.Settings for stage in stages}
    path = find_recipe(name)
    layers = _read_chain(path, ())
    for layer in layers:
        _check_layer(layer, sections)

    texts = tuple(overrides)
    settings: dict[str, BaseModel] = {}
    # The other levels are resolved too, so that a mistake in their tables is found before someone needs them.
    for level in sorted(QUALITIES, key=lambda one: one == quality):
        chosen = _resolve(layers, level, sections)
        if level == quality:
            for text in texts:
                _apply_override(chosen, text, sections)
        settings = {key: _validate(model, chosen, key, str(path)) for key, model in sections.items()}
    return Recipe(
        name=str(layers[-1].table.get("name", path.stem)),
        description=str(layers[-1].table.get("description", "")).strip(),
        quality=quality,
        settings=settings,
        source=path,
    )


@dataclass(frozen=True)
class _Layer:
    """One recipe file as it was read."""

    path: Path
    table: Mapping[str, Any]


def _resolve(layers: Sequence[_Layer], quality: str, sections: Iterable[str]) -> _Source:
    """Sections at one level: parents before children, in each file the plain tables before the level's."""
    chosen = _Source({key: {} for key in sections})
    for layer in layers:
        overlay = layer.table.get("quality", {}).get(quality, {})
        for section in chosen.tree:
            chosen.merge(layer.table.get(section, {}), str(layer.path), (section,))
            chosen.merge(overlay.get(section, {}), f"{layer.path} (quality.{quality})", (section,))
    return chosen


def _read_chain(path: Path, seen: tuple[Path, ...]) -> list[_Layer]:
    """A recipe after everything that it extends."""
    path = path.resolve()
    if path in seen:
        raise UsageError(f"{path}: the recipe extends itself: {' -> '.join(p.name for p in (*seen, path))}")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not a valid TOML file: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot read the recipe: {error}") from None
    extends = table.pop("extends", None)
    if extends is None:
        return [_Layer(path, table)]
    if not isinstance(extends, str):
        raise UsageError(f"{path}: 'extends' is the name or path of one recipe, not {extends!r}")
    try:
        parent = find_recipe(extends, beside=path.parent)
    except UsageError as error:
        raise UsageError(f"{path}: 'extends': {error}") from None
    return [*_read_chain(parent, (*seen, path)), _Layer(path, table)]


def _check_layer(layer: _Layer, sections: Iterable[str]) -> None:
    """Refuse unknown sections and levels before anything is read out of them."""
    names = list(sections)
    for key, value in layer.table.items():
        if key in ("name", "description"):
            if not isinstance(value, str):
                raise UsageError(f"{layer.path}: '{key}' is a text, not {value!r}")
        elif key == "quality":
            _check_quality(layer.path, value, names)
        elif key not in names:
            hint = _did_you_mean(key, [*names, *_HEADER_KEYS])
            raise UsageError(f"{layer.path}: unknown section '{key}'{hint}; sections are: {', '.join(names)}")
        elif not isinstance(value, dict):
            raise UsageError(f"{layer.path}: '{key}' is a section: write [{key}] and its keys below it")


def _check_quality(path: Path, value: Any, sections: Sequence[str]) -> None:
    if not isinstance(value, dict):
        raise UsageError(f"{path}: 'quality' holds tables such as [quality.preview.<section>], not {value!r}")
    for level, tables in value.items():
        if level not in QUALITIES or not isinstance(tables, dict):
            hint = _did_you_mean(level, QUALITIES)
            raise UsageError(f"{path}: unknown quality '{level}'{hint}; there are: {', '.join(QUALITIES)}")
        for section, table in tables.items():
            if section not in sections or not isinstance(table, dict):
                hint = _did_you_mean(section, sections)
                raise UsageError(f"{path}: unknown section 'quality.{level}.{section}'{hint}")


def _apply_override(chosen: _Source, text: str, sections: Mapping[str, type[BaseModel]]) -> None:
    """Lay one "section.key=value" over the tree."""
    key, equals, value = text.partition("=")
    steps = tuple(step.strip() for step in key.split("."))
    if not equals or len(steps) < 2 or not all(steps):
        raise UsageError(f"{COMMAND_LINE} {text}: write section.key=value, for example --set match.window=5")
    if steps[0] not in sections:
        hint = _did_you_mean(steps[0], sections)
        raise UsageError(
            f"{COMMAND_LINE} {text}: unknown section '{steps[0]}'{hint}; sections are: {', '.join(sections)}"
        )
    chosen.merge({steps[-1]: parse_value(value)}, f"{COMMAND_LINE} {text}", steps[:-1])


def parse_value(text: str) -> Any:
    """A TOML value; what is none is taken as a string without quotes."""
    text = text.strip()
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return table["value"] if set(table) == {"value"} else text


def _validate(model: type[BaseModel], chosen: _Source, section: str, path: str) -> BaseModel:
    """The section's settings, or an error that names file, key and value."""
    table = chosen.tree[section]
    model = _variant(model, table)
    _check_keys(model, table, chosen, (section,), path)
    try:
        return model.model_validate(table)
    except ValidationError as error:
        problems = [
            f"{chosen.where(key, path)}: {'.'.join(key)}{text}" for key, text in _problems(error, (section,))
        ]
        raise UsageError("\n".join(dict.fromkeys(problems))) from None


def _problems(error: ValidationError, at: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Key and explanation of all that is wrong, also where a validator checked another model inside."""
    for item in error.errors():
        key = (*at, *(str(step) for step in item["loc"]))
        inner = item.get("ctx", {}).get("error")
        if isinstance(inner, ValidationError):
            yield from _problems(inner, key)
        elif item["type"] == "extra_forbidden":
            yield key, ": there is no such key"
        elif item["type"] == "missing" or not item["loc"]:
            yield key, f": {_plain(item['msg'])}"
        else:
            yield key, f" = {item['input']!r}: {_plain(item['msg'])}"


def _variant(model: type[BaseModel], table: Mapping[str, Any]) -> type[BaseModel]:
    """The model that a section is checked with.

    A settings model whose keys depend on a value (in the section ``match``, on the matcher) has a class
    method ``variant(table)`` that gives it.
    """
    choose = getattr(model, "variant", None)
    chosen: type[BaseModel] = choose(table) if choose is not None else model
    return chosen


def _plain(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _check_keys(
    model: type[BaseModel], table: Mapping[str, Any], source: _Source, at: tuple[str, ...], path: str
) -> None:
    """Refuse keys that the model does not have, also in models inside it; ``extra="allow"`` takes any."""
    names = {(info.alias or name): info for name, info in model.model_fields.items()}
    for key, value in table.items():
        if key not in names:
            if model.model_config.get("extra") == "allow":
                continue
            hint = _did_you_mean(key, names)
            known = ", ".join(names) or "none"
            where = source.where((*at, key), path)
            raise UsageError(f"{where}: unknown key '{'.'.join((*at, key))}'{hint}; keys are: {known}")
        inner = names[key].annotation
        if isinstance(value, Mapping) and isinstance(inner, type) and issubclass(inner, BaseModel):
            _check_keys(inner, value, source, (*at, key), path)


def _did_you_mean(word: str, words: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(words), n=2, cutoff=0.5)
    return f" (did you mean {' or '.join(repr(c) for c in close)}?)" if close else ""


def _listing() -> str:
    return ", ".join(available_recipes()) or "none (the folder 'pipelines' is not beside the package)"


def _toml_value(value: Any) -> str:
    """One value in TOML. JSON's strings are TOML's basic strings but for DEL."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):
            return "nan"
        return ("inf" if value > 0 else "-inf") if math.isinf(value) else repr(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml_value(item) for item in value if item is not None)}]"
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_toml_key(k)} = {_toml_value(v)}" for k, v in value.items() if v is not None)
        return f"{{{inner}}}"
    raise TypeError(f"no TOML for {type(value).__name__}")


def _toml_key(key: str) -> str:
    bare = key and all(c.isascii() and (c.isalnum() or c in "-_") for c in key)
    return key if bare else json.dumps(key, ensure_ascii=False)


def _toml_table(path: tuple[str, ...], table: Mapping[str, Any]) -> list[str]:
    """A table and its sub-tables; keys without a value (None) are left to their default."""
    lines = [f"[{'.'.join(_toml_key(step) for step in path)}]"]
    lines += [
        f"{_toml_key(key)} = {_toml_value(value)}"
        for key, value in table.items()
        if value is not None and not isinstance(value, Mapping)
    ]
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines += ["", *_toml_table((*path, key), value)]
    return lines
