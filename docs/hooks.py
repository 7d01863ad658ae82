"""What mkdocs.yml cannot say: pages that lie outside of docs/, and links that leave it."""

import json
import os.path
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
PAGES = {
    "index.md": "README.md",
    "quickstart.md": "docs/quickstart.ipynb",
    "benchmarks.md": "benchmarks/README.md",
    "changelog.md": "CHANGELOG.md",
}
LINK = re.compile(r"\[([^][]*)\]\(([^():#]+)(#[^()]*)?\)")


def on_files(files: Files, config: Any) -> None:
    """Add PAGES to the site; the notebook takes the place of its file."""
    for uri, source in PAGES.items():
        if shown := files.get_file_from_path(source.removeprefix("docs/")):
            files.remove(shown)
        text = (ROOT / source).read_text(encoding="utf-8")
        if source.endswith(".ipynb"):
            text = "\n\n".join(map(cell_text, json.loads(text)["cells"]))
        files.append(File.generated(config, uri, content=text))


def cell_text(cell: dict[str, Any]) -> str:
    """Return a cell of a notebook as Markdown; results are not shown."""
    text = "".join(cell["source"])
    return text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links to the repository's files into links to pages; of no page the text is left."""
    here = (ROOT / PAGES.get(page.file.src_uri, "docs/page")).parent
    page_of = {source: uri for uri, source in PAGES.items()}

    def link(found: re.Match[str]) -> str:
        text, target, anchor = found.groups(default="")
        path = os.path.relpath(here / target, ROOT)
        uri = page_of.get(path) or path.removeprefix("docs/")
        return f"[{text}]({uri}{anchor})" if uri != path else text

    return LINK.sub(link, markdown)
