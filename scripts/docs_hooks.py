"""Pages of the site that are files at the root of the repository, their links adapted."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
_REPOSITORY = Path(__file__).parents[1]


def on_files(files: Files, config: Any) -> Files:
    """Add the pages."""
    for source, page in _PAGES.items():
        text = (_REPOSITORY / source).read_text(encoding="utf-8")
        text = re.sub(r"\]\(docs/", "](", text)
        for name, target in _PAGES.items():
            text = text.replace(f"]({name})", f"]({target})")
        # Other files of the repository have no page.
        text = re.sub(
            r"\[([^\]]*)\]\((?:lerobot_topreward|examples|benchmarks)/[^)]*\)", r"\1", text
        )
        files.append(File.generated(config, page, content=text))
    return files
