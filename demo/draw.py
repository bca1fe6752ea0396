"""Draws the data set of the demo: PNG digits of 28 x 28 pixels, one folder for each label."""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

__all__ = ["draw_digits"]

SIDE = 28


def draw_digits(directory: Path, count: int, *, seed: int = 0) -> None:
    """Write ``count`` files ``directory/<label>/<number>.png``: shifted, turned, in several sizes."""
    rng = random.Random(seed)
    fonts = [ImageFont.load_default(size) for size in (18, 20, 22, 24)]
    for label in range(10):
        (directory / str(label)).mkdir(parents=True, exist_ok=True)
    for number in tqdm(range(count), desc="  drawing", unit="file", mininterval=1):
        label = number % 10
        picture = Image.new("L", (SIDE, SIDE), 0)
        at = (SIDE / 2 + rng.uniform(-2, 2), SIDE / 2 + rng.uniform(-2, 2))
        ImageDraw.Draw(picture).text(
            at, str(label), fill=rng.randint(150, 255), font=rng.choice(fonts), anchor="mm"
        )
        picture = picture.rotate(rng.uniform(-12, 12), resample=Image.Resampling.BILINEAR)
        picture.save(directory / str(label) / f"{number:06}.png")
