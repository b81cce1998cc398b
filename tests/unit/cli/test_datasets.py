"""``recon datasets`` as a user calls it."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import recon
from recon.cli import main
from recon.datasets import cards
from recon.datasets.cards import find_scene, load_card, load_cards
from recon.errors import ReconError, UsageError

CARD = """
name = "toy"
origin = "https://example.org"
licence = "CC0"
citation = "A. Nobody: A toy. 2026"
path = "toys/{place}"
ground_truth = "Cameras"
convention = "pinhole"
size = "one photo"
{more}
[layout]
images = "images"
cameras = "cameras.json"
{files}
"""


def write_card(folder: Path, name: str = "toy", place: str = "toy", more: str = "", files: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = CARD.replace("{place}", place).replace("{more}", more).replace("{files}", files)
    (folder / f"{name}.toml").write_text(text.replace('"toy"', f'"{name}"'))


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of cards that stands in for the project's, and an empty data root."""
    folder = tmp_path / "cards"
    folder.mkdir()
    monkeypatch.setattr(cards, "card_folders", lambda: [folder])
    monkeypatch.setenv("RECON_DATA", str(tmp_path / "data"))
    return folder


def test_every_card_is_complete() -> None:
    """Each says where it comes from, under which terms, what to cite, and how to get it."""
    found = load_cards()
    wanted = {"fountain-P11", "eth3d", "dtu", "tanks-and-temples", "templeSparseRing", "middlebury-flow"}
    wanted |= {"megadepth-1500", "scannet-1500", "blendedmvs", "kitti-flow"}
    assert wanted <= set(found)
    for card in found.values():
        assert card.origin.startswith("https://")
        assert card.licence
        assert card.citation
        assert card.files or card.obtain or card.name not in wanted, card.name
        for one in card.files:
            assert one.url.startswith(("https://", "http://"))
            assert one.sha256 is None or len(one.sha256) == 64
            assert not Path(one.to).is_absolute()
            assert "{scene}" not in one.url or card.scenes
        for scene in card.scenes:
            assert "{" not in json.dumps(
                [card.of_scene(scene).path, *(f.url for f in card.of_scene(scene).files)]
            )


def test_checksums_are_those_of_the_files(shared_data: Path) -> None:
    """The one card with checksums, against byte copies of the publisher's files."""
    import hashlib

    card = load_card("middlebury-flow")
    assert len(card.files) == 12
    for one in card.files:
        data = (card.folder(shared_data) / one.to).read_bytes()
        assert hashlib.sha256(data).hexdigest() == one.sha256


def test_list_and_show(only: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_card(only, files='[[files]]\nurl = "https://example.org/a.zip"\nunpack = "zip"')
    write_card(only, "many", "many/{scene}", 'scenes = ["one", "two"]\nobtain = "Ask for {scene}"')
    (tmp_path / "data/datasets/toys/many/two").mkdir(parents=True)
    (tmp_path / "data/datasets/toys/many/two/a.jpg").write_bytes(b"a")
    assert main(["datasets", "list"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert lines["toy"].split()[1:4] == ["no", "one", "photo"]
    assert lines["many"].split()[1:6] == ["1", "of", "2", "by", "hand"]
    assert main(["datasets", "show", "many/one"]) == 0
    out = capsys.readouterr().out
    assert "Ask for one" in out
    assert str(tmp_path / "data/datasets/toys/many/one") in out
    assert main(["datasets", "show", "toy"]) == 0
    assert "no checksum is known" in capsys.readouterr().out
    assert main(["datasets", "show", "atlantis"]) == 2
    assert "there are: many, toy" in capsys.readouterr().err
    assert main(["datasets", "fetch", "many"]) == 2
    assert "many/one" in capsys.readouterr().err
    assert main(["datasets", "fetch", "many/three"]) == 2
    assert "one, two" in capsys.readouterr().err
    assert main(["datasets", "fetch", "many/one"]) == 1
    assert f"put it into {tmp_path / 'data/datasets/toys/many/one'}" in capsys.readouterr().err


def test_without_a_data_root(
    only: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_card(only)
    monkeypatch.delenv("RECON_DATA")
    assert main(["datasets", "list"]) == 0
    assert "RECON_DATA is not set" in capsys.readouterr().out
    assert main(["datasets", "show", "toy"]) == 0
    assert "below RECON_DATA" in capsys.readouterr().out
    assert main(["datasets", "fetch", "toy"]) == 1
    assert "set RECON_DATA" in capsys.readouterr().err


def test_fetch_and_use(only: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Photos with cameras in another form arrive, and a cameras.json is made of them."""
    served = tmp_path / "served" / "images"
    served.mkdir(parents=True)
    for i in range(2):
        Image.new("RGB", (20, 10), (9, 9, 90 * i)).save(served / f"{i}.jpg")
        (served / f"{i}.jpg.camera").write_text(
            "20 0 9 0 20 4 0 0 1\n0 0 0\n1 0 0 0 1 0 0 0 1\n1 2 3\n20 10\n"
        )
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/"
    try:
        names = '["images/0.jpg", "images/1.jpg", "images/0.jpg.camera", "images/1.jpg.camera"]'
        write_card(only, files=f'[[files]]\nbase = "{url}"\nnames = {names}')
        assert main(["datasets", "fetch", "toy"]) == 0
    finally:
        server.shutdown()
        server.server_close()
    out = capsys.readouterr().out
    assert "4 downloaded" in out
    assert "not verified" in out
    assert "2 cameras" in out
    folder = tmp_path / "data/datasets/toys/toy"
    document = json.loads((folder / "cameras.json").read_text())
    assert [entry["name"] for entry in document["images"]] == ["0.jpg", "1.jpg"]
    np.testing.assert_allclose(document["images"][0]["t"], [-1, -2, -3])
    # The second time nothing is asked of the server, which is gone.
    assert main(["datasets", "fetch", "toy"]) == 0
    assert "4 here already" in capsys.readouterr().out
    assert find_scene("toy") == folder
    assert find_scene(folder) == folder
    assert main(["datasets", "show", "toy"]) == 0
    assert "2 cameras" in capsys.readouterr().out


def test_find_scene(only: Path) -> None:
    write_card(only)
    write_card(only, "many", "many/{scene}", 'scenes = ["one", "two"]')
    with pytest.raises(ReconError, match="recon datasets fetch toy"):
        find_scene("toy")
    with pytest.raises(UsageError, match="many/one"):
        find_scene("many")
    with pytest.raises(UsageError, match="no such folder"):
        find_scene("atlantis")


@pytest.mark.parametrize(
    ("more", "files", "message"),
    [
        ("colour = 'red'", "", "colour"),
        ("", "[[files]]\nurl = 'http://x/a'\nsum = 'x'", "sum"),
        ("", "[[files]]\nto = 'a'", "url, or base"),
        ("", "[[files]]\nurl = 'http://x/a'\nunpack = 'rar'", "rar"),
        ("", "[[files]]\nbase = 'http://x/'\nnames = ['a', 'b']\nsha256 = ['1']", "2 names and 1 checksums"),
    ],
)
def test_cards_with_mistakes(only: Path, more: str, files: str, message: str) -> None:
    write_card(only, more=more, files=files)
    with pytest.raises(UsageError, match=message):
        load_cards()


def test_cards_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a checkout, cards come from inside the package."""
    write_card(tmp_path / "site-packages" / "recon" / "cards")
    write_card(tmp_path / "site-packages" / "datasets", name="stranger")
    monkeypatch.setattr(recon, "__file__", str(tmp_path / "site-packages" / "recon" / "__init__.py"))
    assert list(load_cards()) == ["toy"]
