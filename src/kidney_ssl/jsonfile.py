"""JSON as the stages write it: sorted keys, no NaN, the same bytes for the same content."""

import json
from pathlib import Path
from typing import Any

from kidney_ssl.files import write_text


def write_json(path: Path, content: Any) -> None:
    """Write `content` with sorted keys; NaN or infinity is a bug and raises ValueError."""
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False)
    write_text(path, text + "\n")
