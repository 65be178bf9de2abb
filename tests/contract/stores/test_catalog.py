"""What every catalog promises, and that a catalog of files is used whole or refused with file and field."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.adapters.files import FilesCatalog
from engine.adapters.memory import MemoryCatalog
from engine.domain.capability import Capability
from engine.domain.errors import LivoaError
from engine.domain.playbook import Playbook
from engine.ports.catalog import Catalog

QUERY: dict[str, Any] = {
    "name": "sales.query",
    "version": "1.0.0",
    "title": "Query sales",
    "description": "Sales per channel.",
    "delivery": "http",
    "endpoint": "analytics",
    "input_schema": {
        "type": "object",
        "properties": {"channel": {"type": "string", "pattern": "^[a-z]+$"}, "note": {"type": "string"}},
        "required": ["channel"],
    },
    "parameters": {"channel": "selector", "note": "payload"},
    "output_schema": {"$defs": {"row": {"type": "object"}}, "type": "array", "items": {"$ref": "#/$defs/row"}},
    "timeout_s": 5,
    "cost": {"per_call_micro_usd": 20},
}
REVIEW: dict[str, Any] = {
    "name": "sales_review",
    "version": "1.0.0",
    "title": "Review sales",
    "description": "What happened.",
    "examples": ["How were sales?"],
    "parameters": [{"name": "channel", "source": "choice", "choices": ["tv", "radio"], "synonyms": {"tv": ["telly"]}}],
    "plan": {"steps": [{"id": "a", "capability": "sales.query", "inputs": {"channel": {"$param": "channel"}}}]},
}


def write(root: Path, *pages: dict[str, Any]) -> Path:
    for page in pages:
        folder = root / ("playbooks" if "plan" in page else "capabilities")
        folder.mkdir(exist_ok=True)
        (folder / f"{page['name']}.yaml").write_text(yaml.safe_dump(page, sort_keys=False))
    return root


def changed(page: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    page = copy.deepcopy(page)
    *way, last = path.split(".")
    inner: Any = page
    for token in way:
        inner = inner[int(token) if isinstance(inner, list) else token]
    if isinstance(inner, list):
        inner[int(last)] = value
    else:
        inner[last] = value
    return page


def faults(root: Path) -> set[tuple[str, str]]:
    with pytest.raises(LivoaError) as caught:
        FilesCatalog(root)
    assert (caught.value.code, caught.value.status) == ("catalog.invalid", 500)
    return {(v.code, v.pointer) for v in caught.value.violations}


@pytest.fixture(params=["memory", "files"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Catalog:
    if request.param == "memory":
        return MemoryCatalog([Capability(**QUERY)], [Playbook(**REVIEW)])
    return FilesCatalog(write(tmp_path, QUERY, REVIEW))


def test_manifests_and_playbooks_are_found_by_name(catalog: Catalog) -> None:
    assert dict(catalog.capabilities) == {"sales.query": Capability(**QUERY)}
    assert dict(catalog.playbooks) == {"sales_review": Playbook(**REVIEW)}


def test_a_catalog_cannot_be_changed(catalog: Catalog) -> None:
    with pytest.raises(TypeError):
        catalog.capabilities["x.y"] = Capability(**QUERY)  # type: ignore[index]


def test_the_version_is_the_content_whatever_it_was_read_from(catalog: Catalog) -> None:
    assert catalog.version == MemoryCatalog([Capability(**QUERY)], [Playbook(**REVIEW)]).version
    for other in (
        MemoryCatalog([Capability(**QUERY)]),
        MemoryCatalog([Capability(**changed(QUERY, "cost.per_call_micro_usd", 21))], [Playbook(**REVIEW)]),
        MemoryCatalog([Capability(**QUERY)], [Playbook(**changed(REVIEW, "plan.steps.0.id", "b"))]),
    ):
        assert other.version != catalog.version


def test_the_version_does_not_depend_on_how_pages_are_written(tmp_path: Path) -> None:
    version = FilesCatalog(write(tmp_path, QUERY, REVIEW)).version
    page = tmp_path / "capabilities" / "sales.query.yaml"
    page.write_text("# a comment\n" + yaml.safe_dump(QUERY, sort_keys=True, default_flow_style=True))
    assert FilesCatalog(tmp_path).version == version


BAD_CAPABILITIES = [
    ("name", "sales", "catalog.page_invalid", "sales.yaml#/name"),
    ("version", 1.0, "catalog.page_invalid", "#/version"),
    ("delivery", "pigeon", "catalog.page_invalid", "#/delivery"),
    ("timeout_s", "5", "catalog.page_invalid", "#/timeout_s"),
    ("idempotent", "yes", "catalog.page_invalid", "#/idempotent"),
    ("colour", "red", "catalog.page_invalid", "#/colour"),
    ("cost.per_call_micro_usd", -1, "catalog.page_invalid", "#/cost/per_call_micro_usd"),
    ("parameters.note", "content", "catalog.page_invalid", "#/parameters/note"),
    ("parameters.nothing", "payload", "catalog.parameter_unknown", "#/parameters/nothing"),
    ("input_schema.type", "array", "catalog.schema_invalid", "#/input_schema/type"),
    ("input_schema.type", "objekt", "catalog.schema_invalid", "#/input_schema/type"),
    ("input_schema.required", "channel", "catalog.schema_invalid", "#/input_schema/required"),
    (
        "input_schema.properties.channel.pattern",
        "[",
        "catalog.schema_invalid",
        "#/input_schema/properties/channel/pattern",
    ),
    ("output_schema.items", 5, "catalog.schema_invalid", "#/output_schema/items"),
    ("output_schema.$defs.row", {"minItems": -1}, "catalog.schema_invalid", "#/output_schema/$defs/row/minItems"),
    ("output_schema.items.$ref", "https://x/y", "catalog.schema_remote", "#/output_schema/items/$ref"),
    (
        "output_schema.$schema",
        "http://json-schema.org/draft-07/schema#",
        "catalog.schema_invalid",
        "#/output_schema/$schema",
    ),
    ("inverse", {"capability": "sales.undo"}, "catalog.capability_unknown", "#/inverse/capability"),
    ("fallback", "sales.other", "catalog.capability_unknown", "#/fallback"),
    ("fallback", "sales.query", "catalog.capability_unknown", "#/fallback"),
]


@pytest.mark.parametrize(("path", "value", "code", "place"), BAD_CAPABILITIES)
def test_a_wrong_manifest_is_refused_with_file_and_field(
    tmp_path: Path, path: str, value: Any, code: str, place: str
) -> None:
    page = changed(QUERY, path, value)
    found = faults(write(tmp_path, page))
    expected = place if ".yaml" in place else f"{page['name']}.yaml{place}"
    assert (code, f"capabilities/{expected}") in found


BAD_PLAYBOOKS = [
    ("examples", [], "catalog.page_invalid", "#/examples"),
    ("parameters.0.choices", [], "catalog.choices_missing", "#/parameters/0/choices"),
    ("parameters.0.synonyms", {"print": ["paper"]}, "catalog.choice_unknown", "#/parameters/0/synonyms/print"),
    ("plan.steps.0.capability", "sales.guess", "catalog.capability_unknown", "#/plan/steps/0/capability"),
    (
        "plan.steps.0.inputs",
        {"a/b": [{"$param": "other"}]},
        "catalog.parameter_unknown",
        "#/plan/steps/0/inputs/a~1b/0/$param",
    ),
    ("parameters", [{"name": "channel"}, {"name": "channel"}], "catalog.parameter_repeated", "#/parameters/1/name"),
]


@pytest.mark.parametrize(("path", "value", "code", "place"), BAD_PLAYBOOKS)
def test_a_wrong_playbook_is_refused_with_file_and_field(
    tmp_path: Path, path: str, value: Any, code: str, place: str
) -> None:
    found = faults(write(tmp_path, QUERY, changed(REVIEW, path, value)))
    assert (code, f"playbooks/sales_review.yaml{place}") in found


def test_every_fault_is_reported_at_once(tmp_path: Path) -> None:
    write(tmp_path, changed(changed(QUERY, "timeout_s", 0), "version", "one"), changed(REVIEW, "title", 5))
    assert {pointer.split("#")[1] for _, pointer in faults(tmp_path)} == {"/timeout_s", "/version", "/title"}


def test_a_parameter_without_a_class_is_reported_and_counts_as_a_selector(tmp_path: Path) -> None:
    catalog = FilesCatalog(write(tmp_path, changed(QUERY, "parameters", {"channel": "control"})))
    assert [(r.code, r.pointer) for r in catalog.remarks] == [
        ("catalog.parameter_unclassified", "capabilities/sales.query.yaml#/input_schema/properties/note")
    ]
    assert catalog.capabilities["sales.query"].parameter_class("note") == "selector"


@pytest.mark.parametrize("make", [lambda root: None, lambda root: (root / "capabilities").mkdir()])
def test_an_empty_catalog_is_refused(tmp_path: Path, make: Any) -> None:
    make(tmp_path)
    assert faults(tmp_path) == {("catalog.empty", "")}


def raw(root: Path, text: str | bytes, name: str = "sales.query.yaml") -> Path:
    write(root, QUERY)
    page = root / "capabilities" / name
    page.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


VALID = yaml.safe_dump(QUERY, sort_keys=False)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (VALID + "title: Again\n", "#/title"),
        (VALID.replace("  type: object\n", "  type: object\n  type: object\n", 1), "#/input_schema/type"),
        (VALID + "lease_s: !!python/object/apply:os.getpid []\n", "#/lease_s"),
        (VALID + "sla: !!binary aGFsbG8=\n", "#/sla"),
        (VALID + "? [a, b]\n: c\n", "#"),
        (VALID + "lease_s: 9007199254740993\n", "#/lease_s"),
        (VALID + "lease_s: 1e999\n", "#/lease_s"),
        ("- a\n- b\n", "#"),
        ("", "#"),
        ("a: [", "#"),
        (VALID + "---\na: b\n", "#"),
        (b"name: \xff\n", "#"),
        ("x: " + "[" * 5000, "#"),
        ("a: &a [x, x]\nb: &b [*a, *a]\n" + "".join(f"c{n}: &c{n} [*b, *b]\n" for n in range(3)), "#/a"),
        (
            "a: &a [x, x]\n"
            + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(24)),
            "#",
        ),
        ("a: &a [*a]\n", "#"),
        ("x" * (1024 * 1024 + 1), "#"),
    ],
)
def test_a_page_that_is_no_plain_yaml_is_refused_with_its_place(tmp_path: Path, text: str | bytes, place: str) -> None:
    assert ("catalog.page_invalid", f"capabilities/sales.query.yaml{place}") in faults(raw(tmp_path, text))


def test_a_plain_word_is_text_and_never_a_guess(tmp_path: Path) -> None:
    text = VALID + 'examples: [no, 2026-01-05, 010, 1_000, 0x1F, .inf, "1", yes, 12:30]\n'
    assert FilesCatalog(raw(tmp_path, text)).capabilities["sales.query"].examples == (
        "no",
        "2026-01-05",
        "010",
        "1_000",
        "0x1F",
        ".inf",
        "1",
        "yes",
        "12:30",
    )


def test_an_alias_is_written_out(tmp_path: Path) -> None:
    text = VALID + "examples: &words [a, b]\negress_hosts: *words\n"
    assert FilesCatalog(raw(tmp_path, text)).capabilities["sales.query"].egress_hosts == ("a", "b")


@pytest.mark.parametrize("name", ["other.name.yaml", "sales.query.yml", "README"])
def test_a_page_under_another_name_is_refused(tmp_path: Path, name: str) -> None:
    assert ("catalog.page_invalid", f"capabilities/{name}#") in faults(raw(tmp_path, VALID, name))


@pytest.mark.parametrize("beside", [".sales.query.yaml.swp", "sales.query.yaml~"])
def test_what_an_editor_keeps_beside_a_page_is_no_page(tmp_path: Path, beside: str) -> None:
    root = raw(tmp_path, VALID)
    raw(tmp_path, "half a page: [", beside)
    assert list(FilesCatalog(root).capabilities) == ["sales.query"]


def test_the_catalog_of_this_repository_is_sound_and_fully_classified() -> None:
    catalog = FilesCatalog(Path(__file__).parents[3] / "catalog")
    assert catalog.capabilities
    assert catalog.remarks == ()


@pytest.mark.parametrize(
    ("path", "value", "fits"),
    [
        ("title", "Another title", True),
        ("output_label", {"integrity": 3, "confidentiality": 0, "pii": False}, True),
        ("output_label", {"integrity": 0, "confidentiality": 1, "pii": False}, False),
        ("output_label", {"integrity": 2, "confidentiality": 3, "pii": False}, False),
        ("output_label", {"integrity": 2, "confidentiality": 1, "pii": True}, False),
        ("output_schema", {"type": "object"}, False),
        ("input_schema", {"type": "object", "properties": {}}, False),
        ("side_effect", "external", False),
    ],
)
def test_what_stands_in_is_no_worse_than_what_it_stands_in_for(
    tmp_path: Path, path: str, value: Any, fits: bool
) -> None:
    label = {"integrity": 2, "confidentiality": 1, "pii": False}
    own = QUERY | {"fallback": "sales.spare", "side_effect": "read", "output_label": label}
    spare = QUERY | {"name": "sales.spare", "side_effect": "read", "output_label": label, path: value}
    if path == "input_schema":
        spare["parameters"] = {}
    root = write(tmp_path, own, spare)
    if fits:
        assert FilesCatalog(root).capabilities["sales.query"].fallback == "sales.spare"
    else:
        assert ("catalog.fallback_unfit", "capabilities/sales.query.yaml#/fallback") in faults(root)
