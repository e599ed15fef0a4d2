"""SIGKILL of the daemon in the middle of claims: a ticket is unused, or there is a device with all that belongs to it."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from coxswain.errors import CoxswainError
from tests.caravel import Caravel, leg_to
from tests.fleet import Daemon, killed_at_work

KILLS = 3
CLAIMERS = 3


@dataclass(frozen=True, slots=True)
class Invite:
    """An invitation that somebody was given."""

    ticket: str
    url: str


@pytest.mark.timeout(300)
def test_a_ticket_is_unused_or_its_device_is_whole(daemon: Daemon) -> None:
    rng = random.Random(11)
    client = daemon.client()
    user = client.post("/api/users", {"name": "Ann"})["id"]
    daemon.kill()
    leg = leg_to(daemon)
    daemon.start()
    enrolled: list[Caravel] = []
    cut_off: list[Invite] = []
    spent: set[str] = set()

    def claim(invite: Invite, *, again: bool) -> None:
        """Of a claim that was cut off nobody knows whether it was made; if it was, the link is used."""
        device = Caravel()
        try:
            device.enroll(leg, invite.url)
        except grpc.RpcError as failed:
            error: Any = failed
            if not again or error.code() is not grpc.StatusCode.UNAUTHENTICATED:
                raise
            spent.add(invite.ticket)
        else:
            enrolled.append(device)

    def join() -> None:
        """One device after the other, until the daemon is gone."""
        client = daemon.client()
        while True:
            try:
                invite, again = cut_off.pop(), True
            except IndexError:
                try:
                    made = client.post(f"/api/users/{user}/invite", {"relay": "r.example:443"})
                except (CoxswainError, OSError):
                    return
                invite, again = Invite(made["ticket_id"], made["url"]), False
            try:
                claim(invite, again=again)
            except grpc.RpcError as failed:
                error: Any = failed
                cut_off.append(invite)
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    return
                time.sleep(0.05)  # it said: not so fast

    try:
        leg.patient = False
        for _ in range(KILLS):
            killed_at_work(daemon, join, CLAIMERS, enrolled, rng, 0.5)
            daemon.start()

        leg.patient = True
        # Whoever was told that it is enrolled, is; and a link whose claim was cut off is good for another one, or used.
        for device in enrolled[:20]:
            device.sync(leg)
        for invite in cut_off:
            claim(invite, again=True)
        _look(daemon, user, spent)
    finally:
        leg.close()
    assert daemon.stop() == 0


def _look(daemon: Daemon, user: str, spent: set[str]) -> None:
    client = daemon.client()
    tickets = client.get(f"/api/users/{user}/invites?limit=1000")
    devices = {device["id"] for device in client.get(f"/api/users/{user}/devices")}
    used = {ticket["used_by_device_id"] for ticket in tickets if ticket["used_at"] is not None}
    assert spent <= {ticket["id"] for ticket in tickets if ticket["used_at"] is not None}
    assert used == devices, "a device for each ticket that was used, and none besides"
    claims = client.get("/api/audit?action=enroll.claim&result=ok&limit=1000")
    assert {claim["target_id"] for claim in claims} == devices
    for device_id in devices:
        device = client.get(f"/api/devices/{device_id}")
        assert device["identity"] is not None
        assert device["credentials"] and device["profile_revision"] >= 1
