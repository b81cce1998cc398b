"""Does a change of the code leave every file as it was? Byte by byte, on one small seeded run.

    python benchmarks/byte_identity.py make REFERENCE --code CHECKOUT   # once
    python benchmarks/byte_identity.py check REFERENCE   # exit status 1 if it differs
    python benchmarks/byte_identity.py check REFERENCE --parts export,render

``make`` renders the scene of ``recon demo`` small, reconstructs it with ``preview``, and makes every part from that:

=========  ==========================================================================================================
scene      the rendered photos, cameras and truth
resume     the run, asked for again: every fingerprint must be the same, so nothing may be computed anew
start      a fresh run up to the tracks; so far two runs of one machine agree bit for bit
stages     the run again from ``fields`` on, on the same sparse model (pycolmap's threads make no two models equal)
single     stages one by one on the files that the reference's run holds, whatever their fingerprints: what a stage
           writes must be what is there already; for changes that raise the version of another stage
export     every format of ``recon export``, at working and at original size, undistorted and in the georeferenced frame
evaluate   ``recon evaluate scene``, ``run`` and ``matches`` with their JSON files
render     stills of each layer
match      ``recon match`` with a dense and a sparse matcher
=========  ==========================================================================================================

``check`` makes the parts with the code at hand from the run that the reference holds, and compares the SHA-256 of each
file. It prints each file that differs, is missing or is new. What cannot be equal is taken out before hashing, and
nothing else: the folder's own path, times, memory and processor seconds in texts, the machine's description, the date
in the header of LAS. ``run.log`` and lock files are left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
FORMATS = (
    "colmap", "colmap-text", "nerfstudio", "openmvg", "openmvs", "bundler", "meshroom", "ply", "las", "obj", "glb",
)  # fmt: skip
FIRST_OF_LAST = "fields"
"""The first stage after mapping."""
SIZE = (400, 300)
"""Of the photos: small, yet large enough for a mesh."""

_TEXTS = {".json", ".txt", ".html", ".csv", ".toml", ".xml", ".md"}
_VARYING = re.compile(
    rb'"seconds": *\{[^}]*\}|'
    rb'"[a-z_]*(?:seconds|memory|peak|_mb|started|machine|host|pid|time|date|load)[a-z_]*": *(?:"[^"]*"|[-0-9.e]+)'
    rb"|[-0-9.]+ *(?:ms|s|min|h|MB|GB|MiB|GiB)\b"
    rb"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?"
    # Checksums of files that hold times; rows of the tables of times in report.html and summary.txt.
    rb'|"(?:matching|mesh/texture)\.json": *"[0-9a-f]{32}"'
    rb'|<td class="bar-cell"><span style="width:[\d.]+%"></span>[\d.]*</td>\s*<td>[\d.]*</td><td>[\d.]*</td>'
    rb'|<th scope="row">in all</th>(?:<td>[\d.]*</td>)+'
    rb"|^(?:[a-z]+|in all) +[\d.]+ +\d+$",
    re.MULTILINE,
)
_LEFT_OUT = {"run.log", ".lock"}
_SCENE = """
import importlib, sys
from pathlib import Path
def find(name, *modules):
    for module in modules:
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            pass
make = find("make_scene", "recon.synthetic.presets", "recon.datasets.synthetic")
write = find("write_scene", "recon.synthetic.files", "recon.datasets.synthetic")
write(make("demo", size=({}, {}), coarseness=3.0), Path(sys.argv[1]))
""".format(*SIZE)


SINGLE = ("features", "tracks", "fields", "fuse", "mesh", "texture")
"""Stages that are run one by one."""
_SINGLE = """
import sys
from pathlib import Path
from recon.api import stages
from recon.engine.recipe import load_recipe
from recon.engine.stage import StageContext
every = stages()
recipe = load_recipe("siftflow", every, "preview")
for stage in every:
    if stage.name in sys.argv[2:]:
        work = StageContext(root=Path(sys.argv[1]), stage=stage.name, fingerprint="single")
        stage.run(recipe.settings[stage.name], work)
"""


class Maker:
    """Makes the parts of one folder with the code of one checkout."""

    def __init__(self, code: Path, root: Path) -> None:
        self.code, self.root = code, root
        self.scene, self.run = root / "scene", root / "run"

    def python(self, *words: object, stdin: str | None = None) -> str:
        """Run Python with the checkout's code; its standard output."""
        env = {**os.environ, "PYTHONPATH": str(self.code), "COLUMNS": "200"}
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            env=env,
            input=stdin,
            capture_output=True,
            text=True,
            cwd=self.root,
        )
        if done.returncode:
            raise SystemExit(f"failed: {' '.join(map(str, words))}\n{done.stdout}{done.stderr}")
        return done.stdout

    def recon(self, *words: object) -> str:
        """Run the command line."""
        return self.python("-c", "import sys; from recon.cli import main; sys.exit(main())", *words)

    def reconstruct(self, out: Path, *more: object) -> None:
        """``recon reconstruct`` of the scene, with one thread."""
        self.recon(
            "reconstruct", self.scene / "images", "--out", out, "--quality", "preview",
            "--intrinsics", self.scene / "cameras.json", "--threads", "1", *more,
        )  # fmt: skip

    def make_scene(self, out: Path) -> None:
        self.python("-c", _SCENE, out)

    def make_resume(self, out: Path) -> None:
        shutil.copytree(self.run, out)
        before = _states(out)
        self.reconstruct(out)
        if _states(out) != before:
            print(f"resume: stages before {before}\n        stages now {_states(out)}")

    def make_start(self, out: Path) -> None:
        self.reconstruct(out, "--stop-after", "tracks")

    def make_stages(self, out: Path) -> None:
        shutil.copytree(self.run, out)
        self.reconstruct(out, "--restart-from", FIRST_OF_LAST)

    def make_single(self, out: Path) -> None:
        shutil.copytree(self.run, out)
        self.python("-c", _SINGLE, out, *SINGLE)

    def make_export(self, out: Path) -> None:
        georeferenced = out / "run"  # a copy: 'recon georeference' writes into it
        shutil.copytree(self.run, georeferenced)
        self.recon("georeference", georeferenced, "--length", f"{self._photo(0)},{self._photo(1)}=2.5")
        ways = {
            "working": (),
            "original": ("--size", "original"),
            "undistorted": ("--undistort",),
            "bare": ("--no-images",),
            "georeferenced": ("--georeferenced",),
        }
        for name, options in ways.items():
            for kind in FORMATS:
                if (name, kind) != ("bare", "openmvs"):
                    self.recon("export", georeferenced, "--to", kind, "--out", out / name / kind, *options)
        shutil.copy(georeferenced / "georeference.json", out)
        shutil.rmtree(georeferenced)

    def _photo(self, number: int) -> str:
        return sorted(path.name for path in (self.scene / "images").iterdir())[number]

    def make_evaluate(self, out: Path) -> None:
        out.mkdir()
        for name in ("scene", "run", "matches"):
            where = ("--scene", self.scene) if name == "scene" else ("--truth", self.scene)
            more = () if name == "scene" else ("--json", out / f"{name}.json")
            (out / f"{name}.txt").write_text(self.recon("evaluate", name, self.run, *where, *more))

    def make_render(self, out: Path) -> None:
        for layer in ("textured", "mesh", "dense", "sparse"):
            self.recon(
                "render", self.run, "--out", out / f"{layer}.png", "--layer", layer, "--size", "240x160", "--cameras",
                "--threads", "1",
            )  # fmt: skip

    def make_match(self, out: Path) -> None:
        for matcher in ("siftflow", "sift"):
            a, b = (self.scene / "images" / self._photo(number) for number in (0, 1))
            self.recon("match", a, b, "--out", out / matcher, "--matcher", matcher, "--max-size", "160")

    def part(self, name: str) -> dict[str, str]:
        """Make one part in a fresh folder and hash its files."""
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=self.root) as folder:
            out = Path(folder).resolve() / "part"
            make: Callable[[Path], None] = getattr(self, f"make_{name}")
            make(out)
            keep = os.environ.get("BYTE_IDENTITY_KEEP")
            if keep:
                shutil.copytree(out, Path(keep) / name, dirs_exist_ok=True)
            return self.hashes_of(out)

    def hashes_of(self, folder: Path) -> dict[str, str]:
        """Hashes of the files below a folder, without where it lies."""
        names = {str(folder): b"<part>"} | {
            str(self.run.resolve()): b"<root>/run"
        }  # a part may be a copy of the run
        names |= {str(self.root.resolve()): b"<root>", str(self.code): b"<code>"}
        return hashes(folder, names) if folder.is_dir() else {}


PARTS = tuple(name[5:] for name in vars(Maker) if name.startswith("make_"))


def _states(run: Path) -> dict[str, tuple[str, str, float]]:
    stages = json.loads((run / "manifest.json").read_text())["stages"]
    return {name: (one["fingerprint"], one["state"], one["seconds"]) for name, one in stages.items()}


def hashes(folder: Path, names: dict[str, bytes]) -> dict[str, str]:
    """SHA-256 of every file below a folder, without what varies between two runs of the same code."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or path.name in _LEFT_OUT:
            continue
        data = path.read_bytes()
        for text, instead in names.items():
            data = data.replace(text.encode(), instead)
        if path.suffix in _TEXTS:
            data = _VARYING.sub(b"#", data)
        if path.suffix == ".las":  # day and year of creation: bytes 90 to 93 of the header
            data = data[:90] + data[94:]
        found[name] = hashlib.sha256(data).hexdigest()
    return found


def compare(part: str, before: dict[str, str], now: dict[str, str]) -> int:
    """Print the differences of one part; how many there are."""
    lines = [f"  missing  {name}" for name in before if name not in now]
    lines += [f"  new      {name}" for name in now if name not in before]
    lines += [f"  differs  {name}" for name in before if name in now and before[name] != now[name]]
    print(f"{part}: {len(before)} files, {len(lines)} differences", *lines, sep="\n", flush=True)
    return len(lines)


def main() -> None:
    """Make a reference, or compare with one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("make", "check"))
    parser.add_argument("reference", type=Path, help="folder of the reference")
    parser.add_argument(
        "--code", type=Path, default=HERE, help="checkout whose code is used; this one by default"
    )
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    options = parser.parse_args()
    reference, manifest = options.reference.resolve(), options.reference.resolve() / "hashes.json"
    parts = options.parts.split(",")
    unknown = set(parts) - set(PARTS)
    if unknown:
        parser.error(f"--parts {','.join(sorted(unknown))}: there are {','.join(PARTS)}")
    maker = Maker(options.code.resolve(), reference)
    if options.what == "make":
        reference.mkdir(parents=True, exist_ok=True)
        if not maker.scene.exists():
            maker.make_scene(maker.scene)
        maker.reconstruct(maker.run)
    stored = json.loads(manifest.read_text()) if manifest.is_file() else {}
    stored["single"] = maker.hashes_of(maker.run)  # the run itself is what its stages must write again
    differences = 0
    for name in parts:
        made = maker.part(name)
        if options.what == "check":
            differences += compare(name, stored[name], made)
            continue
        stored[name] = made
        manifest.write_text(json.dumps(stored, indent=1) + "\n")
        print(f"{name}: {len(made)} files", flush=True)
    if options.what == "check":
        print("equal" if not differences else f"{differences} differences")
        sys.exit(differences > 0)


if __name__ == "__main__":
    main()
