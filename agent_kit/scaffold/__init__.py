"""A new agent: a folder with one capability that works, its manifest, tests, a Dockerfile and words."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template

_TEMPLATE = Path(__file__).parent / "template"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
MAX_NAME = 40


def create(name: str, folder: Path) -> tuple[Path, ...]:
    """Write the agent ``name`` into ``folder``, which must be empty or not exist; the files written, in order.

    Raises ``ValueError`` for a name that is not lower-case words with hyphens, or a folder that holds something; ``OSError``.
    """
    if _NAME.fullmatch(name) is None or len(name) > MAX_NAME:
        raise ValueError(f"a name is lower-case letters, digits and single hyphens, at most {MAX_NAME}: {name!r}")
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds something already")
    word = name.replace("-", "_")
    words = {"name": name, "word": word, "package": f"{word}_agent", "title": name.replace("-", " ").capitalize()}
    written = []
    for source in sorted(_TEMPLATE.rglob("*.tmpl")):
        place = source.relative_to(_TEMPLATE).with_suffix("")
        target = folder / Path(*(Template(part).substitute(words) for part in place.parts))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(Template(source.read_text(encoding="utf-8")).substitute(words), encoding="utf-8")
        written.append(target)
    return tuple(written)
