"""A result is taken over when it is the very same, whole, and never half."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

from recon.compare import sharing
from recon.compare.sharing import adopt, drop_obsolete, is_finished
from recon.engine.recipe import Recipe
from recon.engine.runner import RunOptions, run_stages, stage_fingerprints
from recon.engine.stage import StageContext
from recon.io.manifest import read_manifest


class Settings(BaseModel):
    value: int = 1


class First:
    name: ClassVar[str] = "first"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ()
    Settings: ClassVar[type[BaseModel]] = Settings
    runs: ClassVar[list[str]] = []

    def run(self, settings: Settings, work: StageContext) -> dict[str, Any]:
        type(self).runs.append(self.name)
        with work.fresh_directory(f"{self.name}/deep") as folder:
            (folder / "a.txt").write_text(f"{self.name} {settings.value}")
        return {"value": settings.value}


class Second(First):
    name: ClassVar[str] = "second"
    reads: ClassVar[tuple[str, ...]] = ("first",)


STAGES = (First(), Second())


def recipe(first: int = 1, second: int = 1) -> Recipe:
    return Recipe(
        "r", "", "normal", {"first": Settings(value=first), "second": Settings(value=second)}, Path("r.toml")
    )


def run(root: Path, made: Recipe) -> None:
    run_stages(STAGES, made, root, RunOptions(source="photos"))


@pytest.fixture(autouse=True)
def _forget() -> None:
    First.runs.clear()


def marks(root: Path, made: Recipe) -> dict[str, str]:
    return stage_fingerprints(STAGES, made, root, RunOptions())


def test_fingerprints_are_those_of_a_run(tmp_path: Path) -> None:
    run(tmp_path / "a", recipe())
    manifest = read_manifest(tmp_path / "a")
    assert manifest is not None
    assert {n: r.fingerprint for n, r in manifest.stages.items()} == marks(tmp_path / "b", recipe())
    assert not (tmp_path / "b").exists()
    assert is_finished(tmp_path / "a", marks(tmp_path / "a", recipe()))
    assert not is_finished(tmp_path / "a", marks(tmp_path / "a", recipe(second=2)))


def test_only_what_is_the_same_is_taken_over(tmp_path: Path) -> None:
    run(tmp_path / "a", recipe())
    other = recipe(second=2)
    taken = adopt(tmp_path / "b", STAGES, marks(tmp_path / "b", other), [tmp_path / "a"], "photos")
    assert taken == ["first"]
    First.runs.clear()
    run(tmp_path / "b", other)
    assert First.runs == ["second"]
    assert (tmp_path / "b/first/deep/a.txt").read_text() == "first 1"
    assert (tmp_path / "b/second/deep/a.txt").read_text() == "second 2"
    assert (tmp_path / "a/second/deep/a.txt").read_text() == "second 1"


def test_a_changed_workspace_leaves_its_donor_alone(tmp_path: Path) -> None:
    run(tmp_path / "a", recipe())
    adopt(tmp_path / "b", STAGES, marks(tmp_path / "b", recipe()), [tmp_path / "a"], "photos")
    assert (tmp_path / "a/first/deep/a.txt").samefile(tmp_path / "b/first/deep/a.txt")
    run(tmp_path / "b", recipe(first=5))
    assert (tmp_path / "a/first/deep/a.txt").read_text() == "first 1"
    assert is_finished(tmp_path / "a", marks(tmp_path / "a", recipe()))


def test_a_donor_that_lost_a_file_gives_nothing(tmp_path: Path) -> None:
    run(tmp_path / "a", recipe())
    (tmp_path / "a/first/deep/a.txt").unlink()
    (tmp_path / "a/first/deep").rmdir()
    taken = adopt(tmp_path / "b", STAGES, marks(tmp_path / "b", recipe()), [tmp_path / "a"], "photos")
    assert taken == ["second"]


def test_killed_while_taking_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "a", recipe())

    def killed(*_: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(sharing, "link_or_copy", killed)
    wanted = marks(tmp_path / "b", recipe())
    with pytest.raises(KeyboardInterrupt):
        adopt(tmp_path / "b", STAGES, wanted, [tmp_path / "a"], "photos")
    assert not is_finished(tmp_path / "b", wanted)
    monkeypatch.undo()
    First.runs.clear()
    run(tmp_path / "b", recipe())
    assert First.runs == ["first", "second"]


def test_links_fall_back_to_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "a", recipe())

    def no_links(*_: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("os.link", no_links)
    adopt(tmp_path / "b", STAGES, marks(tmp_path / "b", recipe()), [tmp_path / "a"], "photos")
    assert is_finished(tmp_path / "b", marks(tmp_path / "b", recipe()))
    assert not (tmp_path / "a/first/deep/a.txt").samefile(tmp_path / "b/first/deep/a.txt")


def test_what_a_coming_run_does_not_keep_goes(tmp_path: Path) -> None:
    run(tmp_path / "a", recipe())
    drop_obsolete(tmp_path / "a", marks(tmp_path / "a", recipe()))
    assert (tmp_path / "a/second/deep/a.txt").exists()
    drop_obsolete(tmp_path / "a", marks(tmp_path / "a", recipe(second=2)))
    assert (tmp_path / "a/first/deep/a.txt").exists()
    assert not (tmp_path / "a/second/deep").exists()
