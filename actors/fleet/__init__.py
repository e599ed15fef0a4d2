"""The actor ``fleet``: the inventory and its intent.

| module | what it does |
|---|---|
| ``actor`` | the actor: life, timers, which module answers which message |
| ``state`` | what all modules share: memory, transactions, doubt, finding nodes, telling the others |
| ``nodes`` | changes to nodes: add, edit, enable, remove |
| ``accounts`` | changes to users and devices; suspending, revoking |
| ``profiles`` | changes to profiles; provisioning of a device; what is handed out |
| ``enrolment`` | devices that join, with a ticket or as a file |
| ``bundles`` | sealed bundles: made anew when what is in them has changed |
| ``grants`` | what a device has, with its keys opened |
| ``provisioning`` | what these have in common: credentials and peers as profiles say |
| ``refreshing`` | provisioning of devices when a node became ready for them |
| ``peers`` | peers made by hand |
| ``waiting`` | doors that wait until nodes have acknowledged a change |
| ``paths`` | paths and the links between nodes |
| ``bindings`` | which device goes over which path, and its way to another one |
| ``health`` | how inner links are |
| ``wiring`` | what paths make of each node, worked out anew when something changes |
| ``reports`` | what links report, and what of it is written |
| ``doubt`` | reading memory again, after a commit whose answer was lost |
| ``intents`` | what links are told and may ask: the intent |
| ``questions`` | what doors ask |

A concern is a module of functions ``(fleet: FleetState, message) -> reply`` with two tables at its end: ``CHANGES``
(answers that build on what is in memory, so that it must not be in doubt) and ``QUESTIONS`` (the rest). ``actor`` puts the
tables together; a new concern is a new module and a line there.
"""

from actors.fleet.actor import Fleet

__all__ = ["Fleet"]
