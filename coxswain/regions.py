"""Where the regions of common hosters are (management-plane.md 11), for the map of a fleet without a GeoIP database."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["REGIONS", "Region", "region"]


@dataclass(frozen=True, slots=True)
class Region:
    """A place in degrees."""

    latitude: float
    longitude: float
    city: str
    country: str


_PLACES = (
    (("nyc",), 40.71, -74.01, "New York", "US"),
    (("ewr",), 40.74, -74.17, "New Jersey", "US"),
    (("sfo",), 37.77, -122.42, "San Francisco", "US"),
    (("tor",), 43.65, -79.38, "Toronto", "CA"),
    (("ams",), 52.37, 4.9, "Amsterdam", "NL"),
    (("lon", "eu-west-2"), 51.51, -0.13, "London", "GB"),
    (("fra", "eu-central-1"), 50.11, 8.68, "Frankfurt", "DE"),
    (("blr",), 12.97, 77.59, "Bangalore", "IN"),
    (("sgp", "ap-southeast-1"), 1.35, 103.82, "Singapore", "SG"),
    (("syd", "ap-southeast-2"), -33.87, 151.21, "Sydney", "AU"),
    (("nbg",), 49.45, 11.08, "Nuremberg", "DE"),
    (("fsn",), 50.48, 12.34, "Falkenstein", "DE"),
    (("hel",), 60.17, 24.94, "Helsinki", "FI"),
    (("ash",), 39.04, -77.49, "Ashburn", "US"),
    (("hil",), 45.52, -122.99, "Hillsboro", "US"),
    (("nrt", "ap-northeast-1"), 35.69, 139.69, "Tokyo", "JP"),
    (("tyo",), 35.69, 139.69, "Tokyo", "JP"),
    (("waw",), 52.23, 21.01, "Warsaw", "PL"),
    (("cdg",), 48.85, 2.35, "Paris", "FR"),
    (("us-east-1",), 38.95, -77.45, "N. Virginia", "US"),
    (("us-east-2",), 40.0, -83.0, "Ohio", "US"),
    (("us-west-1",), 37.77, -122.42, "N. California", "US"),
    (("us-west-2",), 45.84, -119.7, "Oregon", "US"),
    (("eu-west-1",), 53.41, -8.24, "Ireland", "IE"),
    (("ap-south-1",), 19.08, 72.88, "Mumbai", "IN"),
    (("sa-east-1",), -23.55, -46.63, "São Paulo", "BR"),
    (("us-central1",), 41.26, -95.86, "Iowa", "US"),
    (("europe-west1",), 50.45, 3.82, "Belgium", "BE"),
    (("asia-southeast1",), 1.35, 103.82, "Singapore", "SG"),
)

REGIONS = {code: Region(lat, lon, city, country) for codes, lat, lon, city, country in _PLACES for code in codes}
"""By code; a hoster's numbered sites (``fra1``) are found without their number."""


def region(code: str) -> Region | None:
    """None for a code that nobody knows."""
    name = code.strip().lower()
    return REGIONS.get(name) or REGIONS.get(name.rstrip("0123456789"))
