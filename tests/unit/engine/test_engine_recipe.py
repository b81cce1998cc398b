"""Recipes: layers, errors that name file and key, the resolved recipe."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

import recon
from recon.engine import recipe as recipes
from recon.engine.recipe import available_recipes, load_recipe, parse_value
from recon.engine.stage import options_of
from recon.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Inner(BaseModel):
    radius: float = Field(1.0, gt=0)
    name: str = "disc"


class MatchSettings(BaseModel):
    window: int = Field(2, ge=0, le=20)
    alpha: float = 510.0
    mode: str = "fast"
    levels: tuple[int, ...] = (1, 2)
    masked: bool = False
    limit: float | None = None
    inner: Inner = Inner()


class MeshSettings(BaseModel):
    depth: int = Field(10, ge=1)


class Match:
    name = "match"
    Settings = MatchSettings


class Mesh:
    name = "mesh"
    Settings = MeshSettings


STAGES = (Match(), Mesh())


def write(folder: Path, text: str, name: str = "r.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_recipe_quality_and_command_line_come_in_this_order(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '[match]\nwindow = 3\nalpha = 1.0\nmode = "a"\n[quality.high.match]\nalpha = 2.0\nmode = "b"\n'
        '[quality.preview.match]\nmode = "never"\n',
    )
    settings: Any = load_recipe(path, STAGES, "high", ["match.mode=c"]).settings["match"]
    assert (settings.masked, settings.window, settings.alpha, settings.mode) == (False, 3, 2.0, "c")


def test_extends_layers_and_keeps_the_parents_quality(tmp_path: Path) -> None:
    write(
        tmp_path, '[match]\nwindow = 3\nmode = "p"\n[quality.high]\nmatch = { alpha = 7.0 }\n', "parent.toml"
    )
    child = write(
        tmp_path, 'extends = "parent"\nname = "child"\n[match]\nmode = "c"\n[mesh]\ndepth = 4\n', "child.toml"
    )
    recipe = load_recipe(child, STAGES, "high")
    match: Any = recipe.settings["match"]
    assert (recipe.name, match.window, match.mode, match.alpha) == ("child", 3, "c", 7.0)
    assert recipe.settings["mesh"].depth == 4  # type: ignore[attr-defined]


def test_a_child_sets_a_key_at_every_quality(tmp_path: Path) -> None:
    write(tmp_path, "[quality.high.match]\nwindow = 9\nalpha = 9.0\n", "parent.toml")
    child = write(
        tmp_path,
        'extends = "parent"\n[match]\nwindow = 3\n[quality.preview.match]\nwindow = 1\n',
        "child.toml",
    )
    found = {
        level: load_recipe(child, STAGES, level).settings["match"] for level in ("preview", "normal", "high")
    }
    assert [(one.window, one.alpha) for one in found.values()] == [(1, 510.0), (3, 510.0), (3, 9.0)]  # type: ignore[attr-defined]


def test_a_mistake_in_the_tables_of_another_quality_is_found(tmp_path: Path) -> None:
    path = write(tmp_path, "[quality.high.match]\nwindow = 99\n")
    with pytest.raises(UsageError, match=r"quality\.high.*match\.window = 99"):
        load_recipe(path, STAGES, "preview")


def test_a_recipe_that_extends_itself_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 'extends = "b"\n', "a.toml")
    write(tmp_path, 'extends = "a"\n', "b.toml")
    with pytest.raises(UsageError, match="extends itself"):
        load_recipe(tmp_path / "a.toml", STAGES)


@pytest.mark.parametrize(
    ("text", "overrides", "parts"),
    [
        ("[match]\nwindwo = 3\n", [], ["r.toml", "match.windwo", "did you mean 'window'"]),
        ("[match]\nwindow = 30\n", [], ["r.toml", "match.window = 30", "less than or equal to 20"]),
        ('[match]\nwindow = "x"\n', [], ["r.toml", "match.window = 'x'", "integer"]),
        ("[match.inner]\nradus = 3\n", [], ["r.toml", "match.inner.radus", "did you mean 'radius'"]),
        ("[match.inner]\nradius = -3\n", [], ["r.toml", "match.inner.radius = -3", "greater than 0"]),
        ("[macth]\nwindow = 3\n", [], ["r.toml", "macth", "did you mean 'match'"]),
        ("match = 3\n", [], ["r.toml", "match", "section"]),
        ("name = 3\n", [], ["r.toml", "name"]),
        ("[quality.hihg.match]\nwindow = 3\n", [], ["r.toml", "hihg", "did you mean 'high'"]),
        ("[quality.high.match]\nwindwo = 3\n", [], ["r.toml (quality.high)", "match.windwo", "window"]),
        ("[quality.high.mehs]\nx = 3\n", [], ["r.toml", "quality.high.mehs", "did you mean 'mesh'"]),
        ("[match\n", [], ["r.toml", "not a valid TOML file"]),
        ('extends = "nope"\n', [], ["r.toml", "extends", "nope"]),
        ("", ["match.windwo=3"], ["--set match.windwo=3", "did you mean 'window'"]),
        ("", ["match.window=99"], ["--set match.window=99", "less than or equal"]),
        ("", ["window=3"], ["--set window=3", "section.key=value"]),
        ("", ["match.window"], ["--set match.window", "section.key=value"]),
        ("", ["mtch.window=3"], ["--set mtch.window=3", "did you mean 'match'"]),
    ],
)
def test_every_mistake_names_its_place(
    tmp_path: Path, text: str, overrides: list[str], parts: list[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe(write(tmp_path, text), STAGES, "normal", overrides)
    for part in parts:
        assert part in str(caught.value)


def test_the_file_that_set_the_key_is_named_not_the_one_that_was_asked_for(tmp_path: Path) -> None:
    write(tmp_path, "[match]\nwindow = 99\n", "parent.toml")
    child = write(tmp_path, 'extends = "parent"\n[match]\nalpha = 1.0\n', "child.toml")
    with pytest.raises(UsageError) as caught:
        load_recipe(child, STAGES)
    assert "parent.toml" in str(caught.value)
    assert "child.toml" not in str(caught.value)


def test_unknown_names_list_what_there_is() -> None:
    with pytest.raises(UsageError, match=r"siftlfow.*siftflow"):
        load_recipe("siftlfow", STAGES)
    with pytest.raises(UsageError, match=r"no recipe file ./nope.toml"):
        load_recipe("./nope.toml", STAGES)
    with pytest.raises(UsageError, match=r"hgih.*did you mean 'high'"):
        load_recipe("siftflow", STAGES, "hgih")


def test_recipes_of_the_checkout_and_of_an_installation_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "siftflow" in available_recipes()
    folder = tmp_path / "recon" / "pipelines"
    folder.mkdir(parents=True)
    write(folder, 'name = "installed"\n', "only-installed.toml")
    monkeypatch.setattr(recon, "__file__", str(tmp_path / "recon" / "__init__.py"))
    assert available_recipes() == ["only-installed"]
    assert load_recipe("only-installed", STAGES).name == "installed"


def test_keys_may_depend_on_a_value(tmp_path: Path) -> None:
    class Wide(BaseModel):
        model_config = ConfigDict(extra="forbid")
        matcher: str
        radius: int = Field(1, le=5)

    class Choosing(BaseModel):
        model_config = ConfigDict(extra="allow")
        matcher: str = "narrow"

        @classmethod
        def variant(cls, table: dict[str, Any]) -> type[BaseModel]:
            return Wide if table.get("matcher") == "wide" else cls

    class Stage:
        name = "match"
        Settings = Choosing

    path = write(tmp_path, '[match]\nmatcher = "wide"\n')
    settings: Any = load_recipe(path, [Stage()], "normal", ["match.radius=3"]).settings["match"]
    assert settings.radius == 3
    with pytest.raises(UsageError, match="radius = 9"):
        load_recipe(path, [Stage()], "normal", ["match.radius=9"])
    with pytest.raises(UsageError, match="did you mean 'radius'"):
        load_recipe(path, [Stage()], "normal", ["match.radus=3"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("0.5", 0.5),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ('"5"', "5"),
        ("match-aware", "match-aware"),
        ("a b", "a b"),
        ("", ""),
        ("1\nother = 2", "1\nother = 2"),
    ],
)
def test_values_of_the_command_line(text: str, value: object) -> None:
    assert parse_value(text) == value


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    window=st.integers(0, 20),
    alpha=st.floats(allow_nan=False),
    mode=TEXT,
    levels=st.lists(st.integers(-(2**60), 2**60), max_size=4),
    masked=st.booleans(),
    limit=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    radius=st.floats(1e-300, 1e300),
    name=TEXT,
    description=TEXT,
)
def test_the_resolved_recipe_reads_back_as_the_same_settings(
    window: int,
    alpha: float,
    mode: str,
    levels: list[int],
    masked: bool,
    limit: float | None,
    radius: float,
    name: str,
    description: str,
) -> None:
    settings = MatchSettings(
        window=window,
        alpha=alpha,
        mode=mode,
        levels=tuple(levels),
        masked=masked,
        limit=limit,
        inner=Inner(radius=radius, name=name),
    )
    before = recipes.Recipe(
        "n", description, "normal", {"match": settings, "mesh": MeshSettings()}, Path("r.toml")
    )
    tree = tomllib.loads(before.to_toml())
    assert MatchSettings.model_validate(tree["match"]) == settings
    assert tree["description"] == description
    assert tree["mesh"] == {"depth": 10}


KEYS = st.sampled_from(["a", "b", "c"])
TREE = st.recursive(st.integers(), lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=8)
TABLE = st.dictionaries(KEYS, TREE, max_size=3)


def lay(under: Any, over: Any) -> Any:
    """What an overlay means, written down again in the plainest way."""
    if isinstance(under, dict) and isinstance(over, dict):
        keys = [*under, *(key for key in over if key not in under)]
        return {k: lay(under[k], over[k]) if k in under and k in over else {**under, **over}[k] for k in keys}
    return over


@given(TABLE, TABLE, TABLE)
def test_overlays_merge_tables_and_the_last_value_wins(one: Any, two: Any, three: Any) -> None:
    merged = recipes._Source()
    for table, where in ((one, "one"), (two, "two"), (three, "three")):
        merged.merge(table, where)
    assert merged.tree == lay(lay(one, two), three)
    for key, value in three.items():
        if not isinstance(value, dict):
            assert merged.where((key,), "none") == "three"


def test_options_of_an_algorithm_take_what_the_settings_have() -> None:
    @dataclass(frozen=True)
    class Options:
        size: int = 3
        radius: float = 2.0
        seed: int = 0

    class Settings(BaseModel):
        size: int = Field(Options.size, ge=1)
        formats: str = "ply"

    assert options_of(Options, Settings(size=7), seed=5) == Options(7, 2.0, 5)
    assert Settings().size == 3
