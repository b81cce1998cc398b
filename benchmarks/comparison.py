"""All matchers that run here on real and rendered scenes: makes docs/comparison.md and its pictures.

    python benchmarks/comparison.py [--scenes NAME ...] [--only MATCHER ...] [--keep FOLDER] [--write-only]

Every scene's comparison stays in the folder (``comparison-output`` by default) with its own comparison.html; a second
call computes only what is missing and writes the document again. The document is docs/comparison.in.md, in which the
reading stands, with the results in the places of lines like ``<!-- seeds -->``; a part of which the folder has no
scene stays as it stands in the document.

Scenes: fountain-P11, Herz-Jesus-P8, entry-P10 and sceaux_castle at 640 pixels, and four rendered ones of six photos at
480x360. The further scenes (named by --scenes) are one of these rendered ones, and again in other looks, for the
matchers in ``FURTHER``. In the document all have three seeds (--seeds 3).
Settings are those of quality preview with fewer pairs and anchors and coarser depth maps (``SETTINGS``), the same for
every matcher; intrinsics are known where the truth has them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from _common import data_root, machine, table

from recon.compare.engine import compare_scene
from recon.compare.metrics import written
from recon.compare.options import Options
from recon.compare.plan import Scene, contenders, find_scene
from recon.compare.report import write_comparison
from recon.compare.results import of_placed_photos
from recon.compare.tables import standing
from recon.errors import ReconError
from recon.evaluation.bootstrap import paired_difference, statistic

REPOSITORY = Path(__file__).resolve().parent.parent
DOCUMENT = REPOSITORY / "docs" / "comparison.md"
TEMPLATE = REPOSITORY / "docs" / "comparison.in.md"
PICTURES = REPOSITORY / "docs" / "images" / "comparison"
PLACES = {part: f"<!-- {part} -->" for part in ("seeds", "further")}

MATCHERS = (
    "siftflow",
    "siftflow-geometric",
    "dsift-flow",
    "sift",
    "dis",
    "farneback",
    "aliked+lightglue",
    "xfeat",
)

FURTHER = ("siftflow", "sift", "dhpf-siftflow", "dhpf", "hpf", "sls", "disk+lightglue")
"""Matchers of the further scenes: semantic and learned ones and Scale-less SIFT, beside two of the above."""

CHOICE = {"seeds": MATCHERS, "further": FURTHER}

SETTINGS = (
    "features.first_octave=-1",
    "pairs.neighbours=5",
    "tracks.max_anchors=800",
    "depth.max_size=320",
    "mesh.depth=8",
)

# Okabe & Ito's colours that can be told apart whatever one's eyes, and dashes for whoever prints in grey.
COLORS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8a7a00", "#4b4f57")
DASHES = ("-", "--", "-.", ":", "-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


@dataclass(frozen=True)
class Case:
    """A scene of the comparison: a data set, or a rendered scene at stated difficulties."""

    name: str
    what: str
    rendered: str = ""
    difficulty: dict[str, float] = field(default_factory=dict)
    leave_out: int = 0
    part: str = "seeds"
    other_looks: bool = False


CASES = (
    Case("Herz-Jesus-P8", "8 photos of a church door, surveyed cameras"),
    Case("fountain-P11", "11 photos of a fountain, surveyed cameras"),
    Case("rendered-facade", "a façade, photographed as one should", "facade"),
    Case(
        "rendered-zoom",
        "a rock face, every second photo from 2.5 times as far",
        "rocks",
        {"zoom": 2.5},
    ),
    Case(
        "rendered-plain",
        "a façade with three quarters of its texture's contrast gone, and noise",
        "facade",
        {"low_texture": 0.75, "noise": 6.0},
    ),
    Case(
        "rendered-wide",
        "an object with highlights, 16 degrees between neighbours",
        "object",
        {"baseline": 16.0, "specularity": 0.5},
    ),
    Case("entry-P10", "10 photos of an entrance, surveyed cameras"),
    Case("sceaux_castle", "11 photos of a castle, nothing known; one photo left out", leave_out=1),
    Case(
        "further-facade",
        "the same façade as above, photographed as one should, for other matchers",
        "facade",
        part="further",
    ),
    Case(
        "further-looks",
        "the same façade, but every second photo looks otherwise: tones rise and fall (v becomes 1 - |2v - 1|) and red "
        "and blue are exchanged, as no change of exposure does",
        "facade",
        part="further",
        other_looks=True,
    ),
)

COLUMNS = (
    ("registered.share", "registered"),
    ("run.registered", "registered"),
    ("poses.auc_1", "AUC 1°"),
    ("poses.auc_5", "AUC 5°"),
    ("poses.mean_error", "centre error"),
    ("matches.precision_1px", "precision 1 px"),
    ("matches.correct_coverage", "correct coverage"),
    ("depth.correct_1pct_share", "depth right to 1%"),
    ("points.f_20mm", "points F 20 mm"),
    ("mesh.f_20mm", "mesh F 20 mm"),
    ("run.depth_share", "depth on pixels"),
    ("photo_consistency", "photo-consistency"),
    ("left_out.mesh_psnr_whole", "left-out PSNR / dB"),
    ("left_out.mesh_ssim", "left-out SSIM"),
    ("cost.seconds_per_pair", "s a pair"),
    ("cost.seconds", "s in all"),
    ("cost.peak_memory_mb", "peak MB"),
)

# Measures whose range over the seeds is shown.
SPREAD = (
    "points.f_20mm",
    "mesh.f_20mm",
    "run.depth_share",
    "photo_consistency",
    "cost.seconds_per_pair",
    "cost.seconds",
    "cost.peak_memory_mb",
)

MARKS = (
    "**Bold**: best of the scene. ≈: cannot be told from the best (95% paired bootstrap over the same photos or "
    "pairs; surfaces by what each photo sees; or, of several seeds, ranges over them that overlap). ↓: worse than the "
    "best by more than that. A column with ° in its heading is of one run of each matcher and of the whole run: "
    "nothing says how large its noise is, so nothing in it is marked, and its differences must not be taken for the "
    "matchers'. ?: the same of one figure. In square brackets: of fewer photos than others placed, not compared. In "
    "round ones: smallest and largest over the seeds, with the median before them."
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--scenes", nargs="*", default=[case.name for case in CASES if case.part != "further"]
    )
    parser.add_argument("--only", nargs="*", default=[], metavar="MATCHER")
    parser.add_argument("--keep", type=Path, default=REPOSITORY / "comparison-output")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seeds", type=int, default=1, help="runs per matcher; ranges over them are shown")
    parser.add_argument(
        "--once", nargs="*", default=[], metavar="MATCHER", help="one run of these all the same"
    )
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--write-only", action="store_true", help="write the document from what is there")
    args = parser.parse_args()
    unknown = sorted(set(args.scenes) - {case.name for case in CASES})
    if unknown:
        parser.error(f"no scene {', '.join(unknown)}; there are: {', '.join(case.name for case in CASES)}")
    began = time.perf_counter()
    for case in CASES:
        if case.name in args.scenes and not args.write_only:
            start = time.perf_counter()
            try:
                compare(case, args)
            except ReconError as error:
                say(f"{case.name}: {error}")
            say(
                f"{case.name}: {time.perf_counter() - start:.0f} s, {time.perf_counter() - began:.0f} s in all"
            )
    write_document(args.keep)
    say(f"written: {DOCUMENT}")


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def compare(case: Case, args: argparse.Namespace) -> None:
    """Run one scene; its results are on disk afterwards."""
    out = args.keep / case.name
    options = Options(
        quality="preview",
        threads=args.threads,
        leave_out=case.leave_out,
        stop_after="mesh",
        seeds=args.seeds,
        once=tuple(args.once),
    )
    chosen = contenders(args.only or CHOICE[case.part], (*SETTINGS, *args.overrides))
    result = compare_scene(scene_of(case, out), chosen, options, out, say)
    write_comparison([result], out)
    (out / "machine.txt").write_text(machine() + "\n", encoding="utf-8")


def scene_of(case: Case, out: Path) -> Scene:
    if not case.rendered:
        from recon.datasets.cards import load_card

        card = load_card(case.name)
        return find_scene(card.folder(data_root()) / ("" if card.convention else card.layout["images"]))
    from recon.synthetic.difficulties import render_benchmark_scene

    truth = render_benchmark_scene(
        out / "scene", scene=case.rendered, seed=4, photos=6, size=(480, 360), **case.difficulty
    )
    if case.other_looks:
        return find_scene(with_other_looks(truth.images, out / "photos"), out / "scene")
    return Scene(case.name, truth.images, truth, out / "scene")


def with_other_looks(photos: Path, out: Path) -> Path:
    """The photos, every second one with tones that rise and fall, red and blue exchanged."""
    out.mkdir(parents=True, exist_ok=True)
    for index, path in enumerate(sorted(one for one in photos.iterdir() if one.is_file())):
        picture = cv2.imread(str(path))
        if index % 2:
            tones = 1 - np.abs(2 * picture[..., ::-1].astype(np.float32) / 255 - 1)
            picture = np.rint(255 * tones).astype(np.uint8)
        cv2.imwrite(str(out / path.with_suffix(".png").name), picture)
    return out


# The document


def write_document(keep: Path) -> None:
    """docs/comparison.md from its template and from the results that are there."""
    found = []
    for case in CASES:
        path = keep / case.name / "comparison.json"
        if path.is_file():
            data = json.loads(path.read_text(encoding="utf-8"))
            found.append((case, data, data["scenes"][0], keep / case.name))
    text = TEMPLATE.read_text(encoding="utf-8")
    before = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.is_file() else ""
    for part, place in PLACES.items():
        if place not in text:
            raise SystemExit(f"{TEMPLATE}: has no line {place}")
        start, end = f"<!-- {part}: begin -->\n", f"\n<!-- {part}: end -->"
        here = [one for one in found if one[0].part == part]
        old = before.partition(start)[2].partition(end)[0]
        text = text.replace(place, f"{start}{old if old and not here else results(here, part)}{end}")
    PICTURES.mkdir(parents=True, exist_ok=True)
    note = (
        "<!-- Made by benchmarks/comparison.py; the words are in comparison.in.md: change them there. -->\n\n"
    )
    DOCUMENT.write_text(note + text, encoding="utf-8")


def results(found: Sequence[tuple[Case, dict[str, Any], dict[str, Any], Path]], part: str) -> str:
    if not found:
        return "No results yet: run `python benchmarks/comparison.py`."
    _, data, _, folder = found[0]
    versions = data["versions"]
    computer = (folder / "machine.txt").read_text(encoding="utf-8").strip()
    parts = [
        f"Machine: {computer}. Versions: "
        + ", ".join(
            f"{name} {versions[name]}"
            for name in ("recon", "pycolmap", "opencv-python", "torch")
            if name in versions
        )
        + ".",
        f"Settings beyond quality `preview`: {', '.join(f'`{text}`' for text in SETTINGS)}.",
        "",
        MARKS,
        "",
        "### How often best, or not to be told from the best",
        "",
        wins([(case, scene) for case, _, scene, _ in found]),
        "",
        *seeds_told_apart(found),
    ]
    if part == "seeds":
        overview_chart([(case, scene) for case, _, scene, _ in found], PICTURES / "overview.png")
        parts += ["![Quality of every matcher on every scene](images/comparison/overview.png)", ""]
    for case, data, scene, folder in found:
        parts += [
            f"### {case.name}",
            "",
            f"{case.what[:1].upper()}{case.what[1:]}; {scene['pairs']} pairs.",
            "",
        ]
        parts += [scene_table(scene, data["metrics"]), ""]
        failed = [one for one in scene["contenders"] if one["state"] == "failed"]
        parts += [f"- `{one['label']}` failed: {one['error']}" for one in failed]
        parts += [""] if failed else []
        if curves_chart(scene, PICTURES / f"{case.name}-curves.png"):
            parts += [f"![Curves on {case.name}](images/comparison/{case.name}-curves.png)", ""]
        for kind, text in (
            ("pairs", "Matches of the hardest pair"),
            ("depth", "Depth maps"),
            ("left_out", "The left-out photo"),
        ):
            name = f"{case.name}-{kind.replace('_', '-')}.jpg"
            if sheet(scene, folder / "pictures", kind, PICTURES / name):
                parts += [f"{text}:", "", f"![{text} on {case.name}](images/comparison/{name})", ""]
    return "\n".join(parts).rstrip()


def seeds_told_apart(found: Sequence[tuple[Case, dict[str, Any], dict[str, Any], Path]]) -> list[str]:
    """What marks over photos or pairs alone are worth: how often they tell two seeds of one matcher apart."""
    counts = {name: [0, 0] for name, _ in COLUMNS}
    for _, _, scene, folder in found:
        for one in scene["contenders"]:
            files = [
                path
                for pattern in (f"runs-{one['label']}.json", f"runs-{one['label']}.seed-*.json")
                for path in sorted((folder / "judged").glob(pattern))
            ]
            runs = [json.loads(path.read_text(encoding="utf-8"))["value"]["samples"] for path in files]
            for a, b in itertools.combinations(runs, 2):
                for name in (name for name in counts if name in a and name in b):
                    kind = statistic(a[name]["statistic"])
                    test = paired_difference(a[name]["values"], b[name]["values"], kind)
                    counts[name][0] += not test.inside_noise
                    counts[name][1] += 1
    said = [
        f"{heading} {counts[name][0]} of {counts[name][1]}" for name, heading in COLUMNS if counts[name][1]
    ]
    if not said:
        return []
    return [
        "What marks over photos or pairs alone would be worth: how many pairs of seeds of one matcher they would tell "
        f"apart: {', '.join(said)}.",
        "",
    ]


def columns_of(scene: dict[str, Any]) -> list[tuple[str, str]]:
    have = {
        name for one in scene["contenders"] for name, value in one["metrics"].items() if value is not None
    }
    taken: list[tuple[str, str]] = []
    for name, heading in COLUMNS:
        if name in have and heading not in [other for _, other in taken]:
            taken.append((name, heading))
    return taken


def scene_table(scene: dict[str, Any], metrics: dict[str, Any]) -> str:
    columns = columns_of(scene)
    rows = []
    for one in scene["contenders"]:
        row = [one["label"] + (" (failed)" if one["state"] == "failed" else "")]
        for name, _ in columns:
            value = one["metrics"].get(name)
            unit = metrics.get(name, {}).get("unit", "")
            if name == "poses.mean_error" and value is not None and scene["truth_unit"] == "m":
                text = f"{1000 * value:.1f} mm"
            else:
                text = written(value, unit)
            ends = one["spread"].get(name)
            if name in SPREAD and ends and ends[0] < ends[1]:
                text += " ({} to {})".format(*(written(end, unit) for end in ends))
            row.append(marked(text, scene, name, one) if value is not None else text)
        rows.append(row)
    headings = [heading if tested(scene, name) else f"{heading}°" for name, heading in columns]
    return table(rows, ["matcher", *headings])


def tested(scene: dict[str, Any], name: str) -> bool:
    """True where noise is known of a measure, for two matchers at least."""
    return bool(scene["rankings"].get(name, {}).get("tested"))


def marked(text: str, scene: dict[str, Any], name: str, one: dict[str, Any]) -> str:
    """A figure with what can be said of it beside the best of its scene."""
    if not tested(scene, name):
        return text
    verdict = standing(scene["rankings"][name], one["label"])
    placed = [
        c["metrics"].get("registered.share", c["metrics"].get("run.registered", 0.0))
        for c in (one, *scene["contenders"])
    ]
    if not verdict and of_placed_photos(name) and placed[0] < max(placed):
        return f"[{text}]"
    return {"best": f"**{text}**", "within noise": f"{text} ≈", "worse": f"{text} ↓"}.get(
        verdict, f"{text} ?"
    )


def wins(found: Sequence[tuple[Case, dict[str, Any]]]) -> str:
    """How often each matcher is best or ties, by measure whose noise is known."""
    judged = [
        ("poses.auc_5", "cameras, AUC 5°"),
        ("matches.precision_1px", "precision 1 px"),
        ("matches.correct_coverage", "correct coverage"),
        ("depth.correct_1pct_share", "depth right to 1%"),
        ("mesh.f_20mm", "mesh F 20 mm"),
        ("photo_consistency", "photo-consistency"),
    ]
    judged = [one for one in judged if any(tested(scene, one[0]) for _, scene in found)]
    labels = list(dict.fromkeys(one["label"] for _, scene in found for one in scene["contenders"]))
    rows = []
    for label in labels:
        row = [label]
        for name, _ in judged:
            scenes = [scene for _, scene in found if tested(scene, name)]
            marks = [standing(scene["rankings"][name], label) for scene in scenes]
            row.append(f"{marks.count('best')} + {marks.count('within noise')} of {len(scenes)}")
        done = sum(
            one["state"] == "done"
            for _, scene in found
            for one in scene["contenders"]
            if one["label"] == label
        )
        there = sum(any(one["label"] == label for one in scene["contenders"]) for _, scene in found)
        rows.append([*row, f"{done} of {there}"])
    return table(rows, ["matcher", *(f"{heading}: best + ≈" for _, heading in judged), "runs finished"])


def overview_chart(found: Sequence[tuple[Case, dict[str, Any]]], path: Path) -> None:
    """Small multiples: a row for each measure, a group of bars for each scene, with intervals."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    measures = [
        ("poses.auc_5", "cameras: AUC 5°"),
        ("matches.correct_coverage", "correct coverage"),
        ("depth.correct_1pct_share", "depth right to 1%"),
        ("mesh.f_20mm", "mesh: F 20 mm"),
        ("cost.seconds_per_pair", "seconds a pair"),
    ]
    known = {
        n for _, scene in found for c in scene["contenders"] for n, v in c["metrics"].items() if v is not None
    }
    measures = [one for one in measures if one[0] in known]
    labels = list(dict.fromkeys(one["label"] for _, scene in found for one in scene["contenders"]))
    figure, grid = plt.subplots(
        len(measures), 1, figsize=(10, 1.9 * len(measures) + 0.8), sharex=True, squeeze=False
    )
    axes = grid[:, 0]
    width = 0.84 / max(len(labels), 1)
    for axis, (name, heading) in zip(axes, measures, strict=True):
        for index, label in enumerate(labels):
            for place, (_, scene) in enumerate(found):
                one = next((c for c in scene["contenders"] if c["label"] == label), None)
                value = None if one is None else one["metrics"].get(name)
                if one is None or value is None:
                    continue
                x = place - 0.42 + (index + 0.5) * width
                axis.bar(x, value, width * 0.92, color=COLORS[index % 8], label=label if place == 0 else None)
                ends = one["intervals"].get(name)
                if ends and None not in ends:
                    axis.plot([x, x], ends, color="#222222", linewidth=0.9)
        axis.set_ylabel(heading, fontsize=9)
        axis.grid(axis="y", color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.tick_params(labelsize=8)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
        if name.startswith("cost"):
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("")
        else:
            axis.set_ylim(0, 1.02)
    axes[-1].set_xticks(range(len(found)), [case.name for case, _ in found], fontsize=8, rotation=15)
    handles = [plt.Rectangle((0, 0), 1, 1, color=COLORS[i % 8]) for i in range(len(labels))]
    figure.legend(handles, labels, ncol=4, loc="upper center", fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.94))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def curves_chart(scene: dict[str, Any], path: Path) -> bool:
    """Error-over-threshold curves of a scene; returns whether there are any."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    wanted = [
        ("poses.error", "pairs of cameras, pose error / °", 2.0),
        ("matches.epipolar", "matches, epipolar error / px", 5.0),
        ("mesh.precision", "mesh: precision / m", math.inf),
        ("mesh.recall", "mesh: recall / m", math.inf),
    ]
    here = [one for one in wanted if any(one[0] in c["curves"] for c in scene["contenders"])]
    if not here:
        path.unlink(missing_ok=True)
        return False
    figure, axes = plt.subplots(1, len(here), figsize=(3.4 * len(here) + 0.4, 3.3), squeeze=False)
    for axis, (name, heading, limit) in zip(axes[0], here, strict=True):
        for index, one in enumerate(scene["contenders"]):
            curve = one["curves"].get(name)
            if curve is None or not curve["x"]:
                continue
            axis.plot(
                curve["x"],
                curve["y"],
                color=COLORS[index % 8],
                linestyle=DASHES[index % 8],
                marker=MARKERS[index % 8],
                markevery=max(1, len(curve["x"]) // 6),
                markersize=4,
                linewidth=1.6,
                label=one["label"],
            )
        if math.isfinite(limit):
            axis.set_xlim(0, limit)
        axis.set_ylim(0, 1.02)
        axis.set_xlabel(heading, fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(color="#dddddd", linewidth=0.6)
    axes[0][0].set_ylabel("share", fontsize=9)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, ncol=4, loc="upper center", fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.86))
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return True


def sheet(scene: dict[str, Any], folder: Path, kind: str, path: Path) -> bool:
    """One picture of the panels of a group: the hardest pair, the first photo; returns whether there is one."""
    groups = scene["pictures"].get(kind) or []
    if not groups:
        path.unlink(missing_ok=True)
        return False
    panels = groups[-1 if kind == "pairs" else 0]["panels"]
    columns = 3
    width = 330 if kind == "pairs" else 250
    tiles = []
    for panel in panels:
        picture = cv2.imread(str(folder / panel["file"]))
        if picture is None:
            continue
        picture = cv2.resize(
            picture, (width, round(picture.shape[0] * width / picture.shape[1])), interpolation=cv2.INTER_AREA
        )
        tile = np.full((picture.shape[0] + 22, width + 8, 3), 255, np.uint8)
        tile[22:, 4:-4] = picture
        cv2.putText(
            tile, panel["label"], (5, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (30, 30, 30), 1, cv2.LINE_AA
        )
        tiles.append(tile)
    if not tiles:
        return False
    height = max(tile.shape[0] for tile in tiles)
    tiles = [
        cv2.copyMakeBorder(t, 0, height - t.shape[0], 0, 0, cv2.BORDER_CONSTANT, value=(255, 255, 255))
        for t in tiles
    ]
    while len(tiles) % columns:
        tiles.append(np.full_like(tiles[0], 255))
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    cv2.imwrite(str(path), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 80])
    return True


if __name__ == "__main__":
    if shutil.disk_usage(REPOSITORY).free < 5e9:
        print("less than 5 GB of disk are free; the runs may not fit", flush=True)
    main()
