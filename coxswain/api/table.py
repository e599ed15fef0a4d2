"""All routes. A new area is a module in ``coxswain/api/areas`` and its line here."""

from __future__ import annotations

from coxswain.api.areas import (
    admins,
    alerts,
    audit,
    auth,
    ca,
    configuration,
    control_paths,
    deployment,
    devices,
    geo,
    invites,
    live,
    nodes,
    operations,
    paths,
    peers,
    policy,
    profiles,
    relays,
    series,
    servers,
    sessions,
    static,
    system,
    tokens,
    users,
)
from coxswain.api.route import Route

__all__ = ["ROUTES"]

ROUTES: tuple[Route, ...] = (
    *system.ROUTES,
    *auth.ROUTES,
    *admins.ROUTES,
    *tokens.ROUTES,
    *nodes.ROUTES,
    *geo.ROUTES,
    *users.ROUTES,
    *invites.ROUTES,
    *devices.ROUTES,
    *profiles.ROUTES,
    *peers.ROUTES,
    *sessions.ROUTES,
    *series.ROUTES,
    *alerts.ROUTES,
    *live.ROUTES,
    *ca.ROUTES,
    *audit.ROUTES,
    *configuration.ROUTES,
    *operations.ROUTES,
    *paths.ROUTES,
    *policy.ROUTES,
    *static.ROUTES,
    *servers.ROUTES,
    *relays.ROUTES,
    *control_paths.ROUTES,
    *deployment.ROUTES,
)
