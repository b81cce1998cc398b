"""Exports of the mesh: OBJ and GLB."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from recon.core.frames import Y_UP_FROM_Z_UP, offset_to_origin, translation, upright_rotation
from recon.errors import ReconError, reading
from recon.exports.export import Export, Format
from recon.io.glb import model_from_scene, move_glb, read_glb
from recon.io.obj import move_obj, to_obj
from recon.io.surfaces import read_mesh, write_mesh

_AGAIN = "run again with --restart-from texture"


def _write_obj(job: Export, folder: Path) -> str:
    source, textured = job.mesh_file(".obj")
    if textured:
        job.note_bend()
        with reading(source, _AGAIN):
            text = source.read_text(encoding="utf-8")
            moved = move_obj(text, job.similarity.matrix, job.remarks())
        for name in _companions(source, text):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.parent / name, folder / name)
        (folder / "mesh.obj").write_text(moved, encoding="utf-8")
        faces = sum(line.startswith("f ") for line in text.splitlines())
        return f"textured mesh of {faces} faces"
    mesh, matrix = read_mesh(source), job.similarity.matrix
    linear = matrix[:3, :3]
    rotation = linear / np.cbrt(np.linalg.det(linear))
    normals = np.asarray(mesh.vertex_normals) @ rotation.T if mesh.has_vertex_normals() else None
    colors = np.asarray(mesh.vertex_colors) if mesh.has_vertex_colors() else None
    vertices = job.bent(np.asarray(mesh.vertices, np.float64)) @ linear.T + matrix[:3, 3]
    with (folder / "mesh.obj").open("w", encoding="ascii") as stream:
        for part in to_obj(vertices, np.asarray(mesh.triangles), normals, colors, job.remarks()):
            stream.write(part)
    return f"mesh of {len(mesh.triangles)} faces"


def _write_glb(job: Export, folder: Path) -> str:
    source, textured = job.mesh_file(".glb")
    job.note_bend()
    if textured:
        data = source.read_bytes()
    else:
        mesh = read_mesh(source)
        offset = offset_to_origin(np.asarray(mesh.vertices)[::100])
        mesh.translate(-offset)  # its vertices become single precision
        write_mesh(folder / "mesh.glb", mesh)
        data = move_glb((folder / "mesh.glb").read_bytes(), translation(offset))
    with reading(source, _AGAIN):
        matrix = job.similarity.matrix @ model_from_scene(read_glb(data)[0])
    turn = np.eye(4)
    turn[:3, :3] = Y_UP_FROM_Z_UP
    if job.georeference is None:
        # glTF says y is up; the run's frame is anything, but the photos know.
        try:
            turn[:3, :3] = upright_rotation(
                np.array([view.cam_from_world[:, :3] for view in job.scene().views])
            )
        except ValueError as error:
            job.notes.append(f"{error}: the mesh is not turned upright")
    with reading(source, _AGAIN):
        data = move_glb(data, turn @ matrix, job.facts(), fresh=True)
    (folder / "mesh.glb").write_bytes(data)
    return "mesh, y up"


def _companions(source: Path, text: str) -> list[str]:
    """Files that an OBJ needs beside it: its material libraries and their pictures."""
    names = [line.split(maxsplit=1)[1].strip() for line in text.splitlines() if line.startswith("mtllib ")]
    found = []
    for name in names:
        path = source.parent / name
        if not path.is_file():
            raise ReconError(f"{path}: is missing, {source} needs it")
        found.append(name)
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            words = line.strip().split(maxsplit=1)
            if len(words) == 2 and words[0].lower().startswith("map_"):
                found.append(words[1].strip())
    return [name for name in dict.fromkeys(found) if (source.parent / name).is_file()]


OBJ = Format(_write_obj, single_file=".obj")
GLB = Format(_write_glb, single_file=".glb")
