"""The live stream: what happens, numbered, as frames for whoever watches (management-plane.md 4)."""
