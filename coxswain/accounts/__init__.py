"""How users' devices join the fleet and fetch what they are given (accounts-profiles.md 2 to 5).

| module | what it does |
|---|---|
| ``primitives`` | the algorithms and the strict base64 that all formats share |
| ``sealed`` | ``SealedBundle``: a profile document that only one device can open |
| ``keyblob`` | a private key under a passphrase, as legacy clients keep it with the controller |
| ``container`` | ``.pharos`` files |
| ``identity`` | ``.pharosid`` files: a device's certificate and keys |
| ``invites`` | tickets, join links and their QR codes |
| ``buckets`` | how often somebody may try |
| ``requests`` | what callers send to AccountSync, checked; and what errors are to them |

All of it is pure: randomness and time are arguments. ``actors/accounts`` serves it.
"""
