"""The fleet as a file: read it, compare it with what is there, make the one the other. Everything goes through the API."""
