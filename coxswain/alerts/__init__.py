"""Alerts: what the rules find, and what becomes of it (management-plane.md 7). Plain functions of plain values.

| module | what it knows |
|---|---|
| ``model`` | what a finding and an alert are |
| ``lifecycle`` | when a finding opens an alert, adds to one, or is nothing new |
| ``facts`` | evidence as lines that people read |
| ``view`` | an alert as the API and the live stream show it |
| ``webhook`` | one signed POST |
| ``settings`` | which rules are on, their thresholds, whom they leave alone |
| ``fleet_health`` | rules about nodes that are down, wrong or cannot be mended, with hysteresis |
| ``device_rules`` | rules about one device, all in their order |
| ``place_rules`` | those of them that ask where it was |
| ``device_case`` | what they are given, and how they say what they found |
| ``stays`` | for how long a device was where, and what was at the same time |
| ``history`` | what is kept of a device when its events are gone |
| ``login_rules`` | rules about logins, admins and tokens |
| ``claim_rules`` | the rule about links that were tried again |
| ``estate_rules`` | rules about certificates, the audit log, the disk, peers that nobody made |

A rule of a kind in ``model.CONDITIONS`` says what *is*, and its alerts end by themselves when that is over. All others say
what *happened*; their alerts stay until somebody resolves them.
"""
