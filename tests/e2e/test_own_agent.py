"""An agent as `./livoa agent new` writes it, beside the samples of `./livoa up`: as docs/agents.md says to make it known."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.plans import request_of, search
from tests.e2e.stack import ROOT, up

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
FIGURES = {"values": [1, 2, 3.5], "unit": "GBP"}


@contextmanager
def serving(folder: Path, authority: Path) -> Iterator[str]:
    """The agent in ``folder``, which trusts the keys of a stack's data folder; its address."""
    command = [sys.executable, "-m", "order_status_agent", "--authority", str(authority), "--port", "0", "--json"]
    process = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        yield str(json.loads(process.stdout.readline())["url"])
    finally:
        process.terminate()
        assert process.wait(30) == 0


def catalog_with(manifest: Path, folder: Path) -> Path:
    """Ours with one capability more, which contoso has enabled."""
    shutil.copytree(ROOT / "catalog", folder, ignore=shutil.ignore_patterns("samples"))
    shutil.copy(manifest, folder / "capabilities")
    page = folder / "tenants" / "contoso.yaml"
    enabled = "enabled_capabilities:\n"
    page.write_text(page.read_text().replace(enabled, f"{enabled}  - order_status.describe\n"))
    return folder


def test_an_agent_of_ones_own_is_called_beside_the_samples(tmp_path: Path) -> None:
    new = [sys.executable, "-m", "cli", "agent", "new", "order-status"]
    subprocess.run(new, cwd=tmp_path, env=ENVIRONMENT, check=True, capture_output=True, timeout=60)
    folder, data = tmp_path / "order-status", tmp_path / "data"
    catalog = catalog_with(folder / "manifests" / "order_status.describe.yaml", tmp_path / "catalog")
    with serving(folder, data) as url:
        settings = {"LIVOA_CATALOG": str(catalog), "LIVOA_AGENT_ENDPOINTS": json.dumps({"order-status": url})}
        with up(data, "--workers", "0", settings=settings) as stack:
            client = stack.client("contoso")
            own = {"id": "figures", "capability": "order_status.describe", "inputs": FIGURES}
            run_id = client.submit(request_of(search("found"), own))
            assert client.finished(run_id)["status"] == "succeeded", client.steps(run_id)
            kpis = {kpi["name"]: kpi["value"] for kpi in client.output(run_id, "figures")["kpis"]}
            assert kpis["sum"] == 6.5
            assert client.output(run_id, "found")["passages"], "the samples are called as before"
