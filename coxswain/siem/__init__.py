"""The SIEM stream's values: what consumers may ask for, cursors, events as the contract has them (management-plane.md 5)."""
