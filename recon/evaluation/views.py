"""Accuracy of a reconstruction's prediction of a photo that it has not seen."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float64, UInt8

from recon.core.cameras import PinholeView
from recon.core.mesh import Mesh
from recon.core.raycasting import render_vertex_colors

# Wang et al. 2004, section III-C: an 11x11 Gaussian window with deviation 1.5, K1 = 0.01, K2 = 0.03.
_SSIM_SIZE, _SSIM_SIGMA, _SSIM_K1, _SSIM_K2 = 11, 1.5, 0.01, 0.03


@dataclass(frozen=True)
class ViewReport:
    """Agreement of a predicted photo with the real one.

    Attributes:
        psnr: dB over the covered pixels.
        ssim: mean structural similarity over the covered pixels, in -1…1.
        coverage: share of the photo's pixels that the reconstruction covers.
        gain: the exposure per colour channel that was applied to the prediction.
    """

    psnr: float
    ssim: float
    coverage: float
    gain: tuple[float, float, float]


def psnr(
    image: UInt8[np.ndarray, "h w 3"],
    reference: UInt8[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"] | None = None,
) -> float:
    """Compute the peak signal-to-noise ratio in dB (peak 255); infinite for equal images, NaN for an empty
    mask."""
    difference = image.astype(np.float64) - reference
    if mask is not None:
        difference = difference[mask]
    if difference.size == 0:
        return float("nan")
    error = float((difference**2).mean())
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def ssim_map(
    image: UInt8[np.ndarray, "h w c"], reference: UInt8[np.ndarray, "h w c"]
) -> Float64[np.ndarray, "h w"]:
    """Compute the structural similarity at each pixel, averaged over the channels.

    Source: Wang, Bovik, Sheikh & Simoncelli, "Image quality assessment", TIP 2004, equation 13, with its
    Gaussian window; at the border the image is mirrored.
    """
    c1, c2 = (_SSIM_K1 * 255) ** 2, (_SSIM_K2 * 255) ** 2

    def blur(values: Float64[np.ndarray, "h w c"]) -> Float64[np.ndarray, "h w c"]:
        size = (_SSIM_SIZE, _SSIM_SIZE)
        return cv2.GaussianBlur(values, size, _SSIM_SIGMA, borderType=cv2.BORDER_REFLECT)

    a, b = image.astype(np.float64), reference.astype(np.float64)
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    value = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    )
    return value.mean(axis=-1) if value.ndim == 3 else value


def ssim(
    image: UInt8[np.ndarray, "h w c"],
    reference: UInt8[np.ndarray, "h w c"],
    mask: Bool[np.ndarray, "h w"] | None = None,
) -> float:
    """Compute the mean structural similarity; with a mask only windows that lie wholly inside it count.

    Returns:
        The mean, NaN if no window is inside the mask.
    """
    values = ssim_map(image, reference)
    if mask is None:
        return float(values.mean())
    whole = cv2.erode(mask.astype(np.uint8), np.ones((_SSIM_SIZE, _SSIM_SIZE), np.uint8)) > 0
    return float(values[whole].mean()) if whole.any() else float("nan")


def compare_view(
    predicted: UInt8[np.ndarray, "h w 3"],
    covered: Bool[np.ndarray, "h w"],
    photo: UInt8[np.ndarray, "h w 3"],
    fit_exposure: bool = True,
) -> ViewReport:
    """Compare a predicted photo with the real one where the prediction covers it.

    Args:
        predicted: (h, w, 3) uint8.
        covered: where the prediction says something.
        photo: the real photo.
        fit_exposure: scale each channel of the prediction to fit best first (the reconstruction cannot
            know the
            exposure of a photo that it has not seen).
    """
    gains = np.ones(3)
    image = predicted
    if fit_exposure and covered.any():
        p, q = predicted[covered].astype(np.float64), photo[covered].astype(np.float64)
        gains = (p * q).sum(axis=0) / np.maximum((p * p).sum(axis=0), 1e-9)
        image = np.clip(np.rint(predicted * gains), 0, 255).astype(np.uint8)
    # Pixels that are not covered take the photo's own colours so that SSIM windows at the edge stay
    # comparable.
    filled = np.where(covered[..., None], image, photo)
    return ViewReport(
        psnr(image, photo, covered),
        ssim(filled, photo, covered),
        float(covered.mean()),
        (float(gains[0]), float(gains[1]), float(gains[2])),
    )


def psnr_whole(
    picture: UInt8[np.ndarray, "h w 3"],
    covered: Bool[np.ndarray, "h w"],
    photo: UInt8[np.ndarray, "h w 3"],
    usable: Bool[np.ndarray, "h w"],
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> float:
    """Compute the PSNR over all usable pixels, where holes take the photo's mean colour: coverage and likeness in one
    number, dB."""
    guess = photo[usable].mean(axis=0)
    filled = np.where(covered[..., None], np.clip(picture * np.array(gain), 0, 255), guess)
    error = float(((filled - photo)[usable] ** 2).mean())
    return float(10 * np.log10(255**2 / error)) if error > 0 else float("inf")


def predict_from_mesh(
    mesh: Mesh, view: PinholeView, samples: int = 2
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """Predict a photo from a mesh with vertex colours; returns the picture and where the mesh covers it."""
    return render_vertex_colors(mesh, view, samples)


def predict_from_cloud(
    xyz: Float[np.ndarray, "n 3"],
    rgb: UInt8[np.ndarray, "n 3"],
    view: PinholeView,
    gap: int = 2,
    tolerance: float = 0.01,
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """Predict a photo from a cloud: the nearest points per pixel, averaged, with small gaps filled.

    Args:
        xyz, rgb: the cloud.
        view: the camera.
        gap: gaps up to about twice so many pixels are filled from their surroundings.
        tolerance: points within this share of the nearest depth are averaged.

    Returns:
        The picture and where the cloud covers it.
    """
    local = np.asarray(xyz, np.float64) @ view.cam_from_world[:, :3].T + view.cam_from_world[:, 3]
    z = local[:, 2]
    front = z > 1e-9
    image_xy = local[front] @ view.K.T
    image_xy = np.rint(image_xy[:, :2] / image_xy[:, 2:])
    inside = ((image_xy >= 0) & (image_xy < [view.width, view.height])).all(axis=1)
    column, row = image_xy[inside].astype(int).T if inside.any() else np.zeros((2, 0), int)
    index, depth = row * view.width + column, z[front][inside]
    nearest = np.full(view.width * view.height, np.inf)
    np.minimum.at(nearest, index, depth)
    if gap > 0:
        # A hole between points of a near surface must not show the far one: points are hidden by neighbours.
        box = np.ones((2 * gap + 1, 2 * gap + 1), np.uint8)
        grid = nearest.reshape(view.height, view.width).astype(np.float32)
        hidden_by = cv2.dilate(cv2.erode(grid, box), box).reshape(-1)
        nearest = np.minimum(nearest, hidden_by)
    kept = depth <= nearest[index] * (1 + tolerance)
    colors = rgb[front][inside][kept].astype(np.float64)
    weight = np.bincount(index[kept], minlength=len(nearest)).astype(np.float32)
    total = np.stack([np.bincount(index[kept], colors[:, c], len(nearest)) for c in range(3)], axis=-1)
    weight = weight.reshape(view.height, view.width)
    total = total.reshape(view.height, view.width, 3).astype(np.float32)
    covered = weight > 0
    picture = total / np.maximum(weight, 1)[..., None]
    if gap > 0:
        # Normalised convolution (Knutsson & Westin 1993) fills what a closing of the covered pixels encloses.
        box = np.ones((2 * gap + 1, 2 * gap + 1), np.uint8)
        closed = cv2.morphologyEx(covered.astype(np.uint8), cv2.MORPH_CLOSE, box) > 0
        mass = cv2.GaussianBlur(covered.astype(np.float32), (0, 0), gap / 1.5)
        spread = cv2.GaussianBlur(np.where(covered[..., None], picture, 0), (0, 0), gap / 1.5)
        filled = spread / np.maximum(mass, 1e-6)[..., None]
        picture = np.where(covered[..., None], picture, filled)
        covered = covered | (closed & (mass > 1e-3))
    picture = np.where(covered[..., None], picture, 0)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8), covered
