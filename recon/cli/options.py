"""Typer commands that take a dataclass of options: each field becomes one option."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, cast, get_args, get_origin, get_type_hints

import typer


def takes_options(function: Callable[..., None]) -> Callable[..., None]:
    """Replace the keyword-only parameter ``options`` of a command by one option for each field of its dataclass.

    A field made by ``recon.options.option`` brings its help; a field of type ``tuple[X, ...]`` may be repeated. A
    parameter of the command's own that belongs to the same group as some fields stands before them.
    """
    hints = get_type_hints(function, include_extras=True)
    kind = hints.pop("options")
    types = get_type_hints(kind)
    fields = {one.name: one for one in dataclasses.fields(kind) if one.metadata}
    keyword = inspect.Parameter.KEYWORD_ONLY
    own = [one for one in inspect.signature(function).parameters.values() if one.name != "options"]
    parameters = [one.replace(annotation=hints[one.name], kind=keyword) for one in own]
    for name, one in fields.items():
        annotation, default = types[name], cast(Any, one.default)
        if get_origin(annotation) is tuple and get_args(annotation)[1:] == (...,):
            annotation, default = list.__class_getitem__(get_args(annotation)[0]), list(default)
        more = dict(one.metadata)
        if "panel" in more:
            more["rich_help_panel"] = more.pop("panel")
        made = typer.Option(default, *more.pop("flags", ()), **more)
        parameters.append(inspect.Parameter(name, keyword, default=made, annotation=annotation))

    groups = [_group(one) for one in parameters[len(own) :]]
    parameters.sort(key=lambda one: groups.index(_group(one)) if _group(one) in groups else -1)

    @functools.wraps(function)
    def command(**given: Any) -> None:
        chosen = {name: given.pop(name) for name in fields}
        made = {name: tuple(value) if isinstance(value, list) else value for name, value in chosen.items()}
        function(**given, options=kind(**made))

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command


def _group(parameter: inspect.Parameter) -> str | None:
    return getattr(parameter.default, "rich_help_panel", None)
