"""The documented API against the running one: requests made up from the document, good ones and bad ones.

No unhandled failure, no status that the document does not have, no answer that does not fit its schema.
"""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from coxswain import __version__
from coxswain.api.openapi import document
from coxswain.api.table import ROUTES
from tests.coxswain.api.conftest import token
from tests.fleet import Controller

_LEFT_OUT = ("/api/chaos", "/api/events")
"""The first is there to break things, the second never ends."""

_CHECKS = (status_code_conformance, content_type_conformance, response_schema_conformance)

schema = schemathesis.openapi.from_dict(document(ROUTES, __version__)).exclude(path=list(_LEFT_OUT))


@pytest.fixture(scope="module")
def admin_token(webbed: Controller) -> str:
    webbed.client.post("/api/nodes", {"name": "there", "control_addr": "192.0.2.1"})
    return token(webbed, "admin")


@schema.parametrize()
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_the_api_is_what_its_document_says(case: schemathesis.Case, webbed: Controller, admin_token: str) -> None:
    answer = case.call(base_url=f"http://{webbed.listen}", headers={"Authorization": f"Bearer {admin_token}"})
    assert answer.status_code != 500, answer.text
    case.validate_response(answer, checks=_CHECKS)
