"""Security headers on every answer of the API and the pages."""

from __future__ import annotations

from typing import Any

import falcon

__all__ = ["POLICY", "SecurityHeaders"]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
"""Content-Security-Policy: nothing from elsewhere, nothing inline, and nobody frames us."""

_ALWAYS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
    ("Content-Security-Policy", POLICY),
)


class SecurityHeaders:
    """Falcon middleware."""

    def process_response(
        self,
        _request: falcon.Request,
        response: falcon.Response,
        _resource: Any,
        _succeeded: bool,  # noqa: FBT001
    ) -> None:
        response.set_headers(_ALWAYS)
        if response.get_header("Cache-Control") is None:
            response.set_header("Cache-Control", "no-store")
