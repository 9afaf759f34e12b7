"""Each dashboard is what Grafana's own types say one is: read by them and written again, nothing is lost or added.

The types are made from Grafana's schemas (grafana-foundation-sdk). No Grafana runs here.
"""

import json

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.files import DASHBOARDS, FOLDER
from tests.cluster.control_plane import REPOSITORY


@pytest.mark.parametrize("uid", [board.uid for board in DASHBOARDS])
def test_a_dashboard_is_what_grafanas_types_say(uid: str) -> None:
    register_default_plugins()
    text = (REPOSITORY / FOLDER / "dashboards" / f"{uid}.json").read_text()
    again = JSONEncoder(sort_keys=True, indent=2).encode(Dashboard.from_json(json.loads(text)))
    assert again + "\n" == text
