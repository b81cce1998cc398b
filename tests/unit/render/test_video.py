"""Films are read back by another program's decoder."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from recon.errors import ReconError, UsageError
from recon.render.video import write_video


def frames(count: int = 12, width: int = 160, height: int = 90) -> list[np.ndarray]:
    """A bright square that moves to the right over a coloured ground."""
    made = []
    for index in range(count):
        frame = np.empty((height, width, 3), np.uint8)
        frame[:] = (200, 80, 40)
        frame[30:60, 8 * index : 8 * index + 30] = (20, 220, 120)
        made.append(frame)
    return made


def read(path: Path) -> tuple[list[np.ndarray], float]:
    film = cv2.VideoCapture(str(path))
    found = []
    while True:
        good, frame = film.read()
        if not good:
            return found, float(film.get(cv2.CAP_PROP_FPS))
        found.append(frame[..., ::-1])


@pytest.mark.parametrize(
    ("name", "coder"), [("a.mp4", "av"), ("a.webm", "av"), ("a.mp4", "cv2"), ("a.webm", "cv2")]
)
def test_a_film_shows_what_was_put_in(
    tmp_path: Path, name: str, coder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if coder == "av":
        pytest.importorskip("av")
    else:
        monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / "ein film ü" / name
    path.parent.mkdir()
    wanted = frames()
    count, coding = write_video(path, iter(wanted), 25.0)
    assert count == 12
    assert coding == {("a.mp4", "av"): "H.264", ("a.webm", "av"): "VP9"}.get((name, coder), "VP9, by OpenCV")
    found, fps = read(path)
    assert len(found) == 12
    assert fps == pytest.approx(25.0)
    for one, two in zip(found, wanted, strict=True):
        assert one.shape == two.shape
        # Colours come back as they were: matrix and range are told, not guessed.
        np.testing.assert_allclose(one[5:20, 5:150].mean(axis=(0, 1)), [200, 80, 40], atol=6)
        assert np.abs(one.astype(int) - two).mean() < 6
    assert np.abs(found[0].astype(int) - found[-1]).mean() > 10


def test_mp4_starts_with_its_index(tmp_path: Path) -> None:
    """A browser plays it while it loads, and every phone knows the pixel format."""
    av = pytest.importorskip("av")
    write_video(tmp_path / "a.mp4", frames(), 30.0)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(tmp_path / "a.mp4")) as film:
        context = film.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, int(context.colorspace)) == ("h264", "yuv420p", 1)


def test_films_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"\.mp4, \.webm"):
        write_video(tmp_path / "a.avi", frames(), 30.0)
    with pytest.raises(UsageError, match="odd side"):
        write_video(tmp_path / "a.mp4", frames(width=161), 30.0)
    with pytest.raises(ReconError, match="without pictures"):
        write_video(tmp_path / "a.mp4", [], 30.0)
    with pytest.raises(ReconError, match="cannot be written"):
        write_video(tmp_path / "nowhere" / "a.mp4", frames(), 30.0)

    class Closed:
        fourcc = staticmethod(cv2.VideoWriter.fourcc)

        def __init__(self, *_: object) -> None: ...

        def isOpened(self) -> bool:  # noqa: N802
            return False

        def release(self) -> None: ...

    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr(cv2, "VideoWriter", Closed)
    with pytest.raises(ReconError, match="pip install av"):
        write_video(tmp_path / "b.mp4", frames(), 30.0)
