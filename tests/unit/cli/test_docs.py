"""The pages people read first say what the code does."""

from __future__ import annotations

import json
import re

from cli.exit_codes import MEANINGS
from cli.main import COMMANDS
from cli.paths import ROOT


def test_the_settings_in_the_readme_are_the_sample_file():
    shown = re.search(r"```json\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert json.loads(shown.group(1)) == json.loads((ROOT / "local.settings.sample.json").read_text())


def test_every_command_and_exit_code_is_documented():
    page = (ROOT / "docs" / "cli.md").read_text()
    assert all(f"| `{name}" in page for name in COMMANDS)
    assert all(f"| {code.value} | {meaning} |" in page for code, meaning in MEANINGS.items())


PAGES = (
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    *(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")),
)


def test_commands_named_in_the_readme_exist():
    named = set(re.findall(r"\./livoa (\w+)", (ROOT / "README.md").read_text()))
    assert named
    assert named <= set(COMMANDS)


def test_commands_modules_and_files_named_in_the_guides_exist():
    text = "".join((ROOT / "docs" / page).read_text() for page in ("governance.md", "models.md", "tenants.md"))
    assert set(re.findall(r"\./livoa (\w+)", text)) <= set(COMMANDS)
    modules = [module.replace(".", "/") for module in re.findall(r"python -m ([\w.]+)", text)]
    files = re.findall(r"catalog/[a-z_/-]+\.\w+", text)
    assert modules
    assert files
    assert [module for module in modules if not (ROOT / f"{module}.py").is_file()] == []
    assert [file for file in files if not (ROOT / file).is_file()] == []


def test_the_rooms_in_the_architecture_page_exist():
    tree = (ROOT / "ARCHITECTURE.md").read_text().split("```")[1]
    top = re.findall(r"^(\w+)/", tree, re.M)
    engine = re.findall(r"^  (\w+)/ ", tree, re.M)
    assert {"triggers", "orchestrators", "engine"} <= set(top)
    assert [name for name in top if not (ROOT / name).is_dir()] == []
    assert [name for name in engine if not (ROOT / "engine" / name).is_dir()] == []


def test_links_in_the_pages_lead_somewhere():
    for page in PAGES:
        text = (ROOT / page).read_text()
        targets = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if not target.startswith("http")]
        assert [target for target in targets if not ((ROOT / page).parent / target).exists()] == []


def test_files_of_the_catalog_that_the_readme_names_exist():
    files = re.findall(r"catalog/[a-z_/-]+\.\w+", (ROOT / "README.md").read_text())
    assert files
    assert [file for file in files if not (ROOT / file).is_file()] == []
