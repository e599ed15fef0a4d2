"""Who may do what, as plain functions: passwords, one-time codes, tokens, throttling. ``actors.access`` owns the state."""
