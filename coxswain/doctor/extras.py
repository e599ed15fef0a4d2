"""What is there only where somebody wants it: the SIEM stream's certificate, the GeoIP database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from coxswain.config import Config
from coxswain.doctor.finding import Finding, fail, ok, warn
from coxswain.errors import CoxswainError
from coxswain.words import counted

__all__ = ["check_geoip", "check_siem"]

_SOON_DAYS = 21.0
_OLD_DAYS = 90.0
_DAY_S = 86_400.0


def check_siem(config: Config, *, now: float) -> Iterator[Finding]:
    """Its files can be used, and for long enough. Nothing where there is no stream, or none with TLS."""
    certificate, client_ca = config["siem.tls_cert"], config["siem.client_ca"]
    if not config["siem.listen"] or not certificate:
        return
    from cryptography import x509  # noqa: PLC0415 - costs time, and is needed only here

    from coxswain.siem.tls import MonitorTls  # noqa: PLC0415 - as above

    try:
        MonitorTls(Path(certificate), Path(config["siem.tls_key"]), Path(client_ca) if client_ca else None).credentials()
        found = x509.load_pem_x509_certificate(Path(certificate).read_bytes())
    except (CoxswainError, OSError, ValueError) as error:
        remedy = getattr(error, "remedy", "") or "Put its certificate and key there; they are taken up without a restart."
        yield fail("SIEM stream", f"nobody can subscribe: {error}", remedy)
        return
    days = (found.not_valid_after_utc.timestamp() - now) / _DAY_S
    renew = "Renew it; the new one is taken up without a restart."
    if days < 0:
        yield fail("SIEM stream", f"its certificate expired {counted(round(-days), 'day')} ago", renew)
    elif days < _SOON_DAYS:
        yield warn("SIEM stream", f"its certificate expires in {counted(round(days), 'day')}", renew)
    else:
        yield ok("SIEM stream", f"its certificate is good for {counted(round(days), 'day')}")


def check_geoip(config: Config, *, now: float) -> Iterator[Finding]:
    """The database that is used is one, and not from long ago. There need not be any."""
    from coxswain.geoip import candidates, check_database  # noqa: PLC0415 - costs time

    present = next((path for path in candidates(config["geoip_db"], config.state_dir) if path.is_file()), None)
    if present is None:
        return
    try:
        check_database(present)
        days = (now - present.stat().st_mtime) / _DAY_S
    except (ValueError, OSError) as error:
        yield fail("GeoIP", f"{present} cannot be used: {error}", "Fetch another one with: cox geoip update")
        return
    if days > _OLD_DAYS:
        yield warn(
            "GeoIP", f"{present.name} is {counted(round(days), 'day')} old", "Fetch a fresh one with: cox geoip update"
        )
    else:
        yield ok("GeoIP", f"{present.name} is {counted(round(max(days, 0)), 'day')} old")
