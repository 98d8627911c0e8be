"""The service's description says what the service does: paths, statuses, codes."""

import json
import re
from pathlib import Path
from typing import Any

from starlette.routing import Route

import attest.log
from attest.log import service
from attest.rejections import TABLE

DESCRIPTION = json.loads(
    (Path(attest.log.__file__).parent / "openapi.json").read_text(encoding="utf-8")
)


def test_it_names_every_path_that_is_served_and_no_other(quiet: Any) -> None:
    app = quiet.server.application
    served = {
        re.sub(r":\w+\}", "}", route.path): route.methods - {"HEAD"}
        for route in app.routes
        if isinstance(route, Route) and route.methods
    }
    told = {path: {verb.upper() for verb in item} for path, item in DESCRIPTION["paths"].items()}
    assert served == told


def test_it_lists_every_code_and_each_has_a_status_that_the_path_may_answer() -> None:
    body = DESCRIPTION["components"]["responses"]["Refusal"]["content"]["application/json"]
    assert body["schema"]["properties"]["code"]["enum"] == sorted(TABLE)
    told = set(DESCRIPTION["paths"]["/submit"]["post"]["responses"])
    assert {str(said.status) for said in TABLE.values()} - {"404", "405"} <= told


def test_it_is_served(quiet: Any) -> None:
    assert quiet.get("/openapi.json").json == DESCRIPTION
    assert service.MAX_BODY_BYTES == 8 << 20
    assert "8388608 bytes" in DESCRIPTION["paths"]["/submit"]["post"]["description"]


def test_answers_have_the_fields_that_it_demands(quiet: Any) -> None:
    def schema(path: str, status: str = "200") -> dict[str, Any]:
        content = DESCRIPTION["paths"][path]["get"]["responses"][status]["content"]
        return next(iter(content.values()))["schema"]

    (run,) = quiet.get("/runs").json["runs"]
    place = schema("/run/{run}")
    assert set(place["required"]) == set(place["properties"]) == set(run)
    assert quiet.get(f"/run/{run['run']}").json == run
    for path in ("/names", "/healthz"):
        assert set(schema(path)["required"]) <= set(quiet.get(path).json)
