"""The certificate authority, described without its keys."""

from __future__ import annotations

from typing import Any

from coxswain.api import views
from coxswain.api.call import Call
from coxswain.api.route import Route, Scope
from coxswain.api.schema import BOOL, STAMP, TEXT, array, choice, nullable, obj, shape
from coxswain.messages import ca

__all__ = ["ROUTES"]

_AUTHORITY = obj(
    {
        "role": TEXT,
        "state": choice("signs", "heir", "retired"),
        "subject": TEXT,
        "serial": TEXT,
        "not_before": nullable(STAMP),
        "not_after": nullable(STAMP),
        "fingerprint": TEXT,
    }
)
_LEAF = obj(
    {
        "holder": TEXT,
        "serial": TEXT,
        "server_name": TEXT,
        "not_after": nullable(STAMP),
        "renewal_due": BOOL,
        "revoked_at": nullable(STAMP),
    }
)
CA = shape("Ca", obj({"key_source": TEXT, "authorities": array(_AUTHORITY), "leaves": array(_LEAF)}))


def _describe(call: Call) -> Any:
    return views.ca(call.ask("certificate_authority", ca.DescribeCa()))


ROUTES = (Route("GET", "/api/ca", Scope.READONLY, "The CA and the certificates that it issued.", _describe, returns=CA),)
