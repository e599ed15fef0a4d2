"""SIGKILL of the daemon in the middle of claims: a ticket is unused, or there is a device with all that belongs to it."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import grpc
import pytest

from coxswain.errors import CoxswainError
from tests.caravel import Caravel, leg_to
from tests.fleet import Daemon, killed_at_work

KILLS = 3
CLAIMERS = 3


@pytest.mark.timeout(300)
def test_a_ticket_is_unused_or_its_device_is_whole(daemon: Daemon) -> None:
    rng = random.Random(11)
    client = daemon.client()
    user = client.post("/api/users", {"name": "Ann"})["id"]
    daemon.kill()
    leg = leg_to(daemon)
    daemon.start()
    enrolled: list[Caravel] = []
    open_links: list[str] = []
    lock = threading.Lock()

    def join() -> None:
        """One device after the other, until the daemon is gone."""
        client = daemon.client()
        while True:
            try:
                with lock:
                    url = open_links.pop() if open_links else ""
                url = url or str(client.post(f"/api/users/{user}/invite", {"relay": "r.example:443"})["url"])
            except (CoxswainError, OSError):
                return
            device = Caravel()
            try:
                device.enroll(leg, url)
            except grpc.RpcError as failed:
                error: Any = failed
                if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                    time.sleep(0.05)  # it said: not so fast
                    continue
                with lock:
                    open_links.append(url)
                return
            with lock:
                enrolled.append(device)

    try:
        leg.patient = False
        for _ in range(KILLS):
            killed_at_work(daemon, join, CLAIMERS, enrolled, rng, 0.5)
            daemon.start()

        leg.patient = True
        # Whoever was told that it is enrolled, is; and a link whose claim was cut off is good for another one.
        for device in enrolled[:20]:
            device.sync(leg)
        for url in open_links:
            Caravel().enroll(leg, url)
        _look(daemon, user)
    finally:
        leg.close()
    assert daemon.stop() == 0


def _look(daemon: Daemon, user: str) -> None:
    client = daemon.client()
    tickets = client.get(f"/api/users/{user}/invites?limit=1000")
    devices = {device["id"] for device in client.get(f"/api/users/{user}/devices")}
    used = {ticket["used_by_device_id"] for ticket in tickets if ticket["used_at"] is not None}
    assert used == devices, "a device for each ticket that was used, and none besides"
    claims = client.get("/api/audit?action=enroll.claim&result=ok&limit=1000")
    assert {claim["target_id"] for claim in claims} == devices
    for device_id in devices:
        device = client.get(f"/api/devices/{device_id}")
        assert device["identity"] is not None
        assert device["credentials"] and device["profile_revision"] >= 1
