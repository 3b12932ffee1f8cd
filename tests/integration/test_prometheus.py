"""The dashboard and the alert rules name what is served, and a real Prometheus evaluates them."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from pymig.metrics import serve
from pymig.paths import checkout
from tests.conftest import Database
from tests.waiting import until

pytestmark = pytest.mark.once

TOP: Final = checkout() or Path()
RULES: Final = TOP / "docs/prometheus/alerts.yml"
DASHBOARD: Final = TOP / "docs/grafana/pymig.json"
CREATE = """
CREATE TABLE n (ship text, ch text, ts timestamp, d float8, PRIMARY KEY (ship, ch, ts));
INSERT INTO n SELECT s, 'c', '2024-01-01'::timestamp + t * interval '1 h', t
FROM unnest('{X,Y}'::text[]) AS s, generate_series(1, 20) AS t;
CALL pymig.register_source('n', 'n', 'ship', 'ch', 'ts', '{d}');
CALL pymig.migrate('X');
CALL pymig.start_sync('Y');
CALL pymig.backfill('Y');
UPDATE pymig.entity SET estimated_rows = 1000000, state = 'syncing' WHERE entity = 'Y';
INSERT INTO n VALUES ('X', 'c', '2024-02-01', 1);
CALL pymig.sync_pending();
CALL pymig.set_throttle('mine', 5, 'SELECT 6');
SELECT pymig.look_at_throttle()
"""


def alerts() -> list[dict[str, Any]]:
    """The rules."""
    (group,) = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return list(group["rules"])


def panels() -> list[dict[str, Any]]:
    """The panels of the dashboard."""
    return list(json.loads(DASHBOARD.read_text("utf-8"))["panels"])


def expressions() -> dict[str, str]:
    """Every expression of the dashboard with its variables filled in, by its panel."""
    return {
        f"{panel['title']} {target['refId']}": re.sub(r"\$(source|ship)\b", ".*", target["expr"])
        for panel in panels()
        for target in panel["targets"]
    }


@pytest.fixture
def port(db: Database) -> int:
    """Where metrics are served of a migration with all sorts of figures."""
    conn: psycopg.Connection[Any] = db.connect()
    for statement in CREATE.split(";\n"):
        conn.execute(statement.encode())
    return serve(db.url, "127.0.0.1", 0)


def test_they_name_metrics_that_are_there(port: int) -> None:
    """Every pymig_ name in an expression is served."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    served = {f"{f.name}_total" if f.type == "counter" else f.name for f in families}
    asked = {rule["alert"]: rule["expr"] for rule in alerts()} | expressions()
    assert (len(alerts()), len(panels())) == (10, 15)
    for name, expression in asked.items():
        named = set(re.findall(r"pymig_[a-z0-9_]+", expression))
        assert named, name
        assert named <= served, name


def test_the_dashboard_can_be_imported() -> None:
    """Its data source is a variable, ids are unique, panels don't lie on each other."""
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    assert dashboard["schemaVersion"] >= 39  # Grafana 11
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert list(variables) == ["datasource", "source", "ship"]
    assert variables["datasource"]["type"] == "datasource"
    assert variables["ship"]["multi"] and variables["ship"]["includeAll"]
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        for asked in (panel, *panel["targets"]):
            assert asked["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["title"] and panel["description"].endswith(".")
        place = panel["gridPos"]
        across = range(place["x"], place["x"] + place["w"])
        fields = {(x, place["y"] + y) for x in across for y in range(place["h"])}
        assert max(x for x, _ in fields) < 24 and not fields & taken, panel["title"]
        taken |= fields
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


@pytest.fixture
def prometheus(port: int, tmp_path: Path) -> Iterator[str]:
    """The address of a Prometheus that scrapes it and evaluates the rules, each second."""
    program, tool = shutil.which("prometheus"), shutil.which("promtool")
    if not (program and tool):
        pytest.skip("no prometheus: apt-get install prometheus")
    subprocess.run([tool, "check", "rules", RULES], check=True, capture_output=True)
    config = {
        "global": {"scrape_interval": "200ms", "evaluation_interval": "200ms"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": "pymig", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        ],
    }
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    process = subprocess.Popen(
        [
            program,
            f"--config.file={file}",
            f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address={address}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://{address}/api/v1"
    finally:
        process.kill()
        process.wait()


def _ask(address: str, path: str, **parameters: str) -> Any:
    query = urllib.parse.urlencode(parameters)
    try:
        with urllib.request.urlopen(f"{address}/{path}?{query}", timeout=20) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        if error.code == 503:
            return None  # it has not begun to work
        raise AssertionError(f"{parameters}: {error.read().decode()}") from error
    except OSError:
        return None  # it has not begun to listen


def test_a_real_prometheus_evaluates_them(prometheus: str) -> None:
    """No rule is in error, and every panel has something to draw."""

    def is_scraped() -> bool:
        found = _ask(prometheus, "query", query="count_over_time(pymig_up[1m]) > 3")
        return bool(found and found["result"])

    until(is_scraped, "nothing is scraped")
    for name, expression in expressions().items():
        assert _ask(prometheus, "query", query=expression)["result"], name
    variables = json.loads(DASHBOARD.read_text("utf-8"))["templating"]["list"]
    for variable in variables[1:]:
        metric = variable["definition"].replace("$source", ".*")
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", metric)
        assert found
        values = _ask(prometheus, f"label/{found[2]}/values", **{"match[]": found[1]})
        assert values == {"source": ["n"], "ship": ["X", "Y"]}[found[2]]

    def evaluated() -> list[dict[str, Any]]:
        (group,) = _ask(prometheus, "rules")["groups"]
        return list(group["rules"])

    until(lambda: all(rule["health"] != "unknown" for rule in evaluated()), "rules are not run")
    assert [rule for rule in evaluated() if rule["health"] != "ok"] == []
    assert len(evaluated()) == len(alerts())
