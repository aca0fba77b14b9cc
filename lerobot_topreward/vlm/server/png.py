"""Images as they travel: PNG in base64, which loses nothing."""

import base64
import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def encode_png(image: UInt8[np.ndarray, "height width 3"]) -> str:
    """Encode an RGB image."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG", compress_level=1)
    return base64.b64encode(buffer.getvalue()).decode()
