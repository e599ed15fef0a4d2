"""Backups: state, keys and audit chain in one encrypted, authenticated file.

    envelope.py       the file: chunks of authenticated ciphertext under a passphrase or a key
    archive.py        what is inside: a manifest and members, compressed, as a stream
    sqlite_copy.py    a consistent picture of a SQLite database, page by page, while others write to it
    postgres_copy.py  the same of a Postgres database, by COPY in one transaction
    revocations.py    what was revoked since, from an append-only file beside the audit log
    replay.py         the same, revoked again in the copy that is put back
    create.py, restore.py, and put_back.py for a database that came back without them

Nothing here holds more than a few chunks in memory, however large the state is. The format is in docs/backup.md.
"""
