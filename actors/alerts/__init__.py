"""The actor ``alert_engine``: runs the rules, keeps the alerts.

| module | what it does |
|---|---|
| ``actor`` | the actor: life, timers, whose turn it is |
| ``book`` | findings become alerts, alerts are handled; the store, the audit record, the frames |
| ``sweep`` | one sweep, a slice at a time: what is read, what is remembered |
| ``notifier`` | sends alerts out |
| ``nodes`` | what is known of each node, for the rules that must react at once |
"""

from actors.alerts.actor import AlertEngine

__all__ = ["AlertEngine"]
