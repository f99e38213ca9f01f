"""Pictures in rows."""

import numpy as np
from PIL import Image


def image_grid(images, columns):
    """Lays pictures out in rows.

    Args:
        images: uint8 array `(num_rows * columns, height, width, 3)`.
        columns: int.

    Returns:
        A `PIL.Image.Image`.
    """
    rows = np.split(images, len(images) // columns)
    return Image.fromarray(np.concatenate([np.concatenate(row, 1) for row in rows]))
